"""Importances of searched options: true ones are found, by both methods, and they come with an interval."""

import numpy as np
import optuna
import pytest
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

from siamray.errors import UserError
from siamray.sweeps.importance import importances


def searched(trials: int = 60, objectives: int = 1) -> optuna.Study:
    """Weights 4, 1 and 0 of three options, and one that only half of the trials have."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        directions=["maximize", "minimize"][:objectives], sampler=optuna.samplers.RandomSampler(seed=1)
    )

    def objective(trial: optuna.Trial) -> float | tuple[float, ...]:
        strong, weak = trial.suggest_float("strong", 0, 1), trial.suggest_float("weak", 0, 1)
        trial.suggest_float("idle", 0, 1)
        if trial.suggest_categorical("kind", ["x", "y"]) == "x":
            trial.suggest_float("only_x", 0, 1)
        values = (4 * strong + weak, weak)
        return values if objectives > 1 else values[0]

    study.optimize(objective, n_trials=trials)
    return study


def table(study: optuna.Study, **what):
    found = importances(study, **{"trees": 16, "replicates": 12, **what})
    return {method: rows.set_index("option") for method, rows in found.groupby("method")}


def test_the_option_that_matters_leads_by_both_methods_beyond_the_interval_of_one_that_does_not() -> None:
    study = searched()
    found = table(study)
    for method in ("fANOVA", "PED-ANOVA"):
        rows = found[method]
        assert rows.index[0] == "strong"
        told = rows.dropna(subset="importance")
        assert (told.low <= told.high).all()
        assert told.importance["strong"] > told.high["idle"]
    # PED-ANOVA's best are 6 of the 60 trials, which leaves its lower end for the strong option low.
    assert found["fANOVA"].low["strong"] > found["fANOVA"].high["idle"]
    assert found["PED-ANOVA"].importance.sum() == pytest.approx(1)
    assert found["fANOVA"].importance.sum() <= 1
    assert found["fANOVA"].importance["strong"] == pytest.approx(16 / 17, abs=0.05)


def test_estimates_are_optunas() -> None:
    study = searched()
    found = table(study)
    ped = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.1))
    assert found["PED-ANOVA"].importance.to_dict() == pytest.approx(ped)
    everywhere = ["idle", "kind", "strong", "weak"]
    forest = FanovaImportanceEvaluator(n_trees=64, seed=3).evaluate(study, params=everywhere)
    for option in everywhere:
        assert found["fANOVA"].importance[option] == pytest.approx(forest[option], abs=0.02)


def test_an_option_of_some_trials_is_told_by_ped_anova_alone_and_it_is_said() -> None:
    found = table(searched())
    assert np.isnan(found["fANOVA"].importance["only_x"])
    assert found["fANOVA"].note["only_x"].startswith("only some trials have it")
    assert 0 < found["fANOVA"].trials["only_x"] < 60
    assert np.isfinite(found["PED-ANOVA"].importance["only_x"])


def test_each_objective_has_its_own_importances() -> None:
    study = searched(objectives=2)
    assert table(study)["fANOVA"].index[0] == "strong"
    assert table(study, objective=1)["fANOVA"].index[0] == "weak"
    assert table(study, objective=1)["PED-ANOVA"].index[0] == "weak"


def test_the_same_seed_gives_the_same_table() -> None:
    study = searched(30)
    first, again = (importances(study, trees=4, replicates=4, seed=5) for _ in range(2))
    assert first.equals(again)


def test_too_few_trials_and_a_flat_objective_are_refused() -> None:
    with pytest.raises(UserError, match="importances need 20 completed trials, not 12"):
        importances(searched(12))
    flat = optuna.create_study()
    flat.optimize(lambda trial: 0 * trial.suggest_float("x", 0, 1), n_trials=20)
    with pytest.raises(UserError, match="all trials of the search came to the same value"):
        importances(flat)
