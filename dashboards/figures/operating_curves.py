"""Scores of samples with their truth in, ROC, precision-recall and FROC curves with bands over women out."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from dashboards.figures import style

COLUMNS = ["curve", "x", "y", "low", "high"]
REPLICATES = 300
GRID = np.linspace(0, 1, 101)
# False positives per image: beyond four nobody would look.
RATES = np.linspace(0, 4, 81)
CANDIDATE, LESION, IMAGE = "detection_candidate", "detection_lesion", "detection_image"
AXES = {
    "ROC": ("false positive rate", "true positive rate"),
    "precision-recall": ("recall", "precision"),
    "FROC": ("false positives per image", "share of lesions found"),
}

Floats = NDArray[np.float64]


def data(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Computes ROC and precision-recall with bands.

    Args:
        rows: label (0 or 1), value (higher is more abnormal) and woman_id of every sample.
        seed: of the draws of the women.

    Returns:
        COLUMNS; none where a class is missing. Low and high hold at each x, not along the whole curve: percentiles of
        REPLICATES draws of the women.
    """
    label = rows["label"].to_numpy() == 1
    if not len(rows) or label.all() or not label.any():
        return pd.DataFrame(columns=COLUMNS)
    order = np.argsort(-rows["value"].to_numpy(dtype=np.float64), kind="stable")
    value, label = rows["value"].to_numpy(dtype=np.float64)[order], label[order]
    weights = _weights(rows["woman_id"], seed)[:, order]
    # A threshold takes all equal scores or none.
    ends = np.flatnonzero(np.append(np.diff(value) != 0, True))
    hit = np.cumsum(weights * label, axis=1)[:, ends]
    false = np.cumsum(weights * ~label, axis=1)[:, ends]
    positive, negative = hit[:, -1:], false[:, -1:]
    whole = ((positive > 0) & (negative > 0))[:, 0]
    hit, false, positive, negative = (part[whole] for part in (hit, false, positive, negative))
    recall, rate = hit / positive, false / negative
    precision = np.divide(hit, hit + false, out=np.ones_like(hit), where=hit + false > 0)
    tpr = np.stack([np.interp(GRID, np.append(0, x), np.append(0, y)) for x, y in zip(rate, recall, strict=True)])
    # Precision at the lowest threshold that reaches a recall: nothing is interpolated.
    at = np.stack([np.minimum(np.searchsorted(x, GRID - 1e-12), len(x) - 1) for x in recall])
    told = np.take_along_axis(precision, at, axis=1)
    return pd.concat([_banded("ROC", GRID, tpr), _banded("precision-recall", GRID[1:], told[:, 1:])], ignore_index=True)


def froc_data(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Computes the FROC curve with its band.

    Args:
        rows: predictions of CANDIDATE, LESION and IMAGE, of one score.
        seed: of the draws of the women.

    Returns:
        COLUMNS; none where no lesion or no image is told.
    """
    lesions, images = rows[rows["task"] == LESION], rows[rows["task"] == IMAGE]
    if lesions.empty or images.empty:
        return pd.DataFrame(columns=COLUMNS)
    place = rows["entry_id"].astype(str) + "_" + rows["side"].astype(str)
    false = rows[(rows["task"] == CANDIDATE) & (rows["label"] == 0) & place.isin(set(place[images.index]))]
    women = pd.Index(sorted(set(rows["woman_id"])))
    drawn = _draws(len(women), seed)
    of_false = drawn[:, women.get_indexer(pd.Index(false["woman_id"]))]
    of_lesion = drawn[:, women.get_indexer(pd.Index(lesions["woman_id"]))]
    number = drawn[:, women.get_indexer(pd.Index(images["woman_id"]))].sum(axis=1)
    scores = false["value"].to_numpy(dtype=np.float64)
    found = lesions["value"].fillna(-np.inf).to_numpy(dtype=np.float64)
    thresholds = np.append(np.unique(scores)[::-1], -np.inf)
    order = np.argsort(-scores, kind="stable")
    counts = np.cumsum(of_false[:, order], axis=1)
    # Above the k-th threshold: the false positives with a greater score, and the lesions found there.
    above = np.searchsorted(-scores[order], -thresholds, side="left")
    before = np.concatenate([np.zeros((len(drawn), 1)), counts], axis=1)[:, above]
    share = np.stack([(of_lesion * (found > limit)).sum(axis=1) for limit in thresholds], axis=1)
    total = of_lesion.sum(axis=1, keepdims=True)
    whole = (total[:, 0] > 0) & (number > 0)
    y = np.stack(
        [
            (s / t)[np.searchsorted(b / n, RATES * (1 + 1e-12), side="right") - 1]
            for s, t, b, n in zip(share[whole], total[whole], before[whole], number[whole], strict=True)
        ]
    )
    return _banded("FROC", RATES, y)


def draw(
    curves: Mapping[str, pd.DataFrame], kind: str, looks: Mapping[str, style.Look], counts: str, banded: str
) -> go.Figure:
    """Draws one kind of curve of several scores.

    Args:
        curves: name of a score -> COLUMNS.
        kind: one of AXES.
        looks: name of a score -> look.
        counts: n, in words.
        banded: the score whose band is shown, as many bands hide each other.
    """
    figure = go.Figure()
    for name, frame in curves.items():
        own = frame[frame["curve"] == kind]
        if own.empty:
            continue
        look = looks[name]
        if name == banded:
            figure.add_trace(
            go.Scatter(
                x=[*own["x"], *own["x"][::-1]], y=[*own["high"], *own["low"][::-1]], fill="toself", mode="none",
                fillcolor=_faded(look.color), hoverinfo="skip", showlegend=False, legendgroup=name,
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=own["x"], y=own["y"], name=style.plain(name, 28), mode="lines", legendgroup=name,
                line={"color": look.color, "dash": look.dash, "width": 3 if name == banded else 1.2},
                hovertemplate=f"{style.plain(name)}<br>{AXES[kind][0]} %{{x:.2f}}: %{{y:.3f}}<extra></extra>",
            )
        )  # fmt: skip
    if kind == "ROC":
        chance = {"color": style.NEUTRAL, "dash": "dot", "width": 1}
        figure.add_trace(go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line=chance, showlegend=False, hoverinfo="skip"))
    figure.update_xaxes(title_text=AXES[kind][0], range=[0, 4 if kind == "FROC" else 1])
    figure.update_yaxes(title_text=AXES[kind][1], range=[0, 1.02])
    caption = (
        f"{counts}. Lines: this trial's test women; band: of {banded}, 95 % percentiles of {REPLICATES} draws of the "
        "women, at each place of the line. Higher is better."
    )
    return style.finish(figure, f"{kind} curve", caption, 400)


def _weights(woman: pd.Series, seed: int) -> Floats:
    codes, known = pd.factorize(woman, sort=True)
    return _draws(len(known), seed)[:, codes]


def _draws(women: int, seed: int) -> Floats:
    """The women themselves, then REPLICATES draws of as many."""
    drawn = np.random.default_rng(seed).multinomial(women, np.full(women, 1 / women), REPLICATES)
    return np.vstack([np.ones(women), drawn]).astype(np.float64)


def _banded(curve: str, x: Floats, y: Floats) -> pd.DataFrame:
    low, high = np.nanquantile(y[1:], [0.025, 0.975], axis=0) if len(y) > 1 else (y[0], y[0])
    return pd.DataFrame({"curve": curve, "x": x, "y": y[0], "low": low, "high": high})


def _faded(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"
