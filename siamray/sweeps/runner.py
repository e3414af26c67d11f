"""A list of trials goes in; each is run once under Ray Tune, and its folder of results comes out."""

import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from siamray.cluster import connected
from siamray.compose import from_dict
from siamray.config import ClusterConfig
from siamray.data.store import Store
from siamray.files import Location
from siamray.pretraining.trainer import WAITING_CPUS, check_placement
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial
from siamray.sweeps.interruption import Interruption
from siamray.sweeps.progress import Shown
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
    trials: list[Trial], stores: dict[str, Location], experiment: Path, cluster: ClusterConfig, shown: Shown
) -> None:
    """Runs trials, as many at a time as the cluster holds; what cannot be finished leaves its reason.

    Args:
        trials: those to run.
        stores: trial_id -> folder of its prepared exams.
        experiment: ``<results>/<experiment>``.
        cluster: resources of a trial.
        shown: is told how it goes.

    Raises:
        UserError: if a trial's workers can never be placed.
        Interrupted: a signal asked for the end; what had not ended left no result, and its checkpoint.
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
        with Interruption(shown.say) as interruption:
            with shown.shown():
                failures = _tune(
                    specifications, cluster, at_a_time, _Events(shown, experiment, interruption), interruption
                )
            interruption.end()
    for trial in trials:
        folder = experiment / results.TRIALS_FOLDER / trial.trial_id
        if not (folder / results.TRIAL_FILE).exists():
            reason = failures.get(trial.trial_id, "ended without a result")
            fingerprint = Store.open(stores[trial.trial_id]).fingerprint
            results.write_trial(folder, {**describe(trial, fingerprint), "state": "failed", "reason": reason})


def _tune(
    specifications: dict[str, dict[str, Any]],
    cluster: ClusterConfig,
    at_a_time: int,
    events: "_Events",
    interruption: Interruption,
) -> dict[str, str]:
    """Lets Ray Tune run every specification once; returns the reasons of those that raised."""
    from ray import tune

    from siamray.sweeps.trial_events import InterruptionStopper, TrialEvents

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
                callbacks=[TrialEvents(events.start, events.epoch, events.end)],
                stop=InterruptionStopper(interruption),
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


class _Events:
    """What Ray Tune tells of its trials, passed on to the console, and now and then to the table on disk."""

    def __init__(self, shown: Shown, experiment: Path, interruption: Interruption) -> None:
        self._shown, self._experiment, self._interruption = shown, experiment, interruption
        self._collected = time.monotonic()

    def start(self, trial: Any) -> None:
        """A trial starts."""
        self._shown.start(_name(trial.config))

    def epoch(self, trial: Any, result: dict[str, Any]) -> None:
        """A trial has reported an epoch."""
        self._shown.epoch(_name(trial.config), int(result.get("epoch", 0)))

    def end(self, trial: Any, failed: bool) -> None:
        """A trial has ended: with a result, with a reason of its own why it has none, or by an error."""
        name = _name(trial.config)
        folder = self._experiment / results.TRIALS_FOLDER / name
        reason = "its process ended" if failed else ""
        if self._interruption.asked and not (folder / results.TRIAL_FILE).exists():
            return
        if results.finished_trial(folder) is None:
            failed = True
            with suppress(FileNotFoundError, results.Unreadable):
                reason = results.read_trial(folder)["reason"]
        self._shown.end(name, failed, reason)
        if time.monotonic() - self._collected > COLLECT_SECONDS:
            results.collect(self._experiment)
            self._collected = time.monotonic()
