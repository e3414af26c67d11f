"""The command ``python -m siamray.sweep``: an ablation or a search, from exams to a compared table and a report."""

import dataclasses
import itertools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from dashboards.across import write_page
from dashboards.report import write_report
from siamray.cluster import connected
from siamray.compose import compose, compose_variant, words_by_option
from siamray.config import AblationConfig, Config
from siamray.data.preparation import once_per_preparation, prepare
from siamray.data.store import Store
from siamray.errors import UserError, run_command
from siamray.files import Location, location, space_for, write_parquet
from siamray.provenance import uncommitted_diff
from siamray.sweeps import results, status, tables, tuning, verification
from siamray.sweeps.ablation import Trial, base_words, blocks, compose_variants, list_trials
from siamray.sweeps.across import PAGE_SUFFIX, render
from siamray.sweeps.across import write_tables as write_across
from siamray.sweeps.asked_metrics import check_metric
from siamray.sweeps.averaging import average_over
from siamray.sweeps.checking import check_cluster
from siamray.sweeps.designs import make_design
from siamray.sweeps.differences import variant_differences
from siamray.sweeps.driver import sole_driver
from siamray.sweeps.experiment_record import check_kind, experiment_record, search_record, write_images
from siamray.sweeps.export import write_tables
from siamray.sweeps.fixed_arithmetic import fix_arithmetic
from siamray.sweeps.mlflow_export import check_tracking, export_runs
from siamray.sweeps.printing import (
    print_comparison,
    print_found,
    print_plan,
    print_search,
    progress_line,
    table_console,
)
from siamray.sweeps.progress import Progress, Shown, way
from siamray.sweeps.remote_results import worked_on
from siamray.sweeps.runner import run_trials, unfinished, without_record
from siamray.sweeps.search import Selection, run_search
from siamray.sweeps.sharing import share, shareable
from siamray.sweeps.standings import Standings
from siamray.sweeps.study import check_search, metrics_sought, objectives
from siamray.sweeps.trial_comparison import compare_trials, factor_effects
from siamray.sweeps.tuning import Chosen, Plan, plan_tuning, tuned_variants

# Of a search: what it selected, and what that is compared with on fresh seeds.
WINNER = "winner"
BASE = "base"


def main(words: list[str]) -> None:
    """Runs what the command line asks for; run again, it goes on where it stopped.

    Args:
        words: the command line.

    Raises:
        UserError: whatever the user can mend.
    """
    if words and words[0] in SUBCOMMANDS:
        SUBCOMMANDS[words[0]](words[1:])
        return
    config = compose("sweep", words)
    if config.ablation is not None and config.ablation.base:
        config = compose("sweep", [*config.ablation.base, *words])
    if (config.ablation is None) == (config.search is None):
        raise UserError("name one ablation=NAME or one search=NAME; --help lists them")
    if config.check:
        check_cluster(config, table_console())
        return
    check_tracking(config)
    asked = config.ablation or config.search
    assert asked is not None
    with worked_on(config.results, asked.name, look=config.dry_run) as folder:
        _run(dataclasses.replace(config, results=str(folder)), words, Console(stderr=True))
    if "://" in config.results and not config.dry_run:
        print(f"results: {location(config.results) / asked.name}")


def _run(config: Config, words: list[str], console: Console) -> None:
    """Runs an ablation or a search whose results lie in a folder of this machine."""
    if config.ablation is not None:
        run_ablation(config, words, console)
    elif config.search is not None:
        check_search(config.search)
        for metric in metrics_sought(config.search):
            check_metric(metric, config)
        run_searching(config, words, console)


def run_ablation(config: Config, words: list[str], console: Console) -> None:
    """Runs an ablation: prepare, trials, comparison, table, report."""
    ablation = config.ablation
    assert ablation is not None
    experiment = Path(config.results) / ablation.name
    made = make_design(config)
    config = dataclasses.replace(config, ablation=made.ablation)
    composed = compose_variants(config, words)
    check_metric(ablation.metric, config)
    for name, variant in composed.items():
        check_metric(ablation.metric, variant, name)
    plan = plan_tuning(config, composed)
    differences = variant_differences(made.ablation, composed)
    check_kind(experiment, "ablation", made.ablation.question)
    if config.dry_run:
        print_plan(config, made, composed, differences, plan)
        return
    with sole_driver(experiment), space_for(experiment), ExitStack() as held:
        store_of = once_per_preparation(prepare)

        def settle(chosen: Config) -> tuple[Config, str]:
            return fix_arithmetic(chosen, experiment), store_of(chosen).fingerprint

        common = {
            **experiment_record(config, words, store_of(composed[made.ablation.reference])),
            "design": made.record(),
            "settings": made.settings,
            "differences": differences,
        }
        results.write_diff(experiment, uncommitted_diff())
        write_images(experiment, store_of(composed[made.ablation.reference]))
        try:
            tuned: dict[tuple[str, int], Config] = {}
            ids: list[str] = []
            if plan is not None:
                chosen, table = _tune(
                    config, words, plan, composed, settle, store_of, common, experiment, console, held
                )
                tuned = tuned_variants(config, words, chosen)
                common["tuning"] = tuning.record(made.ablation, plan, chosen)
                ids = [trial_id for trial_id in table.trial_id.unique() if trial_id]
            trials = list_trials(config, composed, settle, tuned)
            compared = [trial.trial_id for trial in trials]
            results.write_experiment(experiment, {**common, "trials": [*ids, *compared]})
            _bring_to_end(config, trials, made.ablation.metric, store_of, experiment, console, made.ablation.question)
        finally:
            # Also where a signal ends the sweep: what has ended is in the table.
            if (experiment / results.EXPERIMENT_FILE).exists():
                done = results.collect(experiment)
        done = done[done.trial_id.isin(compared)]
        comparison = compare_trials(config, trials, experiment)
        write_parquet(experiment / results.COMPARISON_FILE, comparison)
        effects = factor_effects(config, made, trials, experiment)
        if effects is not None:
            write_parquet(experiment / results.EFFECTS_FILE, effects)
        report = write_report(experiment)
    if plan is not None:
        table_console().print(tables.tuning_table(table, plan.metric, made.ablation.metric))
    print_comparison(config, comparison, done)
    if effects is not None:
        for part in tables.effects_parts(effects, ablation.metric, config.downstream.intervals.confidence):
            table_console().print(part)
    print(f"report: {report}")
    _track(config, experiment)
    failed = done[done.state != "finished"]
    if len(failed):
        raise UserError(
            f"{len(failed)} of {len(trials)} trials failed, first {failed.trial_id.iloc[0]}: {failed.reason.iloc[0]}; "
            "the same command tries them again"
        )


def _bring_to_end(
    config: Config,
    trials: list[Trial],
    metric: str,
    store_of: Callable[[Config], Store],
    experiment: Path,
    console: Console,
    *lines: str,
    again: bool = True,
) -> None:
    """Runs those of some trials that have not finished, or takes them from an experiment that has.

    Args:
        config: of the sweep.
        trials: what shall be there afterwards.
        metric: shown while they run.
        store_of: gives the prepared exams of a configuration.
        experiment: ``<results>/<experiment>``.
        console: progress is printed there, after the lines.
        lines: what is said before.
        again: whether trials that failed before are tried again.
    """
    by_trial = {trial.trial_id: store_of(trial.config) for trial in trials}
    remaining = unfinished(trials, experiment) if again else without_record(trials, experiment)
    same = shareable(remaining, {name: store.fingerprint for name, store in by_trial.items()}, experiment)
    for trial in remaining:
        if trial.trial_id in same:
            share(trial, same[trial.trial_id], experiment)
    still = [trial for trial in remaining if trial.trial_id not in same]
    shown = _shown(config, metric, trials, still, experiment, console)
    for line in (*lines, progress_line(len(trials), len(trials) - len(remaining), same)):
        shown.say(line)
    run_trials(still, {name: store.path for name, store in by_trial.items()}, experiment, config.cluster, shown)


def _tune(
    config: Config,
    words: list[str],
    plan: Plan,
    composed: dict[str, Config],
    settle: Callable[[Config], tuple[Config, str]],
    store_of: Callable[[Config], Store],
    common: dict[str, Any],
    experiment: Path,
    console: Console,
    held: ExitStack,
) -> tuple[Chosen, pd.DataFrame]:
    """Tunes the variants and writes tuning.parquet; see tuning.tune. What was started for it is held for later."""
    ablation = config.ablation
    assert ablation is not None
    compared = len(composed) * len(list(itertools.product(*blocks(config))))
    rounds = itertools.count(1)

    def run(trials: list[Trial], known: list[str]) -> dict[str, dict[str, Any]]:
        now = {"tuning": tuning.record(ablation, plan, {}), "trials": known, "planned": plan.trials + compared}
        results.write_experiment(experiment, {**common, **now})
        if without_record(trials, experiment):
            # Starting Ray takes longer than drawing a setting: one Ray for all rounds and the comparison.
            held.enter_context(connected(config.cluster))
        line = f"tuning: setting {next(rounds)} of {plan.settings}"
        _bring_to_end(config, trials, plan.metric, store_of, experiment, console, line, again=False)
        folders = [experiment / results.TRIALS_FOLDER / trial.trial_id for trial in trials]
        return {folder.name: results.read_trial(folder) for folder in folders}

    chosen, table = tuning.tune(config, words, plan, composed, settle, run)
    write_parquet(experiment / results.TUNING_FILE, table)
    return chosen, table


def run_searching(config: Config, words: list[str], console: Console) -> None:
    """Runs a search: prepare, Optuna's trials, the selection, and the winner against the base on fresh seeds."""
    search = config.search
    assert search is not None
    experiment = Path(config.results) / search.name
    if config.dry_run:
        print_search(search)
        return
    with sole_driver(experiment), space_for(experiment):
        store = prepare(config)
        check_kind(experiment, "search", search.question)
        record = search_record(config, words, store)
        if not (experiment / results.EXPERIMENT_FILE).exists():
            results.write_experiment(experiment, record)
        results.write_diff(experiment, uncommitted_diff())
        write_images(experiment, store)
        found = run_search(config, words, store, experiment, console)
        write_parquet(experiment / results.SELECTION_FILE, found.table)
        write_parquet(experiment / results.IMPORTANCE_FILE, found.importance)
        planned, trials = _confirmation(config, words, found, store, experiment)
        remaining = unfinished(trials, experiment)
        if remaining:
            assert planned.ablation is not None
            shown = _shown(planned, planned.ablation.metric, trials, remaining, experiment, console)
            paths = {trial.trial_id: store.path for trial in trials}
            run_trials(remaining, paths, experiment, config.cluster, shown)
        tested = [metric.removeprefix("validation_") for metric in metrics_sought(search)]
        comparison = (
            compare_trials(planned, trials, experiment, tested)
            if trials
            else pd.DataFrame(columns=list(results.COMPARISON_COLUMNS))
        )
        write_parquet(experiment / results.COMPARISON_FILE, comparison)
        ids = [trial.trial_id for trial in trials]
        record |= {"trials": [*found.trials, *ids], "seeds": sorted({config.seed, *(trial.seed for trial in trials)})}
        if planned.ablation is not None:
            record |= {"reference": BASE, "variants": record["variants"] | planned.ablation.variants}
        results.write_experiment(experiment, record)
        done = results.collect(experiment)
        report = write_report(experiment)
    print_found(found, objectives(search))
    if len(found.importance):
        table_console().print(tables.importance_table(found.importance))
    done = done[done.trial_id.isin(ids)]
    if planned.ablation is not None:
        print_comparison(planned, comparison, done, tested)
    print(f"report: {report}")
    _track(config, experiment)
    if found.winner is None:
        failed = found.table[found.table.state == "failed"]
        first = f"; the first failed: {failed.reason.iloc[0]}" if len(failed) else ""
        raise UserError(f"{experiment}: none of {len(found.table)} settings was trained to its end{first}")
    if len(failed := done[done.state != "finished"]):
        raise UserError(
            f"{len(failed)} of {len(done)} trials on fresh seeds failed, first {failed.trial_id.iloc[0]}: "
            f"{failed.reason.iloc[0]}; the same command tries them again"
        )


def export(words: list[str]) -> None:
    """Writes the results of ``results=DIR/EXPERIMENT`` as tables, or to MLflow; to both where out= is given too.

    Args:
        words: the command line after ``export``.

    Raises:
        UserError: no such experiment, or the file cannot be written, or the server cannot be reached.
    """
    config = compose("sweep export", words)
    check_tracking(config)
    if config.tracking == "none" or any(word.startswith("out=") for word in words):
        for path in write_tables(location(config.results), Path(config.out)):
            print(path)
    _track(config, location(config.results))


def across(words: list[str]) -> None:
    """Prints what variants are worth over the tasks of ``results=DIR/EXPERIMENT``, or of several: [DIR/A,DIR/B].

    Args:
        words: the command line after ``across``.

    Raises:
        UserError: see average_over, or the file cannot be written.
    """
    given = words_by_option([word for word in words if "=" in word])
    folders = [folder.strip() for folder in given.pop("results", "results").strip("[]").split(",") if folder.strip()]
    # Whatever is no option=value, --help among it, is for compose to answer.
    rest = [*(word for word in words if "=" not in word), *(f"{name}={value}" for name, value in given.items())]
    configs = [compose("sweep across", [*rest, f"results={folder}"]) for folder in folders or ["results"]]
    found = average_over([config.results for config in configs], configs[0].metrics)
    for part in render(found):
        table_console().print(part)
    out = Path(configs[0].out)
    if "out" in given:
        for path in [write_page(found, out)] if out.suffix == PAGE_SUFFIX else write_across(found, out):
            print(path)


SUBCOMMANDS = {"status": status.main, "export": export, "verify": verification.main, "across": across}


def _track(config: Config, experiment: Location) -> None:
    """Exports an experiment to where else it shall be seen."""
    if config.tracking == "mlflow":
        done = export_runs(experiment, config.tracking_uri)
        print(f"MLflow at {done.address}: {done.new} runs new, {done.renewed} made anew, {done.unchanged} there before")


def _confirmation(
    config: Config, words: list[str], found: Selection, store: Store, experiment: Path
) -> tuple[Config, list[Trial]]:
    """Plans the comparison of a search's winner with the untouched base: an ablation on fresh seeds and test women.

    Returns:
        The configuration of the ablation and its trials; no ablation and no trials where none is asked for, nothing was
        selected, or the winner is the base itself.
    """
    search = config.search
    assert search is not None
    none = dataclasses.replace(config, search=None)
    if found.winner is None or search.confirm == 0:
        return none, []
    asked = AblationConfig(
        name=search.name,
        question=search.question,
        reference=BASE,
        metric=metrics_sought(search)[0].removeprefix("validation_"),
        variants={BASE: [], WINNER: found.winner},
    )
    planned = dataclasses.replace(none, ablation=asked, seed=found.fresh_seed, seeds=search.confirm)
    composed = {
        name: fix_arithmetic(compose_variant("sweep", base_words(words), overrides), experiment)
        for name, overrides in asked.variants.items()
    }
    if composed[BASE] == composed[WINNER]:
        found.notes.append("the winner is the base itself: there is nothing to confirm")
        return none, []
    return planned, list_trials(planned, composed, lambda chosen: (chosen, store.fingerprint))


def _shown(
    config: Config, metric: str, trials: list[Trial], still: list[Trial], experiment: Path, console: Console
) -> Shown:
    """Makes what shows the progress of trials, of which some still run."""
    by_id = {trial.trial_id: trial for trial in trials}
    return Shown(
        Progress(by_id, set(by_id) - {trial.trial_id for trial in still}),
        way(config.progress, console),
        console,
        metric,
        Standings(experiment, metric, by_id, config.downstream.intervals),
    )


if __name__ == "__main__":
    run_command(main)
