"""A request for a picture of an example exam in, its PNG out; names are looked up, never made a path of."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from flask import Flask, Response, abort, send_file
from PIL import Image

from dashboards.figures.examples import embedded
from dashboards.source import Source, known_trials
from siamray.errors import UserError
from siamray.sweeps.results import Examples

Picture = Callable[[Path], tuple[str, tuple[int, int]]]
"""A picture's file -> where a page finds it, and its shape (rows, cols)."""

_SIDES = {"left": 0, "right": 1}


def serve(server: Flask, source: Source) -> None:
    """Lets a server answer requests for pictures."""

    @server.get("/picture/<experiment>/<trial>/<entry>/<side>.png")
    def picture(experiment: str, trial: str, entry: str, side: str) -> Response:
        try:
            read = source.read(experiment)
        except UserError:
            abort(404)
        if read.status is None or side not in _SIDES or trial not in known_trials(read):
            abort(404)
        kept: Examples = read.memo(("examples", trial), lambda: read.status.loaded.examples(trial))  # type: ignore[union-attr]
        if entry not in kept.images:
            abort(404)
        answer = send_file(kept.images[entry][_SIDES[side]], mimetype="image/png", conditional=True)
        answer.headers["Cache-Control"] = "private, max-age=60"
        return answer


def by_request(experiment: str, trial: str) -> Picture:
    """Names pictures by what the server answers: the page stays small, and a picture is fetched when it is shown."""

    def found(path: Path) -> tuple[str, tuple[int, int]]:
        entry, _, side = path.stem.rpartition("_")
        with Image.open(path) as opened:
            shape = (opened.height, opened.width)
        parts = "/".join(quote(part, safe="") for part in (experiment, trial, entry, side))
        return f"/picture/{parts}.png", shape

    return found


def by_value() -> Picture:
    """Writes pictures into the page itself, for a file that stands alone."""
    return embedded
