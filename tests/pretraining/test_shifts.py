"""The least distance over shifts: what is the same a little aside is no longer far."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from siamray.pretraining.distances import pair_distances
from siamray.pretraining.shifts import central, least_distances, shift_pixels, shifted


@given(reach=st.integers(1, 5), seed=st.integers(0, 1000))
def test_nine_places_are_cut_each_at_its_shift(reach: int, seed: int) -> None:
    windows = torch.randn((3, 1, 8 + 2 * reach, 8 + 2 * reach), generator=torch.Generator().manual_seed(seed))
    cut = shifted(windows, reach).reshape(9, 3, 1, 8, 8)
    for place in range(9):
        row, col = (reach * part for part in divmod(place, 3))
        assert torch.equal(cut[place], windows[:, :, row : row + 8, col : col + 8])
    assert torch.equal(cut[4], central(windows, reach))


def test_no_shift_is_the_patch_itself() -> None:
    windows = torch.randn(2, 1, 8, 8)
    assert torch.equal(shifted(windows, 0), windows)
    assert shift_pixels(0.0, 64) == 0
    assert shift_pixels(0.001, 64) == 1


@given(shifts=st.sampled_from([1, 9]), pairs=st.integers(1, 5), seed=st.integers(0, 1000))
def test_it_is_the_least_of_the_distances_to_all_shifts(shifts: int, pairs: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn((pairs, 4), generator=generator)
    right = torch.randn((shifts, pairs, 4), generator=generator)
    expected = [
        min(float((left[pair] - right[shift, pair]).norm()) for shift in range(shifts)) for pair in range(pairs)
    ]
    np.testing.assert_allclose(least_distances(left, right.reshape(-1, 4)), expected, atol=1e-5)
    if shifts == 1:
        torch.testing.assert_close(least_distances(left, right[0]), pair_distances(left, right[0], "raw"))
