"""A folder with a table and folders of images goes in; its rows and files, and what of them is of no use, come out."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from siamray.config import DataConfig
from siamray.data.sources.root import listed, not_this_data_set, read_table, root_folder
from siamray.errors import UserError

# Where a root's right folder is looked for: wget puts VinDr-Mammo into physionet.org/files/vindr-mammo/1.0.0.
_LEVELS_UP, _LEVELS_DOWN, _FOLDERS = 3, 4, 200
# Listing a folder waits for the file server, not for the processor.
_LISTINGS_AT_ONCE = 16


def set_folder(config: DataConfig, table: str, folders: tuple[str, ...], looked_for: str) -> Path:
    """Finds the folder of a data set by its table.

    Args:
        config: data.source and data.root.
        table: name of the table.
        folders: names of which a folder beside the table has one; they tell the set from others with such a table.
        looked_for: what the source looks for, as the end of a sentence.

    Returns:
        The folder, absolute.

    Raises:
        UserError: as root_folder; or the table is not there, with the folder near it that has both, if there is one.
    """
    folder = root_folder(config, looked_for)
    if (folder / table).is_file():
        return folder
    for other in _nearby(folder):
        if (other / table).is_file() and any((other / name).is_dir() for name in folders):
            raise UserError(f"data.root={folder} has no {table}, but data.root={other} has; use that")
    raise not_this_data_set(config, folder, table)


def _nearby(folder: Path) -> Iterator[Path]:
    """Yields the folders above and some of those below, the nearest first."""
    yield from folder.parents[:_LEVELS_UP]
    level = [folder]
    for _ in range(_LEVELS_DOWN):
        below = (path for parent in level for path in listed(parent) if path.is_dir())
        level = [path for path in below if os.access(path, os.R_OK | os.X_OK)][:_FOLDERS]
        yield from level


def image_files(folder: Path, suffixes: tuple[str, ...]) -> dict[tuple[str, str], list[Path]]:
    """Finds the images in the folders of a folder.

    Args:
        folder: what holds a folder per study or woman.
        suffixes: endings of images, the preferred first; files of other endings (wget leaves index.html) are no images.

    Returns:
        Files by the name of their folder ("" for files in the folder itself) and their own without the ending.

    Raises:
        UserError: a folder may not be listed.
    """
    entries = listed(folder)
    with ThreadPoolExecutor(_LISTINGS_AT_ONCE) as pool:
        contents = list(pool.map(listed, entries))
    files: dict[tuple[str, str], list[Path]] = {}
    for entry, paths in zip(entries, contents, strict=True):
        for path in paths or [entry]:
            if path.suffix.lower() in suffixes:
                files.setdefault((entry.name if paths else "", path.stem), []).append(path)
    for found in files.values():
        found.sort(key=lambda path: suffixes.index(path.suffix.lower()))
    return files


def files_of_no_row(
    files: dict[tuple[str, str], list[Path]], rows: set[tuple[str, str]], name: str
) -> Iterator[dict[str, Any]]:
    """Yields what is left out for the files that are not the file of a row.

    Args:
        files: all files, as image_files finds them.
        rows: folder and image of all rows.
        name: file name of the table.
    """
    images = {image for _, image in rows}
    for (folder, stem), (first, *others) in files.items():
        for path in others:
            reason = f"the same image is read from {first.name}"
            yield {"image_id": f"{folder}/{path.name}", "path": str(path), "reason": reason}
        if stem not in images:
            reason = f"not listed in {name}: what it shows is not known"
            yield {"image_id": stem, "path": str(first), "reason": reason}
        elif (folder, stem) not in rows:
            reason = f"listed in {name}, but not for this folder"
            yield {"image_id": f"{folder}/{first.name}", "path": str(first), "reason": reason}


def without_repeats(
    path: Path, columns: list[str], further: tuple[str, ...] = ()
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Reads a table without the rows that name no image or repeat an earlier one.

    Args:
        path: the table.
        columns: the columns that matter, image_id among them.
        further: columns that are read where the table has them; rows that differ in these alone are repeats too.

    Returns:
        These columns, stripped of blanks and "" for null, indexed by their line in the file; and what is left out.

    Raises:
        UserError: it cannot be read, or lacks a column.
    """
    table = read_table(path, columns)
    table = table.assign(**{name: "" for name in further if name not in table.columns})[[*columns, *further]]
    rows = table.fillna("").apply(lambda column: column.str.strip())
    rows.index = pd.RangeIndex(2, len(rows) + 2)
    reasons = pd.Series("", index=rows.index, dtype="str")
    reasons[rows.duplicated(columns)] = "the row repeats an earlier one"
    reasons[rows["image_id"] == ""] = "the row names no image"
    gone = reasons[reasons != ""]
    excluded = [
        {"image_id": f"{path.name}:{line}", "path": str(path), "reason": reason} for line, reason in gone.items()
    ]
    return rows[reasons == ""], excluded
