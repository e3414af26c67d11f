"""Options of the phantom go in; DICOM mammograms of generated women and their exam and finding tables come out."""

import csv
import hashlib
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from rich.console import Console
from rich.progress import Progress

from siamray.config import DataConfig, PhantomConfig
from siamray.data.exams import EXAM_COLUMNS, FINDING_COLUMNS, VIEWS, ExamTables, tables
from siamray.data.processes import processors, shared_out
from siamray.data.sources.phantom_anatomy import Floats, View, Woman, imagine, render
from siamray.errors import UserError
from siamray.files import write_atomically, write_json

# Raised whenever the same options draw other pictures, so that an older cache is not taken for the new one.
FORMAT = 1
MARKER = "phantom.json"
# Stored value = OFFSET + SCALE * grey level; the window shows this range.
OFFSET, SCALE = 120, 3840
_STORED_MAXIMUM = 4095


def read(config: DataConfig, cache: Path) -> ExamTables:
    """Reads the tables of the generated women, generating first what is missing.

    Args:
        config: data.phantom holds the options; data.root the folder, or null for one in the cache.
        cache: folder that holds the phantoms of data.root=null, by the hash of their options.

    Returns:
        The tables; files are DICOM mammograms.

    Raises:
        UserError: the root holds other things or phantoms of other options, or cannot be written.
    """
    options = config.phantom
    root = _root(config, cache)
    marker = _read_marker(root, options)
    if marker is None or not marker["finished"]:
        _generate(root, options)
    exams = pd.read_csv(root / "exams.csv", dtype={"birads": "Int64"}).to_dict("records")
    findings = pd.read_csv(root / "findings.csv").to_dict("records")
    placed = [{**exam, "path": str(root.resolve() / str(exam["path"]))} for exam in exams]
    return tables(_words(placed), _words(findings))


def is_there(config: DataConfig, cache: Path) -> bool:
    """Says whether the women of a configuration have been generated, so that read only reads."""
    marker = _read_marker(_root(config, cache), config.phantom)
    return marker is not None and bool(marker["finished"])


def _root(config: DataConfig, cache: Path) -> Path:
    return Path(config.root).expanduser() if config.root else cache / f"phantom-{options_hash(config.phantom)}"


def options_hash(options: PhantomConfig) -> str:
    """Returns a short name for the pictures that options draw."""
    text = json.dumps({"format": FORMAT, **_plain(options)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _words(records: list[Any]) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in record.items()} for record in records]


def _plain(options: PhantomConfig) -> dict[str, Any]:
    """Returns the options as a dictionary, whether they come as a dataclass or from OmegaConf."""
    return {name: type(default)(getattr(options, name)) for name, default in asdict(PhantomConfig()).items()}


def _read_marker(root: Path, options: PhantomConfig) -> dict[str, Any] | None:
    """Returns what the folder says of itself, or None where nothing was generated yet.

    Raises:
        UserError: the folder holds something else, or phantoms of other options.
    """
    if not root.exists():
        return None
    if not root.is_dir():
        raise UserError(f"data.root={root} is a file; data=phantom needs a folder, which it makes itself")
    path = root / MARKER
    if not path.exists():
        if any(not entry.name.startswith(".") for entry in root.iterdir()):
            raise UserError(f"data.root={root} is not empty and holds no phantoms; name an empty or a new folder")
        return None
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
        there, form, finished = dict(marker["options"]), marker["format"], bool(marker["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} cannot be read; delete the folder {root} and run again") from None
    for name, wanted in _plain(options).items():
        if there.get(name) != wanted:
            raise UserError(
                f"data.root={root} holds phantoms with data.phantom.{name}={there.get(name)}, not {wanted}; "
                "use that value or another folder"
            )
    if form != FORMAT:
        raise UserError(
            f"data.root={root} holds phantoms of another version of siamray; delete it or use another folder"
        )
    return {"finished": finished}


def _generate(root: Path, options: PhantomConfig) -> None:
    """Generates the women that are not there yet, on all processors, and writes the tables and at last the marker."""
    record = {"format": FORMAT, "options": _plain(options)}
    try:
        (root / "women").mkdir(parents=True, exist_ok=True)
        if not (root / MARKER).exists():
            write_json(root / MARKER, {**record, "finished": False})
    except (OSError, UserError):
        raise UserError(
            f"{root} cannot be written, where the phantoms go; name another folder by data.root=DIR or SIAMRAY_CACHE"
        ) from None
    missing = [number for number in range(options.women) if not _woman_file(root, number).exists()]
    _generate_women(root, options, missing)
    rows = [json.loads(_woman_file(root, number).read_text(encoding="utf-8")) for number in range(options.women)]
    _write_csv(root / "exams.csv", EXAM_COLUMNS, [exam for row in rows for exam in row["exams"]])
    _write_csv(root / "findings.csv", FINDING_COLUMNS, [finding for row in rows for finding in row["findings"]])
    write_json(root / MARKER, {**record, "finished": True})


def _generate_women(root: Path, options: PhantomConfig, numbers: list[int]) -> None:
    if not numbers:
        return
    plain = PhantomConfig(**_plain(options))
    progress = Progress(console=Console(stderr=True), transient=True)
    task = progress.add_task("generating phantoms", total=len(numbers))
    for _ in shared_out(partial(generate_woman, root, plain), numbers, processors(), progress):
        progress.advance(task)


def generate_woman(root: Path, options: PhantomConfig, number: int) -> None:
    """Writes a woman's four images and, at last, the file with her rows of the tables.

    Args:
        root: folder of the phantoms.
        options: options of the phantom.
        number: her number, counted from 0.
    """
    woman = imagine(options, number)
    name = f"phantom_{number:05d}"
    exams: list[dict[str, Any]] = []
    findings: list[dict[str, Any]] = []
    for view_name in VIEWS:
        view = View(woman, view_name)
        for side in ("L", "R"):
            image = f"{name}_{side}_{view_name}"
            pixels, boxes = render(view, side)
            dataset = mammogram(with_marker(pixels, side, view_name), woman, side, view_name)
            path = Path("women") / name / f"{image}.dcm"
            write_atomically(root / path, partial(_save, dataset))
            exams.append(_exam_row(woman, name, image, side, view_name, path))
            findings += [{"image_id": image, **box} for box in boxes]
    write_json(_woman_file(root, number), {"exams": exams, "findings": findings})


def _save(dataset: Dataset, path: Path) -> None:
    dataset.save_as(path, enforce_file_format=True)


def _woman_file(root: Path, number: int) -> Path:
    return root / "women" / f"phantom_{number:05d}" / "rows.json"


def _exam_row(woman: Woman, name: str, image: str, side: str, view: str, path: Path) -> dict[str, Any]:
    birads, outcome = assessment(woman, side)
    return {
        "source": "phantom",
        "woman_id": name,
        "exam_id": name,
        "image_id": image,
        "laterality": side,
        "view": view,
        "path": path.as_posix(),
        "spacing_mm": woman.options.spacing_mm,
        "split": None,
        "birads": birads,
        "density": woman.density,
        "outcome": outcome,
    }


def assessment(woman: Woman, side: str) -> tuple[int, str]:
    """Returns BI-RADS and outcome of a breast: what a reader would write of it, the same in both views.

    Args:
        woman: the woman.
        side: "L" or "R".
    """
    rng = woman.generator("assessment", side)
    if side != woman.affected:
        return (2 if rng.random() < 0.1 + 0.1 * len(woman.rounded) else 1), "normal"
    if any(lesion.malignant for lesion in woman.lesions):
        return (5 if rng.random() < 0.35 else 4), "malignant"
    return (4 if rng.random() < 0.3 else 3), "benign"


def with_marker(pixels: Floats, side: str, view: str) -> Floats:
    """Burns the technologist's letters into the upper outer corner, as film and many detectors have them.

    Args:
        pixels: grey values (rows, cols).
        side: "L" or "R".
        view: "CC" or "MLO".
    """
    rows, cols = pixels.shape
    size = max(8, rows // 32)
    picture = Image.new("L", (cols, rows), 0)
    pen = ImageDraw.Draw(picture)
    column = cols - 4 * size if side == "L" else size
    pen.text((column, size), f"{side}{view}", fill=255, font=ImageFont.load_default(size))
    letters = np.asarray(picture, dtype=np.float32) / 255
    return np.asarray(np.maximum(pixels, 0.9 * letters), dtype=np.float32)


def mammogram(pixels: Floats, woman: Woman, side: str, view: str) -> Dataset:
    """Makes a DICOM data set of a picture: 12 bits stored in 16, for presentation, no identifying values.

    Args:
        pixels: grey values in 0..1 (rows, cols), 1 = white.
        woman: whose; she also decides between MONOCHROME1 and MONOCHROME2.
        side: "L" or "R".
        view: "CC" or "MLO".

    Returns:
        The data set, with file meta information.
    """
    options = woman.options
    entropy = [options_hash(options), str(woman.number)]
    stored = np.rint(OFFSET + SCALE * np.clip(pixels, 0, 1)).astype("<u2")
    # PS3.3 C.11.2.1.2.1: a window of centre c and width w shows c - 0.5 - (w - 1) / 2 to c - 0.5 + (w - 1) / 2.
    centre, width = OFFSET + SCALE / 2 + 0.5, SCALE + 1
    if woman.inverted:
        stored, centre = (_STORED_MAXIMUM - stored).astype("<u2"), _STORED_MAXIMUM + 1 - centre
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[*entropy, side, view])
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[*entropy, "study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[*entropy, "series", side, view])
    dataset.PatientID = f"phantom_{woman.number:05d}"
    for empty in ("PatientName", "PatientBirthDate", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
        setattr(dataset, empty, "")
    dataset.PatientSex, dataset.Modality, dataset.Manufacturer = "F", "MG", "siamray phantom"
    dataset.ImageType, dataset.PresentationIntentType = ["DERIVED", "PRIMARY"], "FOR PRESENTATION"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.BodyPartExamined, dataset.ImageLaterality, dataset.ViewPosition = "BREAST", side, view
    dataset.BreastImplantPresent, dataset.BurnedInAnnotation = "NO", "NO"
    # Towards the nipple, and down: the side decides whether that is to the right or to the left of the picture.
    dataset.PatientOrientation = ["A", "F"] if side == "L" else ["P", "F"]
    dataset.ImagerPixelSpacing = [options.spacing_mm, options.spacing_mm]
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PhotometricInterpretation = "MONOCHROME1" if woman.inverted else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if woman.inverted else "IDENTITY"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1 if woman.inverted else 1
    dataset.WindowCenter, dataset.WindowWidth = centre, width
    dataset.LossyImageCompression = "00"
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _write_csv(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)
