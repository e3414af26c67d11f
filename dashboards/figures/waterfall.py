"""The comparison of a leave-one-out ablation in, what the method is without each of its components out."""

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import forest, style
from siamray.sweeps.metric_words import metric_name

COLUMNS = ["variant", "reference_value", "effect", "effect_low", "effect_high", "p", "p_holm", "seeds", "women"]


def data(comparison: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Selects the variants that differ from the reference in one component each.

    Args:
        comparison: COMPARISON_COLUMNS of siamray.sweeps.results.
        metric: one metric.

    Returns:
        COLUMNS: one row per variant that has an effect, the one that loses most first.
    """
    rows = comparison[comparison["metric"] == metric]
    whole = rows.loc[rows["variant"] == rows["reference"], "value"]
    own = rows[(rows["role"] == "variant") & rows["effect"].notna()]
    value = float(whole.iloc[0]) if len(whole) else float("nan")
    return own.assign(reference_value=value).sort_values("effect", kind="stable")[COLUMNS].reset_index(drop=True)


def draw(steps: pd.DataFrame, metric: str, reference: str, looks: dict[str, style.Look], interval: str) -> go.Figure:
    """Draws a bar per component, from the metric of the whole method to that without the component.

    Args:
        steps: from data().
        metric: its metric.
        reference: the whole method.
        looks: variant -> look.
        interval: what the intervals are, in words.
    """
    figure = go.Figure()
    whole = float(steps["reference_value"].iloc[0])
    names = []
    for y, row in enumerate(style.records(steps)):
        look = style.look_of(str(row["variant"]), looks)
        p = forest.p_words(row["p"], row["p_holm"])
        names.append(f"{style.plain(row['variant'], 24)}<br>{forest.small(p)}")
        words = style.interval(row["effect"], row["effect_low"], row["effect_high"], sign=True)
        figure.add_trace(
            go.Bar(
                x=[row["effect"]], base=[whole], y=[-y], orientation="h", width=0.5,
                marker={"color": look.color, "opacity": 0.75}, error_x=forest.bar(row) | {"color": style.NEUTRAL},
                hovertemplate=f"<b>{style.plain(row['variant'])}</b><br>{words}<br>{p}<extra></extra>",
            )
        )  # fmt: skip
    figure.add_vline(x=whole, line_width=1.5, line_color=style.NEUTRAL)
    figure.add_annotation(
        x=whole, y=1, xref="x", yref="paper", yanchor="bottom", showarrow=False,
        text=f"{style.plain(reference, 24)} {style.number(whole)}",
    )  # fmt: skip
    figure.update_yaxes(tickvals=[-y for y in range(len(names))], ticktext=names, showgrid=False, fixedrange=True)
    figure.update_xaxes(title_text=style.plain(forest.measure(metric)), nticks=6)
    figure.update_layout(showlegend=False)
    first = steps.iloc[0]
    counts = [style.count(first["women"], "test woman", "test women"), style.count(first["seeds"], "seed")]
    caption = (
        f"{metric_name(metric)}. n = {', '.join(words for words in counts if words)}. Each bar goes from the whole "
        f"method to the method without (or with another) part, the part that is missed most on top; thin lines: "
        f"{interval} of the difference. A bar to the left says that the part helps; right is better."
    )
    style.finish(figure, f"What {reference} loses without each part", caption, 90 + 44 * len(steps))
    return figure.update_layout(margin_t=34)
