"""Distances of labelled pairs and a fitted mixture in, how often pairs of a soft label really differ out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from dashboards.figures import style

COLUMNS = ["soft_label", "observed", "low", "high", "n"]
BINS = 10

Floats = NDArray[np.float64]


def soft_label(
    distance: ArrayLike, weights: Sequence[float], means: Sequence[float], deviations: Sequence[float]
) -> Floats:
    """Computes the posterior of the component with the highest mean.

    Args:
        distance: of pairs.
        weights: of the components.
        means: of the components.
        deviations: of the components.
    """
    x = np.asarray(distance, dtype=np.float64)
    w, m, s = (np.asarray(part, dtype=np.float64) for part in (weights, means, deviations))
    logs = np.log(w) - np.log(s) - 0.5 * ((x[..., None] - m) / s) ** 2
    parts = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return np.asarray(parts[..., int(np.argmax(m))] / parts.sum(axis=-1))


def data(label: ArrayLike, soft: ArrayLike) -> pd.DataFrame:
    """Counts in bins of equal width how many pairs are of a lesion.

    Args:
        label: 1 of a pair with a lesion on one side, 0 of a normal one.
        soft: soft label of each pair, 0 to 1.

    Returns:
        COLUMNS: a row per filled bin: mean soft label, share of lesions with Wilson's 95 % interval, number of pairs.
    """
    truth, told = np.asarray(label, dtype=np.float64), np.asarray(soft, dtype=np.float64)
    bins = np.minimum((told * BINS).astype(int), BINS - 1)
    rows = []
    for place in range(BINS):
        own = bins == place
        n = int(own.sum())
        if n:
            share = float(truth[own].mean())
            low, high = _wilson(share, n)
            rows.append((float(told[own].mean()), share, low, high, n))
    return pd.DataFrame(rows, columns=COLUMNS)


def draw(found: pd.DataFrame, women: int, usable: bool) -> go.Figure:
    """Draws the observed share against the soft label.

    Args:
        found: from data().
        women: whose pairs these are.
        usable: whether training used the mixture.
    """
    figure = go.Figure()
    line = {"color": style.NEUTRAL, "dash": "dot", "width": 1}
    figure.add_trace(go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line=line, hoverinfo="skip"))
    figure.add_trace(
        go.Scatter(
            x=found["soft_label"], y=found["observed"], mode="markers+lines",
            marker={"color": style.PALETTE[0], "size": (6 + 3 * np.log10(found["n"].clip(lower=1))).tolist()},
            line={"color": style.PALETTE[0], "width": 1},
            error_y={
                "type": "data", "symmetric": False, "array": found["high"] - found["observed"],
                "arrayminus": found["observed"] - found["low"], "thickness": 1.5, "width": 4,
            },
            text=[f"{style.count(n, 'pair')}" for n in found["n"]],
            hovertemplate="soft label %{x:.2f}: %{y:.2f} are lesions, %{text}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title_text="soft label", range=[-0.02, 1.02])
    figure.update_yaxes(title_text="share with a lesion on one side", range=[-0.02, 1.02])
    figure.update_layout(showlegend=False)
    unused = "" if usable else " The mixture of the last epoch did not separate, so that training did not use it."
    caption = (
        f"n = {style.count(found['n'].sum(), 'test pair')} of {style.count(women, 'woman', 'women')}. Points: bins of "
        "the soft label, the posterior of the component of the greatest distances; bars: Wilson's 95 % interval, which "
        "takes pairs for independent. On the dotted line labels would be right on average; test pairs are sampled, so "
        f"that lesions are more frequent here than in training.{unused}"
    )
    return style.finish(figure, "Calibration of the soft labels", caption, 400)


def _wilson(share: float, n: int) -> tuple[float, float]:
    z = 1.959964
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)
