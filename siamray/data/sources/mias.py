"""A folder with mini-MIAS goes in (Info.txt, mdbNNN.pgm or .png); its exam and finding tables come out.

Left and right: images 2k-1 and 2k are the two breasts of woman k. Published notes call even images left, and the chest
wall lies left on even images as VinDr-Mammo's left breasts do, so even images are called L here; but the lead markers
in the films read R on even and L on odd images, mirror-written. Pairing does not depend on it: no statement about the
left or the right side as such should be drawn from this source.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage

from siamray.config import DataConfig
from siamray.data.exams import ExamTables, exclude_incomplete_pairs, tables
from siamray.errors import UserError

SPACING_MM = 0.2
EDGE_PIXELS = 1024
# Circumscribed and spiculated masses are one kind to the other sources; MISC ("ill-defined") has no word of its own.
CATEGORIES = {
    "CALC": "calcification",
    "CIRC": "mass",
    "SPIC": "mass",
    "MISC": "other",
    "ARCH": "architectural_distortion",
    "ASYM": "asymmetry",
}
_TISSUES = ("F", "G", "D")
_REFERENCE = re.compile(r"mdb(\d{3})", re.IGNORECASE)
_PICTURE = re.compile(r"mdb\d{3}\.(pgm|png)", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One row of Info.txt.

    Attributes:
        image: reference in lower case (mdb005).
        category: word of siamray.data.exams.CATEGORIES, or None for a normal image.
        malignant: severity, or None where the row has none.
        circle: x, y (from the bottom) and radius in pixels, or None where the row names no place.
    """

    image: str
    category: str | None
    malignant: bool | None
    circle: tuple[float, float, float] | None


def read(config: DataConfig, cache: Path) -> ExamTables:  # noqa: ARG001  (all sources share one signature)
    """Reads the tables of mini-MIAS; tissue words (F, G, D) are not BI-RADS letters, so birads and density are null.

    Args:
        config: data.root names the folder.
        cache: not used, as nothing is generated.

    Returns:
        The tables; left out with a reason are images without row, file, or partner, of another size, or with a row
        that cannot be understood.

    Raises:
        UserError: no root, or nothing of mini-MIAS in it.
    """
    info = _find_info(config.root)
    pictures, excluded = _find_pictures(info.parent)
    rows, faults, notes = parse_info(info.read_text(encoding="latin-1"))
    excluded += [{"image_id": f"{info.name}:{line}", "path": str(info), "reason": reason} for line, reason in notes]
    exams: list[dict[str, Any]] = []
    findings: list[dict[str, Any]] = []
    for image in sorted({*rows, *faults, *pictures}):
        path = pictures.get(image)
        reason = faults.get(image) or _reason(image, path, image in rows, info.name)
        if reason:
            excluded.append({"image_id": image, "path": str(path or info), "reason": reason})
            continue
        exams.append(_exam(image, str(path), rows[image]))
        findings += [_finding(row) for row in rows[image] if row.category]
    return exclude_incomplete_pairs(tables(exams, findings, excluded))


def parse_info(text: str) -> tuple[dict[str, list[Row]], dict[str, str], list[tuple[int, str]]]:
    """Reads Info.txt: rows ``REF TISSUE CLASS [SEVERITY [X Y RADIUS]]``, several per image, in the midst of prose.

    Args:
        text: the file's content.

    Returns:
        Rows per image; images with a row that cannot be understood, with the reason (their truth is not known);
        and line number and reason of rows that name no image.
    """
    rows: dict[str, list[Row]] = {}
    faults: dict[str, str] = {}
    notes: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not _looks_like_row(words):
            continue
        reference = _REFERENCE.fullmatch(words[0])
        if not reference:
            notes.append((number, f"Info.txt line {number} names no image (mdb and three digits) and is left out"))
            continue
        image = words[0].lower()
        try:
            row = _row(image, words)
        except ValueError as error:
            faults.setdefault(image, f"Info.txt line {number} cannot be understood: {error}")
            continue
        rows.setdefault(image, []).append(row)
    return rows, faults, notes


def _looks_like_row(words: list[str]) -> bool:
    """Tells rows, well or badly written, from the explanations that the original file begins and ends with."""
    if not words:
        return False
    if words[0].lower().startswith("mdb"):
        return True
    return len(words) >= 3 and (words[1] in _TISSUES or words[2] in (*CATEGORIES, "NORM"))


def _row(image: str, words: list[str]) -> Row:
    """Raises ValueError with what is wrong in the words."""
    if len(words) < 3:
        raise ValueError("it has fewer than three words")
    tissue, kind, rest = words[1].upper(), words[2].upper(), words[3:]
    if tissue not in _TISSUES:
        raise ValueError(f"tissue is none of {', '.join(_TISSUES)}")
    if kind == "NORM":
        return Row(image, None, None, None)
    if kind not in CATEGORIES:
        raise ValueError(f"class is none of {', '.join(CATEGORIES)}, NORM")
    malignant = None
    if rest:
        severity = rest.pop(0).upper()
        if severity not in ("B", "M"):
            raise ValueError("severity is neither B nor M")
        malignant = severity == "M"
    return Row(image, CATEGORIES[kind], malignant, _circle(rest))


def _circle(words: list[str]) -> tuple[float, float, float] | None:
    if not words or words[0].startswith("*"):
        return None
    try:
        x, y, radius = (float(word) for word in words[:3])
    except ValueError:
        raise ValueError("coordinates are not the three numbers x, y, radius") from None
    if not (0 <= x <= EDGE_PIXELS and 0 <= y <= EDGE_PIXELS and 0 < radius <= EDGE_PIXELS):
        raise ValueError(f"coordinates lie outside an image of {EDGE_PIXELS} pixels")
    return x, y, radius


def _exam(image: str, path: str, rows: list[Row]) -> dict[str, Any]:
    number = int(image[3:])
    woman = f"mias_{(number + 1) // 2:03d}"
    return {
        "source": "mias",
        "woman_id": woman,
        "exam_id": woman,
        "image_id": image,
        "laterality": "L" if number % 2 == 0 else "R",
        "view": "MLO",
        "path": path,
        "spacing_mm": SPACING_MM,
        "outcome": _outcome(rows),
    }


def _outcome(rows: list[Row]) -> str | None:
    """The worst of an image's rows; null where an abnormal row names no severity and none is malignant."""
    abnormal = [row for row in rows if row.category]
    if any(row.malignant for row in abnormal):
        return "malignant"
    if any(row.malignant is None for row in abnormal):
        return None
    return "benign" if abnormal else "normal"


def _finding(row: Row) -> dict[str, Any]:
    """Turns the circle into its box, clipped to the image; y counts from the bottom: row = 1024 - y."""
    if row.circle is None:
        return {"image_id": row.image, "category": row.category}
    x, y, radius = row.circle
    centre = EDGE_PIXELS - y
    return {
        "image_id": row.image,
        "category": row.category,
        "row_min": max(0.0, centre - radius),
        "col_min": max(0.0, x - radius),
        "row_max": min(float(EDGE_PIXELS), centre + radius),
        "col_max": min(float(EDGE_PIXELS), x + radius),
    }


def _find_info(root: str | None) -> Path:
    if not root:
        raise UserError("data=mias needs data.root=DIR, the folder that holds Info.txt and mdb001.pgm (or .png), ...")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        kind = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"data.root={root} {kind}; data=mias looks there for Info.txt and mdbNNN.pgm or .png")
    entries = list(_entries(folder))
    for path in entries:
        if path.name.lower() == "info.txt" and path.is_file():
            return path
    if not entries:
        raise UserError(f"data.root={root} is empty; data=mias looks there for Info.txt and mdbNNN.pgm or .png")
    below = [p.name for p in entries if p.is_dir() and any(q.name.lower() == "info.txt" for q in _entries(p))]
    if below:
        raise UserError(f"data.root={root} has no Info.txt, but data.root={folder / below[0]} has; use that")
    names = ", ".join(path.name for path in entries[:3]) + (", ..." if len(entries) > 3 else "")
    raise UserError(
        f"data.root={root} has no Info.txt, which data=mias looks for; found {len(entries)} others: {names}"
    )


def _find_pictures(folder: Path) -> tuple[dict[str, Path], list[dict[str, Any]]]:
    """Returns the picture of each image, the original PGM where there is a PNG too, and rows for the ones not used."""
    pictures: dict[str, Path] = {}
    excluded: list[dict[str, Any]] = []
    for path in sorted(_entries(folder), key=lambda path: (path.suffix.lower() != ".pgm", path.name)):
        if not _PICTURE.fullmatch(path.name) or not path.is_file():
            continue
        image = path.stem.lower()
        if image in pictures:
            reason = f"the same image is read from {pictures[image].name}"
            excluded.append({"image_id": path.name, "path": str(path), "reason": reason})
        else:
            pictures[image] = path
    if not pictures:
        found = sorted({path.suffix for path in _entries(folder) if path.suffix})
        raise UserError(
            f"data.root={folder} has an Info.txt but no image mdbNNN.pgm or .png, which data=mias looks for; "
            f"found files of kind {', '.join(found)}"
        )
    return pictures, excluded


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError:
        raise UserError(f"data.root: {folder} cannot be listed; change its permissions") from None


def _reason(image: str, path: Path | None, listed: bool, info: str) -> str:
    """Says why an image is left out before its pixels are read, or nothing."""
    if not listed:
        return f"not listed in {info}: what it shows is not known"
    if path is None:
        return f"listed in {info}, but there is no file {image}.pgm or {image}.png"
    try:
        with PillowImage.open(path) as picture:
            rows, cols = picture.height, picture.width
    except (OSError, ValueError, SyntaxError):
        return ""  # prepare finds it unreadable and says so in the manifest
    if (rows, cols) != (EDGE_PIXELS, EDGE_PIXELS):
        return f"{rows} by {cols} pixels, not the {EDGE_PIXELS} by {EDGE_PIXELS} that the coordinates of {info} mean"
    return ""
