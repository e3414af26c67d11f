"""Predictions of many trials in, the paired difference of every variant within subgroups of the samples out."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from dashboards.figures import forest, style

GROUPINGS = {"category": "kind of lesion", "density": "density", "view": "view", "vendor": "vendor",
             "site": "site"}  # fmt: skip
"""Column of the predictions, or of the women's images, -> what it divides the samples by."""

COLUMNS = ["grouping", "subgroup", "variant", "value", "effect", "low", "high", "women", "lesions", "normals"]
REPLICATES = 400
LEAST_WOMEN = 5
NORMAL = "normal"

Floats = NDArray[np.float64]
Trial = tuple[str, int, int]


def data(
    predictions: Mapping[Trial, pd.DataFrame], reference: str, task: str, score: str, seed: int = 0
) -> pd.DataFrame:
    """Measures AUC and its paired difference from the reference within every subgroup.

    Women are drawn with replacement, the same for all variants; intervals are percentiles over these draws, so that
    they say nothing of the luck of seeds. Of a kind of lesion, its patches are held against all normal ones.

    Args:
        predictions: (variant, seed, fold) -> PREDICTION_COLUMNS, and vendor and site where they are known.
        reference: the variant that the others are compared with.
        task: of the predictions.
        score: of the predictions.
        seed: of the draws.

    Returns:
        COLUMNS; subgroups of fewer than LEAST_WOMEN women with lesions are left out.
    """
    tested = {trial: _tested(table, task, score) for trial, table in predictions.items()}
    tested = {trial: table for trial, table in tested.items() if len(table)}
    if not tested:
        return pd.DataFrame(columns=COLUMNS)
    women = pd.Index(sorted({woman for table in tested.values() for woman in table["woman_id"]}))
    draws = (
        np.random.default_rng(seed)
        .multinomial(len(women), np.full(len(women), 1 / len(women)), REPLICATES)
        .astype(np.float64)
    )
    rows = []
    for grouping in GROUPINGS:
        if any(grouping not in table for table in tested.values()):
            continue
        known = sorted({str(word) for table in tested.values() for word in table[grouping].dropna()} - {NORMAL, ""})
        if len(known) < 2 and grouping != "category":
            continue
        for subgroup in known:
            rows += _subgroup(tested, reference, grouping, subgroup, women, draws)
    return pd.DataFrame(rows, columns=COLUMNS)


def of_women(images: pd.DataFrame, column: str) -> "pd.Series[str]":
    """Finds the women whose images all say the same; a woman of two vendors is in the subgroup of neither.

    Args:
        images: IMAGE_COLUMNS.
        column: of the images.

    Returns:
        [women] what they say, by woman_id.
    """
    words = images.dropna(subset=[column]).groupby("woman_id")[column].agg(["nunique", "first"])
    return words.loc[words["nunique"] == 1, "first"]


def draw(found: pd.DataFrame, reference: str, looks: dict[str, style.Look]) -> list[go.Figure]:
    """Draws a panel per subgroup: the difference of every variant.

    Args:
        found: from data().
        reference: what the effects are differences from.
        looks: variant -> look.
    """
    shown = found[found["effect"].notna()]
    drawn = []
    for (grouping, subgroup), group in shown.groupby(["grouping", "subgroup"], sort=False):
        figure = go.Figure()
        names = []
        for place, row in enumerate(style.records(group)):
            look = style.look_of(str(row["variant"]), looks)
            names.append(style.plain(row["variant"], 20))
            words = style.interval(row["effect"], row["low"], row["high"], sign=True)
            ends = {"effect": row["effect"], "effect_low": row["low"], "effect_high": row["high"]}
            figure.add_trace(
                go.Scatter(
                    x=[row["effect"]], y=[-place], mode="markers", error_x=forest.bar(ends) | {"thickness": 1.5},
                    marker={"color": look.color, "symbol": look.symbol, "size": 9},
                    hovertemplate=f"<b>{style.plain(row['variant'])}</b><br>{words}<extra></extra>",
                )
            )  # fmt: skip
        figure.add_vline(x=0, line_width=1, line_color=style.NEUTRAL)
        figure.update_yaxes(tickvals=[-place for place in range(len(names))], ticktext=names, showgrid=False)
        figure.update_xaxes(nticks=5, title_text="difference in AUC, right is better")
        figure.update_layout(showlegend=False)
        first = group.iloc[0]
        counts = [
            style.count(first["women"], "woman", "women"),
            style.count(first["lesions"], "lesion patch", "lesion patches"),
            style.count(first["normals"], "normal patch", "normal patches"),
        ]
        title = f"{GROUPINGS[str(grouping)]}: {str(subgroup).replace('_', ' ')}"
        reference_value = style.number(float(first["value"] - first["effect"]))
        caption = f"n = {', '.join(counts)} of one fold at least; {reference} has {reference_value}"
        drawn.append(style.finish(figure, title, caption, 110 + 24 * len(names)))
    return drawn


def auc(label: NDArray[np.bool_], value: Floats, weights: Floats) -> Floats:
    """Computes the area under the ROC curve in every draw, ties counting half.

    Args:
        label: [n] whether a sample is abnormal.
        value: [n] its score.
        weights: [draws, n] how often it is drawn.

    Returns:
        [draws]; NaN where a class is not drawn.
    """
    order = np.argsort(value, kind="stable")
    ranked, truth, drawn = value[order], label[order], weights[:, order].astype(np.float64)
    positive, negative = drawn * truth, drawn * ~truth
    below = np.cumsum(negative, axis=1) - negative
    starts = np.flatnonzero(np.append(True, np.diff(ranked) != 0))
    tied = np.add.reduceat(negative, starts, axis=1)
    run = np.cumsum(np.append(0, np.diff(ranked) != 0)) if len(ranked) else np.zeros(0, dtype=int)
    first_below = below[:, starts]
    won = (positive * (first_below + 0.5 * tied)[:, run]).sum(axis=1)
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return np.asarray(np.divide(won, pairs, out=np.full(len(drawn), np.nan), where=pairs > 0))


def _tested(table: pd.DataFrame, task: str, score: str) -> pd.DataFrame:
    rows = table[(table["task"] == task) & (table["score"] == score) & (table["split"] == "test")]
    drawn = rows["draw"].fillna(0) == 0
    return rows[drawn & rows["label"].isin([0, 1])]


def _subgroup(
    tested: Mapping[Trial, pd.DataFrame], reference: str, grouping: str, subgroup: str, women: pd.Index, draws: Floats
) -> list[dict[str, object]]:
    measured: dict[Trial, Floats] = {}
    counted: dict[Trial, tuple[int, int, int]] = {}
    for trial, table in tested.items():
        own = table[(table[grouping] == subgroup) | ((grouping == "category") & (table["label"] == 0))]
        label = own["label"].to_numpy() == 1
        if own.loc[label, "woman_id"].nunique() < LEAST_WOMEN or label.all():
            continue
        codes = women.get_indexer(pd.Index(own["woman_id"]))
        weights = np.vstack([np.ones(len(women)), draws])[:, codes]
        measured[trial] = auc(label, own["value"].to_numpy(dtype=np.float64), weights)
        counted[trial] = (own["woman_id"].nunique(), int(label.sum()), int((~label).sum()))
    rows: list[dict[str, object]] = []
    for variant in dict.fromkeys(trial[0] for trial in measured):
        blocks = [t[1:] for t in measured if t[0] == variant and (reference, *t[1:]) in measured]
        if not blocks:
            continue
        value = np.mean([measured[(variant, *block)] for block in blocks], axis=0)
        base = np.mean([measured[(reference, *block)] for block in blocks], axis=0)
        counts = np.max([counted[(variant, *block)] for block in blocks], axis=0)
        row: dict[str, object] = {"grouping": grouping, "subgroup": subgroup, "variant": variant, "value": value[0]}
        if variant != reference:
            low, high = np.nanquantile((value - base)[1:], [0.025, 0.975])
            row |= {"effect": value[0] - base[0], "low": low, "high": high}
        rows.append(row | dict(zip(("women", "lesions", "normals"), map(int, counts), strict=True)))
    return rows
