"""The header of an OPTIMAM image as DICOM JSON, and its marks, go in; what the tables need of them comes out.

The rules are those of siamray.data.elements, which also judges the image's own header when its pixels are read.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from siamray.data import elements
from siamray.data.dicom import read_header
from siamray.data.exams import VIEWS
from siamray.data.image import ImageError

# What a mark says is there, the first that applies: a mass with calcifications is a mass.
MARK_KINDS = {
    "Mass": "mass",
    "MassClassification": "mass",
    "SuspiciousCalcifications": "calcification",
    "ArchitecturalDistortion": "architectural_distortion",
    "FocalAsymmetry": "focal_asymmetry",
    "WithCalcification": "calcification",
    "Dystrophic": "calcification",
    "MilkOfCalcium": "calcification",
    "OtherBenignCluster": "calcification",
    "PlasmaCellMastitis": "calcification",
    "SutureCalcification": "calcification",
    "Vascular": "calcification",
    "BenignClassification": "calcification",
    "FatNecrosis": "other",
    "Skin": "other",
}
_NOT = ("", "0", "n", "no", "false", "none", "null")
_PATIENT_AGE = 0x00101010
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_OLDEST = 120
_CORNERS = ("X1", "Y1", "X2", "Y2")


@dataclass(frozen=True)
class Facts:
    """What a header says of its image.

    Attributes:
        reason: why the image is left out, or None.
        laterality: "L" or "R"; None only beside a reason.
        view: "CC" or "MLO"; None only beside a reason.
        rows: number of rows, or None.
        columns: number of columns, or None.
        spacing_mm: pixel spacing in mm, or None.
        vendor: word of siamray.data.vendors.VENDORS, or None.
        age: years at the exam, or None.
    """

    reason: str | None
    laterality: str | None = None
    view: str | None = None
    rows: int | None = None
    columns: int | None = None
    spacing_mm: float | None = None
    vendor: str | None = None
    age: float | None = None


class _JsonHeader:
    """A DICOM JSON object, asked as a pydicom Dataset is: an element's value by its keyword."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, keyword: str) -> Any:
        """Returns None, a value, several, or the items of a sequence."""
        element = self._values.get(f"{tag_for_keyword(keyword) or 0:08X}")
        values = element.get("Value") if isinstance(element, Mapping) else None
        if not isinstance(values, list) or not values:
            return None
        if isinstance(values[0], Mapping):
            return [_JsonHeader(value) for value in values if isinstance(value, Mapping)]
        return values[0] if len(values) == 1 else values


def read_facts(header: Path | None, image: Path, accept: frozenset[str]) -> Facts:
    """Reads what is known of an image from its JSON; where that is missing or damaged, from the image's own header.

    Args:
        header: the JSON file, or None where there is none.
        image: the DICOM file.
        accept: kinds of image taken beside ordinary mammograms (siamray.data.sources.accepted).
    """
    values: Any = None
    if header is not None:
        try:
            values = json.loads(header.read_bytes())
        # Not JSON, not text, or nested too deeply.
        except (OSError, ValueError, RecursionError):
            values = None
    if isinstance(values, dict) and values:
        return facts_of(values, accept)
    try:
        own = read_header(image, accept)
    except ImageError as error:
        return Facts(f"its JSON is {'missing' if header is None else 'damaged'}, and of its own header: {error}")
    reason = own.reason or _standard(own.laterality, own.view)
    return Facts(reason, own.laterality, own.view, own.rows, own.columns, own.spacing_mm, own.vendor)


def facts_of(values: Mapping[str, Any], accept: frozenset[str]) -> Facts:
    """Reads a header in DICOM JSON.

    Args:
        values: elements by tag, each with vr and Value.
        accept: as read_facts.
    """
    header = cast(Dataset, _JsonHeader(values))
    try:
        elements.refuse_unfit(header, accept)
        spacing = elements.spacing(header)
        laterality, view = elements.laterality(header), elements.view(header)
        rows, columns = (_whole(header.get(name)) for name in ("Rows", "Columns"))
    except ImageError as error:
        return Facts(str(error))
    except (TypeError, ValueError, AttributeError) as error:
        return Facts(f"its JSON cannot be understood ({type(error).__name__})")
    age = _age(values.get(f"{_PATIENT_AGE:08X}"))
    spacing_mm = None if spacing is None else spacing[0]
    reason = _standard(laterality, view)
    return Facts(reason, laterality, view, rows, columns, spacing_mm, elements.vendor(header), age)


def _standard(laterality: str | None, view: str | None) -> str | None:
    if laterality is None:
        return "its header does not say which breast it shows"
    if view is None:
        return "its header names no view that is known"
    return None if view in VIEWS else f"view {view}; CC and MLO are compared"


def _whole(value: Any) -> int | None:
    return None if value is None or isinstance(value, list) or int(value) <= 0 else int(value)


def _age(element: Any) -> float | None:
    """Reads an age as DICOM writes it (053Y); None where it is none, or no woman's."""
    values = element.get("Value") if isinstance(element, Mapping) else None
    text = values[0] if isinstance(values, list) and values else None
    match = re.fullmatch(r"\s*(\d{1,3})([YMWD])\s*", text) if isinstance(text, str) else None
    age = int(match[1]) * _YEARS[match[2]] if match else 0.0
    return age if 0 < age <= _OLDEST else None


def category_of(mark: Mapping[str, Any], lesions: Mapping[str, str]) -> str:
    """Finds the category of a mark: what the mark says, else the kind of the lesion that it is linked with.

    Args:
        mark: the mark.
        lesions: category of the breast's lesions by NBSS number.

    Returns:
        A word of siamray.data.exams.CATEGORIES; "other" where nothing says more.
    """
    for name, category in MARK_KINDS.items():
        if str(mark.get(name) or "").strip().lower() not in _NOT:
            return category
    numbers = [text.strip().lstrip("0") for text in str(mark.get("LinkedNBSSLesionNumber") or "").split(",")]
    kinds = {lesions[number] for number in numbers if number in lesions}
    return kinds.pop() if len(kinds) == 1 else "other"


def box_of(mark: Mapping[str, Any], facts: Facts, origin: str) -> dict[str, float]:
    """Reads the box of a mark and clips it to the image.

    Args:
        mark: X1, Y1, X2, Y2 as text or numbers: two opposite corners.
        facts: of its image.
        origin: corner that y counts from, top or bottom.

    Returns:
        The box by siamray.data.exams.BOX_COLUMNS.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        left, first, right, last = (float(mark[name]) for name in _CORNERS)
    except (KeyError, TypeError, ValueError):
        raise ValueError("its corners are not four numbers") from None
    if not all(map(math.isfinite, (left, first, right, last))):
        raise ValueError("its corners are not four numbers")
    if origin == "bottom":
        if facts.rows is None:
            raise ValueError("its y counts from the bottom of an image whose rows are not known")
        first, last = facts.rows - first, facts.rows - last
    top, bottom = sorted((first, last))
    left, right = sorted((left, right))
    if top == bottom or left == right:
        raise ValueError("it is empty")
    box = {
        "row_min": max(0.0, top),
        "col_min": max(0.0, left),
        "row_max": min(bottom, facts.rows or bottom),
        "col_max": min(right, facts.columns or right),
    }
    if box["row_min"] >= box["row_max"] or box["col_min"] >= box["col_max"]:
        raise ValueError("it lies outside the image")
    return box
