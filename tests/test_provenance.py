"""What a result names later: the machine, and the code down to changes that were never committed."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from siamray import provenance
from siamray.config import Config
from siamray.errors import UserError
from siamray.files import location
from siamray.provenance import environment
from siamray.sweeps import results
from siamray.sweeps.ablation import make_trial
from siamray.sweeps.trial import describe

PACKAGE = Path(__file__).parents[1] / "siamray"
SHOW = "import json; from siamray import provenance as p; print(json.dumps([p.git_state(), p.uncommitted_diff()]))"


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *who, "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that holds the module alone."""
    (tmp_path / "siamray").mkdir()
    (tmp_path / "siamray" / "__init__.py").write_text("")
    shutil.copy(PACKAGE / "provenance.py", tmp_path / "siamray")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def seen(checkout: Path) -> tuple[dict[str, object], str]:
    import json

    line = [sys.executable, "-B", "-c", SHOW]
    ran = subprocess.run(line, cwd=checkout, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    state, diff = json.loads(ran.stdout)
    return state, diff


def test_a_clean_checkout_names_its_commit_and_no_diff(checkout: Path) -> None:
    state, diff = seen(checkout)
    assert state == {"commit": git(checkout, "rev-parse", "HEAD").strip(), "dirty": False}
    assert diff == ""


def test_the_diff_holds_changed_and_new_code_rebuilds_it_and_leaves_the_index_alone(checkout: Path) -> None:
    (checkout / "siamray" / "__init__.py").write_text("changed = 1\n")
    (checkout / "siamray" / "new.py").write_text("new = 2\n")
    (checkout / "women.csv").write_text("a table of one's own\n")
    before = git(checkout, "status", "--porcelain")
    state, diff = seen(checkout)
    assert git(checkout, "status", "--porcelain") == before
    assert state["dirty"] is True
    assert state["diff_sha256"] == hashlib.sha256(diff.encode()).hexdigest()
    assert "a table of one's own" not in diff
    git(checkout, "stash", "-qu")
    (checkout / "it.diff").write_text(diff)
    git(checkout, "apply", "it.diff")
    assert (checkout / "siamray" / "__init__.py").read_text() == "changed = 1\n"
    assert (checkout / "siamray" / "new.py").read_text() == "new = 2\n"


def test_files_beside_the_code_make_a_checkout_dirty_but_no_diff(checkout: Path) -> None:
    (checkout / "women.csv").write_text("1\n")
    state, diff = seen(checkout)
    assert state["dirty"] is True
    assert "diff_sha256" not in state
    assert diff == ""


def test_outside_a_checkout_nothing_is_known(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    assert seen(checkout) == ({}, "")


def test_a_small_diff_is_kept_once_and_a_large_one_by_its_hash_alone(tmp_path: Path) -> None:
    assert results.write_diff(tmp_path, "") is None
    assert results.write_diff(tmp_path, "x" * (results.DIFF_BYTES + 1)) is None
    path = results.write_diff(tmp_path, "a change")
    assert path is not None
    assert path.name == f"uncommitted-{hashlib.sha256(b'a change').hexdigest()[:12]}.diff"
    assert results.write_diff(tmp_path, "a change") == path
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "a change"


def test_the_machine_is_named_by_platform_processor_and_gpus() -> None:
    found = environment()
    assert set(found) == {"platform", "cpu", "cpus", "gpus"}
    assert found["cpu"]
    assert isinstance(found["gpus"], list)


def test_results_from_before_the_machine_was_recorded_load(tmp_path: Path) -> None:
    results.write_json(tmp_path / "e" / "experiment.json", {"schema": 1, "name": "e", "variants": {"a": []}})
    old = {"schema": 1, "trial_id": "t", "variant": "a", "seed": 0, "state": "finished", "git": {"commit": "c"}}
    results.write_json(tmp_path / "e" / "trials" / "t" / "trial.json", old)
    loaded = results.load(tmp_path / "e")
    assert loaded.experiment["environment"] == {}
    assert loaded.trial("t")["environment"] == {}


def test_no_secret_of_the_environment_reaches_what_is_recorded_of_a_trial(
    monkeypatch: pytest.MonkeyPatch, tiny_config: Config, tmp_path: Path
) -> None:
    secrets = {name: f"secret-of-{name}" for name in (
        "RAY_AUTH_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD",
        "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_CONNECTION_STRING",
    )}  # fmt: skip
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    provenance.environment.cache_clear()
    trial = make_trial("a", "variant", tiny_config, "data")
    results.write_trial(tmp_path / trial.trial_id, {**describe(trial, "data"), "state": "failed", "reason": "none"})
    text = (tmp_path / trial.trial_id / "trial.json").read_text()
    assert "torch" in text
    assert not [value for value in secrets.values() if value in text]
    with pytest.raises(UserError, match="may hold no password"):
        location("s3://key:secret@bucket/results")
