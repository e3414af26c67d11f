"""The BCa interval: scipy's numbers, and an honest refusal where there is none."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from siamray.downstream.intervals import bootstrap, women_weights
from siamray.sweeps.bca import LEAST_WOMEN, bca_interval, expanded

STATISTICS = {
    "mean": np.mean,
    "deviation": np.std,
    "skewness": lambda values, axis=-1: stats.skew(values, axis=axis),
}


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("confidence", [0.8, 0.9])
def test_the_interval_is_that_of_scipy_from_the_same_replicates(name: str, confidence: float) -> None:
    statistic = STATISTICS[name]
    values = np.random.default_rng(1).gamma(4, size=40)
    given = stats.bootstrap((values,), statistic, n_resamples=1500, method="BCa", rng=np.random.default_rng(2))
    replicates = given.bootstrap_distribution
    expected = stats.bootstrap(
        (values,),
        statistic,
        n_resamples=0,
        method="BCa",
        confidence_level=confidence,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=replicates),
    ).confidence_interval
    left_out = np.array([statistic(np.delete(values, woman)) for woman in range(40)])
    found = bca_interval(float(statistic(values)), replicates, left_out, 40, confidence)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.undefined == ""


def test_a_jackknife_over_groups_tells_nearly_the_same_as_one_over_women() -> None:
    values = np.random.default_rng(3).exponential(size=2000)
    weights = women_weights(2000, 1000, 0)
    replicates = weights @ values / 2000
    single = (values.sum() - values) / 1999
    grouped = np.array([np.delete(values, np.arange(group, 2000, 200)).mean() for group in range(200)])
    ends = [bca_interval(values.mean(), replicates, left_out, 2000, 0.95)[:2] for left_out in (single, grouped)]
    assert ends[0] == pytest.approx(ends[1], abs=0.05 * (ends[0][1] - ends[0][0]))


def test_the_expanded_confidence_covers_a_mean_as_students_t_does() -> None:
    values = np.random.default_rng(4).normal(size=20)
    asked = expanded(0.95, 20)
    percentiles = stats.norm.interval(asked, values.mean(), values.std() / np.sqrt(20))
    assert percentiles == pytest.approx(stats.t.interval(0.95, 19, values.mean(), stats.sem(values)))
    assert expanded(0.95, 10**6) == pytest.approx(0.95, abs=1e-5)


def test_what_has_no_interval_says_why() -> None:
    values = np.random.default_rng(5).normal(size=30)
    replicates = women_weights(30, 500, 0) @ values / 30
    left_out = (values.sum() - values) / 29
    mean = float(values.mean())
    few = bca_interval(mean, replicates, left_out[:10], LEAST_WOMEN - 1, 0.95)
    lacking = bca_interval(mean, np.append(replicates, np.nan), left_out, 30, 0.95)
    alone = bca_interval(mean, replicates, np.append(left_out, np.nan), 30, 0.95)
    equal = bca_interval(1.0, np.ones(500), np.ones(30), 30, 0.95)
    aside = bca_interval(replicates.max() + 1, replicates, left_out, 30, 0.95)
    beyond = bca_interval(float(np.quantile(replicates, 0.999)), replicates, left_out, 30, 0.99)
    reasons = ["less than 20 women", "lack a class", "one woman", "are equal", "on one side", "beyond the replicates"]
    for found, reason in zip((few, lacking, alone, equal, aside, beyond), reasons, strict=True):
        assert np.isnan([found.low, found.high]).all()
        assert reason in found.undefined


def test_an_auc_of_few_women_is_covered_and_missed_on_both_sides_more_alike_than_by_t() -> None:
    women, misses, given = 40, {"bca": [0, 0], "t": [0, 0]}, 0
    label, codes = (np.arange(women) % 2).astype(float), np.arange(women)
    whole_and_without = np.vstack([np.ones((1, women)), 1 - np.eye(women)])
    weights = women_weights(women, 400, 0)
    truth = stats.norm.cdf(1.4 / np.sqrt(2))
    for simulation in range(500):
        scores = 1.4 * label + np.random.default_rng([6, simulation]).normal(size=women)
        value, *left_out = bootstrap("auc", label, scores, codes, whole_and_without)
        replicates = bootstrap("auc", label, scores, codes, weights)
        by_bca = bca_interval(value, replicates, np.array(left_out), women, expanded(0.95, women))
        if by_bca.undefined:
            continue
        given += 1
        reach = stats.t.ppf(0.975, women - 1) * replicates.std(ddof=1)
        for name, (low, high) in {"bca": by_bca[:2], "t": (value - reach, value + reach)}.items():
            misses[name][0] += int(low > truth)
            misses[name][1] += int(high < truth)
    assert given >= 0.9 * 500
    assert sum(misses["bca"]) / given <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / given)
    assert abs(misses["bca"][0] - misses["bca"][1]) < abs(misses["t"][0] - misses["t"][1])
