"""Effects of factors: statsmodels' least squares, the comparison's error, and designs that cannot tell."""

import itertools

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols

from siamray.config import IntervalsConfig
from siamray.errors import UserError
from siamray.sweeps.estimates import differences, estimate, holm
from siamray.sweeps.factorial import effects_or_reasons, factorial_effects
from tests.sweeps import simulated_differences

QUICK = IntervalsConfig(replicates=200)
LEVELS = {"loss": ["hinge", "logistic"], "labels": ["soft", "hard", "none"], "peer": ["no", "yes"]}
FULL = {"-".join(setting): dict(zip(LEVELS, setting, strict=True)) for setting in itertools.product(*LEVELS.values())}


def outcomes(settings=FULL, seeds=3, effect=None, **noise):
    noise = {"of_women": 0.1, "of_seeds": 0.02, **noise}
    return {
        (name, *block): outcome
        for place, (name, setting) in enumerate(settings.items())
        for block, outcome in simulated_differences.differences(
            np.random.default_rng([5, place]), effect=effect(setting) if effect else 0.0, seeds=seeds, **noise
        ).items()
    }


def long(settings, given) -> pd.DataFrame:
    return pd.DataFrame(
        [{**settings[name], "seed": seed, "value": outcome.value} for (name, seed, _), outcome in given.items()]
    )


def test_point_estimates_are_those_of_statsmodels_least_squares_with_effect_coding() -> None:
    given = outcomes()
    found = factorial_effects(FULL, given, QUICK).set_index(["term", "contrast"]).effect
    terms = "(C(loss, Sum) + C(labels, Sum) + C(peer, Sum)) ** 2"
    fitted = ols(f"value ~ {terms}", long(FULL, given)).fit()

    def predicted(**setting: str) -> float:
        """The mean over the levels of the factors that are not given."""
        rows = [one for one in FULL.values() if all(one[factor] == level for factor, level in setting.items())]
        return float(fitted.predict(pd.DataFrame(rows)).mean())

    for factor, (base, *others) in LEVELS.items():
        for level in others:
            expected = predicted(**{factor: level}) - predicted(**{factor: base})
            assert found[factor, f"{level} - {base}"] == pytest.approx(expected)
    for a, b in itertools.combinations(LEVELS, 2):
        for level_a, level_b in itertools.product(LEVELS[a][1:], LEVELS[b][1:]):
            expected = (
                predicted(**{a: level_a, b: level_b})
                - predicted(**{a: LEVELS[a][0], b: level_b})
                - predicted(**{a: level_a, b: LEVELS[b][0]})
                + predicted(**{a: LEVELS[a][0], b: LEVELS[b][0]})
            )
            contrast = f"({level_a} - {LEVELS[a][0]}) x ({level_b} - {LEVELS[b][0]})"
            assert found[f"{a} x {b}", contrast] == pytest.approx(expected)
    assert len(found) == 4 + 2 + 1 + 2


def test_a_two_level_effect_is_twice_statsmodels_coefficient_and_its_interaction_four_times() -> None:
    settings = {name: {k: v for k, v in one.items() if k != "labels"} for name, one in FULL.items() if "soft" in name}
    given = outcomes(settings)
    found = factorial_effects(settings, given, QUICK).set_index("term").effect
    parameters = ols("value ~ C(loss, Sum) * C(peer, Sum)", long(settings, given)).fit().params.to_numpy()
    # Sum coding gives the first level 1 and the second -1.
    assert found["loss"] == pytest.approx(-2 * parameters[1])
    assert found["peer"] == pytest.approx(-2 * parameters[2])
    assert found["loss x peer"] == pytest.approx(4 * parameters[3])


def test_one_factor_of_two_levels_is_the_comparison_of_two_variants() -> None:
    settings = {"soft": {"labels": "soft"}, "hard": {"labels": "hard"}}
    given = outcomes(settings)
    row = factorial_effects(settings, given, QUICK).iloc[0]
    own, reference = ({trial[1:]: o for trial, o in given.items() if trial[0] == name} for name in ("hard", "soft"))
    expected = estimate(differences(own, reference))
    assert (row.kind, row.term, row.contrast) == ("main", "labels", "hard - soft")
    assert (row.effect, row.p) == pytest.approx((expected.mean, expected.p_value()))
    assert (row.effect_low, row.effect_high) == pytest.approx(expected.interval(0.95))
    assert row.detectable == pytest.approx(expected.detectable(0.05))
    assert (row.seeds, row.women, row.note) == (3, 30, "")


def test_true_effects_are_found_where_they_are_and_holm_has_two_families() -> None:
    def truth(setting):
        return 0.3 * (setting["loss"] == "logistic")

    rows = factorial_effects(FULL, outcomes(effect=truth, of_women=0.05), QUICK)
    assert rows.p_holm[rows.term == "loss"].item() < 0.001
    assert rows.effect[rows.term == "loss"].item() == pytest.approx(0.3, abs=0.05)
    for kind in ("main", "interaction"):
        family = rows[rows.kind == kind]
        np.testing.assert_allclose(family.p_holm, holm(family.p))
    assert list(rows.kind.unique()) == ["main", "interaction"]


def test_effects_that_are_none_are_stated_no_more_often_than_the_level_says() -> None:
    settings = {name: {k: v for k, v in one.items() if k != "labels"} for name, one in FULL.items() if "soft" in name}
    small = []
    for simulation in range(60):
        given = {
            (name, *block): outcome
            for place, name in enumerate(settings)
            for block, outcome in simulated_differences.differences(
                np.random.default_rng([6, simulation, place]), of_women=0.1, of_seeds=0.02, seeds=4, replicates=100
            ).items()
        }
        small += list(factorial_effects(settings, given, QUICK).p < 0.05)
    assert np.mean(small) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(small))


def test_trials_that_failed_leave_the_blocks_that_all_variants_have() -> None:
    given = outcomes()
    del given["hinge-soft-no", 1, 0]
    rows = factorial_effects(FULL, given, QUICK)
    assert (rows.seeds == 2).all()
    assert (rows.note == "estimated on the 2 of 3 (seed, fold) that all variants finished").all()
    one = factorial_effects(FULL, {trial: o for trial, o in given.items() if trial[1] == 0}, QUICK)
    assert one[["p", "p_holm", "detectable"]].isna().all(axis=None)
    assert one.note.str.endswith("one seed: the interval covers other women, not other seeds").all()


def test_designs_that_do_not_tell_effects_apart_are_refused_with_the_reason() -> None:
    given = outcomes()
    one_at_a_time = {
        name: FULL[name]
        for name in ("hinge-soft-no", "logistic-soft-no", "hinge-hard-no", "hinge-none-no", "hinge-soft-yes")
    }
    with pytest.raises(UserError, match=r"do not tell loss x labels from .* such as loss=hinge, labels=hard, peer=yes"):
        factorial_effects(one_at_a_time, given, QUICK)
    alone = factorial_effects(one_at_a_time, given, QUICK, interactions=False)
    assert list(alone.term) == ["loss", "labels", "labels", "peer"]
    with pytest.raises(UserError, match="factor 'peer' has one level only"):
        factorial_effects({name: one for name, one in FULL.items() if one["peer"] == "no"}, given, QUICK)
    with pytest.raises(UserError, match="factor 'peer' is set in"):
        factorial_effects({**FULL, "odd": {"loss": "hinge", "labels": "soft"}}, given, QUICK)
    with pytest.raises(UserError, match="variant 'hinge-soft-no' has no finished trial"):
        factorial_effects(FULL, {trial: o for trial, o in given.items() if trial[0] != "hinge-soft-no"}, QUICK)


def test_effects_are_given_as_far_as_told_with_the_reason_for_the_rest() -> None:
    run = ("hinge-soft-no", "logistic-soft-no", "hinge-hard-no", "hinge-soft-yes", "hinge-none-no")
    settings = {name: FULL[name] for name in run}
    found = effects_or_reasons(settings, lambda: outcomes(settings), QUICK)
    assert found[found.effect.notna()].kind.eq("main").all()
    assert len(found[found.effect.notna()]) == 4
    (untold,) = found[found.effect.isna()].to_dict("records")
    assert untold["kind"] == "interaction"
    assert "do not tell" in untold["note"]


def test_a_factorial_that_lost_a_variant_has_its_reason_in_place_of_effects() -> None:
    given = {trial: outcome for trial, outcome in outcomes().items() if trial[0] != "hinge-soft-no"}
    (row,) = effects_or_reasons(FULL, lambda: given, QUICK).to_dict("records")
    assert row["kind"] == "main"
    assert "'hinge-soft-no' has no finished trial" in row["note"]
    assert np.isnan(row["effect"])
