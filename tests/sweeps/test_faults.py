"""A sweep whose processes are killed at random moments ends, given again, with what an undisturbed one has."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from siamray.sweeps import results
from tests.conftest import TINY_DATA, TINY_TRAINING
from tests.sweeps.found import assert_same, numbers

# The smallest that has two trials at a time and a checkpoint to go on from: a kill costs as long as starting it again.
ABLATION = """# does a sweep survive?
# python -m siamray.sweep ablation=survivors
name: survivors
question: Does a sweep survive?
reference: soft
metric: patches_linear_auc
base: [pretraining=siamese]
variants:
  soft: [pretraining.labels=mixture]
  hard: [pretraining.labels=hard]
"""
WORDS = ["ablation=survivors", *TINY_DATA, *TINY_TRAINING, "seeds=1", "downstream.examples=0"]
# Each costs as long as a sweep takes to start, so that the suite leaves them out.
KILLS = int(os.environ.get("SIAMRAY_KILLS", "0"))
# A process by itself, what the others hang on, or all at once, as when the machine goes down; the last is asked to end.
VICTIMS = ("driver", "trial", "raylet", "machine", "sigterm")
# What a driver then returns: its signal; 0 where it went on, or had nothing left to do; 2 and one line without its Ray.
CODES = {
    "driver": {-signal.SIGKILL},
    "trial": {0},
    "raylet": {2, 0},
    "machine": {-signal.SIGKILL},
    "sigterm": {128 + signal.SIGTERM, -signal.SIGTERM, 0},
}
# Which moments are tried is decided by this seed.
SEED = 11


def start(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    (folder / "ablation").mkdir(parents=True, exist_ok=True)
    (folder / "ablation" / "survivors.yaml").write_text(ABLATION)
    line = [sys.executable, "-m", "siamray.sweep", f"experiments={folder}", *WORDS, f"results={folder}", *more]
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


def kill(driver: subprocess.Popen[bytes], victim: str) -> bool:
    """Kills a victim as the out-of-memory killer would; what of Ray outlives its driver must end by itself.

    Returns whether there was one.
    """
    beneath = descendants(driver.pid)
    chosen = {
        "driver": [driver.pid],
        "trial": [process for process, name in beneath.items() if name.startswith("ray::ImplicitFunc")],
        "raylet": [process for process, name in beneath.items() if "/raylet/raylet " in name],
        "machine": [driver.pid, *beneath],
        "sigterm": [driver.pid],
    }[victim]
    for process in chosen:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM if victim == "sigterm" else signal.SIGKILL)
    return bool(chosen)


def wait(driver: subprocess.Popen[bytes], seconds: float = 900) -> int:
    """Waits for a driver's end, and ends it where it hangs: then the test fails by the return code."""
    try:
        return driver.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        return -1000


@pytest.mark.slow
def test_a_sweep_whose_ray_is_killed_ends_in_one_line_and_goes_on_when_given_again(tmp_path: Path) -> None:
    driver, until = start(tmp_path), time.monotonic() + 600
    while not list(tmp_path.rglob("checkpoint.pt")) and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    kill(driver, "raylet")
    code, lines = wait(driver), (tmp_path / "log").read_text().splitlines()
    assert code == 2, lines
    line = "siamray: Ray has ended on this machine (its raylet died); the same command goes on where it stopped"
    assert [said for said in lines if said.startswith(("siamray:", "Traceback")) or "raylet" in said] == [line]
    assert not [path for path in tmp_path.rglob("trial.json") if '"failed"' in path.read_text()]
    assert wait(start(tmp_path)) == 0, (tmp_path / "log").read_text()
    assert numbers(tmp_path)[0].state.tolist() == ["finished", "finished"]


@pytest.mark.slow
def test_a_sweep_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_space(
    small_disk: Callable[[str], Path],
) -> None:
    # Less than a checkpoint of this network takes.
    disk, network = small_disk("48m"), "encoder.backbone=resnet10t"
    code, lines = wait(start(disk, network)), (disk / "log").read_text().splitlines()
    assert code == 2, lines
    assert lines[-1].startswith(f"siamray: {disk}/survivors")
    assert "is on a full disk; free space or name another folder" in lines[-1]
    assert not [line for line in lines[:-1] if "siamray:" in line or "Traceback" in line]
    assert not list(disk.rglob("trial.json"))
    assert list(disk.rglob("epochs.parquet"))
    small_disk("2g")
    assert wait(start(disk, network)) == 0, (disk / "log").read_text()
    assert numbers(disk)[0].state.tolist() == ["finished", "finished"]


@pytest.mark.slow
@pytest.mark.skipif(KILLS == 0, reason="takes a minute per kill; SIAMRAY_KILLS=20 asks for it")
def test_a_sweep_killed_at_random_moments_has_every_trial_once_and_the_same_numbers(tmp_path: Path) -> None:
    # The first one also prepares the store; the second one tells how long a sweep takes when nothing disturbs it.
    for name in ("first", "calm"):
        (tmp_path / name).mkdir()
        begun = time.monotonic()
        assert wait(start(tmp_path / name)) == 0, (tmp_path / name / "log").read_text()
        whole = time.monotonic() - begun
    dice, kills, runs = random.Random(SEED), 0, 0
    while kills < KILLS:
        folder = tmp_path / f"disturbed{runs}"
        folder.mkdir()
        runs += 1
        while kills < KILLS:
            driver = start(folder)
            moment, victim = dice.uniform(0.2, 0.9) * whole, dice.choice(VICTIMS)
            try:
                # Most of a small sweep is starting up; a kill after its end would be none.
                driver.wait(moment)
            except subprocess.TimeoutExpired:
                killed = kill(driver, victim)
                kills += killed
                code = wait(driver)
                print(f"kill {kills}: {victim if killed else 'none'} after {moment:.0f} s: code {code}", flush=True)
                log = (folder / "log").read_text()
                assert code in (CODES[victim] if killed else {0}), log
                assert "Traceback" not in log
                if code == 2:
                    assert log.splitlines()[-1].startswith("siamray: Ray "), log
                if code:
                    continue
            # It ended before its moment, or in spite of it: the next one starts anew.
            break
        code = wait(start(folder))
        assert code == 0, (folder / "log").read_text()
        trials = numbers(folder)[0]
        assert not trials.trial_id.duplicated().any()
        assert_same(folder, tmp_path / "calm")
        assert not results.load(folder / "survivors").unfinished
        assert not list((folder / "survivors").rglob("checkpoint.pt"))
