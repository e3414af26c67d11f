"""Mean ranks of variants in, a critical-difference diagram out (Demsar 2006, figure 1, with a row per variant)."""

import plotly.graph_objects as go

from dashboards.figures import style
from siamray.sweeps.metric_words import metric_name
from siamray.sweeps.ranks import Ranking


def draw(ranking: Ranking, metric: str, looks: dict[str, style.Look], level: float) -> go.Figure:
    """Draws a point per variant, the best above, and joins those that are not told apart.

    Args:
        ranking: over data sets.
        metric: by which they are ranked.
        looks: variant -> look.
        level: of the test and the critical difference.
    """
    names = [str(name) for name in ranking.average_ranks.index]
    ranks = [float(rank) for rank in ranking.average_ranks]
    figure = go.Figure()
    for place, (name, rank) in enumerate(zip(names, ranks, strict=True)):
        look = style.look_of(name, looks)
        figure.add_trace(
            go.Scatter(
                x=[rank], y=[-place], mode="markers", marker={"color": look.color, "symbol": look.symbol, "size": 12},
                hovertemplate=f"<b>{style.plain(name)}</b><br>mean rank {rank:.2f}<extra></extra>",
            )
        )  # fmt: skip
    right = len(names) + 0.15
    joined = [group for group in ranking.groups if len(group) > 1]
    for number, group in enumerate(joined):
        ends = [-names.index(group[0]) + 0.2, -names.index(group[-1]) - 0.2]
        at = right + 0.18 * number
        figure.add_trace(
            go.Scatter(
                x=[at, at], y=ends, mode="lines", line={"color": style.NEUTRAL, "width": 5},
                hovertemplate=f"not told apart: {style.plain(', '.join(group))}<extra></extra>",
            )
        )  # fmt: skip
    width = min(ranking.critical_difference, len(names) - 1.0)
    figure.add_trace(
        go.Scatter(
            x=[1, 1 + width], y=[0.8, 0.8], mode="lines+markers", line={"color": style.NEUTRAL, "width": 2},
            marker={"symbol": "line-ns-open", "size": 9, "color": style.NEUTRAL}, hoverinfo="skip",
        )
    )  # fmt: skip
    figure.add_annotation(
        x=1, y=0.8, xanchor="left", yanchor="bottom", showarrow=False,
        text=f"critical difference {ranking.critical_difference:.2f}",
    )  # fmt: skip
    figure.update_xaxes(title_text="mean rank, 1 = best", range=[0.8, right + 0.18 * len(joined) + 0.1], dtick=1)
    labels = [f"{style.plain(name, 20)}  {rank:.2f}" for name, rank in zip(names, ranks, strict=True)]
    figure.update_yaxes(tickvals=[-place for place in range(len(names))], ticktext=labels, showgrid=False)
    figure.update_yaxes(range=[0.5 - len(names), 1.6], fixedrange=True)
    figure.update_layout(showlegend=False)
    p = style.probability(ranking.p)
    told = "" if ranking.p < level else ", so that none are told apart"
    caption = (
        f"Ranked by the {metric_name(metric)} on n = {ranking.blocks} data sets, seeds and folds averaged; without the "
        f"controls. Friedman's test (Iman and Davenport's F): p {p if p.startswith('<') else f'= {p}'}{told}. Variants "
        f"joined by a bar at the right are not told apart at level {level:.3g} (Nemenyi)."
    )
    return style.finish(figure, "Mean ranks", caption, 120 + 44 * len(names))
