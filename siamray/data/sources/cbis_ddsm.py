"""A folder with CBIS-DDSM goes in (four description tables, folders of DICOM); its exam and finding tables come out.

The paths in the tables hold identifiers and file names that downloads rename, and crop and mask change places in them.
Only their first folder (Mass-Training_P_00001_LEFT_CC, with _1 for an abnormality) is as on disk, in every layout of
the download, so that files are found by it and told apart by what they hold. PatientID and StudyInstanceUID differ
from view to view; P_00001 is the woman.

A mammogram that shows masses and calcifications has a folder and rows under Mass and under Calc, and its abnormalities
are counted through over both (P_00041_LEFT_CC: mass 1, calcification 2): here it is one image with the findings of
both, read from the Mass folder. A woman may be a test woman of one table and a training woman of the other: she is a
test woman here.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamray.config import DataConfig
from siamray.data.exams import BIRADS, DENSITIES, ExamTables, tables
from siamray.data.sources.cbis_ddsm_masks import Mark, Measure, mask_in, measured, size_of
from siamray.data.sources.root import listed, not_this_data_set, read_table, root_folder
from siamray.errors import UserError

LOOKED_FOR = "mass_case_description_train_set.csv and folders such as Mass-Training_P_00001_LEFT_CC"
TABLES = {
    f"{kind}_case_description_{part}_set.csv": (kind, part) for kind in ("mass", "calc") for part in ("train", "test")
}
# Columns by what they tell; only the tables of calcifications write the density's with a space.
_COLUMNS = {
    "woman": "patient_id",
    "side": "left or right breast",
    "view": "image view",
    "number": "abnormality id",
    "assessment": "assessment",
    "pathology": "pathology",
    "image": "image file path",
    "crop": "cropped image file path",
    "mask": "ROI mask file path",
}
_OWN_COLUMNS = {
    "mass": {"density": "breast_density", "shape": "mass shape"},
    "calc": {"density": "breast density", "shape": "calc type"},
}
# Findings listed as masses that are none. A mass that also distorts (IRREGULAR-ARCHITECTURAL_DISTORTION) stays a mass;
# a lymph node is one whatever its outline. BI-RADS later named asymmetric breast tissue a global asymmetry.
_SHAPES = {
    "LYMPH_NODE": "lymph_node",
    "ARCHITECTURAL_DISTORTION": "architectural_distortion",
    "FOCAL_ASYMMETRIC_DENSITY": "focal_asymmetry",
    "ASYMMETRIC_BREAST_TISSUE": "global_asymmetry",
}
_MALIGNANT = {"MALIGNANT": True, "BENIGN": False, "BENIGN_WITHOUT_CALLBACK": False}
_CASE = re.compile(r"(Mass|Calc)-(Training|Test)_(P_\d+)_(LEFT|RIGHT)_(CC|MLO)(_\d+)?")
# Folders between data.root and the cases: manifest-1599750808610/CBIS-DDSM, or a folder per part of the download.
_DEPTH = 3
# Sides of mask and mammogram may differ by this share in their ratio and still show the same field.
_ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class Row:
    """One row of a table: an abnormality in an image.

    Attributes:
        image: woman, side and view (P_00001_LEFT_CC).
        folder: folder of the mammogram (Mass-Training_P_00001_LEFT_CC).
        marks: folders in which the mask may lie, the likeliest first.
        category: word of siamray.data.exams.CATEGORIES.
        birads: assessment.
        density: letter, or None.
        malignant: pathology.
    """

    image: str
    folder: str
    marks: tuple[str, ...]
    category: str
    birads: int | None
    density: str | None
    malignant: bool


@dataclass
class Listed:
    """What the four tables say.

    Attributes:
        rows: rows by image.
        folders: folders of each image that a row names, understood or not; Mass before Calc.
        faults: images with a row that cannot be understood, and why: what they show is not known.
        notes: rows that name no image: row, table and why.
        test: women that a test table names.
    """

    rows: dict[str, list[Row]]
    folders: dict[str, list[str]]
    faults: dict[str, str]
    notes: list[tuple[str, Path, str]]
    test: set[str]


def read(config: DataConfig, cache: Path) -> ExamTables:
    """Reads the tables of CBIS-DDSM; findings' boxes are measured in the masks, once.

    Outcome, BI-RADS (the worst) and density are the breast's, from the rows of both its views. A row that cannot be
    understood leaves its image out, and the breast's labels, except malignant, unknown. A breast without any
    abnormality has no image in this set.

    Args:
        config: data.root names the folder.
        cache: folder that remembers the boxes (cbis_ddsm-boxes.json).

    Returns:
        The tables; left out with a reason are images without file or with a row that cannot be understood, folders
        that no row names, the second copy of an image, and masks that cannot be used: their findings have no place.

    Raises:
        UserError: no root, or a table or all the images are missing.
    """
    root, paths = _find_tables(config)
    cases, excluded = _find_cases(root)
    if not cases:
        raise UserError(
            f"data.root={root} has the tables of data=cbis_ddsm but no folder such as Mass-Training_P_00001_LEFT_CC; "
            "put the DICOM folders of the download there (copies in JPEG or PNG are not read)"
        )
    known = _read_tables(paths)
    excluded += [{"image_id": name, "path": str(path), "reason": reason} for name, path, reason in known.notes]
    files, left = _image_files(known, cases, root)
    excluded += left + _unlisted(known, cases)
    usable = {image: path for image, path in files.items() if image not in known.faults}
    sizes, marks = _measure(known, usable, cases, root, cache)
    findings: list[dict[str, Any]] = []
    for image in usable:
        for row in known.rows[image]:
            box, fault = _place(row, sizes[image], marks)
            findings.append({"image_id": image, "category": row.category, **box})
            if fault:
                name = next((folder for folder in row.marks if folder in cases), row.marks[0])
                path = cases[name][0].parent if name in cases else root / name
                reason = f"{fault}: the place of a finding in {image} is not known"
                excluded.append({"image_id": name, "path": str(path), "reason": reason})
    return tables(_exams(known, usable), findings, excluded)


def _find_tables(config: DataConfig) -> tuple[Path, list[Path]]:
    """Finds the four tables in data.root or in a folder in it."""
    root = root_folder(config, LOOKED_FOR)
    found = _tables_in(root)
    if not found:
        for other in (root.parent, *(path for path in listed(root) if path.is_dir()), root.parent.parent):
            if other != root and _tables_in(other):
                raise UserError(
                    f"data.root={root} has no mass_case_description_train_set.csv, but data.root={other} has; use that"
                )
        raise not_this_data_set(config, root, LOOKED_FOR)
    missing = [name for name in TABLES if name not in found]
    if missing:
        raise UserError(
            f"data.root={root} has no {', '.join(missing)}; data=cbis_ddsm needs all four tables, as findings and test "
            "women of one stand in another; they are on the data set's page of TCIA"
        )
    return root, [found[name] for name in TABLES]


def _tables_in(folder: Path) -> dict[str, Path]:
    """Returns the tables in a folder, else those in the folders in it that are no cases (csv, CBIS-DDSM)."""
    entries = listed(folder)
    found = {path.name: path for path in entries if path.name in TABLES}
    for below in entries:
        if not found and not _CASE.fullmatch(below.name) and not below.suffix and below.is_dir():
            found = {path.name: path for path in listed(below) if path.name in TABLES}
    return found


def _find_cases(root: Path) -> tuple[dict[str, list[Path]], list[dict[str, Any]]]:
    """Returns the DICOM files below each case's folder, and rows for DICOM files that lie elsewhere."""
    cases: dict[str, list[Path]] = {}
    stray: list[dict[str, Any]] = []
    folders = [(root, 0)]
    while folders:
        folder, depth = folders.pop(0)
        for path in listed(folder):
            if _CASE.fullmatch(path.name):
                cases.setdefault(path.name, []).extend(_dicom_below(path))
            elif path.suffix.lower() == ".dcm":
                reason = "lies in no folder such as Mass-Training_P_00001_LEFT_CC, which says what it shows"
                stray.append({"image_id": path.name, "path": str(path), "reason": reason})
            elif depth < _DEPTH and path.is_dir():
                folders.append((path, depth + 1))
    return {name: files for name, files in cases.items() if files}, stray


def _dicom_below(folder: Path) -> Iterator[Path]:
    for path in listed(folder):
        if path.suffix.lower() == ".dcm":
            yield path
        elif path.is_dir():
            yield from _dicom_below(path)


def _read_tables(paths: list[Path]) -> Listed:
    known = Listed({}, {}, {}, [], set())
    for path in paths:
        kind, part = TABLES[path.name]
        columns = {**_COLUMNS, **_OWN_COLUMNS[kind]}
        table = read_table(path, list(columns.values()))
        cells = {name: table[column].fillna("").str.strip().tolist() for name, column in columns.items()}
        for number, values in enumerate(zip(*cells.values(), strict=True), start=1):
            record = dict(zip(cells, values, strict=True))
            try:
                image, folder = _identity(record, kind, part)
            except ValueError as error:
                known.notes.append((f"{path.name}:{number}", path, f"row {number} names no image: {error}"))
                continue
            if part == "test":
                known.test.add(record["woman"])
            if folder not in known.folders.setdefault(image, []):
                known.folders[image].append(folder)
            try:
                known.rows.setdefault(image, []).append(_row(record, kind, image, folder))
            except ValueError as error:
                known.faults.setdefault(image, f"{path.name} row {number} cannot be understood: {error}")
    return known


def _identity(record: Mapping[str, str], kind: str, part: str) -> tuple[str, str]:
    """Returns the image and its folder; raises ValueError with what is wrong in the row."""
    if not re.fullmatch(r"P_\d+", record["woman"]):
        raise ValueError("patient_id is not P_ and digits")
    if record["side"] not in ("LEFT", "RIGHT"):
        raise ValueError("left or right breast is neither LEFT nor RIGHT")
    if record["view"] not in ("CC", "MLO"):
        raise ValueError("image view is neither CC nor MLO")
    image = f"{record['woman']}_{record['side']}_{record['view']}"
    return image, f"{kind.capitalize()}-{'Training' if part == 'train' else 'Test'}_{image}"


def _row(record: Mapping[str, str], kind: str, image: str, folder: str) -> Row:
    """Raises ValueError with what is wrong in the row."""
    named = _top_folder(record["image"])
    if _CASE.fullmatch(named) and named != folder:
        raise ValueError("its image file path names another image")
    if record["pathology"] not in _MALIGNANT:
        raise ValueError(f"pathology is none of {', '.join(_MALIGNANT)}")
    birads = _number(record["assessment"], "assessment", 5)
    density = _number(record["density"], "breast density", len(DENSITIES))
    marks = [_top_folder(record["mask"]), _top_folder(record["crop"]), f"{folder}_{record['number']}"]
    return Row(
        image=image,
        folder=folder,
        marks=tuple(dict.fromkeys(mark for mark in marks if mark.startswith(f"{folder}_"))),
        category="calcification" if kind == "calc" else _category(record["shape"]),
        birads=birads,
        # 0 stands where no density was given.
        density=DENSITIES[density - 1] if density else None,
        malignant=_MALIGNANT[record["pathology"]],
    )


def _top_folder(path: str) -> str:
    """Returns the first folder of a path cell, whose end may be a newline and whose separators Windows'."""
    return path.strip().replace("\\", "/").split("/")[0]


def _number(text: str, name: str, highest: int) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"\d(\.0)?", text) or int(text[0]) > highest:
        raise ValueError(f"{name} is not a number from 0 to {highest}")
    return int(text[0])


def _category(shape: str) -> str:
    words = shape.split("-")
    if "LYMPH_NODE" in words:
        return "lymph_node"
    own = [_SHAPES[word] for word in words if word in _SHAPES]
    return own[0] if own and len(own) == len(words) else "mass"


def _image_files(
    known: Listed, cases: Mapping[str, list[Path]], root: Path
) -> tuple[dict[str, Path], list[dict[str, Any]]]:
    """Returns the file of each image, and rows for images without one or left out, and for files of the same image."""
    files: dict[str, Path] = {}
    excluded = []
    for image, folders in known.folders.items():
        there = [(folder, path) for folder in folders for path in cases.get(folder, [])]
        reason = known.faults.get(image)
        if not there:
            reason = reason or f"listed in the tables, but there is no DICOM file in a folder {' or '.join(folders)}"
            excluded.append({"image_id": image, "path": str(root / folders[0]), "reason": reason})
            continue
        (used, files[image]), *others = there
        if reason:
            excluded.append({"image_id": image, "path": str(files[image]), "reason": reason})
        for folder, path in others:
            name = folder if folder != used else f"{folder}/{path.name}"
            reason = f"the same mammogram is read from another file, in {used}"
            excluded.append({"image_id": name, "path": str(path), "reason": reason})
    return files, excluded


def _unlisted(known: Listed, cases: Mapping[str, list[Path]]) -> list[dict[str, Any]]:
    named = {folder for folders in known.folders.values() for folder in folders}
    named |= {mark for rows in known.rows.values() for row in rows for mark in row.marks}
    # Folders of abnormalities of an image that is left out are named by a row that could not be understood.
    faulty = {folder for image in known.faults for folder in known.folders[image]}
    return [
        {"image_id": name, "path": str(files[0].parent), "reason": "not listed in the tables: what it shows is unknown"}
        for name, files in cases.items()
        if name not in named and name.rpartition("_")[0] not in faulty
    ]


def _measure(
    known: Listed, images: Mapping[str, Path], cases: Mapping[str, list[Path]], root: Path, cache: Path
) -> tuple[dict[str, Mark], dict[str, Mark]]:
    """Returns the sizes of images by image, and the masks by folder."""
    jobs: dict[str, tuple[Measure, list[Path]]] = {image: (size_of, [path]) for image, path in images.items()}
    folders = {mark for image in images for row in known.rows[image] for mark in row.marks if mark in cases}
    jobs.update({folder: (mask_in, cases[folder]) for folder in sorted(folders)})
    marks = measured(jobs, root, cache)
    return {image: marks[image] for image in images}, {folder: marks[folder] for folder in folders}


def _place(row: Row, size: Mark, marks: Mapping[str, Mark]) -> tuple[dict[str, float], str]:
    """Returns the box of a finding in pixels of the image, or nothing and the reason."""
    folder = next((folder for folder in row.marks if folder in marks), None)
    if folder is None:
        return {}, "there is no mask"
    mark = marks[folder]
    if mark.box is None:
        return {}, f"its mask cannot be used, as {mark.fault}"
    if size.fault:
        return {}, f"the mammogram's size is not known, as {size.fault}"
    down, across = size.rows / mark.rows, size.columns / mark.columns
    if abs(down / across - 1) > _ASPECT_TOLERANCE:
        sizes = f"{mark.rows} by {mark.columns} pixels for a mammogram of {size.rows} by {size.columns}"
        return {}, f"its mask has another shape than the mammogram ({sizes})"
    top, left, bottom, right = mark.box
    return {"row_min": top * down, "col_min": left * across, "row_max": bottom * down, "col_max": right * across}, ""


def _exams(known: Listed, files: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    breasts: dict[str, list[Row]] = {}
    for image, rows in known.rows.items():
        breasts.setdefault(image.rpartition("_")[0], []).extend(rows)
    doubtful = {image.rpartition("_")[0] for image in known.faults}
    for image, path in files.items():
        breast, _, view = image.rpartition("_")
        woman, _, side = breast.rpartition("_")
        yield {
            "source": "cbis_ddsm",
            "woman_id": woman,
            "exam_id": woman,
            "image_id": image,
            "laterality": side[0],
            "view": view,
            "path": str(path),
            "split": "test" if woman in known.test else "training",
            **_labels(breasts[breast], breast in doubtful),
        }


def _labels(rows: list[Row], doubtful: bool) -> dict[str, Any]:
    """Returns the labels of a breast of its rows; where one of them cannot be understood only the worst is sure."""
    malignant = any(row.malignant for row in rows)
    if doubtful:
        return {"outcome": "malignant" if malignant else None}
    birads = [BIRADS.index(row.birads) for row in rows if row.birads is not None]
    densities = {row.density for row in rows if row.density}
    return {
        "outcome": "malignant" if malignant else "benign",
        "birads": BIRADS[max(birads)] if birads else None,
        # Rows that contradict each other leave the density unknown.
        "density": densities.pop() if len(densities) == 1 else None,
    }
