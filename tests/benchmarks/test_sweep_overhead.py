"""What a sweep costs beside the training: trials that train nothing, and trials of a minute; printed, never asserted.

Run: python -m pytest tests/benchmarks/test_sweep_overhead.py --benchmark-only -s

The processor seconds are those of all processes that the sweep has started and that still run, Ray's own among them:
other work on the machine lengthens the wall clock more than them.
"""

import dataclasses
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from siamray.cluster import connected
from siamray.compose import compose
from siamray.config import Config
from siamray.data.preparation import prepare
from siamray.data.store import Store
from siamray.pretraining import trainer
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial, make_trial
from siamray.sweeps.progress import UNKNOWN, Progress, Shown
from siamray.sweeps.runner import run_trials
from tests.conftest import TINY_DATA, TINY_TRAINING

pytestmark = pytest.mark.benchmark
WORDS = ["pretraining=siamese", *TINY_DATA, *TINY_TRAINING, "downstream.examples=0"]
# Seconds that the training of a long trial takes on an idle machine, and how many there are on each processor.
LONG = float(os.environ.get("SIAMRAY_LONG_TRIAL", "60"))
LONG_TRIALS = int(os.environ.get("SIAMRAY_LONG_TRIALS", "3"))


class Stopwatch(Shown):
    """Shows nothing, and looks at both clocks when a trial ends."""

    def __init__(self, trials: list[Trial]) -> None:
        progress = Progress({trial.trial_id: trial for trial in trials}, set())
        super().__init__(progress, "quiet", Console(quiet=True), "none", lambda _: UNKNOWN)
        self.seen = [clocks()]

    def end(self, trial_id: str, failed: bool, reason: str = "") -> None:
        """A trial has ended."""
        super().end(trial_id, failed, reason)
        assert not failed, reason
        self.seen.append(clocks())

    def spans(self) -> list[tuple[float, float]]:
        """Wall and processor seconds from each end to the next; the first ones from the start of the sweep."""
        return [(now[0] - before[0], now[1] - before[1]) for before, now in itertools.pairwise(self.seen)]


def clocks() -> tuple[float, float]:
    """The wall clock, and the processor seconds of this process and all that it has started, in seconds."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            # Its own ones, and those of the children that it has seen end.
            parents[int(entry.name)], ticks[int(entry.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    family, new = set(), {os.getpid()}
    while new:
        family |= new
        new = {child for child, parent in parents.items() if parent in new} - family
    return time.perf_counter(), sum(ticks.get(process, 0) for process in family) / os.sysconf("SC_CLK_TCK")


def asked(workers: int, *words: str) -> tuple[Config, Store]:
    config = compose("sweep", [*WORDS, f"cluster.workers={workers}", *words])
    return config, prepare(config, progress=False)


def sweep(config: Config, store: Store, count: int, experiment: Path) -> Stopwatch:
    """Runs trials that differ in their seed."""
    trials = [make_trial("a", "variant", dataclasses.replace(config, seed=n), store.fingerprint) for n in range(count)]
    record = {"name": experiment.name, "variants": {"a": []}, "trials": [trial.trial_id for trial in trials]}
    results.write_experiment(experiment, record)
    watch = Stopwatch(trials)
    run_trials(trials, {trial.trial_id: store.path for trial in trials}, experiment, config.cluster, watch)
    return watch


@pytest.mark.parametrize("workers", [0, 1])
def test_trials_that_train_nothing(workers: int, tmp_path: Path, benchmark: Callable[..., object]) -> None:
    # A tiny network: no epochs, but distances are measured once, and the encoder is evaluated.
    config, store = asked(workers, "pretraining.epochs=0", "encoder.backbone=test_resnet")
    with connected(config.cluster, cpus=1):
        (first, *later) = sweep(config, store, 6, tmp_path / "e").spans()
    benchmark(lambda: None)
    costs = pd.DataFrame(results.read_trial(folder)["cost"] for folder in (tmp_path / "e" / "trials").iterdir())
    middle = costs.median()
    clock, processor = (sorted(part)[len(later) // 2] for part in zip(*later, strict=True))
    where = f"on {workers} Ray Train worker" if workers else "in the trial's own process"
    print(f"\na trial that trains nothing, {where}: wall s (processor s)")
    print(
        f"  first {first[0]:.1f} ({first[1]:.1f}); later {', '.join(f'{wall:.2f} ({cpu:.2f})' for wall, cpu in later)}"
    )
    print(f"  a later one {clock:.2f} ({processor:.2f}): evaluation {middle.evaluate_s:.2f}, "
          f"pretraining with its hand-over {middle.pretrain_s:.2f}, "
          f"the rest {clock - middle.wall_s:.2f}")  # fmt: skip
    print(f"  aim: at most {5 if workers else 1} beside the evaluation: {clock - middle.evaluate_s:.2f}")


def test_a_worker_group_for_every_training(tmp_path: Path, benchmark: Callable[..., object]) -> None:
    """What a trial on a worker would cost if it started its own."""
    config, store = asked(1, "pretraining.epochs=0", "encoder.backbone=test_resnet")
    took = []
    with connected(config.cluster, cpus=1):
        for number in range(3):
            start = time.perf_counter()
            trainer.pretrain(config, store, tmp_path / str(number))
            took.append(time.perf_counter() - start)
    benchmark(lambda: None)
    # On the wall clock alone: Ray's processes that end take their processor seconds with them.
    print("\na training of nothing on a Ray Train worker of its own: wall s")
    print("  " + ", ".join(f"{wall:.1f}" for wall in took))


@pytest.mark.parametrize("workers", [0, 1])
def test_trials_of_a_minute(workers: int, tmp_path: Path, benchmark: Callable[..., object]) -> None:
    config, store = asked(workers, "pretraining.epochs=4")
    alone = dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, workers=0))
    trainer.pretrain(alone, store, tmp_path / "alone")
    epoch = pd.read_parquet(tmp_path / "alone" / "epochs.parquet").query("network == 'A' and epoch > 1").seconds.min()
    epochs = max(2, round(LONG / epoch))
    config = dataclasses.replace(config, pretraining=dataclasses.replace(config.pretraining, epochs=epochs))
    cpus = os.cpu_count() or 1
    start = time.perf_counter()
    with connected(config.cluster, cpus=cpus):
        sweep(config, store, LONG_TRIALS * cpus, tmp_path / "e")
    wall = time.perf_counter() - start
    benchmark(lambda: None)
    folders = sorted((tmp_path / "e" / "trials").iterdir())
    epochs_s = [pd.read_parquet(folder / "epochs.parquet").query("network == 'A'").seconds.sum() for folder in folders]
    costs = [results.read_trial(folder)["cost"] for folder in folders]
    trained, evaluated = sum(epochs_s) / cpus, sum(cost["evaluate_s"] for cost in costs) / cpus
    print(f"\n{len(folders)} trials of {epochs} epochs, {cpus} at a time, {workers} Ray Train workers each")
    print(f"  sweep {wall:.0f} s with Ray's start; epochs / parallelism {trained:.0f} s, evaluation {evaluated:.0f} s")
    print(f"  sweep / epochs {wall / trained:.3f} (aim: at most 1.1)")
