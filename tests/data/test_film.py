"""A film's frame is taken off line by line: all at once, or with what is known of a line, gives the same."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siamray.config import PhantomConfig
from siamray.data import film
from siamray.data.sources.phantom import with_marker
from siamray.data.sources.phantom_anatomy import View, imagine, render

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def line_by_line(values: Floats, seen: Bools) -> tuple[slice, slice]:
    """Finds the window within the frame slowly and obviously."""

    def is_frame(greys: Floats) -> bool:
        if greys.size == 0:
            return True
        low, high = np.quantile(greys.astype(np.float64), (0.02, 0.98)).tolist()
        return high - low < 0.04 and (high < 0.1 or low > 0.9)

    rows, cols = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1
    before = None
    while before != (top, bottom, left, right) and bottom - top > 4 and right - left > 4:
        before = (top, bottom, left, right)
        top += is_frame(values[top, left:right][seen[top, left:right]])
        bottom -= is_frame(values[bottom - 1, left:right][seen[bottom - 1, left:right]])
        left += is_frame(values[top:bottom, left][seen[top:bottom, left]])
        right -= is_frame(values[top:bottom, right - 1][seen[top:bottom, right - 1]])
    return slice(top, bottom), slice(left, right)


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from([0.0, 0.03, 0.5, 0.95, 1.0])), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.01, 0.05]),
    st.sampled_from([0.0, 0.01, 0.02, 0.03, 0.1]),
    st.sampled_from([0.0, 0.02, 0.5]),
    st.integers(0, 2**16),
)
def test_the_window_within_a_frame_is_that_found_line_by_line(
    shape: tuple[int, int], sides: list[tuple[int, float]], noise: float, specks: float, unseen: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice([0.02, 0.4, 0.97], size=shape, p=rng.dirichlet([1, 1, 1]))
    for number, (width, level) in enumerate(sides):
        # Four turns: each side gets its frame, the later ones over the earlier.
        np.rot90(values, number)[:width] = level
    values += noise * rng.standard_normal(shape)
    dirty = rng.random(shape) < specks
    values[dirty] = rng.random(int(dirty.sum()))
    seen = rng.random(shape) >= unseen
    seen[rng.integers(shape[0]), rng.integers(shape[1])] = True
    if rng.random() < 0.3:
        seen[: rng.integers(shape[0])] &= rng.random() < 0.5
        seen.flat[rng.integers(seen.size)] = True
    greys = np.clip(values, 0, 1).astype(np.float32)
    assert film._within_frame(greys, seen) == line_by_line(greys, seen)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("frame", [None, 0.0, 1.0])
def test_the_window_of_a_phantom_is_that_found_line_by_line(number: int, frame: float | None) -> None:
    for projection in ("CC", "MLO"):
        view = View(imagine(PhantomConfig(), number), projection)
        for side in "LR":
            drawn = with_marker(render(view, side)[0], side, projection).astype(np.float32)
            seen = np.ones(drawn.shape, dtype=bool)
            if frame is not None:
                drawn = np.pad(drawn, ((3, 9), (17, 2)), constant_values=frame)
                drawn += np.random.default_rng(number).normal(0, 0.005, drawn.shape).astype(np.float32)
                seen = np.pad(seen, ((3, 9), (17, 2)), constant_values=number % 2 == 0)
            greys = np.clip(drawn, 0, 1).astype(np.float32)
            assert film._within_frame(greys, seen) == line_by_line(greys, seen)
