"""Counts of distances: the same whoever counted which of them, and true to the distances within a bin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from siamray.config import MixtureConfig
from siamray.pretraining.expectation_maximisation import Anchors
from siamray.pretraining.histogram import BINS, Histogram, Range
from siamray.pretraining.mixture import fit

finite = st.floats(-1e6, 1e6, allow_subnormal=False)


def shares(seed: int, populations: int = 3, count: int = 20_000) -> np.ndarray:
    random = np.random.default_rng(seed)
    parts = [(0.9, 0.08, 0.7), (1.2, 0.08, 0.2), (1.6, 0.1, 0.1)][:populations]
    return np.concatenate([random.normal(mean, deviation, int(share * count)) for mean, deviation, share in parts])


@settings(max_examples=60, deadline=None)
@given(st.lists(finite, min_size=1, max_size=200), st.integers(1, 5))
def test_parts_counted_by_workers_add_up_to_the_whole(distances, workers):
    parts = [distances[rank::workers] for rank in range(workers)]
    span = Range.union(Range.of(part) for part in parts)
    total = sum((Histogram.of(part, span) for part in parts[1:]), start=Histogram.of(parts[0], span))
    whole = Histogram.of(distances)
    assert total.range == whole.range
    assert np.array_equal(total.counts, whole.counts)
    assert whole.count == len(distances)


@settings(max_examples=60, deadline=None)
@given(st.lists(finite, min_size=2, max_size=200))
def test_moments_and_ranks_are_those_of_the_distances_within_a_bin(distances):
    counted, width = Histogram.of(distances), np.ptp(distances) / BINS
    mean, deviation = counted.moments()
    assert abs(mean - np.mean(distances)) <= width + 1e-9 * np.abs(distances).max()
    assert abs(deviation - np.std(distances)) <= width + 1e-9 * np.abs(distances).max()
    for value, rank in zip(distances, counted.rank(distances), strict=True):
        assert np.mean(np.asarray(distances) < value - 2 * width) <= rank + 1e-12
        assert rank <= np.mean(np.asarray(distances) < value) + 1e-12


def test_quantiles_are_those_of_numpy_within_a_bin():
    distances = shares(0)
    wanted = [0.01, 0.25, 0.5, 0.99]
    width = np.ptp(distances) / BINS
    assert Histogram.of(distances).quantiles(wanted) == pytest.approx(np.quantile(distances, wanted), abs=3 * width)


def test_what_is_not_finite_is_counted_apart():
    counted = Histogram.of([0.0, 1.0, np.nan, np.inf, -np.inf])
    assert (counted.count, counted.dropped, counted.range) == (2, 3, Range(0.0, 1.0))
    nothing = Histogram.of([np.nan])
    assert nothing.constant
    assert np.isnan(nothing.quantiles([0.5])).all()


def test_counts_of_other_ranges_are_not_added():
    with pytest.raises(ValueError, match="ranges"):
        Histogram.of([0.0, 1.0]) + Histogram.of([0.0, 2.0])


@pytest.mark.parametrize("covariance", ["tied", "free"])
@pytest.mark.parametrize("components", [2, 3])
def test_labels_are_those_of_scikit_learn_fitted_to_all_distances(components, covariance):
    distances = shares(1, components)
    config = MixtureConfig(components=str(components), covariance=covariance, tolerance=1e-9, starts=8)
    mixture = fit(distances, config, 0)
    scores = (distances - distances.mean()) / distances.std()
    kind = "tied" if covariance == "tied" else "full"
    model = GaussianMixture(components, covariance_type=kind, tol=1e-9, reg_covar=5e-4, max_iter=5000, n_init=8,
                            random_state=0).fit(scores[:, None])  # fmt: skip
    expected = model.predict_proba(scores[:, None])[:, np.argmax(model.means_)]
    # The guard changes what lies below the normal pairs, and nothing above.
    upward = distances > mixture.means[0]
    assert np.abs(mixture.posterior(distances) - expected)[upward].max() < 1e-3


def test_auto_takes_the_number_of_populations_there_are():
    random = np.random.default_rng(0)
    one = random.normal(1, 0.1, 5000)
    assert not fit(one, MixtureConfig(components="auto"), 0).usable
    assert "one normal" in fit(one, MixtureConfig(components="auto"), 0).reason
    two = np.concatenate([one, random.normal(2, 0.1, 800)])
    assert len(fit(two, MixtureConfig(components="auto"), 0).means) == 2
    three = np.concatenate([two, random.normal(3, 0.1, 800)])
    assert len(fit(three, MixtureConfig(components="auto"), 0).means) == 3


ENDS = Anchors(similar=0.3, different=1.6, deviation=0.15)


def test_anchors_keep_a_normal_population_whole_where_a_free_mixture_splits_it():
    normal = np.random.default_rng(0).gamma(12, 0.06, 8000)
    free = fit(normal, MixtureConfig(minimum_separation=0.0), 0).posterior(normal)
    held = fit(normal, MixtureConfig(minimum_separation=0.0), 0, ENDS).posterior(normal)
    assert free.mean() > 0.1
    assert held.mean() < 0.02


def test_anchors_leave_the_share_of_the_top_component_to_the_distances():
    random = np.random.default_rng(1)
    for share in (0.05, 0.3):
        mixed = np.where(random.random(8000) < share, random.normal(1.6, 0.15, 8000), random.normal(0.7, 0.1, 8000))
        mixture = fit(mixed, MixtureConfig(), 0, ENDS)
        assert mixture.usable
        assert mixture.weights[-1] == pytest.approx(share, abs=0.02)
        assert mixture.means[-1] == pytest.approx(1.6)


def test_anchors_that_do_not_tell_apart_give_no_labels():
    mixture = fit(shares(0), MixtureConfig(), 0, Anchors(1.2, 1.1, 0.1))
    assert not mixture.usable
    assert "no farther apart" in mixture.reason


def test_the_prior_draws_the_share_of_abnormal_pairs_to_what_is_expected():
    distances = np.concatenate([np.random.default_rng(0).normal(m, 0.2, n) for m, n in ((0.6, 3000), (1.1, 3000))])
    found = [
        fit(distances, MixtureConfig(prior_weight=weight), 0, expected_abnormal=0.1).weights[-1]
        for weight in (0.0, 1.0, 100.0)
    ]
    assert found[0] > found[1] > found[2]
    assert found[2] == pytest.approx(0.1, abs=0.01)
