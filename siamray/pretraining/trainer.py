"""A configuration and a store go in, a finished training run comes out: in this process, or on Ray Train workers."""

import os
import time
from pathlib import Path
from typing import Any

import torch

from siamray.compose import from_dict, to_dict
from siamray.config import ClusterConfig, Config
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.pretraining import checkpoint, loop
from siamray.pretraining.loop import DivergedError, Report
from siamray.pretraining.worker import Worker


def pretrain(config: Config, store: Store, folder: Path, report: Report | None = None) -> Path:
    """Trains one encoder, going on from the run's checkpoint where there is one.

    Args:
        config: the configuration; cluster.workers=0 trains in this process, N on N Ray Train workers.
        store: the prepared exams.
        folder: of the run, reachable from all workers.
        report: told one record per epoch; only called when training in this process.

    Returns:
        The folder of the exported encoder. The checkpoint stays: the caller removes it when it needs it no more.

    Raises:
        UserError: as loop.train, or workers that can never be placed.
        DivergedError: a loss that is not a number.
    """
    if config.cluster.workers == 0:
        previous = torch.get_num_threads()
        torch.set_num_threads(config.cluster.cpus)
        try:
            loop.train(config, store, folder, Worker(device=_device()), report or (lambda _: None))
        finally:
            torch.set_num_threads(previous)
    else:
        _train_on_workers(config, store, folder)
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


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _train_on_workers(config: Config, store: Store, folder: Path) -> None:
    from ray import train as ray_train
    from ray.train.torch import TorchConfig, TorchTrainer

    asked = config.cluster
    trainer = TorchTrainer(
        _work,
        train_loop_config={"config": to_dict(config), "store": str(store.path), "folder": str(folder)},
        torch_config=TorchConfig(backend="nccl" if asked.gpus else "gloo"),
        scaling_config=ray_train.ScalingConfig(
            num_workers=asked.workers,
            use_gpu=asked.gpus > 0,
            resources_per_worker={"CPU": asked.cpus, **({"GPU": asked.gpus} if asked.gpus else {})},
        ),
        run_config=ray_train.RunConfig(
            # Name and path are the run's own, so that Ray Train resumes it and no other.
            name=f"train-{folder.name}",
            storage_path=str(folder / "ray"),
            failure_config=ray_train.FailureConfig(max_failures=asked.failures),
        ),
    )
    try:
        trainer.fit()
    except ray_train.TrainingFailedError as error:
        _raise_cause(error)


def _raise_cause(error: BaseException) -> None:
    """Raises what a worker raised, as training in this process would have raised it."""
    failures = getattr(error, "worker_failures", None) or {}
    for cause in failures.values():
        inner = getattr(cause, "cause", cause)
        if isinstance(inner, (UserError, DivergedError)):
            raise inner from None
    raise error


def _work(settings: dict[str, Any]) -> None:
    """What each Ray Train worker does."""
    from ray import train as ray_train
    from ray.train.torch import get_device

    config = from_dict(settings["config"])
    torch.set_num_threads(config.cluster.cpus)
    context = ray_train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), get_device())
    store = Store.open(Path(settings["store"]))
    loop.train(config, store, Path(settings["folder"]), worker, lambda record: ray_train.report(record))


def cost_clock() -> tuple[float, float]:
    """Seconds of wall clock and of this process's processors, to take differences of."""
    times = os.times()
    return time.time(), times.user + times.system + times.children_user + times.children_system


def finish(folder: Path) -> None:
    """Removes what only a resume would need."""
    checkpoint.remove(folder)
