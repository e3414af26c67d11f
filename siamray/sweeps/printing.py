"""Plans, selections and comparisons go in; what a sweep prints about them on standard output comes out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from siamray.config import Config, SearchConfig
from siamray.data.preparation import existing_store, once_per_preparation
from siamray.sweeps import tables
from siamray.sweeps.ablation import list_trials
from siamray.sweeps.asked_metrics import printed_metrics
from siamray.sweeps.cost import estimate
from siamray.sweeps.designs import Design
from siamray.sweeps.fixed_arithmetic import fix_arithmetic
from siamray.sweeps.runner import unfinished
from siamray.sweeps.search import Selection
from siamray.sweeps.setting_words import shown
from siamray.sweeps.sharing import shareable
from siamray.sweeps.study import objectives, sampler_limits
from siamray.sweeps.tuning import Plan


def print_plan(
    config: Config,
    made: Design,
    composed: dict[str, Config],
    differences: dict[str, dict[str, Any]],
    plan: Plan | None,
) -> None:
    """Prints the design, what would run and what it would cost."""
    experiment = Path(config.results) / made.ablation.name
    store_of = once_per_preparation(existing_store)

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
    if plan is not None:
        for line in plan.lines(made.ablation):
            print(line)
    progress = progress_line(len(trials), len(trials) - len(remaining), same)
    table = Table("variant", "role", "differs in", "to run", "estimated each", title=progress)
    known: dict[tuple[str, int], float] = {}
    total, tuning_s, basis = 0.0, 0.0, ""
    reference = differences[made.ablation.reference]
    for name in composed:
        of_variant = [trial for trial in trials if trial.variant == name]
        cost = estimate(of_variant[0], store_of(composed[name]), known)
        number = sum(trial.trial_id in to_run for trial in of_variant)
        basis = cost.basis
        total += number * (cost.seconds or 0.0)
        if plan is not None and name in plan.spaces:
            tuning_s += plan.settings * len(plan.folds) * (cost.seconds or 0.0)
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
    table_console().print(table)
    seeds, folds = sorted({trial.seed for trial in trials}), sorted({trial.fold for trial in trials})
    print(f"seeds {', '.join(map(str, seeds))}; test folds {', '.join(map(str, folds))}")
    cpus = config.cluster.cpus * max(1, config.cluster.workers)
    print(
        f"training of all trials to run: about {total * cpus / 3600:.2f} CPU hours ({basis}), evaluation beside it; "
        "nothing was run"
    )
    if plan is not None:
        print(
            f"tuning before that: about {tuning_s * cpus / 3600:.2f} CPU hours more, if settings cost what variants "
            "do; the trials above are without it, and differ where another setting is chosen"
        )
    first = store_of(trials[0].config)
    print(f"store: {first.path if first else 'not prepared yet'}")


def print_search(search: SearchConfig) -> None:
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


def print_found(found: Selection, sought: dict[str, str]) -> None:
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
            "*" if row["winner"] else "", *(f"{row[name]:.3f}" for name in sought), escape(shown(row["settings"]))
        )
    console = table_console()
    console.print(table)
    states = found.table.state.value_counts()
    lent = int(found.table.source.ne("").sum())
    counts = [f"{states[state]} {state}" for state in ("complete", "pruned", "failed") if state in states]
    print(f"settings: {', '.join(counts) or 'none'}" + (f"; {lent} of them lent by another experiment" if lent else ""))
    for note in found.notes:
        print(note)


def print_comparison(
    config: Config, comparison: pd.DataFrame, trials: pd.DataFrame, further: Sequence[str] = ()
) -> None:
    """Prints a table for the primary metric, every further one, and one of each task."""
    ablation = config.ablation
    assert ablation is not None
    console = table_console()
    for metric in dict.fromkeys((ablation.metric, *further, *printed_metrics(config))):
        console.print(tables.console_table(comparison, metric, config.downstream.intervals.confidence))
    women = comparison.women.max() if len(comparison) else 0
    console.print(f"{len(trials)} trials, {women} test women")


def progress_line(trials: int, done: int, same: Mapping[str, Path]) -> str:
    """Says how many trials there are, and which of them need not run."""
    sources = Counter(folder.parent.parent.name for folder in same.values())
    shared = "".join(f", {number} shared with {name}" for name, number in sorted(sources.items()))
    return f"{trials} trials, {done} of them done before{shared}"


def table_console() -> Console:
    """Standard output; where it is a file it is as wide as the tables want."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
