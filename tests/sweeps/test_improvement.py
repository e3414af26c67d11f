"""The probability of improvement: wins counted by hand, and an interval that 3 seeds cannot make sure."""

import numpy as np
import pytest
from scipy import stats

from siamray.sweeps.estimates import Outcome
from siamray.sweeps.improvement import probability_of_improvement
from tests.sweeps.simulated_differences import differences, many


def wins(*values: float) -> dict[tuple[int, int], Outcome]:
    """One fold, a seed for every difference, women who change nothing."""
    samples = differences(np.random.default_rng(0), of_women=0, of_seeds=0)[0, 0].samples
    return {(seed, 0): Outcome(value, np.full(50, value), samples) for seed, value in enumerate(values)}


def test_it_is_the_share_of_seeds_that_win_and_ties_count_half() -> None:
    assert probability_of_improvement(wins(0.1, -0.2, 0.3, 0.01), 0.95).probability == 0.75
    assert probability_of_improvement(wins(0.1, 0.0, 1e-15, -0.1), 0.95).probability == 0.5


@pytest.mark.parametrize(("won", "of"), [(3, 3), (0, 3), (4, 5), (1, 8)])
def test_where_women_change_nothing_the_interval_is_clopper_and_pearsons(won: int, of: int) -> None:
    found = probability_of_improvement(wins(*[0.1] * won, *[-0.1] * (of - won)), 0.95)
    expected = stats.binomtest(won, of).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_folds_of_a_seed_are_parts_of_one_draw() -> None:
    by_fold = {(seed, fold): outcome for seed in range(3) for fold, outcome in enumerate(wins(0.1, 0.1).values())}
    assert probability_of_improvement(by_fold, 0.95) == pytest.approx(
        probability_of_improvement(wins(0.1, 0.1, 0.1), 0.95)
    )


def test_women_who_may_turn_the_winner_widen_the_interval() -> None:
    sure = differences(np.random.default_rng(1), effect=1, of_women=0.1, of_seeds=0.01)
    unsure = differences(np.random.default_rng(1), effect=0.01, of_women=1, of_seeds=0.01)
    narrow, wide = (probability_of_improvement(blocks, 0.95) for blocks in (sure, unsure))
    assert narrow.high - narrow.low < wide.high - wide.low
    assert 0 <= wide.low <= wide.probability <= wide.high <= 1


def test_one_seed_tells_nothing() -> None:
    assert np.isnan(probability_of_improvement(wins(0.1), 0.95)).all()


def test_replicates_without_a_value_are_left_out() -> None:
    blocks = wins(0.1, -0.1, 0.2)
    holed = {
        block: Outcome(outcome.value, np.append(outcome.replicates, np.nan), outcome.samples)
        for block, outcome in blocks.items()
    }
    assert probability_of_improvement(holed, 0.95) == pytest.approx(probability_of_improvement(blocks, 0.95))


@pytest.mark.parametrize(("of_women", "of_seeds"), [(0.1, 0.02), (0.02, 0.05)])
def test_the_interval_holds_the_true_chance_at_least_as_often_as_it_says(of_women: float, of_seeds: float) -> None:
    truth = stats.norm.cdf(0.02 / of_seeds)
    found = [
        probability_of_improvement(blocks, 0.95)
        for blocks in many(200, 2, effect=0.02, of_women=of_women, of_seeds=of_seeds, seeds=5)
    ]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200)
