"""A comparison in, the table that a sweep prints at its end out."""

import math
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from siamray.sweeps.contract import POWER
from siamray.sweeps.setting_words import shown
from siamray.sweeps.tuning_changes import tuning_changes
from siamray.sweeps.verdict import remarks

MINUS = "\u2212"
NONE = "\u2013"


def console_table(comparison: pd.DataFrame, metric: str, confidence: float = 0.95) -> Table:
    """Tabulates one metric of a comparison, within 100 columns, variants first, then controls.

    Args:
        comparison: COMPARISON_COLUMNS of siamray.sweeps.contract.
        metric: one metric.
        confidence: coverage of the intervals, downstream.intervals.confidence.

    Returns:
        A rich table: its title is the metric, its caption says n, what the intervals are and what Holm's family is.
    """
    rows = comparison[comparison["metric"] == metric]
    title, footnotes = Text(metric, style="bold"), Text(_footnotes(rows, confidence))
    table = Table(title=title, caption=footnotes, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    table.show_edge, table.pad_edge, table.collapse_padding = False, False, True
    table.add_column("", overflow="fold", min_width=8, max_width=22)
    for name in ("value", "difference", "p", "Holm p", "seeds", "s/trial"):
        table.add_column(name, justify="right", no_wrap=True)
    for role in ("variant", "control"):
        group = rows[(rows["role"] == "control") == (role == "control")]
        if role == "control" and len(group) and len(table.rows):
            table.add_row(Text("controls", style="italic"))
        for row in group.to_dict("records"):
            table.add_row(*_cells({str(key): value for key, value in row.items()}, 1 - confidence))
    return table


def effects_parts(effects: pd.DataFrame, metric: str, confidence: float = 0.95) -> list[Table | Text]:
    """Tabulates the effects of a factorial, and says in a line why some are not told.

    Args:
        effects: EFFECT_COLUMNS of siamray.sweeps.contract.
        metric: the primary metric.
        confidence: coverage of the intervals.
    """
    told = effects["effect"].notna()
    named = {"main": "effects of the factors", "interaction": "interactions of the factors"}
    lines: list[Table | Text] = [
        Text(f"{named.get(row['kind'], row['kind'])} are not told: {row['note']}")
        for row in effects[~told].drop_duplicates(["kind", "note"]).to_dict("records")
    ]
    return [effects_table(effects[told], metric, confidence), *lines] if told.any() else lines


def effects_table(effects: pd.DataFrame, metric: str, confidence: float = 0.95) -> Table:
    """Tabulates main effects and interactions of a factorial.

    Args:
        effects: EFFECT_COLUMNS of siamray.sweeps.contract; at least one row.
        metric: the primary metric.
        confidence: coverage of the intervals.
    """
    first = effects.iloc[0]
    table = Table(
        title=Text(f"effects of the factors on {metric}", style="bold"),
        caption=Text(
            f"each averaged over the levels of the other factors; n: {int(first['women'])} test women, "
            f"{int(first['seeds'])} seeds; [..]: {100 * confidence:g} % intervals\n"
            "Holm p: over main effects, and over interactions"
        ),
        title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for name, justify in (("", "left"), ("levels", "left"), ("effect", "right"), ("p", "right"), ("Holm p", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in effects.to_dict("records"):
        effect = interval(row["effect"], row["effect_low"], row["effect_high"], signed=True)
        clear = row["p_holm"] < 1 - confidence
        cells = [str(row["term"]), str(row["contrast"]), effect, _probability(row["p"]), _probability(row["p_holm"])]
        table.add_row(*(Text(cell, style="bold" if clear else "") for cell in cells))
    return table


def importance_table(importance: pd.DataFrame, shown: int = 5) -> Table:
    """Tabulates how much searched options mattered, the most important ones of each method.

    Args:
        importance: IMPORTANCE_COLUMNS of siamray.sweeps.contract.
        shown: options of each method and objective.
    """
    table = Table(
        "objective", "method", "option", "importance", box=box.SIMPLE_HEAD, title_justify="left",
        title=Text("importance of the searched options, on validation women", style="bold"),
        caption=Text("[..]: 95 % over trees (fANOVA) or over trials (PED-ANOVA)"), caption_justify="left",
    )  # fmt: skip
    known = importance[importance["importance"].notna()]
    for row in known.groupby(["objective", "method"], sort=False).head(shown).to_dict("records"):
        numbers = interval(row["importance"], row["low"], row["high"], signed=False)
        table.add_row(str(row["objective"]), str(row["method"]), str(row["option"]), Text(numbers))
    return table


def tuning_table(tuning: pd.DataFrame, metric: str, tested: str) -> Table:
    """Tabulates what tuning changed: each variant as it was and as it is compared, fold by fold.

    Args:
        tuning: TUNING_COLUMNS of siamray.sweeps.contract.
        metric: on validation women, by which was chosen.
        tested: the primary metric, on test women.
    """
    rows = tuning_changes(tuning)
    table = Table(
        title=Text(f"what tuning changed, chosen by {metric}", style="bold"),
        caption=Text(
            f"own: without tuning; validation: {metric}, where the best of several is flattered by the choice; test: "
            f"{tested} of the same trials, which chose nothing; one seed each, so no evidence of its own"
        ),
        title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for name in ("", "fold", "tried", "validation: own", "chosen", "test: own", "chosen"):
        table.add_column(name, justify="left" if name == "" else "right")
    table.add_column("setting", overflow="fold")
    for row in rows.to_dict("records"):
        numbers = [
            NONE if math.isnan(row[name]) else f"{row[name]:.3f}" for name in ("own_value", "value", "own_test", "test")
        ]
        failed = f", {row['failed']} failed" if row["failed"] else ""
        setting = "its own" if row["own"] else shown(row["settings"])
        table.add_row(str(row["variant"]), str(row["fold"]), f"{row['tried']}{failed}", *numbers, Text(setting))
    return table


def _cells(row: dict[str, Any], level: float) -> list[Text]:
    reference = row["variant"] == row["reference"]
    cells = [
        str(row["variant"]),
        interval(row["value"], row["value_low"], row["value_high"], signed=False),
        "reference" if reference else interval(row["effect"], row["effect_low"], row["effect_high"], signed=True),
        _probability(row["p"]),
        _probability(row["p_holm"]),
        NONE if pd.isna(row["seeds"]) else str(int(row["seeds"])),
        NONE if math.isnan(row["cost_wall_s"]) else f"{row['cost_wall_s']:.0f}",
    ]
    clear = not reference and row["p_holm"] < level
    return [Text(cell, style="bold" if clear else "") for cell in cells]


def _footnotes(rows: pd.DataFrame, confidence: float) -> str:
    if rows.empty:
        return "nothing is compared yet"
    first = rows.iloc[0]
    # The reference is compared with nothing, so it is of no family.
    families = rows.loc[rows["p_holm"].notna(), "role"].value_counts()
    family = " and over ".join(
        f"{n} {role}{'s' * (n != 1)}" for role, n in families.sort_index(ascending=False).items()
    )
    drawn = "women, with the variance between seeds (t)" if (rows["seeds"] > 1).any() else "women"
    named = {"women": "test women", "lesions": "lesion patches", "normals": "normal patches", "folds": "folds"}
    known = {words: int(first[name]) for name, words in named.items() if not pd.isna(first[name])}
    counts = [f"{n:,} {words}" for words, n in known.items() if words != "folds" or n > 1]
    return "\n".join(
        [
            f"n: {', '.join(counts) or 'unknown'}; [..]: {100 * confidence:g} % intervals, bootstrap over {drawn}",
            f"difference: from {first['reference']}, paired over the same women and seeds",
            f"Holm p: corrected over {family or 'nothing'}; bold: below {1 - confidence:.3g}",
            *_sight(rows["detectable"]),
            *(f"note: {words}" for words in remarks(rows.to_dict("records"))),
        ]
    )


def _sight(detectable: "pd.Series[float]") -> list[str]:
    """The differences that could have been seen, as a range over the rows; nothing where nothing was tested."""
    least, greatest = (f"{detectable.agg(end):.3f}" for end in ("min", "max"))
    if detectable.isna().all():
        return []
    reach = least if least == greatest else f"{least} to {greatest}, depending on the row,"
    return [f"differences of {reach} could have been seen (power {POWER:g}, Holm's correction included)"]


def interval(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """Writes a value with the ends of its interval, as far as they are known."""
    if math.isnan(value):
        return NONE
    numbers = [f"{number:{'+' if signed else ''}.3f}" for number in (value, low, high)]
    ends = "" if math.isnan(low) or math.isnan(high) else f" [{numbers[1]}, {numbers[2]}]"
    return (numbers[0] + ends).replace("-", MINUS)


def _probability(p: float) -> str:
    if math.isnan(p):
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.3f}"
