"""Hits, FROC curves and areas of binned pixels against slow and obvious references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from siamray.config import DetectionConfig
from siamray.downstream.froc import binned_auc, hits, sensitivities

RATES = [0.0, 0.25, 0.5, 1.0, 2.0]


def slow_sensitivity(lesions: list, false: list, images: float, rate: float) -> float:
    """Tries every threshold; lesions and false positives are (score, times drawn)."""
    total = sum(times for _, times in lesions)
    if not total or not images:
        return float("nan")
    best = 0.0
    for threshold in [*(score for score, _ in lesions), *(score for score, _ in false), np.inf]:
        if threshold == -np.inf:
            continue
        per_image = sum(times for score, times in false if score >= threshold) / images
        if per_image <= rate + 1e-12:
            best = max(best, sum(times for score, times in lesions if score >= threshold) / total)
    return best


@given(st.integers(0, 10**6))
def test_sensitivities_are_those_of_the_best_allowed_threshold(seed: int) -> None:
    draw = np.random.default_rng(seed)
    women = 4
    lesions = draw.integers(0, 6, draw.integers(0, 7)).astype(float)
    lesions[lesions == 0] = -np.inf
    false = draw.integers(0, 6, draw.integers(0, 12)).astype(float)
    of_lesion, of_false = draw.integers(0, women, len(lesions)), draw.integers(0, women, len(false))
    images = draw.integers(0, 3, women)
    weights = draw.multinomial(women, [1 / women] * women, size=6)
    found = sensitivities(lesions, of_lesion, false, of_false, images, RATES, weights)
    for drawn, values in zip(weights, found, strict=True):
        expected = [
            slow_sensitivity(
                list(zip(lesions, drawn[of_lesion], strict=True)),
                [pair for pair in zip(false, drawn[of_false], strict=True) if pair[1]],
                float(drawn @ images),
                rate,
            )
            for rate in RATES
        ]
        np.testing.assert_allclose(values, expected)


def test_false_positives_on_images_without_a_lesion_count() -> None:
    # One lesion image (woman 0), three normal images (women 1 to 3), with a higher false positive on two of them.
    arguments = ([0.5], [0], [0.9, 0.8, 0.1], [1, 2, 3], [1, 1, 1, 1])
    found = sensitivities(*arguments, [0.25, 0.5, 1.0], np.ones((1, 4), dtype=int))
    assert found.tolist() == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("hit", "box", "expected"),
    [
        ("distance", (0, 0, 64, 64), [True, False]),  # centres 10 pixels apart; 200
        ("centre", (0, 0, 64, 64), [False, False]),
        ("centre", (10, 0, 74, 64), [True, False]),
        ("overlap", (0, 0, 64, 64), [False, False]),
        ("overlap", (36, 26, 56, 46), [True, False]),
    ],
)
def test_a_hit_is_what_the_rule_says(hit: str, box: tuple, expected: list) -> None:
    # Boxes of 10 and of 20 pixels at 0.5 mm: half a diagonal is 7.1 and 14.1 pixels, 6 mm are 12.
    lesions = [(37, 27, 47, 37), (222, 22, 242, 42)]
    rules = DetectionConfig(hit=hit, hit_mm=6.0, hit_overlap=0.2)
    assert hits([box], lesions, 0.5, rules).tolist() == [expected]


def test_half_the_diagonal_of_a_large_box_is_a_hit_and_no_more() -> None:
    rules = DetectionConfig(hit="distance", hit_mm=1.0)
    for shift, expected in ((28, True), (29, False)):
        box = (shift, 0, 40 + shift, 40)
        assert hits([box], [(0, 0, 40, 40)], 1.0, rules).tolist() == [[expected]]
    assert hits([], [(0, 0, 40, 40)], 1.0, rules).shape == (0, 1)
    assert hits([(0, 0, 1, 1)], [], 1.0, rules).shape == (1, 0)


def test_the_area_of_binned_pixels_is_that_of_the_pixels() -> None:
    draw = np.random.default_rng(0)
    women, bins = 5, 7
    counts = draw.integers(0, 9, (2, women, bins))
    weights = draw.multinomial(women, [1 / women] * women, size=4)
    found = binned_auc(counts[1], counts[0], weights)
    for drawn, value in zip(weights, found, strict=True):
        totals = np.einsum("w,lwb->lb", drawn, counts)
        labels = np.repeat([0, 1], totals.sum(axis=1))
        scores = np.concatenate([np.repeat(np.arange(bins), total) for total in totals])
        assert value == pytest.approx(roc_auc_score(labels, scores))
    assert np.isnan(binned_auc(0 * counts[1], counts[0], weights)).all()
