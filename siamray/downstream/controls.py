"""Patches go in; scores that no network has learnt come out: what a learned score must beat."""

from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

UNLEARNT = ("brightness", "blob")
"""Scores of patches by which no encoder has a part."""

# Standard deviations of the blob filter, as shares of the patch side: masses of 2 to 11 mm radius in a 26 mm patch.
BLOB_SCALES = (1 / 16, 1 / 11, 1 / 8, 1 / 5.5)


def brightness_difference(pair_patches: NDArray[np.float32]) -> NDArray[np.float64]:
    """By how much the sides differ in smoothed brightness.

    ``|mean_c(G * left) - mean_c(G * right)|`` with G a Gaussian of standard deviation P/8 (edges repeated) and mean_c
    the mean over the central P/2 x P/2 pixels.

    Args:
        pair_patches: [N, 2, P, P]; axis 1 is left, right.

    Returns:
        [N] differences, in the patches' unit.
    """
    side = pair_patches.shape[-1]
    # Smoothing is linear: smoothing the difference is the difference of the smoothed sides.
    difference = pair_patches[:, 0].astype(np.float64) - pair_patches[:, 1]
    smooth = ndimage.gaussian_filter(difference, sigma=(0, side / 8, side / 8), mode="nearest")
    centre = slice(side // 4, side - side // 4)
    return cast(NDArray[np.float64], np.abs(smooth[:, centre, centre].mean(axis=(1, 2))))


def blob(patches: NDArray[np.float32]) -> NDArray[np.float64]:
    """How bright and compact the brightest blob in the middle of a patch is, by one side alone.

    The greatest ``-s^2 (Laplacian of G_s * patch)`` over the scales s of BLOB_SCALES, edges repeated, and over the
    central P/2 x P/2 pixels: the scale-normalised blob detector (Lindeberg 1998).

    Args:
        patches: [N, P, P].

    Returns:
        [N] strengths, in the patches' unit.
    """
    side = patches.shape[-1]
    centre = slice(side // 4, side - side // 4)
    greatest = np.full(len(patches), -np.inf)
    for share in BLOB_SCALES:
        sigma = share * side
        curvature = sum(
            ndimage.gaussian_filter(patches, (0, sigma, sigma), order=order, mode="nearest")
            for order in ((0, 2, 0), (0, 0, 2))
        )
        found = -(sigma**2) * np.asarray(curvature)
        greatest = np.maximum(greatest, found[:, centre, centre].max(axis=(1, 2), initial=-np.inf))
    return cast(NDArray[np.float64], greatest.astype(np.float64))
