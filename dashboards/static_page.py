"""Dash components in, the same as plain HTML out, for a file that stands alone: every text is shown as text."""

import json
from collections.abc import Callable
from html import escape
from typing import Any

from dash import dcc
from dash.development.base_component import Component
from plotly.utils import PlotlyJSONEncoder

from dashboards import page

Link = Callable[[str], str]
"""URL of the app -> where the same is in the file; "" where it is not in it."""

_NAMES = {"className": "class", "htmlFor": "for", "colSpan": "colspan", "tabIndex": "tabindex"}
_KEPT = {"id", "role", "title", "src", "alt", "open", "scope", "href", "type", *_NAMES}
_VOID = {"br", "img", "hr", "input"}


def render(part: Any, link: Link, prefix: str) -> str:
    """Writes a component and all that is in it as HTML.

    Args:
        part: a component, a text, a number, a list of those, or None.
        link: where links lead.
        prefix: put before the ids of figures, so that they are unique in the file.

    Raises:
        TypeError: a component that has no plain form.
    """
    if part is None:
        return ""
    if isinstance(part, list | tuple):
        return "".join(render(one, link, prefix) for one in part)
    if not isinstance(part, Component):
        return escape(str(part), quote=True)
    if "live-only" in str(getattr(part, "className", "") or ""):
        return ""
    if isinstance(part, dcc.Graph):
        return _figure(part, prefix)
    inner = render(getattr(part, "children", None), link, prefix)
    if isinstance(part, dcc.Link):
        target = link(str(getattr(part, "href", "")))
        return f'<a href="{page.text(target)}">{inner}</a>' if target else f"<span>{inner}</span>"
    if not type(part).__module__.startswith("dash.html"):
        raise TypeError(f"{type(part).__name__} cannot stand in a file")
    tag = type(part).__name__.lower()
    start = f"<{tag}{_attributes(part)}>"
    return start if tag in _VOID else f"{start}{inner}</{tag}>"


def _attributes(part: Component) -> str:
    found: dict[str, Any] = part.to_plotly_json()["props"]
    written = []
    for name, value in found.items():
        if name == "style":
            value = "; ".join(f"{_dashed(key)}: {one}" for key, one in value.items())
        elif name not in _KEPT and not name.startswith(("aria-", "data-")):
            continue
        if value is None or value is False or isinstance(value, dict | list):
            continue
        written.append(f' {_NAMES.get(name, name)}="{page.text("" if value is True else value)}"')
    return "".join(written)


def _figure(part: dcc.Graph, prefix: str) -> str:
    record = json.loads(json.dumps(part.figure, cls=PlotlyJSONEncoder))  # type: ignore[attr-defined]
    # The file holds the template once, for all figures.
    record["layout"].pop("template", None)
    name = f"{prefix}-{part.id}"  # type: ignore[attr-defined]
    height = part.style["height"]  # type: ignore[attr-defined]
    return (
        f'<div class="plot" data-figure="{page.text(name)}" style="height:{page.text(height)}"></div>'
        f"{page.embedded_json(name, record)}"
    )


def _dashed(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)
