"""A trial that another experiment has finished is taken from it, whole, if its numbers would be the same."""

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from siamray.compose import compose
from siamray.config import Config
from siamray.sweeps import results, sharing
from siamray.sweeps.ablation import Trial, make_trial
from siamray.sweeps.sharing import share, shareable
from siamray.sweeps.trial import describe


@pytest.fixture(scope="module")
def config() -> Config:
    return compose("sweep", ["pretraining.precision=float32"])


def finish(trial: Trial, experiment: Path, data: str = "data", **changes: Any) -> Path:
    """Writes what a finished trial leaves."""
    folder = experiment / "trials" / trial.trial_id
    (folder / "encoder").mkdir(parents=True)
    (folder / "encoder" / "model.safetensors").write_bytes(b"weights")
    record = {**describe(trial, data), "state": "finished", "metrics": {"m": 0.7}, "cost": {"wall_s": 9.0}, **changes}
    results.write_trial(folder, record, predictions=pd.DataFrame({"score": ["linear"], "value": [0.5]}))
    return folder


def found(trial: Trial, experiment: Path, data: str = "data") -> dict[str, Path]:
    return shareable([trial], {trial.trial_id: data}, experiment)


def test_a_trial_under_another_name_in_another_experiment_is_found(config: Config, tmp_path: Path) -> None:
    folder = finish(make_trial("soft", "variant", config, "data"), tmp_path / "soft_labels")
    trial = make_trial("m1.2", "variant", config, "data")
    assert found(trial, tmp_path / "margin") == {trial.trial_id: folder}


def test_a_variant_renamed_in_its_own_experiment_is_found(config: Config, tmp_path: Path) -> None:
    folder = finish(make_trial("old", "variant", config, "data"), tmp_path / "mine")
    trial = make_trial("new", "variant", config, "data")
    assert found(trial, tmp_path / "mine") == {trial.trial_id: folder}


def test_options_that_change_no_number_may_differ(config: Config, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(config, results="/elsewhere", store="/mnt/store")
    finish(make_trial("soft", "variant", elsewhere, "data"), tmp_path / "soft_labels")
    assert found(make_trial("soft", "variant", config, "data"), tmp_path / "margin")


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "failed", "reason": "diverged"},
        {"code": "0123456789ab"},
        {"code": None},
        {"versions": {"torch": "1.0"}},
        {"data_fingerprint": "other data"},
        {"config": {}},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_what_failed_or_came_from_other_code_versions_or_data_is_not_taken(
    changes: dict[str, Any], config: Config, tmp_path: Path
) -> None:
    finish(make_trial("soft", "variant", config, "data"), tmp_path / "soft_labels", **changes)
    assert found(make_trial("soft", "variant", config, "data"), tmp_path / "margin") == {}


def test_a_folder_whose_name_has_the_code_but_whose_configuration_is_another_is_not_taken(
    config: Config, tmp_path: Path
) -> None:
    trial = make_trial("soft", "variant", config, "data")
    for change in ({"seed": 1}, {"downstream": dataclasses.replace(config.downstream, examples=1)}):
        shutil.rmtree(tmp_path / "forged", ignore_errors=True)
        forged = dataclasses.replace(trial, config=dataclasses.replace(config, **change))  # type: ignore[arg-type]
        finish(forged, tmp_path / "forged")
        assert found(trial, tmp_path / "margin") == {}


def test_a_damaged_or_unfinished_trial_is_not_taken(config: Config, tmp_path: Path) -> None:
    trial = make_trial("soft", "variant", config, "data")
    folder = finish(trial, tmp_path / "soft_labels")
    (folder / "predictions.parquet").write_bytes(b"half")
    assert found(trial, tmp_path / "margin") == {}
    (folder / "trial.json").unlink()
    assert found(trial, tmp_path / "margin") == {}


def test_other_data_under_the_same_configuration_is_not_taken(config: Config, tmp_path: Path) -> None:
    finish(make_trial("soft", "variant", config, "a"), tmp_path / "soft_labels", data="a")
    assert found(make_trial("soft", "variant", config, "b"), tmp_path / "margin", data="b") == {}


def test_of_ten_thousand_trials_only_those_of_the_same_code_are_opened(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make_trial("soft", "variant", config, "data")
    folder = finish(trial, tmp_path / "soft_labels")
    for i in range(10_000):
        (tmp_path / f"e{i % 10}" / "trials" / f"v-seed{i}-fold0-{i:08x}").mkdir(parents=True)
    opened: list[Path] = []
    read = results.read_trial
    monkeypatch.setattr(sharing.results, "read_trial", lambda path: (opened.append(path), read(path))[1])
    started = time.process_time()
    assert found(trial, tmp_path / "margin") == {trial.trial_id: folder}
    assert time.process_time() - started < 2
    assert opened == [folder]


def test_a_shared_trial_is_whole_in_its_experiment_and_says_where_it_comes_from(config: Config, tmp_path: Path) -> None:
    source = make_trial("soft", "variant", config, "data")
    folder = finish(source, tmp_path / "soft_labels")
    (folder / "checkpoint.pt").write_bytes(b"left over")
    trial = make_trial("m1.2", "variant", config, "data")
    assert share(trial, folder, tmp_path / "margin") == f"soft_labels/{source.trial_id}"
    taken = tmp_path / "margin" / "trials" / trial.trial_id
    model = Path("encoder", "model.safetensors")
    assert (taken / model).stat().st_ino == (folder / model).stat().st_ino
    assert not (taken / "checkpoint.pt").exists()
    assert [path.name for path in taken.parent.iterdir()] == [trial.trial_id]
    before = json.loads((folder / "trial.json").read_text())
    shutil.rmtree(tmp_path / "soft_labels")
    record = json.loads((taken / "trial.json").read_text())
    assert record == {
        **before,
        "trial_id": trial.trial_id,
        "variant": "m1.2",
        "shared_from": f"soft_labels/{source.trial_id}",
    }
    assert results.finished_trials(tmp_path / "margin")[trial.trial_id]["metrics"]["m"]["value"] == 0.7
    results.write_experiment(tmp_path / "margin", {"name": "margin", "variants": {"m1.2": []}})
    loaded = results.load(tmp_path / "margin")
    assert loaded.trials.variant.tolist() == ["m1.2"]
    assert loaded.predictions(trial.trial_id).value.tolist() == [0.5]


def test_a_trial_shared_on_names_the_experiment_that_trained_it(config: Config, tmp_path: Path) -> None:
    first = make_trial("a", "variant", config, "data")
    finish(first, tmp_path / "one")
    second, third = make_trial("b", "variant", config, "data"), make_trial("c", "variant", config, "data")
    share(second, tmp_path / "one" / "trials" / first.trial_id, tmp_path / "two")
    assert share(third, tmp_path / "two" / "trials" / second.trial_id, tmp_path / "three") == f"one/{first.trial_id}"


def test_an_interrupted_attempt_makes_way(config: Config, tmp_path: Path) -> None:
    folder = finish(make_trial("a", "variant", config, "data"), tmp_path / "one")
    trial = make_trial("b", "variant", config, "data")
    started = tmp_path / "two" / "trials" / trial.trial_id
    started.mkdir(parents=True)
    (started / "checkpoint.pt").write_bytes(b"epoch 1")
    share(trial, folder, tmp_path / "two")
    assert not (started / "checkpoint.pt").exists()
    assert results.read_trial(started)["state"] == "finished"


def test_files_are_copied_where_the_file_system_has_no_links(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finish(make_trial("a", "variant", config, "data"), tmp_path / "one")
    trial = make_trial("b", "variant", config, "data")

    def refuse(source: str, target: str) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(sharing.os, "link", refuse)
    share(trial, folder, tmp_path / "two")
    model = Path("encoder", "model.safetensors")
    taken = tmp_path / "two" / "trials" / trial.trial_id / model
    assert taken.read_bytes() == (folder / model).read_bytes()
    assert taken.stat().st_ino != (folder / model).stat().st_ino
