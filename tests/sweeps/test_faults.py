"""A sweep whose processes are killed at random moments ends, given again, with what an undisturbed one has."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from siamray.sweeps import results
from tests.conftest import TINY_DATA, TINY_TRAINING

WORDS = ["ablation=soft_labels", *TINY_DATA, *TINY_TRAINING, "seeds=1", "downstream.examples=0"]
# Each costs as long as a sweep takes to start, so that the suite leaves them out.
KILLS = int(os.environ.get("SIAMRAY_KILLS", "0"))
# A process by itself, what the others hang on, or all at once, as when the machine goes down.
VICTIMS = ("driver", "trial", "raylet", "machine")
# Which moments are tried is decided by this seed.
SEED = 11


def start(folder: Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "siamray.sweep", *WORDS, f"results={folder}"]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True)


def descendants(root: int) -> dict[int, str]:
    """Process number -> command line of a process's children and theirs."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, new = set(), {root}
    while new:
        found |= new
        new = {child for child, parent in parents.items() if parent in new} - found
    return {process: names[process] for process in found - {root} if process in names}


def kill(driver: subprocess.Popen[bytes], victim: str) -> None:
    """Kills a victim as the out-of-memory killer would; what of Ray outlives its driver must end by itself."""
    beneath = descendants(driver.pid)
    chosen = {
        "driver": [driver.pid],
        "trial": [process for process, name in beneath.items() if name.startswith("ray::")],
        "raylet": [process for process, name in beneath.items() if "/raylet/raylet " in name],
        "machine": [driver.pid, *beneath],
    }[victim]
    for process in chosen:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait(driver: subprocess.Popen[bytes], seconds: float = 240) -> int:
    """Waits for a driver's end, and ends it where it hangs: then the test fails by the return code."""
    try:
        return driver.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        return -1000


def numbers(folder: Path) -> tuple[pd.DataFrame, dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """All that an experiment found: its trials, and per trial its epochs and predictions, without times."""
    loaded = results.load(folder / "soft_labels")
    timed = [column for column in loaded.trials if column.endswith("_s") or column in ("started", "ended")]
    epochs = {name: loaded.epochs(name).drop(columns="seconds") for name in loaded.trials.trial_id}
    predictions = {name: loaded.predictions(name) for name in loaded.trials.trial_id}
    return loaded.trials.drop(columns=timed), epochs, predictions


@pytest.mark.slow
@pytest.mark.skipif(KILLS == 0, reason="takes a minute per kill; SIAMRAY_KILLS=20 asks for it")
def test_a_sweep_killed_at_random_moments_has_every_trial_once_and_the_same_numbers(tmp_path: Path) -> None:
    # The first one also prepares the store; the second one tells how long a sweep takes.
    for name in ("first", "calm"):
        (tmp_path / name).mkdir()
        begun = time.monotonic()
        assert wait(start(tmp_path / name)) == 0, (tmp_path / name / "log").read_text()
        whole = time.monotonic() - begun
    expected = numbers(tmp_path / "calm")
    dice, kills, runs = random.Random(SEED), 0, 0
    while kills < KILLS:
        folder = tmp_path / f"disturbed{runs}"
        folder.mkdir()
        runs += 1
        while kills < KILLS:
            driver = start(folder)
            try:
                # Most of a small sweep is starting up; a kill after its end would be none.
                driver.wait(dice.uniform(0.2, 0.9) * whole)
            except subprocess.TimeoutExpired:
                kills += 1
                kill(driver, dice.choice(VICTIMS))
                # With its trial or its Ray dead, a driver may go on or give up, but must not hang.
                assert wait(driver) != -1000, (folder / "log").read_text()
            else:
                # It was resumed and ended before its moment: the next one starts anew.
                break
        code = wait(start(folder))
        assert code == 0, (folder / "log").read_text()
        trials, epochs, predictions = numbers(folder)
        assert not trials.trial_id.duplicated().any()
        pd.testing.assert_frame_equal(trials, expected[0], check_exact=True)
        for name in trials.trial_id:
            pd.testing.assert_frame_equal(epochs[name], expected[1][name], check_exact=True)
            pd.testing.assert_frame_equal(predictions[name], expected[2][name], check_exact=True)
        assert not results.load(folder / "soft_labels").unfinished
        assert not list((folder / "soft_labels").rglob("checkpoint.pt"))
