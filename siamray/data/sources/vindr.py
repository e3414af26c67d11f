"""A folder with VinDr-Mammo goes in (two tables, images/STUDY/IMAGE.dicom); its exam and finding tables come out.

Every study is one woman: no patient's id survives in the set, and it is said to hold one exam of each. BI-RADS and
density are the breast's and may differ between the sides. There is no pathology, so outcome is null throughout: what
is normal rests on BI-RADS (data.normal). An image without finding may belong to a breast of BI-RADS 3 or more.

A box may carry several categories, and siamray's findings carry one each, as one lesion must count once in detection.
The first in the order of CATEGORIES is kept; the others are named in the table of what is left out, a row per box.
Only findings that their readers held for more than benign are marked, with or without a BI-RADS of their own
(finding_birads), which is not carried on.
"""

import ast
import re
from dataclasses import dataclass, field
from functools import cache as remembered
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from siamray.config import DataConfig
from siamray.data.exams import BIRADS, BOX_COLUMNS, DENSITIES, LATERALITIES, VIEWS, ExamTables, tables
from siamray.data.sources.image_folders import files_of_no_row, image_files, set_folder, without_repeats
from siamray.data.sources.root import not_this_data_set, read_table
from siamray.data.vendors import vendor_word

BREASTS = "breast-level_annotations.csv"
FINDINGS = "finding_annotations.csv"
METADATA = "metadata.csv"
IMAGES = "images"
# In the order of the BI-RADS lexicon: a mass with calcifications is a mass, calcifications in an asymmetry say more
# than the asymmetry does, and changes of skin and nipple accompany what comes before them.
CATEGORIES = {
    "Mass": "mass",
    "Suspicious Calcification": "calcification",
    "Architectural Distortion": "architectural_distortion",
    "Focal Asymmetry": "focal_asymmetry",
    "Global Asymmetry": "global_asymmetry",
    "Asymmetry": "asymmetry",
    "Suspicious Lymph Node": "lymph_node",
    "Skin Retraction": "skin_retraction",
    "Nipple Retraction": "nipple_retraction",
    "Skin Thickening": "skin_thickening",
}
NO_FINDING = "No Finding"

_LOOKED_FOR = f"{BREASTS}, {FINDINGS} and {IMAGES}/STUDY/IMAGE.dicom"
_SUFFIXES = (".dicom", ".dcm")
_BREAST_COLUMNS = [
    "study_id",
    "image_id",
    "laterality",
    "view_position",
    "height",
    "width",
    "breast_birads",
    "breast_density",
    "split",
]
_FINDING_COLUMNS = ["study_id", "image_id", "finding_categories", "xmin", "ymin", "xmax", "ymax"]
_METADATA_COLUMNS = ["SOP Instance UID", "Patient's Age", "Imager Pixel Spacing", "Manufacturer"]
_BIRADS_WORDS = {f"BI-RADS {number}": number for number in BIRADS}
_DENSITY_WORDS = {f"DENSITY {letter}": letter for letter in DENSITIES}
_SPLIT_WORDS = {word: word for word in ("training", "test")}
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_OLDEST = 120
# Spacing of rows and columns may differ by this share; beyond it the image is left to the reader of its header.
_SPACING_TOLERANCE = 0.05

Box = tuple[float, float, float, float]


@dataclass
class _Marks:
    """What the table of findings says.

    Attributes:
        listed: all images that it names.
        boxes: per image the categories of each box; a finding without a box goes under the line of its row.
        faults: images whose rows cannot be understood or contradict each other, with the reason.
    """

    listed: set[str] = field(default_factory=set)
    boxes: dict[str, dict[Box | int, set[str]]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def read(config: DataConfig, cache: Path) -> ExamTables:  # noqa: ARG001  (all sources share one signature)
    """Reads the tables of VinDr-Mammo; metadata.csv, where it is there, adds age, vendor and spacing.

    Args:
        config: data.root names the folder.
        cache: not used, as no header is read.

    Returns:
        The tables, several images of one side and view among them; left out with a reason are images of one table
        only, without file, with a row that cannot be understood or rows that contradict each other, further rows that
        repeat one, and files of no row.

    Raises:
        UserError: no root, not VinDr-Mammo, or a table without a column that is needed.
    """
    folder = set_folder(config, BREASTS, (IMAGES,), _LOOKED_FOR)
    if not (folder / FINDINGS).is_file():
        raise not_this_data_set(config, folder, FINDINGS)
    files = image_files(folder / IMAGES, _SUFFIXES)
    if not files:
        raise not_this_data_set(config, folder, f"{IMAGES}/STUDY/IMAGE.dicom")
    breasts, excluded = without_repeats(folder / BREASTS, _BREAST_COLUMNS)
    findings, repeats = without_repeats(folder / FINDINGS, _FINDING_COLUMNS)
    exams, sizes, reasons = _exams(breasts, _metadata(folder / METADATA), files)
    marks = _marks(findings, sizes)
    for image in sorted({*marks.listed, *exams} - set(reasons)):
        reason = _reason(image, exams, marks)
        if reason:
            reasons[image] = reason
    kept = {image: exam for image, exam in exams.items() if image not in reasons}
    rows, further = _finding_rows({image: marks.boxes[image] for image in kept if image in marks.boxes})
    paths = {stem: str(found[0]) for (_, stem), found in files.items()}
    excluded += [
        *repeats,
        *({"image_id": name, "path": str(folder / FINDINGS), "reason": reason} for name, reason in further),
        *({"image_id": i, "path": paths.get(i, str(folder / BREASTS)), "reason": r} for i, r in reasons.items()),
        *files_of_no_row(files, _keys(breasts) | _keys(findings), BREASTS),
    ]
    return tables(kept.values(), rows, excluded)


def _keys(rows: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(rows["study_id"], rows["image_id"], strict=True))


def _exams(
    breasts: pd.DataFrame, known: dict[str, dict[str, Any]], files: dict[tuple[str, str], list[Path]]
) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[int, int]], dict[str, str]]:
    """Returns rows and sizes (rows, columns) of the usable images, and the reasons of the others."""
    exams: dict[str, dict[str, Any]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    contradicting = breasts["image_id"].duplicated(keep=False)
    reasons = dict.fromkeys(
        breasts.loc[contradicting, "image_id"], f"{BREASTS} has several rows of it that contradict each other"
    )
    studies = {study for study, _ in files}
    for row in breasts[~contradicting].itertuples():
        image, study = str(row.image_id), str(row.study_id)
        found = files.get((study, image))
        try:
            exam, size = _exam(row)
        except ValueError as error:
            reasons[image] = f"its row in {BREASTS} cannot be understood: {error}"
            continue
        if found is None:
            what = (
                f"file {IMAGES}/{study}/{image}.dicom" if study in studies else f"folder {IMAGES}/{study} with images"
            )
            reasons[image] = f"listed in {BREASTS}, but there is no {what}"
            continue
        exams[image] = {**exam, **known.get(image, {}), "path": str(found[0])}
        sizes[image] = size
    return exams, sizes, reasons


def _exam(row: Any) -> tuple[dict[str, Any], tuple[int, int]]:
    """Returns the exam and the size; raises ValueError with what is wrong in the row."""
    if not row.study_id:
        raise ValueError("study_id is blank")
    if row.laterality not in LATERALITIES:
        raise ValueError("laterality is neither L nor R")
    if row.view_position not in VIEWS:
        raise ValueError("view_position is neither CC nor MLO")
    if not (row.height.isdecimal() and row.width.isdecimal() and int(row.height) and int(row.width)):
        raise ValueError("height and width are not two positive whole numbers")
    exam = {
        "source": "vindr",
        "woman_id": row.study_id,
        "exam_id": row.study_id,
        "image_id": row.image_id,
        "laterality": row.laterality,
        "view": row.view_position,
        "split": _word("split", row.split, _SPLIT_WORDS),
        "birads": _word("breast_birads", row.breast_birads, _BIRADS_WORDS),
        "density": _word("breast_density", row.breast_density, _DENSITY_WORDS),
    }
    return exam, (int(row.height), int(row.width))


def _word(column: str, text: str, words: dict[str, Any]) -> Any:
    """Returns what a word means, or None where the cell is blank."""
    if text and text not in words:
        raise ValueError(f"{column} is none of {', '.join(words)}")
    return words.get(text)


def _metadata(path: Path) -> dict[str, dict[str, Any]]:
    """Returns age, vendor and spacing of the images; null where a cell cannot be understood."""
    if not path.is_file():
        return {}
    table = read_table(path, _METADATA_COLUMNS).drop_duplicates()
    table = table[~table["SOP Instance UID"].duplicated(keep=False)]
    pixel = table["Pixel Spacing"] if "Pixel Spacing" in table.columns else pd.Series("", index=table.index)
    cells = [table[name].fillna("") for name in _METADATA_COLUMNS]
    return {
        str(image): {
            "age": years(str(age)),
            "spacing_mm": spacing(str(imager)) or spacing(str(other)),
            "vendor": _vendor(str(vendor)),
        }
        for image, age, imager, vendor, other in zip(*cells, pixel.fillna(""), strict=True)
    }


_vendor = remembered(vendor_word)


@remembered
def years(text: str) -> float | None:
    """Reads an age as DICOM writes it (053Y); None where it is none, or no woman's."""
    match = re.fullmatch(r"\s*(\d{1,3})([YMWD])\s*", text)
    age = int(match[1]) * _YEARS[match[2]] if match else 0.0
    return age if 0 < age <= _OLDEST else None


@remembered
def spacing(text: str) -> float | None:
    """Reads a pixel spacing in mm (``[0.085, 0.085]``); None where it is none, or the pixels are not square."""
    numbers = re.findall(r"\d*\.?\d+(?:[eE][-+]?\d+)?", text)
    if len(numbers) != 2:
        return None
    rows, cols = (float(number) for number in numbers)
    square = rows > 0 and cols > 0 and abs(rows - cols) <= _SPACING_TOLERANCE * max(rows, cols)
    return float(np.sqrt(rows * cols)) if square else None


def _marks(findings: pd.DataFrame, sizes: dict[str, tuple[int, int]]) -> _Marks:
    marks = _Marks(listed=set(findings["image_id"]))
    clean: set[str] = set()
    known = findings[findings["image_id"].isin(sizes)]
    for line, row in zip(known.index.tolist(), known.itertuples(), strict=True):
        image = str(row.image_id)
        try:
            categories = parse_categories(str(row.finding_categories))
            box = parse_box([str(cell) for cell in (row.xmin, row.ymin, row.xmax, row.ymax)], sizes[image])
            if box and not categories:
                raise ValueError(f"'{NO_FINDING}' has a box")
        except ValueError as error:
            marks.faults.setdefault(image, f"a row of it in {FINDINGS} cannot be understood: {error}")
            continue
        if not categories:
            clean.add(image)
            continue
        marks.boxes.setdefault(image, {}).setdefault(box or line, set()).update(categories)
    for image in clean & set(marks.boxes):
        marks.faults.setdefault(image, f"{FINDINGS} says '{NO_FINDING}' of it and marks a finding too")
    return marks


@remembered
def parse_categories(text: str) -> frozenset[str]:
    """Reads a cell of finding_categories: a Python list as text.

    Args:
        text: such as ``['Suspicious Calcification', 'Mass']``.

    Returns:
        Words of CATEGORIES; none of them for ``['No Finding']``.

    Raises:
        ValueError: says what is wrong.
    """
    try:
        words = ast.literal_eval(text)
    # What literal_eval raises on text that is no literal, or nests too deeply.
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        words = None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ValueError("finding_categories is not a list of words")
    if words == [NO_FINDING]:
        return frozenset()
    if NO_FINDING in words:
        raise ValueError(f"'{NO_FINDING}' stands beside a finding")
    if not set(words) <= set(CATEGORIES):
        raise ValueError("finding_categories names one that VinDr-Mammo does not have")
    return frozenset(words)


def parse_box(cells: list[str], size: tuple[int, int]) -> Box | None:
    """Reads a box and clips it to the image, which boxes leave by up to 27 pixels.

    Args:
        cells: xmin, ymin, xmax, ymax as text.
        size: rows and columns of the image.

    Returns:
        row_min, col_min, row_max, col_max; or None where all cells are blank.

    Raises:
        ValueError: says what is wrong.
    """
    if not any(cells):
        return None
    try:
        left, top, right, bottom = (float(cell) for cell in cells)
    except ValueError:
        raise ValueError("a box is not four numbers") from None
    if not np.isfinite([left, top, right, bottom]).all():
        raise ValueError("a box is not four numbers")
    if left > right or top > bottom:
        raise ValueError("the corners of a box are swapped")
    if left == right or top == bottom:
        raise ValueError("a box is empty")
    box = max(0.0, top), max(0.0, left), min(float(size[0]), bottom), min(float(size[1]), right)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError("a box lies outside the image")
    return box


def _reason(image: str, exams: dict[str, dict[str, Any]], marks: _Marks) -> str:
    """Says why an image of which both tables should tell is left out, or nothing."""
    if image in marks.faults:
        return marks.faults[image]
    if image not in exams:
        return f"listed in {FINDINGS}, but not in {BREASTS}: its side and view are not known"
    if image not in marks.listed:
        return f"not listed in {FINDINGS}: whether it shows a finding is not known"
    return ""


def _finding_rows(
    boxes: dict[str, dict[Box | int, set[str]]],
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Returns a row per box, and name and reason of each box whose further categories are left out."""
    rows: list[dict[str, Any]] = []
    further: list[tuple[str, str]] = []
    for image, found in boxes.items():
        for number, (box, categories) in enumerate(found.items(), start=1):
            first, *others = (word for name, word in CATEGORIES.items() if name in categories)
            placed = dict(zip(BOX_COLUMNS, box, strict=True)) if isinstance(box, tuple) else {}
            rows.append({"image_id": image, "category": first, **placed})
            if others:
                reason = f"a box of several categories: kept as {first}, not as {', '.join(others)}"
                further.append((f"{image}:box {number}", reason))
    return rows, further
