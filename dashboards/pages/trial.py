"""A trial in, all that it left out: curves, distances, operating points, labels, features, options, machine."""

from collections.abc import Callable
from typing import Any

import pandas as pd
from dash import dcc, html
from dash.development.base_component import Component

from dashboards import parts
from dashboards.figures import calibration, distance_histogram, embedding, learning_curves, operating_curves, style
from dashboards.pages import trial_options
from dashboards.source import known_trials, trial_record
from dashboards.view import View
from siamray.sweeps.metric_words import metric_name

VIEWS: dict[str, tuple[str, Callable[[View], parts.Parts]]] = {}


def missing(view: View) -> Component | None:
    """Says what is wrong where there is no such trial, or it has not ended."""
    trial_id = view.address.trial
    if trial_id in set(known_trials(view.read)):
        row = _row(view)
        if row["state"] == "broken":
            return parts.problem(f"{trial_id} cannot be read: {row['reason']}. Nothing else is hurt by it.")
        return None
    if trial_id in view.recorded.unfinished:
        return parts.empty(f"{trial_id} has begun and not ended: it appears here when it has.")
    return parts.problem(f"There is no trial '{trial_id}' in {view.read.name}.")


def views(_: View) -> dict[str, str]:
    """The views of a trial."""
    return {word: title for word, (title, _) in VIEWS.items()}


def intro(view: View) -> parts.Parts:
    """Says what the trial is, how it ended and what it cost."""
    row = _row(view)
    named = tables_metric(view)
    ends = [row.get(f"{named}{end}", float("nan")) for end in ("", "_low", "_high")]
    facts: list[tuple[str, Any]] = [
        ("variant", str(row["variant"])),
        ("seed, fold", f"{style.whole(row['seed'])}, {style.whole(row['fold'])}"),
        ("state", f"{row['state']}{': ' + str(row['reason']) if row['reason'] else ''}"),
        ("cost", f"{style.seconds(row.get('wall_s', float('nan')))} of wall time"),
    ]
    if named and ends[0] == ends[0]:
        facts.insert(2, (metric_name(named), f"{style.interval(*ends)}, interval over test women"))
    record = trial_record(view.read, view.address.trial)
    notes = [html.Li(str(words)) for words in record["notes"] or []]
    return [
        html.Header([html.P(f"siamray, trial of {view.read.name}", className="eyebrow"), html.H1(view.address.trial)]),
        parts.definitions(facts),
        *([parts.folded("Notes of the evaluation", html.Ul(notes, className="plain"))] if notes else []),
    ]


def controls(view: View) -> Component | None:
    """What can be chosen on the shown view."""
    shown = view.chosen("view", list(VIEWS))
    made: list[Component] = []
    if shown == "distances":
        known = _epochs(view)
        if len(known) > 1:
            made.append(_slider("epoch", known, int(view.chosen("epoch", [str(e) for e in reversed(known)]))))
        networks = sorted(set(view.recorded.distances(view.address.trial)["network"]))
        if len(networks) > 1:
            made.append(parts.choice("network", "network", {n: n for n in networks}, view.chosen("network", networks)))
    if shown == "curves":
        known_tasks = _tasks(view)
        if known_tasks:
            made.append(
                parts.choice("task", "task", {name: name for name in known_tasks}, view.chosen("task", known_tasks))
            )
            scores = list(_memo_curves(view, view.chosen("task", known_tasks))[0])
            if len(scores) > 1:
                first = [_score(view), *scores] if _score(view) in scores else scores
                made.append(parts.choice("with its band", "score", {n: n for n in scores}, view.chosen("score", first)))
    if shown == "features" and len(found := view.recorded.features(view.address.trial)):
        named = embedding.known_colors(found)
        made.append(parts.choice("coloured by", "by", named, view.chosen("by", list(named))))
        if embedding.has_neighbours(found):
            projections = embedding.PROJECTIONS
            made.append(parts.choice("map of", "map", projections, view.chosen("map", list(projections))))
    if shown == "options":
        made.append(
            parts.choice("compared with", "other", trial_options.offered(view), trial_options.other_trial(view))
        )
    return html.Div(made) if made else None


def tables_metric(view: View) -> str:
    """The metric that stands for a trial."""
    return str(view.record["metric"] or "")


def curves(view: View) -> parts.Parts:
    """Learning curves with the signs of a collapse."""

    def make() -> parts.Parts:
        own = view.recorded.trials[view.recorded.trials["trial_id"] == view.address.trial]
        epochs = view.recorded.epochs(view.address.trial)
        found = learning_curves.data(own, {view.address.trial: epochs})
        if found.empty:
            return [parts.empty("This trial trained nothing, or left no record of its epochs.")]
        words = (
            "One trial, the two networks averaged; no intervals. Whether it collapsed is said by the effective rank."
        )
        return [
            _collapse(epochs),
            parts.grid(view, learning_curves.draw(found, view.looks), "learning"), parts.note(words),
            html.H3("Distances by epoch"),
            parts.grid(view, learning_curves.draw_quantiles(found, view.looks), "quantiles"),
            parts.as_table(epochs, "Epochs"),
        ]  # fmt: skip

    made = parts.attempted("Training", make)
    return [made] if made is not None else []


def _collapse(epochs: pd.DataFrame) -> Component:
    rank = pd.to_numeric(epochs["effective_rank"], errors="coerce").dropna()
    deviation = pd.to_numeric(epochs["embedding_deviation"], errors="coerce").dropna()
    if rank.empty:
        return parts.note("The effective rank was not recorded: a collapse cannot be excluded.")
    last = float(rank.iloc[-1])
    spread = f", mean deviation of a dimension {deviation.iloc[-1]:.3g}" if len(deviation) else ""
    told = f"Effective rank at the end: {last:.1f}{spread} (first epoch: {float(rank.iloc[0]):.1f})."
    if last < 2:
        return parts.problem(f"Collapsed: the embeddings use fewer than two dimensions. {told}")
    return html.P(["No collapse by the ", parts.term("effective rank"), f". {told}"], className="answer")


def distances(view: View) -> parts.Parts:
    """The histogram of the distances with the fitted mixture, an epoch at a time."""

    def make() -> parts.Parts:
        trial_id = view.address.trial
        frame = view.recorded.distances(trial_id)
        if frame.empty:
            return [parts.empty("This trial trained nothing, or left no distances.")]
        networks = sorted(set(frame["network"]))
        variant = str(_row(view)["variant"])
        name = view.chosen("network", networks)
        found = view.read.memo(
            ("distances", trial_id, name), lambda: distance_histogram.data({variant: frame}, name, spread=False)
        )
        source = f"Training pairs of this trial, network {name}"
        if not view.live:
            return [parts.figure(view, distance_histogram.draw(found, view.looks, source), "distances", titled=False)]
        epoch = int(view.chosen("epoch", [str(known) for known in reversed(_epochs(view))]))
        drawn = distance_histogram.draw_epoch(found, epoch, style.look_of(variant, view.looks), source)
        shown = found[(found["epoch"] == epoch) & (found["curve"] == "histogram")][["x", "width", "y", "n"]]
        return [parts.figure(view, drawn, "distances", shown, titled=False)]

    made = parts.attempted("Distances and the fitted mixture", make)
    return [made] if made is not None else []


def operating(view: View) -> parts.Parts:
    """ROC, precision-recall and FROC curves."""

    def make() -> parts.Parts:
        known = _tasks(view)
        if not known:
            return [parts.empty("This trial predicted nothing that has two classes.")]
        task = view.chosen("task", known)
        found, counts = _memo_curves(view, task)
        looks = style.looks(found)
        shown = view.chosen("score", [_score(view), *found] if _score(view) in found else list(found))
        kinds = ["FROC"] if task == "detection" else ["ROC", "precision-recall"]
        drawn = [operating_curves.draw(found, kind, looks, counts, shown) for kind in kinds]
        together = pd.concat([frame.assign(score=name) for name, frame in found.items()], ignore_index=True)
        return [html.Div([parts.figure(view, one, f"operating-{i}") for i, one in enumerate(drawn)], className="two"),
                parts.as_table(together, "Operating curves")]  # fmt: skip

    made = parts.attempted("Operating curves", make)
    return [made] if made is not None else []


def _memo_curves(view: View, task: str) -> tuple[dict[str, pd.DataFrame], str]:
    return view.read.memo(("curves", view.address.trial, task), lambda: _curves(view, task))


def _score(view: View) -> str:
    """The score that the primary metric measures."""
    name = tables_metric(view).removeprefix("validation_").partition("_")[2]
    return name.rsplit("_", 1)[0]


def _curves(view: View, task: str) -> tuple[dict[str, pd.DataFrame], str]:
    """The curves of every score that has one, and n in words."""
    rows = _tested(view)
    own = rows[rows["task"].str.startswith("detection")] if task == "detection" else rows[rows["task"] == task]
    make = operating_curves.froc_data if task == "detection" else operating_curves.data
    found = {str(score): make(group) for score, group in own.groupby("score", sort=False)}
    kept = {name: frame for name, frame in found.items() if len(frame)}
    most = own.groupby(["score", "task"]).size().groupby("task").max()
    words = {operating_curves.LESION: "lesion", operating_curves.IMAGE: "image", task: "test sample"}
    counts = [style.count(most[kind], word) for kind, word in words.items() if kind in most]
    return kept, f"n = {', '.join(counts)} of {style.count(own['woman_id'].nunique(), 'woman', 'women')}"


def _tested(view: View) -> pd.DataFrame:
    rows = view.recorded.predictions(view.address.trial)
    return rows[(rows["split"] == "test") & (rows["draw"].fillna(0) == 0)]


def _tasks(view: View) -> list[str]:
    rows = _tested(view)
    plain = rows[~rows["task"].astype(str).str.startswith("detection_")]
    two = [str(task) for task, own in plain.groupby("task", sort=False) if set(own["label"].dropna()) == {0, 1}]
    return [*two, *(["detection"] if (rows["task"] == operating_curves.LESION).any() else [])]


def labels(view: View) -> parts.Parts:
    """Calibration of the soft labels, where the truth is known."""

    def make() -> parts.Parts:
        rows = _tested(view)
        own = rows[(rows["task"] == "patches") & (rows["score"] == "distance") & rows["label"].isin([0, 1])]
        frame = view.recorded.distances(view.address.trial)
        fitted = frame[
            (frame["network"] == "A") & frame["weights"].map(lambda part: part is not None and len(part) > 1)
        ]
        if own.empty or fitted.empty:
            return [parts.empty("Not known: this trial has no distances of labelled test pairs, or no fitted mixture.")]
        last = fitted.sort_values("epoch").iloc[-1]
        soft = calibration.soft_label(own["value"], last["weights"], last["means"], last["deviations"])
        found = calibration.data(own["label"], soft)
        drawn = calibration.draw(found, own["woman_id"].nunique(), bool(last["usable"]))
        return [parts.figure(view, drawn, "calibration", found, titled=False)]

    made = parts.attempted("Calibration of the soft labels", make)
    return [made] if made is not None else []


def features(view: View) -> parts.Parts:
    """The map of the encoder's features."""

    def make() -> parts.Parts:
        found = view.recorded.features(view.address.trial)
        if found.empty:
            return [
                parts.empty("No map of the features: trials of an older siamray, and those of no patches, left none.")
            ]
        column = view.chosen("by", list(embedding.known_colors(found)))
        shares = (float(found["x_share"].iloc[0]), float(found["y_share"].iloc[0]))
        offered = list(embedding.PROJECTIONS) if embedding.has_neighbours(found) else [embedding.COMPONENTS]
        chosen = view.chosen("map", offered)
        placed = embedding.as_neighbours(found) if chosen == embedding.NEIGHBOURS else found
        shown = embedding.data(placed, column)
        drawn = embedding.draw(shown, column, shares, chosen, len(found))
        return [parts.figure(view, drawn, "features", shown, titled=False)]

    made = parts.attempted("Map of the features", make)
    return [made] if made is not None else []


def _row(view: View) -> dict[str, Any]:
    own = view.recorded.trials[view.recorded.trials["trial_id"] == view.address.trial]
    return style.records(own)[0]


def _epochs(view: View) -> list[int]:
    return sorted({int(epoch) for epoch in view.recorded.distances(view.address.trial)["epoch"]})


def _slider(name: str, known: list[int], value: int) -> Component:
    marks = {known[0]: str(known[0]), known[-1]: str(known[-1])}
    slider = dcc.Slider(
        min=known[0], max=known[-1], step=1, value=value, marks=marks, id={"type": "choice", "name": name},
        updatemode="drag", allow_direct_input=False, tooltip={"placement": "bottom", "always_visible": True},
    )  # fmt: skip
    return html.Div([html.Span(name, className="label"), slider], className="choice slider live-only")


VIEWS.update(
    training=("Training", curves),
    distances=("Distances", distances),
    curves=("ROC and FROC", operating),
    labels=("Calibration", labels),
    features=("Features", features),
    options=("Options", trial_options.config),
    machine=("Environment", trial_options.machine),
)
