"""One trial of a sweep goes in; its folder of results comes out, whole or not at all."""

import dataclasses
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from siamray.compose import to_dict
from siamray.config import Config
from siamray.data.store import Store
from siamray.downstream.evaluation import Evaluation, check_tasks, evaluate
from siamray.downstream.examples import EpochMaps, kept_epochs
from siamray.errors import DiskFull, UserError
from siamray.files import space_for, write_parquet
from siamray.pretraining import encoder, trainer
from siamray.pretraining.encoder import PairEncoder
from siamray.pretraining.loop import DivergedError, Examine, StoppedError, untrained
from siamray.pretraining.threads import threads
from siamray.pretraining.worker_group import WorkerGroup
from siamray.provenance import code_fingerprint, environment, git_state, versions
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial

Report = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class _Both:
    """Keeps maps after an epoch, then asks another examination, where there is one, whether to go on."""

    maps: EpochMaps
    other: Examine | None

    def __call__(self, epoch: int, encoder: PairEncoder, folder: Path) -> bool:
        self.maps(epoch, encoder, folder)
        return self.other is None or self.other(epoch, encoder, folder)


def run_trial(
    trial: Trial,
    store: Store,
    folder: Path,
    report: Report | None = None,
    examine: Examine | None = None,
    workers: WorkerGroup | None = None,
) -> dict[str, Any]:
    """Trains, evaluates and writes one trial; goes on from its checkpoint where an earlier attempt left one.

    Args:
        trial: what to run.
        store: the prepared exams of its configuration.
        folder: ``<results>/<experiment>/trials/<trial_id>``.
        report: told one record per epoch.
        examine: asked after every epoch whether to go on, see siamray.pretraining.loop.
        workers: kept for the next trial, see siamray.pretraining.trainer.

    Returns:
        What trial.json holds. A run that is stopped early is a pruned trial and has no metrics. One that diverges, or
        that its options make impossible, is a failed trial with its reason: another attempt would end alike. Whatever
        else is raised is worth another attempt.

    Raises:
        DiskFull: the trial has no result yet, and keeps its checkpoint.
    """
    with space_for(folder):
        outcome = train_and_evaluate(trial.config, store, folder, report, examine, workers)
        record = {**describe(trial, store.fingerprint), **outcome}
        results.write_trial(folder, record)
    trainer.finish(folder)
    return record


def train_and_evaluate(
    config: Config,
    store: Store,
    folder: Path,
    report: Report | None = None,
    examine: Examine | None = None,
    workers: WorkerGroup | None = None,
) -> dict[str, Any]:
    """Does the work of a trial on the threads of its configuration, and writes its tables and pictures.

    Args:
        config: of the trial.
        store: the prepared exams of its configuration.
        folder: to write to; the checkpoint stays, the caller removes it when it needs it no more.
        report: told one record per epoch.
        examine: asked after every epoch whether to go on, see siamray.pretraining.loop.
        workers: kept for the next trial, see siamray.pretraining.trainer.

    Returns:
        What trial.json holds of the outcome: state, reason, batch_pairs, metrics, notes, cost, started, ended.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    earlier = _seconds_trained(folder)
    examples = folder / results.EXAMPLES_FOLDER
    maps = EpochMaps(to_dict(config), str(store.path), results.EXAMPLES_FOLDER)
    looking = _Both(maps, examine) if set(kept_epochs(config)) - {0} else examine
    try:
        check_tasks(store, config)
        trained = trainer.pretrain(config, store, folder, report, looking, workers)
        middle = time.perf_counter()
        # A trial that waits for its Train workers holds no processors of its own.
        with threads(1 if config.cluster.workers else config.cluster.cpus):
            trained_encoder = encoder.load(trained)
            evaluation = evaluate(trained_encoder, store, config, examples)
            if 0 in kept_epochs(config):
                maps(0, untrained(config), folder)
    except DiskFull:
        # Of the machine, not of the trial.
        raise
    except (DivergedError, StoppedError, UserError) as error:
        state = "pruned" if isinstance(error, StoppedError) else "failed"
        outcome: dict[str, Any] = {"state": state, "reason": " ".join(str(error).split())}
        evaluation, middle = Evaluation(pd.DataFrame(), {}), time.perf_counter()
    else:
        outcome = {"state": "finished", "reason": ""}
        if config.pretraining.epochs:
            outcome["batch_pairs"] = trained_encoder.metadata.get("batch_pairs")
        write_parquet(folder / "predictions.parquet", evaluation.predictions)
    end = time.perf_counter()
    return {
        **outcome,
        "metrics": evaluation.metrics,
        "notes": evaluation.notes,
        "cost": _cost(config, earlier + end - clock, earlier + middle - clock, end - middle),
        "started": started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe(trial: Trial, data_fingerprint: str) -> dict[str, Any]:
    """The part of trial.json that is known before the trial runs."""
    return {
        "trial_id": trial.trial_id,
        "variant": trial.variant,
        "seed": trial.seed,
        "fold": trial.fold,
        "config": to_dict(trial.config),
        "git": git_state(),
        "versions": versions(),
        "code": code_fingerprint(),
        "environment": {**environment(), "threads": trial.config.cluster.cpus},
        "data_fingerprint": data_fingerprint,
    }


def trial_to_dict(trial: Trial) -> dict[str, Any]:
    """Takes a trial apart for another process."""
    return {
        **{entry.name: getattr(trial, entry.name) for entry in dataclasses.fields(trial)},
        "config": to_dict(trial.config),
    }


def _seconds_trained(folder: Path) -> float:
    """Seconds that earlier attempts spent on the epochs they completed."""
    path = folder / "epochs.parquet"
    if not path.exists():
        return 0.0
    epochs = pd.read_parquet(path, columns=["network", "seconds"])
    return float(epochs.loc[epochs.network == "A", "seconds"].sum())


def _cost(config: Config, wall: float, pretrain: float, evaluate_seconds: float) -> dict[str, float]:
    """Seconds of the trial; those of processors and GPUs are the ones it reserved, which is what a cluster bills."""
    asked = config.cluster
    trainers = max(1, asked.workers)
    return {
        "wall_s": wall,
        "cpu_s": wall * asked.cpus * trainers,
        "gpu_s": wall * asked.gpus * trainers,
        "pretrain_s": pretrain,
        "evaluate_s": evaluate_seconds,
    }
