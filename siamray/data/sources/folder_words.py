"""Headings and cells of a group's own table go in; columns and values of siamray's tables, or what is wrong, come out.

What a cell says is never repeated in a reason: a table may hold anything, a name too, and reasons reach the manifest.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from siamray.data.exams import BIRADS, BOX_COLUMNS, CATEGORIES, DENSITIES, OUTCOMES
from siamray.data.sites import LONGEST_SITE, site_word
from siamray.data.vendors import vendor_word
from siamray.errors import nearest

# Headings that other tables use for a column of siamray; they are named in the refusal, as what they hold may differ.
OTHER_NAMES = {
    "patient": "woman_id",
    "patientid": "woman_id",
    "client": "woman_id",
    "study": "exam_id",
    "studyid": "exam_id",
    "side": "laterality",
    "viewposition": "view",
    "file": "path",
    "filename": "path",
    "filepath": "path",
    "manufacturer": "vendor",
    "pathology": "outcome",
    "pixelspacing": "spacing_mm",
}
_NEAR = 0.8
# Views that radiographers take beside the two standard ones.
_OTHER_VIEWS = ("ML", "LM", "LMO", "AT", "XCC", "XCCL", "XCCM", "FB", "SIO", "ISO", "CV", "TAN", "SPOT", "MAG")
# Spellings after lower case, without blanks, dots, dashes and underscores.
_WORDS: dict[str, dict[str, Any]] = {
    "laterality": {"l": "L", "left": "L", "r": "R", "right": "R"},
    "view": {"cc": "CC", "craniocaudal": "CC", "mlo": "MLO", "mediolateraloblique": "MLO"},
    "split": {
        **dict.fromkeys(("training", "train"), "training"),
        **dict.fromkeys(("validation", "valid", "val"), "validation"),
        **dict.fromkeys(("test", "testing"), "test"),
    },
    "birads": {**{f"{value}": value for value in BIRADS}, "4a": 4, "4b": 4, "4c": 4},
    "density": {letter.lower(): letter for letter in DENSITIES},
    "outcome": {word.replace("_", ""): word for word in OUTCOMES},
    "category": {
        **{word.replace("_", ""): word for word in CATEGORIES},
        **{f"{word.replace('_', '')}s": word for word in CATEGORIES},
        **dict.fromkeys(("masses",), "mass"),
        **dict.fromkeys(("suspiciouscalcification", "suspiciouscalcifications"), "calcification"),
        **dict.fromkeys(("suspiciouslymphnode", "lymphnodes"), "lymph_node"),
    },
}
# What may stand before a word: "BI-RADS 4", "ACR B".
_PREFIXES = {"birads": r"^(acr)?birads", "density": r"^(acr|birads|density|acrdensity|biradsdensity)(?=[a-d]$)"}
# Least and greatest value, and what may be meant beyond them.
_LIMITS = {
    "spacing_mm": (0.01, 2.0, "it is in millimetres, such as 0.07"),
    "age": (1.0, 120.0, "it is in years at the exam"),
    "outcome_months": (0.0, 1200.0, "it is in months from the exam on"),
}


def squeezed(text: str) -> str:
    """Reduces a word to its letters and digits in lower case."""
    return re.sub(r"[^0-9a-z]", "", text.lower())


def match_columns(
    headings: Sequence[str], known: Sequence[str], required: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Finds the columns of siamray among the headings of a table.

    Case, blanks and dashes do not matter. A heading that is near to a column which the table lacks is refused: read as
    unknown, the column would silently be null. A heading that begins with an underscore is the group's own.

    Args:
        headings: of the table.
        known: the columns that siamray reads.
        required: those of them that must be there.

    Returns:
        The heading of each known column that is there, and the headings that are not read; without the group's own.

    Raises:
        ValueError: says which column is missing, misspelt, or there twice, and the remedy.
    """
    found: dict[str, str] = {}
    unread: list[str] = []
    exact = {squeezed(name): name for name in known}
    for heading in headings:
        # pandas numbers the repeats of a heading: birads, birads.1
        name = exact.get(squeezed(re.sub(r"\.\d+$", "", heading)))
        if heading.startswith("_"):
            continue
        if name is None:
            unread.append(heading)
        elif name in found:
            raise ValueError(f"has two columns '{name}' ('{found[name]}' and '{heading}'); keep one")
        else:
            found[name] = heading
    absent = [name for name in known if name not in found]
    for heading in unread:
        meant = _meant(heading, absent)
        if meant:
            raise ValueError(
                f"has a column '{heading}', which is not read; rename it to '{meant}' if it is that, else to "
                f"'_{heading}', as a column with an underscore before its name is left alone"
            )
    for name in required:
        if name not in found:
            raise ValueError(f"has no column '{name}'{nearest(name, list(headings))}")
    return found, unread


def _meant(heading: str, absent: Sequence[str]) -> str | None:
    """Names the absent column that a heading may mean: misspelt, with a word before or after it, or by another name."""
    plain = squeezed(heading)
    other = OTHER_NAMES.get(plain)
    if other in absent:
        return other
    near = get_close_matches(plain, [squeezed(name) for name in absent], n=1, cutoff=_NEAR)
    parts = {squeezed(part) for part in re.split(r"[^0-9A-Za-z]+", heading)}
    for name in absent:
        if squeezed(name) in (*near, *parts):
            return name
    return None


def parse(column: str, text: str | None) -> Any:
    """Reads a cell.

    Args:
        column: a column of the exam or the finding table.
        text: the cell without blanks around it, or None.

    Returns:
        Its value in siamray's vocabulary; None where the cell is blank.

    Raises:
        ValueError: says what is wrong, without the cell's words.
    """
    if text is None:
        return None
    if column == "vendor":
        return vendor_word(text)
    if column == "site":
        return _site(text)
    if column in _LIMITS:
        return _number(column, text)
    return _word(column, text) if column in _WORDS else text


def parse_box(cells: Mapping[str, str | None]) -> dict[str, float]:
    """Reads the place of a finding.

    Args:
        cells: text by BOX_COLUMNS; None where a cell is blank.

    Returns:
        The box by BOX_COLUMNS, cut at the upper and the left edge of the image; empty where all cells are blank.

    Raises:
        ValueError: says what is wrong.
    """
    blank = [name for name in BOX_COLUMNS if cells.get(name) is None]
    if len(blank) == len(BOX_COLUMNS):
        return {}
    if blank:
        raise ValueError(f"{blank[0]} is blank, but not the rest of its box")
    box = {name: _float(name, str(cells[name])) for name in BOX_COLUMNS}
    if box["row_max"] <= box["row_min"] or box["col_max"] <= box["col_min"]:
        raise ValueError("a box's maximum is not greater than its minimum")
    if box["row_max"] <= 0 or box["col_max"] <= 0:
        raise ValueError("a box lies outside its image")
    return {name: max(0.0, value) for name, value in box.items()}


def _word(column: str, text: str) -> Any:
    words = _WORDS[column]
    plain = squeezed(re.sub(r"\.0$", "", text) if column == "birads" else text)
    plain = re.sub(_PREFIXES.get(column, r"^\b$"), "", plain)
    if plain in words:
        return words[plain]
    if column == "view" and plain.upper() in _OTHER_VIEWS:
        raise ValueError(f"view {plain.upper()} is not compared; the standard views are CC and MLO")
    known = list(dict.fromkeys(str(value) for value in words.values()))
    by_spelling = get_close_matches(plain, list(words), n=1, cutoff=0.6)
    meant = f"; did you mean '{words[by_spelling[0]]}'?" if by_spelling else f"; valid: {', '.join(known)}"
    raise ValueError(f"{column} is not a known word{meant}")


def _site(text: str) -> str:
    word = site_word(text)
    if word is None:
        raise ValueError(
            f"site is not one word of at most {LONGEST_SITE} letters and digits; write a pseudonym or a number"
        )
    return word


def _number(column: str, text: str) -> float:
    low, high, hint = _LIMITS[column]
    years = re.fullmatch(r"(\d{3})Y", text) if column == "age" else None
    value = float(years[1]) if years else _float(column, text)
    if not low <= value <= high:
        raise ValueError(f"{column} is not between {low:g} and {high:g}; {hint}")
    return value


def _float(column: str, text: str) -> float:
    # Python also reads digits with underscores, "inf" and "nan", which no table means as a number.
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        comma = "; write it with a point" if re.fullmatch(r"[+-]?\d+,\d+", text) else ""
        raise ValueError(f"{column} is not a number{comma}")
    return float(text)
