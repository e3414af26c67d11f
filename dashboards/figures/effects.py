"""Effects of a factorial in, main effects and interactions with their intervals out, and what two factors do together.

The interaction plot shows means of variants; whether its lines are parallel is told by the interaction's interval.
"""

import itertools
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import forest, style
from siamray.sweeps.metric_words import metric_name

COLUMNS = ["kind", "term", "contrast", "effect", "effect_low", "effect_high", "p", "p_holm", "seeds", "women"]
MEAN_COLUMNS = ["first", "second", "first_level", "second_level", "value", "variants"]
_COLORS = {"main": style.PALETTE[0], "interaction": style.PALETTE[1]}
_HEADINGS = {"main": "main effects", "interaction": "interactions"}


def data(effects: pd.DataFrame) -> pd.DataFrame:
    """Selects the effects that were told.

    Args:
        effects: EFFECT_COLUMNS of siamray.sweeps.results.

    Returns:
        COLUMNS, main effects first.
    """
    return effects.loc[effects["effect"].notna(), COLUMNS].reset_index(drop=True)


def means(
    settings: Mapping[str, Mapping[str, str]], comparison: pd.DataFrame, metric: str, effects: pd.DataFrame
) -> pd.DataFrame:
    """Averages the variants at every pair of levels of two factors whose interaction was told.

    Args:
        settings: variant -> factor -> level.
        comparison: COMPARISON_COLUMNS of siamray.sweeps.results.
        metric: the metric of the effects.
        effects: from data().

    Returns:
        MEAN_COLUMNS: the mean metric over the variants with these levels, each alike.
    """
    values = comparison[comparison["metric"] == metric].drop_duplicates("variant").set_index("variant")["value"]
    told = set(effects.loc[effects["kind"] == "interaction", "term"])
    factors = list(dict.fromkeys(factor for own in settings.values() for factor in own))
    rows = []
    for first, second in itertools.combinations(factors, 2):
        if f"{first} x {second}" not in told:
            continue
        cells: dict[tuple[str, str], list[float]] = {}
        for name, own in settings.items():
            if name in values.index and first in own and second in own:
                cells.setdefault((own[first], own[second]), []).append(float(values[name]))
        rows += [(first, second, a, b, sum(found) / len(found), len(found)) for (a, b), found in cells.items()]
    return pd.DataFrame(rows, columns=MEAN_COLUMNS)


def draw(effects: pd.DataFrame, metric: str, interval: str) -> go.Figure:
    """Draws the effects as a forest plot.

    Args:
        effects: from data().
        metric: their metric.
        interval: what the intervals are, in words.
    """
    figure = go.Figure()
    ticks: list[tuple[float, str]] = []
    y = 0.0
    for kind, heading in _HEADINGS.items():
        group = effects[effects["kind"] == kind]
        if group.empty:
            continue
        ticks.append((y, f"<b>{heading}</b>"))
        for row in style.records(group):
            y -= 1
            # Short, as a narrow page has little room beside; the hover text and the table have it whole.
            below = f"{style.plain(_signs(row['contrast']), 26)}<br>{forest.p_words(row['p'], row['p_holm'])}"
            ticks.append((y, f"{style.plain(_signs(row['term']), 24)}<br>{forest.small(below)}"))
            words = style.interval(row["effect"], row["effect_low"], row["effect_high"], sign=True)
            named = f"<b>{style.plain(_signs(row['term']))}</b><br>{style.plain(_signs(row['contrast']))}"
            figure.add_trace(
                go.Scatter(
                    x=[row["effect"]], y=[y], mode="markers", error_x=forest.bar(row),
                    marker={"color": _COLORS[kind], "symbol": "circle" if kind == "main" else "diamond", "size": 11},
                    hovertemplate=f"{named}<br>{words}<br>{forest.p_words(row['p'], row['p_holm'])}<extra></extra>",
                )
            )  # fmt: skip
        y -= 1
    figure.add_vline(x=0, line_width=1.5, line_color=style.NEUTRAL)
    figure.update_yaxes(tickvals=[at for at, _ in ticks], ticktext=[text for _, text in ticks], showgrid=False)
    figure.update_yaxes(range=[y + 0.4, 0.6], fixedrange=True)
    figure.update_xaxes(title_text=f"effect on {style.plain(forest.measure(metric))}", nticks=4)
    figure.update_layout(showlegend=False)
    return style.finish(figure, "Effects of the factors", _caption(effects, metric, interval), int(100 - 58 * y))


def draw_means(found: pd.DataFrame, metric: str) -> list[go.Figure]:
    """Draws an interaction plot for every two factors: a line per level of the second one.

    Args:
        found: from means().
        metric: its metric.
    """
    low, high = found["value"].min(), found["value"].max()
    margin = max(0.005, 0.12 * (high - low))
    drawn = []
    for (first, second), pair in found.groupby(["first", "second"], sort=False):
        figure = go.Figure()
        levels = list(dict.fromkeys(pair["first_level"]))
        for i, (level, line) in enumerate(pair.groupby("second_level", sort=False)):
            values = line.set_index("first_level")["value"].reindex(levels)
            figure.add_trace(_line(levels, values, f"{second}: {level}", i))
        figure.update_xaxes(title_text=style.plain(first, 30), type="category")
        figure.update_yaxes(range=[low - margin, high + margin], nticks=5)
        averaged = int(pair["variants"].max())
        words = f"mean {forest.measure(metric)} of {style.count(averaged, 'variant')} at each point"
        style.finish(figure, f"{first} and {second}", words, 270)
        drawn.append(figure.update_layout(legend={"font": {"size": 11}}))
    return drawn


def _signs(words: str) -> str:
    """The names of effects with a true minus and times."""
    return words.replace(" - ", f" {style.MINUS} ").replace(" x ", " × ")


def _line(levels: Sequence[str], values: "pd.Series[float]", name: str, place: int) -> go.Scatter:
    color = style.PALETTE[place % len(style.PALETTE)]
    return go.Scatter(
        x=[style.plain(level, 20) for level in levels], y=values.tolist(), name=style.plain(name, 30),
        mode="lines+markers", line={"color": color, "dash": style.DASHES[place % len(style.DASHES)], "width": 2},
        marker={"symbol": style.SYMBOLS[place % len(style.SYMBOLS)], "size": 9},
        hovertemplate="%{x}: %{y:.3f}<extra>" + style.plain(name) + "</extra>",
    )  # fmt: skip


def _caption(effects: pd.DataFrame, metric: str, interval: str) -> str:
    first = effects.iloc[0]
    counts = [style.count(first["women"], "test woman", "test women"), style.count(first["seeds"], "seed")]
    return (
        f"{metric_name(metric)}. n = {', '.join(words for words in counts if words)}. Points: the change by a factor's "
        "level, averaged over the levels of the other factors, paired over women and seeds; of an interaction, how "
        "much "
        f"one change alters the other. Bars: {interval}. Holm's p: over the main effects, and over the interactions."
    )
