"""An address in, the whole page that it names out: head, tabs, the chosen view, or what is wrong in its place."""

import time
from types import ModuleType
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from dashboards import parts
from dashboards.address import Address
from dashboards.blocks import Block, blocks
from dashboards.pages import ablation, data, exams, searching, trial
from dashboards.pages import overview as all_experiments
from dashboards.source import Read, Source
from dashboards.view import View
from siamray.errors import UserError

_TITLES = {"experiment": "Results", "exams": "Exams", "data": "Data"}


def page(source: Source, address: Address, *, dark: bool) -> tuple[list[Block], str]:
    """Makes the page of an address.

    Args:
        source: the results.
        address: what is asked for.
        dark: whether figures are drawn for a dark page.

    Returns:
        The blocks of the page and its title.
    """
    made, title = _page(source, address, dark)
    return made if isinstance(made[0], Block) else blocks(made), title


def _page(source: Source, address: Address, dark: bool) -> tuple[list[Any], str]:
    try:
        if address.page == "overview":
            reads = [source.read(name) for name in source.names()]
            shown = all_experiments.overview(reads, str(source.place), source.problem)
            return shown, "Experiments, siamray"
        if address.page == "unknown":
            return _nothing("There is no such page."), "Not found, siamray"
        read = source.read(address.experiment)
    except UserError as error:
        return _nothing(" ".join(str(error).split())), "Not found, siamray"
    if read.status is None:
        return [*_head(read, address), parts.problem(read.problem)], f"{read.name}, siamray"
    view = View(read, address, dark)
    key = ("page", address.url, dark, read.problem)
    made = read.memo(key, lambda: blocks([*_head(read, address), *body(view)]))
    return made, f"{title_of(view)}, siamray"


def module_of(view: View) -> ModuleType:
    """The module that makes a page: it has VIEWS, views() and controls()."""
    if view.address.page == "experiment":
        return searching if view.is_search else ablation
    return {"trial": trial, "exams": exams, "data": data}[view.address.page]


def title_of(view: View) -> str:
    """The title of a page."""
    return " ".join(filter(None, (view.read.name, view.address.page.replace("experiment", ""), view.address.trial)))


def body(view: View) -> parts.Parts:
    """Makes the chosen view of a page, below its controls."""
    module = module_of(view)
    if (missing := module.missing(view)) is not None:
        return [missing]
    titles = module.views(view)
    chosen = view.chosen("view", list(titles))
    chooser = module.controls(view)
    tabs = [parts.tabs(view, titles, chosen, "views of this page")] if len(titles) > 1 else []
    choosers = [html.Div(chooser, className="choices")] if chooser is not None else []
    shown: list[Any] = module.VIEWS[chosen][1](view)
    if not shown:
        shown = [parts.empty("There is nothing to show here yet.")]
    terms = html.Div(parts.folded("Terms", parts.definitions(parts.TERMS.items())), className="terms")
    return [*module.intro(view), *tabs, *choosers, html.Div(shown, className="body"), terms]


def _head(read: Read, address: Address) -> parts.Parts:
    where = [dcc.Link("Experiments", href="/"), html.Span(" / ", **parts.HIDDEN)]
    if address.page == "experiment":
        where.append(html.Span(read.name))
    else:
        where.append(dcc.Link(read.name, href=Address("experiment", read.name).url))
        where += [html.Span(" / ", **parts.HIDDEN), html.Span(address.trial or _TITLES[address.page])]
    links = [
        dcc.Link(
            title, href=Address(page, read.name).url, className="place" + (" chosen" if page == address.page else "")
        )
        for page, title in _TITLES.items()
    ]
    made: list[Component] = [html.Nav(where, className="crumbs", **parts.aria("where this page is"))]
    if read.status is not None:
        made.append(html.Nav(links, className="pages", **parts.aria("pages of this experiment")))
        if read.problem:
            at = time.strftime("%H:%M:%S", time.localtime(read.at))
            made.append(parts.problem(f"What is shown is old, read at {at}: {read.problem}"))
    return made


def _nothing(words: str) -> parts.Parts:
    return [
        html.H1("Not found"),
        parts.problem(words),
        html.P(dcc.Link("All experiments", href="/")),
    ]
