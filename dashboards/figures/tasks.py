"""A comparison over several metrics in, the difference of every variant in every metric side by side out."""

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import forest, style
from siamray.sweeps.metric_words import metric_name

COLUMNS = ["variant", "role", "metric", "effect", "effect_low", "effect_high", "p", "p_holm", "women", "seeds"]
# From orange over grey to blue: told apart with any kind of colour vision, and all light enough for one dark text.
_SCALE = [[0.0, "#e08214"], [0.25, "#fdb863"], [0.5, "#e4e6e9"], [0.75, "#a6cbe3"], [1.0, "#5aa2d0"]]
_TEXT = "#1a1d21"


def data(comparison: pd.DataFrame) -> pd.DataFrame:
    """Selects the effects on all metrics.

    Args:
        comparison: COMPARISON_COLUMNS of siamray.sweeps.results.

    Returns:
        COLUMNS: one row per variant and metric that has an effect.
    """
    return comparison.loc[comparison["effect"].notna(), COLUMNS].reset_index(drop=True)


def draw(effects: pd.DataFrame, reference: str, level: float = 0.05) -> go.Figure:
    """Draws a table of colours: a row per variant, a column per metric.

    Args:
        effects: from data().
        reference: what the effects are differences from.
        level: the corrected p below which a difference is marked.
    """
    variants = list(dict.fromkeys(effects["variant"]))
    metrics = list(dict.fromkeys(effects["metric"]))
    wide = effects.drop_duplicates(["variant", "metric"]).set_index(["variant", "metric"], drop=False)
    reach = float(effects["effect"].abs().max()) or 0.01
    values: list[list[float | None]] = []
    words: list[list[str]] = []
    hovers: list[list[str]] = []
    for variant in variants:
        known = [wide.loc[(variant, metric)] if (variant, metric) in wide.index else None for metric in metrics]
        values.append([None if row is None else float(row["effect"]) for row in known])
        words.append(["" if row is None else _cell(row, level) for row in known])
        hovers.append(["" if row is None else _hover(row) for row in known])
    figure = go.Figure(
        go.Heatmap(
            z=values, x=list(range(len(metrics))), y=list(range(len(variants))), text=words, texttemplate="%{text}",
            customdata=hovers, hovertemplate="%{customdata}<extra></extra>", colorscale=_SCALE, zmid=0, zmin=-reach,
            zmax=reach, xgap=2, ygap=2, textfont={"size": 12, "color": _TEXT},
            colorbar={"title": {"text": "difference"}, "thickness": 10, "len": 0.8, "nticks": 5},
        )
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(variants))), ticktext=[style.plain(name, 22) for name in variants],
        autorange="reversed", showgrid=False,
    )  # fmt: skip
    figure.update_xaxes(
        tickvals=list(range(len(metrics))), ticktext=[_short(name) for name in metrics], side="top", tickangle=-40,
        showgrid=False,
    )  # fmt: skip
    first = effects.iloc[0]
    counts = [style.count(first["women"], "test woman", "test women"), style.count(first["seeds"], "seed")]
    caption = (
        f"Differences from {reference}, in units of each metric, n = {', '.join(filter(None, counts))}. Blue is "
        f"better, orange is worse than {reference}; * Holm's p below {level:g}, corrected within its metric. The "
        "intervals are in the table below and in the comparison of each metric."
    )
    return style.finish(figure, "All metrics side by side", caption, 170 + 30 * len(variants))


def _cell(row: "pd.Series[float]", level: float) -> str:
    star = "*" if row["p_holm"] == row["p_holm"] and row["p_holm"] < level else ""
    return style.number(float(row["effect"]), sign=True) + star


def _hover(row: "pd.Series[float]") -> str:
    words = style.interval(float(row["effect"]), float(row["effect_low"]), float(row["effect_high"]), sign=True)
    return (
        f"<b>{style.plain(row['variant'])}</b><br>{style.plain(metric_name(str(row['metric'])))}<br>{words}<br>"
        f"{forest.p_words(float(row['p']), float(row['p_holm']))}"
    )


def _short(metric: str) -> str:
    """Breaks a metric's name in words into two short lines."""
    words, of, rest = metric_name(metric).partition(" of the ")
    return f"{style.plain(words, 22)}<br>{forest.small(style.plain(rest, 34))}" if of else style.plain(words, 30)
