"""Trials and comparison in, the metric of every variant against the seconds it costs out."""

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import style
from siamray.sweeps.metric_words import metric_name

MOST_IN_LEGEND = 12
COLUMNS = ["variant", "role", "seconds", "seconds_low", "seconds_high", "value", "low", "high", "trials"]


def data(trials: pd.DataFrame, comparison: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Brings metric and cost of every variant together.

    Args:
        trials: TRIAL_COLUMNS, costs and metrics of siamray.sweeps.results.
        comparison: COMPARISON_COLUMNS; may have no rows.
        metric: one metric.

    Returns:
        COLUMNS: mean, least and greatest wall seconds of the finished trials; value and interval of the comparison, or
        the mean of the trials (without an interval) where nothing is compared yet.
    """
    if metric not in trials or "wall_s" not in trials:
        return pd.DataFrame(columns=COLUMNS)
    finished = trials[(trials["state"] == "finished") & trials[metric].notna() & trials["wall_s"].notna()]
    compared = comparison[comparison["metric"] == metric].drop_duplicates("variant").set_index("variant")
    rows = []
    for name, group in finished.groupby("variant", sort=False):
        wall = group["wall_s"]
        row = {"variant": name, "role": group["role"].iloc[0], "trials": len(group)}
        row |= {"seconds": wall.mean(), "seconds_low": wall.min(), "seconds_high": wall.max()}
        if name in compared.index:
            ends = compared.loc[name, ["value", "value_low", "value_high"]]
            row |= dict(zip(("value", "low", "high"), ends, strict=True))
        else:
            row["value"] = group[metric].mean()
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def draw(costs: pd.DataFrame, metric: str, looks: dict[str, style.Look], interval: str) -> go.Figure:
    """Draws a point per variant.

    Args:
        costs: from data().
        metric: its metric.
        looks: variant -> look.
        interval: what the intervals of the metric are, in words.
    """
    figure = go.Figure()
    for row in style.records(costs):
        look = style.look_of(str(row["variant"]), looks)
        words = f"{style.interval(row['value'], row['low'], row['high'])}<br>{style.seconds(row['seconds'])} per trial"
        figure.add_trace(
            go.Scatter(
                x=[row["seconds"]], y=[row["value"]], name=style.plain(row["variant"], 24), mode="markers",
                marker={"color": look.color, "symbol": look.symbol, "size": 12},
                error_x=_bar(row["seconds"], row["seconds_low"], row["seconds_high"]),
                error_y=_bar(row["value"], row["low"], row["high"]),
                hovertemplate=f"<b>{style.plain(row['variant'])}</b><br>{words}<extra></extra>",
            )
        )  # fmt: skip
    figure.update_xaxes(title_text="wall seconds per trial", rangemode="tozero")
    figure.update_yaxes(title_text=style.plain(metric_name(metric).split(" of the ")[0]), nticks=6)
    bars = ""
    if costs["low"].notna().any():
        bars = f"Vertical bars: {interval}, not paired: to compare, use the differences. "
    if (costs["trials"] > 1).any():
        bars += "Horizontal bars: from the fastest to the slowest trial. "
    caption = (
        f"{metric_name(metric)}. n = {style.count(costs['trials'].sum(), 'finished trial')}. "
        f"{bars}Up and left is better."
    )
    style.finish(figure, "Cost", caption, 420)
    return figure.update_layout(showlegend=len(costs) <= MOST_IN_LEGEND)


def _bar(middle: float, low: float, high: float) -> dict[str, object]:
    if not low <= middle <= high:
        return {"visible": False}
    ends = {"array": [high - middle], "arrayminus": [middle - low]}
    return {"type": "data", "symmetric": False, "thickness": 1.5, "width": 4, **ends}
