"""What is known of a breast goes in; why its unmarked tissue may not be called normal comes out."""

from typing import Any

import pandas as pd

from siamray.config import NormalConfig
from siamray.data.exams import BIRADS, OUTCOMES
from siamray.data.store import SIDES

_LATERALITY = dict(zip(SIDES, ("L", "R"), strict=True))


def doubt(birads: int | None, outcome: str | None, normal: NormalConfig) -> str:
    """Says what speaks against normal tissue in a breast in which nothing is marked.

    Args:
        birads: its BI-RADS, or None.
        outcome: its outcome, or None.
        normal: data.normal.

    Returns:
        such as "BI-RADS 4" or "outcome malignant"; empty where nothing does.
    """
    if birads is not None and birads not in normal.birads:
        return f"BI-RADS {birads}"
    if outcome is not None and outcome not in normal.outcomes:
        return f"outcome {outcome}"
    return ""


def not_normal(
    entries: pd.DataFrame, exams: pd.DataFrame, findings: pd.DataFrame, normal: NormalConfig
) -> dict[str, str]:
    """Finds the entries of a store that show no tissue that may be called normal.

    A pair is normal where both sides are. A breast is not, anywhere, if a finding of it has no known place, if it is
    marked in another view only (here the lesion is somewhere), or if nothing of it is marked and its BI-RADS or outcome
    is none of data.normal's. A breast that is marked is normal beside its boxes, unless data.normal.beside_findings
    says otherwise.

    Args:
        entries: the store's entries.
        exams: the store's exam table.
        findings: the store's findings.
        normal: data.normal.

    Returns:
        reason by entry_id, for these entries only.
    """
    breasts = exams.groupby(["exam_id", "laterality"])
    birads = {key: _worst(rows, BIRADS) for key, rows in breasts["birads"]}
    outcome = {key: _worst(rows, OUTCOMES) for key, rows in breasts["outcome"]}
    exam_of = dict(zip(entries["entry_id"], entries["exam_id"], strict=True))
    marks: dict[tuple[str, str], dict[str, bool]] = {}
    located = findings["row_min"].notna()
    for entry, side, known in zip(findings["entry_id"], findings["side"], located, strict=True):
        placed = marks.setdefault((exam_of[entry], _LATERALITY[side]), {})
        placed[entry] = placed.get(entry, True) and bool(known)
    reasons: dict[str, str] = {}
    for entry, exam in exam_of.items():
        for side, laterality in _LATERALITY.items():
            key = (exam, laterality)
            reason = _reason(entry, marks.get(key, {}), birads.get(key), outcome.get(key), normal)
            if reason:
                reasons.setdefault(entry, f"{side} breast: {reason}")
    return reasons


def _reason(entry: str, placed: dict[str, bool], birads: Any, outcome: Any, normal: NormalConfig) -> str:
    if entry in placed:
        if not placed[entry]:
            return "it has a finding of unknown place"
        return "" if normal.beside_findings else "it has a finding, and data.normal.beside_findings=false"
    if placed:
        return "it has a finding in another view only"
    against = doubt(birads, outcome, normal)
    return f"nothing is marked in it, but {against}" if against else ""


def _worst(values: "pd.Series[Any]", order: tuple[Any, ...]) -> Any:
    return max(values.dropna(), key=order.index, default=None)
