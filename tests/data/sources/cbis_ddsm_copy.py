"""A folder goes in; a small copy of CBIS-DDSM as TCIA delivers it, true to its format, comes out, drawn from phantoms.

``python -m tests.data.sources.cbis_ddsm_copy OUT``. True are the names of files, folders and columns, the words and the
headers (secondary captures without spacing, a PatientID and a study per view), and what is odd in the set: paths in the
tables that are not those on disk and end in a newline; mask and crop in one folder or two, in either order, under
changed names; several abnormalities in an image; an image and a woman in the tables of masses and of calcifications,
for training here and for testing there; density 0; masks smaller than the mammogram; women with one side only. Films
are 192 by 160 pixels of 0.9 mm: prepare with data.assumed_spacing_mm=0.9.
"""

import csv
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from siamray.config import PhantomConfig
from siamray.data.sources.phantom_anatomy import View, imagine, render

PHANTOMS = PhantomConfig(height_pixels=192, width_pixels=160, spacing_mm=0.9, lesion_share=0.0)
COMMON = ["left or right breast", "image view", "abnormality id", "abnormality type"]
PATHS = ["image file path", "cropped image file path", "ROI mask file path"]
COLUMNS = {
    "mass": ["patient_id", "breast_density", *COMMON, "mass shape", "mass margins"],
    "calc": ["patient_id", "breast density", *COMMON, "calc type", "calc distribution"],
}
COLUMNS = {kind: [*columns, "assessment", "pathology", "subtlety", *PATHS] for kind, columns in COLUMNS.items()}


@dataclass(frozen=True)
class Mark:
    """A row of a table and its files.

    Attributes:
        part: Training or Test.
        case: woman, side and view (P_00001_LEFT_CC).
        number: abnormality id.
        kind: mass or calc.
        shape: mass shape or calc type.
        margins: mass margins or calc distribution.
        assessment: BI-RADS.
        pathology: in the set's words.
        density: 0 to 4.
        layout: how its files lie: "together" (mask first), "swapped" (crop first, cells exchanged), "apart" (two
            series), "old" (000000.dcm, as in the cells), "small" (mask of half the size), "bent" (mask of another
            shape), "damaged" (mask cut short), "empty" (mask marks nothing), "none" (no file).
    """

    part: str
    case: str
    number: int = 1
    kind: str = "mass"
    shape: str = "IRREGULAR"
    margins: str = "SPICULATED"
    assessment: int = 4
    pathology: str = "MALIGNANT"
    density: int = 3
    layout: str = "together"

    @property
    def folder(self) -> str:
        """Folder of the mammogram."""
        return f"{self.kind.capitalize()}-{self.part}_{self.case}"


def _calc(part: str, case: str, number: int = 1, **changed: Any) -> Mark:
    words = {"shape": "PLEOMORPHIC", "margins": "CLUSTERED", **changed}
    return Mark(part, case, number, "calc", **words)


_BENIGN: dict[str, Any] = {"pathology": "BENIGN_WITHOUT_CALLBACK", "assessment": 2}
MARKS = [
    # Both sides, and two abnormalities in one image; the density differs between its rows.
    Mark("Training", "P_00001_LEFT_CC", 1, shape="IRREGULAR-ARCHITECTURAL_DISTORTION"),
    Mark("Training", "P_00001_LEFT_CC", 2, shape="OVAL", margins="CIRCUMSCRIBED", density=2, **_BENIGN),
    Mark("Training", "P_00001_LEFT_MLO", shape="ARCHITECTURAL_DISTORTION", assessment=0),
    Mark("Training", "P_00001_RIGHT_CC", shape="LOBULATED-LYMPH_NODE", layout="swapped", **_BENIGN),
    Mark("Training", "P_00001_RIGHT_MLO", shape="LYMPH_NODE", margins="N/A", layout="apart", **_BENIGN),
    # The same images under Mass and Calc, for training and for testing.
    Mark("Training", "P_00041_LEFT_CC", 1, shape="ASYMMETRIC_BREAST_TISSUE", density=1, **_BENIGN),
    _calc("Test", "P_00041_LEFT_CC", 2, density=1, assessment=4, pathology="BENIGN"),
    Mark("Training", "P_00041_LEFT_MLO", 1, shape="FOCAL_ASYMMETRIC_DENSITY", density=1, **_BENIGN),
    _calc("Test", "P_00041_LEFT_MLO", 2, density=1, assessment=4, pathology="BENIGN"),
    Mark("Training", "P_00041_RIGHT_CC", 1, shape="ROUND", density=1, **_BENIGN),
    # Places that the masks tell badly or not at all.
    _calc("Test", "P_00038_LEFT_CC", 1, density=0, layout="small", **_BENIGN),
    _calc("Test", "P_00038_LEFT_CC", 2, density=0, layout="bent", **_BENIGN),
    _calc("Test", "P_00038_LEFT_MLO", density=0, layout="damaged", **_BENIGN),
    _calc("Test", "P_00038_RIGHT_CC", density=0, layout="empty", shape="N/A", margins="N/A", **_BENIGN),
    _calc("Test", "P_00038_RIGHT_MLO", density=0, layout="none", **_BENIGN),
    # As the cells say, and one side only.
    _calc("Training", "P_00005_RIGHT_CC", layout="old"),
    _calc("Training", "P_00005_RIGHT_MLO", layout="old"),
]


def write_copy(root: Path, marks: list[Mark] = MARKS) -> None:
    """Writes the copy: the tables in the folder itself, the images in CBIS-DDSM below it."""
    rows: dict[str, list[list[Any]]] = {
        f"{kind}_case_description_{part}_set.csv": [COLUMNS[kind]]
        for kind in ("mass", "calc")
        for part in ("train", "test")
    }
    for mark in marks:
        paths = [_write_mammogram(root / "CBIS-DDSM", mark), *_write_mark(root / "CBIS-DDSM", mark)]
        woman, side, view = mark.case[:7], *mark.case[8:].split("_")
        kind = "mass" if mark.kind == "mass" else "calcification"
        row = [woman, mark.density, side, view, mark.number, kind, mark.shape, mark.margins]
        table = f"{mark.kind}_case_description_{'train' if mark.part == 'Training' else 'test'}_set.csv"
        rows[table].append([*row, mark.assessment, mark.pathology, 4, *paths])
    for name, lines in rows.items():
        with (root / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)


def box_of(case: str, number: int, rows: int = 192, columns: int = 160) -> tuple[int, int, int, int]:
    """Returns the box of an abnormality: row_min, col_min, row_max, col_max."""
    middle = rows * (0.3 + 0.2 * number), columns * (0.28 if "LEFT" in case else 0.72)
    marked = _ellipse((rows, columns), middle, 0.05 * rows * number)
    down, across = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    return int(down[0]), int(across[0]), int(down[-1]) + 1, int(across[-1]) + 1


def secondary_capture(pixels: npt.NDArray[Any], folder: str, description: str) -> Dataset:
    """Makes a data set with the elements that CBIS-DDSM's have."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[folder, description])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[folder, "study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[folder, description, "series"])
    dataset.SpecificCharacterSet, dataset.StudyDate, dataset.ContentDate = "ISO_IR 100", "20161004", "20160426"
    dataset.Modality, dataset.ConversionType, dataset.SeriesDescription = "MG", "WSD", description
    dataset.PatientName = dataset.PatientID = folder
    dataset.BodyPartExamined, dataset.StudyID = "BREAST", "DDSM"
    words = folder.split("_")
    dataset.Laterality, dataset.PatientOrientation = words[3][0], words[4]
    dataset.SecondaryCaptureDeviceManufacturer = "MathWorks"
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    return dataset


def mask_of(rows: int, columns: int, box: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """Draws a mask, an ellipse in the box: 255 in 0."""
    top, left, bottom, right = box
    down = (np.arange(rows)[:, None] + 0.5 - (top + bottom) / 2) / ((bottom - top) / 2)
    across = (np.arange(columns)[None, :] + 0.5 - (left + right) / 2) / ((right - left) / 2)
    return np.where(down**2 + across**2 <= 1, 255, 0).astype(np.uint8)


def _write_mammogram(root: Path, mark: Mark) -> str:
    """Writes the mammogram, if another row has not done so, and returns the cell of its path."""
    case = root / mark.folder
    if not case.exists():
        path = _on_disk(case, mark, "full mammogram images") / ("000000.dcm" if mark.layout == "old" else "1-1.dcm")
        _save(secondary_capture(_film(mark.case), mark.folder, "full mammogram images"), path)
    return f"{mark.folder}/{_uid(mark, 'study')}/{_uid(mark, 'image')}/000000.dcm"


def _write_mark(root: Path, mark: Mark) -> tuple[str, str]:
    """Writes mask and crop and returns the cells of crop and mask, one of which ends in a newline."""
    name = f"{mark.folder}_{mark.number}"
    film = _film(mark.case)
    box = box_of(mark.case, mark.number)
    mask = mask_of(*film.shape, box)
    if mark.layout == "small":
        mask = np.ascontiguousarray(mask[::2, ::2])
    elif mark.layout == "bent":
        mask = np.ascontiguousarray(mask[:, :100])
    elif mark.layout == "empty":
        mask[:] = 0
    crop = np.ascontiguousarray(film[box[0] : box[2], box[1] : box[3]])
    folder = _on_disk(root / name, mark, "ROI mask images")
    first, second = ("000000.dcm", "000001.dcm") if mark.layout == "old" else ("1-1.dcm", "1-2.dcm")
    if mark.layout in ("swapped", "old"):
        files = [(crop, folder / first), (mask, folder / second)]
    elif mark.layout == "apart":
        files = [(mask, folder / first), (crop, _on_disk(root / name, mark, "cropped images") / first)]
    else:
        files = [(mask, folder / first), (crop, folder / second)]
    if mark.layout != "none":
        for pixels, path in files:
            _save(secondary_capture(pixels, name, "cropped images" if pixels is crop else "ROI mask images"), path)
    if mark.layout == "damaged":
        content = files[0][1].read_bytes()
        files[0][1].write_bytes(content[: len(content) // 2])
    cell = f"{name}/{_uid(mark, 'marks')}/{_uid(mark, 'series')}/00000"
    return (f"{cell}1.dcm", f"{cell}0.dcm\n") if mark.layout == "swapped" else (f"{cell}0.dcm\n", f"{cell}1.dcm")


def _on_disk(case: Path, mark: Mark, description: str) -> Path:
    """Returns the folder of a series: renamed by NBIA's retriever, or (old) as the cells name it."""
    if mark.layout == "old":
        return case / _uid(mark, "study") / _uid(mark, description)
    number = sum(map(ord, case.name + description)) * 37 % 100000
    return case / "10-04-2016-DDSM-NA-09887" / f"1.000000-{description}-{number:05d}"


def _uid(mark: Mark, purpose: str) -> str:
    number = int.from_bytes(f"{mark.folder}{mark.number}{purpose}".encode(), "little") % 10**38
    return f"1.3.6.1.4.1.9590.100.1.2.{number}"


@cache
def _film(case: str) -> npt.NDArray[np.uint16]:
    """Draws a mammogram with both abnormalities that it can have, so that marks lie on something."""
    view = View(imagine(PHANTOMS, int(case[2:7])), case.rpartition("_")[2])
    pixels, _ = render(view, "L" if "LEFT" in case else "R")
    for number in (1, 2):
        top, left, bottom, right = box_of(case, number)
        middle, half = ((top + bottom) / 2, (left + right) / 2), (bottom - top) / 2
        pixels = pixels + np.float32(0.25) * _ellipse(pixels.shape, middle, half)
    return np.rint(np.clip(pixels, 0, 1) * 65535).astype(np.uint16)


def _ellipse(shape: tuple[int, ...], middle: tuple[float, float], radius: float) -> npt.NDArray[np.bool_]:
    down = (np.arange(shape[0])[:, None] + 0.5 - middle[0]) / radius
    across = (np.arange(shape[1])[None, :] + 0.5 - middle[1]) / (0.8 * radius)
    inside: npt.NDArray[np.bool_] = down**2 + across**2 <= 1
    return inside


def _save(dataset: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def main(arguments: list[str]) -> None:
    """Writes the copy into the folder that is named."""
    root = Path(arguments[0])
    root.mkdir(parents=True, exist_ok=True)
    write_copy(root)


if __name__ == "__main__":
    main(sys.argv[1:])
