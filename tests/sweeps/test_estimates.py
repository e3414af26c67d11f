"""What an estimate says beside its interval: effect size, equivalence and what could be seen, against other sources."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from siamray.sweeps.estimates import Estimate, Outcome, estimate, holm, weighted_sum
from tests.sweeps.simulated_differences import differences, many


@pytest.mark.parametrize("level", [0.05, 0.05 / 4])
@pytest.mark.parametrize("freedom", [1, 2.7, 19, 106.5])
def test_the_detectable_difference_is_found_with_the_power_that_statsmodels_gives(freedom: float, level: float) -> None:
    found = Estimate(0.3, 0.01, freedom).detectable(level) / 0.01
    # Its effect is in deviations of one of nobs samples; its own solver knows no degrees of freedom but nobs - 1.
    nobs = freedom + 1
    assert TTestPower().power(found / np.sqrt(nobs), nobs, level, df=freedom) == pytest.approx(0.8, abs=1e-4)


def test_the_detectable_difference_is_that_of_statsmodels_solver() -> None:
    expected = TTestPower().solve_power(nobs=24, alpha=0.05, power=0.8)
    assert Estimate(0, 1 / np.sqrt(24), 23).detectable(0.05) == pytest.approx(expected, rel=1e-4)


def test_the_detectable_difference_does_not_depend_on_the_effect_that_was_seen() -> None:
    assert Estimate(0.5, 0.02, 9).detectable(0.05) == Estimate(-0.1, 0.02, 9).detectable(0.05)


@pytest.mark.parametrize("shift", [-0.3, 0, 0.1, 0.6])
def test_the_p_of_equivalence_is_that_of_the_paired_tost_of_statsmodels(shift: float) -> None:
    generator = np.random.default_rng(3)
    first = generator.normal(size=20)
    second = first + shift + 0.5 * generator.normal(size=20)
    apart = second - first
    found = Estimate(float(apart.mean()), float(stats.sem(apart)), 19)
    assert found.p_equivalence(0.4) == pytest.approx(ttost_paired(second, first, -0.4, 0.4)[0])


def test_without_an_error_nothing_is_equivalent_nor_detectable_nor_standardized() -> None:
    for error in (0.0, float("nan")):
        found = Estimate(0.0, error, float("nan"))
        assert np.isnan([found.p_equivalence(0.02), found.detectable(0.05), found.effect_size()]).all()


def test_the_effect_size_of_one_seed_is_hedges_g_of_paired_differences() -> None:
    generator = np.random.default_rng(4)
    blocks = differences(generator, effect=0.4, of_women=1, of_seeds=0, women=25, seeds=1, replicates=40_000)
    values = 25 * blocks[0, 0].value - 24 * blocks[0, 0].left_out
    correction = special.gamma(12) / (np.sqrt(12) * special.gamma(11.5))
    expected = correction * values.mean() / values.std(ddof=1)
    assert estimate(blocks).effect_size() == pytest.approx(expected, rel=0.01)


def test_the_effect_size_is_on_average_the_true_one_whatever_the_numbers_of_women_and_seeds() -> None:
    truth = 0.5 / np.sqrt(0.6**2 + 0.8**2)
    for women, seeds in ((15, 4), (40, 8)):
        what = {"effect": 0.5, "of_women": 0.6, "of_seeds": 0.8, "women": women, "seeds": seeds}
        sizes = [estimate(blocks).effect_size() for blocks in many(150, 1, **what)]
        assert np.mean(sizes) == pytest.approx(truth, abs=4 * np.std(sizes) / np.sqrt(150))


def test_two_seeds_that_make_all_the_noise_give_no_effect_size() -> None:
    blocks = differences(np.random.default_rng(5), effect=1, of_women=1e-6, of_seeds=1, seeds=2)
    assert np.isnan(estimate(blocks).effect_size())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=15)  # statsmodels collects garbage each time
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], rtol=1e-12)


def test_holm_leaves_missing_tests_out_of_the_family() -> None:
    corrected = holm([0.01, np.nan, 0.04])
    np.testing.assert_allclose(corrected[[0, 2]], multipletests([0.01, 0.04], method="holm")[1])
    assert np.isnan(corrected[1])
    assert np.isnan(holm([np.nan])).all()


def test_a_weighted_sum_holds_for_value_replicates_and_women_left_out() -> None:
    one = differences(np.random.default_rng(6), of_women=1, of_seeds=1, seeds=2)
    total = weighted_sum([one[0, 0], one[1, 0]], [0.25, 0.75])
    assert total.value == pytest.approx(0.25 * one[0, 0].value + 0.75 * one[1, 0].value)
    np.testing.assert_allclose(total.replicates, 0.25 * one[0, 0].replicates + 0.75 * one[1, 0].replicates)
    np.testing.assert_allclose(total.left_out, 0.25 * one[0, 0].left_out + 0.75 * one[1, 0].left_out)
    bare = Outcome(1.0, np.ones(200), one[0, 0].samples)
    assert weighted_sum([one[0, 0], bare], [1, -1]).left_out is None
