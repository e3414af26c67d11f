"""Distances and health measures against slow references, and where they are undefined."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from siamray.pretraining.distances import (
    agreement,
    dimension_deviation,
    distance_matrix,
    distance_quantiles,
    effective_rank,
    embed,
    pair_distances,
)
from siamray.pretraining.histogram import Histogram


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["unit", "raw"])
def test_pair_distances_equal_the_loop(kind):
    left, right = random(7, 5), random(7, 5, seed=1)
    for index, distance in enumerate(pair_distances(left, right, kind)):
        a, b = left[index].numpy(), right[index].numpy()
        if kind == "unit":
            a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
        assert float(distance) == pytest.approx(
            math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True))), abs=1e-9
        )


@pytest.mark.parametrize("kind", ["unit", "raw"])
def test_gradient_of_a_distance_is_right_and_zero_at_zero(kind):
    left, right = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: pair_distances(a, b, kind), (left, right))
    same = random(4, 3).requires_grad_()
    pair_distances(same, same.detach().clone(), kind).sum().backward()
    assert torch.equal(same.grad, torch.zeros_like(same))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 1000))
def test_unit_distances_lie_between_0_and_2_and_ignore_the_length_of_embeddings(count, dimensions, seed):
    left, right = random(count, dimensions, seed=seed), random(count, dimensions, seed=seed + 1)
    distances = pair_distances(left, right, "unit")
    assert ((distances >= 0) & (distances <= 2 + 1e-9)).all()
    assert torch.allclose(distances, pair_distances(3 * left, 0.5 * right, "unit"))


def test_embed_widens_bfloat16_and_refuses_another_kind():
    assert embed(torch.ones(2, 3, dtype=torch.bfloat16), "raw").dtype == torch.float32
    with pytest.raises(ValueError, match="unit or raw"):
        embed(torch.ones(2, 3), "cosine")


def test_distance_matrix_equals_cdist_and_has_the_right_gradient():
    values = random(9, 4)
    assert torch.allclose(distance_matrix(values), torch.cdist(values, values), atol=2e-6)
    other = ~torch.eye(9, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda x: distance_matrix(x)[other], (values.requires_grad_(),))


def test_distance_matrix_stays_finite_for_equal_embeddings():
    values = torch.ones(5, 3, requires_grad=True)
    distance_matrix(values).sum().backward()
    assert torch.isfinite(values.grad).all()


def test_distance_matrix_is_computed_in_full_precision_under_autocast():
    values = random(6, 4).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = distance_matrix(values)
    assert torch.equal(inside, distance_matrix(values))


def test_effective_rank_equals_the_singular_value_definition():
    values = random(40, 6) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1, 0.01])
    singular = np.linalg.svd((values - values.mean(0)).numpy(), compute_uv=False)
    share = singular / singular.sum()
    assert effective_rank(values) == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-6)


def test_effective_rank_counts_the_dimensions_that_vary():
    corners = torch.cat([torch.eye(4), -torch.eye(4)])
    assert effective_rank(corners) == pytest.approx(4)
    line = torch.linspace(-1, 1, 20)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert effective_rank(line) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.full((8, 3), 0.7)) == 0
    assert math.isnan(effective_rank(torch.full((8, 3), float("nan"))))


def test_dimension_deviation_of_unit_embeddings_is_the_inverse_root_of_the_dimensions():
    values = random(20_000, 16)
    assert dimension_deviation(embed(values, "unit")) == pytest.approx(1 / 4, rel=0.02)
    assert dimension_deviation(torch.ones(5, 3)) == 0


def test_agreement_is_the_rank_correlation_and_nan_where_undefined():
    first = np.array([0.1, 0.4, 0.2, 0.9, 0.7])
    assert agreement(first, first**3) == pytest.approx(1)
    assert agreement(first, -first) == pytest.approx(-1)
    assert agreement([*first, np.nan], [*first, 0.0]) == pytest.approx(1)
    assert math.isnan(agreement(first, np.ones(5)))
    assert math.isnan(agreement([0.1, 0.2], [0.1, 0.2]))


def test_quantiles_carry_their_names_and_leave_out_what_is_not_finite():
    found = distance_quantiles(Histogram.of([*np.linspace(0, 1, 10_001), np.nan, np.inf]))
    assert list(found) == ["d_q01", "d_q05", "d_q25", "d_q50", "d_q75", "d_q95", "d_q99"]
    assert found["d_q25"] == pytest.approx(0.25, abs=1e-4)
    assert all(math.isnan(value) for value in distance_quantiles(Histogram.of([np.nan])).values())
