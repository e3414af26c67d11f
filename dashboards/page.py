"""Texts, tables and figures in, one self-contained HTML page out."""

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from dashboards.figures import style

_HERE = Path(__file__).parent


def text(words: object) -> str:
    """Escapes any text: it is shown as written, in an element and in an attribute."""
    return html.escape(" ".join(str(words).split()), quote=True)


def code(words: object) -> str:
    """Shows a text as code."""
    return f"<code>{text(words)}</code>"


def section(title: str, *parts: str) -> str:
    """Puts parts, already HTML, under a heading."""
    return f"<section><h2>{text(title)}</h2>{''.join(parts)}</section>"


def note(words: str) -> str:
    """Shows a remark."""
    return f'<p class="note">{text(words)}</p>'


def key(color: str) -> str:
    """Shows a variant's colour."""
    return f'<span class="key" style="background:{text(color)}"></span>'


def legend(names: Iterable[str], looks: dict[str, style.Look]) -> str:
    """Shows the colours of the variants once for many figures."""
    entries = (f"<span>{key(style.look_of(name, looks).color)}{text(name)}</span>" for name in names)
    return f'<div class="legend">{"".join(entries)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[int] = ()) -> str:
    """Shows a table that scrolls sideways where the page is narrow.

    Args:
        head: plain texts.
        rows: cells, already HTML; a row of one cell is a heading over the rows below it.
        words: numbers of the columns that hold words, not numbers.
    """
    kind = ['class="words"' if i in words else "" for i in range(len(head))]
    lines = [f"<tr>{''.join(f'<th {kind[i]}>{text(cell)}</th>' for i, cell in enumerate(head))}</tr>"]
    for row in rows:
        if len(row) == 1:
            lines.append(f'<tr class="group"><td>{row[0]}</td><td colspan="{len(head) - 1}"></td></tr>')
        else:
            lines.append(f"<tr>{''.join(f'<td {kind[i]}>{cell}</td>' for i, cell in enumerate(row))}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def definitions(entries: Iterable[tuple[str, str]]) -> str:
    """Shows terms, plain text, with their values, already HTML."""
    return f"<dl>{''.join(f'<dt>{text(term)}</dt><dd>{value}</dd>' for term, value in entries)}</dl>"


def folded(summary: str, *parts: str) -> str:
    """Hides parts, already HTML, until they are asked for."""
    return f"<details><summary>{text(summary)}</summary>{''.join(parts)}</details>"


def figure(drawn: go.Figure, name: str, *, titled: bool = True) -> str:
    """Puts a figure into the page.

    Args:
        drawn: a figure of dashboards.figures, with title and caption in ``layout.meta``.
        name: unique in the page, of letters, digits and dashes.
        titled: show the title above it.
    """
    meta = drawn.layout.meta
    heading = f"<h3>{text(meta['title'])}</h3>" if titled else ""
    caption = f"<figcaption>{text(meta['caption'])}</figcaption>" if meta["caption"] else ""
    # The page holds the template once, for all figures.
    record = {key: value for key, value in json.loads(drawn.to_json()).items() if key in ("data", "layout", "frames")}
    record["layout"].pop("template", None)
    height = int(drawn.layout.height)
    return (
        f'<figure>{heading}<div class="plot" data-figure="{text(name)}" style="height:{height}px"></div>{caption}'
        f"{embedded_json(name, record)}</figure>"
    )


def grid(figures: Iterable[go.Figure], name: str) -> str:
    """Puts small figures side by side, as many as the page is wide."""
    return f'<div class="grid">{"".join(figure(drawn, f"{name}-{i}") for i, drawn in enumerate(figures))}</div>'


def page(
    title: str, *parts: str, styles: Sequence[str] = ("report.css",), script: str = "report.js", foot: str = ""
) -> str:
    """Makes the page, with all it needs inside: it asks no network for anything.

    Args:
        title: plain text.
        parts: HTML.
        styles: the files of its looks, the later ones above the earlier ones.
        script: the file that draws its figures.
        foot: HTML below the parts.
    """
    templates = {"light": style.template(dark=False), "dark": style.template(dark=True)}
    css = "".join((_HERE / name).read_text(encoding="utf-8") for name in styles)
    drawing = (_HERE / script).read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{css}</style></head><body><main>{''.join(parts)}</main>{foot}"
        "<noscript>The figures are drawn by JavaScript, which is switched off.</noscript>"
        f"{embedded_json('templates', templates)}<script>{get_plotlyjs()}</script>"
        f"<script>{drawing}</script></body></html>\n"
    )


def embedded_json(name: str, record: object) -> str:
    """Puts a record into the page, to be read by its script."""
    # "<" is written as an escape, as a text "</script>" would end the element.
    words = json.dumps(record, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{text(name)}">{words}</script>'
