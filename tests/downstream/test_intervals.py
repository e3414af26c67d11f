"""AUC, average precision and the bootstrap over women, against scikit-learn and a loop that repeats samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, roc_auc_score

from siamray.downstream.intervals import auc, average_precision, bootstrap, interval, women_weights

KINDS = {"auc": (auc, roc_auc_score), "ap": (average_precision, average_precision_score)}


def drawn(seed: int, n: int = 120, women: int = 15, levels: int | None = None):
    """Labels, scores (with ties where levels are given) and women of a made-up test set."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    labels[:2] = 0, 1
    scores = generator.normal(labels, 1.5)
    if levels:
        scores = np.round(scores * levels) / levels
    return labels, scores, generator.integers(0, women, n)


@st.composite
def labelled(draw):
    n = draw(st.integers(2, 40))
    labels = np.array([0, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 2, max_size=n - 2))])
    return labels, draw(hnp.arrays(np.float64, n, elements=st.integers(-3, 3).map(float)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_statistics_equal_scikit_learn_with_ties_and_weights(kind, levels, weighted):
    ours, reference = KINDS[kind]
    for seed in range(20):
        labels, scores, _ = drawn(seed, levels=levels)
        weights = np.random.default_rng(seed).integers(0, 4, labels.size).astype(float) if weighted else None
        assert ours(labels, scores, weights) == pytest.approx(
            reference(labels, scores, sample_weight=weights), abs=1e-12
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [None, 2])
def test_bootstrap_equals_a_loop_that_repeats_each_womans_samples(kind, levels):
    labels, scores, women = drawn(3, levels=levels)
    weights = women_weights(15, 60, seed=4)
    values = bootstrap(kind, labels, scores, women, weights)
    for counts, value in zip(weights, values, strict=True):
        rows = np.concatenate([np.flatnonzero(women == woman) for woman in range(15) for _ in range(counts[woman])])
        assert value == pytest.approx(KINDS[kind][1](labels[rows], scores[rows]), abs=1e-12)


def test_chunks_of_replicates_give_what_one_piece_gives(monkeypatch):
    labels, scores, women = drawn(5)
    weights = women_weights(15, 101, seed=0)
    whole = bootstrap("auc", labels, scores, women, weights)
    monkeypatch.setattr("siamray.downstream.intervals.CHUNK_ELEMENTS", 1000)
    np.testing.assert_array_equal(bootstrap("auc", labels, scores, women, weights), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_replicates_without_a_class_are_nan_and_only_those(kind):
    women = np.array([0, 0, 1, 2])
    labels = np.array([1, 1, 0, 0])
    weights = women_weights(3, 400, seed=1)
    values = bootstrap(kind, labels, np.array([3.0, 1.0, 2.0, 0.0]), women, weights)
    absent = (weights[:, 0] == 0) | (weights[:, 0] == 3)
    assert 0 < absent.sum() < 400
    np.testing.assert_array_equal(np.isnan(values), absent)
    assert np.isfinite(interval(values, 0.95)).all()


def test_a_missing_class_or_score_gives_nan_and_no_samples_too():
    for statistic in (auc, average_precision):
        assert np.isnan(statistic([1, 1], [0.1, 0.2]))
        assert np.isnan(statistic([0, 0], [0.1, 0.2]))
        assert np.isnan(statistic([0, 1], [0.1, np.nan]))
        assert np.isnan(statistic([], []))
    assert np.isnan(bootstrap("auc", [0, 1], [np.nan, 1.0], [0, 1], women_weights(2, 5, 0))).all()
    assert np.isnan(interval([np.nan, np.nan], 0.9)).all()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="one length"):
        auc([0, 1], [0.5])
    with pytest.raises(ValueError, match="0 or 1"):
        auc([0, 2], [0.5, 0.1])
    with pytest.raises(ValueError, match="3 weights"):
        auc([0, 1], [0.5, 0.1], [1, 1, 1])
    with pytest.raises(ValueError, match="unknown statistic 'f1'; valid: auc, ap"):
        bootstrap("f1", [0, 1], [0.5, 0.1], [0, 1], women_weights(2, 5, 0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one woman"):
        women_weights(0, 5, 0)


def test_women_are_drawn_as_often_as_there_are_women_and_repeatably():
    weights = women_weights(20, 3000, seed=7)
    assert weights.shape == (3000, 20)
    assert (weights.sum(axis=1) == 20).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.08)
    np.testing.assert_array_equal(weights, women_weights(20, 3000, seed=7))
    assert (weights != women_weights(20, 3000, seed=8)).any()


def test_interval_cuts_equal_tails():
    assert interval(np.arange(101), 0.9) == pytest.approx((5, 95))


@given(labelled())
@settings(max_examples=80, deadline=None)
def test_a_monotone_transform_of_the_scores_changes_nothing(sample):
    labels, scores = sample
    assert auc(labels, np.exp(scores)) == pytest.approx(auc(labels, scores), abs=1e-12)
    assert average_precision(labels, 5 * scores + 2) == pytest.approx(average_precision(labels, scores), abs=1e-12)


@given(labelled(), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_the_order_of_the_rows_changes_nothing(sample, random):
    labels, scores = sample
    order = np.array(random.sample(range(labels.size), labels.size))
    women = np.arange(labels.size) % 5
    weights = women_weights(5, 20, seed=0)
    for kind, (statistic, _) in KINDS.items():
        assert statistic(labels[order], scores[order]) == pytest.approx(statistic(labels, scores), abs=1e-12)
        np.testing.assert_allclose(
            bootstrap(kind, labels[order], scores[order], women[order], weights),
            bootstrap(kind, labels, scores, women, weights),
            atol=1e-12,
        )


@given(labelled())
@settings(max_examples=80, deadline=None)
def test_negated_scores_mirror_the_auc(sample):
    labels, scores = sample
    assert auc(labels, -scores) == pytest.approx(1 - auc(labels, scores), abs=1e-12)
    assert 0 <= auc(labels, scores) <= 1
