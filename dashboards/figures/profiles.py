"""Performance profiles of variants in, the share of their runs above every score out, with bands."""

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import style

COLUMNS = ["variant", "threshold", "share", "low", "high"]


def data(profiles: pd.DataFrame) -> pd.DataFrame:
    """Leaves out the scores below which all runs of all variants lie, or above which none does.

    Args:
        profiles: PROFILE_COLUMNS of siamray.sweeps.aggregate.

    Returns:
        COLUMNS.
    """
    moving = profiles[(profiles["low"] < 1) & (profiles["high"] > 0)]
    if moving.empty:
        return profiles[COLUMNS].reset_index(drop=True)
    # With a neighbour on either side, where the curves reach their ends.
    steps = sorted(set(profiles["threshold"]))
    first = max(0, steps.index(moving["threshold"].min()) - 1)
    last = steps.index(moving["threshold"].max()) + 1
    kept = profiles["threshold"].between(steps[first], steps[min(last, len(steps) - 1)])
    return profiles.loc[kept, COLUMNS].reset_index(drop=True)


def draw(profiles: pd.DataFrame, looks: dict[str, style.Look], interval: str) -> go.Figure:
    """Draws a line with its band per variant.

    Args:
        profiles: from data().
        looks: variant -> look.
        interval: what the bands are, in words.
    """
    figure = go.Figure()
    for name, rows in profiles.groupby("variant", sort=False):
        look = style.look_of(str(name), looks)
        x = rows["threshold"].tolist()
        figure.add_trace(
            go.Scatter(
                x=[*x, *reversed(x)], y=[*rows["high"], *reversed(rows["low"].tolist())], fill="toself",
                fillcolor=look.color, opacity=0.12, line={"width": 0}, hoverinfo="skip", showlegend=False,
                legendgroup=str(name), mode="lines",
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=x, y=rows["share"].tolist(), name=style.plain(name, 24), legendgroup=str(name), mode="lines",
                line={"color": look.color, "dash": look.dash, "width": 2.5, "shape": "hv"},
                hovertemplate="above %{x:.2f}: %{y:.0%}<extra>" + style.plain(name) + "</extra>",
            )
        )  # fmt: skip
    figure.update_xaxes(title_text="score: 0 = chance, 1 = all", nticks=6)
    figure.update_yaxes(title_text="share of runs above", range=[-0.02, 1.02], tickformat=".0%", nticks=6)
    caption = (
        f"A run is a seed on a task. Bands: {interval}, at each score, not along the whole curve. A curve above "
        "another "
        "one everywhere is better whatever score is asked for; where two cross, none is better in general."
    )
    return style.finish(figure, "Performance profiles", caption, 420)
