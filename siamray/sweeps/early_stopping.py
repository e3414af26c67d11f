"""A training trial's encoder goes in after an epoch, its objective on validation women comes out, and an answer back.

The trial writes what it measured into its folder, the driver of the search reads it there and answers in another file:
this works alike in the trial's own process and on Ray Train workers, and what was measured outlives a killed driver.
Where trials and driver have no folder in common, a board between them carries measurements and answers.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from siamray.compose import from_dict
from siamray.data.store import Store
from siamray.downstream.evaluation import validation_value
from siamray.files import write_json, write_parquet
from siamray.pretraining.encoder import PairEncoder
from siamray.sweeps.contract import VALIDATION_COLUMNS, VALIDATION_FILE
from siamray.sweeps.reading import read_parquet

_ANSWER_FILE = "answer.json"
# A driver that has died answers nothing: the trial then goes on, and the driver's next run decides.
_WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class Examination:
    """Measures a trial's objective on validation women after some epochs; see siamray.pretraining.loop.Examine.

    Attributes:
        config: the trial's configuration, as plain dictionaries: it is pickled for Ray Train workers.
        store: folder of the prepared exams.
        metric: the objective.
        every: epochs between two measurements.
        wait_seconds: how long to wait for the driver's answer, at most.
        board: name of the Board that answers, and the trial's id on it; None: files do.
    """

    config: dict[str, Any]
    store: str
    metric: str
    every: int
    wait_seconds: float = _WAIT_SECONDS
    board: tuple[str, str] | None = None

    def __call__(self, epoch: int, encoder: PairEncoder, folder: Path) -> bool:
        """Measures, writes it down, and waits for the answer whether to go on."""
        if epoch % self.every:
            return True
        config = from_dict(self.config)
        store = Store.open(self.store, config.cluster.chunk_cache_gb)
        value = validation_value(encoder, store, config, self.metric)
        write_measured(folder, epoch, self.metric, value)
        if self.board is not None:
            return _answered(*self.board, epoch, self.metric, value, self.wait_seconds)
        until = time.monotonic() + self.wait_seconds
        while time.monotonic() < until:
            answer = _answer(folder)
            if answer.get("epoch", -1) >= epoch or answer.get("stop"):
                return not answer["stop"]
            time.sleep(0.02)
        return True


class Board:
    """An actor between a search's driver and its trials on other machines: measurements come in, answers go out."""

    def __init__(self) -> None:
        """Knows nothing yet."""
        self._changed = asyncio.Condition()
        self._measured: list[tuple[str, int, str, float]] = []
        self._answers: dict[str, tuple[int, bool]] = {}

    async def examined(self, trial_id: str, epoch: int, metric: str, value: float, wait_seconds: float) -> bool:
        """Takes what a trial has measured after some epochs and waits for the answer; goes on without one."""
        self._measured.append((trial_id, epoch, metric, value))

        def judged() -> bool:
            last, stop = self._answers.get(trial_id, (-1, False))
            return stop or last >= epoch

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(judged), wait_seconds)
            except TimeoutError:
                return True
        return not self._answers[trial_id][1]

    async def take(self) -> list[tuple[str, int, str, float]]:
        """Gives the driver trial, epoch, metric and value of what was measured since it asked last."""
        measured, self._measured = self._measured, []
        return measured

    async def answer(self, trial_id: str, epoch: int, stop: bool) -> None:
        """Takes the driver's answer to what was measured up to an epoch."""
        async with self._changed:
            self._answers[trial_id] = epoch, stop
            self._changed.notify_all()


def _answered(board: str, trial_id: str, epoch: int, metric: str, value: float, wait_seconds: float) -> bool:
    import ray

    try:
        actor = ray.get_actor(board)
        return bool(ray.get(actor.examined.remote(trial_id, epoch, metric, value, wait_seconds)))
    except (ray.exceptions.RayError, ValueError):
        # Its driver has died, or is out of reach.
        return True


def write_measured(folder: Path, epoch: int, metric: str, value: float) -> None:
    """Adds a measurement to a trial's validation.parquet; one of the same epoch, of an earlier attempt, is replaced.

    Args:
        folder: of the trial.
        epoch: epochs done.
        metric: what was measured.
        value: NaN where it has none.
    """
    table = read_parquet(folder / VALIDATION_FILE, VALIDATION_COLUMNS)
    row = pd.DataFrame([[epoch, metric, value]], columns=VALIDATION_COLUMNS)
    before = table[table.epoch < epoch]
    write_parquet(folder / VALIDATION_FILE, pd.concat([before, row]) if len(before) else row)


def read_measured(folder: Path, metric: str) -> dict[int, float]:
    """Reads what a trial has measured so far.

    Args:
        folder: of the trial.
        metric: the objective.

    Returns:
        Epochs done -> value, in order.
    """
    table = read_parquet(folder / VALIDATION_FILE, VALIDATION_COLUMNS)
    own = table[table.metric == metric].sort_values("epoch")
    return {int(epoch): float(value) for epoch, value in zip(own.epoch, own.value, strict=True)}


def answer(folder: Path, epoch: int, stop: bool) -> None:
    """Answers a trial.

    Args:
        folder: of the trial.
        epoch: the last epoch that was judged.
        stop: whether the trial is to stop.
    """
    write_json(folder / _ANSWER_FILE, {"epoch": epoch, "stop": stop})


def forget_answer(folder: Path) -> None:
    """Removes the answers that an earlier driver gave: this one judges anew."""
    (folder / _ANSWER_FILE).unlink(missing_ok=True)


def answered(folder: Path) -> tuple[int, bool] | None:
    """Reads the last answer to a trial: the epoch, and whether it is to stop; None before there is one."""
    found = _answer(folder)
    return (found["epoch"], found["stop"]) if found else None


def _answer(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / _ANSWER_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found
