"""Trials of a search in, a line per trial through all its options and its objective out; many are sampled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from dashboards.figures import style
from siamray.sweeps.metric_words import metric_name

MOST_LINES = 400
"""Lines that are drawn: half of them the best, the others drawn at random, as more hide each other."""

_ABSENT = "not drawn"

Ranges = list[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        name: option or objective.
        values: of the trials, as places on the axis.
        ticks: place -> what stands there; empty of numbers.
        logarithmic: whether the places are logarithms, to the base of ten.
        incomplete: whether some trials have no value and lie below all others.
    """

    name: str
    values: NDArray[np.float64]
    ticks: dict[float, str]
    logarithmic: bool = False
    incomplete: bool = False


def axes(trials: pd.DataFrame, options: Sequence[str], objective: str) -> list[Axis]:
    """Puts options and objective on axes: numbers as they are or by their logarithm, words one beside another.

    Args:
        trials: from dashboards.searched.
        options: the searched ones.
        objective: one objective.
    """
    return [
        _axis(name, trials[name]) for name in (*options, objective) if name in trials and trials[name].notna().any()
    ]


def sample(trials: pd.DataFrame, objective: str, direction: str, seed: int = 0) -> pd.DataFrame:
    """Leaves so many trials as can be told apart: the best half, and others drawn at random.

    Args:
        trials: from dashboards.searched.
        objective: one objective; trials without it are left out.
        direction: maximize or minimize.
        seed: of the draw.
    """
    own = trials[trials[objective].notna()].sort_values(objective, ascending=direction == "minimize", kind="stable")
    if len(own) <= MOST_LINES:
        return own
    best, rest = own.iloc[: MOST_LINES // 2], own.iloc[MOST_LINES // 2 :]
    return pd.concat([best, rest.sample(MOST_LINES // 2, random_state=seed)])


def within(trials: pd.DataFrame, axes_of: Sequence[Axis], brushed: Mapping[str, Ranges]) -> pd.DataFrame:
    """Leaves the trials that lie in what was brushed.

    Args:
        trials: from dashboards.searched.
        axes_of: axes() of the same trials.
        brushed: axis -> its ranges.
    """
    kept = np.ones(len(trials), dtype=bool)
    for axis in axes_of:
        ranges = brushed.get(axis.name)
        if ranges:
            kept &= np.any([(axis.values >= low) & (axis.values <= high) for low, high in ranges], axis=0)
    return trials[kept]


def draw(
    drawn: Sequence[Axis], shown: NDArray[np.bool_], objective: str, direction: str, brushed: Mapping[str, Ranges],
    *, dark: bool = False,
) -> go.Figure:  # fmt: skip
    """Draws the lines, coloured by the objective.

    Args:
        drawn: axes() of all trials.
        shown: which of the trials are drawn.
        objective: one objective.
        direction: maximize or minimize.
        brushed: axis -> its ranges.
        dark: whether the page is dark.
    """
    dimensions: list[dict[str, Any]] = []
    for axis in drawn:
        low, high = float(np.nanmin(axis.values)), float(np.nanmax(axis.values))
        margin = 0.02 * (high - low) or 0.5
        dimension: dict[str, Any] = {
            "name": axis.name, "label": style.plain(_label(axis, objective), 24), "values": axis.values[shown],
            "range": [low - margin, high + margin], "tickformat": ".3~g",
        }  # fmt: skip
        if axis.ticks:
            dimension |= {"tickvals": list(axis.ticks), "ticktext": [style.plain(t, 14) for t in axis.ticks.values()]}
        if brushed.get(axis.name):
            dimension["constraintrange"] = [list(pair) for pair in brushed[axis.name]]
        dimensions.append(dimension)
    values = next((axis.values for axis in drawn if axis.name == objective), np.zeros(len(shown)))
    ink = "#d7dce2" if dark else "#22272e"
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions, labelfont={"size": 12, "color": ink}, tickfont={"size": 10, "color": ink},
            rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
            labelangle=-15 if len(dimensions) > 4 else 0, labelside="top",
            unselected={"line": {"color": style.NEUTRAL, "opacity": 0.12}},
            line={"color": values[shown], "colorscale": "Viridis", "showscale": False,
                  "reversescale": direction == "minimize"},
        )
    )  # fmt: skip
    total = len(shown)
    lines = int(shown.sum())
    sampled = (
        f"{lines:,} of {total:,} trials with a value are drawn, the best {lines // 2:,} and as many at random; the "
        "table has all"
        if lines < total
        else f"n = {style.count(total, 'trial')} with a value"
    )
    better = "lower" if direction == "minimize" else "higher"
    caption = (
        f"A line is a trial, coloured by the {metric_name(objective)} ({better} is better, yellow is best). {sampled}. "
        f"{'Lowest on an axis: its option was not drawn. ' if any(axis.incomplete for axis in drawn) else ''}"
        "No intervals: one seed each."
    )
    figure = style.finish(figure, "Parallel coordinates", caption, 430)
    return figure.update_layout(margin={"l": 60, "r": 60, "t": 80, "b": 24})


def _label(axis: Axis, objective: str) -> str:
    """The end of an option's name, with its section, as many are called weight."""
    if axis.name == objective:
        return metric_name(axis.name).split(" of the ")[0]
    short = ".".join(axis.name.split(".")[-2:]).removeprefix("pretraining.")
    return f"log10 {short}" if axis.logarithmic else short


def _axis(name: str, values: pd.Series) -> Axis:
    numbers = pd.to_numeric(values, errors="coerce")
    absent = values.isna().to_numpy()
    if (numbers.isna() & values.notna()).any() or pd.api.types.is_bool_dtype(values):
        words = sorted({str(value) for value in values.dropna()})
        places = {word: float(place) for place, word in enumerate(words)}
        at = values.map(lambda value: places.get(str(value), -1.0)).to_numpy(dtype=np.float64)
        ticks = {place: word for word, place in places.items()}
        return Axis(name, at, ({-1.0: _ABSENT} if absent.any() else {}) | ticks)
    at = numbers.to_numpy(dtype=np.float64)
    known = at[~absent]
    # Numbers have no ticks of their own: plotly would let ranges end at ticks alone.
    logarithmic = bool(known.min() > 0 and known.max() / known.min() >= 50)
    if logarithmic:
        at, known = np.log10(at), np.log10(known)
    if absent.any():
        at = np.where(absent, known.min() - 0.15 * ((known.max() - known.min()) or 1), at)
    return Axis(name, at, {}, logarithmic, bool(absent.any()))
