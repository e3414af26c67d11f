"""Trainings go in one after the other, what they told and how they ended comes out: Ray Train workers that are kept.

Starting Ray Train's controller and workers, each of which imports torch, takes ten seconds and more; training a small
encoder takes a minute. So one Train run does many trainings. Its train function asks for the next one, and where Ray
Train starts it anew, because a worker or a machine was lost, for the one that has not ended: that goes on from its
checkpoint.

Workers that see the run's folder write into it. On a cluster without a common disk, where one of them does not, each
trains in a temporary folder, and the leading worker's files come back over the desk after every epoch.
"""

import gc
import pickle
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from siamray.cluster import beside_this_process
from siamray.compose import from_dict, to_dict
from siamray.config import ClusterConfig, Config
from siamray.data.store import Store
from siamray.errors import DiskFull, UserError
from siamray.nodes import refuse_other_software
from siamray.pretraining import loop, own_folder
from siamray.pretraining.desk import Desk
from siamray.pretraining.loop import DivergedError, Examine, Report, StoppedError
from siamray.pretraining.threads import threads
from siamray.pretraining.worker import Worker
from siamray.provenance import software
from siamray.seeds import named_seed

RAY_FOLDER = "ray"
"""In a run's folder: what Ray Train writes when it starts; it reads nothing of it later."""
# What Ray must be asked for the process that waits for its workers (it refuses 0). Each worker asks for as much less:
# two workers of one processor then fit on two processors, where the sum would wait for ever.
WAITING_CPUS = 0.01
# Longer than most evaluations between two trainings. Should Ray Tune lose a trial's process without ending it, the next
# trial waits as long for the place of its workers, and not for ever.
_IDLE_SECONDS = 60.0
# Seconds between two looks whether Ray Train has given up.
_LOOK_SECONDS = 1.0
# Ray Train looks every two seconds whether its workers have ended, and ends them; on a busy machine it takes longer.
_ENDING_SECONDS = 30.0
# Ends that training in this process would raise, and that another attempt would only repeat.
_VERDICTS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (UserError, DiskFull, DivergedError, StoppedError)
}


@dataclass
class _TrainRun:
    """A run of Ray Train that is going on: what it was asked to be, and how it is talked to."""

    asked: ClusterConfig
    desk: Any
    thread: threading.Thread
    errors: list[BaseException] = field(default_factory=list)


@dataclass(frozen=True)
class _Ended:
    """How a training ended (see Desk.tell; "" by the end of its workers), and whether a worker had begun it."""

    kind: str
    value: Any
    begun: bool


class WorkerGroup:
    """Ray Train workers of one process, kept from one training to the next.

    They end with the process, and after a minute without a training.
    """

    def __init__(self) -> None:
        """Starts nothing yet."""
        self._run: _TrainRun | None = None

    def train(self, config: Config, store: Store, folder: Path, report: Report, examine: Examine | None = None) -> None:
        """Trains on the workers, which are started where there are none yet, or other ones.

        Args:
            config: its cluster section says how many workers, with what.
            store: the prepared exams, reachable from all workers.
            folder: of the run, whether or not the workers see it.
            report: told one record per epoch, in this process.
            examine: see loop.train; it is pickled for the workers.

        Raises:
            UserError, DivergedError, StoppedError: as loop.train.
            ray.train.TrainingFailedError: workers were lost, or raised, more often than cluster.failures allows.
        """
        task = {
            "mark": own_folder.mark(folder),
            "config": to_dict(config),
            "store": str(store.path),
            "folder": str(folder),
            "examine": examine,
            "software": software(),
        }
        packed = pickle.dumps(task)
        if self._run is not None and (self._run.asked != config.cluster or not self._run.thread.is_alive()):
            self.close()
        kept = self._run is not None
        run = self._run = self._run or _start(config.cluster, folder)
        try:
            ended = _wait(run, packed, folder, report)
        except BaseException:
            # Whoever waits no more, as at Ctrl-C, does not wait for the end either.
            run.desk.close.remote()
            self._run = None
            raise
        finally:
            own_folder.unmark(folder)
        if ended.kind == "done":
            return
        if ended.kind in _VERDICTS:
            raise _VERDICTS[ended.kind](ended.value)
        self.close()
        if kept and not ended.begun:
            # They have gone home, or Ray Train gave up over what came before: that is not this training's failure.
            self.train(config, store, folder, report, examine)
            return
        raise run.errors[0] if run.errors else RuntimeError("the workers ended before their training did")

    def close(self) -> None:
        """Ends the workers, if there are any: at once where they wait, after the epoch at hand where they train."""
        import ray

        if self._run is None:
            return
        run, self._run = self._run, None
        with suppress(ray.exceptions.RayError):
            ray.get(run.desk.close.remote(), timeout=_ENDING_SECONDS)
            run.thread.join(_ENDING_SECONDS)
        ray.kill(run.desk)


def _wait(run: _TrainRun, packed: bytes, folder: Path, report: Report) -> "_Ended":
    """Hands a training to the workers and waits for its end, or theirs."""
    import ray

    if not ray.get(run.desk.put.remote(packed)):
        return _Ended("", "", False)
    seen, waiting = 0, None
    while True:
        # Looked at before what was told: the last words of a run that has ended are heard.
        alive = run.thread.is_alive()
        waiting = waiting or run.desk.told.remote(seen)
        ready, _ = ray.wait([waiting], timeout=_LOOK_SECONDS)
        if not ready and not alive:
            return _Ended("", "", seen > 0)
        for kind, value in ray.get(waiting) if ready else []:
            seen += 1
            if kind == "epoch":
                report(value)
            elif kind == "apart":
                ray.get(run.desk.lay.remote(own_folder.Changes(folder, RAY_FOLDER).take()))
            elif kind == "files":
                own_folder.unpack(folder, ray.get(run.desk.arrived.remote()))
            elif kind != "taken":
                return _Ended(kind, value, True)
        waiting = None if ready else waiting


def _start(asked: ClusterConfig, folder: Path) -> _TrainRun:
    """Starts a run of Ray Train whose workers wait for trainings."""
    import ray
    from ray import train as ray_train
    from ray.train.torch import TorchTrainer

    from siamray.pretraining.network import NodeNetwork

    desk = ray.remote(Desk).options(**beside_this_process()).remote(_IDLE_SECONDS)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"desk": desk},
        torch_config=NodeNetwork(backend="nccl" if asked.gpus else "gloo"),
        scaling_config=ray_train.ScalingConfig(
            num_workers=asked.workers,
            use_gpu=asked.gpus > 0,
            resources_per_worker={"CPU": asked.cpus - WAITING_CPUS, **({"GPU": asked.gpus} if asked.gpus else {})},
        ),
        run_config=ray_train.RunConfig(
            name=f"train-{folder.name}",
            storage_path=str(folder / RAY_FOLDER),
            failure_config=ray_train.FailureConfig(max_failures=asked.failures),
        ),
    )
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # Raised where the training is waited for.
            errors.append(error)

    # A daemon: a process that ends does not wait for its workers, it takes them with it.
    thread = threading.Thread(target=fit, name="siamray-train-run", daemon=True)
    thread.start()
    return _TrainRun(asked, desk, thread, errors)


def _work(settings: dict[str, Any]) -> None:
    """What each Ray Train worker does: one training after the other."""
    import ray
    from ray import train as ray_train
    from ray.train.torch import get_device

    context = ray_train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), get_device())
    desk, number = settings["desk"], 0
    while (taken := ray.get(desk.take.remote(number))) is not None:
        number, packed = taken
        _train(pickle.loads(packed), worker, _AtDesk(desk, number))
        # Networks hold themselves in circles; their memory and that of cached images is the next training's.
        gc.collect()
        if worker.device.type == "cuda":
            torch.cuda.empty_cache()


class _AtDesk:
    """A training as its workers talk of it; see Desk."""

    def __init__(self, desk: Any, number: int) -> None:
        self._desk, self._number = desk, number

    def tell(self, kind: str, value: Any = None) -> bool:
        return self._ask("tell", kind, value)  # type: ignore[no-any-return]

    def files(self) -> own_folder.Files:
        return self._ask("files")  # type: ignore[no-any-return]

    def keep(self, files: own_folder.Files) -> bool:
        return self._ask("keep", files)  # type: ignore[no-any-return]

    def _ask(self, what: str, *given: Any) -> Any:
        import ray

        return ray.get(getattr(self._desk, what).remote(self._number, *given))


def _train(task: dict[str, Any], worker: Worker, desk: _AtDesk) -> None:
    """One training on one worker; says how it ended."""
    config = from_dict(task["config"])
    # Whatever draws from a global generator draws the same in a new process and in one that has trained before.
    seed = named_seed(config.seed, "worker", worker.rank)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        refuse_other_software(task["software"])
        store = Store.open(task["store"], config.cluster.chunk_cache_gb)
        with _folder(Path(task["folder"]), task["mark"], worker, desk) as (folder, send):

            def report(record: dict[str, Any]) -> None:
                if worker.leads:
                    send()
                    # Not through ray.train.report, which waits for the controller's next look, up to two seconds.
                    _wanted(desk.tell("epoch", record))

            with threads(config.cluster.cpus):
                loop.train(config, store, folder, worker, report, task["examine"])
            if worker.leads:
                send()
    except tuple(_VERDICTS.values()) as error:
        desk.tell(type(error).__name__, str(error))
        # All workers stop together, and one alone has nobody who would wait for it. Else the others may, for ever:
        # Ray Train ends them all and starts them anew.
        if worker.world_size > 1 and not isinstance(error, StoppedError):
            raise
    else:
        if worker.leads:
            desk.tell("done")


@contextmanager
def _folder(wanted: Path, mark: str, worker: Worker, desk: _AtDesk) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Gives a worker the folder to train in, and what sends its files where the process sees another one."""
    # All or none: one that reads the process's folder may find a later checkpoint than those that ask the desk.
    if all(worker.gather(own_folder.sees(wanted, mark))):
        yield wanted, lambda: None
        return
    with tempfile.TemporaryDirectory(prefix="siamray-run-") as name:
        folder = Path(name)
        own_folder.unpack(folder, desk.files())
        changes = own_folder.Changes(folder)
        changes.take()

        def send() -> None:
            if files := changes.take():
                _wanted(desk.keep(files))

        yield folder, send


def _wanted(told: bool) -> None:
    if not told:
        raise RuntimeError("nobody waits for this training any more")
