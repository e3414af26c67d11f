"""breast.py: the breast is found whatever else the film shows, and its chest wall is brought to the left."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from siamray.data.breast import breast_mask, chest_side, crop_box

MINI_MIAS = Path(__file__).resolve().parents[3] / "shared" / "data" / "mini-mias"


def drawn_breast(
    background: float = 0.05, noise: float = 0.01
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """A half ellipse at the left edge of a noisy film, and where it is."""
    rows, cols = np.mgrid[:400, :300]
    inside = ((rows - 200) / 150) ** 2 + (cols / 180) ** 2 < 1
    generator = np.random.default_rng(0)
    tissue = 0.55 + 0.15 * np.sin(rows / 17) * np.cos(cols / 23)
    pixels = np.where(inside, tissue, background) + generator.normal(0, noise, inside.shape)
    return np.clip(pixels, 0, 1).astype(np.float32), inside


def overlap(one: npt.NDArray[np.bool_], two: npt.NDArray[np.bool_]) -> float:
    return 2 * float((one & two).sum()) / float(one.sum() + two.sum())


@settings(max_examples=15, deadline=None)
@given(background=st.floats(0, 0.25), noise=st.floats(0, 0.03))
def test_the_breast_is_found_on_a_background_that_is_not_zero(background: float, noise: float) -> None:
    pixels, inside = drawn_breast(background, noise)
    assert overlap(breast_mask(pixels), inside) > 0.97


def test_a_label_a_touching_marker_and_a_film_edge_are_left_out() -> None:
    pixels, inside = drawn_breast()
    pixels[20:60, 220:280] = 1  # label
    pixels[:, 292:] = 1  # film edge, brighter than the breast
    pixels[:2, :] = 0.9  # line along the top
    pixels[196:204, 175:260] = 0.9  # thin wire that touches the nipple
    mask = breast_mask(pixels)
    assert overlap(mask, inside) > 0.97
    assert not mask[20:60, 220:280].any()
    assert not mask[:, 292:].any()
    assert not mask[196:204, 215:260].any()


def test_a_strip_of_film_larger_than_the_breast_is_not_taken_for_it() -> None:
    rows, cols = np.mgrid[:400, :400]
    inside = ((rows - 200) / 80) ** 2 + (cols / 90) ** 2 < 1
    pixels = np.where(inside, 0.5, 0.02).astype(np.float32)
    pixels[:, 330:] = 0.95
    assert overlap(breast_mask(pixels), inside) > 0.95


def test_holes_are_filled() -> None:
    pixels, _ = drawn_breast()
    pixels[190:215, 60:90] = 0
    assert breast_mask(pixels)[190:215, 60:90].all()


def test_a_breast_that_fills_the_frame_is_kept_whole() -> None:
    rows, cols = np.mgrid[:300, :300]
    pixels = (0.6 + 0.2 * np.sin(rows / 40) * np.sin(cols / 30)).astype(np.float32)
    pixels[(rows + cols) < 40] = 0.02  # a dark corner
    mask = breast_mask(pixels)
    assert mask.mean() > 0.95
    assert not mask[:12, :12].any()


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_an_image_of_one_grey_has_no_breast(level: float) -> None:
    assert not breast_mask(np.full((200, 150), level, dtype=np.float32)).any()


def test_padding_is_never_breast() -> None:
    pixels, _ = drawn_breast()
    padding = np.zeros(pixels.shape, dtype=bool)
    padding[:, :40] = True
    pixels[padding] = 1
    mask = breast_mask(pixels, padding)
    assert mask.any()
    assert not (mask & padding).any()


@given(mirrored=st.booleans(), top=st.integers(0, 60), left=st.integers(0, 80))
@settings(max_examples=15, deadline=None)
def test_the_chest_wall_is_found_wherever_the_film_lies(mirrored: bool, top: int, left: int) -> None:
    pixels, inside = drawn_breast()
    pixels, inside = (np.pad(array, ((top, 10), (left, 30))) for array in (pixels, inside))
    if mirrored:
        pixels, inside = pixels[:, ::-1], inside[:, ::-1]
    assert chest_side(inside, pixels) == ("right" if mirrored else "left")


def test_where_both_sides_are_straight_the_brighter_one_is_the_chest_wall() -> None:
    mask = np.ones((100, 80), dtype=bool)
    pixels = np.tile(np.linspace(1, 0.2, 80, dtype=np.float32), (100, 1))
    assert chest_side(mask, pixels) == "left"
    assert chest_side(mask, pixels[:, ::-1]) == "right"


def test_the_crop_has_its_margin_but_none_at_the_chest_wall_or_beyond_the_image() -> None:
    mask = np.zeros((100, 80), dtype=bool)
    mask[5:60, 10:40] = True
    assert crop_box(mask, 8) == (0, 10, 68, 48)


def mias_places() -> list[tuple[str, int, int]]:
    rows = [line.split() for line in (MINI_MIAS / "Info.txt").read_text(encoding="latin-1").splitlines()]
    return [(row[0], 1024 - int(row[5]), int(row[4])) for row in rows if len(row) == 7 and row[5].isdigit()]


@pytest.mark.skipif(not MINI_MIAS.is_dir(), reason="the mini-MIAS images are not there")
def test_every_lesion_of_mini_mias_lies_in_the_breast() -> None:
    # The one row of mdb212 (687, 882) points at black film, 12 mm off the mask: no mask of the breast can hold it.
    places = [place for place in mias_places() if place[0] != "mdb212"]
    masks = {name: breast_mask(read(name)) for name in {name for name, _, _ in places}}
    outside = [(name, row, col) for name, row, col in places if not masks[name][min(row, 1023), col]]
    assert len(places) == 79
    assert outside == []
    assert all(0.1 < mask.mean() < 0.95 for mask in masks.values())


@pytest.mark.skipif(not MINI_MIAS.is_dir(), reason="the mini-MIAS images are not there")
@pytest.mark.parametrize("odd", [3, 85, 165, 211])
def test_the_breasts_of_a_woman_have_their_chest_walls_at_opposite_sides(odd: int) -> None:
    sides = [chest_side(breast_mask(pixels), pixels) for pixels in (read(f"mdb{odd:03d}"), read(f"mdb{odd + 1:03d}"))]
    assert sides == ["right", "left"]


@pytest.mark.skipif(not MINI_MIAS.is_dir(), reason="the mini-MIAS images are not there")
def test_images_that_fill_the_frame_have_a_breast_and_opposite_chest_walls() -> None:
    images = [read("mdb151"), read("mdb152")]
    masks = [breast_mask(pixels) for pixels in images]
    assert all(mask.mean() > 0.8 for mask in masks)
    assert {chest_side(mask, pixels) for mask, pixels in zip(masks, images, strict=True)} == {"left", "right"}


def read(name: str) -> npt.NDArray[np.float32]:
    return np.asarray(Image.open(MINI_MIAS / f"{name}.png"), dtype=np.float32) / np.float32(255)
