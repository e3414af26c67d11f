"""A search in, how it went, what mattered and whether its winner holds out, a view at a time."""

from collections.abc import Callable

import pandas as pd
from dash import html
from dash.development.base_component import Component

from dashboards import parts, search, searched, trial_table
from dashboards.brush import brush_ranges
from dashboards.figures import (
    forest,
    history,
    importance,
    intermediate,
    learning_curves,
    parallel_coordinates,
    slices,
    style,
)
from dashboards.pages import ablation, described
from dashboards.view import View
from siamray.sweeps.metric_words import metric_name
from siamray.sweeps.results import SELECTION_FILE

VIEWS: dict[str, tuple[str, Callable[[View], parts.Parts]]] = {}
intro = described.intro
missing = described.missing


def views(view: View) -> dict[str, str]:
    """The views that there is something to show of."""
    shown = {word: title for word, (title, _) in VIEWS.items()}
    if len(objectives(view)) < 2:
        shown.pop("front")
    if view.recorded.importance().empty:
        shown.pop("importance")
    return shown


def controls(view: View) -> Component | None:
    """Lets the reader choose the objective, and the two options of the contour."""
    made: list[Component] = []
    sought = list(objectives(view))
    if len(sought) > 1:
        made.append(parts.choice("objective", "objective", {n: metric_name(n) for n in sought}, objective(view)))
    if view.chosen("view", list(VIEWS)) == "slices":
        known = searched.options(view.recorded)
        if len(known) > 2:
            first, second = contour_options(view)
            named = {name: name for name in known}
            made += [parts.choice("contour: across", "across", named, first),
                     parts.choice("contour: up", "up", named, second)]  # fmt: skip
    return html.Div(made) if made else None


def objectives(view: View) -> dict[str, str]:
    """The objectives with their directions."""
    return dict(view.record["objectives"] or {str(view.record["metric"]): "maximize"})


def objective(view: View) -> str:
    """The objective that is shown."""
    return view.chosen("objective", list(objectives(view)))


def contour_options(view: View) -> tuple[str, str]:
    """The two options of the contour: those chosen, else the first two."""
    known = searched.options(view.recorded)
    first = view.chosen("across", known)
    return first, view.chosen("up", [name for name in known if name != first])


def table(view: View) -> pd.DataFrame:
    """All trials of the search with what they drew."""
    return view.read.memo("searched", lambda: searched.searched(view.recorded))


def table_frame(view: View) -> pd.DataFrame:
    """The table of the page: the trials of the search."""
    return table(view)


def brushed(view: View, frame: pd.DataFrame) -> pd.DataFrame:
    """Leaves the trials that lie in what was brushed."""
    ranges = brush_ranges(view.address.state.get("brush", ""))
    if not ranges:
        return frame
    own = frame[frame[objective(view)].notna()]
    placed = parallel_coordinates.axes(own, searched.options(view.recorded), objective(view))
    return parallel_coordinates.within(own, placed, ranges)


def answer(view: View) -> str:
    """Says which trial is best, and that this is a choice, not a finding."""
    name, direction = objective(view), objectives(view)[objective(view)]
    own = table(view)[table(view)[name].notna()]
    best = own.sort_values(name, ascending=direction == "minimize", kind="stable").iloc[0]
    drawn = " ".join(
        f"{option}={best[option]:.4g}" if isinstance(best[option], float) else f"{option}={best[option]}"
        for option in searched.options(view.recorded)
        if pd.notna(best[option])
    )
    after = "the confirmation, on fresh seeds and test women, is the result"
    if view.results.comparison.empty:
        after = "to be confirmed on fresh seeds and test women, not a result"
    return (
        f"Best of {style.count(len(own), 'finished trial')} by the {metric_name(name)}: "
        f"{style.number(float(best[name]))} with {drawn or 'its settings'}. The best of many is better by luck too: "
        f"it is a choice; {after}."
    )


def training(view: View) -> parts.Parts:
    """Learning curves of the best trials."""

    def make() -> parts.Parts:
        name, direction = objective(view), objectives(view)[objective(view)]
        own = table(view)[table(view)[name].notna()] if name in table(view) else table(view).iloc[:0]
        best = own.sort_values(name, ascending=direction == "minimize", kind="stable").head(search.SHOWN)
        trials = view.recorded.trials.set_index("trial_id", drop=False).reindex(best["trial_id"])
        trials["variant"] = [f"trial {int(number)}" for number in best["number"]]
        found = learning_curves.data(trials, {one: view.recorded.epochs(one) for one in trials["trial_id"]})
        if found.empty:
            return [parts.empty("No epoch of a finished trial is recorded yet.")]
        looks = style.looks(trials["variant"])
        words = f"The {len(trials)} best trials by the {metric_name(name)}; one seed each, no intervals."
        return [parts.legend(dict.fromkeys(found["variant"]), looks),
                parts.grid(view, learning_curves.draw(found, looks), "learning"), parts.note(words)]  # fmt: skip

    made = parts.attempted("Training", make)
    return [made] if made is not None else []


def _linked(part: Component) -> Component:
    """Lets a click on a point open the trial that it stands for."""
    return html.Div(part, **parts.LINKED)


def how_it_went(view: View) -> parts.Parts:
    """The history, and what the pruner saw."""

    def past() -> parts.Parts:
        name, direction = objective(view), objectives(view)[objective(view)]
        found = history.data(table(view), name, direction)
        if found.empty:
            return [parts.empty("No trial has finished yet: each will be a point here.")]
        states = {str(state): int(n) for state, n in table(view)["state"].value_counts().items()}
        drawn = history.draw(found, name, direction, states)
        return [
            html.P(answer(view), className="answer"),
            _linked(parts.figure(view, drawn, "history", found.nlargest(50, "number"), titled=False)),
        ]

    def seen() -> parts.Parts | None:
        trials = table(view)
        shown = (
            trials
            if len(trials) <= intermediate.MOST_TRIALS
            else trials.sample(intermediate.MOST_TRIALS, random_state=0)
        )
        states = dict(zip(shown["trial_id"], shown["state"], strict=True))
        known = [name for name in states if states[name] != "broken"]
        values = intermediate.data(states, {name: view.recorded.validation(name) for name in known})
        if values.empty:
            return None
        name = str(view.record["metric"])
        drawn = intermediate.draw(values, name, objectives(view).get(name, "maximize"), len(trials))
        return [_linked(parts.figure(view, drawn, "intermediate", values, titled=False))]

    made = [parts.attempted("History", past), parts.attempted("Values while training", seen)]
    return [part for part in made if part is not None]


def lines(view: View) -> parts.Parts:
    """Parallel coordinates whose brush filters the table below."""

    def coordinates() -> parts.Parts:
        name, direction = objective(view), objectives(view)[objective(view)]
        trials = table(view)
        own = trials[trials[name].notna()] if name in trials else trials.iloc[:0]
        if len(own) < 2:
            return [parts.empty("Fewer than two trials have finished: lines are drawn from two on.")]
        placed = parallel_coordinates.axes(own, searched.options(view.recorded), name)
        chosen = parallel_coordinates.sample(own, name, direction)
        shown = own.index.isin(chosen.index)
        ranges = brush_ranges(view.address.state.get("brush", ""))
        drawn = parallel_coordinates.draw(placed, shown, name, direction, ranges, dark=view.dark)
        within = len(brushed(view, own))
        words = f"{within:,} of {len(own):,} trials lie in what is brushed: the table below shows them."
        told = [html.P(words, id="brushed", className="answer", role="status")] if ranges else []
        way = html.P(
            "Pull along an axis to choose a range: the table shows the trials within; a click on the axis lets go.",
            className="note live-only",
        )
        return [html.Div(parts.figure(view, drawn, "parallel", titled=False), className="wide"), way, *told]

    def listed() -> parts.Parts:
        frame = table(view)
        if not view.live:
            return [parts.file_table(frame, SELECTION_FILE)]
        return [trial_table.component(frame, view.read.name, "trials", view.address.state)]

    made = [parts.attempted("Parallel coordinates", coordinates), parts.attempted("Trials", listed)]
    return [part for part in made if part is not None]


def what_mattered(view: View) -> parts.Parts:
    """The importance of the options, with their uncertainty."""

    def make() -> parts.Parts | None:
        recorded = view.recorded.importance()
        found = importance.data(recorded)
        notes = [parts.note(words) for words in importance.notes(recorded)]
        if found.empty and not notes:
            return None
        return [parts.grid(view, importance.draw(found), "importance"), *notes,
                parts.as_table(found, "Importance of the options")]  # fmt: skip

    made = parts.attempted("Importance of the options", make)
    return [made] if made is not None else []


def sliced(view: View) -> parts.Parts:
    """The objective against each option, and against two of them."""
    name, direction = objective(view), objectives(view)[objective(view)]
    shown = slices.data(table(view), name)
    total = int(table(view)[name].notna().sum()) if name in table(view) else 0

    def panels() -> parts.Parts:
        if shown.empty:
            return [parts.empty("No trial has finished yet.")]
        drawn = slices.draw(shown, searched.options(view.recorded), name, direction, total)
        return [_linked(parts.grid(view, drawn, "slice"))]

    def contour() -> parts.Parts:
        first, second = contour_options(view)
        drawn = slices.draw_contour(shown, first, second, name, direction, total) if first and second else None
        if drawn is None:
            return [parts.empty(f"Fewer than {slices.LEAST_POINTS} trials have drawn both options.")]
        columns = ["trial_id", first, second, name]
        return [_linked(parts.figure(view, drawn, "contour", shown[columns]))]

    made = [parts.attempted("Slices", panels), parts.attempted("Two options together", contour)]
    return [part for part in made if part is not None]


def front(view: View) -> parts.Parts:
    """The Pareto front of several objectives."""

    def make() -> parts.Parts | None:
        drawn = slices.draw_front(table(view), objectives(view))
        if drawn is None:
            return [parts.empty("No trial has all objectives yet.")]
        trials = table(view)
        members = trials[trials["front"].fillna(False).astype(bool)] if "front" in trials else trials.iloc[:0]
        return [_linked(parts.figure(view, drawn, "front", members, titled=False))]

    made = parts.attempted("Pareto front", make)
    return [made] if made is not None else []


def confirmation(view: View) -> parts.Parts:
    """The winner against the untouched base, on fresh seeds and test women: the only result of a search."""

    def make() -> parts.Parts:
        if view.results.comparison.empty:
            words = (
                "Not confirmed yet: when the search has ended, its winner is compared on fresh seeds and test women."
            )
            return [parts.empty(words)]
        found = forest.data(view.results.comparison, view.metric)
        reference = str(view.record["reference"])
        looks = style.looks([name for name in view.record["variants"] if name != search.SEARCHED])
        drawn = forest.draw(found, view.metric, reference, looks, view.interval)
        return [*ablation.verdicts(view), parts.figure(view, drawn, "forest", found, titled=False),
                *described.comparison(view, view.metric)]  # fmt: skip

    made = parts.attempted("The winner on fresh seeds", make)
    return [made] if made is not None else []


def failures(view: View) -> parts.Parts:
    """Trials that failed, with their reasons."""
    made = parts.attempted("Not finished", lambda: described.unfinished(view) or [parts.empty("All have finished.")])
    return [made] if made is not None else []


VIEWS.update(
    history=("History", how_it_went),
    parallel=("Parallel", lines),
    importance=("Importance", what_mattered),
    slices=("Slices", sliced),
    front=("Pareto front", front),
    confirmation=("Confirmation", confirmation),
    training=("Training", training),
    failures=("Failures", failures),
    setup=("Set-up", described.setup),
)
