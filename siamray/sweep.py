"""The command ``python -m siamray.sweep``: an ablation or a search, from exams to a compared table and a report."""

import dataclasses
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dashboards.report import write_report
from siamray.compose import compose, compose_variant
from siamray.config import AblationConfig, Config, SearchConfig
from siamray.data.preparation import existing_store, prepare
from siamray.data.store import Store
from siamray.downstream.froc import RATES
from siamray.downstream.metrics import parse_metric
from siamray.errors import UserError, run_command
from siamray.files import write_parquet
from siamray.provenance import environment, git_state, uncommitted_diff, versions
from siamray.sweeps import results, status, tables, verification
from siamray.sweeps.ablation import Trial, base_words, compose_variants, list_trials, shared_words
from siamray.sweeps.comparison import HEAD_SCORE, compare, measured
from siamray.sweeps.cost import estimate
from siamray.sweeps.designs import Design, make_design
from siamray.sweeps.differences import variant_differences
from siamray.sweeps.driver import sole_driver
from siamray.sweeps.export import write_tables
from siamray.sweeps.factorial import factorial_effects
from siamray.sweeps.fixed_arithmetic import fix_arithmetic
from siamray.sweeps.progress import Progress, Shown, way
from siamray.sweeps.runner import run_trials, unfinished
from siamray.sweeps.search import VARIANT, Selection, run_search
from siamray.sweeps.sharing import share, shareable
from siamray.sweeps.standings import Standings
from siamray.sweeps.study import check_search, metrics_sought, objectives, sampler_limits

_Store = TypeVar("_Store", Store, Store | None)

# Compared beside the primary metric, each a family of its own: what the encoder's features are worth to another
# classifier, what the distance tells without any label, and what they are worth in the other tasks.
SECONDARY_METRICS = {
    "patches": ("patches_linear_ap", "patches_knn20_auc", "patches_distance_auc"),
    "birads": ("birads_attention_macro_auc", "birads_attention_kappa", "birads_attention_macro_f1"),
    "outcome": ("outcome_attention_auc",),
    "density": ("density_attention_macro_auc",),
    "detection": ("detection_distance_froc_mean", "detection_linear_froc_mean"),
}
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
    console = Console(stderr=True)
    if config.ablation is not None:
        _check_metric(config.ablation.metric, config)
        run_ablation(config, words, console)
    elif config.search is not None:
        check_search(config.search)
        for metric in metrics_sought(config.search):
            _check_metric(metric, config)
        run_searching(config, words, console)


def run_ablation(config: Config, words: list[str], console: Console) -> None:
    """Runs an ablation: prepare, trials, comparison, table, report."""
    ablation = config.ablation
    assert ablation is not None
    experiment = Path(config.results) / ablation.name
    made = make_design(config)
    config = dataclasses.replace(config, ablation=made.ablation)
    composed = compose_variants(config, words)
    differences = variant_differences(made.ablation, composed)
    _check_kind(experiment, "ablation", made.ablation.question)
    if config.dry_run:
        _print_plan(config, made, composed, differences)
        return
    with sole_driver(experiment):
        store_of = _once_per_preparation(prepare)
        trials = list_trials(
            config, composed, lambda chosen: (fix_arithmetic(chosen, experiment), store_of(chosen).fingerprint)
        )
        by_trial = {trial.trial_id: store_of(trial.config) for trial in trials}
        record = _experiment_record(config, words, trials, by_trial[trials[0].trial_id])
        results.write_experiment(
            experiment,
            {**record, "design": made.record(), "settings": made.settings, "differences": differences},
        )
        results.write_diff(experiment, uncommitted_diff())
        remaining = unfinished(trials, experiment)
        same = shareable(remaining, {name: store.fingerprint for name, store in by_trial.items()}, experiment)
        for trial in remaining:
            if trial.trial_id in same:
                share(trial, same[trial.trial_id], experiment)
        still = [trial for trial in remaining if trial.trial_id not in same]
        shown = _shown(config, trials, still, experiment, console)
        shown.say(ablation.question)
        shown.say(_progress_line(len(trials), len(trials) - len(remaining), same))
        try:
            run_trials(still, {name: store.path for name, store in by_trial.items()}, experiment, config.cluster, shown)
        finally:
            # Also where a signal ends the sweep: what has ended is in the table.
            done = results.collect(experiment)
        comparison = compare_trials(config, trials, experiment)
        write_parquet(experiment / results.COMPARISON_FILE, comparison)
        effects = factor_effects(config, made, trials, experiment)
        if effects is not None:
            write_parquet(experiment / results.EFFECTS_FILE, effects)
        report = write_report(experiment)
    _print_comparison(config, comparison, done)
    if effects is not None:
        _table_console().print(tables.effects_table(effects, ablation.metric, config.downstream.intervals.confidence))
    print(f"report: {report}")
    failed = done[done.state != "finished"]
    if len(failed):
        raise UserError(
            f"{len(failed)} of {len(trials)} trials failed, first {failed.trial_id.iloc[0]}: {failed.reason.iloc[0]}; "
            "the same command tries them again"
        )


def run_searching(config: Config, words: list[str], console: Console) -> None:
    """Runs a search: prepare, Optuna's trials, the selection, and the winner against the base on fresh seeds."""
    search = config.search
    assert search is not None
    experiment = Path(config.results) / search.name
    if config.dry_run:
        _print_search(search)
        return
    with sole_driver(experiment):
        store = prepare(config)
        _check_kind(experiment, "search", search.question)
        record = _search_record(config, words, store)
        if not (experiment / results.EXPERIMENT_FILE).exists():
            results.write_experiment(experiment, record)
        results.write_diff(experiment, uncommitted_diff())
        found = run_search(config, words, store, experiment, console)
        write_parquet(experiment / results.SELECTION_FILE, found.table)
        write_parquet(experiment / results.IMPORTANCE_FILE, found.importance)
        planned, trials = _confirmation(config, words, found, store, experiment)
        remaining = unfinished(trials, experiment)
        if remaining:
            shown = _shown(planned, trials, remaining, experiment, console)
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
    _print_found(found, objectives(search))
    if len(found.importance):
        _table_console().print(tables.importance_table(found.importance))
    done = done[done.trial_id.isin(ids)]
    if planned.ablation is not None:
        _print_comparison(planned, comparison, done, tested)
    print(f"report: {report}")
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
    """Writes the results of ``results=DIR/EXPERIMENT`` as tables.

    Args:
        words: the command line after ``export``.

    Raises:
        UserError: no such experiment, or the file cannot be written.
    """
    config = compose("sweep export", words)
    for path in write_tables(Path(config.results), Path(config.out)):
        print(path)


SUBCOMMANDS = {"status": status.main, "export": export, "verify": verification.main}


def _search_record(config: Config, words: list[str], store: Store) -> dict[str, Any]:
    search = config.search
    assert search is not None
    sought = objectives(search)
    return {
        **_common_record(config, words, store),
        "name": search.name,
        "kind": "search",
        "question": search.question,
        "metric": next(iter(sought)),
        "objectives": sought,
        "variants": {VARIANT: list(search.parameters)},
        "planned": search.trials,
        "seeds": [config.seed],
        "folds": [config.data.fold],
    }


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


def factor_effects(config: Config, made: Design, trials: list[Trial], experiment: Path) -> pd.DataFrame | None:
    """Estimates main effects and two-way interactions of a factorial on its primary metric.

    Args:
        config: of the sweep, with its ablation written out.
        made: the design.
        trials: all trials of the sweep.
        experiment: ``<results>/<experiment>``.

    Returns:
        EFFECT_COLUMNS; main effects alone of a fraction that does not tell interactions from one another. None where
        the design is no factorial, or its finished trials do not tell its effects apart.
    """
    if made.kind != "factorial":
        return None
    predictions = _predictions(results.load(experiment), [trial for trial in trials if trial.variant in made.settings])
    assert config.ablation is not None
    metric, intervals = config.ablation.metric, config.downstream.intervals
    with suppress(UserError):
        outcomes = measured(predictions, [metric], intervals)[metric]
        for interactions in (True, False):
            with suppress(UserError):
                return factorial_effects(made.settings, outcomes, intervals, interactions=interactions)
    return None


def compare_trials(config: Config, trials: list[Trial], experiment: Path, further: Sequence[str] = ()) -> pd.DataFrame:
    """Compares every variant and control with the reference, metric by metric.

    Args:
        config: of the sweep.
        trials: all of its trials; those not finished are missing from the comparison, which says so.
        experiment: ``<results>/<experiment>``.
        further: metrics beside the primary one and those that every ablation compares.

    Returns:
        The columns of comparison.parquet, primary metric first; no rows if the reference has no finished trial.
    """
    ablation = config.ablation
    assert ablation is not None
    loaded = results.load(experiment)
    predictions = _predictions(loaded, trials)
    if not any(variant == ablation.reference for variant, _, _ in predictions):
        return pd.DataFrame(columns=list(results.COMPARISON_COLUMNS))
    seconds = loaded.trials.set_index("trial_id").wall_s
    costs = {
        (trial.variant, trial.seed, trial.fold): float(seconds.get(trial.trial_id, float("nan"))) for trial in trials
    }
    of_reference = [table for (variant, _, _), table in predictions.items() if variant == ablation.reference]
    # A score that only encoders with a head have.
    of_head = ["patches_abnormality_auc"] if all(table.score.eq(HEAD_SCORE).any() for table in of_reference) else []
    compared = [
        compare(
            predictions,
            ablation.reference,
            metric,
            ablation.variants,
            ablation.controls,
            config.downstream.intervals,
            costs,
        )
        for metric in dict.fromkeys((ablation.metric, *further, *_secondary_metrics(config), *of_head))
    ]
    return pd.concat(compared, ignore_index=True)


def _predictions(loaded: results.Results, trials: list[Trial]) -> dict[tuple[str, int, int], pd.DataFrame]:
    """Reads what the finished ones of some trials predicted: (variant, seed, fold) -> predictions."""
    finished = set(loaded.trials.trial_id[loaded.trials.state == "finished"])
    return {
        (trial.variant, trial.seed, trial.fold): loaded.predictions(trial.trial_id)
        for trial in trials
        if trial.trial_id in finished
    }


def _check_metric(metric: str, config: Config) -> None:
    """Refuses a metric that no trial would have.

    Raises:
        UserError: the name is no metric's, or its task, its share of the women or fine-tuning is not asked for.
    """
    _, task, score, _ = parse_metric(metric)
    asked = config.downstream
    if task not in asked.tasks:
        tasks = ",".join([*asked.tasks, task])
        raise UserError(
            f"metric {metric}: its task is not asked; say downstream.tasks=[{tasks}] or name another metric"
        )
    _, _, share = score.partition("@")
    if share and share not in {f"{100 * fraction:g}" for fraction in asked.label_fractions if fraction < 1}:
        raise UserError(f"metric {metric}: {share} % of the women is no share of downstream.label_fractions; add it")
    if metric.endswith("froc_mean") and tuple(asked.detection.false_positives) != RATES:
        raise UserError(
            f"metric {metric}: it is the mean at {', '.join(f'{rate:g}' for rate in RATES)} false positives per image; "
            "leave downstream.detection.false_positives as it is, or name the sensitivity at one rate, such as froc_1"
        )
    if score.startswith("finetuned") and asked.fine_tuning.epochs == 0:
        raise UserError(
            f"metric {metric}: nothing is fine-tuned; say downstream.fine_tuning.epochs=15 or another number"
        )


def _secondary_metrics(config: Config) -> list[str]:
    return [metric for task in config.downstream.tasks for metric in SECONDARY_METRICS.get(task, ())]


def _printed_metrics(config: Config) -> list[str]:
    """The metrics that the terminal shows beside the primary one: one of every task; the report shows all."""
    shown = {task: metrics[0] for task, metrics in SECONDARY_METRICS.items()} | {"patches": "patches_distance_auc"}
    return [shown[task] for task in config.downstream.tasks if task in shown]


def _check_kind(experiment: Path, kind: str, question: str) -> None:
    """Refuses an experiment folder in which another kind of question was asked.

    Raises:
        UserError: naming the folder.
    """
    if not (experiment / results.EXPERIMENT_FILE).exists():
        return
    stored = results.read_experiment(experiment)
    if stored["kind"] != kind or stored["question"] != question:
        raise UserError(f"{experiment} holds another question ('{stored['question']}'); name another results=DIR")


def _common_record(config: Config, words: list[str], store: Store) -> dict[str, Any]:
    counts = store.split(config.data).value_counts()
    return {
        "base_overrides": shared_words(config, words),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m siamray.sweep {shlex.join(words)}",
        "data": {
            "source": config.data.source,
            "store_fingerprint": store.fingerprint,
            "women": {name: int(counts.get(name, 0)) for name in ("training", "validation", "test")},
        },
        "versions": versions(),
        "git": git_state(),
        "environment": environment(),
    }


def _experiment_record(config: Config, words: list[str], trials: list[Trial], store: Store) -> dict[str, Any]:
    ablation = config.ablation
    assert ablation is not None
    return {
        **_common_record(config, words, store),
        "name": ablation.name,
        "kind": "ablation",
        "question": ablation.question,
        "reference": ablation.reference,
        "metric": ablation.metric,
        "variants": ablation.variants,
        "controls": ablation.controls,
        "seeds": sorted({trial.seed for trial in trials}),
        "folds": sorted({trial.fold for trial in trials}),
        "trials": [trial.trial_id for trial in trials],
    }


def _print_plan(
    config: Config, made: Design, composed: dict[str, Config], differences: dict[str, dict[str, Any]]
) -> None:
    """Prints the design, what would run and what it would cost."""
    experiment = Path(config.results) / made.ablation.name
    store_of = _once_per_preparation(existing_store)

    def fingerprint(chosen: Config) -> str:
        store = store_of(chosen)
        return "not prepared" if store is None else store.fingerprint

    trials = list_trials(
        config, composed, lambda chosen: (fix_arithmetic(chosen, experiment, keep=False), fingerprint(chosen))
    )
    remaining = unfinished(trials, experiment)
    same = shareable(remaining, {trial.trial_id: fingerprint(trial.config) for trial in trials}, experiment)
    to_run = {trial.trial_id for trial in remaining} - set(same)
    for line in made.lines():
        print(line)
    progress = _progress_line(len(trials), len(trials) - len(remaining), same)
    table = Table("variant", "role", "differs in", "to run", "estimated each", title=progress)
    known: dict[tuple[str, int], float] = {}
    total, basis = 0.0, ""
    reference = differences[made.ablation.reference]
    for name in composed:
        of_variant = [trial for trial in trials if trial.variant == name]
        cost = estimate(of_variant[0], store_of(composed[name]), known)
        number = sum(trial.trial_id in to_run for trial in of_variant)
        basis = cost.basis
        total += number * (cost.seconds or 0.0)
        own = {
            option: value
            for option, value in differences[name].items()
            if name == made.ablation.reference or option not in reference or reference[option] != value
        }
        table.add_row(
            name,
            "reference" if name == made.ablation.reference else of_variant[0].role,
            escape(" ".join(f"{option}={value}" for option, value in own.items())),
            f"{number} of {len(of_variant)}",
            "unknown" if cost.seconds is None else f"{cost.seconds:.0f} s",
        )
    _table_console().print(table)
    seeds, folds = sorted({trial.seed for trial in trials}), sorted({trial.fold for trial in trials})
    print(f"seeds {', '.join(map(str, seeds))}; test folds {', '.join(map(str, folds))}")
    cpus = config.cluster.cpus * max(1, config.cluster.workers)
    print(
        f"training of all trials to run: about {total * cpus / 3600:.2f} CPU hours ({basis}), evaluation beside it; "
        "nothing was run"
    )
    first = store_of(trials[0].config)
    print(f"store: {first.path if first else 'not prepared yet'}")


def _once_per_preparation(of: Callable[[Config], _Store]) -> Callable[[Config], _Store]:
    """Makes a function of a configuration's store remember: naming a store reads and hashes the whole data set."""
    known: dict[str, _Store] = {}

    def remembered(chosen: Config) -> _Store:
        key = repr((chosen.store, dataclasses.replace(chosen.data, fold=0), chosen.preparation))
        if key not in known:
            known[key] = of(chosen)
        return known[key]

    return remembered


def _progress_line(trials: int, done: int, same: Mapping[str, Path]) -> str:
    """Says how many trials there are, and which of them need not run."""
    sources = Counter(folder.parent.parent.name for folder in same.values())
    shared = "".join(f", {number} shared with {name}" for name, number in sorted(sources.items()))
    return f"{trials} trials, {done} of them done before{shared}"


def _shown(config: Config, trials: list[Trial], still: list[Trial], experiment: Path, console: Console) -> Shown:
    """Makes what shows the progress of trials, of which some still run."""
    assert config.ablation is not None
    by_id = {trial.trial_id: trial for trial in trials}
    metric = config.ablation.metric
    return Shown(
        Progress(by_id, set(by_id) - {trial.trial_id for trial in still}),
        way(config.progress, console),
        console,
        metric,
        Standings(experiment, metric, by_id, config.downstream.intervals),
    )


def _print_comparison(
    config: Config, comparison: pd.DataFrame, trials: pd.DataFrame, further: Sequence[str] = ()
) -> None:
    ablation = config.ablation
    assert ablation is not None
    console = _table_console()
    for metric in dict.fromkeys((ablation.metric, *further, *_printed_metrics(config))):
        console.print(tables.console_table(comparison, metric, config.downstream.intervals.confidence))
    women = comparison.women.max() if len(comparison) else 0
    console.print(f"{len(trials)} trials, {women} test women")


def _print_search(search: SearchConfig) -> None:
    """Prints what a search would do."""
    limits = {"trials": search.trials, "hours": search.hours, "CPU hours": search.cpu_hours}
    limits["GPU hours"] = search.gpu_hours
    budget = " or ".join(f"{limit:g} {unit}" for unit, limit in limits.items() if limit is not None)
    print(f"search {search.name}: {budget} of {len(search.parameters)} options by {search.sampler}")
    for name, direction in objectives(search).items():
        print(f"  {direction} {name}")
    for name, parameter in search.parameters.items():
        place = parameter.choices or f"{parameter.low:g} to {parameter.high:g}{' (log)' if parameter.log else ''}"
        print(f"  {name}: {place}")
    if note := sampler_limits(search):
        print(note)
    if search.confirm:
        print(f"then the winner and the untouched base on {search.confirm} fresh seeds: {2 * search.confirm} trials")


def _print_found(found: Selection, sought: dict[str, str]) -> None:
    """Prints the Pareto front of several objectives, or the best settings of one."""
    several = len(sought) > 1
    table = Table(
        "", *sought, "setting", show_lines=True,
        title=f"{'Pareto front' if several else 'best settings'}: a selection on validation women, not a result",
        caption="*: the winner" + (", the member of the front nearest to the ideal point" if several else ""),
    )  # fmt: skip
    complete = found.table[found.table.state == "complete"]
    for row in (complete[complete.front] if several else complete.head(10)).to_dict("records"):
        table.add_row(
            "*" if row["winner"] else "", *(f"{row[name]:.3f}" for name in sought), _shortened(row["settings"])
        )
    console = _table_console()
    console.print(table)
    states = found.table.state.value_counts()
    lent = int(found.table.source.ne("").sum())
    counts = [f"{states[state]} {state}" for state in ("complete", "pruned", "failed") if state in states]
    print(f"settings: {', '.join(counts) or 'none'}" + (f"; {lent} of them lent by another experiment" if lent else ""))
    for note in found.notes:
        print(note)


def _shortened(settings: str) -> str:
    """Words of a command line with four digits of a number, as rich prints them."""

    def short(word: str) -> str:
        name, equals, value = word.partition("=")
        return f"{name}={float(value):.4g}" if equals and re.fullmatch(r"-?\d*\.\d+(e-?\d+)?", value) else word

    return escape(" ".join(map(short, settings.split(" "))))


def _table_console() -> Console:
    """Standard output; where it is a file it is as wide as the tables want."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


if __name__ == "__main__":
    run_command(main)
