"""A comparison in, the paired difference of every variant and control from the reference with its interval out."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import style
from siamray.sweeps.metric_words import metric_name

COLUMNS = [
    "variant",
    "role",
    "effect",
    "effect_low",
    "effect_high",
    "p",
    "p_holm",
    "seeds",
    "women",
    "lesions",
    "normals",
]


def data(comparison: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Selects what the forest plot shows.

    Args:
        comparison: COMPARISON_COLUMNS of siamray.sweeps.results.
        metric: one metric.

    Returns:
        COLUMNS: one row per variant that has an effect, variants before controls; the reference has none.
    """
    rows = comparison[(comparison["metric"] == metric) & comparison["effect"].notna()]
    group = (rows["role"] == "control").astype(int)
    return rows.assign(_group=group).sort_values("_group", kind="stable")[COLUMNS].reset_index(drop=True)


def draw(effects: pd.DataFrame, metric: str, reference: str, looks: dict[str, style.Look], interval: str) -> go.Figure:
    """Draws the forest plot.

    Args:
        effects: from data().
        metric: its metric.
        reference: what the effects are differences from.
        looks: variant -> look.
        interval: what the intervals are, in words.
    """
    figure = go.Figure()
    ticks: list[tuple[float, str]] = []
    y = 0.0
    for role in ("variant", "control"):
        group = effects[(effects["role"] == "control") == (role == "control")]
        if group.empty:
            continue
        ticks.append((y, f"<b>{role}s</b>"))
        for row in style.records(group):
            y -= 1
            ticks.append((y, f"{style.plain(row['variant'], 24)}<br>{small(p_words(row['p'], row['p_holm']))}"))
            figure.add_trace(_row(row, y, looks))
        y -= 1
    figure.add_vline(x=0, line_width=1.5, line_color=style.NEUTRAL)
    for x, anchor, words in ((0.0, "left", "← worse"), (1.0, "right", "better →")):
        figure.add_annotation(
            x=x, y=1, xref="paper", yref="paper", xanchor=anchor, yanchor="bottom", text=words, showarrow=False
        )
    figure.update_yaxes(tickvals=[at for at, _ in ticks], ticktext=[text for _, text in ticks], showgrid=False)
    figure.update_yaxes(range=[y + 0.4, 0.6], fixedrange=True)
    figure.update_xaxes(title_text=f"difference in {style.plain(measure(metric))} from {style.plain(reference, 24)}")
    figure.update_layout(showlegend=False)
    style.finish(figure, f"Difference from {reference}", _caption(effects, metric, interval), int(110 - 46 * y))
    return figure.update_layout(margin_t=34)


def _row(row: dict[str, Any], y: float, looks: dict[str, style.Look]) -> go.Scatter:
    look = style.look_of(str(row["variant"]), looks)
    words = style.interval(row["effect"], row["effect_low"], row["effect_high"], sign=True)
    hover = f"<b>{style.plain(row['variant'])}</b><br>{words}<br>{p_words(row['p'], row['p_holm'])}<extra></extra>"
    return go.Scatter(
        x=[row["effect"]],
        y=[y],
        error_x=bar(row),
        mode="markers",
        marker={"color": look.color, "symbol": look.symbol, "size": 11},
        hovertemplate=hover,
    )


def bar(row: dict[str, Any]) -> dict[str, Any]:
    """The interval of an effect as plotly's error bar; none where there is none."""
    if not row["effect_low"] <= row["effect"] <= row["effect_high"]:
        return {"visible": False}
    ends = {"array": [row["effect_high"] - row["effect"]], "arrayminus": [row["effect"] - row["effect_low"]]}
    return {"type": "data", "symmetric": False, **ends, "thickness": 2.5, "width": 6}


def p_words(p: float, p_holm: float) -> str:
    """Writes the corrected p value, or that it is not corrected."""
    if p_holm == p_holm:
        return f"Holm p {_equals(p_holm)}"
    return f"p {_equals(p)}, not corrected" if p == p else "no p"


def small(words: str) -> str:
    """Writes a text of a figure in small letters."""
    return f'<span style="font-size:11px">{words}</span>'


def _equals(p: float) -> str:
    words = style.probability(p)
    return style.plain(words if words.startswith("<") else f"= {words}")


def measure(metric: str) -> str:
    """What a metric measures, in words: AUC."""
    return metric_name(metric).split(" of the ")[0]


def _caption(effects: pd.DataFrame, metric: str, interval: str) -> str:
    if effects.empty:
        return "No comparison yet."
    first = effects.iloc[0]
    counts = [
        style.count(first["women"], "test woman", "test women"),
        style.count(first["seeds"], "seed"),
        style.count(first["lesions"], "lesion patch", "lesion patches"),
        style.count(first["normals"], "normal patch", "normal patches"),
    ]
    return (
        f"{metric_name(metric)}. n = {', '.join(words for words in counts if words)}. "
        f"Points: paired difference, same women and seeds. Bars: {interval}. "
        "An interval that crosses the line is no evidence of a difference."
    )
