"""A folder goes in; a group's own data as groups keep them, drawn from phantoms, come out.

``python -m tests.data.sources.folder_copy OUT [WOMEN]``. Images lie in a folder per woman, as DICOM, 16 bit PNG, 16 bit
TIFF and 8 bit PGM in turn; the tables use the headings and words that people type: capitals, blanks, whole words, a
column of their own, BI-RADS with letters; one path is absolute, one image lacks its file, one file no row lists, one
box leaves its image, and one finding has no place.
"""

import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from siamray.config import PhantomConfig
from siamray.data.exams import VIEWS
from siamray.data.sources.phantom import assessment, mammogram
from siamray.data.sources.phantom_anatomy import View, imagine, render

PHANTOMS = PhantomConfig(height_pixels=192, width_pixels=160, spacing_mm=0.9, lesion_share=0.5)
WOMEN = 8
ENDINGS = ("dcm", "png", "tif", "pgm")
EXAMS = ["Woman ID", "exam_id", "image_id", "Laterality", "view", "path", "spacing_mm", "split", "BI-RADS", "density"]
EXAMS += ["outcome", "outcome_months", "age", "vendor", "site", "_remark"]
FINDINGS = ["image_id", "category", "row_min", "col_min", "row_max", "col_max"]
_SIDES = {"L": ("L", "left", "LEFT", "l"), "R": ("R", "right", "Right", "r")}
_VIEWS = {"CC": ("CC", "cc", "cranio-caudal", "Cc"), "MLO": ("MLO", "mlo", "medio-lateral oblique", "Mlo")}


def write_copy(root: Path, women: int = WOMEN) -> None:
    """Writes the images and both tables; the last woman's R-MLO has no file, and her folder an image of no row."""
    exams: list[dict[str, Any]] = []
    findings: list[dict[str, Any]] = []
    for number in range(women):
        woman = imagine(PHANTOMS, number)
        for side in ("L", "R"):
            birads, outcome = assessment(woman, side)
            for view in VIEWS:
                pixels, boxes = render(View(woman, view), side)
                path = root / "images" / f"w{number}" / f"{side}{view}.{ENDINGS[number % 4]}"
                write_image(path, pixels, number, side, view)
                image = f"w{number}_{side}{view}"
                exams.append(
                    {
                        "Woman ID": f"w{number}",
                        "exam_id": "" if number % 2 else f"w{number}_first",
                        "image_id": image,
                        "Laterality": _SIDES[side][number % 4],
                        "view": _VIEWS[view][number % 4],
                        "path": str(path.resolve()) if number == 0 else str(path.relative_to(root)),
                        "spacing_mm": "" if number % 4 == 0 else PHANTOMS.spacing_mm,
                        "split": ("train", "Training", "val", "TEST")[number % 4],
                        "BI-RADS": f"BI-RADS {birads}" if number % 2 else f"{birads}{'A' if birads == 4 else ''}",
                        "density": woman.density.lower() if number % 2 else f"ACR {woman.density}",
                        "outcome": outcome.capitalize(),
                        "outcome_months": 36,
                        "age": 50 + number,
                        "vendor": ("Hologic, Inc.", "SIEMENS", "GE MEDICAL SYSTEMS", "")[number % 4],
                        "site": ("north", "2", " c-3 ", "")[number % 4],
                        "_remark": "seen twice" if number == 1 else "",
                    }
                )
                findings += [{"image_id": image, **box} for box in boxes]
    findings[0]["col_max"] = PHANTOMS.width_pixels + 7.5
    findings.append({"image_id": findings[-1]["image_id"], "category": "Suspicious Calcification"})
    last = root / "images" / f"w{women - 1}"
    next(last.glob("RMLO.*")).rename(last / f"extra.{ENDINGS[(women - 1) % 4]}")
    write_table(root / "exams.csv", EXAMS, exams)
    write_table(root / "findings.csv", FINDINGS, findings)


def write_image(path: Path, pixels: np.ndarray, number: int, side: str, view: str) -> None:
    """Writes a picture in the format that its file's ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".dcm":
        woman = replace(imagine(PHANTOMS, number), inverted=False)
        mammogram(pixels, woman, side, view).save_as(path, enforce_file_format=True)
        return
    depth = (255, np.uint8) if path.suffix == ".pgm" else (65535, np.uint16)
    PillowImage.fromarray(np.rint(pixels * depth[0]).astype(depth[1])).save(path)


def write_table(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """Writes a csv table; what a row does not name is blank."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def main(words: list[str]) -> None:
    """Writes a copy for looking at it."""
    write_copy(Path(words[0]), int(words[1]) if len(words) > 1 else WOMEN)


if __name__ == "__main__":
    main(sys.argv[1:])
