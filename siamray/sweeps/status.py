"""The folder of an experiment goes in, while it runs or after; how far it is and what is left comes out.

python -m siamray.sweep status results=DIR/EXPERIMENT
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from siamray.compose import compose
from siamray.sweeps import results
from siamray.sweeps.driver import Driver, running_driver
from siamray.sweeps.tables import NONE


@dataclass(frozen=True)
class Begun:
    """A trial that has begun and not ended."""

    trial_id: str
    variant: str
    epochs: int  # complete
    planned: int | None  # epochs that trials of its variant have; None where none has ended yet
    running: bool  # whether the driver that runs now has worked on it


@dataclass(frozen=True)
class Status:
    """How far an experiment is.

    Attributes:
        loaded: the experiment as read.
        driver: who runs it now, if anyone.
        begun: trials that have begun and not ended.
        waiting: variant -> trials that have not begun, "" of a search.
        seconds_left: estimated seconds of all trials still to be run; None where no trial has finished.
    """

    loaded: results.Results
    driver: Driver | None
    begun: list[Begun]
    waiting: dict[str, int]
    seconds_left: float | None

    @property
    def finished(self) -> pd.DataFrame:
        """The rows of finished trials."""
        return self.loaded.trials[self.loaded.trials["state"] == "finished"]

    @property
    def failed(self) -> pd.DataFrame:
        """The rows of trials that failed or cannot be read; the same command tries them again."""
        return self.loaded.trials[self.loaded.trials["state"] != "finished"]

    @property
    def planned(self) -> int:
        """Number of trials that the experiment shall have."""
        return len(self.loaded.trials) + len(self.begun) + sum(self.waiting.values())


def status(experiment: Path) -> Status:
    """Reads how far an experiment is; writes nothing.

    Args:
        experiment: ``<results>/<experiment>``.

    Raises:
        UserError: no such experiment, unreadable, or written by a newer siamray.
    """
    loaded = results.load(experiment)
    driver = running_driver(experiment)
    finished = loaded.trials[loaded.trials["state"] == "finished"]
    means = finished.groupby("variant")["wall_s"].mean()
    epochs = _planned_epochs(loaded, finished)
    begun = [_begun(experiment, trial_id, epochs, driver) for trial_id in loaded.unfinished]
    waiting = _waiting(loaded, finished)
    left = None
    if len(finished):
        share = {trial.trial_id: 1 - min(1.0, trial.epochs / max(1, trial.planned or 0)) for trial in begun}
        failed = loaded.trials.loc[loaded.trials["state"] != "finished", "variant"].tolist()
        jobs = [(trial.variant, share[trial.trial_id]) for trial in begun]
        jobs += [(variant, 1.0) for variant in failed]
        jobs += [(variant, float(number)) for variant, number in waiting.items()]
        overall = float(finished["wall_s"].mean())
        left = sum(float(means.get(variant, overall)) * part for variant, part in jobs)
        left = None if math.isnan(left) else left
    return Status(loaded, driver, begun, waiting, left)


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
    found = status(Path(compose("sweep status", words).results))
    console = Console(soft_wrap=True, highlight=False)
    for part in render(found):
        console.print(part)


def _planned_epochs(loaded: results.Results, finished: pd.DataFrame) -> dict[str, int]:
    """Epochs per variant, from the configuration of one finished trial of each."""
    found = {}
    for row in finished.drop_duplicates("variant").itertuples():
        planned = (loaded.trial(str(row.trial_id))["config"].get("pretraining") or {}).get("epochs")
        if isinstance(planned, int):
            found[str(row.variant)] = planned
    return found


def _begun(experiment: Path, trial_id: str, planned: dict[str, int], driver: Driver | None) -> Begun:
    folder = experiment / results.TRIALS_FOLDER / trial_id
    try:
        done = pd.read_parquet(folder / "epochs.parquet", columns=["epoch"])["epoch"].max()
    except (OSError, ValueError, KeyError):
        done = math.nan
    variant = _variant(trial_id)
    return Begun(trial_id, variant, 0 if pd.isna(done) else int(done), planned.get(variant), _worked_on(folder, driver))


def _worked_on(folder: Path, driver: Driver | None) -> bool:
    """Whether a driver has written to a trial: what an earlier one left begun may still wait for its turn."""
    if driver is None:
        return False
    if driver.started is None:
        return True
    try:
        latest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return True
    return latest >= datetime.fromisoformat(driver.started).timestamp()


def _waiting(loaded: results.Results, finished: pd.DataFrame) -> dict[str, int]:
    known = {*loaded.trials["trial_id"], *loaded.unfinished}
    if loaded.experiment["trials"] is not None:
        counted: dict[str, int] = {}
        for trial_id in loaded.experiment["trials"]:
            if trial_id not in known:
                counted[_variant(trial_id)] = counted.get(_variant(trial_id), 0) + 1
        return counted
    # A search goes on until so many have finished; those that failed are no part of them.
    missing = (loaded.experiment["planned"] or 0) - len(finished) - len(loaded.unfinished)
    return {"": missing} if missing > 0 else {}


def _variant(trial_id: str) -> str:
    """The variant that a trial's id begins with."""
    return re.sub(r"-seed\d+-fold\d+(-[0-9a-f]+)?$", "", trial_id)


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
    gpu = f", {_hours(sums['gpu_s'])} of GPUs" if sums["gpu_s"] else ""
    return f"cost so far: {_hours(sums['wall_s'])} of trials, {_hours(sums['cpu_s'])} of processors{gpu}"


def _left(found: Status) -> str:
    if not len(found.failed) and not found.begun and not found.waiting:
        return "left: nothing"
    if found.seconds_left is None:
        return "left: unknown until the first trial has finished"
    basis = f"by the mean of {len(found.finished)} finished trials, per variant where it has any"
    running = sum(trial.running for trial in found.begun)
    at_once = f"; {running} at a time, about {_hours(found.seconds_left / running)}" if running > 1 else ""
    return f"left: about {_hours(found.seconds_left)} of trials{at_once} ({basis})"


def _hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
