"""Results go in; a web server that shows them, live and read-only, comes out."""

import json
import logging
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import dash
from dash import ALL, ClientsideFunction, Input, Output, State, ctx, dcc, html, no_update

from dashboards import parts, pictures, trial_table
from dashboards.address import Address, read_address, search
from dashboards.blocks import KIND, changes
from dashboards.brush import brush_words
from dashboards.guard import guard
from dashboards.pages import described, frame, searching
from dashboards.source import Source
from dashboards.view import View

LIVE_SECONDS = 2
"""How often a page asks whether something is new."""

_HERE = Path(__file__).parent
_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
{%metas%}<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<title>{%title%}</title>{%css%}<style>STYLES</style>
</head>
<body>
<a class="skip" href="#page">Skip to the page</a>
{%app_entry%}
<noscript>These pages are made by JavaScript, which is switched off; dashboards.export writes a file instead.</noscript>
<footer>siamray is research software: not a medical device, not for diagnosis.
{%config%}{%scripts%}{%renderer%}</footer>
</body>
</html>"""


def create_app(source: Source, token: str | None = None) -> dash.Dash:
    """Makes the app.

    Args:
        source: the results.
        token: what the link must hold; None where the server listens on this machine alone.
    """
    app = dash.Dash(
        __name__, title="siamray", update_title="", assets_folder=str(_HERE / "assets"), compress=False,
        suppress_callback_exceptions=True, serve_locally=True, include_assets_files=True,
    )  # fmt: skip
    app.logger.setLevel(logging.WARNING)
    styles = "".join((_HERE / name).read_text(encoding="utf-8") for name in ("report.css", "app.css"))
    app.index_string = _FRAME.replace("STYLES", styles)
    app.layout = _shell()
    guard(app.server, token)
    pictures.serve(app.server, source)
    _on_theme(app)
    _on_address(app, source)
    _on_time(app, source)
    _on_table(app, source)
    _on_brush(app)
    return app


def _shell() -> html.Div:
    return html.Div(
        [
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Store(id="dark"),
            dcc.Store(id="stamp"),
            dcc.Store(id="drawn"),
            dcc.Store(id="title"),
            dcc.Interval(id="clock", interval=LIVE_SECONDS * 1000),
            html.Header(
                [
                    dcc.Link("siamray", href="/", className="brand", title="all experiments"),
                    html.Span(id="fresh", className="fresh", role="status"),
                    html.Button("Dark", id="theme", className="theme", title="switch between light and dark"),
                ],
                className="top",
            ),
            html.Main(
                [html.Div(parts.note("Reading the results ..."), id="page", tabIndex="-1")],
            ),
        ]
    )


def _on_theme(app: dash.Dash) -> None:
    app.clientside_callback(
        ClientsideFunction("siamray", "theme"),
        Output("dark", "data"),
        Output("theme", "children"),
        Input("theme", "n_clicks"),
    )


def _on_address(app: dash.Dash, source: Source) -> None:
    @app.callback(
        Output("page", "children"),
        Output({"type": KIND, "key": ALL}, "children"),
        Output("drawn", "data"),
        Output("title", "data"),
        Input("url", "pathname"),
        Input("url", "search"),
        Input("stamp", "data"),
        Input("dark", "data"),
        State({"type": KIND, "key": ALL}, "id"),
        State({"type": "choice", "name": ALL}, "value"),
        State({"type": "choice", "name": ALL}, "id"),
        State("drawn", "data"),
    )
    def show(
        path: str | None,
        query: str | None,
        _: str | None,
        dark: bool | None,
        shown: list[Any],
        values: list[Any],
        ids: list[dict[str, str]],
        drawn: dict[str, Any] | None,
    ) -> tuple[Any, Any, Any, Any]:
        kept = [no_update] * len(shown)
        if path is None or dark is None:
            return no_update, kept, no_update, no_update
        made, title = frame.page(source, read_address(path, query or ""), dark=dark)
        now = {
            "path": path,
            "digests": {block.key: block.digest for block in made},
            "choices": parts.choices_of(block.part for block in made),
        }
        known = drawn if drawn and drawn["path"] == path else {"digests": {}}
        chosen = {name["name"]: str(value) for name, value in zip(ids, values, strict=True)}
        new = changes(shown, known["digests"], chosen, made)
        if new is None or known is not drawn:
            return [block.component for block in made], kept, now, title
        return no_update, [no_update if part is None else part for part in new], now, title

    app.clientside_callback(ClientsideFunction("siamray", "title"), Input("title", "data"))

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input({"type": "choice", "name": ALL}, "value"),
        State({"type": "choice", "name": ALL}, "id"),
        State("drawn", "data"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def choose(values: list[Any], ids: list[dict[str, str]], drawn: dict[str, Any] | None, query: str | None) -> Any:
        # Only what a reader changed: that a page was drawn is no choice.
        chosen = {known["name"]: str(value) for value, known in zip(values, ids, strict=True) if value is not None}
        known = (drawn or {}).get("choices", {})
        changed = {name: value for name, value in chosen.items() if value != known.get(name)}
        if not changed:
            return no_update
        return search({**dict(parse_qsl((query or "").lstrip("?"))), **changed})


def _stamp(source: Source, address: Address) -> str:
    """What the files that a page shows look like."""
    if address.experiment and address.experiment in source.names():
        return source.read(address.experiment).stamp
    return source.stamp()


def _on_time(app: dash.Dash, source: Source) -> None:
    @app.callback(
        Output("stamp", "data"),
        Output("fresh", "children"),
        Input("clock", "n_intervals"),
        State("url", "pathname"),
        State("stamp", "data"),
        prevent_initial_call=True,
    )
    def look(_: int, path: str | None, known: str | None) -> tuple[Any, Any]:
        address = read_address(path or "/", "")
        try:
            now = _stamp(source, address)
        except Exception:
            logging.getLogger("dashboards").exception("the results could not be looked at")
            return no_update, "cannot be read now"
        words = f"live, {time.strftime('%H:%M:%S')}"
        return (no_update if now == known else now), words

    app.clientside_callback(ClientsideFunction("siamray", "refresh"), Input("stamp", "data"), Input("url", "search"))


def _view(source: Source, path: str | None, query: str | None) -> View | None:
    address = read_address(path or "/", query or "")
    if address.experiment not in source.names():
        return None
    read = source.read(address.experiment)
    return None if read.status is None else View(read, address)


def _on_table(app: dash.Dash, source: Source) -> None:
    @app.callback(
        Output("trials", "getRowsResponse"),
        Output("url", "search", allow_duplicate=True),
        Input("trials", "getRowsRequest"),
        State("url", "pathname"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def rows(request: dict[str, Any] | None, path: str | None, query: str | None) -> tuple[Any, Any]:
        view = _view(source, path, query)
        # A table that asks once more while its page is left must not write into the address of the next one.
        if not request or view is None or view.address.page != "experiment":
            return no_update, no_update
        made = searching.table_frame(view) if view.is_search else described.trial_frame(view)
        if view.is_search:
            made = searching.brushed(view, made)
        answered = trial_table.rows(made, request)
        sort = "".join(f"{part['colId']}:{part['sort']}" for part in (request.get("sortModel") or [])[:1])
        model = request.get("filterModel") or {}
        chosen = {"sort": sort, "filter": json.dumps(model, separators=(",", ":")) if model else ""}
        state = view.address.state
        same = all(state.get(name, "") == value for name, value in chosen.items())
        return answered, no_update if same else search({**state, **chosen})


def _on_brush(app: dash.Dash) -> None:
    """What is brushed on the parallel coordinates goes into the address, which filters the table."""

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("figure-parallel", "restyleData"),
        State("figure-parallel", "figure"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def brush(_: Any, figure: dict[str, Any] | None, query: str | None) -> Any:
        state = dict(parse_qsl((query or "").lstrip("?")))
        brushed = brush_words(figure or {}, ctx.triggered[0]["value"] if ctx.triggered else None, state)
        return no_update if state.get("brush", "") == brushed else search({**state, "brush": brushed})
