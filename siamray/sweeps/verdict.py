"""A row of the comparison goes in; a sentence that claims no more than its numbers comes out."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from siamray.sweeps.contract import POWER

SAME_PREDICTIONS = "the same predictions as the reference's in every trial"
"""In a row's note: what the variant changes has had no effect at all, which is no finding about its worth."""


def verdict(row: Mapping[Any, Any], level: float) -> str:
    """Puts a row of the comparison into a sentence that claims no more than its numbers.

    A variant with the very predictions of the reference is said to be that. A difference is stated where its test says
    so, equivalence within the margin where that test says so, both where both do, each after Holm's correction. Where
    neither does, there is no evidence either way, and the sentence ends with the difference that would have been found.

    Args:
        row: the columns of the comparison without ``verdict``.
        level: the p value after Holm's correction below which a difference, or equivalence, is stated.
    """
    name, reference = row["variant"], row["reference"]
    seen = f"{row['women']} women, {_plural(row['seeds'], 'seed')}"
    if name == reference:
        ends = f"[{_short(row['value_low'])}, {_short(row['value_high'])}]"
        return f"{name} is the reference: {_short(row['value'])} {ends}, {seen}"
    if SAME_PREDICTIONS in row["note"]:
        return f"{name} gives the predictions of {reference} to the last digit: what it changes had no effect, {seen}"
    effect = f"effect {_signed(row['effect'])} [{_signed(row['effect_low'])}, {_signed(row['effect_high'])}]"
    if row["seeds"] == 1 and not np.isnan(row["effect_low"]):
        return f"one seed: cannot tell {name} from the luck of its seed: {effect}, {row['women']} women"
    if np.isnan(row["effect"]) or np.isnan(row["p_holm"]):
        return f"{name} cannot be compared with {reference}: {row['note'] or 'no replicate has a value'}"
    differs, equivalent = row["p_holm"] < level, row["p_equivalence_holm"] < level
    within = f"equivalent within {_margin(row['equivalence_margin'])}"
    of_difference = f"corrected p {_probability(row['p_holm'])}"
    of_equivalence = f"corrected p of equivalence {_probability(row['p_equivalence_holm'])}"
    if differs:
        claim = f"{name} is {'above' if row['effect'] > 0 else 'below'} {reference}"
        if equivalent:
            return f"{claim}, yet {within}: {effect}, {of_difference}, {of_equivalence}, {seen}"
        return f"{claim}: {effect}, {of_difference}, {seen}"
    if equivalent:
        return f"{name} and {reference} are {within}: {effect}, {of_equivalence}, {seen}"
    return f"no evidence that {name} differs from {reference}: {effect}, {of_difference}, {seen}{_sight(row)}"


def remarks(rows: Iterable[Mapping[Any, Any]]) -> list[str]:
    """Gathers the notes of a comparison's rows, each once and with the variants that it is of.

    Args:
        rows: the comparison of one metric; a note's parts are divided by semicolons.
    """
    variants: list[str] = []
    found: dict[str, list[str]] = {}
    for row in rows:
        variants.append(row["variant"])
        note = row["note"] if isinstance(row["note"], str) else ""
        for part in dict.fromkeys(part for part in note.split("; ") if part):
            found.setdefault(part, []).append(row["variant"])
    return [f"{part} ({'all' if names == variants else ', '.join(names)})" for part, names in found.items()]


def _sight(row: Mapping[Any, Any]) -> str:
    """What the comparison could have seen, and that equivalence is not shown where it was asked for."""
    if np.isnan(row["detectable"]):
        return ""
    found = f"; a difference of {_short(row['detectable'])} would have been found with a chance of {_margin(POWER)}"
    if np.isnan(row["p_equivalence_holm"]):
        return found
    return f"{found}; equivalence within {_margin(row['equivalence_margin'])} is not shown either"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _probability(p: float) -> str:
    return "below .001" if p < 0.001 else _short(p)


def _margin(value: float) -> str:
    """.02: as many decimals as it has, no zero before the point."""
    return f"{value:g}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:g}"


def _short(value: float) -> str:
    """.812: three decimals, no zero before the point."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:.3f}"


def _signed(value: float) -> str:
    """+.012: as _short, always with its sign."""
    return f"{value:+.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:+.3f}"
