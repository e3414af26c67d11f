"""Trials in, the metric of every seed and variant with lines through the same seed out."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import style
from siamray.sweeps.metric_words import metric_name

COLUMNS = ["trial_id", "variant", "role", "seed", "fold", "value", "low", "high"]


def data(trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Selects what the seeds figure shows.

    Args:
        trials: TRIAL_COLUMNS and metrics of siamray.sweeps.results.
        metric: one metric.

    Returns:
        COLUMNS: one row per finished trial that has the metric.
    """
    if metric not in trials:
        return pd.DataFrame(columns=COLUMNS)
    rows = trials[(trials["state"] == "finished") & trials[metric].notna()]
    named = rows.rename(columns={metric: "value", f"{metric}_low": "low", f"{metric}_high": "high"})
    return named.reindex(columns=COLUMNS).reset_index(drop=True)


def draw(values: pd.DataFrame, metric: str, looks: dict[str, style.Look]) -> go.Figure:
    """Draws a dot per trial, a line through the trials of a seed, a bar for the mean.

    Args:
        values: from data().
        metric: its metric.
        looks: variant -> look.
    """
    figure = go.Figure()
    names = list(dict.fromkeys(values["variant"]))
    place = {name: i for i, name in enumerate(names)}
    for (seed, fold), line in values.groupby(["seed", "fold"], sort=True):
        order = line.assign(_x=line["variant"].map(place)).sort_values("_x")
        figure.add_trace(
            go.Scatter(
                x=order["_x"], y=order["value"], mode="lines", hoverinfo="skip", opacity=0.5,
                line={"color": style.NEUTRAL, "width": 1}, name=f"seed {seed}, fold {fold}",
            )
        )  # fmt: skip
    for name, group in values.groupby("variant", sort=False):
        look = style.look_of(str(name), looks)
        x = place[str(name)]
        figure.add_trace(
            go.Scatter(
                x=[x - 0.28, x + 0.28], y=[group["value"].mean()] * 2, mode="lines", opacity=0.45,
                line={"color": look.color, "width": 5},
                hovertemplate=f"<b>{style.plain(name)}</b><br>mean {group['value'].mean():.3f}<extra></extra>",
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[x] * len(group), y=group["value"], mode="markers",
                marker={"color": look.color, "symbol": look.symbol, "size": 9},
                text=[_words(row) for row in style.records(group)], hovertemplate="%{text}<extra></extra>",
                customdata=group["trial_id"].tolist(),
            )
        )  # fmt: skip
    controls = [place[str(name)] for name in values.loc[values["role"] == "control", "variant"].unique()]
    if controls and min(controls) > 0:
        figure.add_vline(x=min(controls) - 0.5, line_width=1, line_dash="dot", line_color=style.NEUTRAL)
    figure.update_xaxes(
        tickvals=list(range(len(names))), ticktext=[style.plain(name, 20) for name in names], showgrid=False
    )
    figure.update_xaxes(range=[-0.6, len(names) - 0.4])
    figure.update_yaxes(title_text=style.plain(metric_name(metric).split(" of the ")[0]), nticks=6)
    figure.update_layout(showlegend=False)
    return style.finish(figure, "Every seed", _caption(values, metric), 380)


def _words(row: dict[str, Any]) -> str:
    value = style.interval(row["value"], row["low"], row["high"])
    return f"<b>{style.plain(row['variant'])}</b><br>seed {row['seed']}, fold {row['fold']}<br>{value}"


def _caption(values: pd.DataFrame, metric: str) -> str:
    counts = f"{style.count(len(values), 'finished trial')}, {style.count(values['seed'].nunique(), 'seed')}"
    folds = values["fold"].nunique()
    return (
        f"{metric_name(metric)}. n = {counts}{f', {folds} folds' if folds > 1 else ''}. "
        "A dot is a trial, a thin line joins the trials of one seed, the bar is the mean; controls are right of the "
        "dotted line. No intervals here: the spread is that of the seeds, not of the women."
    )
