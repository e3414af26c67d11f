"""A recorded trial can be run again from its folder alone, gives the same numbers, and is not silently another one."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from siamray.compose import from_dict
from siamray.config import Config
from siamray.data.preparation_plan import make_plan
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.pretrain import main as siamray_pretrain
from siamray.pretraining.threads import threads
from siamray.provenance import versions
from siamray.sweep import main as siamray_sweep
from siamray.sweeps import verification
from siamray.sweeps.rerun import Recorded
from tests.sweeps import recorded


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished trial."""
    return recorded.write(tmp_path_factory.mktemp("results") / "one")[0]


def test_a_trial_run_again_gives_the_same_numbers_whatever_the_threads_of_its_driver(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with threads(3):
        siamray_pretrain([f"from={trial}", f"out={tmp_path}"])
    assert f"the same numbers as {trial.name}: 1 epochs, " in capsys.readouterr().out
    assert (tmp_path / "encoder" / "model.safetensors").is_file()
    was, now = (json.loads(path.read_text()) for path in (trial / "trial.json", tmp_path / "run.json"))
    assert was["metrics"] == now["metrics"]
    assert len(was["metrics"]) > 20
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    siamray_pretrain([f"from={trial}", f"out={tmp_path}"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == written


def test_a_trial_at_a_url_is_run_again(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    MemoryFileSystem().put(str(trial.parents[1]), "/recorded/one", recursive=True)
    # The store stays in the tests' own cache.
    config = json.loads((trial / "trial.json").read_text())["config"]
    store = make_plan(from_dict(config)).path
    monkeypatch.setenv("SIAMRAY_CACHE", str(tmp_path / "cache"))
    siamray_pretrain([f"from=memory://recorded/one/trials/{trial.name}", f"store={store}", f"out={tmp_path / 'run'}"])
    assert f"the same numbers as {trial.name}: 1 epochs, " in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no ended trial there; did you mean"):
        siamray_pretrain([f"from=memory://recorded/one/trials/{trial.name[:-1]}", f"out={tmp_path / 'other'}"])
    MemoryFileSystem.store.clear()


def test_verify_ends_with_code_1_and_the_first_difference_where_the_numbers_are_others(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    copy = tmp_path / "copy"
    shutil.copytree(trial.parents[1], copy)
    path = copy / "trials" / trial.name / "trial.json"
    record = json.loads(path.read_text())
    record["metrics"]["patches_linear_auc"]["high"] = 0.123
    path.write_text(json.dumps(record | {"versions": {**record["versions"], "torch": "1.0"}}))
    with pytest.raises(SystemExit) as ended:
        siamray_sweep(["verify", f"results={copy}", "pairs.cache_mb=8"])
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert "different, first: metric patches_linear_auc, high: was 0.123, is " in printed
    assert f"mind: recorded with torch 1.0 (now {versions()['torch']})" in printed
    (kept,) = tmp_path.glob(".verify-*")
    assert (kept / "predictions.parquet").is_file()


def test_verify_draws_a_finished_trial_and_leaves_nothing_where_the_numbers_are_the_same(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(recorded: Recorded, config: Config, store: Store, folder: Path) -> dict[str, Any]:
        shutil.copytree(recorded.folder, folder, dirs_exist_ok=True)
        return recorded.record

    monkeypatch.setattr(verification, "run_again", copied)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    siamray_sweep(["verify", f"results={trial.parents[1]}", "seed=3"])
    printed = capsys.readouterr().out
    assert f"running again: {trial.name}" in printed
    assert "same: 1 epochs, " in printed
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=f"no finished trial of .*did you mean '{trial.name}'"):
        siamray_sweep(["verify", f"results={trial.parents[1]}", f"trial={trial.name[:-2]}"])
    with pytest.raises(UserError, match="was recorded with 32; leave it out"):
        siamray_sweep(["verify", f"results={trial.parents[1]}", "pairs.patch_pixels=64"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pretraining.margin=0.5"], "pretraining.margin=0.5: soft-seed0-fold0-.* was recorded with 1.2; leave it out"),
        (["seed=1"], "seed=1: .* was recorded with 0"),
        (["data.phantom.women=20"], "data.phantom.women=20: .* was recorded with 16"),
        (["pretraining=siamese"], "pretraining=siamese: all choices come from the recorded trial"),
        (["budget=hours"], "budget=hours: all choices come from the recorded trial"),
        (["downstream.intervals.replicates=100"], "does not use this option"),
        (["frm=x"], "did you mean 'from'"),
    ],
)
def test_a_word_that_contradicts_the_record_is_refused(
    trial: Path, tmp_path: Path, words: list[str], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        siamray_pretrain([f"from={trial}", f"out={tmp_path / 'again'}", *words])
    assert not (tmp_path / "again").exists()


def test_other_data_are_refused_before_training(trial: Path, tmp_path: Path) -> None:
    moved = tmp_path / trial.name
    moved.mkdir()
    record = json.loads((trial / "trial.json").read_text())
    (moved / "trial.json").write_text(json.dumps({**record, "data_fingerprint": "0123456789abcdef"}))
    with pytest.raises(UserError, match=r"data of fingerprint 0123456789ab, those here have .*; name the recorded"):
        siamray_pretrain([f"from={moved}", f"out={tmp_path / 'again'}"])
    assert not (tmp_path / "again").exists()


def test_a_folder_without_an_ended_trial_is_refused_with_the_nearest(trial: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no ended trial there; did you mean '{trial.name}'"):
        siamray_pretrain([f"from={trial.parent / 'soft-seed1-fold0'}"])
    with pytest.raises(UserError, match="no ended trial there; name results/EXPERIMENT/trials/TRIAL"):
        siamray_pretrain([f"from={tmp_path / 'nothing'}"])


def test_a_trial_is_never_written_over_by_its_repetition(trial: Path) -> None:
    with pytest.raises(UserError, match="is the recorded trial itself"):
        siamray_pretrain([f"from={trial}", f"out={trial}"])


def test_threads_are_fixed_within_the_block_alone() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
