"""An experiment in, the data behind it out: women, images left out and why, registration, labels, a contact sheet."""

from collections.abc import Callable

import pandas as pd
from dash import dcc, html
from dash.development.base_component import Component

from dashboards import parts
from dashboards.figures import data_counts, style
from dashboards.pages import described, exams
from dashboards.view import View

VIEWS: dict[str, tuple[str, Callable[[View], parts.Parts]]] = {}
missing = described.missing

MOST_PAIRS = 12


def views(_: View) -> dict[str, str]:
    """One view."""
    return {"data": "Data"}


def controls(_: View) -> Component | None:
    """Nothing to choose."""
    return None


def intro(view: View) -> parts.Parts:
    """Says whether the data are sound, in a sentence."""
    record = view.record["data"] or {}
    women = record.get("women") or {}
    images = view.recorded.images()
    words = ", ".join(f"{number} {split}" for split, number in women.items())
    verdict = f"{record.get('source', 'unknown source')}: women {words or 'not recorded'}."
    if len(images):
        out = int((~images["used"].astype(bool)).sum())
        verdict += f" {len(images) - out:,} of {len(images):,} images are used" + (
            f"; {out:,} are left out, each with its reason below." if out else "; none is left out."
        )
    head = [html.P(f"siamray, data of {view.read.name}", className="eyebrow"), html.H1("Data"),
            html.P(verdict, className="question")]  # fmt: skip
    return [html.Header(head)]


def sound(view: View) -> parts.Parts:
    """All of the page."""
    images = view.recorded.images()

    def women() -> parts.Parts:
        recorded = (view.record["data"] or {}).get("women") or {}
        lines = [[split, style.whole(number)] for split, number in recorded.items()]
        told: parts.Parts = [parts.table(["split", "women"], lines, [0], "women per split")] if lines else []
        words = "Splits are by woman: all images of a woman are in one of them. Folds are tested in turn: "
        return [*told, parts.note(words + (", ".join(map(str, view.record["folds"])) or "one") + ".")]

    def left_out() -> parts.Parts:
        if images.empty:
            words = (
                "Not recorded: this experiment was written by an older siamray. The prepared exams have the list in "
                "their manifest.parquet; run the sweep's command again, and it is kept here too."
            )
            return [parts.empty(words)]
        found = data_counts.reasons(images)
        if found.empty:
            return [parts.note(f"None of {style.count(len(images), 'image')} is left out.")]
        lines = [[row["reason"], style.whole(row["images"]), style.whole(row["women"])] for row in style.records(found)]
        return [parts.table(["reason", "images", "women"], lines, [0], "images left out")]

    def registration() -> parts.Parts | None:
        found = data_counts.quality(images)
        if found.empty:
            return None
        worst = found.head(MOST_PAIRS)
        return [parts.figure(view, data_counts.draw_quality(found), "quality", titled=False),
                parts.folded(f"The {len(worst)} worst pairs", _pairs(worst))]  # fmt: skip

    def labels() -> parts.Parts | None:
        counted = data_counts.counts(images)
        return None if counted.empty else [parts.grid(view, data_counts.draw(counted), "label"),
                                           parts.as_table(counted, "Images by label")]  # fmt: skip

    def scored() -> parts.Parts:
        finished = view.finished()
        if finished.empty:
            return [parts.empty("No trial has finished yet: what is tested appears here then.")]
        trial_id = str(finished["trial_id"].iloc[0])
        found = data_counts.samples(view.recorded.predictions(trial_id))
        if found.empty:
            return [parts.empty("The first finished trial predicted nothing.")]
        lines = [
            [row["task"], row["split"], str(row["category"]).replace("_", " "), style.whole(row["samples"]),
             style.whole(row["women"])]
            for row in style.records(found)
        ]  # fmt: skip
        head = ["task", "split", "kind", "samples", "women"]
        return [parts.table(head, lines, [0, 1, 2], "samples that are scored"),
                parts.note(f"As {trial_id} scored them; other folds test other women.")]  # fmt: skip

    def sheet() -> parts.Parts:
        trial_id = exams.shown_trial(view)
        kept = view.recorded.examples(trial_id) if trial_id else None
        if kept is None or not kept.images:
            return [parts.empty("No trial has kept pictures of test exams.")]
        link = dcc.Link("larger, with maps and zoom", href=view.at("exams"))
        words = f"n = {len(kept.images)} test exams as {trial_id} kept them, left beside registered right: "
        return [html.P([words, link],
                       className="note"), exams.sheet(view, trial_id, kept)]  # fmt: skip

    made = [
        parts.attempted("Women", women),
        parts.attempted("Images left out", left_out),
        parts.attempted("Registration", registration),
        parts.attempted("Images by what is known of them", labels),
        parts.attempted("What is scored", scored),
        parts.attempted("Contact sheet", sheet),
    ]
    return [part for part in made if part is not None]


def _pairs(worst: pd.DataFrame) -> Component:
    lines = [
        [row["woman_id"], row["view"], style.number(row["quality"]), style.number(row["dice"]),
         "used" if row["used"] else "left out"]
        for row in style.records(worst)
    ]  # fmt: skip
    return parts.table(["woman", "view", "quality", "overlap", ""], lines, [0, 1, 4], "worst registered pairs")


VIEWS.update(data=("Data", sound))
