"""Distance records of one trial per variant in, their histogram with the fitted mixture by epoch out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import style

COLUMNS = ["variant", "epoch", "curve", "x", "y"]
MOST_EPOCHS = 20
POINTS = 121


def data(distances: Mapping[str, pd.DataFrame], network: str = "A", *, spread: bool = True) -> pd.DataFrame:
    """Turns counts into densities and the mixtures' parameters into curves.

    Args:
        distances: variant -> DISTANCE_COLUMNS of one of its trials.
        network: the network that is shown.
        spread: of many epochs take 20, the first and the last among them: a report stays small.

    Returns:
        COLUMNS: ``curve`` is "histogram" (x = middle of a bin, y = density, and ``width``, ``n`` in further columns),
        "component 1", ... and "mixture".
    """
    rows: list[dict[str, Any]] = []
    for variant, frame in distances.items():
        own = frame[frame["network"] == network].sort_values("epoch")
        kept = _spread(sorted(set(own["epoch"]))) if spread else set(own["epoch"])
        for record in style.records(own[own["epoch"].isin(kept)]):
            at = {"variant": variant, "epoch": int(record["epoch"]), "usable": bool(record["usable"])}
            rows += [at | row for row in _histogram(record)]
            rows += [at | row for row in _mixture(record)]
    return pd.DataFrame(rows, columns=[*COLUMNS, "width", "n", "usable"])


def draw(curves: pd.DataFrame, looks: dict[str, style.Look], source: str) -> go.Figure:
    """Draws the histograms: a menu chooses the variant, a slider the epoch.

    Args:
        curves: from data().
        looks: variant -> look.
        source: whose distances these are, in words.
    """
    variants = list(dict.fromkeys(curves["variant"]))
    epochs = sorted(set(curves["epoch"]))
    names = ["histogram", *sorted(set(curves["curve"]) - {"histogram", "mixture"}), "mixture"]
    groups = dict(iter(curves.groupby(["variant", "epoch", "curve"])))

    def traces(epoch: int) -> list[Any]:
        return [
            _trace(
                groups.get((variant, epoch, curve)), curve, style.look_of(variant, looks), shown=variant == variants[0]
            )
            for variant in variants
            for curve in names
        ]

    figure = go.Figure(traces(epochs[-1]) if epochs else [])
    # A frame holds coordinates only: what the menu made visible stays visible while the slider moves.
    figure.frames = [
        go.Frame(name=str(epoch), data=[{"type": t.type, "x": t.x, "y": t.y} for t in traces(epoch)])
        for epoch in epochs
    ]
    _axes(figure, curves)
    style.finish(figure, "Distances and the fitted mixture", _caption(curves, source), 440)
    return _controls(figure, variants, epochs, len(names))


def draw_epoch(curves: pd.DataFrame, epoch: int, look: style.Look, source: str) -> go.Figure:
    """Draws the histogram of one epoch, over the distances of all of them.

    Args:
        curves: from data(), of one variant.
        epoch: one of its epochs.
        look: of the variant.
        source: whose distances these are, in words.
    """
    own = curves[curves["epoch"] == epoch]
    names = ["histogram", *sorted(set(curves["curve"]) - {"histogram", "mixture"}), "mixture"]
    groups = dict(iter(own.groupby("curve")))
    figure = go.Figure([_trace(groups.get(name), name, look, shown=True) for name in names])
    _axes(figure, curves, own)
    usable = bool(own["usable"].any())
    used = "" if usable else " At this epoch the components did not separate: training did not use the mixture."
    caption = f"Epoch {epoch}. {_caption(own, source)}{used}"
    style.finish(figure, "Distances and the fitted mixture", caption, 420)
    legend = {"x": 1, "xanchor": "right", "y": 0.99, "yanchor": "top", "orientation": "v"}
    return figure.update_layout(bargap=0, legend=legend)


def _axes(figure: go.Figure, curves: pd.DataFrame, shown: pd.DataFrame | None = None) -> None:
    """Lays the axes: x over all curves, y over those shown, where they are not all."""
    highest = curves if shown is None else shown
    top = float(highest["y"].max()) * 1.05 if len(highest) else 1
    edges = curves.loc[curves["curve"] == "histogram"]
    if len(edges):
        figure.update_xaxes(range=[max(0.0, float((edges["x"] - edges["width"]).min())), _reach(edges)])
    figure.update_xaxes(title_text="distance of a pair, ‖z<sub>L</sub> \u2212 z<sub>R</sub>‖", showgrid=False)
    figure.update_yaxes(title_text="density", range=[0, top], nticks=5)


def _controls(figure: go.Figure, variants: Sequence[str], epochs: Sequence[int], curves: int) -> go.Figure:
    menu = {
        "buttons": [
            {
                "label": style.plain(variant, 28),
                "method": "restyle",
                "args": [{"visible": [other == variant for other in variants for _ in range(curves)]}],
            }
            for variant in variants
        ],
        "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "showactive": True,
    }  # fmt: skip
    move = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    slider = {
        "steps": [{"label": str(epoch), "method": "animate", "args": [[str(epoch)], move]} for epoch in epochs],
        "active": len(epochs) - 1, "currentvalue": {"prefix": "epoch ", "xanchor": "left"},
        "pad": {"t": 44}, "x": 0, "len": 1,
    }  # fmt: skip
    return figure.update_layout(
        updatemenus=[menu],
        sliders=[slider] if len(epochs) > 1 else [],
        bargap=0,
        margin={"t": 56, "b": 8},
        legend={"x": 1, "xanchor": "right", "y": 0.99, "yanchor": "top", "orientation": "v"},
    )


def _trace(rows: pd.DataFrame | None, curve: str, look: style.Look, *, shown: bool) -> go.Bar | go.Scatter:
    x = [] if rows is None else rows["x"].tolist()
    y = [] if rows is None else rows["y"].tolist()
    if curve == "histogram":
        return go.Bar(
            x=x, y=y, name="pairs", visible=shown, marker={"color": look.color, "opacity": 0.45, "line": {"width": 0}},
            hovertemplate="distance %{x:.3f}: density %{y:.3f}<extra></extra>",
        )  # fmt: skip
    line = {"color": "#D55E00" if curve == "mixture" else style.NEUTRAL, "width": 2.5 if curve == "mixture" else 2}
    if curve != "mixture":
        line["dash"] = style.DASHES[int(curve.split()[-1]) % len(style.DASHES)]
    return go.Scatter(x=x, y=y, name=curve, mode="lines", visible=shown, line=line, hoverinfo="skip")


def _histogram(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    edges, counts = _numbers(record["edges"]), _numbers(record["counts"])
    total = sum(counts)
    if len(edges) != len(counts) + 1 or not total:
        return []
    return [
        {
            "curve": "histogram",
            "x": (low + high) / 2,
            "y": round(count / total / (high - low), 5),
            "width": high - low,
            "n": int(total),
        }
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        if high > low
    ]


def _mixture(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    edges = _numbers(record["edges"])
    weights, means, deviations = (_numbers(record[key]) for key in ("weights", "means", "deviations"))
    if not weights or len(edges) < 2 or not len(weights) == len(means) == len(deviations) or min(deviations) <= 0:
        return []
    step = (edges[-1] - edges[0]) / (POINTS - 1)
    xs = [edges[0] + step * i for i in range(POINTS)]
    parts = [
        [w * math.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi)) for x in xs]
        for w, m, s in zip(weights, means, deviations, strict=True)
    ]
    named = {f"component {i}": part for i, part in enumerate(parts, 1)}
    named["mixture"] = [sum(values) for values in zip(*parts, strict=True)]
    return [
        {"curve": name, "x": round(x, 5), "y": round(y, 5)}
        for name, ys in named.items()
        for x, y in zip(xs, ys, strict=True)
    ]


def _spread(epochs: Sequence[int]) -> set[int]:
    if len(epochs) <= MOST_EPOCHS:
        return set(epochs)
    return {epochs[round(i * (len(epochs) - 1) / (MOST_EPOCHS - 1))] for i in range(MOST_EPOCHS)}


def _numbers(values: Any) -> list[float]:
    return [] if values is None or isinstance(values, float) else [float(value) for value in values]


def _reach(bins: pd.DataFrame) -> float:
    """Where the last filled bin ends: a few far pairs do not squeeze the rest."""
    filled = bins[bins["y"] > 0.001 * bins["y"].max()]
    return float((filled["x"] + filled["width"] / 2).max())


def _caption(curves: pd.DataFrame, source: str) -> str:
    n = curves["n"].max()
    return (
        f"{source}. n = {style.count(n, 'pair')} per epoch. Bars: share of the pairs per unit of distance; dashed: "
        "components of the mixture; line: their sum. The soft label is the posterior of the component with the highest "
        "mean. No line: no mixture was fitted."
    )
