"""The mixture: its guards, its invariances and its agreement with scikit-learn."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from siamray.config import MixtureConfig
from siamray.pretraining.mixture import Mixture, ashman_separation, fit

FIT = Mixture((0.9, 0.1), (1.0, 1.6), (0.1, 0.6), 1.0, 1.0, 0.0, True, True, "")


def two_populations(seed: int = 0, count: int = 3000, share: float = 0.15) -> np.ndarray:
    random = np.random.default_rng(seed)
    abnormal = int(count * share)
    return np.concatenate([random.normal(0.5, 0.1, count - abnormal), random.normal(1.1, 0.15, abnormal)])


@st.composite
def mixtures(draw):
    number = draw(st.integers(2, 5))
    finite = st.floats(-5, 5)
    means = sorted(draw(st.lists(finite, min_size=number, max_size=number)))
    deviations = draw(st.lists(st.floats(0.01, 3), min_size=number, max_size=number))
    weights = np.array(draw(st.lists(st.floats(0.001, 1), min_size=number, max_size=number)))
    return replace(
        FIT, weights=tuple((weights / weights.sum()).tolist()), means=tuple(means), deviations=tuple(deviations)
    )


@pytest.mark.parametrize("deviations", [(0.1, 0.6), (0.1**0.5, 0.6**0.5)], ids=["deviations", "variances"])
def test_small_distances_are_not_abnormal_where_the_wide_component_claims_them(deviations):
    mixture = replace(FIT, deviations=deviations)
    assert mixture.posterior(0.5) < 0.1
    assert mixture.posterior(0.0) <= mixture.posterior(0.5)
    assert mixture.posterior(3.0) > 0.9


def test_the_unguarded_posterior_of_that_mixture_is_the_trap_it_is_said_to_be():
    assert FIT.raw_posterior(0.5) > 0.99


@settings(max_examples=60, deadline=None)
@given(mixtures(), st.lists(st.floats(-20, 20), min_size=2, max_size=50))
def test_posterior_is_monotone_and_a_probability(mixture, distances):
    labels = mixture.posterior(np.sort(distances))
    assert (np.diff(labels) >= 0).all()
    assert ((labels >= 0) & (labels <= 1)).all()


@settings(max_examples=30, deadline=None)
@given(mixtures(), st.lists(st.floats(-20, 20), min_size=1, max_size=20))
def test_the_label_of_one_distance_never_depends_on_the_others(mixture, distances):
    together = mixture.posterior(distances)
    assert together.tolist() == [float(mixture.posterior([distance])[0]) for distance in distances]


@settings(max_examples=40, deadline=None)
@given(mixtures(), st.floats(0.01, 2))
def test_posterior_is_exact_where_bayes_rule_is_monotone(mixture, deviation):
    tied = replace(mixture, deviations=(deviation,) * len(mixture.means))
    distances = np.linspace(-30, 30, 4001)
    assert np.abs(tied.posterior(distances) - tied.raw_posterior(distances)).max() < 1e-3


@pytest.mark.parametrize("covariance", ["tied", "free"])
def test_posterior_equals_that_of_scikit_learn_upward_of_its_normal_pairs(covariance):
    distances = two_populations()
    mixture = fit(distances, MixtureConfig(covariance=covariance), 0)
    order = np.argsort(mixture.means)
    model = GaussianMixture(2)
    model.weights_, model.means_ = np.array(mixture.weights), np.array(mixture.means)[:, None]
    model.covariances_ = np.array(mixture.deviations)[:, None, None] ** 2
    model.precisions_cholesky_ = 1 / np.array(mixture.deviations)[:, None, None]
    upward = np.linspace(mixture.means[0], 2, 1000)
    expected = model.predict_proba(upward[:, None])[:, order[-1]]
    monotone = np.maximum.accumulate(expected) == expected
    assert monotone.mean() > 0.5
    assert np.abs(mixture.posterior(upward) - expected)[monotone].max() < 1e-3


def test_a_steep_posterior_between_distant_narrow_components_is_kept():
    mixture = replace(FIT, weights=(0.5, 0.5), means=(0.0, 1.0), deviations=(0.002, 0.002))
    distances = np.linspace(0.4999, 0.5001, 201)
    assert np.abs(mixture.posterior(distances) - mixture.raw_posterior(distances)).max() < 1e-3


@pytest.mark.parametrize("covariance", ["tied", "free"])
def test_two_populations_are_found(covariance):
    mixture = fit(two_populations(), MixtureConfig(covariance=covariance), 0)
    assert mixture.usable, mixture.reason
    assert mixture.converged
    assert mixture.bic_gain > 0
    assert mixture.means == pytest.approx((0.5, 1.1), abs=0.05)
    assert mixture.weights[-1] == pytest.approx(0.15, abs=0.03)
    assert mixture.separation > 3
    assert mixture.posterior(0.5) < 0.05 < 0.95 < mixture.posterior(1.1)


@pytest.mark.parametrize("covariance", ["tied", "free"])
@pytest.mark.parametrize("components", [2, 3, 4, 5])
def test_every_number_of_components_sorts_its_means_and_sums_its_weights_to_one(components, covariance):
    mixture = fit(two_populations(count=800), MixtureConfig(components=str(components), covariance=covariance), 0)
    assert len(mixture.means) == components
    assert all(low <= high for low, high in pairwise(mixture.means))
    assert sum(mixture.weights) == pytest.approx(1)
    assert np.isfinite(mixture.separation)


def test_separation_is_ashmans_with_the_others_pooled():
    mixture = replace(FIT, weights=(0.3, 0.5, 0.2), means=(0.0, 1.0, 4.0), deviations=(0.5, 0.4, 0.3))
    random = np.random.default_rng(0)
    rest = np.where(random.random(400_000) < 0.375, random.normal(0, 0.5, 400_000), random.normal(1, 0.4, 400_000))
    expected = np.sqrt(2) * (4 - rest.mean()) / np.sqrt(rest.var() + 0.09)
    assert ashman_separation(mixture) == pytest.approx(expected, rel=0.01)


def test_a_mixture_that_does_not_separate_gives_no_labels_and_says_so():
    mixture = fit(two_populations(), MixtureConfig(minimum_separation=50), 0)
    assert not mixture.usable
    assert "below 50" in mixture.reason
    assert not mixture.posterior([0.1, 5.0]).any()


def test_a_fit_that_did_not_converge_gives_no_labels_and_says_so():
    mixture = fit(two_populations(), MixtureConfig(iterations=1, tolerance=0.0), 0)
    assert not mixture.usable
    assert "converge" in mixture.reason


@pytest.mark.parametrize(
    ("distances", "reason"),
    [
        ([], "no distance"),
        ([np.nan] * 50, "no distance"),
        ([0.7] * 500, "equal"),
        ([0.0] * 500, "equal"),
        (np.linspace(0, 1, 19), "fewer than 20"),
        ([*np.linspace(0, 1, 90), *[np.inf] * 10], "10 of 100"),
    ],
)
def test_distances_no_mixture_fits_give_a_reason_instead(distances, reason):
    mixture = fit(distances, MixtureConfig(), 0)
    assert not mixture.usable
    assert reason in mixture.reason
    assert not mixture.posterior([0.0, 0.7, 9.0, np.nan]).any()
    assert mixture.density([0.0, 1.0]).shape == (1, 2)
    assert Mixture.from_dict(json.loads(json.dumps(mixture.to_dict(), allow_nan=False))).reason == mixture.reason


def test_few_distances_that_are_not_finite_are_dropped_and_counted():
    distances = two_populations()
    mixture = fit([*distances, np.nan, np.inf, -np.inf], MixtureConfig(), 0)
    assert mixture.usable
    assert mixture.dropped == 3
    assert mixture == replace(fit(distances, MixtureConfig(), 0), dropped=3)


def test_repeated_values_without_regularization_end_in_a_reason_or_a_finite_fit():
    for values in ([0.1] * 300 + [0.9] * 100, [0.2] * 399 + [0.9]):
        mixture = fit(values, MixtureConfig(regularization=0.0, components="3", covariance="free"), 0)
        assert mixture.usable or mixture.reason
        assert np.isfinite(mixture.posterior([0.1, 0.5, 0.9])).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-6, 1e6), st.sampled_from(["tied", "free"]))
def test_labels_do_not_depend_on_the_unit_of_distance(seed, unit, covariance):
    distances = two_populations(seed, 400)
    config = MixtureConfig(covariance=covariance, starts=2)
    plain, scaled = fit(distances, config, 0), fit(unit * distances, config, 0)
    assert plain.usable == scaled.usable
    assert scaled.posterior(unit * distances) == pytest.approx(plain.posterior(distances), abs=1e-3)
    assert scaled.separation == pytest.approx(plain.separation, rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_the_distances_does_not_matter(seed):
    distances = two_populations(seed, 300)
    shuffled = np.random.default_rng(seed).permutation(distances)
    assert fit(distances, MixtureConfig(starts=2), 3) == fit(shuffled, MixtureConfig(starts=2), 3)


def test_same_seed_same_mixture_also_beyond_the_starting_sample():
    distances = two_populations(count=9000)
    first = fit(distances, MixtureConfig(components="3"), 5)
    np.random.seed(1)
    assert fit(distances, MixtureConfig(components="3"), 5) == first
    assert first.count == 9000


def test_more_starts_never_fit_worse():
    random = np.random.default_rng(2)
    distances = np.concatenate([random.normal(m, 0.05, n) for m, n in ((0.2, 500), (0.5, 300), (0.8, 150), (1.6, 50))])
    few = fit(distances, MixtureConfig(components="4", covariance="free", starts=1), 0)
    many = fit(distances, MixtureConfig(components="4", covariance="free", starts=8), 0)
    assert many.log_likelihood >= few.log_likelihood - 1e-9


def test_bic_gain_and_likelihood_are_those_of_the_distances_themselves():
    distances = two_populations(count=2000)
    mixture = fit(distances, MixtureConfig(), 0)
    assert mixture.log_likelihood == pytest.approx(np.log(mixture.density(distances).sum(axis=0)).mean(), abs=1e-5)
    # One normal has 2 parameters, two tied ones 4; the regularization moves the figures a little.
    normal = -0.5 * np.log(2 * np.pi * distances.var()) - 0.5
    expected = 2 * 2000 * (mixture.log_likelihood - normal) - 2 * np.log(2000)
    assert mixture.bic_gain == pytest.approx(expected, rel=1e-3)


def test_density_integrates_to_one():
    x = np.linspace(-10, 15, 40_001)
    assert np.trapezoid(FIT.density(x).sum(axis=0), x) == pytest.approx(1, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(mixtures())
def test_json_brings_back_the_same_mixture(mixture):
    assert Mixture.from_dict(json.loads(json.dumps(mixture.to_dict(), allow_nan=False))) == mixture


def test_many_posteriors_at_once_keep_their_shape_and_equal_those_in_parts():
    distances = np.random.default_rng(0).uniform(0, 3, (2, 1_100_000)).astype(np.float32)
    labels = FIT.posterior(distances)
    assert labels.shape == distances.shape
    assert np.array_equal(labels[1, -500:], FIT.posterior(distances[1, -500:]))
