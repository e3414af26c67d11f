"""A folder and a number of women go in; a small copy of VinDr-Mammo, drawn from phantoms, comes out.

``python -m tests.data.sources.vindr_copy OUT [WOMEN]``. True are the file and folder names, the columns and their
words, and what is odd in the set: MONOCHROME1 with padding 10000 (Planmed), MediaStorageSOPClassUID 1.2.3.4, instance
UIDs that are hashes, headers without patient and study; two L-CC and no L-MLO in one study, a study in two series,
density that differs between the sides, boxes that leave the image, boxes of several categories or without BI-RADS of
their own, breasts of BI-RADS 3 and more without a box.
"""

import csv
import hashlib
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from siamray.config import PhantomConfig
from siamray.data.exams import VIEWS
from siamray.data.sources.phantom import assessment, mammogram, with_marker
from siamray.data.sources.phantom_anatomy import View, Woman, imagine, render

Rows = list[dict[str, Any]]

PHANTOMS = PhantomConfig(height_pixels=192, width_pixels=160, spacing_mm=0.9, lesion_share=0.5)
WOMEN = 12
PADDING = 10000
# (manufacturer, model) in the words of the headers.
UNITS = (("SIEMENS", "Mammomat Inspiration"), ("Planmed", "Planmed Nuance"), ("IMS GIOTTO S.p.A", "GIOTTO CLASS"))
WORDS = {
    "mass": "Mass",
    "calcification": "Suspicious Calcification",
    "architectural_distortion": "Architectural Distortion",
}
BREASTS = ["study_id", "series_id", "image_id", "laterality", "view_position", "height", "width"]
BREASTS += ["breast_birads", "breast_density"]
FINDINGS = [*BREASTS, "finding_categories", "finding_birads", "xmin", "ymin", "xmax", "ymax", "split"]
METADATA = ["SOP Instance UID", "Series Instance UID", "Patient's Age", "View Position", "Image Laterality"]
METADATA += ["Photometric Interpretation", "Rows", "Columns", "Imager Pixel Spacing", "Pixel Spacing"]
METADATA += ["Pixel Padding Value", "Window Center", "Window Width", "Rescale Intercept", "Rescale Slope"]
METADATA += ["Rescale Type", "Manufacturer", "Manufacturer's Model Name"]
# What the headers keep; all else was removed.
_KEPT = (
    *("SOPClassUID", "Modality", "ImageLaterality", "ViewPosition", "ImagerPixelSpacing", "Rows", "Columns"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation", "BitsAllocated", "BitsStored", "HighBit"),
    *("RescaleIntercept", "RescaleSlope", "RescaleType", "WindowCenter", "WindowWidth", "LossyImageCompression"),
    "PixelData",
)


def name_of(*words: object) -> str:
    """Makes a pseudonymous id such as those of the set: 32 hexadecimal digits."""
    return hashlib.md5(" ".join(map(str, words)).encode(), usedforsecurity=False).hexdigest()


def write_copy(root: Path, women: int = WOMEN) -> None:
    """Writes the copy.

    The second woman has two L-CC and no L-MLO; every third study comes in two series; every fourth woman is a test
    woman; of the women with a lesion the first one's box has two categories, the second one's leaves the image, the
    third one's has no BI-RADS of its own and the fourth breast is not marked at all.
    """
    breasts: list[dict[str, Any]] = []
    findings: list[dict[str, Any]] = []
    metadata: list[dict[str, Any]] = []
    affected = 0
    for number in range(women):
        woman = replace(imagine(PHANTOMS, number), inverted=number % 5 == 4)
        for place, (side, view, drawn) in enumerate(_images(number)):
            pixels, boxes = render(View(woman, drawn), side)
            row = _breast_row(woman, place, side, view)
            unit = UNITS[1] if woman.inverted else UNITS[0] if number % 2 else UNITS[2]
            path = root / "images" / row["study_id"] / f"{row['image_id']}.dicom"
            path.parent.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                # The set's hashes are no valid UIDs, of which pydicom warns.
                warnings.simplefilter("ignore")
                dataset = _dataset(woman, pixels, side, view, unit, row)
                dataset.save_as(path, enforce_file_format=True)
            breasts.append(row)
            findings += _finding_rows(row, boxes, affected)
            metadata.append(_metadata_row(dataset, row, number, unit))
        affected += woman.affected is not None
    _write(root / "breast-level_annotations.csv", [*BREASTS, "split"], breasts)
    _write(root / "finding_annotations.csv", FINDINGS, findings)
    _write(root / "metadata.csv", METADATA, metadata)


def _images(number: int) -> list[tuple[str, str, str]]:
    """Side, view, and the view that is drawn: one study's L-MLO is called L-CC."""
    images = [(side, view, view) for side in ("L", "R") for view in VIEWS]
    return [(s, "CC" if number == 1 and s == "L" else v, d) for s, v, d in images]


def _breast_row(woman: Woman, place: int, side: str, view: str) -> dict[str, Any]:
    birads, _ = assessment(woman, side)
    denser = {"A": "B", "B": "C", "C": "D", "D": "D"}[woman.density]
    density = denser if woman.number % 3 == 2 and side == "R" else woman.density
    return {
        "study_id": name_of("study", woman.number),
        "series_id": name_of("series", woman.number, place // 2 if woman.number % 3 == 0 else 0),
        "image_id": name_of("image", woman.number, place),
        "laterality": side,
        "view_position": view,
        "height": PHANTOMS.height_pixels,
        "width": PHANTOMS.width_pixels,
        "breast_birads": f"BI-RADS {birads}",
        "breast_density": f"DENSITY {density}",
        "split": "test" if woman.number % 4 == 3 else "training",
    }


def _finding_rows(row: dict[str, Any], boxes: list[dict[str, Any]], kind: int) -> list[dict[str, Any]]:
    nothing = {**row, "finding_categories": str(["No Finding"])}
    if not boxes or kind % 4 == 3:
        return [nothing]
    rows = []
    for box in boxes:
        words = ["Suspicious Calcification", "Mass"] if kind % 4 == 0 else [WORDS[box["category"]]]
        left, right = box["col_min"], box["col_max"]
        if kind % 4 == 1:
            # To beyond the nearer edge.
            left, right = (-5.4943, right) if left + right < row["width"] else (left, row["width"] + 27.0)
        rows.append(
            {
                **row,
                "finding_categories": str(words),
                "finding_birads": None if kind % 4 == 2 else row["breast_birads"],
                "xmin": left,
                "ymin": box["row_min"],
                "xmax": right,
                "ymax": box["row_max"],
            }
        )
    return rows


def _dataset(woman: Woman, pixels: Any, side: str, view: str, unit: tuple[str, str], row: dict[str, Any]) -> Dataset:
    full = mammogram(with_marker(pixels, side, view), woman, side, view)
    dataset = Dataset()
    dataset.file_meta = full.file_meta
    for name in _KEPT:
        dataset[name] = full[name]
    dataset.PatientAge, dataset.Manufacturer, dataset.ManufacturerModelName = age_of(woman.number), *unit
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.3.4"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = row["image_id"]
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = row["series_id"], row["study_id"]
    if woman.inverted:
        # Planmed pads beyond the detector with a value above all that it measures, which inverted is black.
        stored = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns).copy()
        stored[:4] = PADDING
        dataset.BitsStored, dataset.HighBit, dataset.PixelPaddingValue = 14, 13, PADDING
        dataset.PixelData = stored.tobytes()
    return dataset


def age_of(number: int) -> str:
    """The age of a woman as DICOM writes it; one woman's is not known."""
    return "" if number == 4 else f"{40 + 3 * number % 50:03d}Y"


def _metadata_row(dataset: Dataset, row: dict[str, Any], number: int, unit: tuple[str, str]) -> dict[str, Any]:
    return {
        "SOP Instance UID": row["image_id"],
        "Series Instance UID": row["series_id"],
        "Patient's Age": age_of(number),
        "View Position": row["view_position"],
        "Image Laterality": row["laterality"],
        "Photometric Interpretation": dataset.PhotometricInterpretation,
        "Rows": dataset.Rows,
        "Columns": dataset.Columns,
        "Imager Pixel Spacing": str([float(value) for value in dataset.ImagerPixelSpacing]),
        "Pixel Padding Value": dataset.get("PixelPaddingValue"),
        "Window Center": float(dataset.WindowCenter),
        "Window Width": float(dataset.WindowWidth),
        "Rescale Intercept": float(dataset.RescaleIntercept),
        "Rescale Slope": float(dataset.RescaleSlope),
        "Rescale Type": dataset.RescaleType,
        "Manufacturer": unit[0],
        "Manufacturer's Model Name": unit[1],
    }


def _write(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@dataclass
class Tables:
    """The rows of the three tables."""

    breasts: Rows = field(default_factory=list)
    findings: Rows = field(default_factory=list)
    metadata: Rows = field(default_factory=list)


def write_set(root: Path, change: Callable[[Tables], object] | None = None) -> Path:
    """Writes the tables of two studies, a and b, and empty files; images are aLCC, aLMLO, ..., aLCC has a mass."""
    rows = Tables()
    for study in "ab":
        for side in "LR":
            for view in ("CC", "MLO"):
                name = f"{study}{side}{view}"
                row = {"study_id": study, "series_id": "s", "image_id": name, "laterality": side}
                row |= {"view_position": view, "height": "3518", "width": "2800", "breast_birads": "BI-RADS 1"}
                row |= {"breast_density": "DENSITY B", "split": "training"}
                rows.breasts.append(row)
                rows.findings.append({**row, "finding_categories": "['No Finding']"})
                rows.metadata.append({"SOP Instance UID": name, "Patient's Age": "053Y", "Manufacturer": "SIEMENS"})
                rows.metadata[-1]["Imager Pixel Spacing"] = "[0.085, 0.085]"
                path = root / "images" / study / f"{name}.dicom"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
    rows.findings[0] |= {"finding_categories": "['Mass']", "finding_birads": "BI-RADS 4"}
    rows.findings[0] |= {"xmin": "10.5", "ymin": "20.5", "xmax": "110.5", "ymax": "220.5"}
    if change:
        change(rows)
    _write(root / "breast-level_annotations.csv", [*BREASTS, "split"], rows.breasts)
    _write(root / "finding_annotations.csv", FINDINGS, rows.findings)
    _write(root / "metadata.csv", METADATA, rows.metadata)
    return root


def main(words: list[str]) -> None:
    """Writes a copy into the folder that the first word names; the second is the number of women."""
    write_copy(Path(words[0]), int(words[1]) if len(words) > 1 else WOMEN)


if __name__ == "__main__":
    main(sys.argv[1:])
