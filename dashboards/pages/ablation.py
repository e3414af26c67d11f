"""An ablation in, its answer and all that stands behind it out, a view at a time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
from dash import html
from dash.development.base_component import Component

from dashboards import parts
from dashboards.batches import batches_that_differ
from dashboards.figures import cost, effects, forest, learning_curves, seeds, style, subgroups, tasks, waterfall
from dashboards.pages import described, overview
from dashboards.view import View
from siamray.sweeps.metric_words import metric_name
from siamray.sweeps.verdict import remarks

VIEWS: dict[str, tuple[str, Callable[[View], parts.Parts]]] = {}
"""Word in the address -> title and what makes it; in the order of the tabs."""

intro = described.intro
missing = described.missing


def views(view: View) -> dict[str, str]:
    """The views that there is something to show of: word in the address -> title."""
    shown = {word: title for word, (title, _) in VIEWS.items()}
    if view.recorded.effects().empty:
        shown.pop("factors")
    if view.recorded.tuning.empty:
        shown.pop("tuning")
    return shown


def controls(view: View) -> Component | None:
    """Lets the reader choose the metric."""
    if len(view.metrics) < 2:
        return None
    named = {name: metric_name(name) for name in view.metrics}
    named[view.metrics[0]] += " (primary)"
    return parts.choice("metric", "metric", named, view.metric)


def verdicts(view: View) -> parts.Parts:
    """Puts the comparison into words, one sentence per variant and control."""
    rows = view.results.comparison[view.results.comparison["metric"] == view.metric]
    if rows.empty:
        return [parts.empty("Nothing is compared yet: the sweep has not ended. What there is so far is shown below.")]
    items = []
    for row in style.records(rows):
        words = row["verdict"] if isinstance(row["verdict"], str) else f"{row['variant']}: no verdict"
        name = parts.key(style.look_of(str(row["variant"]), view.looks).color)
        claim, _, numbers = words.partition(": ")
        if claim == "one seed":
            claim, _, numbers = numbers.partition(": ")
        control = " (control)" if row["role"] == "control" else ""
        before, own, after = claim.partition(str(row["variant"]))
        items.append(html.Li([name, before, html.B(own), after + control, html.Span(numbers)]))
    notes = [*batches_that_differ(view.results), *(f"{words}." for words in remarks(style.records(rows)))]
    women = "" if view.metric.startswith("validation_") else " of test women"
    against = f"By the {metric_name(view.metric)}{women}, against {rows['reference'].iloc[0]}:"
    return [html.P(against), html.Ul(items, className="answers"), *map(parts.note, notes)]


def answer(view: View) -> parts.Parts:
    """The answer in words and as a forest plot, and the seeds behind it."""

    def told() -> parts.Parts:
        found = forest.data(view.results.comparison, view.metric)
        if found.empty:
            return verdicts(view)
        reference = str(view.record["reference"])
        drawn = forest.draw(found, view.metric, reference, view.looks, view.interval)
        rows = view.results.comparison[view.results.comparison["metric"] == view.metric]
        return [
            html.P(overview.tally_words(rows), className="headline"),
            html.Div([html.Div(verdicts(view)), parts.figure(view, drawn, "forest", found)], className="two"),
        ]

    def falls() -> parts.Parts | None:
        steps = waterfall.data(view.results.comparison, view.metric)
        if (view.record["design"] or {}).get("kind") != "leave_one_out" or steps.empty:
            return None
        reference = str(view.record["reference"])
        drawn = waterfall.draw(steps, view.metric, reference, view.looks, view.interval)
        return [parts.figure(view, drawn, "waterfall", steps, titled=False)]

    def dots() -> parts.Parts:
        values = seeds.data(view.results.trials, view.metric)
        if values.empty:
            return [parts.empty("No trial has finished yet: its metric will be a dot here.")]
        drawn = seeds.draw(values, view.metric, view.looks)
        return [html.Div(parts.figure(view, drawn, "seeds", values, titled=False), **parts.LINKED)]

    made = [
        parts.attempted("The answer", told),
        parts.attempted("What each part is worth", falls),
        parts.attempted("Every seed", dots),
    ]
    return [part for part in made if part is not None]


def all_metrics(view: View) -> parts.Parts:
    """Several tasks and metrics side by side, and the whole comparison as tables."""

    def colours() -> parts.Parts:
        found = tasks.data(view.results.comparison)
        if found.empty:
            return [parts.empty("Nothing is compared yet.")]
        drawn = tasks.draw(found, str(view.record["reference"]))
        width = f"{240 + 64 * found['metric'].nunique()}px"
        shown = html.Div(parts.figure(view, drawn, "tasks", titled=False), style={"minWidth": width})
        return [html.Div(shown, className="wide"), parts.as_table(found, "All metrics side by side")]

    made = [parts.attempted("All metrics side by side", colours)]
    for metric in dict.fromkeys(view.results.comparison["metric"]):
        made.append(parts.attempted(metric_name(metric), partial(described.comparison, view, metric)))
    return [part for part in made if part is not None]


def within_subgroups(view: View) -> parts.Parts:
    """The difference within kinds of lesions, densities and views."""

    def make() -> parts.Parts:
        task, _, rest = view.metric.removeprefix("validation_").partition("_")
        score = rest.rsplit("_", 1)[0]
        if not rest.endswith("_auc") or "macro" in rest:
            return [parts.empty("Subgroups are compared by AUC: choose a metric of that kind above.")]
        found = view.read.memo(("subgroups", task, score), lambda: _subgroups(view, task, score))
        if found.empty:
            return [parts.empty("No subgroup has enough women yet, or no trial has finished.")]
        missing = [words for column, words in subgroups.GROUPINGS.items() if column not in set(found["grouping"])]
        words = (
            f"{metric_name(view.metric)}; points: paired difference from {view.record['reference']}, mean over seeds "
            f"and folds; bars: 95 % percentiles of {subgroups.REPLICATES} draws of the women, which say nothing of the "
            "luck of seeds. Not corrected for their number and not tested: subgroups are for questions, not answers. "
            f"Subgroups of fewer than {subgroups.LEAST_WOMEN} women with lesions are left out."
        )
        told = (
            [f"Not shown, as the data tell one kind alone or none, or too few women of each: {', '.join(missing)}."]
            if missing
            else []
        )
        drawn = subgroups.draw(found, str(view.record["reference"]), view.looks)
        return [parts.note(words), parts.grid(view, drawn, "subgroup"), parts.as_table(found, "Subgroups"),
                *map(parts.note, told)]  # fmt: skip

    made = parts.attempted("Within subgroups", make)
    return [made] if made is not None else []


def _subgroups(view: View, task: str, score: str) -> pd.DataFrame:
    images = view.recorded.images()
    origins = {column: subgroups.of_women(images, column) for column in ("vendor", "site")}

    def predicted(trial_id: str) -> pd.DataFrame:
        rows = view.results.predictions(trial_id)
        return rows.assign(**{column: rows["woman_id"].map(origin) for column, origin in origins.items()})

    predictions = {
        (str(row["variant"]), int(row["seed"]), int(row["fold"])): predicted(str(row["trial_id"]))
        for row in style.records(view.finished())
    }
    return subgroups.data(predictions, str(view.record["reference"]), task, score)


def factors(view: View) -> parts.Parts:
    """Of a factorial: main effects and interactions."""

    def make() -> parts.Parts | None:
        recorded = view.recorded.effects()
        if recorded.empty:
            return None
        told, untold = effects.data(recorded), recorded[recorded["effect"].isna()]
        notes = [f"{row['kind']} effects are not told: {row['note']}." for row in style.records(untold)]
        notes += [f"{words}." for words in dict.fromkeys(recorded["note"][recorded["effect"].notna()]) if words]
        if told.empty:
            return list(map(parts.note, notes))
        metric = str(view.record["metric"])
        shown: parts.Parts = [
            parts.figure(view, effects.draw(told, metric, view.interval), "effects", told, titled=False),
            *map(parts.note, notes),
        ]
        found = effects.means(view.record["settings"] or {}, view.results.comparison, metric, told)
        if len(found):
            words = (
                "Where the lines are parallel, two factors act independently. The points are means without intervals: "
                "whether lines differ more than by luck is told by the interaction's interval above."
            )
            drawn = effects.draw_means(found, metric)
            shown += [html.H3("Two factors together"), parts.note(words), parts.grid(view, drawn, "interaction")]
        return shown

    made = parts.attempted("Effects of the factors", make)
    return [made] if made is not None else []


def costs(view: View) -> parts.Parts:
    """Cost against the metric."""

    def make() -> parts.Parts:
        found = cost.data(view.results.trials, view.results.comparison, view.metric)
        if found.empty:
            return [parts.empty("No trial has finished yet.")]
        drawn = cost.draw(found, view.metric, view.looks, view.interval)
        return [parts.legend(found["variant"], view.looks),
                parts.figure(view, drawn.update_layout(showlegend=False), "cost", found, titled=False)]  # fmt: skip

    made = parts.attempted("Cost against effect", make)
    return [made] if made is not None else []


def training(view: View) -> parts.Parts:
    """Learning curves and distances of all variants."""

    def curves() -> pd.DataFrame:
        trials = view.finished()
        return learning_curves.data(trials, {name: view.results.epochs(name) for name in trials["trial_id"]})

    def make() -> parts.Parts:
        found = view.read.memo("curves", curves)
        if found.empty:
            return [parts.empty("No epoch of a finished trial is recorded yet.")]
        words = (
            "Thick: mean of the trials; thin: each trial; the two networks averaged. A loss cannot tell a good "
            "pretraining from a collapsed one: look at the effective rank and the distances too. No intervals."
        )
        below = "Raw distances of the pairs: the median, 25 to 75 % and 5 to 95 % (shaded); mean of the trials."
        return [
            parts.legend(dict.fromkeys(found["variant"]), view.looks),
            parts.grid(view, learning_curves.draw(found, view.looks), "learning"), parts.note(words),
            html.H3("Distances by epoch"), parts.note(below),
            parts.grid(view, learning_curves.draw_quantiles(found, view.looks), "quantiles"),
        ]  # fmt: skip

    made = parts.attempted("Training", make)
    return [made] if made is not None else []


def trials(view: View) -> parts.Parts:
    """All trials, and why some failed."""
    made: list[Any] = [
        parts.attempted("Not finished", lambda: described.unfinished(view)),
        parts.attempted("All trials", lambda: described.trials(view)),
    ]
    return [part for part in made if part is not None]


VIEWS.update(
    answer=("Answer", answer),
    tasks=("Metrics", all_metrics),
    subgroups=("Subgroups", within_subgroups),
    factors=("Factors", factors),
    cost=("Cost", costs),
    differences=("Differences", described.differences),
    tuning=("Tuning", described.tuned),
    training=("Training", training),
    trials=("Trials", trials),
    setup=("Set-up", described.setup),
)
