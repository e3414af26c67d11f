"""The status of a sweep says what is done, what failed and why, what runs, and what is left; it changes nothing."""

import io
import math
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from siamray.sweep import main as siamray_sweep
from siamray.sweeps import results
from siamray.sweeps.driver import sole_driver
from siamray.sweeps.status import Status, render, status
from tests.sweeps.test_results import experiment, trial

IDS = [f"{variant}-seed{seed}-fold0-0a1b2c3d" for seed in (0, 1) for variant in ("soft", "hard", "untrained")]
CONFIG = {"pretraining": {"epochs": 8}}


def begun(folder: Path, trial_id: str, epochs: int) -> None:
    frame = pd.DataFrame({"epoch": range(epochs + 1), "network": "A"})
    results.write_parquet(folder / results.TRIALS_FOLDER / trial_id / "epochs.parquet", frame)


def ended(folder: Path, trial_id: str, value: float = 0.7, wall: float = 100.0, **changes: Any) -> None:
    metrics = {"auc": {"value": value, "low": value - 0.1, "high": value + 0.1}}
    cost = {"wall_s": wall, "cpu_s": 2 * wall, "gpu_s": 0.0}
    variant = trial_id.split("-")[0]
    trial(folder, trial_id, variant, int(trial_id[trial_id.index("seed") + 4]),
          **{"metrics": metrics, "cost": cost, "config": CONFIG} | changes)  # fmt: skip


def printed(found: Status) -> str:
    console = Console(file=io.StringIO(), width=200)
    for part in render(found):
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_half_done_sweep_is_told_with_failures_epochs_cost_and_what_is_left(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e", trials=IDS)
    ended(folder, IDS[0], 0.71, 100.0)
    ended(folder, IDS[2], 0.6, 20.0)
    ended(folder, IDS[1], metrics={}, state="failed", reason="loss is [not] a number")
    begun(folder, IDS[3], 6)
    found = status(folder)
    assert (len(found.finished), len(found.failed), found.planned) == (2, 1, 6)
    assert [(one.variant, one.epochs, one.planned, one.running) for one in found.begun] == [("soft", 6, 8, False)]
    assert found.waiting == {"hard": 1, "untrained": 1}
    # soft: a quarter of 100 s; hard twice (failed, and not begun), of which none has finished: the mean of all.
    assert found.seconds_left == pytest.approx(25 + 2 * 60 + 20)
    text = printed(found)
    for words in (
        "driver: none runs",
        "trials: 6: 2 finished, 1 failed, 1 begun, 2 not begun",
        f"failed: {IDS[1]}: loss is [not] a number",
        f"begun: {IDS[3]}: 6 of 8 epochs done",
        f"best trial so far by auc: {IDS[0]} 0.710 [0.610, 0.810]",
        "cost so far: 4 min of trials, 7 min of processors",
        "left: about 3 min of trials (by the mean of 2 finished trials",
    ):
        assert words in text, words


def test_what_the_driver_that_runs_has_worked_on_is_running_and_the_rest_waits(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e", trials=IDS)
    ended(folder, IDS[0], wall=100.0)
    begun(folder, IDS[3], 4)
    before = time.time() - 3600
    for path in (folder / "trials" / IDS[3], folder / "trials" / IDS[3] / "epochs.parquet"):
        os.utime(path, (before, before))
    with sole_driver(folder):
        # Here, as a busy machine may take seconds between the two.
        for trial_id in IDS[1:3]:
            begun(folder, trial_id, 4)
        found = status(folder)
        assert found.driver is not None
        assert found.driver.process == os.getpid()
        assert {one.trial_id: one.running for one in found.begun} == {IDS[1]: True, IDS[2]: True, IDS[3]: False}
        text = printed(found)
    assert f"driver: runs (process {os.getpid()} on " in text
    assert "2 running, 1 begun, 2 not begun" in text
    assert "; 2 at a time, about " in text


def test_a_sweep_that_has_just_begun_says_that_nothing_is_known(tmp_path: Path) -> None:
    found = status(experiment(tmp_path / "e", trials=IDS))
    assert found.seconds_left is None
    assert "left: unknown until the first trial has finished" in printed(found)
    assert "trials: 6: 0 finished, 6 not begun" in printed(found)


def test_a_finished_sweep_has_nothing_left_and_a_broken_trial_its_reason(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e", trials=IDS)
    for trial_id in IDS:
        ended(folder, trial_id)
    assert "left: nothing" in printed(status(folder))
    (folder / "trials" / IDS[5] / "trial.json").write_text("{")
    text = printed(status(folder))
    assert f"broken: {IDS[5]}: trial.json is not JSON" in text
    assert "left: about 2 min of trials" in text


def test_a_search_has_as_many_left_as_have_not_finished(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e", kind="search", variants={"searched": ["a"]}, controls={}, planned=5)
    for seed, state in ((0, "finished"), (1, "failed")):
        ended(folder, f"searched-seed{seed}-fold0-0a1b2c3d", state=state, reason="" if state == "finished" else "x")
    found = status(folder)
    assert found.waiting == {"": 4}
    assert not math.isnan(found.seconds_left or math.nan)


def test_asking_changes_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = experiment(tmp_path / "e", trials=IDS)
    ended(folder, IDS[0])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    siamray_sweep(["status", f"results={folder}"])
    assert "e: Does it help?" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
