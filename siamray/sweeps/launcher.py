"""Trials of a search go out to Ray one by one; why each has ended comes back, and what a pruner is told in between."""

import dataclasses
import uuid
from pathlib import Path
from typing import Any, Protocol

from siamray.cluster import RayEnded, beside_this_process, ended, lost
from siamray.compose import from_dict
from siamray.config import ClusterConfig
from siamray.data.store import Store
from siamray.errors import DiskFull
from siamray.nodes import refuse_other_software
from siamray.pretraining.worker_group import WorkerGroup
from siamray.provenance import software
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial
from siamray.sweeps.early_stopping import Board, Examination, answered, read_measured, write_measured
from siamray.sweeps.remote_results import attempt, url_of
from siamray.sweeps.runner import concurrency, last_line, trial_resources
from siamray.sweeps.trial import run_trial, trial_to_dict


class Launcher(Protocol):
    """Runs trials somewhere; what they leave is in their folders."""

    @property
    def slots(self) -> int:
        """How many trials run at a time."""

    def start(self, trial: Trial, folder: Path, examination: Examination | None) -> None:
        """Starts a trial."""

    def ended(self, seconds: float) -> dict[str, str]:
        """Waits for a while; trial_id -> why the attempt raised, "" where it did not, of those that ended."""


class RayLauncher:
    """Runs trials as tasks of Ray, each with the resources that it reserves."""

    def __init__(self, cluster: ClusterConfig, resources: dict[str, float], store: Store) -> None:
        """Computes how many fit.

        Args:
            cluster: resources of a trial.
            resources: of the whole cluster.
            store: the prepared exams.

        Raises:
            UserError: not even one trial fits.
        """
        import ray

        self.slots = concurrency(cluster, resources)
        asked = trial_resources(cluster)
        # Attempts are counted by the driver: an exception is worth another one only as long as cluster.failures says.
        self._task = ray.remote(_work).options(num_cpus=asked["CPU"], num_gpus=asked.get("GPU", 0), max_retries=0)
        # Processes of trials with Ray Train workers, which are kept for the next trial: those that run none now.
        self._process = ray.remote(_Process).options(num_cpus=asked["CPU"]) if cluster.workers else None
        self._idle: list[Any] = []
        self._store = str(store.path)
        self._tasks: dict[Any, tuple[str, Any]] = {}
        self._board = _Board()

    def start(self, trial: Trial, folder: Path, examination: Examination | None) -> None:
        """Starts a trial."""
        process = None
        work = self._task
        if self._process is not None:
            process = self._idle.pop() if self._idle else self._process.remote()
            work = process.work
        there = url_of(folder.parent.parent)
        url = None if there is None else str(there / results.TRIALS_FOLDER / trial.trial_id)
        if examination is not None and url is not None:
            examination = dataclasses.replace(examination, board=(self._board.name, trial.trial_id))
            self._board.add(trial.trial_id, folder)
        reference = work.remote(trial_to_dict(trial), software(), self._store, str(folder), url, examination)
        self._tasks[reference] = trial.trial_id, process

    def ended(self, seconds: float) -> dict[str, str]:
        """Waits for a while; trial_id -> why the attempt raised, "" where it did not, of those that ended."""
        import ray

        ready, _ = ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        self._board.exchange()
        found = {}
        for reference in ready:
            trial_id, process = self._tasks.pop(reference)
            self._board.drop(trial_id)
            try:
                ray.get(reference)
                failure = ""
            except Exception as error:  # Whatever a trial raised is its own end, and no bug of the driver.
                if reason := ended(lost(error)):
                    raise RayEnded(reason) from None
                if isinstance(error, DiskFull):
                    raise DiskFull(last_line(error)) from None
                failure = last_line(error)
                # It may be dead; dropped, it takes its workers with it.
                process = None
            if process is not None:
                self._idle.append(process)
            found[trial_id] = failure
        return found


class _Board:
    """What trials with results at a URL have measured comes into their folders here, and the answers there go out."""

    def __init__(self) -> None:
        self.name = f"siamray-board-{uuid.uuid4().hex}"
        self._actor: Any = None
        self._folders: dict[str, Path] = {}
        self._told: dict[str, tuple[int, bool]] = {}

    def add(self, trial_id: str, folder: Path) -> None:
        """Begins to exchange with a trial."""
        import ray

        if self._actor is None:
            self._actor = ray.remote(Board).options(name=self.name, **beside_this_process()).remote()
        self._folders[trial_id] = folder
        self._told.pop(trial_id, None)

    def drop(self, trial_id: str) -> None:
        """Ends the exchange with a trial."""
        self._folders.pop(trial_id, None)

    def exchange(self) -> None:
        """Writes down what was measured since the last time, and passes on what was answered."""
        import ray

        if self._actor is None:
            return
        for trial_id, epoch, metric, value in ray.get(self._actor.take.remote()):
            folder = self._folders.get(trial_id)
            # A trial on this machine has written it itself.
            if folder is not None and epoch not in read_measured(folder, metric):
                write_measured(folder, epoch, metric, value)
        for trial_id, folder in self._folders.items():
            given = answered(folder)
            if given is not None and given != self._told.get(trial_id):
                self._told[trial_id] = given
                self._actor.answer.remote(trial_id, *given)


class _Process:
    """An actor that runs one trial after the other."""

    def __init__(self) -> None:
        self._workers = WorkerGroup()

    def work(
        self,
        stored: dict[str, Any],
        driver: dict[str, str],
        store: str,
        folder: str,
        url: str | None,
        examination: Examination | None,
    ) -> None:
        """Runs a trial."""
        try:
            _work(stored, driver, store, folder, url, examination, self._workers)
        except Exception:
            # It will be tried again in another process, whose workers need the place of these.
            self._workers.close()
            raise


def _work(
    stored: dict[str, Any],
    driver: dict[str, str],
    store: str,
    folder: str,
    url: str | None,
    examination: Examination | None,
    workers: WorkerGroup | None = None,
) -> None:
    """What the process of a trial does."""
    refuse_other_software(driver)
    trial = Trial(**{**stored, "config": from_dict(stored["config"])})
    opened = Store.open(store, trial.config.cluster.chunk_cache_gb)
    with attempt(folder, url) as (here, keep):
        run_trial(trial, opened, here, lambda _: keep(), examine=examination, workers=workers)
