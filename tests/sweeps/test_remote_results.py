"""Results at a URL are those of a folder: whole or absent, one driver at a time, and read from any machine."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from s3fs import S3FileSystem
from upath import UPath

from dashboards.report import main as write_report
from siamray.errors import UserError
from siamray.files import location, read_bytes, write_json
from siamray.sweep import main as siamray_sweep
from siamray.sweeps import driver, remote_results, results
from siamray.sweeps.driver import LOCK_FILE, running_driver
from siamray.sweeps.remote_results import attempt, fetch_trial, fetched, send_experiment, worked_on
from tests.dashboards import generated_results
from tests.data.conftest import SECRET
from tests.sweeps.test_results import experiment, trial
from tests.test_commands import TINY, refused, siamray


@pytest.fixture
def memory() -> Iterator[UPath]:
    place = location("memory://bucket/results")
    assert isinstance(place, UPath)
    yield place
    MemoryFileSystem.store.clear()


@pytest.fixture(params=["memory", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UPath:
    """An empty place for results; this machine has copies of nothing."""
    move(tmp_path / "here", monkeypatch)
    place: UPath = request.getfixturevalue(request.param)
    return place


def move(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goes on on another machine, whose cache lies there."""
    monkeypatch.setenv("SIAMRAY_CACHE", str(cache))


def names(place: UPath) -> set[str]:
    place.fs.invalidate_cache()
    base = place.path.strip("/") + "/"
    return {str(name).strip("/").removeprefix(base) for name in place.fs.find(place.path)}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_an_experiment_reads_from_any_machine_as_it_was_written(
    remote: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worked_on(str(remote), "e") as folder:
        written = generated_results.write(folder / "e", seeds=(0, 1))
        own = results.load(written)
        first = str(own.trials["trial_id"].iloc[0])
        (written / "trials" / first / "encoder").mkdir(exist_ok=True)
        (written / "trials" / first / "encoder" / "model.safetensors").write_bytes(b"weights")
    assert names(remote / "e") == files(written)
    move(tmp_path / "there", monkeypatch)
    loaded = results.load(str(remote / "e"))
    assert loaded.experiment == own.experiment
    pd.testing.assert_frame_equal(loaded.trials, own.trials)
    pd.testing.assert_frame_equal(loaded.comparison, own.comparison)
    pd.testing.assert_frame_equal(loaded.epochs(first), own.epochs(first))
    record = (written / "trials" / first / "trial.json").read_bytes()
    assert (loaded.path / "trials" / first / "trial.json").read_bytes() == record
    assert len(loaded.examples(first).images) == len(own.examples(first).images)
    # Whoever reads needs no weights; whoever goes on does.
    assert not (loaded.path / "trials" / first / "encoder").exists()
    with worked_on(str(remote), "e") as folder:
        assert files(folder / "e") == files(written)


def test_only_what_has_changed_is_sent_and_fetched(s3: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move(tmp_path / "here", monkeypatch)
    seen: list[str] = []
    ask = S3FileSystem._call_s3

    async def noted(self: S3FileSystem, method: str, *args: Any, **words: Any) -> Any:
        if method in ("get_object", "put_object", "delete_object") and not words["Key"].endswith(LOCK_FILE):
            seen.append(f"{method} {words['Key'].rpartition('/e/')[2]}")
        return await ask(self, method, *args, **words)

    with worked_on(str(s3), "e") as folder:
        experiment(folder / "e")
        trial(folder / "e", "a")
        trial(folder / "e", "b")
    fetched(s3 / "e")
    monkeypatch.setattr(S3FileSystem, "_call_s3", noted)
    with worked_on(str(s3), "e") as folder:
        trial(folder / "e", "b", metrics={"auc": 0.9})
    # Between the two there is no trial, rather than a mixture of both.
    assert seen == ["delete_object trials/b/trial.json", "put_object trials/b/trial.json"]
    seen.clear()
    assert results.load(s3 / "e").trials.set_index("trial_id")["auc"].to_dict() == {"a": 0.7, "b": 0.9}
    assert seen == ["get_object trials/b/trial.json"]


def test_a_trial_is_there_once_its_record_is(remote: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(remote.fs)
    name = "_put_file" if kind is S3FileSystem else "put_file"
    put = getattr(kind, name)

    def lost(self: Any, source: str, target: str, *rest: Any, **words: Any) -> Any:
        if target.endswith("trial.json"):
            raise RuntimeError("the machine was lost")
        return put(self, source, target, *rest, **words)

    with worked_on(str(remote), "e") as folder:
        experiment(folder / "e")
        send_experiment(folder / "e")
        path = trial(folder / "e", "a")
        results.write_parquet(path / "epochs.parquet", pd.DataFrame({"epoch": [0], "network": ["A"]}))
        with monkeypatch.context() as patched:
            patched.setattr(kind, name, lost)
            kind.clear_instance_cache()
            with pytest.raises(RuntimeError):
                send_experiment(folder / "e")
        assert "trials/a/epochs.parquet" in names(remote / "e")
        assert results.load(remote / "e").unfinished == ["a"]
    assert results.load(remote / "e").trials["trial_id"].tolist() == ["a"]


def train_until_lost(url: str) -> None:
    with attempt("/nowhere/a", url) as (place, keep):
        (place / "ray").mkdir(parents=True)
        (place / "ray" / "state").write_text("of no use elsewhere")
        (place / "checkpoint.pt").write_bytes(b"epoch 1")
        keep()
        (place / "checkpoint.pt").write_bytes(b"epoch 2, never sent")
        raise KeyboardInterrupt


def test_a_trial_whose_machine_is_lost_goes_on_on_another_and_comes_to_its_driver(
    remote: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_results, "KEEP_SECONDS", -1)
    with worked_on(str(remote), "e") as folder:
        experiment(folder / "e")
        url = str(remote / "e" / "trials" / "a")
        move(tmp_path / "first", monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            train_until_lost(url)
        move(tmp_path / "second", monkeypatch)
        with attempt("/nowhere/a", url) as (place, _):
            assert files(place) == {"checkpoint.pt"}
            assert (place / "checkpoint.pt").read_bytes() == b"epoch 1"
            (place / "checkpoint.pt").unlink()
            trial(place.parent.parent, "a")
        # Nothing stays on a machine that only ran the trial.
        assert not files(tmp_path / "second")
        assert names(remote / "e") - {LOCK_FILE} == {"trials/a/trial.json"}
        move(tmp_path / "here", monkeypatch)
        fetch_trial(folder / "e", "a")
        assert results.finished_trial(folder / "e" / "trials" / "a") is not None
    assert results.load(remote / "e").trials["state"].tolist() == ["finished"]


def test_one_driver_at_a_time_and_a_dead_one_lets_go(
    remote: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert running_driver(remote / "e") is None
    with worked_on(str(remote), "e") as folder:
        experiment(folder / "e")
        seen = running_driver(remote / "e")
        assert seen is not None
        assert seen.process == os.getpid()
        with pytest.raises(UserError, match="on this machine"), worked_on(str(remote), "e"):
            pass
        move(tmp_path / "there", monkeypatch)
        with pytest.raises(UserError, match=f"process {os.getpid()} on"), worked_on(str(remote), "e"):
            pass
        held = json.loads(read_bytes(remote / "e" / LOCK_FILE))
    assert running_driver(remote / "e") is None
    # Killed: its lock stays. Its own machine knows at once, another one when it has not been heard of for a while.
    write_json(remote / "e" / LOCK_FILE, held)
    with pytest.raises(UserError, match="counts as dead after"), worked_on(str(remote), "e"):
        pass
    move(tmp_path / "here", monkeypatch)
    with worked_on(str(remote), "e"):
        pass
    write_json(remote / "e" / LOCK_FILE, held | {"beat": held["beat"] - driver.STALE_SECONDS})
    assert running_driver(remote / "e") is None
    move(tmp_path / "there", monkeypatch)
    with worked_on(str(remote), "e"):
        pass
    assert LOCK_FILE not in names(remote / "e")


def work_while_taken_over(remote: UPath) -> None:
    with worked_on(str(remote), "e") as folder:
        experiment(folder / "e")
        write_json(remote / "e" / LOCK_FILE, {"token": "another", "beat": 0})


def test_a_driver_that_was_taken_over_overwrites_nothing(remote: UPath) -> None:
    with pytest.raises(UserError, match="another sweep runs this experiment since"):
        work_while_taken_over(remote)
    assert names(remote / "e") == {LOCK_FILE}


def test_a_driver_says_that_it_lives(memory: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move(tmp_path, monkeypatch)
    monkeypatch.setattr(driver, "BEAT_SECONDS", 0.01)
    with worked_on(str(memory), "e") as folder:
        beats = set()
        until = time.monotonic() + 60
        while len(beats) < 50 and time.monotonic() < until:
            # A file in memory is empty while it is written: that is no other driver.
            send_experiment(folder / "e", trials=False)
            beats.add(driver._read(memory / "e")["beat"])
        assert len(beats) == 50


def test_status_export_and_report_read_and_write_at_a_url(
    s3: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    move(tmp_path / "here", monkeypatch)
    with worked_on(str(s3), "e") as folder:
        generated_results.write(folder / "e", seeds=(0, 1), failed=[("rank", 1, "no memory")], examples=False)
        (folder / "e" / "trials" / "soft-seed9-fold0").mkdir()
        results.write_bytes(folder / "e" / "trials" / "soft-seed9-fold0" / "checkpoint.pt", b"epoch 1")
        send_experiment(folder / "e")
        move(tmp_path / "there", monkeypatch)
        siamray_sweep(["status", f"results={s3 / 'e'}"])
        said = capsys.readouterr().out
        assert f"process {os.getpid()}" in said
        assert "no memory" in said
    siamray_sweep(["export", f"results={s3 / 'e'}", f"out={tmp_path / 'mine.csv'}"])
    assert len(pd.read_csv(tmp_path / "mine.csv")) == len(results.load(s3 / "e").trials)
    write_report([f"results={s3 / 'e'}"])
    assert capsys.readouterr().out.splitlines()[-1] == str(s3 / "e" / "report.html")
    assert b"no memory" in read_bytes(s3 / "e" / "report.html")


def test_what_cannot_be_done_at_a_url_is_said_in_one_line(s3: UPath) -> None:
    with pytest.raises(UserError, match="no experiment at") as caught:
        siamray_sweep(["status", f"results={s3 / 'none'}"])
    assert SECRET not in str(caught.value)
    for words in (["status"], ["export", "out=x.csv"]):
        with pytest.raises(UserError, match="no bucket that exists"):
            siamray_sweep([*words, "results=s3://other/e"])
    with pytest.raises(UserError, match="no bucket that exists"):
        siamray_sweep(["ablation=soft_labels", "results=s3://other/e"])


@pytest.mark.slow
def test_an_ablation_at_a_url_is_killed_and_goes_on_on_another_machine(
    s3: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "ends.yaml").write_text(
        "name: ends\nquestion: does it end?\nreference: a\nvariants: {a: [pretraining.labels=rank]}\n"
        "controls: {untrained: [pretraining.epochs=0]}\n"
    )
    words = [f"experiments={tmp_path}", "ablation=ends", *TINY, f"results={s3}", f"store={tmp_path / 'store'}"]
    move(tmp_path / "here", monkeypatch)
    done = siamray("sweep", *words, "seeds=1")
    assert done.returncode == 0, done.stderr
    assert f"results: {s3 / 'ends'}" in done.stdout
    first = results.load(s3 / "ends")
    assert first.trials["state"].tolist() == ["finished"] * 2
    held = {"token": "of a killed one", "beat": 1e12, "process": 1, "machine": "other"}
    write_json(s3 / "ends" / LOCK_FILE, held)
    move(tmp_path / "there", monkeypatch)
    refused(siamray("sweep", *words, "seeds=2"), "process 1 on other")
    write_json(s3 / "ends" / LOCK_FILE, held | {"beat": 0})
    done = siamray("sweep", *words, "seeds=2")
    assert done.returncode == 0, done.stderr
    assert "4 trials, 2 of them done before" in done.stderr
    loaded = results.load(s3 / "ends")
    assert loaded.trials["state"].tolist() == ["finished"] * 4
    assert not loaded.comparison.empty
    there = names(s3 / "ends")
    assert {"report.html", "trials.parquet", "comparison.parquet", "experiment.json"} <= there
    assert sum(name.endswith("/encoder/model.safetensors") for name in there) == 4
    assert not [name for name in there if name.endswith("checkpoint.pt") or LOCK_FILE in name]
