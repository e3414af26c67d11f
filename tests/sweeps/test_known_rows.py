"""The table of trials that reads only what changed equals the one that reads everything, whatever happens to files."""

import itertools
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamray import files
from siamray.sweeps import known_rows, results
from tests.sweeps.test_results import experiment, trial

NAMES = ["t1", "t2", "t3", "t4"]
CLOCK = itertools.count(1_000_000)


@pytest.fixture(autouse=True, scope="module")
def _unsynced() -> Iterator[None]:
    """Hundreds of small files: waiting for the disk after each of them would take minutes where it is busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", lambda _: None)
        yield


def aged(folder: Path) -> None:
    """Makes the files of a trial old enough to be known, each change at a time of its own."""
    for path in folder.iterdir():
        os.utime(path, (next(CLOCK), next(CLOCK)))


def read_everything(folder: Path) -> pd.DataFrame:
    """The table as without trials.parquet."""
    kept = folder / "trials.parquet"
    aside = folder / "aside.parquet"
    if kept.exists():
        kept.rename(aside)
    try:
        return results.trials_table(folder, results.read_experiment(folder))
    finally:
        if aside.exists():
            aside.rename(kept)


def write(folder: Path, name: str, kind: int) -> None:
    metrics: list[dict[str, Any]] = [
        {"auc": {"value": 0.7, "low": 0.6, "high": None}},
        {"auc": 0.5, "ap": {"value": 0.25, "low": 0.1, "high": 0.3}},
        {"nothing": None},
        {},
    ]
    more: dict[str, Any] = {"cost": {"wall_s": 3.0, "own_s": None}} if kind == 1 else {}
    more |= {"state": "failed", "reason": "boom", "started": "2026-01-02T03:04:05+00:00"} if kind == 3 else {}
    trial(folder, name, ["soft", "hard", "untrained", "other"][kind], kind, metrics=metrics[kind], **more)
    results.write_parquet(folder / "trials" / name / "epochs.parquet", pd.DataFrame({"epoch": range(30)}))
    aged(folder / "trials" / name)


def change(folder: Path, action: str, name: str, kind: int) -> None:
    path = folder / "trials" / name
    if action == "write":
        write(folder, name, kind)
    elif action == "delete":
        shutil.rmtree(path, ignore_errors=True)
    elif action == "collect":
        results.collect(folder)
    elif action == "damage table":
        (folder / "trials.parquet").write_bytes(b"PAR1 damaged")
    elif action == "other question":
        experiment(folder, variants={"hard": [], "soft": []}, trials=NAMES[: kind + 1])
    elif path.is_dir():
        if action == "damage record":
            (path / "trial.json").write_text('{"trial_id"')
        elif action == "cut off":
            (path / "epochs.parquet").write_bytes((path / "epochs.parquet").read_bytes()[:40])
        elif action == "begin again":
            (path / "trial.json").unlink(missing_ok=True)
        aged(path)


ACTIONS = ["write", "write", "collect", "collect", "delete", "damage table", "damage record", "cut off", "begin again",
           "other question"]  # fmt: skip


@settings(max_examples=12)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(ACTIONS), st.sampled_from(NAMES), st.integers(0, 3)), min_size=2, max_size=8
    )
)
def test_the_incremental_table_equals_the_full_one_after_any_changes(
    steps: list[tuple[str, str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = experiment(tmp_path_factory.mktemp("e") / "e")
    for name in NAMES[:2]:
        write(folder, name, 0)
    results.collect(folder)
    for step in steps:
        change(folder, *step)
        expected = read_everything(folder)
        pd.testing.assert_frame_equal(results.load(folder).trials, expected)
        pd.testing.assert_frame_equal(results.trials_table(folder, results.read_experiment(folder)), expected)
    pd.testing.assert_frame_equal(results.collect(folder), read_everything(folder))
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "trials.parquet"), read_everything(folder))


def test_only_trials_that_changed_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = experiment(tmp_path / "e")
    for name in NAMES:
        write(folder, name, 0)
    results.collect(folder)
    write(folder, "t2", 1)
    (folder / "trials" / "t3" / "trial.json").write_text("{")
    aged(folder / "trials" / "t3")
    opened = []
    real = results.read_trial

    def counted(path: Path) -> dict[str, Any]:
        opened.append(path.name)
        return real(path)

    monkeypatch.setattr(results, "read_trial", counted)
    assert results.collect(folder).set_index("trial_id")["state"].to_dict() == {
        **dict.fromkeys(["t1", "t2", "t4"], "finished"),
        "t3": "broken",
    }
    assert opened == ["t2", "t3"]
    opened.clear()
    assert math.isnan(results.load(folder).trials.set_index("trial_id").loc["t2", "auc_low"])
    # A broken one may have been unreadable for a passing reason.
    assert opened == ["t3"]


def test_a_file_that_may_still_change_within_the_clock_of_the_disk_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = experiment(tmp_path / "e")
    trial(folder, "t1", metrics={"auc": 0.1})
    results.collect(folder)
    path = folder / "trials" / "t1" / "trial.json"
    seen = path.stat()
    path.write_text(path.read_text().replace('"value": 0.1', '"value": 0.9').replace("0.1", "0.9"))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert known_rows.file_states(path.parent) == (seen.st_ino, seen.st_mtime_ns, seen.st_size, *[0] * 9)
    assert results.load(folder).trials["auc"].tolist() == [0.9]


def test_loading_writes_nothing(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    write(folder, "t1", 0)
    results.collect(folder)
    write(folder, "t2", 1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    results.load(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
