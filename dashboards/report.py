"""An experiment's folder in, its report.html out: one file to send, read and archive, which needs no network.

python -m dashboards.report results=results/soft_labels
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from dashboards import design, methods, page, pairs, search, tables, tuning
from dashboards.batches import batches_that_differ
from dashboards.figures import (
    cost,
    distance_histogram,
    effects,
    examples,
    forest,
    importance,
    learning_curves,
    seeds,
    style,
)
from siamray.errors import UserError, nearest, run_command
from siamray.sweeps.metric_words import metric_name
from siamray.sweeps.results import REPORT_FILE, Results, fetched, load, send_file, write_bytes
from siamray.sweeps.verdict import remarks


def write_report(experiment_folder: Path) -> Path:
    """Writes the report of an experiment, as far as it got.

    Args:
        experiment_folder: ``<results>/<experiment>``.

    Returns:
        ``<results>/<experiment>/report.html``.

    Raises:
        UserError: no such experiment, damaged, or the folder cannot be written to.
    """
    path = experiment_folder / REPORT_FILE
    write_bytes(path, report(load(experiment_folder)).encode("utf-8", "replace"))
    return path


def report(results: Results) -> str:
    """Makes the report.

    Args:
        results: an experiment.

    Returns:
        The page, as HTML.
    """
    recorded = results
    results = tuning.compared(results)
    if results.experiment["kind"] == "search":
        results = search.as_variants(results)
    record = results.experiment
    metric = tables.primary_metric(results)
    # Of a search the metric ranks what was selected; its comparison is of test women.
    compared = metric if record["kind"] != "search" else next(iter(results.comparison["metric"]), None)
    looks = style.looks(record["variants"], record["controls"])
    interval = interval_words(results)
    sections: list[Callable[[], str]] = [
        lambda: _answer(results, metric, looks),
        lambda: _comparison(results, compared, looks, interval),
        lambda: _forest(results, compared, looks, interval),
        lambda: _effects(results, metric, interval),
        lambda: tuning.changes(results, looks),
        lambda: _importance(results),
        lambda: _seeds(results, metric, looks),
        lambda: _learning(results, looks),
        lambda: _distances(results, looks),
        lambda: _cost(results, metric, looks, interval),
        lambda: _examples(results),
        lambda: design.section(results, looks),
        lambda: _trials(results, metric, looks),
        lambda: page.section("Set-up", tables.setup(results)),
        lambda: methods.section(recorded),
    ]
    name = record["name"] or results.path.name
    head = (
        f'<header><p class="eyebrow">siamray, {page.text(record["kind"])}</p><h1>{page.text(name)}</h1>'
        f'<p class="question">{page.text(record["question"])}</p>'
        f'<p class="disclaimer">{page.text(_progress(results))} Research software, no diagnosis.</p></header>'
    )
    foot = "<footer>Made by siamray, research software: not a medical device, not for diagnosis.</footer>"
    return page.page(f"{name}, siamray", head, *(make() for make in sections), foot)


def interval_words(results: Results) -> str:
    """Says what the intervals are, from the configuration of a finished trial."""
    drawn = "women, with the variance between seeds (t)" if (results.comparison["seeds"] > 1).any() else "women"
    for trial_id in results.trials.loc[results.trials["state"] == "finished", "trial_id"]:
        options = (results.trial(trial_id)["config"].get("downstream") or {}).get("intervals") or {}
        if options:
            share = f"{100 * options.get('confidence', 0.95):g} % intervals"
            return f"{share}, bootstrap over {drawn}, {options.get('replicates', 0):,} replicates"
    return f"intervals, bootstrap over {drawn}"


def _progress(results: Results) -> str:
    states = results.trials["state"].value_counts()
    parts = [style.count(states.get("finished", 0), "finished trial")]
    parts += [f"{states[state]} {state}" for state in ("pruned", "failed", "broken") if state in states]
    parts += [f"{len(results.unfinished)} not ended"] if results.unfinished else []
    return ", ".join(parts) + "."


def _answer(results: Results, metric: str | None, looks: dict[str, style.Look]) -> str:
    if results.experiment["kind"] == "search":
        words = page.text(search.answer(results))
        table = tables.trials(search.searched(results), metric, looks)
        selected = page.section("The selection", f"<p>{words}</p>", search.front(results), table)
        if results.comparison.empty:
            return selected
        metric = str(results.comparison["metric"].iloc[0])
        return _verdicts(results, metric) + selected
    return _verdicts(results, metric)


def _verdicts(results: Results, metric: str | None) -> str:
    rows = results.comparison[results.comparison["metric"] == metric]
    if rows.empty:
        words = "Nothing is compared yet: the sweep has not ended. What there is so far is shown below."
        return page.section("The answer", f'<p class="empty">{page.text(words)}</p>')
    items = []
    for row in style.records(rows):
        verdict = row["verdict"] if isinstance(row["verdict"], str) else f"{row['variant']}: no verdict"
        items.append(f"<li>{page.text(verdict)}{' (control)' if row['role'] == 'control' else ''}</li>")
    minded = [*batches_that_differ(results), *(f"{words}." for words in remarks(style.records(rows)))]
    women = "" if str(metric).startswith("validation_") else " of test women"
    against = f"By the {metric_name(str(metric))}{women}, against {rows['reference'].iloc[0]}:"
    answers = f'<ul class="answers">{"".join(items)}</ul>'
    return page.section("The answer", f"<p>{page.text(against)}</p>", answers, *map(page.note, minded))


def _comparison(results: Results, metric: str | None, looks: dict[str, style.Look], interval: str) -> str:
    metrics = list(dict.fromkeys(results.comparison["metric"]))
    if not metrics:
        return ""
    ordered = sorted(metrics, key=lambda name: (name != metric, name.startswith("validation_"), metrics.index(name)))
    shown = [
        f"<h3>{page.text(metric_name(name))} {page.code(name)}</h3>" + tables.comparison(results, name, looks)
        for name in ordered
    ]
    first = results.comparison[results.comparison["metric"] == ordered[0]].iloc[0]
    counts = [
        style.count(first["women"], "test woman", "test women"),
        style.count(first["lesions"], "lesion patch", "lesion patches"),
        style.count(first["normals"], "normal patch", "normal patches"),
        style.count(first["seeds"], "seed"),
        style.count(first["folds"], "fold"),
    ]
    words = (
        f"n = {', '.join(count for count in counts if count)}. Values are means over the seeds; in brackets: "
        f"{interval}. Differences are paired, on the same women, from {first['reference']}; Holm p is corrected over "
        "the variants of one metric; the controls are a family of their own."
    )
    more = [page.folded(f"{len(shown) - 1} further metrics", *shown[1:])] if len(shown) > 1 else []
    return page.section("Comparison", shown[0], page.note(words), *more)


def _forest(results: Results, metric: str | None, looks: dict[str, style.Look], interval: str) -> str:
    effects = forest.data(results.comparison, str(metric))
    if effects.empty:
        return ""
    reference = str(results.experiment["reference"])
    drawn = forest.draw(effects, str(metric), reference, looks, interval)
    return page.section(drawn.layout.meta["title"], page.figure(drawn, "forest", titled=False))


def _effects(results: Results, metric: str | None, interval: str) -> str:
    recorded = results.effects()
    if recorded.empty:
        return ""
    told = effects.data(recorded)
    untold = recorded[recorded["effect"].isna()]
    kinds = {"main": "Effects of the factors", "interaction": "Interactions"}
    notes = [page.note(f"{kinds.get(row['kind'], row['kind'])} are not told: {row['note']}.")
             for row in style.records(untold)]  # fmt: skip
    notes += [page.note(f"{note}.") for note in dict.fromkeys(recorded["note"][recorded["effect"].notna()]) if note]
    if told.empty:
        return page.section("Effects of the factors", *notes)
    drawn = effects.draw(told, str(metric), interval)
    parts = [page.figure(drawn, "effects", titled=False), *notes, _effects_table(told)]
    found = effects.means(results.experiment["settings"] or {}, results.comparison, str(metric), told)
    if len(found):
        words = (
            "Where the lines are parallel, two factors act independently. The points are means without intervals: "
            "whether "
            "lines differ more than by luck is told by the interaction's interval above."
        )
        parts += ["<h3>Two factors together</h3>", page.note(words)]
        parts.append(page.grid(effects.draw_means(found, str(metric)), "interaction"))
    return page.section(drawn.layout.meta["title"], *parts)


def _effects_table(told: pd.DataFrame) -> str:
    lines = [
        [
            page.text(row["term"]),
            page.text(row["contrast"]),
            style.interval(row["effect"], row["effect_low"], row["effect_high"], sign=True),
            page.text(style.probability(row["p"])),
            page.text(style.probability(row["p_holm"])),
        ]
        for row in style.records(told)
    ]
    table = page.table(["", "levels", "effect [interval]", "p", "Holm p"], lines, words=[1])
    return page.folded("The effects as a table", table)


def _importance(results: Results) -> str:
    recorded = results.importance()
    found = importance.data(recorded)
    if found.empty:
        return ""
    notes = [page.note(words) for words in importance.notes(recorded)]
    return page.section("Importance of the options", page.grid(importance.draw(found), "importance"), *notes)


def _seeds(results: Results, metric: str | None, looks: dict[str, style.Look]) -> str:
    values = seeds.data(results.trials, str(metric))
    if values.empty or results.experiment["kind"] == "search":
        return ""
    return page.section("Every seed", page.figure(seeds.draw(values, str(metric), looks), "seeds", titled=False))


def _finished(results: Results) -> pd.DataFrame:
    return results.trials[results.trials["state"] == "finished"]


def _learning(results: Results, looks: dict[str, style.Look]) -> str:
    trials = _finished(results)
    if results.experiment["kind"] == "search":
        trials = _finished(search.searched(results)).head(search.SHOWN)
    curves = learning_curves.data(trials, {name: results.epochs(name) for name in trials["trial_id"]})
    if curves.empty:
        return ""
    names = list(dict.fromkeys(curves["variant"]))
    words = (
        "Thick: mean of the seeds; thin: each seed; the two networks averaged. A loss cannot tell a good pretraining "
        "from a collapsed one: look at the effective rank and the distances too. No intervals."
    )
    below = "Raw distances of the pairs, by variant: the median, 25 to 75 % and 5 to 95 % (shaded); mean of the seeds."
    return page.section(
        "Training",
        page.legend(names, looks),
        page.grid(learning_curves.draw(curves, looks), "learning"),
        page.note(words),
        "<h3>Distances by epoch</h3>",
        page.note(below),
        page.grid(learning_curves.draw_quantiles(curves, looks), "quantiles"),
    )


def _distances(results: Results, looks: dict[str, style.Look]) -> str:
    trials = _finished(results).drop_duplicates("variant")
    if results.experiment["kind"] == "search":
        trials = _finished(search.searched(results)).head(search.SHOWN)
    curves = distance_histogram.data(
        {row["variant"]: results.distances(row["trial_id"]) for row in style.records(trials)}
    )
    if curves.empty:
        return ""
    source = "Training pairs of the first seed of a variant, network A"
    drawn = distance_histogram.draw(curves, looks, source)
    return page.section(drawn.layout.meta["title"], page.figure(drawn, "distances", titled=False))


def _cost(results: Results, metric: str | None, looks: dict[str, style.Look], interval: str) -> str:
    costs = cost.data(results.trials, results.comparison, str(metric))
    if costs.empty:
        return ""
    return page.section("Cost", page.figure(cost.draw(costs, str(metric), looks, interval), "cost", titled=False))


def _examples(results: Results) -> str:
    for row in style.records(_finished(results)):
        kept = results.examples(row["trial_id"])
        if kept.images and len(kept.maps):
            break
    else:
        return ""
    low, high = (float(end) for end in kept.maps["distance"].quantile([0.01, 0.99]))
    grids = []
    for i, (entry, (left, right)) in enumerate(kept.images.items()):
        own_maps, own_boxes = (frame[frame["entry_id"] == entry] for frame in (kept.maps, kept.boxes))
        panels = page.grid(examples.draw(left, right, own_maps, own_boxes, (low, high)), f"example-{i}")
        grids.append(f"<h3>{page.text(entry)}</h3>{panels}")
    words = (
        f"Test exams of {row['variant']}, seed {row['seed']}. The distance flags a pair of patches, not a side. Boxes "
        f"are annotated findings: solid of the left image, dashed of the right. n = {len(grids)} images and their "
        "partners, which show what the map looks like, not how good it is."
    )
    shown = pairs.lines(kept)
    if shown:
        of_pairs = (
            "Pairs of the same trial's test women, at most one of a woman in a line: left beside right, the lesion's "
            "side framed, the woman, the finding and the distance below. They are its extremes, not its average."
        )
        shown.insert(0, page.note(of_pairs))
    return page.section("Examples", page.note(words), *grids, *shown)


def _trials(results: Results, metric: str | None, looks: dict[str, style.Look]) -> str:
    failed = tables.failures(results)
    parts = [f"<h3>Not finished</h3>{failed}"] if failed else []
    if len(results.trials) and results.experiment["kind"] != "search":
        parts.append(page.folded(f"All {len(results.trials)} trials", tables.trials(results, metric, looks)))
    return page.section("Trials", *parts) if parts else ""


def main(arguments: list[str]) -> None:
    """Writes the report of ``results=DIR/EXPERIMENT`` again, here or at a URL, and prints where.

    Args:
        arguments: of the command line.

    Raises:
        UserError: the arguments, or what they name, are wrong.
    """
    usage = "usage: python -m dashboards.report results=DIR/EXPERIMENT"
    if arguments and arguments[0] in ("-h", "--help"):
        print(usage)
        return
    given = dict(argument.partition("=")[::2] for argument in arguments)
    for name in given:
        if name != "results":
            raise UserError(f"unknown option '{name}'{nearest(name, ['results'])}; {usage}")
    if not given.get("results"):
        raise UserError(usage)
    print(send_file(given["results"], write_report(fetched(given["results"]))))


if __name__ == "__main__":
    run_command(main)
