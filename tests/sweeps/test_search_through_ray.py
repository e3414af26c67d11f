"""A search with pruning runs through Ray, is killed in the middle, and ends as it would have ended."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from siamray.sweeps import results
from tests.conftest import TINY_DATA, TINY_TRAINING

SEARCH = """# does it go on?
# python -m siamray.sweep search=rates
name: rates
question: Which learning rate?
pruner: asha
reduction: 3
trials: 6
confirm: 1
parameters:
  pretraining.learning_rate: {kind: float, low: 0.00001, high: 0.1, log: true}
"""


def command(folder: Path, *words: str) -> list[str]:
    tiny = [*TINY_DATA, *TINY_TRAINING, "pretraining.epochs=3", "downstream.examples=0", f"results={folder}"]
    return [sys.executable, "-m", "siamray.sweep", f"experiments={folder}", "search=rates", *tiny, *words]


def states(folder: Path) -> dict[str, str]:
    return {
        path.parent.name: json.loads(path.read_text())["state"] for path in folder.glob("rates/trials/*/trial.json")
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "rates.yaml").write_text(SEARCH)
    return tmp_path


@pytest.mark.slow
def test_a_search_killed_in_the_middle_goes_on_with_no_setting_lost_or_run_twice(folder: Path) -> None:
    killed = subprocess.Popen(
        command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 300
    while len(states(folder)) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("rates/trials/*/trial.json")}
    begun = {path.name for path in folder.glob("rates/trials/*")}
    assert 2 <= len(before) < 6
    done = subprocess.run(command(folder), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    selection = pd.read_parquet(folder / "rates" / results.SELECTION_FILE)
    assert len(selection) == selection.trial_id.nunique() == 6
    assert begun <= set(selection.trial_id)
    assert set(selection.state) == {"complete", "pruned"}
    loaded = results.load(folder / "rates")
    trials = loaded.trials.set_index("trial_id")
    for row in selection.itertuples():
        told = {"finished": "complete"}.get(trials.state[row.trial_id], trials.state[row.trial_id])
        assert row.state == told
        looked = loaded.validation(row.trial_id)
        if row.state == "pruned":
            assert looked.epoch.max() == row.epoch < 3
            assert pd.isna(row.validation_patches_linear_auc)
        else:
            assert looked.epoch.tolist() == [1, 2]
            assert row.validation_patches_linear_auc == trials.validation_patches_linear_auc[row.trial_id]
    assert trials.role.eq("variant").sum() == 8
    assert set(loaded.comparison.variant[loaded.comparison.role == "variant"]) == {"base", "winner"}
    assert not loaded.unfinished
    assert "pruned" in done.stdout


@pytest.mark.slow
def test_a_stopped_trial_frees_its_train_workers(folder: Path) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs two processors for two train workers")
    words = ["cluster.workers=2", "search.trials=3", "search.reduction=2", "search.confirm=0"]
    words += ["pretraining.pairs_per_epoch=128"]
    done = subprocess.run(command(folder, *words), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(set(states(folder).values())) == ["finished", "pruned"]
    assert not list(folder.glob("rates/trials/*/ray"))
