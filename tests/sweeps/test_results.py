"""The results contract: what is written is read back, what is half written is never believed."""

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamray import files
from siamray.errors import UserError
from siamray.sweeps import results

JSON_LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    JSON_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def experiment(folder: Path, **changes: Any) -> Path:
    """Writes an experiment of two variants and a control without trials."""
    record = {
        "name": folder.name,
        "kind": "ablation",
        "question": "Does it help?",
        "reference": "soft",
        "metric": "auc",
        "variants": {"soft": [], "hard": ["pretraining.labels=hard"]},
        "controls": {"untrained": ["pretraining.epochs=0"]},
        "seeds": [0, 1],
    }
    results.write_experiment(folder, record | changes)
    return folder


def trial(folder: Path, trial_id: str, variant: str = "soft", seed: int = 0, **changes: Any) -> Path:
    """Writes a finished trial of one metric."""
    record = {
        "trial_id": trial_id,
        "variant": variant,
        "seed": seed,
        "state": "finished",
        "metrics": {"auc": {"value": 0.7, "low": 0.6, "high": 0.8}, "prevalence": 0.25},
        "cost": {"wall_s": 12.5},
    }
    path = folder / results.TRIALS_FOLDER / trial_id
    results.write_trial(path, record | changes)
    return path


def expected(value: Any) -> Any:
    """The slow, obvious image of a value after its way through the file."""
    if isinstance(value, float) and (math.isnan(value) or math.isinf(value)):
        return None
    if isinstance(value, list):
        return [expected(item) for item in value]
    if isinstance(value, dict):
        return {key: expected(item) for key, item in value.items()}
    return value


@settings(max_examples=60, deadline=None)
@given(record=st.dictionaries(st.text(), JSON, max_size=4))
def test_json_comes_back_with_null_for_what_is_not_a_number(record: dict[str, Any], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    results.write_json(path, record)
    assert json.loads(path.read_text()) == expected(record)


def test_numpy_paths_and_missing_values_become_plain_json(tmp_path: Path) -> None:
    record = {
        "a": np.float32(0.5),
        "b": np.int64(3),
        "c": np.array([[1.0, np.nan]]),
        "d": Path("x/y"),
        "f": np.bool_(True),
    }
    results.write_json(tmp_path / "plain.json", record)
    assert json.loads((tmp_path / "plain.json").read_text()) == {
        "a": 0.5,
        "b": 3,
        "c": [[1.0, None]],
        "d": "x/y",
        "f": True,
    }


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    results.write_json(path, {"old": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"full disk.*results=") as caught:
        results.write_json(path, {"new": 1})
    assert str(tmp_path) in str(caught.value)
    assert json.loads(path.read_text()) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_results_folder_below_a_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("not a folder")
    with pytest.raises(UserError, match="results="):
        results.write_json(tmp_path / "results" / "x" / "a.json", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_read_only_results_folder_is_a_user_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="results="):
        results.write_json(tmp_path / "a.json", {})


def test_a_trial_comes_back_with_nan_for_null(tmp_path: Path) -> None:
    metrics = {"auc": {"value": 0.7, "low": math.nan, "high": None}, "prevalence": 0.25, "empty": None}
    path = trial(tmp_path, "t1", metrics=metrics)
    record = results.read_trial(path)
    assert record["metrics"]["auc"]["value"] == 0.7
    assert math.isnan(record["metrics"]["auc"]["low"])
    assert math.isnan(record["metrics"]["auc"]["high"])
    assert record["metrics"]["prevalence"]["value"] == 0.25
    assert math.isnan(record["metrics"]["empty"]["value"])
    assert record["fold"] == 0
    assert "NaN" not in (path / "trial.json").read_text()


def test_list_columns_come_back_even_when_every_list_is_empty(tmp_path: Path) -> None:
    frame = pd.DataFrame({"epoch": [0, 1], "network": ["A", "A"], "usable": [False, False]})
    frame["edges"] = [np.array([0.0, 1.0]), [0.0, 1.0]]
    frame["counts"] = [[3], np.array([4])]
    for name in ("weights", "means", "deviations"):
        frame[name] = [[], np.array([])]
    folder = experiment(tmp_path / "e")
    trial(folder, "t1")
    results.write_parquet(folder / "trials" / "t1" / "distances.parquet", frame)
    again = results.load(folder).distances("t1")
    assert [list(edges) for edges in again["edges"]] == [[0.0, 1.0], [0.0, 1.0]]
    assert [list(means) for means in again["means"]] == [[], []]
    assert [int(counts[0]) for counts in again["counts"]] == [3, 4]


def test_a_misspelt_key_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'metrics'"):
        trial(tmp_path, "t1", metrisc={})
    with pytest.raises(ValueError, match="did you mean 'variants'"):
        experiment(tmp_path / "e", variant={})


def test_a_trial_without_trial_json_does_not_exist(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    trial(folder, "t1")
    results.write_parquet(folder / "trials" / "t2" / "epochs.parquet", pd.DataFrame({"epoch": [0]}))
    loaded = results.load(folder)
    assert list(loaded.trials["trial_id"]) == ["t1"]
    assert loaded.unfinished == ["t2"]
    assert set(results.finished_trials(folder)) == {"t1"}


def test_a_trial_that_dies_while_it_is_run_again_is_not_taken_for_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = experiment(tmp_path / "e")
    trial(folder, "t1", state="failed", reason="out of memory")

    def killed(path: Path, frame: pd.DataFrame) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "write_parquet", killed)
    with pytest.raises(KeyboardInterrupt):
        results.write_trial(
            folder / "trials" / "t1",
            {"trial_id": "t1", "variant": "soft", "seed": 0, "state": "finished"},
            epochs=pd.DataFrame({"epoch": [0]}),
        )
    assert results.load(folder).unfinished == ["t1"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b'{"trial_id": "t2", "variant"', "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"schema": 1}', "lacks trial_id"),
        (b'{"trial_id": "t9", "variant": "soft", "seed": 0, "state": "finished"}', "of trial t9"),
        (b'{"trial_id": "t2", "variant": "soft", "seed": 0, "state": "done"}', "not finished, failed or pruned"),
        (b'{"trial_id": "t2", "variant": "soft", "seed": "x", "state": "finished"}', "not a whole number"),
        (
            b'{"trial_id": "t2", "variant": "soft", "seed": 0, "state": "finished", "metrics": {"a": "b"}}',
            "not numbers",
        ),
        (b'{"trial_id": "t2", "variant": "soft", "seed": 0, "state": "finished", "metrics": [1]}', "not numbers"),
        (b'{"schema": 99, "trial_id": "t2", "variant": "soft", "seed": 0, "state": "finished"}', "newer siamray"),
    ],
)
def test_a_broken_trial_is_a_row_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    folder = experiment(tmp_path / "e")
    trial(folder, "t1")
    broken = folder / "trials" / "t2"
    broken.mkdir()
    (broken / "trial.json").write_bytes(content)
    table = results.collect(folder).set_index("trial_id")
    assert list(table["state"]) == ["finished", "broken"]
    assert reason in table.loc["t2", "reason"]
    assert set(results.finished_trials(folder)) == {"t1"}


def test_a_trial_whose_table_was_cut_off_is_broken(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    path = trial(folder, "t1")
    results.write_parquet(path / "epochs.parquet", pd.DataFrame({"epoch": range(50)}))
    whole = (path / "epochs.parquet").read_bytes()
    (path / "epochs.parquet").write_bytes(whole[: len(whole) // 2])
    row = results.collect(folder).iloc[0]
    assert row["state"] == "broken"
    assert "epochs.parquet" in row["reason"]
    with pytest.raises(UserError, match=r"epochs\.parquet"):
        results.load(folder).epochs("t1")


def test_a_stray_file_among_the_trials_is_passed_over(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    trial(folder, "t1")
    (folder / "trials" / "notes.txt").write_text("x")
    (folder / "trials" / ".hidden").mkdir()
    assert list(results.collect(folder)["trial_id"]) == ["t1"]


def test_the_trials_table_has_a_row_per_trial_with_metrics_intervals_and_cost(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    trial(folder, "c0", "untrained", 0, metrics={"auc": 0.5})
    trial(folder, "h1", "hard", 1)
    trial(folder, "h0", "hard", 0)
    trial(folder, "s0", "soft", 0)
    trial(folder, "s1", "soft", 1, state="failed", reason="boom", metrics={}, cost={})
    written = results.collect(folder)
    table = pd.read_parquet(folder / "trials.parquet")
    pd.testing.assert_frame_equal(written, table)
    assert list(table["trial_id"]) == ["s0", "s1", "h0", "h1", "c0"]
    assert list(table["role"]) == ["variant"] * 4 + ["control"]
    row = table.set_index("trial_id").loc["h1"]
    assert (row["auc"], row["auc_low"], row["auc_high"], row["prevalence"], row["wall_s"]) == (
        0.7,
        0.6,
        0.8,
        0.25,
        12.5,
    )
    failed = table.set_index("trial_id").loc["s1"]
    assert failed["reason"] == "boom"
    assert math.isnan(failed["auc"])
    assert math.isnan(table.set_index("trial_id").loc["c0", "auc_low"])


def test_trials_of_an_earlier_configuration_are_left_out(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e", trials=["new"])
    trial(folder, "old")
    trial(folder, "new")
    assert list(results.collect(folder)["trial_id"]) == ["new"]


def test_an_experiment_without_trials_or_comparison_loads_empty(tmp_path: Path) -> None:
    loaded = results.load(experiment(tmp_path / "e"))
    assert loaded.trials.empty
    assert loaded.comparison.empty
    assert list(loaded.comparison.columns) == list(results.COMPARISON_COLUMNS)
    assert loaded.epochs("nothing").empty
    assert loaded.examples("nothing").images == {}


def test_the_comparison_comes_back_and_lacking_columns_are_filled(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    results.write_parquet(
        folder / results.COMPARISON_FILE,
        pd.DataFrame({"variant": ["hard"], "metric": ["auc"], "women": [24], "p": [0.2]}),
    )
    row = results.load(folder).comparison.iloc[0]
    assert (row["variant"], row["women"], row["p"]) == ("hard", 24, 0.2)
    assert math.isnan(row["effect"])
    assert math.isnan(row["detectable"])


def test_a_missing_experiment_names_the_nearest(tmp_path: Path) -> None:
    experiment(tmp_path / "soft_labels")
    with pytest.raises(UserError, match="did you mean 'soft_labels'"):
        results.load(tmp_path / "soft_lables")
    with pytest.raises(UserError, match="valid: soft_labels"):
        results.load(tmp_path)
    with pytest.raises(UserError, match="run a sweep first"):
        results.load(tmp_path / "nowhere" / "x")


def test_a_newer_schema_asks_for_an_update(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    results.write_json(folder / "experiment.json", {"schema": results.SCHEMA + 1, "name": "e"})
    with pytest.raises(UserError, match="update siamray"):
        results.load(folder)


def test_a_damaged_experiment_is_a_user_error(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    (folder / "experiment.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        results.load(folder)


def test_examples_lists_the_exams_that_have_both_pictures(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    path = trial(folder, "t1")
    for name in ("w1_MLO_left", "w1_MLO_right", "w2_MLO_left"):
        results.write_bytes(path / "examples" / f"{name}.png", b"x")
    maps = pd.DataFrame(
        {"entry_id": ["w1_MLO"], "woman_id": ["w1"], "row": [8.0], "col": [8.0], "size": [16], "distance": [0.3]}
    )
    results.write_parquet(path / "examples" / "maps.parquet", maps)
    examples = results.load(folder).examples("t1")
    assert list(examples.images) == ["w1_MLO"]
    assert examples.maps["distance"].tolist() == [0.3]
    assert examples.boxes.empty


def test_reading_results_needs_no_torch_ray_or_hydra() -> None:
    code = (
        "import sys; from siamray.sweeps import results; "
        "print(sorted({'torch', 'ray', 'hydra', 'omegaconf', 'sklearn'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert ran.stdout.strip() == "[]"
