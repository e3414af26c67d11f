"""The importance of searched options in, bars with their intervals out."""

import pandas as pd
import plotly.graph_objects as go

from dashboards.figures import style
from siamray.sweeps.metric_words import metric_name

COLUMNS = ["objective", "method", "option", "importance", "low", "high", "trials"]
_MEANING = {
    "fANOVA": "share of the variance over the space that an option explains by itself; interactions are the rest",
    "PED-ANOVA": "how much an option mattered for being among the best; all options sum to 1",
}
_DRAWN = {"fANOVA": "over the trees of the forest", "PED-ANOVA": "bootstrap over the trials"}


def data(importance: pd.DataFrame) -> pd.DataFrame:
    """Selects the importances that a method could tell.

    Args:
        importance: IMPORTANCE_COLUMNS of siamray.sweeps.results.

    Returns:
        COLUMNS, in the given order.
    """
    return importance.loc[importance["importance"].notna(), COLUMNS].reset_index(drop=True)


def notes(importance: pd.DataFrame) -> list[str]:
    """Says of which options a method could tell nothing, and why.

    Args:
        importance: IMPORTANCE_COLUMNS of siamray.sweeps.results.
    """
    untold = importance[importance["importance"].isna()]
    return [
        f"{method} tells nothing of {', '.join(dict.fromkeys(group['option']))}: {note}."
        for (method, note), group in untold.groupby(["method", "note"], sort=False)
    ]


def draw(found: pd.DataFrame) -> list[go.Figure]:
    """Draws the bars, a figure per objective and method.

    Args:
        found: from data().
    """
    drawn = []
    for (objective, method), group in found.groupby(["objective", "method"], sort=False):
        rows = group.iloc[::-1]
        # One option's name may be the end of another's.
        names = [style.plain(name, 44) for name in rows["option"]]
        figure = go.Figure(
            go.Bar(
                x=rows["importance"].tolist(), y=list(range(len(rows))), orientation="h",
                marker={"color": style.PALETTE[0], "opacity": 0.75},
                error_x={
                    "type": "data", "symmetric": False, "thickness": 1.5, "width": 4, "color": style.NEUTRAL,
                    "array": (rows["high"] - rows["importance"]).clip(lower=0).tolist(),
                    "arrayminus": (rows["importance"] - rows["low"]).clip(lower=0).tolist(),
                },
                customdata=[style.plain(name) for name in rows["option"]],
                hovertemplate="%{customdata}: %{x:.3f}<extra></extra>",
            )
        )  # fmt: skip
        figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=[_broken(name) for name in names], showgrid=False)
        figure.update_xaxes(title_text="importance", rangemode="tozero", nticks=5)
        caption = (
            f"For the {metric_name(str(objective))}: {_MEANING.get(str(method), '')}. n = "
            f"{style.count(rows['trials'].max(), 'complete trial')}. Bars: 95 % {_DRAWN.get(str(method), '')}. On "
            "validation women; describes the search, no test."
        )
        drawn.append(style.finish(figure, str(method), caption, 90 + 40 * len(rows)))
    return drawn


def _broken(name: str) -> str:
    """Breaks a dotted name before its end, so that it leaves room for the bars on a narrow page."""
    start, dot, end = name.rpartition(".")
    return f'<span style="font-size:11px">{start}{dot}</span><br>{end}' if dot else name
