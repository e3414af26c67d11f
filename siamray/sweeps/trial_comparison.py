"""The trials of a sweep go in; how its variants compare, and what its factors do, come out as tables."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from siamray.config import Config
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial
from siamray.sweeps.asked_metrics import secondary_metrics
from siamray.sweeps.comparison import HEAD_SCORE, compare, measured
from siamray.sweeps.designs import Design
from siamray.sweeps.factorial import effects_or_reasons
from siamray.sweeps.unused_labels import unused_labels


def compare_trials(config: Config, trials: list[Trial], experiment: Path, further: Sequence[str] = ()) -> pd.DataFrame:
    """Compares every variant and control with the reference, metric by metric.

    Args:
        config: of the sweep.
        trials: all of its trials; those not finished are missing from the comparison, which says so.
        experiment: ``<results>/<experiment>``.
        further: metrics beside the primary one and those that every ablation compares.

    Returns:
        The columns of comparison.parquet, primary metric first; no rows if the reference has no finished trial.
    """
    ablation = config.ablation
    assert ablation is not None
    loaded = results.load(experiment)
    predictions = _predictions(loaded, trials)
    if not any(variant == ablation.reference for variant, _, _ in predictions):
        return pd.DataFrame(columns=list(results.COMPARISON_COLUMNS))
    seconds = loaded.trials.set_index("trial_id").wall_s
    costs = {
        (trial.variant, trial.seed, trial.fold): float(seconds.get(trial.trial_id, float("nan"))) for trial in trials
    }
    of_reference = [table for (variant, _, _), table in predictions.items() if variant == ablation.reference]
    # A score that only encoders with a head have.
    of_head = ["patches_abnormality_auc"] if all(table.score.eq(HEAD_SCORE).any() for table in of_reference) else []
    compared = [
        compare(
            predictions,
            ablation.reference,
            metric,
            ablation.variants,
            ablation.controls,
            config.downstream.intervals,
            costs,
        )
        for metric in dict.fromkeys((ablation.metric, *further, *secondary_metrics(config), *of_head))
    ]
    comparison = pd.concat(compared, ignore_index=True)
    unused = unused_labels(loaded, trials)
    comparison["note"] = [
        "; ".join(filter(None, (note, unused.get(variant))))
        for note, variant in zip(comparison.note, comparison.variant, strict=True)
    ]
    return comparison


def factor_effects(config: Config, made: Design, trials: list[Trial], experiment: Path) -> pd.DataFrame | None:
    """Estimates main effects and two-way interactions of a factorial on its primary metric.

    Args:
        config: of the sweep, with its ablation written out.
        made: the design.
        trials: all trials of the sweep.
        experiment: ``<results>/<experiment>``.

    Returns:
        EFFECT_COLUMNS; a row without numbers says why where finished trials do not tell main effects, or interactions,
        apart. None where the design is no factorial.
    """
    if made.kind != "factorial":
        return None
    predictions = _predictions(results.load(experiment), [trial for trial in trials if trial.variant in made.settings])
    assert config.ablation is not None
    metric, intervals = config.ablation.metric, config.downstream.intervals
    return effects_or_reasons(made.settings, lambda: measured(predictions, [metric], intervals)[metric], intervals)


def _predictions(loaded: results.Results, trials: list[Trial]) -> dict[tuple[str, int, int], pd.DataFrame]:
    """Reads what the finished ones of some trials predicted: (variant, seed, fold) -> predictions."""
    finished = set(loaded.trials.trial_id[loaded.trials.state == "finished"])
    return {
        (trial.variant, trial.seed, trial.fold): loaded.predictions(trial.trial_id)
        for trial in trials
        if trial.trial_id in finished
    }
