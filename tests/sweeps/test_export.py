"""The exported table has a row per trial and a column for whatever the trials differ in, in every format alike."""

from pathlib import Path

import pandas as pd
import pytest

from siamray.errors import UserError
from siamray.sweep import main as siamray_sweep
from siamray.sweeps import results
from siamray.sweeps.export import trials_with_options
from tests.dashboards import generated_results
from tests.sweeps.test_results import experiment, trial


def test_options_that_differ_are_columns_and_those_alike_are_not(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    for name, margin, labels, grid in (("a", 1.0, "rank", [1, 2]), ("b", 2, None, [3])):
        config = {"seed": 0, "pretraining": {"margin": margin, "labels": labels, "epochs": 3, "grid": grid}}
        git = {"commit": "c0ffee", "dirty": name == "b"}
        trial(folder, name, config=config, git=git, data_fingerprint="f1")
    (folder / "trials" / "broken").mkdir()
    (folder / "trials" / "broken" / "trial.json").write_text("{")
    table = trials_with_options(results.load(folder)).set_index("trial_id")
    assert table.loc["a", "pretraining.margin"] == 1.0
    assert table["pretraining.labels"].fillna("").to_dict() == {"a": "rank", "b": "", "broken": ""}
    assert table.loc["b", "pretraining.grid"] == "[3]"
    assert "pretraining.epochs" not in table
    assert table.columns.tolist().count("seed") == 1
    assert table.loc[["a", "b"], "commit"].tolist() == ["c0ffee", "c0ffee"]
    assert table.loc[["a", "b"], "uncommitted"].tolist() == [False, True]
    assert table.loc["broken", "state"] == "broken"
    assert table.loc["a", "auc_low"] == 0.6


@pytest.mark.parametrize(("suffix", "read"), [("parquet", pd.read_parquet), ("csv", pd.read_csv)])
def test_trials_and_comparison_are_written_side_by_side(
    suffix: str, read: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = generated_results.write(tmp_path / "e", examples=False)
    loaded = results.load(folder)
    out = tmp_path / "new" / f"mine.{suffix}"
    siamray_sweep(["export", f"results={folder}", f"out={out}"])
    assert capsys.readouterr().out.split() == [str(out), str(out.with_name(f"mine_comparison.{suffix}"))]
    trials, comparison = (read(path) for path in (out, out.with_name(f"mine_comparison.{suffix}")))  # type: ignore[operator]
    assert trials["trial_id"].tolist() == loaded.trials["trial_id"].tolist()
    pd.testing.assert_series_equal(trials["patches_linear_auc"], loaded.trials["patches_linear_auc"])
    assert len(comparison) == len(loaded.comparison)
    assert comparison["effect"].tolist() == pytest.approx(loaded.comparison["effect"].tolist(), nan_ok=True)


def test_a_sweep_that_is_not_compared_yet_is_exported_as_far_as_it_got(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    siamray_sweep(["export", f"results={folder}", f"out={tmp_path / 'none.csv'}"])
    assert pd.read_csv(tmp_path / "none.csv").empty
    trial(folder, "t1")
    siamray_sweep(["export", f"results={folder}", f"out={tmp_path / 'one.csv'}"])
    assert pd.read_csv(tmp_path / "one.csv")["trial_id"].tolist() == ["t1"]
    assert not (tmp_path / "one_comparison.csv").exists()


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"name a file that ends in \.parquet or \.csv"):
        siamray_sweep(["export", f"results={experiment(tmp_path / 'e')}", "out=table.xlsx"])
