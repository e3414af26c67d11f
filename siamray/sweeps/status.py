"""How far an experiment is goes in, while it runs or after; a report for a terminal comes out.

python -m siamray.sweep status results=DIR/EXPERIMENT
"""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from siamray.compose import compose
from siamray.files import location
from siamray.sweeps.driver import Driver
from siamray.sweeps.progress import duration
from siamray.sweeps.state import Status, status
from siamray.sweeps.tables import NONE

__all__ = ["Status", "main", "render", "status"]


def render(found: Status) -> Iterator[RenderableType]:
    """Makes the report for a terminal.

    Args:
        found: of an experiment.

    Yields:
        Its parts, the most general first.
    """
    record = found.loaded.experiment
    yield Text(f"{record['name'] or found.loaded.path.name}: {record['question']}", style="bold")
    yield Text(f"driver: {_driver_words(found.driver)}")
    yield Text(f"trials: {_counts(found)}")
    yield _variants(found)
    for row in found.failed.itertuples():
        yield Text(f"{row.state}: {row.trial_id}: {row.reason}", style="red")
    for trial in found.begun:
        of = f" of {trial.planned}" if trial.planned is not None else ""
        yield Text(f"{'running' if trial.running else 'begun'}: {trial.trial_id}: {trial.epochs}{of} epochs done")
    yield from map(Text, _best(found))
    yield Text(_cost(found))
    yield Text(_left(found))


def main(words: list[str]) -> None:
    """Prints how far ``results=DIR/EXPERIMENT`` is.

    Args:
        words: the command line after ``status``.

    Raises:
        UserError: no such experiment, or it cannot be read.
    """
    found = status(location(compose("sweep status", words).results))
    console = Console(soft_wrap=True, highlight=False)
    for part in render(found):
        console.print(part)


def _driver_words(driver: Driver | None) -> str:
    if driver is None:
        return "none runs; the sweep's own command goes on where it stopped"
    where = "" if driver.process is None else f" (process {driver.process} on {driver.machine}, since {driver.started})"
    return f"runs{where}"


def _counts(found: Status) -> str:
    running = sum(trial.running for trial in found.begun)
    parts = {
        "finished": len(found.finished),
        "failed": len(found.failed),
        "running": running,
        "begun": len(found.begun) - running,
        "not begun": sum(found.waiting.values()),
    }
    return f"{found.planned}: " + ", ".join(f"{n} {word}" for word, n in parts.items() if n or word == "finished")


def _variants(found: Status) -> Table:
    metric = found.loaded.experiment["metric"]
    table = Table("", "finished", "failed", "begun", "not begun", f"mean {metric}", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    names = [*found.loaded.experiment["variants"], *found.loaded.experiment["controls"]]
    begun = [trial.variant for trial in found.begun]
    for name in dict.fromkeys([*names, *found.loaded.trials["variant"].dropna(), *begun, *found.waiting]):
        done = found.finished[found.finished["variant"] == name]
        mean = done[metric].mean() if metric in done else math.nan
        table.add_row(
            Text(name or NONE), str(len(done)), str(int((found.failed["variant"] == name).sum())),
            str(begun.count(name)), str(found.waiting.get(name, 0)), NONE if pd.isna(mean) else f"{mean:.3f}",
        )  # fmt: skip
    return table


def _best(found: Status) -> list[str]:
    metric = found.loaded.experiment["metric"]
    if metric not in found.finished or found.finished[metric].isna().all():
        return []
    row: dict[str, Any] = found.finished.loc[found.finished[metric].idxmax()].to_dict()
    ends = [row.get(f"{metric}{end}", math.nan) for end in ("_low", "_high")]
    interval = "" if any(pd.isna(end) for end in ends) else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
    return [
        f"best trial so far by {metric}: {row['trial_id']} {row[metric]:.3f}{interval} (the best of "
        f"{len(found.finished)} is a selection, which flatters it; the comparison says what differs)"
    ]


def _cost(found: Status) -> str:
    sums = found.loaded.trials[["wall_s", "cpu_s", "gpu_s"]].sum()
    gpu = f", {duration(sums['gpu_s'])} of GPUs" if sums["gpu_s"] else ""
    return f"cost so far: {duration(sums['wall_s'])} of trials, {duration(sums['cpu_s'])} of processors{gpu}"


def _left(found: Status) -> str:
    if not len(found.failed) and not found.begun and not found.waiting:
        return "left: nothing"
    if found.seconds_left is None:
        return "left: unknown until the first trial has finished"
    basis = f"by the mean of {len(found.finished)} finished trials, per variant where it has any"
    running = sum(trial.running for trial in found.begun)
    at_once = f"; {running} at a time, about {duration(found.seconds_left / running)}" if running > 1 else ""
    return f"left: about {duration(found.seconds_left)} of trials{at_once} ({basis})"
