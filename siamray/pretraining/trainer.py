"""A configuration and a store go in, a finished training run comes out: in this process, or on Ray Train workers."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from siamray.compose import from_dict, to_dict
from siamray.config import ClusterConfig, Config
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.files import write_json
from siamray.pretraining import checkpoint, loop
from siamray.pretraining.loop import DivergedError, Examine, Report, StoppedError
from siamray.pretraining.threads import threads
from siamray.pretraining.worker import Worker

# Ray Train keeps its state of a run there while it runs.
_RAY_FOLDER = "ray"
# What Ray must be asked for the process that waits for its workers (it refuses 0). Each worker asks for as much less:
# two workers of one processor then fit on two processors, where the sum would wait for ever.
WAITING_CPUS = 0.01
# What ended a worker and would end it again, for the process that started the workers.
_VERDICT_FILE = "verdict.json"
_VERDICTS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (UserError, DivergedError, StoppedError)}


def pretrain(
    config: Config, store: Store, folder: Path, report: Report | None = None, examine: Examine | None = None
) -> Path:
    """Trains one encoder, going on from the run's checkpoint where there is one.

    Args:
        config: the configuration; cluster.workers=0 trains in this process, N on N Ray Train workers.
        store: the prepared exams.
        folder: of the run, reachable from all workers.
        report: told one record per epoch; only called when training in this process.
        examine: see loop.train; it is pickled for Ray Train workers.

    Returns:
        The folder of the exported encoder. The checkpoint stays: the caller removes it when it needs it no more.

    Raises:
        UserError: as loop.train, or workers that can never be placed.
        DivergedError: a loss that is not a number.
        StoppedError: `examine` said so.
    """
    if config.cluster.workers == 0:
        with threads(config.cluster.cpus):
            loop.train(config, store, folder, Worker(device=_device()), report or (lambda _: None), examine)
    else:
        _train_on_workers(config, store, folder, examine)
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


def _train_on_workers(config: Config, store: Store, folder: Path, examine: Examine | None) -> None:
    from ray import train as ray_train
    from ray.train.torch import TorchConfig, TorchTrainer

    asked = config.cluster
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "config": to_dict(config),
            "store": str(store.path),
            "folder": str(folder),
            "examine": examine,
        },
        torch_config=TorchConfig(backend="nccl" if asked.gpus else "gloo"),
        scaling_config=ray_train.ScalingConfig(
            num_workers=asked.workers,
            use_gpu=asked.gpus > 0,
            resources_per_worker={"CPU": asked.cpus - WAITING_CPUS, **({"GPU": asked.gpus} if asked.gpus else {})},
        ),
        run_config=ray_train.RunConfig(
            # Name and path are the run's own, so that Ray Train resumes it and no other.
            name=f"train-{folder.name}",
            storage_path=str(folder / _RAY_FOLDER),
            failure_config=ray_train.FailureConfig(max_failures=asked.failures),
        ),
    )
    verdict = folder / _VERDICT_FILE
    verdict.unlink(missing_ok=True)
    try:
        trainer.fit()
    except ray_train.TrainingFailedError:
        _raise_verdict(verdict)
        raise
    _raise_verdict(verdict)


def _raise_verdict(path: Path) -> None:
    """Raises what a worker wrote down, as training in this process would have raised it."""
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        raise _VERDICTS[record["kind"]](record["message"])


def _work(settings: dict[str, Any]) -> None:
    """What each Ray Train worker does."""
    from ray import train as ray_train
    from ray.train.torch import get_device

    config = from_dict(settings["config"])
    context = ray_train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), get_device())
    folder = Path(settings["folder"])
    # An attempt that ended by its own options or numbers ends so again: Ray's retries are for lost machines.
    _raise_verdict(folder / _VERDICT_FILE)
    try:
        store = Store.open(settings["store"])
        with threads(config.cluster.cpus):
            loop.train(config, store, folder, worker, lambda record: ray_train.report(record), settings["examine"])
    except tuple(_VERDICTS.values()) as error:
        write_json(folder / _VERDICT_FILE, {"kind": type(error).__name__, "message": str(error)})
        # All workers stop together, so that Ray need not end any of them, nor start them all again as it would on an
        # error.
        if not isinstance(error, StoppedError):
            raise


def finish(folder: Path) -> None:
    """Removes what only a resume would need."""
    checkpoint.remove(folder)
    (folder / _VERDICT_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder / _RAY_FOLDER, ignore_errors=True)
