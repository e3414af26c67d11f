"""Windows of both sides go in; the least distance over small shifts of the right patch comes out."""

import math

import torch
from torch import Tensor

from siamray.pretraining.distances import pair_distances


def shift_pixels(share: float, side: int) -> int:
    """How far the right patch is shifted, in pixels: a share of the patch side, at least one pixel unless it is 0."""
    return math.ceil(share * side)


def shifted(windows: Tensor, reach: int) -> Tensor:
    """Cuts the patch in the middle of windows, and the eight that lie a shift away.

    Args:
        windows: [N, 1, P + 2 reach, P + 2 reach].
        reach: the shift in pixels; 0 gives the windows themselves.

    Returns:
        [S N, 1, P, P], all N of a shift together; S is 9, or 1 without a shift.
    """
    if reach == 0:
        return windows
    side = windows.shape[-1] - 2 * reach
    starts = (0, reach, 2 * reach)
    return torch.cat([windows[..., row : row + side, col : col + side] for row in starts for col in starts])


def central(windows: Tensor, reach: int) -> Tensor:
    """Cuts the patch in the middle of windows [..., P + 2 reach, P + 2 reach]."""
    side = windows.shape[-1] - 2 * reach
    return windows[..., reach : reach + side, reach : reach + side]


def least_distances(left: Tensor, right: Tensor) -> Tensor:
    """The least distance of each left embedding to the right ones of all shifts.

    Args:
        left: [N, D] as `embed` returns them.
        right: [S N, D], all N of a shift together.

    Returns:
        [N].
    """
    shifts = len(right) // len(left)
    apart = pair_distances(left.repeat(shifts, 1), right, "raw")
    return apart.reshape(shifts, len(left)).min(dim=0).values
