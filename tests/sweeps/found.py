"""What a sweep named survivors has found, to be held against what another one has."""

from pathlib import Path

import pandas as pd

from siamray.sweeps import results


def numbers(folder: Path) -> tuple[pd.DataFrame, dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """All that a sweep found: its trials, and per trial its epochs and predictions, without times."""
    loaded = results.load(folder / "survivors")
    timed = [column for column in loaded.trials if column.endswith("_s") or column in ("started", "ended")]
    epochs = {name: loaded.epochs(name).drop(columns="seconds") for name in loaded.trials.trial_id}
    predictions = {name: loaded.predictions(name) for name in loaded.trials.trial_id}
    return loaded.trials.drop(columns=timed), epochs, predictions


def assert_same(folder: Path, other: Path) -> None:
    """Two sweeps found the same, to the last digit."""
    (trials, epochs, predictions), (expected, expected_epochs, expected_predictions) = numbers(folder), numbers(other)
    pd.testing.assert_frame_equal(trials, expected, check_exact=True)
    for name in trials.trial_id:
        pd.testing.assert_frame_equal(epochs[name], expected_epochs[name], check_exact=True)
        pd.testing.assert_frame_equal(predictions[name], expected_predictions[name], check_exact=True)
