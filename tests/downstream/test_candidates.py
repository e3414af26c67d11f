"""Maps of a view and candidates on them, with an encoder that only knows brightness."""

import numpy as np
import pandas as pd
import pytest

from siamray.config import Config
from siamray.data.pairs import PairCutter
from siamray.downstream.candidates import (
    ABNORMALITY,
    BRIGHTNESS,
    DISTANCE,
    LINEAR,
    OF_PAIR,
    Probe,
    View,
    find_candidates,
    measure,
    pixel_map,
    side_maps,
    window_encoder,
)
from siamray.errors import UserError
from tests.downstream.mean_brightness import mean_brightness

HEIGHT, WIDTH, SIDE = 320, 224, 64
CENTRE = (184, 96)


class OneView:
    """A store of one view: noise on both sides, and a bright disc on one of them."""

    def __init__(self, side: str) -> None:
        draw = np.random.default_rng(0)
        rows, cols = np.mgrid[:HEIGHT, :WIDTH]
        disc = np.hypot(rows - CENTRE[0], cols - CENTRE[1]) < 20
        self.images = {}
        for name in ("left", "right"):
            grey = 0.4 + 0.02 * draw.standard_normal((HEIGHT, WIDTH)) + 0.3 * (disc & (name == side))
            self.images[name] = np.rint(65535 * grey).astype(np.uint16)
        self.entries = pd.DataFrame({"entry_id": ["one"], "height": [HEIGHT], "width": [WIDTH]})

    def image(self, entry_id: str, side: str) -> np.ndarray:
        return self.images[side]

    def mask(self, entry_id: str, side: str) -> np.ndarray:
        mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
        mask[:, : 200 if side == "left" else 190] = True
        return mask

    def window(self, entry_id: str, side: str, row: int, col: int, height: int, width: int) -> np.ndarray:
        return self.images[side][row : row + height, col : col + width]

    def normalization(self, entry_id: str) -> dict:
        return {"left": (0.4, 0.1), "right": (0.4, 0.1)}


def config(**options: object) -> Config:
    made = Config()
    for name, value in {"step_pixels": 16, **options}.items():
        setattr(made.downstream.detection, name, value)
    return made


def measured(side: str, options: Config) -> View:
    store, network = OneView(side), mean_brightness()
    return measure(window_encoder(network, options), network, store, PairCutter(store, options.pairs), "one", 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("score", "rule"),
    [(DISTANCE, BRIGHTNESS), (DISTANCE, LINEAR), (LINEAR, LINEAR), (ABNORMALITY, BRIGHTNESS), (BRIGHTNESS, LINEAR)],
)
def test_the_greatest_value_lies_on_a_bright_mass_and_on_its_side(side: str, score: str, rule: str) -> None:
    options = config()
    view = measured(side, options)
    probes = dict.fromkeys((LINEAR, ABNORMALITY), Probe(np.ones(1), 0.0))
    maps = side_maps(view, score, rule, probes)
    best = find_candidates(view, maps, score in OF_PAIR, options.downstream.detection)[0]
    assert best.side == side
    row_min, col_min, row_max, col_max = best.box
    assert row_min <= CENTRE[0] - 20
    assert CENTRE[0] + 20 <= row_max
    assert col_min <= CENTRE[1] - 20
    assert CENTRE[1] + 20 <= col_max
    assert best.value == pytest.approx(np.nanmax(maps))
    assert np.unravel_index(np.nanargmax(pixel_map(view, np.fmax(*maps), (HEIGHT, WIDTH))), (HEIGHT, WIDTH)) == (
        pytest.approx(CENTRE, abs=20)
    )


def test_windows_without_tissue_on_both_sides_have_no_value() -> None:
    view = measured("left", config())
    expected = np.array([[col + SIDE * 0.5 <= 190 for col in range(0, WIDTH - SIDE + 1, 16)]]).repeat(17, axis=0)
    np.testing.assert_array_equal(view.tissue, expected)
    np.testing.assert_array_equal(np.isfinite(view.distance), expected)


def test_candidates_are_local_maxima_apart_from_each_other_by_falling_score() -> None:
    options = config(candidates=5, separation_share=1.0)
    shape = (17, 12)
    values = np.random.default_rng(1).random(shape)
    tissue = np.ones(shape, dtype=bool)
    view = View("one", SIDE, 16, tissue, np.zeros((2, tissue.sum(), 1), np.float32), values, np.zeros((2, *shape)))
    maps = np.stack([np.where(values > 0.5, values, np.nan), np.where(values > 0.5, np.nan, values)])
    found = find_candidates(view, maps, True, options.downstream.detection)
    assert len(found) == 5
    assert found[0].value == values.max()
    assert [candidate.value for candidate in found] == sorted((c.value for c in found), reverse=True)
    for number, one in enumerate(found):
        row, col = one.row // 16, one.col // 16
        around = values[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2]
        assert one.value == around.max() == values[row, col]
        assert one.side == ("left" if one.value > 0.5 else "right")
        for other in found[:number]:
            assert max(abs(one.row - other.row), abs(one.col - other.col)) >= SIDE


def test_a_map_of_pixels_goes_through_the_windows_centres() -> None:
    shape = (4, 3)
    values = np.arange(12.0).reshape(shape)
    values[0, 0] = np.nan
    view = View("one", 8, 4, np.isfinite(values), np.zeros((2, 11, 1), np.float32), values, np.zeros((2, *shape)))
    pixels = pixel_map(view, values, (24, 18))
    # The centre of window (i, j) lies between the pixels 4 i + 3 and 4 i + 4.
    assert pixels[11:13, 7:9].mean() == pytest.approx(values[2, 1])
    assert np.isnan(pixels[0, 0])
    assert pixels[23, 17] == values[3, 2]


def test_a_step_that_is_no_power_of_two_is_refused_with_one_that_is() -> None:
    with pytest.raises(UserError, match=r"step_pixels=12: must be a power of two.*step_pixels=16"):
        window_encoder(mean_brightness(), config(step_pixels=12))
