"""Texts, tables and figures in, the parts that all pages are made of out, as Dash components."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from dash import dcc, html
from dash.development.base_component import Component

from dashboards.figures import style
from dashboards.view import View
from siamray.errors import UserError
from siamray.sweeps.results import Unreadable

Parts = list[Component]

# Attributes of elements: what a screen reader passes over, and where a click on a point opens its trial.
HIDDEN: dict[str, Any] = {"aria-hidden": "true"}
LINKED: dict[str, Any] = {"data-trials": "1"}

MOST_ROWS = 200
"""Rows of the table below a figure."""

MOST_COLUMNS = 12
"""Columns of the table of trials in a file that stands alone."""

CONFIG: dict[str, Any] = {
    "responsive": True,
    "displaylogo": False,
    "displayModeBar": "hover",
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
}
_SHOWN = {True: "yes", False: "no"}

TERMS = {
    "Holm p": "p value corrected for all comparisons of its family by Holm's method",
    "interval": "range of values that agree with the data; what it is exactly stands below each figure",
    "control": "what the method must beat: the same evaluation of something that learnt nothing",
    "fold": "a share of the women that is held out and tested in turn",
    "seed": "start of the random numbers: another seed is another run of the same variant",
    "soft label": "probability that the two sides of a pair differ, by the mixture fitted to all distances",
    "effective rank": "number of dimensions that the embeddings really use; near 1 they have collapsed",
    "AUC": "chance that an abnormal sample scores above a normal one; 0.5 is chance, 1 is perfect",
    "FROC": "lesions found against false alarms per image, as the threshold is lowered",
    "pruned": "stopped early by the search, as it did worse than others at the same epoch",
    "Pareto front": "settings that no other one beats in one objective without losing in another",
}
"""Terms that are explained where they stand."""


def term(word: str, shown: str | None = None) -> Component:
    """Shows a term with its explanation, on hover and on focus."""
    return html.Abbr(shown or word, title=TERMS[word], tabIndex="0")


def aria(label: str) -> dict[str, Any]:
    """Names an element for a screen reader."""
    return {"aria-label": label}


def section(title: str, *parts: Any, name: str = "") -> Component:
    """Puts parts under a heading."""
    return html.Section([html.H2(title), *(part for part in parts if part is not None)], id=name or slug(title))


def attempted(title: str, make: Callable[[], Any]) -> Component | None:
    """Makes a section; what cannot be read is told in its place, and hurts nothing else.

    Args:
        title: its heading.
        make: gives its parts, a list of them, or None where there is nothing to show.
    """
    try:
        made = make()
    except (UserError, Unreadable, FileNotFoundError) as error:
        made = problem(f"This cannot be shown: {' '.join(str(error).split())}")
    except Exception:
        logging.getLogger("dashboards").exception("section %r could not be drawn", title)
        made = problem("This could not be drawn; where the dashboards were started it says why.")
    if made is None or made == []:
        return None
    return section(title, *(made if isinstance(made, list) else [made]))


def note(words: str) -> Component:
    """Shows a remark."""
    return html.P(words, className="note")


def empty(words: str) -> Component:
    """Says that there is nothing yet, and what will be here."""
    return html.P(words, className="empty-state", role="status")


def problem(words: str) -> Component:
    """Says that something is wrong."""
    return html.P(words, className="problem", role="alert")


def slug(words: str) -> str:
    """Makes an id of a text."""
    return "".join(letter if letter.isalnum() else "-" for letter in words.lower())


def key(color: str) -> Component:
    """Shows a variant's colour."""
    return html.Span(className="key", style={"background": color})


def legend(names: Iterable[str], looks: dict[str, style.Look]) -> Component:
    """Shows the colours of the variants once for many figures."""
    return html.Div([html.Span([key(style.look_of(name, looks).color), name]) for name in names], className="legend")


def table(
    head: Sequence[Any], rows: Iterable[Sequence[Any]], words: Sequence[int] = (), label: str = "table"
) -> Component:
    """Shows a table that scrolls sideways where the page is narrow.

    Args:
        head: of the columns.
        rows: cells; a row of one cell is a heading over the rows below it.
        words: numbers of the columns that hold words, not numbers.
        label: what it is, for a screen reader.
    """
    kind = ["words" if i in words else "" for i in range(len(head))]
    lines = [html.Tr([html.Th(cell, className=kind[i], scope="col") for i, cell in enumerate(head)])]
    for row in rows:
        if len(row) == 1:
            lines.append(html.Tr([html.Td(row[0], colSpan=len(head))], className="group"))
        else:
            lines.append(html.Tr([html.Td(cell, className=kind[i]) for i, cell in enumerate(row)]))
    return html.Div(
        html.Table([html.Thead(lines[0]), html.Tbody(lines[1:])]),
        className="scroll", tabIndex="0", role="region", **aria(label),
    )  # fmt: skip


def definitions(entries: Iterable[tuple[str, Any]]) -> Component:
    """Shows terms with their values."""
    return html.Dl([part for name, value in entries for part in (html.Dt(name), html.Dd(value))])


def folded(summary: str, *parts: Any, opened: bool = False) -> Component:
    """Hides parts until they are asked for."""
    return html.Details([html.Summary(summary), *parts], open=opened)


def as_table(frame: pd.DataFrame, label: str, summary: str = "The numbers", rest: str = "") -> Component:
    """Shows numbers as text, to be read and copied: the first MOST_ROWS of them, which is said before they are opened.

    Args:
        frame: the numbers.
        label: what they are, for a screen reader.
        summary: what they are, for whoever opens them.
        rest: where rows beyond the first ones are found.
    """
    shown = frame.head(MOST_ROWS)
    rows = [[_cell(value) for value in row.values()] for row in style.records(shown)]
    cut = f"the first {MOST_ROWS} of {len(frame):,} rows" if len(frame) > MOST_ROWS else ""
    words = [i for i, name in enumerate(frame) if not pd.api.types.is_numeric_dtype(frame[name])]
    made = table([str(name) for name in frame], rows, words, f"{label}: the numbers")
    where = f"; {rest}" if rest else ""
    return folded(f"{summary}: {cut}" if cut else summary, *([note(f"Here are {cut}{where}.")] if cut else []), made)


def file_table(frame: pd.DataFrame, record: str) -> Component:
    """Shows the trials in a file that stands alone: some columns and rows, and where all of them are.

    Args:
        frame: the trials.
        record: the table of the results that has all of it.
    """
    left = frame.shape[1] - MOST_COLUMNS
    columns = f"Of {frame.shape[1]} columns the first {MOST_COLUMNS} are here; " if left > 0 else ""
    told = [note(f"{columns}{record} in the results and the app (python -m dashboards) have all of them.")]
    shown = as_table(frame.iloc[:, :MOST_COLUMNS], "trials", style.count(len(frame), "trial"), f"{record} has all")
    return html.Div([*(told if left > 0 else []), shown])


def figure(
    view: View, drawn: go.Figure, name: str, numbers: pd.DataFrame | None = None, *, titled: bool = True
) -> Component:
    """Puts a figure into a page, with its caption and its numbers as text.

    Args:
        view: what is shown.
        drawn: a figure of dashboards.figures, with title and caption in ``layout.meta``.
        name: unique in the page, of letters, digits and dashes.
        numbers: what the figure shows.
        titled: show the title above it.
    """
    meta = drawn.layout.meta
    record = json.loads(drawn.to_json())
    record["layout"]["template"] = style.template(dark=view.dark)
    # What was zoomed stays as it is while new trials come in.
    record["layout"]["uirevision"] = f"{view.address.url} {name}"
    config: Any = {**CONFIG, "toImageButtonOptions": {"format": "svg", "filename": f"{view.read.name}-{name}"}}
    height = f"{int(drawn.layout.height)}px"
    graph = dcc.Graph(id=f"figure-{name}", figure=record, style={"height": height}, className="plot", config=config)
    parts: list[Any] = [html.H3(meta["title"])] if titled else []
    parts.append(html.Div(graph, role="group", **aria(f"Figure: {meta['title']}. {meta['caption']}")))
    if meta["caption"]:
        parts.append(html.Figcaption(meta["caption"]))
    if numbers is not None and len(numbers):
        parts.append(as_table(numbers, meta["title"]))
    return html.Figure(parts)


def grid(view: View, figures: Iterable[go.Figure], name: str) -> Component:
    """Puts small figures side by side, as many as the page is wide."""
    return html.Div([figure(view, drawn, f"{name}-{i}") for i, drawn in enumerate(figures)], className="grid")


def choice(label: str, name: str, options: Mapping[str, str], value: str) -> Component:
    """Lets a reader choose one of some words; what is chosen stands in the address.

    Args:
        label: what is chosen.
        name: of the choice in the address.
        options: word -> how it is shown.
        value: what is chosen now.
    """
    listed: list[Any] = [{"label": shown, "value": word} for word, shown in options.items()]
    return html.Div(
        [
            html.Label(label, htmlFor=f"choice-{name}"),
            dcc.Dropdown(
                listed, value, id={"type": "choice", "name": name}, clearable=False, searchable=len(options) > 8
            ),
        ],
        className="choice live-only",
    )


def tabs(view: View, titles: Mapping[str, str], chosen: str, label: str) -> Component:
    """Shows the views of a page as links."""
    links = [
        dcc.Link(
            title, href=view.at(view=word), className="place" + (" chosen" if word == chosen else ""),
            title="shown now" if word == chosen else title,
        )
        for word, title in titles.items()
    ]  # fmt: skip
    return html.Nav(links, className="tabs live-only", **aria(label))


def inside(part: Component) -> Iterator[Component]:
    """Yields a part and all that is in it."""
    yield part
    yield from part._traverse()


def choices_of(made: Iterable[Component]) -> dict[str, str]:
    """Finds what can be chosen on a page, and what is chosen as it is drawn."""
    found = {}
    for part in made:
        for inner in inside(part):
            name = getattr(inner, "id", None)
            if isinstance(name, dict) and name.get("type") == "choice":
                found[str(name["name"])] = str(getattr(inner, "value", ""))
    return found


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return _SHOWN[value]
    if value is None or (isinstance(value, float) and value != value) or value is pd.NA:
        return style.NONE
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", style.MINUS)
    return str(value)
