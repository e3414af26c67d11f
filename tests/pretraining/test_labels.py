"""Labels of every kind, and whose labels train which network."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from siamray.config import PretrainingConfig
from siamray.pretraining.histogram import Histogram
from siamray.pretraining.labels import exchange, rank_labels, sharpened, soft_labels
from siamray.pretraining.mixture import Mixture

MIXTURE = Mixture((0.9, 0.1), (0.5, 1.2), (0.1, 0.1), 9.9, 1.0, 0.0, True, True, "")
DISTANCES = np.linspace(0, 2, 201)


def test_mixture_labels_are_its_posterior():
    labels = soft_labels(DISTANCES, PretrainingConfig(labels="mixture"), MIXTURE)
    assert np.array_equal(labels, MIXTURE.posterior(DISTANCES))
    assert labels[0] < 0.01 < 0.99 < labels[-1]


def test_hard_labels_are_one_exactly_where_the_posterior_exceeds_a_half():
    labels = soft_labels(DISTANCES, PretrainingConfig(labels="hard"), MIXTURE)
    assert set(labels) == {0.0, 1.0}
    assert np.array_equal(labels == 1, MIXTURE.posterior(DISTANCES) > 0.5)


@pytest.mark.parametrize("kind", ["mixture", "hard"])
def test_an_unusable_mixture_gives_zeros(kind):
    unusable = Mixture((1.0,), (0.5,), (0.1,), 0.0, 0.0, 0.0, False, False, "all distances are equal")
    assert not soft_labels(DISTANCES, PretrainingConfig(labels=kind), unusable).any()


def test_none_gives_zeros_whatever_was_fitted():
    assert not soft_labels(DISTANCES, PretrainingConfig(labels="none"), MIXTURE).any()
    assert soft_labels(DISTANCES, PretrainingConfig(labels="none"), None).shape == DISTANCES.shape


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5])
def test_rank_labels_have_the_expected_mean_whatever_the_distribution(share):
    sample = np.random.default_rng(0).gamma(2, 1, 20_000)
    labels = soft_labels(sample, PretrainingConfig(labels="rank", expected_abnormal=share), Histogram.of(sample))
    assert labels.mean() == pytest.approx(share, abs=2e-3)
    assert (labels == 0).mean() == pytest.approx(1 - 2 * share, abs=2e-3)


def test_rank_labels_equal_the_formula_over_the_sample():
    random = np.random.default_rng(1)
    sample, own = random.normal(1, 0.2, 5000), random.normal(1, 0.2, 50)
    labels = rank_labels(own, Histogram.of(sample), 0.1)
    for distance, label in zip(own, labels, strict=True):
        rank = (sample < distance).mean()
        assert label == pytest.approx(max(0.0, (rank - 0.8) / 0.2), abs=0.01)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.lists(st.floats(0, 12), min_size=2, max_size=30))
def test_rank_labels_are_monotone_in_range_and_independent_of_the_order_of_the_sample(sample, distances):
    counted = Histogram.of(sample)
    labels = rank_labels(np.sort(distances), counted, 0.2)
    assert (np.diff(labels) >= 0).all()
    assert ((labels >= 0) & (labels <= 1)).all()
    assert np.array_equal(labels, rank_labels(np.sort(distances), Histogram.of(sample[::-1]), 0.2))


def test_constant_or_missing_distances_rank_as_similar():
    assert not rank_labels([0.7, 0.7, 0.9], Histogram.of([0.7] * 50), 0.1).any()
    assert not rank_labels([0.7], Histogram.of([np.nan]), 0.1).any()
    assert rank_labels([np.nan, 5.0], Histogram.of([0.0, 1.0]), 0.1) == pytest.approx([0.0, 1.0])


def test_workers_that_hold_parts_get_the_labels_of_the_whole():
    sample = np.random.default_rng(2).normal(1, 0.2, 500)
    for kind, fitted in (("mixture", MIXTURE), ("hard", MIXTURE), ("rank", Histogram.of(sample))):
        config = PretrainingConfig(labels=kind)
        parts = [soft_labels(part, config, fitted) for part in (sample[:123], sample[123:])]
        assert np.array_equal(np.concatenate(parts), soft_labels(sample, config, fitted))


def test_what_was_fitted_has_to_suit_the_kind():
    with pytest.raises(TypeError, match="counts"):
        soft_labels(DISTANCES, PretrainingConfig(labels="rank"), MIXTURE)
    with pytest.raises(TypeError, match="mixture"):
        soft_labels(DISTANCES, PretrainingConfig(labels="hard"), Histogram.of(DISTANCES))


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_exchange_gives_the_peers_the_own_or_the_mean_labels(make):
    own, peer = make([0.0, 0.5]), make([1.0, 0.0])
    assert exchange(own, peer, "peer").tolist() == [1.0, 0.0]
    assert exchange(own, peer, "self").tolist() == [0.0, 0.5]
    assert exchange(own, peer, "mean").tolist() == [0.5, 0.25]
    with pytest.raises(ValueError, match="peer, self or mean"):
        exchange(own, peer, "both")


def test_sharpening_moves_labels_apart_and_keeps_their_order():
    labels = np.array([0.0, 0.2, 0.5, 0.8, 1.0])
    sharp = sharpened(labels, 0.5)
    assert sharp == pytest.approx(labels**2 / (labels**2 + (1 - labels) ** 2))
    assert sharp[1] < labels[1]
    assert sharp[3] > labels[3]
    assert np.array_equal(sharpened(labels, 1.0), labels)
    assert np.array_equal(soft_labels(DISTANCES, PretrainingConfig(label_temperature=0.5), MIXTURE),
                          sharpened(MIXTURE.posterior(DISTANCES), 0.5))  # fmt: skip


def test_a_refined_label_is_the_mean_over_views_sharpened_after_it():
    views = [DISTANCES[::-1].copy(), DISTANCES + 0.3]
    posteriors = [MIXTURE.posterior(values) for values in (DISTANCES, *views)]
    config = PretrainingConfig(labels="mixture", label_temperature=0.5)
    mean = np.mean(posteriors, axis=0)
    labels = soft_labels(DISTANCES, config, MIXTURE, views)
    np.testing.assert_allclose(labels, mean**2 / (mean**2 + (1 - mean) ** 2))
    hard = soft_labels(DISTANCES, PretrainingConfig(labels="hard"), MIXTURE, views)
    assert np.array_equal(hard == 1, mean > 0.5)
