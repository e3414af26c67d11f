"""The blob control finds bright compact things, whatever the brightness around them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from siamray.downstream.controls import BLOB_SCALES, blob


def disc(side: int, radius: float, row: float, col: float) -> np.ndarray:
    rows, cols = np.mgrid[:side, :side]
    return ((rows - row) ** 2 + (cols - col) ** 2 <= radius**2).astype(np.float32)


@given(radius=st.floats(4, 12), row=st.floats(24, 40), col=st.floats(24, 40), level=st.floats(-5, 5))
def test_a_bright_disc_scores_higher_than_a_dark_one_or_none(
    radius: float, row: float, col: float, level: float
) -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    mass = disc(64, radius, row, col)
    bright, dark, none = blob(np.stack([noise + mass, noise - mass, noise]) + np.float32(level))
    assert bright > dark
    assert bright > none


def test_it_is_the_greatest_scale_normalised_laplacian_of_the_middle() -> None:
    patches = np.random.default_rng(1).standard_normal((3, 32, 32)).astype(np.float32)
    expected = []
    for patch in patches:
        values = [
            -((s * 32) ** 2) * ndimage.gaussian_laplace(patch.astype(np.float64), s * 32, mode="nearest")
            for s in BLOB_SCALES
        ]
        expected.append(max(value[8:24, 8:24].max() for value in values))
    np.testing.assert_allclose(blob(patches), expected, rtol=1e-4)


def test_a_ramp_of_brightness_is_no_blob() -> None:
    ramp = np.tile(np.linspace(-2, 2, 64, dtype=np.float32), (64, 1))
    ramp_score, disc_score = blob(np.stack([ramp, disc(64, 6, 32, 32)]))
    assert abs(ramp_score) < 0.2 * disc_score
