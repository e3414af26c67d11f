"""What a search saw of its trials while they trained in, a line per trial with those stopped early marked out."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import style
from siamray.sweeps.metric_words import metric_name

COLUMNS = ["trial_id", "state", "epoch", "value"]
MOST_TRIALS = 150


def data(states: Mapping[str, str], looks: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Brings the looks into long form.

    Args:
        states: trial_id -> finished, pruned or failed.
        looks: trial_id -> VALIDATION_COLUMNS of siamray.sweeps.results.

    Returns:
        COLUMNS.
    """
    long = [
        frame.assign(trial_id=trial_id, state=states.get(trial_id, ""))[COLUMNS]
        for trial_id, frame in looks.items()
        if len(frame)
    ]
    return pd.concat(long, ignore_index=True) if long else pd.DataFrame(columns=COLUMNS)


def draw(values: pd.DataFrame, objective: str, direction: str, total: int) -> go.Figure:
    """Draws the lines.

    Args:
        values: from data().
        objective: what was looked at.
        direction: maximize or minimize.
        total: number of trials of the search.
    """
    figure = go.Figure()
    for state, color, dash in (("finished", style.PALETTE[0], "solid"), ("pruned", style.PALETTE[5], "dot")):
        own = values[values["state"] == state]
        xs: list[float | None] = []
        ys: list[float | None] = []
        for _, line in own.groupby("trial_id", sort=False):
            xs += [*line["epoch"], None]
            ys += [*line["value"], None]
        if len(own):
            figure.add_trace(
                go.Scatter(
                    x=xs, y=ys, name=state, mode="lines", opacity=0.6,
                    line={"color": color, "dash": dash, "width": 1.5},
                    hovertemplate="epoch %{x}: %{y:.4f}<extra></extra>",
                )
            )  # fmt: skip
    last = values[values["state"] == "pruned"].sort_values("epoch").groupby("trial_id").tail(1)
    if len(last):
        figure.add_trace(
            go.Scatter(
                x=last["epoch"], y=last["value"], name="stopped here", mode="markers", customdata=last["trial_id"],
                marker={"symbol": "x", "size": 8, "color": style.PALETTE[5]},
                hovertemplate="stopped after epoch %{x}: %{y:.4f}<extra></extra>",
            )
        )  # fmt: skip
    figure.update_xaxes(title_text="epochs done", nticks=8)
    figure.update_yaxes(title_text=style.plain(metric_name(objective).split(" of the ")[0], 30), nticks=6)
    n = values["trial_id"].nunique()
    shown = f"{n:,} of {total:,} trials, drawn at random" if n < total else f"n = {style.count(n, 'trial')}"
    better = "lower" if direction == "minimize" else "higher"
    caption = (
        f"{metric_name(objective)} on validation women as the pruner saw it; {better} is better. {shown}, no intervals."
    )
    return style.finish(figure, "Values while training", caption, 400)
