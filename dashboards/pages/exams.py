"""An experiment in, its example exams out: left, right and map, two trials or epochs side by side, worst pairs."""

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from dash import dcc, html
from dash.development.base_component import Component
from PIL import Image

from dashboards import parts, pictures
from dashboards.figures import calibration, examples, style
from dashboards.pages import described
from dashboards.pairs import HEADINGS, halves
from dashboards.source import known_trials
from dashboards.view import View
from siamray.sweeps.results import Examples

VIEWS: dict[str, tuple[str, Callable[[View], parts.Parts]]] = {}
missing = described.missing

MOST_OFFERED = 200
LAST = "last"
# Begins the word of an epoch that is shown beside.
_EPOCH = "epoch:"
OVERLAYS = {"distance": "distance of the pair", "soft": "soft label", "none": "nothing"}
SCALES = {"common": "one scale for both", "own": "a scale each"}


def views(_: View) -> dict[str, str]:
    """Exams, and the worst pairs."""
    return {word: title for word, (title, _) in VIEWS.items()}


def intro(view: View) -> parts.Parts:
    """Says what is seen here."""
    words = "What does the encoder see? Test exams with the distance of their patches, and its worst mistakes."
    head = [html.P(f"siamray, exams of {view.read.name}", className="eyebrow"), html.H1("Exams"),
            html.P(words, className="question")]  # fmt: skip
    return [html.Header(head)]


def controls(view: View) -> Component | None:
    """Lets the reader choose trials, exam and overlay."""
    trials = _offered(view)
    if not trials:
        return None
    shown = shown_trial(view)
    named = {name: name for name in trials}
    made = [parts.choice("trial", "trial", named, shown)]
    if view.chosen("view", list(VIEWS)) == "exams":
        entries = list(_kept(view, shown).images)
        epochs = _epochs(view, shown)
        if len(epochs) > 1:
            made.append(parts.choice("epoch", "epoch", epochs, _epoch(view, shown)))
        others = {f"{_EPOCH}{word}": f"this trial, {label}" for word, label in epochs.items() if len(epochs) > 1}
        made.append(parts.choice("beside it", "beside", {"none": "nothing"} | others | named, _beside(view) or "none"))
        if entries:
            made.append(parts.choice("exam", "exam", {name: name for name in entries}, view.chosen("exam", entries)))
        made.append(parts.choice("overlay", "overlay", OVERLAYS, view.chosen("overlay", list(OVERLAYS))))
        if _beside(view):
            made.append(parts.choice("colours", "scale", SCALES, view.chosen("scale", list(SCALES))))
        slider = dcc.Slider(
            min=0, max=100, step=5, value=_opacity(view), marks={0: "0", 100: "100"},
            id={"type": "choice", "name": "opacity"}, updatemode="mouseup", allow_direct_input=False,
            tooltip={"placement": "bottom", "always_visible": True},
        )  # fmt: skip
        label = html.Span("opacity in %", className="label")
        made.append(html.Div([label, slider], className="choice slider live-only"))
    return html.Div(made)


def shown_trial(view: View) -> str:
    """The trial that is shown: the one chosen, else the first finished one; "" where there is none."""
    return view.chosen("trial", _offered(view))


def viewer(view: View) -> parts.Parts:
    """The exam that is chosen, of one trial or of two."""

    def make() -> parts.Parts:
        first = shown_trial(view)
        if not first:
            return [parts.empty("No trial has finished yet: its example exams appear here.")]
        kept = _kept(view, first)
        if not kept.images:
            return [parts.empty(f"{first} kept no example exams (downstream.examples=0).")]
        entry = view.chosen("exam", list(kept.images))
        order = list(kept.images)
        place = order.index(entry)
        steps = html.Nav(
            [
                dcc.Link("← exam before", href=view.at(exam=order[place - 1]), className="place"),
                html.Span(f"{place + 1} of {len(order)}"),
                dcc.Link("next exam →", href=view.at(exam=order[(place + 1) % len(order)]), className="place"),
            ],
            className="steps live-only", **parts.aria("exams"),
        )  # fmt: skip
        shown: parts.Parts = [steps]
        sides = [(first, _epoch(view, first)), *_side_beside(view, first)]
        shared = [_maps(view, trial, epoch) for trial, epoch in sides]
        own = view.chosen("scale", list(SCALES)) == "own"
        for trial, epoch in sides:
            limits = _limits([_maps(view, trial, epoch)] if own else shared)
            whose: list[Any] = [dcc.Link(trial, href=view.at("trial", trial)), f", {_epochs(view, trial)[epoch]}"]
            shown.append(html.H3([html.Code(entry), " by ", *whose]))
            shown.append(_panels(view, trial, epoch, entry, limits))
        return [*shown, _window(), parts.note(_how(list(_epochs(view, first).values()), own, view.live))]

    made = parts.attempted("Test exams", make)
    return [made] if made is not None else []


def _panels(view: View, trial: str, epoch: str, entry: str, limits: tuple[float, float]) -> Component:
    kept = _kept(view, trial)
    if entry not in kept.images:
        return parts.empty(f"{trial} did not keep this exam: it tested other women.")
    overlay = view.chosen("overlay", list(OVERLAYS))
    maps, boxes = (frame[frame["entry_id"] == entry] for frame in (_maps(view, trial, epoch), kept.boxes))
    quantity = "distance"
    if overlay == "soft":
        frame = view.recorded.distances(trial)
        fitted = frame[
            (frame["network"] == "A") & frame["weights"].map(lambda part: part is not None and len(part) > 1)
        ]
        if epoch != LAST:
            fitted = fitted[fitted["epoch"] == int(epoch)]
        if fitted.empty:
            when = "" if epoch == LAST else f" after {_epochs(view, trial)[epoch]}"
            return parts.empty(f"{trial} has no fitted mixture{when}: there are no soft labels to show.")
        last = fitted.sort_values("epoch").iloc[-1]
        soft = calibration.soft_label(maps["distance"], last["weights"], last["means"], last["deviations"])
        maps, limits, quantity = maps.assign(distance=soft), (0.0, 1.0), "soft label"
    if overlay == "none":
        maps = maps.iloc[:0]
    place = pictures.by_request(view.read.name, trial) if view.live else pictures.by_value()
    left, right = kept.images[entry]
    drawn = examples.draw(left, right, maps, boxes, limits, place, quantity, _opacity(view) / 100)
    for one in drawn if view.live else []:
        one.update_layout(height=540)
    name = f"exam-{parts.slug(trial)}-{epoch}-{parts.slug(entry)}"
    return html.Div(parts.grid(view, drawn, name), className="viewer")


def _how(epochs: list[str], own: bool, live: bool) -> str:
    kept = f"{', '.join(epochs[:-1])} and {epochs[-1]}" if len(epochs) > 1 else f"{epochs[0]} alone"
    scale = "of the same trial and epoch" if own else "of the trials and epochs shown"
    hands = (
        "Drag to zoom, double click to see all; drag with the shift key, or use the sliders, for window and level: the "
        "link keeps them. "
    )
    return (
        "A distance flags a pair of patches, not a side. Boxes are annotated findings: solid of the left image, dashed "
        "of the right. The colours are the mean of the patches that cover a place; their scale is common to all exams "
        f"{scale}. The trial kept the maps of {kept} (downstream.example_epochs). {hands if live else ''}n = the exam "
        "shown: what a map looks like, not how good it is."
    )


def _window() -> Component:
    """Sliders for window and level; assets/viewer.js lets them act on the pictures."""
    made: list[Any] = []
    for name, label, value in (("window", "window", "100"), ("level", "level", "50")):
        made.append(html.Label(label, htmlFor=f"gray-{name}"))
        made.append(dcc.Input(id=f"gray-{name}", type="range", min=1, max=200 if name == "window" else 100,
                              value=value, className="gray"))  # fmt: skip
    return html.Div(
        [*made, html.Button("as recorded", id="gray-reset", className="small")], className="window live-only"
    )


def worst(view: View) -> parts.Parts:
    """The pairs that the distance tells worst and best."""

    def make() -> parts.Parts:
        trial = shown_trial(view)
        if not trial:
            return [parts.empty("No trial has finished yet.")]
        kept = _kept(view, trial)
        shown = halves(kept)
        if not shown:
            return [parts.empty(f"{trial} kept no pairs.")]
        words = (
            f"Pairs of test women of {trial}, at most one of a woman in a line: left beside right, the lesion's side "
            "framed, the woman, the finding and the distance below. They are its extremes, not its average: how often "
            "they occur is told by the metrics."
        )
        made: parts.Parts = [parts.note(words)]
        for kind, heading in HEADINGS.items():
            own = [_pair(row, left, right) for row, left, right in shown if row["kind"] == kind]
            if own:
                made += [html.H3(heading), html.Div(own, className="pairs")]
        return made

    made = parts.attempted("Worst pairs first", make)
    return [made] if made is not None else []


def sheet(view: View, trial: str, kept: Examples) -> Component:
    """Shows the pictures of a trial's example exams small, left beside right."""
    place = pictures.by_request(view.read.name, trial) if view.live else pictures.by_value()
    tiles = []
    for entry, (left, right) in kept.images.items():
        boxes = kept.boxes[kept.boxes["entry_id"] == entry]
        found = ", ".join(f"{row['category']} {row['side']}" for row in style.records(boxes)) or "nothing marked"
        sides = [html.Img(src=place(path)[0], alt=f"{entry}, {side}")
                 for path, side in ((left, "left"), (right, "right"))]  # fmt: skip
        words = found.replace("_", " ")
        tiles.append(html.Figure([html.Div(sides, className="sides"), html.Figcaption(f"{entry}: {words}")]))
    return html.Div(tiles, className="sheet")


def _pair(row: pd.Series, left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> Component:
    false = row["kind"] == "false alarm"
    sides = [
        html.Img(
            src=_uri(pixels), alt=f"{row['woman_id']}, {side}",
            className="marked" if row["side"] == side and not false else "",
        )
        for side, pixels in (("left", left), ("right", right))
    ]  # fmt: skip
    kind = "normal" if false else str(row["category"]).replace("_", " ")
    words: list[Any] = [f"{row['woman_id']}, {kind}", html.Br(), style.number(float(row["distance"]))]
    return html.Figure([*sides, html.Figcaption(words)])


def _uri(pixels: npt.NDArray[np.uint8]) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _offered(view: View) -> list[str]:
    """Trials that finished, the first of every variant first."""
    rows = view.finished()
    first = rows.drop_duplicates("variant")
    ordered = pd.concat([first, rows.drop(first.index)]).head(MOST_OFFERED)
    asked = [name for name in (view.address.state.get("trial", ""),) if name in set(known_trials(view.read))]
    return list(dict.fromkeys([*map(str, ordered["trial_id"]), *asked]))


def _beside(view: View) -> str:
    """What is shown beside: another trial, another epoch of the same one, or "" for nothing."""
    other, first = view.address.state.get("beside", ""), shown_trial(view)
    epoch = other.removeprefix(_EPOCH)
    if other.startswith(_EPOCH):
        return other if epoch in _epochs(view, first) and epoch != _epoch(view, first) else ""
    return other if other in _offered(view) and other != first else ""


def _side_beside(view: View, first: str) -> list[tuple[str, str]]:
    """Trial and epoch that are shown beside; another trial at the same epoch where it kept it, else at its last."""
    other = _beside(view)
    if not other:
        return []
    if other.startswith(_EPOCH):
        return [(first, other.removeprefix(_EPOCH))]
    epoch = _epoch(view, first)
    return [(other, epoch if epoch in _epochs(view, other) else LAST)]


def _epochs(view: View, trial: str) -> dict[str, str]:
    """The epochs of which a trial kept maps, as words of the address, and how they are called; the last one last."""
    known = view.recorded.epochs(trial)["epoch"].dropna()
    last = f"epoch {int(known.max())} (the last)" if len(known) else "the last epoch"
    earlier = {str(epoch): f"epoch {epoch}" if epoch else "epoch 0 (before)" for epoch in _kept(view, trial).earlier}
    return {**earlier, LAST: last}


def _epoch(view: View, trial: str) -> str:
    """The epoch that is shown: the one chosen, else the last."""
    return view.chosen("epoch", [LAST, *_epochs(view, trial)])


def _maps(view: View, trial: str, epoch: str) -> pd.DataFrame:
    kept = _kept(view, trial)
    return kept.maps if epoch == LAST else kept.earlier[int(epoch)]


def _kept(view: View, trial: str) -> Examples:
    return view.read.memo(("examples", trial), lambda: view.recorded.examples(trial))


def _limits(maps: list[pd.DataFrame]) -> tuple[float, float]:
    values = pd.concat([frame["distance"] for frame in maps]).dropna()
    return (float(values.quantile(0.01)), float(values.quantile(0.99))) if len(values) else (0.0, 1.0)


def _opacity(view: View) -> int:
    text: Any = view.address.state.get("opacity", "50")
    return min(100, max(0, int(text))) if str(text).isdigit() else 50


VIEWS.update(exams=("Exams", viewer), pairs=("Worst pairs", worst))
