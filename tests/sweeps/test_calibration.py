"""The comparison errs as rarely as it says: differences of known truth, simulated with fixed seeds."""

import functools

import numpy as np
import pytest

from siamray.sweeps.estimates import Estimate, estimate, holm
from tests.sweeps.simulated_differences import many

LEVEL, SIMULATIONS, WOMEN = 0.05, 400, 30
# Deviations of one woman and of one seed, and the number of seeds: what makes the noise.
NOISE = {
    "women": {"of_women": 0.1, "of_seeds": 0.002, "seeds": 3},
    "seeds": {"of_women": 0.01, "of_seeds": 0.02, "seeds": 3},
    "both": {"of_women": 0.1, "of_seeds": 0.03, "seeds": 5},
}


def within(share: float) -> float:
    """Three standard deviations of what so many simulations make of a share."""
    return 3 * float(np.sqrt(share * (1 - share) / SIMULATIONS))


@functools.cache
def estimates(name: str, effect: float = 0.0) -> list[Estimate]:
    return [estimate(blocks) for blocks in many(SIMULATIONS, 7, effect=effect, women=WOMEN, **NOISE[name])]


def true_estimate(name: str) -> Estimate:
    """The error and its degrees of freedom as they are in truth."""
    noise = NOISE[name]
    women, seeds = noise["of_women"] ** 2 / WOMEN, noise["of_seeds"] ** 2 / noise["seeds"]
    freedom = (women + seeds) ** 2 / (women**2 / (WOMEN - 1) + seeds**2 / (noise["seeds"] - 1))
    return Estimate(0.0, float(np.sqrt(women + seeds)), freedom)


@pytest.mark.parametrize("name", NOISE)
def test_variants_that_are_worth_the_same_are_told_apart_no_more_often_than_the_level_says(name: str) -> None:
    assert np.mean([found.p_value() <= LEVEL for found in estimates(name)]) <= LEVEL + within(LEVEL)


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_hold_the_truth_as_often_as_they_say(name: str, confidence: float) -> None:
    ends = [found.interval(confidence) for found in estimates(name, 0.02)]
    assert np.mean([low <= 0.02 <= high for low, high in ends]) >= confidence - within(confidence)


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("edge", [1, -1])
def test_a_difference_at_the_edge_of_the_margin_is_called_equivalent_no_more_often_than_the_level_says(
    name: str, edge: int
) -> None:
    margin = 4 * true_estimate(name).error
    called = [found.p_equivalence(margin) <= LEVEL for found in estimates(name, edge * margin)]
    assert np.mean(called) <= LEVEL + within(LEVEL)


@pytest.mark.parametrize("name", NOISE)
def test_no_difference_is_called_equivalent_where_the_margin_is_wide(name: str) -> None:
    margin = 2 * true_estimate(name).detectable(LEVEL)
    assert np.mean([found.p_equivalence(margin) <= LEVEL for found in estimates(name)]) >= 0.8


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("comparisons", [1, 4])
def test_the_detectable_difference_is_found_four_times_in_five(name: str, comparisons: int) -> None:
    detectable = true_estimate(name).detectable(LEVEL / comparisons)
    found = [one.p_value() <= LEVEL / comparisons and one.mean > 0 for one in estimates(name, detectable)]
    assert np.mean(found) == pytest.approx(0.8, abs=within(0.8))


def test_a_family_at_the_edge_of_the_margin_has_a_false_equivalence_no_more_often_than_the_level_says() -> None:
    margin = 4 * true_estimate("both").error
    families = zip(*[iter(estimates("both", margin))] * 4, strict=True)
    wrong = [bool((holm([one.p_equivalence(margin) for one in family]) <= LEVEL).any()) for family in families]
    assert np.mean(wrong) <= LEVEL + 2 * within(LEVEL)
