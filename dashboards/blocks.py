"""The parts of a page go in; blocks come out that a browser draws anew only where they have changed.

So a table keeps its place, a figure its zoom and a control the focus while new trials come in.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dash_ag_grid as dag
from dash import html
from dash.development.base_component import Component
from plotly.utils import PlotlyJSONEncoder

from dashboards import parts

KIND = "block"


@dataclass(frozen=True)
class Block:
    """A part of a page.

    Attributes:
        key: unique in the page, and the same for the same part of the same page.
        part: what it shows.
        digest: changes whenever that does.
    """

    key: str
    part: Component
    digest: str

    @property
    def component(self) -> Component:
        """The part in its own element, which can be found again."""
        return html.Div(self.part, id={"type": KIND, "key": self.key}, className=KIND)


def blocks(made: Sequence[Component | None]) -> list[Block]:
    """Divides a page; the sections of its body are blocks of their own.

    Args:
        made: its parts.
    """
    flat: list[Component] = []
    for part in made:
        if part is None:
            continue
        inner: Any = getattr(part, "children", None)
        whole = getattr(part, "className", "") == "body" and isinstance(inner, list)
        flat += [one for one in inner if one is not None] if whole else [part]
    return [Block(f"{i} {_named(part)}", part, _digest(part)) for i, part in enumerate(flat)]


def _named(part: Component) -> str:
    name = getattr(part, "id", "")
    return f"{type(part).__name__} {name if isinstance(name, str) else json.dumps(name, sort_keys=True)}"


def _digest(part: Component) -> str:
    """Sums up a part; what is chosen, and how a table is sorted and filtered, is known to the browser already."""
    record: Any = json.loads(json.dumps(part, cls=PlotlyJSONEncoder))
    if parts.choices_of([part]):
        _without_values(record)
    for inner in parts.inside(part):
        if isinstance(inner, dag.AgGrid):
            columns = [column["field"] for column in inner.columnDefs]
            record = [_named(part), columns]
    return hashlib.sha1(json.dumps(record, sort_keys=True).encode(), usedforsecurity=False).hexdigest()[:16]


def _without_values(record: Any) -> None:
    """Takes the values out of the controls of a record."""
    if isinstance(record, dict):
        name = record.get("id")
        if isinstance(name, dict) and name.get("type") == "choice":
            record.pop("value", None)
    for inner in record.values() if isinstance(record, dict) else record if isinstance(record, list) else ():
        _without_values(inner)


def changes(
    shown: Sequence[Any], known: dict[str, str], chosen: dict[str, str], made: Sequence[Block]
) -> list[Component | None] | None:
    """Says which blocks of a page must be drawn anew.

    Args:
        shown: ids of the blocks that a browser shows, in its order.
        known: key -> digest of what it shows.
        chosen: name of a control -> what a browser shows as chosen.
        made: the page as it is now.

    Returns:
        Of every shown block its new part, None where it stays; None where the page has other blocks now.
    """
    now = {block.key: block for block in made}
    keys = [name["key"] for name in shown]
    if len(keys) != len(now) or set(keys) != set(now):
        return None
    return [
        None if known.get(key) == now[key].digest and _agree(now[key].part, chosen) else now[key].part for key in keys
    ]


def _agree(part: Component, chosen: dict[str, str]) -> bool:
    """Whether the controls of a part show what is chosen; after going back they do not."""
    return all(chosen.get(name) == value for name, value in parts.choices_of([part]).items())
