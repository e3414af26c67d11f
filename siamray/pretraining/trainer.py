"""A configuration and a store go in, a finished training run comes out: in this process, or on Ray Train workers."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from siamray.config import ClusterConfig, Config
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.nodes import wait_for_room
from siamray.pretraining import checkpoint, loop
from siamray.pretraining.loop import Examine, Report
from siamray.pretraining.threads import threads
from siamray.pretraining.worker import Worker
from siamray.pretraining.worker_group import RAY_FOLDER, WorkerGroup


def pretrain(
    config: Config,
    store: Store,
    folder: Path,
    report: Report | None = None,
    examine: Examine | None = None,
    workers: WorkerGroup | None = None,
) -> Path:
    """Trains one encoder, going on from the run's checkpoint where there is one.

    Args:
        config: the configuration; cluster.workers=0 trains in this process, N on N Ray Train workers.
        store: the prepared exams.
        folder: of the run, reachable from all workers.
        report: told one record per epoch, in this process.
        examine: see loop.train; it is pickled for Ray Train workers.
        workers: those to train on, kept for the next training; None starts them for this one.

    Returns:
        The folder of the exported encoder. The checkpoint stays: the caller removes it when it needs it no more.

    Raises:
        UserError: as loop.train, or workers that can never be placed.
        DivergedError: a loss that is not a number.
        StoppedError: `examine` said so.
    """
    told: Report = report or (lambda _: None)
    if config.cluster.workers == 0:
        with threads(config.cluster.cpus):
            loop.train(config, store, folder, Worker(device=_device()), told, examine)
    elif workers is not None:
        workers.train(config, store, folder, told, examine)
    else:
        with closing(WorkerGroup()) as own:
            own.train(config, store, folder, told, examine)
    return folder / "encoder"


def check_placement(asked: ClusterConfig, resources: dict[str, float]) -> None:
    """Makes sure that one trial's workers fit on the cluster, before anything waits for them for ever.

    Args:
        asked: what a trial asks for.
        resources: all processors ("CPU") and GPUs ("GPU") of the cluster.

    Raises:
        UserError: if they can never be placed.
    """
    trainers = max(1, asked.workers)
    for kind, each, option in (("CPU", float(asked.cpus), "cluster.cpus"), ("GPU", asked.gpus, "cluster.gpus")):
        there = resources.get(kind, 0.0)
        if trainers * each > there:
            raise UserError(
                f"cluster.workers={asked.workers} with {option}={each:g} needs {trainers * each:g} {kind}s, and there "
                f"are {there:g}; ask for fewer"
            )


def make_room(asked: ClusterConfig, resources: dict[str, float], say: Callable[[str], None]) -> None:
    """Makes sure that one trial's workers can be placed, and waits for them where nodes are started as wanted.

    Args:
        asked: what a trial asks for; with cluster.trials nodes are started as wanted.
        resources: all processors and GPUs that the cluster has now.
        say: is told that there is something to wait for.

    Raises:
        UserError: they can never be placed, or no node came in time.
    """
    if asked.trials is None:
        check_placement(asked, resources)
    else:
        wait_for_room(asked, say)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def finish(folder: Path) -> None:
    """Removes what only a resume would need."""
    checkpoint.remove(folder)
    shutil.rmtree(folder / RAY_FOLDER, ignore_errors=True)
