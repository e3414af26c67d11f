"""A folder and a number of women go in; a small copy of the RSNA screening set, drawn from phantoms, comes out.

``python -m tests.data.sources.rsna_copy OUT [WOMEN]``. True are the file and folder names, the columns and their
words, and what is odd in the set: two sites, one without BI-RADS and density, several images of one view, views that
are not compared, women with implants, cancers on one side and on both, ages that are not known, JPEG 2000, a sigmoid
window, and a test.csv without labels.
"""

import csv
import sys
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import JPEG2000Lossless

from siamray.config import PhantomConfig
from siamray.data.exams import VIEWS
from siamray.data.sources.phantom import assessment, mammogram, with_marker
from siamray.data.sources.phantom_anatomy import View, Woman, imagine, render

PHANTOMS = PhantomConfig(height_pixels=192, width_pixels=160, spacing_mm=0.9, lesion_share=0.5)
WOMEN = 12
TRAIN = ["site_id", "patient_id", "image_id", "laterality", "view", "age", "cancer", "biopsy", "invasive", "BIRADS"]
TRAIN += ["implant", "density", "machine_id", "difficult_negative_case"]
TEST = ["site_id", "patient_id", "image_id", "laterality", "view", "age", "implant", "machine_id", "prediction_id"]
# The women (by number) of what few women have: several images of one view, an odd view, implants, an unknown age,
# and a cancer in both breasts.
SEVERAL, ODD, IMPLANT, AGELESS, BILATERAL = 1, 2, 3, 4, 6
ODD_VIEW = "LMO"


def write_copy(root: Path, women: int = WOMEN) -> None:
    """Writes the copy; women of even number come from site 1, which tells BI-RADS and density."""
    rows: list[dict[str, Any]] = []
    for number in range(women):
        woman = imagine(PHANTOMS, number)
        for place, (side, view) in enumerate(_images(number)):
            row = _row(woman, place, side, view)
            pixels = render(View(woman, view if view in VIEWS else "MLO"), side)[0]
            dataset = _dataset(woman, with_marker(pixels, side, view), row)
            path = root / "train_images" / str(row["patient_id"]) / f"{row['image_id']}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            dataset.save_as(path, enforce_file_format=True)
            rows.append(row)
    _write(root / "train.csv", TRAIN, rows)
    _write(root / "test.csv", TEST, [_test_row(side, view) for side in ("L", "R") for view in VIEWS])
    (root / "test_images" / "10008").mkdir(parents=True, exist_ok=True)
    (root / "sample_submission.csv").write_text("prediction_id,cancer\n10008_L,0.021168\n10008_R,0.021168\n")


def _images(number: int) -> list[tuple[str, str]]:
    images = [(side, view) for side in ("L", "R") for view in VIEWS]
    if number == SEVERAL:
        images.append(("L", "MLO"))
    if number == ODD:
        images.append(("R", ODD_VIEW))
    return images


def patient(number: int) -> int:
    """The woman's id."""
    return 10006 + 37 * number


def image(number: int, place: int) -> int:
    """An image's id: a number that tells nothing."""
    return (462822612 + 996553187 * (8 * number + place)) % 2147483647


def _row(woman: Woman, place: int, side: str, view: str) -> dict[str, Any]:
    birads, outcome = assessment(woman, side)
    cancer = outcome == "malignant" or woman.number == BILATERAL
    biopsy = cancer or outcome == "benign"
    first = woman.number % 2 == 0
    return {
        "site_id": 1 if first else 2,
        "patient_id": patient(woman.number),
        "image_id": image(woman.number, place),
        "laterality": side,
        "view": view,
        "age": None if woman.number == AGELESS else float(45 + 3 * woman.number % 40),
        "cancer": int(cancer),
        "biopsy": int(biopsy),
        "invasive": int(cancer and woman.number % 3 != 0),
        "BIRADS": (0 if biopsy else birads) if first else None,
        "implant": int(woman.number == IMPLANT),
        "density": woman.density if first else None,
        "machine_id": 49 if first else 29,
        "difficult_negative_case": biopsy and not cancer,
    }


def _dataset(woman: Woman, pixels: Any, row: dict[str, Any]) -> Dataset:
    dataset = mammogram(pixels, woman, row["laterality"], row["view"])
    dataset.PatientID, dataset.BreastImplantPresent = str(row["patient_id"]), "YES" if row["implant"] else "NO"
    if row["site_id"] == 1:
        dataset.VOILUTFunction = "SIGMOID"
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    return dataset


def _test_row(side: str, view: str) -> dict[str, Any]:
    row: dict[str, Any] = {"site_id": 2, "patient_id": 10008, "laterality": side, "view": view, "age": 81}
    name = f"{736471439 + 1591370361 * (side == 'R') + (view == 'MLO')}"
    return {**row, "image_id": name, "implant": 0, "machine_id": 21, "prediction_id": f"10008_{side}"}


def _write(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def main(words: list[str]) -> None:
    """Writes a copy into the folder that the first word names; the second is the number of women."""
    write_copy(Path(words[0]), int(words[1]) if len(words) > 1 else WOMEN)


if __name__ == "__main__":
    main(sys.argv[1:])
