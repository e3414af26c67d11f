"""Trials of a search in, the objective against each option, against two of them, and against another objective out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.interpolate import griddata

from dashboards.figures import style
from dashboards.figures.parallel_coordinates import Axis, axes
from siamray.sweeps.metric_words import metric_name

# A browser keeps few WebGL pictures at a time, and there is a panel per option: so many points are drawn without.
MOST_POINTS = 600
GRID = 40
LEAST_POINTS = 6


def data(trials: pd.DataFrame, objective: str, seed: int = 0) -> pd.DataFrame:
    """Leaves the trials that have the objective, of many a sample.

    Args:
        trials: from dashboards.searched.
        objective: one objective.
        seed: of the sample.
    """
    own = trials[trials[objective].notna()] if objective in trials else trials.iloc[:0]
    return own if len(own) <= MOST_POINTS else own.sample(MOST_POINTS, random_state=seed).sort_index()


def draw(shown: pd.DataFrame, options: Sequence[str], objective: str, direction: str, total: int) -> list[go.Figure]:
    """Draws a panel per option.

    Args:
        shown: from data().
        options: the searched ones.
        objective: one objective.
        direction: maximize or minimize.
        total: number of trials that have the objective.
    """
    drawn = []
    better = "lower is better" if direction == "minimize" else "higher is better"
    sampled = f"{len(shown):,} of {total:,} trials, drawn at random" if len(shown) < total else f"n = {total:,} trials"
    for axis in axes(shown, options, objective)[:-1] if len(shown) else []:
        figure = go.Figure(
            go.Scatter(
                x=axis.values, y=shown[objective].to_numpy(dtype=np.float64), mode="markers",
                marker={
                    "color": shown["number"].to_numpy(dtype=np.float64), "colorscale": "Cividis", "size": 6,
                    "opacity": 0.75, "showscale": False,
                },
                customdata=shown["trial_id"].tolist(), hovertemplate="%{x:.4g}: %{y:.4f}<extra></extra>",
            )
        )  # fmt: skip
        figure.update_xaxes(**_ticks(axis))
        absent = "; leftmost: the option was not drawn" if axis.incomplete else ""
        figure.update_yaxes(title_text=style.plain(metric_name(objective).split(" of the ")[0], 24), nticks=5)
        figure.update_layout(showlegend=False)
        drawn.append(style.finish(figure, axis.name, f"{sampled}; {better}; later trials are yellow" + absent, 260))
    return drawn


def draw_contour(
    shown: pd.DataFrame, first: str, second: str, objective: str, direction: str, total: int
) -> go.Figure | None:
    """Draws the objective over two options.

    Args:
        shown: from data().
        first: the option along x.
        second: the option along y.
        objective: one objective.
        direction: maximize or minimize.
        total: number of trials that have the objective.

    Returns:
        None where too few trials have both options.
    """
    both = shown[shown[first].notna() & shown[second].notna()]
    placed = axes(both, [first, second], objective) if len(both) >= LEAST_POINTS and first != second else []
    if len(placed) < 3:
        return None
    x, y, z = (axis.values for axis in placed)
    wide = [np.linspace(values.min(), values.max(), GRID) for values in (x, y)]
    if min(np.ptp(x), np.ptp(y)) == 0:
        return None
    scaled = np.column_stack([(values - values.min()) / np.ptp(values) for values in (x, y)])
    across, along = np.meshgrid(*(np.linspace(0, 1, GRID),) * 2)
    try:
        surface = griddata(scaled, z, (across, along), method="linear")
    except Exception:  # qhull: all trials lie on one line
        return None
    figure = go.Figure(
        go.Contour(
            x=wide[0], y=wide[1], z=surface, colorscale="Viridis", reversescale=direction == "minimize",
            contours={"coloring": "heatmap", "showlines": False}, connectgaps=False, hoverinfo="skip",
            colorbar={"thickness": 10, "len": 0.9, "nticks": 6},
        )
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=x, y=y, mode="markers", customdata=both["trial_id"].tolist(), text=[f"{value:.4f}" for value in z],
            marker={"size": 5, "color": "#ffffff", "line": {"color": "#000000", "width": 1}}, showlegend=False,
            hovertemplate="%{text}<extra></extra>",
        )
    )  # fmt: skip
    for axis, update in zip(placed[:2], (figure.update_xaxes, figure.update_yaxes), strict=True):
        update(title_text=style.plain(axis.name, 44), **_ticks(axis))
    better = "lower" if direction == "minimize" else "higher"
    sampled = f"{len(both):,} of {total:,} trials" if len(both) < total else f"n = {total:,} trials"
    caption = (
        f"{metric_name(objective)} over two options, {better} is better (yellow). {sampled}, one seed each. Points: "
        "trials; colours between them are interpolated linearly, not measured, and nothing is said outside of them."
    )
    return style.finish(figure, f"{first} and {second}", caption, 430)


def _ticks(axis: Axis) -> dict[str, Any]:
    """What stands at an axis: words, or powers of ten, or the numbers themselves."""
    if axis.ticks:
        return {"tickvals": list(axis.ticks), "ticktext": [style.plain(word, 12) for word in axis.ticks.values()]}
    if not axis.logarithmic:
        return {"nticks": 6}
    low, high = np.floor(axis.values.min()), np.ceil(axis.values.max())
    powers = np.arange(low, high + 1)
    return {"tickvals": powers.tolist(), "ticktext": [f"{10.0**power:g}" for power in powers]}


def draw_front(trials: pd.DataFrame, objectives: dict[str, str]) -> go.Figure | None:
    """Draws the first two of several objectives against each other, with the Pareto front.

    Args:
        trials: from dashboards.searched, with ``front`` and ``winner`` where they are recorded.
        objectives: objective -> maximize or minimize.

    Returns:
        None where there are fewer than two objectives, or no trial has both.
    """
    names = [name for name in objectives if name in trials]
    if len(names) < 2:
        return None
    first, second = names[:2]
    own = trials[trials[first].notna() & trials[second].notna()]
    if own.empty:
        return None
    figure = go.Figure()
    front = own["front"].fillna(False).astype(bool) if "front" in own else pd.Series(False, index=own.index)
    winner = own["winner"].fillna(False).astype(bool) if "winner" in own else pd.Series(False, index=own.index)
    groups = (
        ("not on the front", ~front & ~winner, style.NEUTRAL, "circle", 6),
        ("Pareto front", front & ~winner, style.PALETTE[0], "diamond", 10),
        ("winner", winner, style.PALETTE[5], "star", 15),
    )
    for name, kept, color, symbol, size in groups:
        rows = own[kept].sort_values(first)
        if len(rows):
            figure.add_trace(
                go.Scattergl(
                    x=rows[first], y=rows[second], name=name, customdata=rows["trial_id"].tolist(),
                    mode="lines+markers" if name == "Pareto front" else "markers",
                    marker={"color": color, "symbol": symbol, "size": size}, line={"width": 1, "color": color},
                    hovertemplate="%{x:.4g}, %{y:.4g}<extra></extra>",
                )
            )  # fmt: skip
    wanted = {"maximize": "higher is better", "minimize": "lower is better"}
    for name, update in ((first, figure.update_xaxes), (second, figure.update_yaxes)):
        measure, of, rest = metric_name(name).partition(" of the ")
        below = f"<br><span style='font-size:11px'>{style.plain(rest, 56)}</span>" if of else ""
        update(title_text=f"{style.plain(measure)}, {wanted[objectives[name]]}{below}")
    caption = (
        f"n = {style.count(len(own), 'trial')}, one seed each, no intervals. On the front: no other trial is better in "
        "one objective and as good in all. The winner is the member nearest to the ideal point."
    )
    return style.finish(figure, "Pareto front", caption, 430)
