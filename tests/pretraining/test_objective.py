"""Every term of the objective against a slow reference, by its gradient, and where batches degenerate."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from siamray.pretraining.distances import embed, pair_distances
from siamray.pretraining.objective import (
    LEAST_SCALE,
    anti_collapse,
    contrastive_loss,
    covariance_penalty,
    cross_regularization,
    distance_consistency,
    negatives,
    random_partners,
    relational,
    soft_margin,
    standardized,
    symmetric_kl,
    variance_covariance,
    variance_hinge,
)

CROSS = ["symmetric_kl", "distance_consistency", "relational", "none"]
ANTI = ["negatives", "partners", "variance_covariance", "none"]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_contrastive_loss_equals_the_loop():
    distances, labels = 2 * uniform(9), uniform(9, seed=1)
    slow = 0.0
    for d, w in zip(distances.tolist(), labels.tolist(), strict=True):
        slow += (1 - w) / 2 * d**2 + w / 2 * max(0.0, 1.2 - d) ** 2
    assert float(contrastive_loss(distances, labels, 1.2)) == pytest.approx(slow / 9)


def test_contrastive_loss_with_hard_labels_is_that_of_hadsell():
    one, zero = torch.ones(1), torch.zeros(1)
    assert float(contrastive_loss(torch.tensor([0.5]), zero, 2.0)) == pytest.approx(0.125)
    assert float(contrastive_loss(torch.tensor([0.5]), one, 2.0)) == pytest.approx(1.125)
    assert float(contrastive_loss(torch.tensor([2.5]), one, 2.0)) == 0


def test_contrastive_loss_has_the_right_gradient_and_pulls_similar_pairs_only():
    distances, labels = 2 * uniform(9), uniform(9, seed=1)
    assert torch.autograd.gradcheck(lambda d: contrastive_loss(d, labels, 1.2), (distances.requires_grad_(),))
    near = torch.tensor([0.5, 0.5], requires_grad=True)
    contrastive_loss(near, torch.tensor([0.0, 1.0]), 1.2).backward()
    assert near.grad[0] > 0 > near.grad[1]


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 2), st.floats(0, 1), st.floats(0, 3))
def test_contrastive_loss_is_never_negative_and_linear_in_the_label(distance, label, margin):
    d = torch.tensor([distance], dtype=torch.float64)

    def loss(w: float) -> float:
        return float(contrastive_loss(d, torch.tensor([w], dtype=torch.float64), margin))

    assert loss(label) >= 0
    assert loss(label) == pytest.approx((1 - label) * loss(0) + label * loss(1), abs=1e-9)


def test_symmetric_kl_equals_both_divergences_written_out():
    a, b = random(8), random(8, seed=1)
    slow = 0.0
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-x)), 1 / (1 + math.exp(-y))
        for u, v in ((p, q), (q, p)):
            slow += u * math.log(u / v) + (1 - u) * math.log((1 - u) / (1 - v))
    assert float(symmetric_kl(a, b)) == pytest.approx(slow / 8)
    assert torch.autograd.gradcheck(symmetric_kl, (a.requires_grad_(), b.requires_grad_()))


def test_standardized_scores_pass_no_gradient_through_mean_and_deviation():
    distances = (1 + uniform(6)).requires_grad_()
    scores = standardized(distances)
    assert float(scores.detach().mean()) == pytest.approx(0, abs=1e-12)
    assert float(scores.detach().std(correction=0)) == pytest.approx(1)
    scores[0].backward()
    expected = torch.zeros(6, dtype=torch.float64)
    expected[0] = 1 / distances.detach().std(correction=0)
    assert torch.allclose(distances.grad, expected)


def test_distance_consistency_equals_the_loop_and_its_gradient_leaves_the_means_alone():
    a, b = (1 + uniform(7)).requires_grad_(), 3 * (1 + uniform(7, seed=1))
    mean_a, mean_b = float(a.detach().mean()), float(b.mean())
    slow = np.mean([(x / mean_a - y / mean_b) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)])
    loss = distance_consistency(a, b)
    assert float(loss.detach()) == pytest.approx(slow)
    loss.backward()
    assert torch.allclose(a.grad, 2 * (a.detach() / mean_a - b / mean_b) / mean_a / 7)


def test_relational_equals_the_loop_and_has_the_right_gradient():
    a, b = random(5, 3), 4 * random(5, 6, seed=1)

    def matrix(values: torch.Tensor) -> list[float]:
        rows = values.tolist()
        found = [math.dist(rows[i], rows[j]) for i in range(5) for j in range(5) if i != j]
        return [d / (sum(found) / len(found)) for d in found]

    slow = []
    for x, y in zip(matrix(a), matrix(b), strict=True):
        gap = abs(x - y)
        slow.append(0.5 * gap**2 if gap < 1 else gap - 0.5)
    assert float(relational(a, b)) == pytest.approx(np.mean(slow), abs=1e-9)
    assert torch.autograd.gradcheck(relational, (a.requires_grad_(), b.requires_grad_()))


@pytest.mark.parametrize("kind", CROSS)
def test_cross_regularization_is_zero_for_equal_networks_symmetric_and_scale_free(kind):
    a, b, za, zb = 1 + uniform(6), 1 + uniform(6, seed=1), random(12, 4), random(12, 4, seed=1)
    assert float(cross_regularization(kind, a, a, za, za)) == pytest.approx(0, abs=1e-12)
    forth, back = cross_regularization(kind, a, b, za, zb), cross_regularization(kind, b, a, zb, za)
    assert float(forth) == pytest.approx(float(back))
    assert float(cross_regularization(kind, 3 * a, b, 3 * za, zb)) == pytest.approx(float(forth), rel=1e-6)
    assert float(forth) > 0 or kind == "none"


@pytest.mark.parametrize("pairs", [1, 2, 5])
@pytest.mark.parametrize("kind", CROSS)
def test_cross_regularization_and_its_gradient_stay_finite_for_small_and_constant_batches(kind, pairs):
    left, right = torch.ones(pairs, 3, requires_grad=True), torch.ones(pairs, 3, requires_grad=True)
    a = pair_distances(left, right, "raw")
    b = torch.linspace(0.1, 1.0, pairs)
    term = cross_regularization(kind, a, b, torch.cat([left, right]), random(2 * pairs, 3).float())
    assert torch.isfinite(term)
    if term.requires_grad:
        term.backward()
        assert torch.isfinite(left.grad).all()


def test_a_collapsed_network_is_not_torn_apart_by_its_peer():
    collapsed = torch.full((8,), 1e-6, requires_grad=True)
    for term in (
        symmetric_kl(standardized(collapsed), standardized(torch.linspace(0, 1, 8))),
        distance_consistency(collapsed, torch.linspace(0, 1, 8)),
    ):
        (gradient,) = torch.autograd.grad(term, collapsed)
        assert gradient.abs().max() < 10 / LEAST_SCALE


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="cross_regularization"):
        cross_regularization("other", torch.ones(2), torch.ones(2), torch.ones(4, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="anti_collapse"):
        anti_collapse("other", torch.ones(2, 2), torch.ones(2, 2), margin=1, covariance_weight=1)


def test_variance_hinge_and_covariance_penalty_equal_numpy():
    values = 0.5 * random(10, 4)
    array = values.numpy()
    hinge = np.mean([max(0.0, 1 - math.sqrt(array[:, d].var(ddof=1) + 1e-4)) for d in range(4)])
    assert float(variance_hinge(values)) == pytest.approx(hinge)
    covariance = np.cov(array.T)
    penalty = sum(covariance[i, j] ** 2 for i in range(4) for j in range(4) if i != j) / 4
    assert float(covariance_penalty(values)) == pytest.approx(penalty)
    values.requires_grad_()
    assert torch.autograd.gradcheck(variance_hinge, (values,))
    assert torch.autograd.gradcheck(covariance_penalty, (values,))


def test_variance_covariance_weighs_the_terms_of_both_sides_as_vicreg_does():
    left, right = 0.5 * random(10, 4), 0.3 * random(10, 4, seed=1)
    expected = (variance_hinge(left) + variance_hinge(right)) / 2
    expected = expected + 0.04 * (covariance_penalty(left) + covariance_penalty(right))
    assert torch.allclose(variance_covariance(left, right, 0.04, "raw"), expected)


def test_unit_embeddings_spread_over_the_sphere_meet_the_variance_hinge():
    spread = embed(random(4000, 16), "unit")
    assert float(variance_covariance(spread, spread, 0.0, "unit")) < 0.02
    assert float(variance_covariance(spread, spread, 0.0, "raw")) > 0.7


def test_negatives_equal_the_loop_and_have_the_right_gradient():
    left, right = 0.5 * random(4, 3), 0.5 * random(4, 3, seed=1)
    patches = [(pair, side[pair].tolist()) for side in (left, right) for pair in range(4)]
    slow = [
        max(0.0, 1.2 - math.dist(first, second)) ** 2 / 2
        for pair, first in patches
        for other, second in patches
        if pair != other
    ]
    assert float(negatives(left, right, 1.2)) == pytest.approx(np.mean(slow), abs=1e-9)
    assert torch.autograd.gradcheck(lambda a, b: negatives(a, b, 1.2), (left.requires_grad_(), right.requires_grad_()))


def test_negatives_push_other_pairs_apart_and_leave_a_pair_its_own_distance():
    left = torch.tensor([[0.0, 0.0], [10.0, 0.0]], requires_grad=True)
    right = torch.tensor([[0.1, 0.0], [10.1, 0.0]], requires_grad=True)
    assert float(negatives(left, right, 1.2).detach()) == 0
    near = torch.tensor([[0.0, 0.0], [0.3, 0.0]], requires_grad=True)
    negatives(near, near.detach().clone(), 1.2).backward()
    assert near.grad[0, 0] > 0 > near.grad[1, 0]


@pytest.mark.parametrize("pairs", [1, 2, 5])
@pytest.mark.parametrize("kind", ANTI)
@pytest.mark.parametrize("embedding", ["unit", "raw"])
def test_anti_collapse_and_its_gradient_stay_finite_for_small_and_collapsed_batches(kind, embedding, pairs):
    raw = torch.ones(pairs, 3, requires_grad=True)
    left = embed(raw, embedding)
    term = anti_collapse(kind, left, left.clone(), margin=1.2, covariance_weight=0.04, embedding=embedding)
    assert torch.isfinite(term)
    if term.requires_grad:
        term.backward()
        assert torch.isfinite(raw.grad).all()


@pytest.mark.parametrize("kind", ANTI[:2])
def test_anti_collapse_prefers_spread_to_collapse(kind):
    spread, collapsed = embed(random(32, 8), "unit"), embed(torch.ones(32, 8, dtype=torch.float64), "unit")
    terms = [
        float(anti_collapse(kind, values, values, margin=1.2, covariance_weight=0.04)) for values in (spread, collapsed)
    ]
    assert terms[0] < terms[1] / 2


def test_terms_are_the_same_under_autocast():
    left, right = random(8, 4).float(), random(8, 4, seed=1).float()

    def terms() -> list[float]:
        return [
            *(float(anti_collapse(kind, left, right, margin=3, covariance_weight=1, embedding="raw")) for kind in ANTI),
            float(relational(left, right)),
        ]

    with torch.autocast("cpu", torch.bfloat16):
        inside = terms()
    assert inside == terms()


def test_the_soft_margin_grows_with_the_label_to_the_whole_margin():
    labels = torch.linspace(0, 1, 11)
    for kind in ("linear", "exponential", "sine"):
        margins = soft_margin(labels, 1.2, kind)
        assert margins[0].item() == pytest.approx(0, abs=1e-6)
        assert margins[-1].item() == pytest.approx(1.2)
        assert (margins.diff() > 0).all()
    assert (soft_margin(labels, 1.2, "constant") == 1.2).all()
    with pytest.raises(ValueError, match="soft_margin"):
        soft_margin(labels, 1.2, "square")


def test_the_soft_margin_enters_the_loss():
    distances, labels = torch.tensor([0.2, 0.9]), torch.tensor([0.5, 0.25])
    expected = sum(
        (1 - w) * d**2 / 2 + w * max(0.0, 1.2 * w - d) ** 2 / 2 for d, w in ((0.2, 0.5), (0.9, 0.25))
    ) / 2  # fmt: skip
    assert contrastive_loss(distances, labels, 1.2, "linear").item() == pytest.approx(expected)


def test_random_partners_are_the_next_pairs_right_patches_and_have_the_right_gradient():
    left, right = torch.randn((2, 5, 3), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    slow = [max(0.0, 1.8 - float((left[pair] - right[(pair - 1) % 5]).norm())) ** 2 / 2 for pair in range(5)]
    assert float(random_partners(left, right, 1.8)) == pytest.approx(np.mean(slow), abs=1e-9)
    arguments = (left.requires_grad_(), right.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: random_partners(a, b, 1.8), arguments)
