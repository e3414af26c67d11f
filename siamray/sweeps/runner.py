"""A list of trials goes in; each is run once under Ray Tune, and its folder of results comes out."""

import json
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from siamray.cluster import RayEnded, connected, ended
from siamray.compose import from_dict
from siamray.config import ClusterConfig
from siamray.data.store import Store
from siamray.errors import DiskFull, UserError
from siamray.files import Location, space_for
from siamray.nodes import refuse_other_software
from siamray.pretraining.trainer import check_placement, make_room
from siamray.pretraining.worker_group import WAITING_CPUS, WorkerGroup
from siamray.provenance import software
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial
from siamray.sweeps.driver import TakenOver
from siamray.sweeps.interruption import Interruption
from siamray.sweeps.progress import Shown
from siamray.sweeps.remote_results import attempt, fetch_trial, send_experiment, send_meanwhile, url_of
from siamray.sweeps.trial import describe, run_trial, trial_to_dict

# Ray Tune keeps about 0.1 MB of every trial until its run ends, and looks through all of them. A round costs the start
# of the trials' processes, and processors that idle until its last trial has ended.
ROUND_TRIALS = 2000
# Seconds between two updates of trials.parquet while trials run.
COLLECT_SECONDS = 60
# In the process of a trial, which Ray Tune keeps for the next one: its Ray Train workers, where it has any.
_WORKERS = WorkerGroup()
# What a trial reports in place of its epoch where it cannot write.
_FULL = "disk_full"


def concurrency(cluster: ClusterConfig, resources: dict[str, float]) -> int:
    """How many trials run at a time, so that every one that starts can also place its workers.

    Raises:
        UserError: if not even one fits, unless nodes are started as they are wanted (cluster.trials).
    """
    if cluster.trials is not None:
        return cluster.trials
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


def without_record(trials: list[Trial], experiment: Path) -> list[Trial]:
    """The trials that no earlier run of the sweep has brought to an end, finished or failed."""
    return [trial for trial in trials if not _has_record(experiment / results.TRIALS_FOLDER / trial.trial_id)]


def _has_record(folder: Path) -> bool:
    try:
        results.read_trial(folder)
    except (FileNotFoundError, results.Unreadable):
        return False
    return True


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
        DiskFull, RayEnded, TakenOver: what had not ended left no result, and its checkpoint.
        Interrupted: a signal asked for the end; what had not ended left no result, and its checkpoint.
    """
    if not trials:
        return
    with connected(cluster) as resources:
        make_room(cluster, resources, shown.say)
        at_a_time = concurrency(cluster, resources)
        there = url_of(experiment)
        # From now on others can ask how far it is.
        send_experiment(experiment, trials=False)
        specifications = {
            trial.trial_id: {
                "trial": trial_to_dict(trial),
                "store": str(stores[trial.trial_id]),
                "folder": str(experiment / results.TRIALS_FOLDER / trial.trial_id),
                "software": software(),
                "url": None if there is None else str(there / results.TRIALS_FOLDER / trial.trial_id),
            }
            for trial in trials
        }
        with space_for(experiment), Interruption(shown.say) as interruption:
            events = _Events(shown, experiment, interruption)
            with shown.shown():
                failures = _in_rounds(specifications, cluster, at_a_time, events)
            interruption.end()
            if events.hindrance is not None:
                raise events.hindrance
            # Trials fail when Ray ends under them, and are not to blame.
            if reason := ended(dying=bool(failures)):
                raise RayEnded(reason)
    for trial in trials:
        folder = experiment / results.TRIALS_FOLDER / trial.trial_id
        if not (folder / results.TRIAL_FILE).exists():
            fetch_trial(experiment, trial.trial_id)
        if not (folder / results.TRIAL_FILE).exists():
            reason = failures.get(trial.trial_id, "ended without a result")
            fingerprint = Store.open(stores[trial.trial_id]).fingerprint
            results.write_trial(folder, {**describe(trial, fingerprint), "state": "failed", "reason": reason})


def _in_rounds(
    specifications: dict[str, dict[str, Any]], cluster: ClusterConfig, at_a_time: int, events: "_Events"
) -> dict[str, str]:
    """Lets Ray Tune run every specification once, so many at a time that it need not know them all."""
    failures: dict[str, str] = {}
    names = list(specifications)
    for start in range(0, len(names), ROUND_TRIALS):
        if events.over() or ended():
            break
        part = {name: specifications[name] for name in names[start : start + ROUND_TRIALS]}
        failures |= _tune(part, cluster, at_a_time, events)
    return failures


def _tune(
    specifications: dict[str, dict[str, Any]], cluster: ClusterConfig, at_a_time: int, events: "_Events"
) -> dict[str, str]:
    """Lets Ray Tune run every specification once; returns the reasons of those that raised."""
    from ray import tune

    from siamray.sweeps.trial_events import AllStopper, TrialEvents

    scratch = tempfile.mkdtemp(prefix="siamray-tune-")
    try:
        grid = tune.Tuner(
            tune.with_resources(_work, trial_resources(cluster)),
            # As texts: for every trial Ray Tune copies the whole list, all that is in it included.
            param_space={"specification": tune.grid_search([json.dumps(one) for one in specifications.values()])},
            tune_config=tune.TuneConfig(max_concurrent_trials=at_a_time, reuse_actors=True),
            run_config=tune.RunConfig(
                # Ray Tune's own files are of no use afterwards: finished trials are known by their trial.json, so the
                # sweep resumes without them, and with more trials than they knew.
                name="sweep",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=cluster.failures),
                callbacks=[TrialEvents(events.start, events.epoch, events.end)],
                stop=AllStopper(events.over),
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

    specification = json.loads(parameters["specification"])
    refuse_other_software(specification["software"])
    stored = specification["trial"]
    trial = Trial(**{**stored, "config": from_dict(stored["config"])})
    store = Store.open(specification["store"], trial.config.cluster.chunk_cache_gb)
    try:
        with attempt(specification["folder"], specification["url"]) as (folder, keep):

            def report(record: dict[str, Any]) -> None:
                keep()
                tune.report({"epoch": record["epoch"]})

            run_trial(trial, store, folder, report, workers=_WORKERS)
    except DiskFull as error:
        # Raised, it would be another attempt, and another; none fares better.
        tune.report({_FULL: str(error)})
    except Exception:
        # Ray Tune tries again in another process, whose workers need the place of these.
        _WORKERS.close()
        raise
    else:
        tune.report({"epoch": trial.config.pretraining.epochs + 1})


def _name(parameters: dict[str, Any]) -> str:
    return Path(json.loads(parameters["specification"])["folder"]).name


def last_line(error: BaseException | None) -> str:
    """Takes the line of an error that says what was wrong; Ray puts the traceback of another process before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:500] if lines else type(error).__name__


class _Events:
    """What Ray Tune tells of its trials, passed on to the console, and now and then to the table on disk.

    Attributes:
        hindrance: why the sweep cannot go on: a full disk, or another driver that has taken over; None while it can.
    """

    def __init__(self, shown: Shown, experiment: Path, interruption: Interruption) -> None:
        self.hindrance: UserError | None = None
        self._shown, self._experiment, self._interruption = shown, experiment, interruption
        self._collected = time.monotonic()

    def over(self) -> bool:
        """Whether all trials are to end."""
        return bool(self._interruption.asked or self.hindrance)

    def start(self, trial: Any) -> None:
        """A trial starts."""
        self._shown.start(_name(trial.config))

    def epoch(self, trial: Any, result: dict[str, Any]) -> None:
        """A trial has reported an epoch, or that it cannot write."""
        if _FULL in result:
            self.hindrance = DiskFull(result[_FULL])
            return
        self._shown.epoch(_name(trial.config), int(result.get("epoch", 0)))
        self._collect()

    def end(self, trial: Any, failed: bool) -> None:
        """A trial has ended: with a result, with a reason of its own why it has none, or by an error."""
        name = _name(trial.config)
        folder = self._experiment / results.TRIALS_FOLDER / name
        reason = "its process ended" if failed else ""
        with suppress(UserError):
            fetch_trial(self._experiment, name)
        if not (folder / results.TRIAL_FILE).exists() and (self.over() or ended(dying=failed)):
            return
        if results.finished_trial(folder) is None:
            failed = True
            with suppress(FileNotFoundError, results.Unreadable):
                reason = results.read_trial(folder)["reason"]
        self._shown.end(name, failed, reason)
        self._collect()

    def _collect(self) -> None:
        """Makes what others read of the experiment, once in a while."""
        if self.hindrance is not None or time.monotonic() - self._collected < COLLECT_SECONDS:
            return
        try:
            results.collect(self._experiment)
            send_meanwhile(self._experiment)
        except (DiskFull, TakenOver) as error:
            self.hindrance = error
        self._collected = time.monotonic()
