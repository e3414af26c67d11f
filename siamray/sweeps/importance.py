"""An Optuna study goes in; how much each searched option mattered, with its uncertainty, comes out."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from siamray.errors import UserError
from siamray.sweeps.contract import IMPORTANCE_COLUMNS

Floats = NDArray[np.float64]

LEAST_TRIALS = 20
"""Completed trials below which nothing is said: a quarter of them are PED-ANOVA's best ones, and Optuna asks for 5."""


def importances(
    study: Any, *, objective: int = 0, trees: int = 64, replicates: int = 100, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Tells how much every searched option mattered, by fANOVA and by PED-ANOVA, each with its uncertainty.

    fANOVA (Hutter, Hoos and Leyton-Brown 2014) fits a random forest to the trials and gives the share of the variance
    over the whole space that an option explains by itself; what is missing from 1 belongs to interactions. Its trees
    are grown one by one, each on a bootstrap sample of the trials: the importance is the mean over the trees, as
    in a forest of them, and its interval are percentiles over the trees, as the paper reports their spread. A single
    tree is noisier than the forest, so this is wide rather than narrow. It needs options that every trial has,
    within the same limits.

    PED-ANOVA (Watanabe, Bansal and Hutter 2023) compares where the best trials lie with where all lie: it tells what
    mattered for being among the best, also of options that only some trials have; importances sum to 1. Its interval
    are percentiles of a bootstrap over the trials. The best are a tenth of the trials, but at least 5 of them. As a
    trial drawn twice looks like two that agree, replicates overrate options that do not matter: of few trials the
    interval errs towards not knowing which option matters.

    Both describe the trials that were drawn. A sampler that seeks, such as TPE, leaves poor places thinly sampled, so
    that fANOVA's shares are surest with the random sampler.

    Args:
        study: a study of one objective or several.
        objective: which of them, counted from 0.
        trees: number of fANOVA's trees.
        replicates: bootstrap samples for PED-ANOVA.
        confidence: coverage of the intervals.
        seed: seed of the trees and of the bootstrap.

    Returns:
        IMPORTANCE_COLUMNS without the objective, of each method the most important option first. NaN with a note where
        a method cannot tell.

    Raises:
        UserError: less than LEAST_TRIALS completed trials, or all with one value.
    """
    import optuna

    trials = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if np.isfinite(trial.values[objective])
    ]
    if len(trials) < LEAST_TRIALS:
        raise UserError(
            f"importances need {LEAST_TRIALS} completed trials, not {len(trials)}; continue the search with "
            "search.trials=N"
        )
    if np.ptp([trial.values[objective] for trial in trials]) == 0:
        raise UserError("all trials of the search came to the same value, so that no option mattered")
    direction = study.directions[objective]
    options = sorted({name for trial in trials for name in trial.params})
    rows = _fanova(trials, objective, direction, options, trees, confidence, seed)
    rows += _ped_anova(trials, objective, direction, options, replicates, confidence, seed)
    table = pd.DataFrame(rows, columns=[name for name in IMPORTANCE_COLUMNS if name != "objective"])
    return table.sort_values(
        ["method", "importance", "option"], ascending=[True, False, True], na_position="last", ignore_index=True
    )


def _fanova(
    trials: Sequence[Any], objective: int, direction: Any, options: list[str], trees: int, confidence: float, seed: int
) -> list[dict[str, Any]]:
    from optuna.importance import FanovaImportanceEvaluator

    study = _study(trials, objective, direction)
    # None stands for a trial without the option.
    everywhere = [
        name
        for name in options
        if len(known := {trial.distributions.get(name) for trial in trials}) == 1 and None not in known
    ]
    grown = []
    for tree in range(trees if everywhere else 0):
        evaluator = FanovaImportanceEvaluator(n_trees=1, seed=seed * trees + tree)
        try:
            found = evaluator.evaluate(study, params=everywhere)
        except RuntimeError:
            # Its bootstrap sample holds one value alone: such a tree tells nothing, as in the forest.
            continue
        grown.append([found[name] for name in everywhere])
    note = "only some trials have it, or within other limits, which fANOVA cannot take in"
    rows = _rows(
        "fANOVA", everywhere, np.array(grown), np.mean(grown, axis=0) if grown else None, len(trials), confidence
    )
    return rows + [
        {"method": "fANOVA", "option": name, "trials": sum(name in trial.params for trial in trials), "note": note}
        for name in options
        if name not in everywhere
    ]


def _ped_anova(
    trials: Sequence[Any],
    objective: int,
    direction: Any,
    options: list[str],
    replicates: int,
    confidence: float,
    seed: int,
) -> list[dict[str, Any]]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, 5 / len(trials)))

    def evaluated(some: Sequence[Any]) -> list[float]:
        with warnings.catch_warnings():
            # Of few trials with an option; its interval shows it.
            warnings.simplefilter("ignore")
            found = get_param_importances(_study(some, objective, direction), evaluator=evaluator)
        return [found.get(name, 0.0) for name in options]

    generator = np.random.default_rng([seed, 2])
    drawn = [
        evaluated([trials[place] for place in generator.integers(len(trials), size=len(trials))])
        for _ in range(replicates)
    ]
    return _rows("PED-ANOVA", options, np.array(drawn), np.array(evaluated(trials)), len(trials), confidence)


def _rows(
    method: str, options: list[str], drawn: Floats, importance: Floats | None, trials: int, confidence: float
) -> list[dict[str, Any]]:
    if importance is None:
        return []
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return [
        {
            "method": method,
            "option": name,
            "importance": float(importance[place]),
            "low": float(low[place]),
            "high": float(high[place]),
            "trials": trials,
            "note": "",
        }
        for place, name in enumerate(options)
    ]


def _study(trials: Sequence[Any], objective: int, direction: Any) -> Any:
    """A study in memory of these trials and one objective; a trial may be in it several times."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=direction)
    study.add_trials(
        optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=trial.values[objective])
        for trial in trials
    )
    return study
