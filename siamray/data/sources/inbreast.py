"""A folder with INbreast goes in (AllDICOMs, AllXML, INbreast.csv or .xls); its exam and finding tables come out.

The table names neither patient nor exam ("removed"), but the files do: 20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm holds
a pseudonym of the woman, and her images of one acquisition date are an exam. Dates are not kept: exams are numbered.
File names write ML for MLO. No biopsy result is published, so outcome is null and BI-RADS is the proxy.
"""

import plistlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from siamray.config import DataConfig
from siamray.data.dicom import ImageError, read_header
from siamray.data.exams import BIRADS, DENSITIES, VIEWS, ExamTables, tables
from siamray.data.sources.root import listed, not_this_data_set, root_folder
from siamray.errors import UserError, nearest

LOOKED_FOR = "AllDICOMs, AllXML and INbreast.csv or INbreast.xls"
IMAGES, MARKS = "AllDICOMs", "AllXML"
# The csv says all that is read here and needs no package.
TABLES = ("INbreast.csv", "INbreast.xls")
COLUMNS = ("Laterality", "View", "Acquisition date", "File Name", "ACR", "Bi-Rads")
# Single calcifications are marked by a point or a few: boxes are widened to 1 mm, 14 pixels of the detector's 70 um.
LEAST_SIDE_PIXELS = 14
# Names of regions in lower case, with the misspellings of the set. A spiculated region is drawn around its mass.
CATEGORIES = {
    "mass": "mass",
    "spiculated region": "mass",
    "espiculated region": "mass",
    "calcification": "calcification",
    "calcifications": "calcification",
    "cluster": "calcification",
    "distortion": "architectural_distortion",
    "asymmetry": "asymmetry",
    "assymetry": "asymmetry",
}
# OsiriX's own names of regions that nobody named: among them are the single points of calcifications.
_NAMELESS = re.compile(r"(unnamed|point \d+)?")
_FILE = re.compile(r"(\d+)_([0-9a-f]+)_MG_([LR])_([A-Z]+)_ANON\.dcm", re.IGNORECASE)
_POINT = re.compile(r"\(\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*,\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*(?:,[^)]*)?\)")


@dataclass(frozen=True)
class File:
    """What the name of an image file says.

    Attributes:
        path: the file.
        woman: pseudonym of the woman.
        side: L or R.
        view: CC, MLO or another view.
    """

    path: Path
    woman: str
    side: str
    view: str


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        side: L or R.
        view: CC, MLO or another view (FB).
        date: acquisition date as it is written, for the order of exams only.
        birads: category; 4a, 4b and 4c are 4.
        density: letter, or None.
    """

    side: str
    view: str
    date: str
    birads: int | None
    density: str | None


@dataclass(frozen=True)
class Region:
    """A region drawn in an image.

    Attributes:
        category: word of siamray.data.exams.CATEGORIES.
        box: row_min, col_min, row_max, col_max in pixels; None where its points cannot be understood.
    """

    category: str
    box: tuple[float, float, float, float] | None


def read(config: DataConfig, cache: Path) -> ExamTables:  # noqa: ARG001  (all sources share one signature)
    """Reads the tables of INbreast; BI-RADS (the worst) and density are the breast's, from its views in an exam.

    Args:
        config: data.root names the folder.
        cache: not used: what is read of the files takes a second.

    Returns:
        The tables; left out with a reason are images without row or file, with a row or annotation that cannot be
        understood, of a view that is neither CC nor MLO, and where table and file name contradict each other.

    Raises:
        UserError: no root, not this data set, or a table that cannot be read.
    """
    root = _find_root(config)
    table = next(path for path in (root / name for name in TABLES) if path.is_file())
    files, excluded = _find_files(root / IMAGES, table.name)
    rows, faults, notes = parse_rows(_read_cells(table), table.name)
    excluded += [{"image_id": f"{table.name}:{line}", "path": str(table), "reason": reason} for line, reason in notes]
    drawn, damaged, left = _read_regions(root / MARKS, {*rows, *faults}, table.name)
    excluded += left
    used: dict[str, tuple[File, Row]] = {}
    for image in sorted({*rows, *faults, *files}):
        file, row = files.get(image), rows.get(image)
        reason = faults.get(image) or damaged.get(image) or _reason(file, row, table.name)
        if reason or file is None or row is None:
            excluded.append({"image_id": image, "path": str(file.path if file else table), "reason": reason})
        else:
            used[image] = (file, row)
    sizes = _sizes({image: used[image][0].path for image in used if drawn.get(image)})
    findings = [
        {"image_id": image, "category": region.category, **_clipped(region, sizes.get(image))}
        for image in used
        for region in drawn.get(image, [])
    ]
    return tables(_exams(used, _exam_numbers(files, rows)), findings, excluded)


def parse_rows(
    cells: Iterable[Mapping[str, str]], name: str
) -> tuple[dict[str, Row], dict[str, str], list[tuple[int, str]]]:
    """Reads the table's rows.

    Args:
        cells: text of COLUMNS for every row.
        name: the table's file name.

    Returns:
        Rows by image; images whose row cannot be understood, with the reason; and number and reason of rows that name
        no image. The footer, two rows that hold neither image nor side, is passed over.
    """
    rows: dict[str, Row] = {}
    faults: dict[str, str] = {}
    notes: list[tuple[int, str]] = []
    for number, record in enumerate(cells, start=1):
        image = record["File Name"]
        if not image.isdecimal():
            if image or record["Laterality"] or record["View"]:
                notes.append((number, f"row {number} names no image: File Name is no number"))
            continue
        if image in rows or image in faults:
            rows.pop(image, None)
            faults[image] = f"{name} has several rows for it"
            continue
        try:
            rows[image] = _row(record)
        except ValueError as error:
            faults[image] = f"{name} row {number} cannot be understood: {error}"
    return rows, faults, notes


def parse_regions(content: bytes) -> list[Region]:
    """Reads the regions of an annotation, an OsiriX property list.

    Args:
        content: the file's content.

    Raises:
        ValueError: if it is no such list; its text holds nothing of the content.
    """
    try:
        images = plistlib.loads(content, fmt=plistlib.FMT_XML)["Images"]
        found = [region for image in images for region in image["ROIs"]]
        return [_region(region) for region in found]
    except Exception as error:
        # plistlib fails in many ways on damaged files (ExpatError, InvalidFileException, KeyError, ...).
        raise ValueError(f"it is no list of regions ({type(error).__name__})") from None


def _find_root(config: DataConfig) -> Path:
    root = root_folder(config, LOOKED_FOR)
    if (root / IMAGES).is_dir() and (root / MARKS).is_dir():
        if any((root / name).is_file() for name in TABLES):
            return root
        raise UserError(f"data.root={root} has no {' or '.join(TABLES)}, which says side, view and BI-RADS of images")
    for other in (root.parent, *(path for path in listed(root) if path.is_dir())):
        if (other / IMAGES).is_dir() and (other / MARKS).is_dir():
            raise UserError(f"data.root={root} has no {IMAGES} and {MARKS}, but data.root={other} has; use that")
    raise not_this_data_set(config, root, LOOKED_FOR)


def _find_files(folder: Path, table: str) -> tuple[dict[str, File], list[dict[str, Any]]]:
    """Returns the file of each image, and rows for files that are not images of the set."""
    files: dict[str, File] = {}
    excluded = []
    for path in listed(folder):
        name = _FILE.fullmatch(path.name)
        if not name:
            if path.suffix.lower() == ".dcm":
                reason = (
                    f"not listed in {table}: its name is not ID_WOMAN_MG_SIDE_VIEW_ANON.dcm, which says whose it is"
                )
                excluded.append({"image_id": path.name, "path": str(path), "reason": reason})
            continue
        image, woman, side, view = name.groups()
        if image in files:
            reason = f"the same image is read from {files[image].path.name}"
            excluded.append({"image_id": path.name, "path": str(path), "reason": reason})
            continue
        files[image] = File(path, woman.lower(), side.upper(), "MLO" if view.upper() == "ML" else view.upper())
    return files, excluded


def _read_cells(path: Path) -> list[dict[str, str]]:
    """Returns the text of COLUMNS for every row.

    Raises:
        UserError: it cannot be read, or a column is missing.
    """
    lines = _sheet_lines(path) if path.suffix == ".xls" else _csv_lines(path)
    header = lines[0] if lines else []
    places = {}
    for column in COLUMNS:
        if column not in header:
            raise UserError(f"{path}: has no column '{column}'{nearest(column, header)}")
        places[column] = header.index(column)
    return [
        {column: line[place].strip() if place < len(line) else "" for column, place in places.items()}
        for line in lines[1:]
    ]


def _csv_lines(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        separator = ";" if ";" in text.partition("\n")[0] else ","
        table = pd.read_csv(
            path, sep=separator, dtype="str", header=None, encoding="utf-8-sig", encoding_errors="replace"
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a table ({type(error).__name__}); restore the file") from None
    return [[cell.strip() for cell in line] for line in table.fillna("").to_numpy(dtype=object).tolist()]


def _sheet_lines(path: Path) -> list[list[str]]:
    """Reads the first sheet of an Excel file of the old kind."""
    try:
        import xlrd
    except ImportError:
        raise UserError(
            f"{path}: needs a reader of Excel files; pip install siamray[inbreast], or save it as INbreast.csv"
        ) from None
    try:
        sheet = xlrd.open_workbook(str(path)).sheet_by_index(0)
        return [[_cell_text(cell) for cell in sheet.row_values(number)] for number in range(sheet.nrows)]
    except Exception as error:
        # xlrd fails in many ways on damaged files (XLRDError, struct.error, AssertionError, ...).
        raise UserError(
            f"{path}: cannot be read as an Excel file ({type(error).__name__}); restore it, or save it as INbreast.csv"
        ) from None


def _cell_text(cell: object) -> str:
    """Returns a cell's text; Excel keeps whole numbers, such as images' names, as floats."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _row(record: Mapping[str, str]) -> Row:
    """Raises ValueError with what is wrong in the row."""
    side, view, date = record["Laterality"].upper(), record["View"].upper(), record["Acquisition date"]
    if side not in ("L", "R"):
        raise ValueError("Laterality is neither L nor R")
    if not view:
        raise ValueError("it has no View")
    if not date.isdecimal():
        raise ValueError("Acquisition date is no number, so that its exam is not known")
    birads = re.fullmatch(r"([0-6])[abc]?", record["Bi-Rads"].lower())
    if record["Bi-Rads"] and not birads:
        raise ValueError("Bi-Rads is not a number from 0 to 6 with a letter at most")
    if record["ACR"] and record["ACR"] not in ("1", "2", "3", "4"):
        raise ValueError("ACR is not a number from 1 to 4")
    density = DENSITIES[int(record["ACR"]) - 1] if record["ACR"] else None
    return Row(side, view, date, int(birads[1]) if birads else None, density)


def _reason(file: File | None, row: Row | None, table: str) -> str:
    """Says why an image is left out before its pixels are read, or nothing."""
    if row is None:
        return f"not listed in {table}: what it shows is not known"
    if file is None:
        return f"listed in {table}, but there is no file of it in {IMAGES}"
    if row.view not in VIEWS:
        return f"neither CC nor MLO: its view is {row.view}"
    for name, said, named in (("side", row.side, file.side), ("view", row.view, file.view)):
        if said != named:
            return f"{table} and its file name contradict each other on its {name}: {said} and {named}"
    return ""


def _read_regions(
    folder: Path, images: set[str], table: str
) -> tuple[dict[str, list[Region]], dict[str, str], list[dict[str, Any]]]:
    """Returns the regions of each image, images whose annotation is damaged, and rows for files of no listed image."""
    drawn: dict[str, list[Region]] = {}
    damaged: dict[str, str] = {}
    excluded = []
    for path in listed(folder):
        if path.suffix.lower() != ".xml":
            continue
        if path.stem not in images:
            excluded.append({"image_id": path.name, "path": str(path), "reason": f"its image is not listed in {table}"})
            continue
        try:
            drawn[path.stem] = parse_regions(path.read_bytes())
        except OSError as error:
            damaged[path.stem] = f"its annotation {path.name} cannot be read ({type(error).__name__})"
        except ValueError as error:
            damaged[path.stem] = f"its annotation {path.name} cannot be understood: {error}"
    return drawn, damaged, excluded


def _region(region: Mapping[str, Any]) -> Region:
    points = [_POINT.fullmatch(str(point).strip()) for point in region.get("Point_px") or []]
    places = np.array([[float(point[2]), float(point[1])] for point in points if point])
    name = str(region.get("Name") or "").strip().lower()
    if name in CATEGORIES:
        category = CATEGORIES[name]
    else:
        category = "calcification" if _NAMELESS.fullmatch(name) and len(points) == 1 else "other"
    if not points or None in points:
        return Region(category, None)
    # A point lies in a pixel, which the box holds whole.
    low, high = np.floor(places.min(axis=0)), np.floor(places.max(axis=0)) + 1
    wider = np.maximum(0, LEAST_SIDE_PIXELS - (high - low)) / 2
    (top, left), (bottom, right) = (low - wider).tolist(), (high + wider).tolist()
    return Region(category, (top, left, bottom, right))


def _sizes(paths: Mapping[str, Path]) -> dict[str, tuple[int, int]]:
    """Returns rows and columns of images; those whose header cannot be read are left to preparation, which says so."""
    sizes = {}
    for image, path in paths.items():
        try:
            header = read_header(path)
        except ImageError:
            continue
        sizes[image] = (header.rows, header.columns)
    return sizes


def _clipped(region: Region, size: tuple[int, int] | None) -> dict[str, float]:
    """Returns the part of a region's box that lies in the image, or nothing where none does or no size is known."""
    if region.box is None or size is None:
        return {}
    top, left, bottom, right = region.box
    top, left, bottom, right = max(0.0, top), max(0.0, left), min(size[0], bottom), min(size[1], right)
    if bottom <= top or right <= left:
        return {}
    return {"row_min": top, "col_min": left, "row_max": bottom, "col_max": right}


def _exam_numbers(files: Mapping[str, File], rows: Mapping[str, Row]) -> dict[tuple[str, str], int]:
    """Numbers each woman's dates in their order, left-out images included, so that a lost file renumbers no exam."""
    dates: dict[str, set[str]] = {}
    for image, row in rows.items():
        if image in files:
            dates.setdefault(files[image].woman, set()).add(row.date)
    return {(woman, date): place for woman in dates for place, date in enumerate(sorted(dates[woman]), start=1)}


def _exams(used: Mapping[str, tuple[File, Row]], numbers: Mapping[tuple[str, str], int]) -> Iterator[dict[str, Any]]:
    breasts: dict[tuple[str, str, str], list[Row]] = {}
    for file, row in used.values():
        breasts.setdefault((file.woman, row.date, row.side), []).append(row)
    for image, (file, row) in used.items():
        rows = breasts[file.woman, row.date, row.side]
        suspicion = [BIRADS.index(other.birads) for other in rows if other.birads is not None]
        densities = {other.density for other in rows if other.density}
        yield {
            "source": "inbreast",
            "woman_id": file.woman,
            "exam_id": f"{file.woman}_{numbers[file.woman, row.date]}",
            "image_id": image,
            "laterality": row.side,
            "view": row.view,
            "path": str(file.path),
            "birads": BIRADS[max(suspicion)] if suspicion else None,
            # Views that contradict each other leave the density unknown.
            "density": densities.pop() if len(densities) == 1 else None,
        }
