"""Interquartile means of variants in, points with their intervals out."""

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import style

COLUMNS = ["variant", "value", "low", "high"]


def data(means: pd.DataFrame) -> pd.DataFrame:
    """Orders the variants, the best first.

    Args:
        means: MEAN_COLUMNS of siamray.sweeps.aggregate.

    Returns:
        COLUMNS.
    """
    return means.sort_values("value", ascending=False, kind="stable")[COLUMNS].reset_index(drop=True)


def draw(means: pd.DataFrame, looks: dict[str, style.Look], interval: str) -> go.Figure:
    """Draws a point per variant.

    Args:
        means: from data().
        looks: variant -> look.
        interval: what the intervals are, in words.
    """
    figure = go.Figure()
    for place, row in enumerate(style.records(means)):
        look = style.look_of(str(row["variant"]), looks)
        ends = {"array": [row["high"] - row["value"]], "arrayminus": [row["value"] - row["low"]]}
        words = style.interval(row["value"], row["low"], row["high"])
        figure.add_trace(
            go.Scatter(
                x=[row["value"]], y=[-place], mode="markers",
                error_x={"type": "data", "symmetric": False, **ends, "thickness": 2.5, "width": 6},
                marker={"color": look.color, "symbol": look.symbol, "size": 11},
                hovertemplate=f"<b>{style.plain(row['variant'])}</b><br>{words}<extra></extra>",
            )
        )  # fmt: skip
    names = [style.plain(name, 24) for name in means["variant"]]
    figure.update_yaxes(tickvals=[-place for place in range(len(names))], ticktext=names, showgrid=False)
    figure.update_yaxes(range=[0.6 - len(names), 0.6], fixedrange=True)
    figure.update_xaxes(title_text="score: 0 = chance, 1 = all", nticks=6)
    figure.update_layout(showlegend=False)
    caption = (
        f"Points: the mean of the middle half of all runs of all tasks. Bars: {interval}. Differences: in the table."
    )
    return style.finish(figure, "Interquartile means", caption, 80 + 40 * len(names))
