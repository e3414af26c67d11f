"""Two runs of a trial are the same only if all their numbers are, and the first that differs is named."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from siamray.sweeps.verification import Outcome, counts, first_difference, greatest_metric_difference


def made() -> Outcome:
    epochs = pd.DataFrame({"epoch": [0, 1], "network": "A", "loss": [math.nan, 0.5], "seconds": [0.0, 3.1]})
    distances = pd.DataFrame({"epoch": [0, 1], "network": "A", "counts": [np.array([1, 2]), np.array([3, 4])]})
    predictions = pd.DataFrame(
        {
            "task": "patches", "score": ["linear", "linear", "knn20"], "split": "test", "draw": pd.NA,
            "sample_id": ["s1", "s2", "s1"], "value": [0.1, 0.2, 0.3], "probabilities": [None, np.array([0.5]), None],
        }
    )  # fmt: skip
    metrics = {name: {"value": 0.7, "low": 0.6, "high": math.nan} for name in ("auc", "ap")}
    return Outcome("finished", metrics, {"epochs": epochs, "distances": distances, "predictions": predictions})


def test_equal_runs_are_the_same_also_where_numbers_are_missing_and_times_differ() -> None:
    again = made()
    again.tables["epochs"]["seconds"] = [0.1, 2.7]
    assert first_difference(made(), again) is None
    assert greatest_metric_difference(made(), again) == ("", 0.0)
    assert counts(made()) == "1 epochs, 3 predictions, 2 metrics"


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "expected"),
    [
        ("epochs", 1, "loss", 0.5 + 1e-16, "epochs.parquet, epoch 1, network A: loss was 0.5, is 0.5000000000000001"),
        ("epochs", 0, "loss", 0.0, "epochs.parquet, epoch 0, network A: loss was nan, is 0.0"),
        ("predictions", 1, "value", 0.25, "linear, split test, sample_id s2: value was 0.2, is 0.25"),
        ("predictions", 0, "sample_id", "s9", "sample_id s1: sample_id was s1, is s9"),
    ],
)
def test_a_number_that_differs_in_its_last_digit_is_named_with_its_place(
    table: str, row: int, column: str, value: float | str, expected: str
) -> None:
    again = made()
    again.tables[table].loc[row, column] = np.nextafter(0.5, 1) if value == 0.5 + 1e-16 else value
    found = first_difference(made(), again)
    assert found is not None
    assert expected in found


def test_lists_rows_columns_states_and_metrics_are_compared_too() -> None:
    again = made()
    again.tables["distances"].at[1, "counts"] = np.array([3, 5])
    assert "counts was [3 4], is [3 5]" in str(first_difference(made(), again))
    again = made()
    again.tables["predictions"].at[1, "probabilities"] = np.array([0.5, 0.5])
    assert "probabilities was [0.5], is [0.5 0.5]" in str(first_difference(made(), again))
    again = made()
    again.tables["predictions"] = again.tables["predictions"].iloc[:2]
    assert "there were 3 rows, there are 2" in str(first_difference(made(), again))
    again = made()
    again.tables["epochs"]["new"] = 1.0
    assert "columns differ: new" in str(first_difference(made(), again))
    failed = replace(made(), state="failed (no pairs)")
    assert first_difference(made(), failed) == "the trial was finished, is failed (no pairs)"
    again = made()
    again.metrics["ap"]["low"] = 0.61
    assert first_difference(made(), again) == "metric ap, low: was 0.6, is 0.61"
    again.metrics["extra"] = {"value": 1.0, "low": math.nan, "high": math.nan}
    again.metrics["ap"] = {"value": 0.2, "low": 0.6, "high": math.nan}
    assert first_difference(made(), again) == "metric ap, value: was 0.7, is 0.2"
    assert greatest_metric_difference(made(), again) == ("ap", pytest.approx(0.5))


def test_what_happened_first_is_named_first() -> None:
    again = made()
    again.metrics["auc"]["value"] = 0.1
    again.tables["predictions"].loc[0, "value"] = 0.9
    again.tables["epochs"].loc[1, "loss"] = 0.4
    assert str(first_difference(made(), again)).startswith("epochs.parquet, epoch 1")
