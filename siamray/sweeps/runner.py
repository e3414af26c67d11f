"""A list of trials goes in; each is run once under Ray Tune, and its folder of results comes out."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from siamray.cluster import connected
from siamray.compose import from_dict
from siamray.config import ClusterConfig
from siamray.data.store import Store
from siamray.files import Location
from siamray.pretraining.trainer import WAITING_CPUS, check_placement
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial
from siamray.sweeps.trial import describe, run_trial, trial_to_dict

# Seconds between two updates of trials.parquet while trials run.
COLLECT_SECONDS = 60


def concurrency(cluster: ClusterConfig, resources: dict[str, float]) -> int:
    """How many trials run at a time, so that every one that starts can also place its workers.

    Raises:
        UserError: if not even one fits.
    """
    check_placement(cluster, resources)
    trainers = max(1, cluster.workers)
    fits = [resources.get("CPU", 0.0) // (trainers * cluster.cpus)]
    if cluster.gpus:
        fits.append(resources.get("GPU", 0.0) // (trainers * cluster.gpus))
    return max(1, int(min(fits)))


def trial_resources(cluster: ClusterConfig) -> dict[str, float]:
    """What Ray Tune reserves for the process of a trial."""
    if cluster.workers:
        return {"CPU": WAITING_CPUS}
    return {"CPU": float(cluster.cpus), **({"GPU": cluster.gpus} if cluster.gpus else {})}


def unfinished(trials: list[Trial], experiment: Path) -> list[Trial]:
    """The trials that no earlier run of the sweep has finished."""
    done = results.finished_trials(experiment)
    return [trial for trial in trials if trial.trial_id not in done]


def run_trials(
    trials: list[Trial], stores: dict[str, Location], experiment: Path, cluster: ClusterConfig, console: Console
) -> None:
    """Runs trials, as many at a time as the cluster holds; what cannot be finished leaves its reason.

    Args:
        trials: those to run.
        stores: trial_id -> folder of its prepared exams.
        experiment: ``<results>/<experiment>``.
        cluster: resources of a trial.
        console: progress is drawn there.

    Raises:
        UserError: if a trial's workers can never be placed.
    """
    if not trials:
        return
    with connected(cluster) as resources:
        at_a_time = concurrency(cluster, resources)
        specifications = {
            trial.trial_id: {
                "trial": trial_to_dict(trial),
                "store": str(stores[trial.trial_id]),
                "folder": str(experiment / results.TRIALS_FOLDER / trial.trial_id),
            }
            for trial in trials
        }
        with _progress(trials, console, experiment) as shown:
            failures = _tune(specifications, cluster, at_a_time, shown)
    for trial in trials:
        folder = experiment / results.TRIALS_FOLDER / trial.trial_id
        if not (folder / results.TRIAL_FILE).exists():
            reason = failures.get(trial.trial_id, "ended without a result")
            fingerprint = Store.open(stores[trial.trial_id]).fingerprint
            results.write_trial(folder, {**describe(trial, fingerprint), "state": "failed", "reason": reason})


def _tune(
    specifications: dict[str, dict[str, Any]], cluster: ClusterConfig, at_a_time: int, shown: "_Shown"
) -> dict[str, str]:
    """Lets Ray Tune run every specification once; returns the reasons of those that raised."""
    from ray import tune

    from siamray.sweeps.trial_events import TrialEvents

    scratch = tempfile.mkdtemp(prefix="siamray-tune-")
    try:
        grid = tune.Tuner(
            tune.with_resources(_work, trial_resources(cluster)),
            param_space={"specification": tune.grid_search(list(specifications.values()))},
            tune_config=tune.TuneConfig(max_concurrent_trials=at_a_time, reuse_actors=cluster.workers == 0),
            run_config=tune.RunConfig(
                # Ray Tune's own files are of no use afterwards: finished trials are known by their trial.json, so the
                # sweep resumes without them, and with more trials than they knew.
                name="sweep",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=cluster.failures),
                callbacks=[TrialEvents(shown.end, shown.epoch)],
            ),
        ).fit()
        return {
            _name(result.config): last_line(result.error)
            for result in (grid[index] for index in range(len(grid)))
            if result.error is not None and result.config is not None
        }
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _work(parameters: dict[str, Any]) -> None:
    """What the process of a trial does."""
    from ray import tune

    specification = parameters["specification"]
    stored = specification["trial"]
    trial = Trial(**{**stored, "config": from_dict(stored["config"])})
    store = Store.open(specification["store"])
    run_trial(trial, store, Path(specification["folder"]), lambda record: tune.report({"epoch": record["epoch"]}))
    tune.report({"epoch": trial.config.pretraining.epochs + 1})


def _name(parameters: dict[str, Any]) -> str:
    return Path(parameters["specification"]["folder"]).name


def last_line(error: BaseException | None) -> str:
    """Takes the line of an error that says what was wrong; Ray puts the traceback of another process before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:500] if lines else type(error).__name__


class _Shown:
    """The progress of a sweep: on the console trials done, epochs done, trials failed; on disk the table of trials."""

    def __init__(self, trials: list[Trial], progress: Progress, experiment: Path) -> None:
        self._experiment = experiment
        self._collected = time.monotonic()
        self._progress = progress
        self._trials: TaskID = progress.add_task("trials", total=len(trials))
        steps = sum(trial.config.pretraining.epochs + 1 for trial in trials)
        self._epochs: TaskID = progress.add_task("epochs and evaluations", total=steps)
        self._done: dict[str, int] = {}

    def epoch(self, trial: Any, result: dict[str, Any]) -> None:
        """Moves the bar to a trial's epoch; a resumed trial starts in the middle."""
        epoch, name = int(result.get("epoch", 0)), _name(trial.config)
        self._progress.advance(self._epochs, max(0, epoch - self._done.get(name, 0)))
        self._done[name] = max(epoch, self._done.get(name, 0))

    def end(self, trial: Any, failed: bool) -> None:
        """Counts a trial that ended; now and then puts the ended ones into the table, for those who look on."""
        self._progress.advance(self._trials)
        if time.monotonic() - self._collected > COLLECT_SECONDS:
            results.collect(self._experiment)
            self._collected = time.monotonic()
        word, style = ("failed: ", "red") if failed else ("", "dim")
        self._progress.console.print(f"  {word}{_name(trial.config)}", style=style, highlight=False)


@contextmanager
def _progress(trials: list[Trial], console: Console, experiment: Path) -> Iterator[_Shown]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield _Shown(trials, progress, experiment)
