"""Writes the pages of the dashboards as one file to mail or archive, and their figures as files for a paper.

python -m dashboards.export results=results out=review.html
python -m dashboards.export results=results/soft_labels figures=figures format=pdf
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from dash import dcc
from dash.development.base_component import Component

from dashboards import page, parts
from dashboards.address import Address, read_address
from dashboards.figures import style
from dashboards.options import ExportOptions, parse
from dashboards.pages import frame
from dashboards.pages.overview import overview
from dashboards.source import Read, Source
from dashboards.static_page import render
from dashboards.view import View
from siamray.errors import UserError, run_command
from siamray.files import writing_to
from siamray.sweeps.results import write_bytes

COMMAND = "python -m dashboards.export"

MOST_TRIALS = 16
"""Trials whose pages are in the file: the first finished one of every variant, so far."""

_FOOT = "<footer>Made by siamray, research software: not a medical device, not for diagnosis.</footer>"


@dataclass(frozen=True)
class Page:
    """A page of the file: where it stands in the app, its title and its parts."""

    address: Address
    title: str
    made: list[Component | None]

    @property
    def anchor(self) -> str:
        """Its name in the file."""
        return parts.slug(self.address.path.strip("/") or "overview")


def main(words: list[str]) -> None:
    """Writes what the command line asks for, and prints where.

    Args:
        words: the command line.

    Raises:
        UserError: an option is wrong, there are no results, or a file cannot be written.
    """
    asked = parse(ExportOptions, words, COMMAND)
    if not asked.out and not asked.figures:
        raise UserError(f"nothing to write: name out=FILE.html or figures=FOLDER; {COMMAND} --help lists the options")
    if asked.out and not asked.out.endswith(".html"):
        raise UserError(f"out={asked.out}: name a file that ends in .html")
    source = Source(asked.results)
    reads = [source.read(name) for name in source.names()]
    if not reads:
        raise UserError(f"results={asked.results}: no experiment in it; run a sweep first, or name its results=DIR")
    if source.single and reads[0].problem:
        raise UserError(reads[0].problem)
    made = list(pages(reads, str(source.place)))
    if asked.out:
        write_bytes(Path(asked.out), document(made).encode("utf-8", "replace"))
        print(asked.out)
    if asked.figures:
        for path in write_figures(made, Path(asked.figures), asked.format):
            print(path)


def pages(reads: list[Read], place: str) -> Iterator[Page]:
    """Makes the pages that the app shows, every view of them in turn.

    Args:
        reads: the experiments.
        place: where they lie.
    """
    yield Page(Address(), "Experiments", [*overview(reads, place)])
    for read in reads:
        if read.status is None:
            continue
        yield _page(View(read, Address("experiment", read.name), live=False))
        yield _page(View(read, Address("data", read.name), live=False))
        yield _page(View(read, Address("exams", read.name), live=False))
        for trial_id in _shown_trials(read):
            yield _page(View(read, Address("trial", read.name, trial_id), live=False))


def document(made: list[Page]) -> str:
    """Puts pages into one file that needs no network.

    Args:
        made: from pages().
    """
    anchors = {one.address.path: one.anchor for one in made}

    def link(url: str) -> str:
        path, _, query = url.partition("?")
        anchor = anchors.get(read_address(path, query).path, "")
        return f"#{anchor}" if anchor else ""

    items = "".join(f'<li><a href="#{page.text(one.anchor)}">{page.text(one.title)}</a></li>' for one in made)
    contents = f'<nav aria-label="contents"><p class="eyebrow">contents</p><ul class="contents">{items}</ul></nav>'
    trials = page.note(
        f"Of every experiment the pages of up to {MOST_TRIALS} trials are in this file, the first finished one of each "
        "variant; all others are in its tables, and in the app (python -m dashboards)."
    )
    articles = [f'<article id="{page.text(one.anchor)}">{render(one.made, link, one.anchor)}</article>' for one in made]
    return page.page(
        "siamray, results",
        contents,
        trials,
        *articles,
        styles=("report.css", "app.css"),
        script="export.js",
        foot=_FOOT,
    )


def write_figures(made: list[Page], folder: Path, kind: str) -> list[Path]:
    """Writes every figure as a file of its own, and their captions beside them.

    Args:
        made: from pages().
        folder: to write to.
        kind: svg, pdf or png.

    Returns:
        The files written.

    Raises:
        UserError: the package or the browser that draws them is missing, or the folder cannot be written to.
    """
    try:
        import kaleido
    except ImportError:
        raise UserError("figures=: needs the package kaleido; pip install 'siamray[figures]'") from None
    found = {}
    captions = []
    for one in made:
        for graph in _graphs(one.made):
            name = f"{one.anchor}-{str(graph.id).removeprefix('figure-')}"
            figure = go.Figure(graph.figure)
            meta = figure.layout.meta
            figure.update_layout(template=style.template(dark=False), paper_bgcolor="white", plot_bgcolor="white")
            found[folder / f"{name}.{kind}"] = figure
            captions.append(f"{name}.{kind}: {meta['title']}. {meta['caption']}\n")
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        kaleido.write_fig_from_object_sync(
            [
                {
                    "fig": figure,
                    "path": str(path),
                    "opts": {"format": kind, "width": 900, "scale": 2 if kind == "png" else 1},
                }
                for path, figure in found.items()
            ],
            cancel_on_error=True,
        )
    except Exception as error:
        if type(error).__name__ not in ("ChromeNotFoundError", "BrowserFailedError", "BrowserDepsError"):
            raise
        raise UserError(
            "figures=: no Chrome or Chromium was found to draw them; install one, or name it in BROWSER_PATH"
        ) from None
    write_bytes(folder / "captions.txt", "".join(captions).encode("utf-8", "replace"))
    return [*found, folder / "captions.txt"]


def _page(view: View) -> Page:
    module = frame.module_of(view)
    title = frame.title_of(view)
    if (missing := module.missing(view)) is not None:
        return Page(view.address, title, [missing])
    made: list[Any] = [*module.intro(view)]
    for word in module.views(view):
        made += module.VIEWS[word][1](view)
    return Page(view.address, title, made)


def _shown_trials(read: Read) -> list[str]:
    assert read.status is not None
    finished = read.status.finished.drop_duplicates("variant")
    return [str(trial_id) for trial_id in finished["trial_id"].head(MOST_TRIALS)]


def _graphs(made: list[Component | None]) -> Iterator[Any]:
    for part in made:
        for inner in parts.inside(part) if part is not None else ():
            if isinstance(inner, dcc.Graph):
                yield inner


if __name__ == "__main__":
    run_command(main)
