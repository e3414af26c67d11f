"""Trials that end come in one by one; what each variant is worth so far comes out, while the sweep runs."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from siamray.config import IntervalsConfig
from siamray.downstream.intervals import women_weights
from siamray.downstream.metrics import LEAST, measure, parse_metric, rows_of
from siamray.errors import UserError
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial
from siamray.sweeps.contract import PREDICTION_COLUMNS
from siamray.sweeps.estimates import Block, Outcome, estimate
from siamray.sweeps.progress import UNKNOWN, Standing
from siamray.sweeps.reading import read_parquet

# Enough for an interval that is glanced at; the comparison at the end draws as many as the user asked for.
REPLICATES = 500


class Standings:
    """The metric of every variant over its finished trials; each trial's predictions are read once, when it ends.

    Women are drawn anew for each fold, whose women are others, and alike for all trials of a fold.
    """

    def __init__(self, experiment: Path, metric: str, trials: dict[str, Trial], config: IntervalsConfig) -> None:
        """Reads nothing yet.

        Args:
            experiment: ``<results>/<experiment>``.
            metric: the primary metric.
            trials: all trials of the sweep, by id.
            config: confidence and seed.
        """
        self._experiment, self._name, self._config = experiment, parse_metric(metric), config
        self._of_variant: dict[str, list[Trial]] = {}
        for trial in trials.values():
            self._of_variant.setdefault(trial.variant, []).append(trial)
        self._outcomes: dict[str, Outcome] = {}

    def __call__(self, variant: str) -> Standing:
        """Gives a variant's mean over its finished trials and the ends of its interval; NaN where there is none."""
        blocks: dict[Block, Outcome] = {}
        for trial in self._of_variant[variant]:
            if trial.trial_id not in self._outcomes:
                outcome = self._read(trial)
                if outcome is None:
                    continue
                self._outcomes[trial.trial_id] = outcome
            blocks[trial.seed, trial.fold] = self._outcomes[trial.trial_id]
        if not blocks:
            return UNKNOWN
        found = estimate(blocks)
        # As in the comparison: no metric lies beyond its range.
        low, high = np.clip(found.interval(self._config.confidence), LEAST.get(self._name.kind, 0.0), 1)
        return found.mean, float(low), float(high)

    def _read(self, trial: Trial) -> Outcome | None:
        folder = self._experiment / results.TRIALS_FOLDER / trial.trial_id
        try:
            if results.read_trial(folder)["state"] != "finished":
                return None
            rows = rows_of(read_parquet(folder / "predictions.parquet", PREDICTION_COLUMNS), self._name)
        except (FileNotFoundError, results.Unreadable, UserError):
            return None
        if rows.empty:
            return None
        codes, women = pd.factorize(rows.woman_id, sort=True)
        measured = measure(rows, self._name.kind, codes, self._weights(len(women), trial.fold))
        return Outcome(measured.value, measured.replicates, rows[["sample_id", "woman_id", "label", "task"]])

    def _weights(self, women: int, fold: int) -> NDArray[np.int64]:
        return women_weights(women, REPLICATES, self._config.seed + fold)
