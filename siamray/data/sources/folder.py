"""A folder with a group's own exams.csv (or .parquet), findings and images goes in; exam and finding tables come out.

docs/own_data.md says how the tables are written. Only woman_id, image_id, laterality, view and path are needed; exam_id
is the woman where the table has none. The column source is not read: it names the module that read an image, which is
"folder". Paths start from data.root or are absolute. Rows are counted as a spreadsheet does, the headings being row 1.
"""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from siamray.config import DataConfig
from siamray.data.exams import BOX_COLUMNS, EXAM_COLUMNS, FINDING_COLUMNS, ExamTables, tables
from siamray.data.sources.folder_words import match_columns, parse, parse_box
from siamray.data.sources.image_sizes import image_sizes
from siamray.data.sources.root import listed, not_this_data_set, read_table, root_folder
from siamray.errors import UserError

EXAMS, FINDINGS = "exams", "findings"
ENDINGS = (".csv", ".parquet")
REQUIRED = ["woman_id", "image_id", "laterality", "view", "path"]
_READ = [name for name in EXAM_COLUMNS if name != "source"]
_LOOKED_FOR = "exams.csv or exams.parquet"
_OTHER_TABLES = (*ENDINGS, ".xls", ".xlsx", ".tsv", ".txt", ".json")
# Rows named in a reason.
_SHOWN = 3
# Listing a folder waits for the file server, not for the processor.
_LISTINGS_AT_ONCE = 16

Cells = dict[str, list[str | None]]


def read(config: DataConfig, cache: Path) -> ExamTables:
    """Reads a group's own tables.

    Args:
        config: data.root names the folder.
        cache: folder that remembers the sizes of marked images, to which their boxes are cut.

    Returns:
        The tables; left out with a reason are rows that cannot be understood, repeat or contradict others, images
        without file or with a finding that cannot be understood, and files beside listed images that no row lists.
        Columns that are not read are listed there too.

    Raises:
        UserError: no root, no exams table or two, a missing or misspelt column, or a table with a misspelt name.
    """
    root = root_folder(config, _LOOKED_FOR)
    path = _table_path(config, root, EXAMS)
    if path is None:
        raise _no_exams(config, root)
    findings_path = _table_path(config, root, FINDINGS)
    cells, excluded = _cells(path, _READ, REQUIRED)
    wheres = _paths(cells["path"], root)
    there = _existing(where for where in wheres if where)
    exams, reasons, notes = _exams(cells, wheres, there, path)
    excluded += notes
    findings: list[dict[str, Any]] = []
    if findings_path is not None:
        marks, unread = _cells(findings_path, FINDING_COLUMNS, ["image_id", "category"])
        findings, faults, notes = _findings(marks, {str(cell) for cell in cells["image_id"]}, findings_path)
        reasons = {**faults, **reasons}
        excluded += [*unread, *notes]
    for row in findings:
        if exams.get(row["image_id"], {}).get("outcome") == "normal":
            reasons.setdefault(row["image_id"], f"{path.name} calls it normal, but {FINDINGS} mark it; is it benign?")
    kept = {image: exam for image, exam in exams.items() if image not in reasons}
    paths = dict(zip(cells["image_id"], wheres, strict=True))
    excluded += [{"image_id": i, "path": paths.get(i) or str(path), "reason": why} for i, why in reasons.items()]
    excluded += _files_of_no_row(root, {where for where in wheres if where}, there, path.name)
    rows, outside = _clipped([row for row in findings if row["image_id"] in kept], kept, cache)
    for image in outside:
        exam = kept.pop(image)
        excluded.append({"image_id": image, "path": exam["path"], "reason": "a box lies outside the image"})
    return tables(kept.values(), [row for row in rows if row["image_id"] in kept], excluded)


def _table_path(config: DataConfig, root: Path, name: str) -> Path | None:
    """Finds a table; raises UserError where there are two, or one whose name is misspelt."""
    files = [path for path in listed(root) if path.suffix.lower() in _OTHER_TABLES and path.is_file()]
    found = [path for path in files if path.stem.lower() == name and path.suffix.lower() in ENDINGS]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise UserError(f"data.root={config.root} has {names}, which may differ; keep one of them")
    if found:
        return found[0]
    for path in files:
        if path.stem.lower() not in (EXAMS, FINDINGS) and get_close_matches(path.stem.lower(), [name], cutoff=0.75):
            raise UserError(f"{path} is not read; rename it to {name}.csv or {name}.parquet, or move it elsewhere")
        if path.stem.lower() == name:
            raise UserError(f"{path} is not read; save it as {name}.csv or {name}.parquet, separated by commas")
    return None


def _no_exams(config: DataConfig, root: Path) -> UserError:
    """Says what was found instead, and where a table lies if one level up or down has one."""
    for other in (root.parent, *(path for path in listed(root) if path.is_dir() and os.access(path, os.R_OK))):
        if any((other / f"{EXAMS}{ending}").is_file() for ending in ENDINGS):
            return UserError(f"data.root={root} has no {_LOOKED_FOR}, but data.root={other} has; use that")
    return not_this_data_set(config, root, _LOOKED_FOR)


def _cells(path: Path, known: list[str], required: list[str]) -> tuple[Cells, list[dict[str, Any]]]:
    """Reads the known columns of a table as text, None where blank; and rows for the columns that are not read."""
    table = read_table(path, [])
    headings = [str(name) for name in table.columns]
    if len(headings) == 1 and any(mark in headings[0] for mark in ";\t"):
        raise UserError(f"{path}: its cells are separated by semicolons or tabs; save it with commas")
    if path.suffix.lower() == ".csv" and not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"{path}: its rows have more cells than there are headings; mend the table")
    try:
        found, unread = match_columns(headings, known, required)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    cells: Cells = {name: [None] * len(table) for name in known}
    for name, heading in found.items():
        cells[name] = [_text(value) for value in table[heading].tolist()]
    where = {"path": str(path), "reason": "a column that is not one of siamray's; it is not read"}
    return cells, [{"image_id": f"{path.name} column {heading}", **where} for heading in unread]


def _text(value: Any) -> str | None:
    """Turns a cell into text without blanks around it; Parquet holds numbers, and whole ones as floats beside nulls."""
    if not isinstance(value, str):
        if value is None or pd.isna(value):
            return None
        value = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return value.strip() or None


def _exams(
    cells: Cells, wheres: list[str | None], there: set[str], path: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, str], list[dict[str, Any]]]:
    """Returns exams by image; reasons by image; and what is left out of rows that name no image or repeat one."""
    name = path.name
    cells["exam_id"] = [exam or woman for exam, woman in zip(cells["exam_id"], cells["woman_id"], strict=True)]
    values, faults = _parsed(cells, _READ, ["exam_id", *REQUIRED])
    values["path"] = wheres
    frame = pd.DataFrame(values, dtype="object", columns=_READ)
    frame["row"] = range(2, len(frame) + 2)
    notes = [
        _note(path, row, "the row names no image")
        for row, image in zip(frame["row"], frame["image_id"], strict=True)
        if image is None
    ]
    named = frame["image_id"].notna()
    repeats = named & frame.duplicated(_READ)
    notes += [_note(path, row, "the row repeats an earlier one") for row in frame.loc[repeats, "row"]]
    frame = frame[named & ~repeats]
    reasons: dict[str, str] = {}
    for image, row in zip(frame["image_id"], frame["row"], strict=True):
        if row in faults:
            reasons.setdefault(image, f"{name} row {row}: {faults[row]}")
    for image, reason in _contradictions(frame, name):
        reasons.setdefault(image, reason)
    exams: dict[str, dict[str, Any]] = {}
    for record in frame.to_dict("records"):
        image = str(record["image_id"])
        if image not in reasons and record["path"] not in there:
            reasons[image] = f"{name} row {record['row']}: there is no such file; paths start from data.root"
        exams.setdefault(image, {**{column: record[column] for column in _READ}, "source": "folder"})
    return exams, reasons, notes


def _note(path: Path, row: int, reason: str) -> dict[str, Any]:
    return {"image_id": f"{path.name} row {row}", "path": str(path), "reason": reason}


def _parsed(cells: Cells, columns: Iterable[str], required: list[str]) -> tuple[dict[str, list[Any]], dict[int, str]]:
    """Reads all cells, every spelling once; returns values by column, and the first fault by row."""
    values: dict[str, list[Any]] = {}
    faults: dict[int, str] = {}
    for column in columns:
        meanings: dict[str | None, Any] = {}
        wrong: dict[str | None, str] = {None: f"{column} is blank"} if column in required else {}
        for text in set(cells[column]):
            try:
                meanings[text] = parse(column, text)
            except ValueError as error:
                wrong[text] = str(error)
        values[column] = [meanings.get(text) for text in cells[column]]
        for row, text in enumerate(cells[column], start=2):
            if text in wrong:
                faults.setdefault(row, wrong[text])
    return values, faults


def _paths(texts: list[str | None], root: Path) -> list[str | None]:
    """Makes paths absolute; those written on Windows are read with slashes where they mean nothing as they stand."""
    base = str(root)
    found: list[str | None] = []
    for text in texts:
        path = None if text is None else os.path.normpath(os.path.join(base, os.path.expanduser(text)))
        if path is not None and "\\" in path and not os.path.exists(path):
            path = os.path.normpath(os.path.join(base, str(text).replace("\\", "/")))
        found.append(path)
    return found


def _existing(paths: Iterable[str]) -> set[str]:
    """Finds the files that are there, by one listing of each folder."""
    folders = sorted({os.path.dirname(path) for path in paths})
    with ThreadPoolExecutor(_LISTINGS_AT_ONCE) as pool:
        return {path for files in pool.map(_files, folders) for path in files}


def _files(folder: str) -> list[str]:
    """Lists the files of a folder; none where it is not there."""
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        raise UserError(f"data.root: {folder} cannot be listed; change its permissions") from None


def _contradictions(frame: pd.DataFrame, name: str) -> Iterable[tuple[str, str]]:
    """Yields image and reason of the rows that cannot all be true."""
    for column, inner, text in (
        ("image_id", "row", "its image_id stands in {rows}, which differ"),
        ("path", "image_id", "its file is that of several images ({rows})"),
        ("exam_id", "woman_id", "its exam_id belongs to several women ({rows}); make it unique, such as WOMAN_EXAM"),
        ("woman_id", "split", "its woman is in several splits ({rows}); she would be trained on and tested"),
    ):
        several = frame.groupby(column)[inner].transform("nunique") > 1
        for _, rows in frame[several].groupby(column):
            shown = ", ".join(map(str, rows["row"].tolist()[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
            for image in rows["image_id"]:
                yield str(image), text.format(rows=f"{name} rows {shown}")


def _findings(
    cells: Cells, images: set[str], path: Path
) -> tuple[list[dict[str, Any]], dict[str, str], list[dict[str, Any]]]:
    """Returns finding rows, reasons by image, and what is left out of rows that name no known image or repeat one."""
    values, faults = _parsed(cells, ["image_id", "category"], ["category"])
    seen: set[tuple[Any, ...]] = set()
    rows: list[dict[str, Any]] = []
    reasons: dict[str, str] = {}
    notes: list[dict[str, Any]] = []
    for place, image in enumerate(values["image_id"]):
        row = place + 2
        texts = {column: cells[column][place] for column in BOX_COLUMNS}
        key = (image, values["category"][place], *texts.values())
        if image is None:
            notes.append(_note(path, row, "the row names no image"))
        elif image not in images:
            notes.append(_note(path, row, f"a finding of an image that {EXAMS} do not list"))
        elif key in seen and row not in faults:
            notes.append(_note(path, row, "the row repeats an earlier one"))
        else:
            seen.add(key)
            try:
                if row in faults:
                    raise ValueError(faults[row])
                rows.append({"image_id": image, "category": values["category"][place], **parse_box(texts)})
            except ValueError as error:
                reasons.setdefault(image, f"{path.name} row {row}: {error}")
    return rows, reasons, notes


def _clipped(
    findings: list[dict[str, Any]], exams: Mapping[str, Mapping[str, Any]], cache: Path
) -> tuple[list[dict[str, Any]], set[str]]:
    """Cuts boxes to their image where its size can be read; and names the images with a box outside."""
    placed = {str(row["image_id"]) for row in findings if "row_min" in row}
    sizes = image_sizes({exams[image]["path"] for image in placed}, cache)
    rows: list[dict[str, Any]] = []
    outside: set[str] = set()
    for row in findings:
        size = sizes.get(exams[row["image_id"]]["path"]) if "row_min" in row else None
        if size is None:
            rows.append(row)
            continue
        cut = {"row_max": min(row["row_max"], float(size[0])), "col_max": min(row["col_max"], float(size[1]))}
        if cut["row_max"] <= row["row_min"] or cut["col_max"] <= row["col_min"]:
            outside.add(row["image_id"])
        rows.append({**row, **cut})
    return rows, outside


def _files_of_no_row(root: Path, listed_paths: set[str], there: set[str], name: str) -> list[dict[str, Any]]:
    """Finds files beside listed images, with the ending of one of them, that no row lists."""
    endings: dict[str, set[str]] = {}
    for path in listed_paths:
        endings.setdefault(os.path.dirname(path), set()).add(os.path.splitext(path)[1].lower())
    excluded = []
    for path in sorted(there - listed_paths):
        folder, file = os.path.split(path)
        if os.path.splitext(file)[1].lower() in endings[folder] and not file.startswith("."):
            image = os.path.join(".", os.path.relpath(path, root))
            excluded.append(
                {"image_id": image, "path": path, "reason": f"not listed in {name}: what it shows is not known"}
            )
    return excluded
