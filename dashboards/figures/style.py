"""Names of variants, metrics and numbers in, their common looks and words in every figure and table out."""

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
import plotly.graph_objects as go

# Okabe and Ito, Color Universal Design (2008), without black and yellow, which vanish on a dark and on a white page.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
GREYS = ("#7d858e", "#a2a9b1", "#5f6770")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon", "star")
CONTROL_SYMBOLS = ("x", "cross", "star-triangle-up")
DASHES = ("solid", "dash", "dot", "dashdot")
NEUTRAL = "#868e96"
MINUS = "\u2212"
NONE = "\u2013"

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class Look:
    """How a variant is drawn, in every figure the same."""

    color: str
    symbol: str
    dash: str


def looks(variants: Iterable[str], controls: Iterable[str] = ()) -> dict[str, Look]:
    """Gives every variant a colour, marker and dash; controls are grey.

    Args:
        variants: names in the experiment's order; beyond six, colours return with another dash.
        controls: names in the experiment's order.
    """
    looked = {}
    for i, name in enumerate(variants):
        dash = DASHES[i // len(PALETTE) % len(DASHES)]
        looked[name] = Look(PALETTE[i % len(PALETTE)], SYMBOLS[i % len(SYMBOLS)], dash)
    for i, name in enumerate(controls):
        symbol = CONTROL_SYMBOLS[i % len(CONTROL_SYMBOLS)]
        looked.setdefault(name, Look(GREYS[i % len(GREYS)], symbol, DASHES[(i + 1) % len(DASHES)]))
    return looked


def look_of(name: str, looked: dict[str, Look]) -> Look:
    """Returns a variant's look; grey where it is not of the experiment."""
    return looked.get(name, Look(NEUTRAL, "circle-open", "dot"))


def plain(text: object, length: int | None = None) -> str:
    """Makes any text safe as a text of plotly, which reads some HTML: shown as written, never as markup.

    Args:
        text: the text.
        length: characters at most; what is cut off is shown by an ellipsis.
    """
    words = " ".join(str(text).split())
    if length is not None and len(words) > length:
        words = words[: length - 1].rstrip() + "…"
    # The brace, as %{x} in a hover text is a placeholder.
    return html.escape(words, quote=False).replace("{", "&#123;")


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Writes a number with a true minus; an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", MINUS)


def interval(value: float, low: float, high: float, *, sign: bool = False) -> str:
    """Writes a value with the ends of its interval."""
    if not math.isfinite(value):
        return NONE
    ends = f" [{number(low, sign=sign)}, {number(high, sign=sign)}]" if math.isfinite(low + high) else ""
    return number(value, sign=sign) + ends


def probability(p: float) -> str:
    """Writes a p value: three digits, or that it is less than 0.001."""
    if not math.isfinite(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def seconds(value: float) -> str:
    """Writes a duration in the unit that suits it."""
    if not math.isfinite(value):
        return NONE
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def count(value: Any, one: str, many: str | None = None) -> str:
    """Writes a number of things, "24 women"; nothing where the number is unknown."""
    if pd.isna(value):
        return ""
    return f"{int(value):,} {one if value == 1 else many or one + 's'}"


def whole(value: Any) -> str:
    """Writes a whole number; an en dash where there is none."""
    return NONE if pd.isna(value) else f"{int(value):,}"


def template(*, dark: bool) -> dict[str, Any]:
    """Returns the plotly template of a light or a dark page; backgrounds are the page's own."""
    ink, line = ("#d7dce2", "#3a4149") if dark else ("#22272e", "#e3e6ea")
    field = "#20252b" if dark else "#ffffff"
    axis = {
        "gridcolor": line,
        "linecolor": line,
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13}},
    }
    # Ticks that are not seen keep the labels of both axes apart where they meet.
    axis |= {"ticks": "outside", "ticklen": 5, "tickcolor": "rgba(0,0,0,0)"}
    return {
        "layout": {
            "font": {"family": _FONT, "size": 13, "color": ink},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {
                "font": {"family": _FONT, "color": ink},
                "bgcolor": field,
                "bordercolor": line,
                "namelength": -1,
            },
            "updatemenudefaults": {"bgcolor": field, "bordercolor": line, "font": {"color": ink}},
            "sliderdefaults": {"bgcolor": line, "bordercolor": line, "activebgcolor": NEUTRAL, "font": {"color": ink}},
            "annotationdefaults": {"font": {"color": ink}},
        }
    }


@cache
def _light() -> go.layout.Template:
    # Made once: plotly checks every entry of a template that comes as a dictionary, which takes longer than drawing.
    return go.layout.Template(template(dark=False))


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns the rows of a table as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def finish(figure: go.Figure, title: str, caption: str, height: int) -> go.Figure:
    """Gives a figure the common looks.

    Args:
        figure: what was drawn.
        title: plain text.
        caption: plain text: n, what the interval is, how to read it. Title and caption go to ``layout.meta``, as the
            text of a page wraps at any width and that of a figure does not.
        height: in pixels; the width is the page's.
    """
    figure.layout.template = _light()
    figure.update_layout(
        meta={"title": title, "caption": caption},
        height=height,
        autosize=True,
        margin={"l": 8, "r": 12, "t": 12, "b": 8},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "xanchor": "left"},
    )
    return figure
