"""Trials of a search in, its objective trial by trial and the best so far out."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import style
from siamray.sweeps.metric_words import metric_name

COLUMNS = ["number", "trial_id", "value", "best"]


def data(trials: pd.DataFrame, objective: str, direction: str) -> pd.DataFrame:
    """Follows the best value from trial to trial.

    Args:
        trials: from dashboards.searched.
        objective: one objective.
        direction: maximize or minimize.

    Returns:
        COLUMNS: the trials that have a value, by their number.
    """
    if objective not in trials:
        return pd.DataFrame(columns=COLUMNS)
    own = trials[trials[objective].notna()].sort_values("number")
    best = own[objective].cummin() if direction == "minimize" else own[objective].cummax()
    return own.assign(value=own[objective], best=best)[COLUMNS].reset_index(drop=True)


def draw(found: pd.DataFrame, objective: str, direction: str, states: dict[str, int]) -> go.Figure:
    """Draws a point per trial and the best so far as a line.

    Args:
        found: from data().
        objective: its objective.
        direction: maximize or minimize.
        states: how many trials are in each state.
    """
    figure = go.Figure()
    figure.add_trace(
        go.Scattergl(
            x=found["number"].to_numpy(dtype=np.float64), y=found["value"].to_numpy(dtype=np.float64), mode="markers",
            name="a trial", marker={"color": style.PALETTE[0], "size": 7 if len(found) < 500 else 4, "opacity": 0.6},
            customdata=found["trial_id"].tolist(), hovertemplate="trial %{x}: %{y:.4f}<extra></extra>",
        )
    )  # fmt: skip
    steps = found[found["best"].diff().fillna(1) != 0]
    ends = pd.concat([steps, found.tail(1)])
    figure.add_trace(
        go.Scatter(
            x=ends["number"].to_numpy(dtype=np.float64), y=ends["best"].to_numpy(dtype=np.float64), mode="lines",
            name="best so far", line={"color": style.PALETTE[5], "width": 2, "shape": "hv"}, hoverinfo="skip",
        )
    )  # fmt: skip
    figure.update_xaxes(title_text="trial", dtick=1 if found["number"].max() <= 15 else None, tickformat=",d")
    figure.update_yaxes(title_text=style.plain(metric_name(objective).split(" of the ")[0], 30), nticks=6)
    others = ", ".join(f"{number:,} {state}" for state, number in states.items() if state != "finished" and number)
    better = "lower" if direction == "minimize" else "higher"
    caption = (
        f"{metric_name(objective)}; {better} is better. n = {style.count(len(found), 'trial')} with a value"
        f"{f'; without one: {others}' if others else ''}. One seed each and no intervals: the best of many is better "
        "by luck too. A click on a point opens its trial."
    )
    return style.finish(figure, "History", caption, 400)
