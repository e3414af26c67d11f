"""Pairs lie where both breasts have tissue, and both sides of a pair show the same place, changed alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from siamray.compose import compose
from siamray.config import AugmentationConfig, Config, PairsConfig
from siamray.data.pairs import (
    PairCutter,
    augment,
    augmentation_context,
    pair_batches,
    patch_side,
    place_pairs,
    shuffle_partners,
    tissue_share,
)
from siamray.errors import UserError


class FakeStore:
    """Two entries whose pixels say where they are: value = 256 * row + col, the right side one higher."""

    def __init__(self, height: int = 96, width: int = 80, entries: int = 2) -> None:
        names = [f"e{number}" for number in range(entries)]
        self.entries = pd.DataFrame(
            {"entry_id": names, "woman_id": [f"w{n}" for n in names], "height": height, "width": width}
        )
        rows, cols = np.mgrid[:height, :width]
        self._image = (256 * rows + cols).astype(np.uint16)
        self._mask = np.zeros((height, width), dtype=bool)
        self._mask[10:80, 0:60] = True
        self.windows_read = 0

    def image(self, entry_id: str, side: str) -> NDArray[np.uint16]:
        return self._image + (side == "right")

    def mask(self, entry_id: str, side: str) -> NDArray[np.bool_]:
        return self._mask

    def window(self, entry_id: str, side: str, row: int, col: int, height: int, width: int) -> NDArray[np.uint16]:
        self.windows_read += 1
        return self.image(entry_id, side)[row : row + height, col : col + width]

    def normalization(self, entry_id: str) -> dict[str, tuple[float, float]]:
        return {"left": (0.1, 0.5), "right": (0.3, 0.25)}


def fake(**sizes: int) -> Any:
    return FakeStore(**sizes)


def config(*words: str) -> Config:
    return compose("pretrain", ["pairs.patch_pixels=16", *words])


@given(hnp.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20))), st.integers(1, 8))
def test_tissue_share_is_the_mean_of_the_mask_in_every_window(mask: NDArray[np.bool_], side: int) -> None:
    share = tissue_share(mask, side)
    rows, cols = max(0, mask.shape[0] - side + 1), max(0, mask.shape[1] - side + 1)
    if rows == 0 or cols == 0:
        assert share.size == 0
        return
    assert share.shape == (rows, cols)
    slow = [[mask[r : r + side, c : c + side].mean() for c in range(cols)] for r in range(rows)]
    np.testing.assert_allclose(share, slow)


@pytest.mark.parametrize("placement", ["grid", "sampled"])
def test_every_pair_has_the_tissue_asked_for_and_lies_in_the_image(placement: str) -> None:
    store = fake()
    pairs = place_pairs(store, config(f"pairs.placement={placement}", "pairs.minimum_tissue=0.7"), {"we0", "we1"})
    assert len(pairs) > 10
    mask = store.mask("e0", "left")
    for pair in pairs.itertuples():
        window = mask[pair.row : pair.row + 16, pair.col : pair.col + 16]
        assert window.shape == (16, 16)
        assert window.mean() >= 0.7
        assert window.mean() == pytest.approx(pair.tissue)


def test_sampled_places_of_a_woman_do_not_depend_on_the_other_women() -> None:
    settings = config("pairs.placement=sampled", "pairs.per_exam_view=5")
    alone = place_pairs(fake(), settings, {"we1"})
    together = place_pairs(fake(), settings, {"we0", "we1"})
    pd.testing.assert_frame_equal(alone, together[together.woman_id == "we1"].reset_index(drop=True))


def test_a_patch_that_fits_nowhere_is_an_error_that_names_the_option() -> None:
    with pytest.raises(UserError, match=r"pairs\.patch_pixels=90"):
        place_pairs(fake(), config("pairs.patch_pixels=90"), {"we0"})


def test_a_patch_in_mm_has_its_size_at_the_spacing_of_the_store() -> None:
    assert patch_side(config("pairs.patch_mm=25.6", "preparation.spacing_mm=0.4")) == 64


@pytest.mark.parametrize("cache_mb", [0, 100])
@pytest.mark.parametrize("context", [0, 5])
def test_both_sides_are_cut_at_the_place_and_standardized(cache_mb: int, context: int) -> None:
    store = fake()
    cutter = PairCutter(store, PairsConfig(cache_mb=cache_mb))
    samples = pd.DataFrame({"entry_id": ["e0", "e1"], "row": [20, 33], "col": [7, 41]})
    cut = cutter(samples, 16, context)
    assert cut.shape == (2, 2, 16 + 2 * context, 16 + 2 * context)
    for number, (row, col) in enumerate([(20, 7), (33, 41)]):
        for side, (name, mean, deviation) in enumerate([("left", 0.1, 0.5), ("right", 0.3, 0.25)]):
            area = np.s_[row - context : row + 16 + context, col - context : col + 16 + context]
            pixels = store.image("", name)[area].astype(float)
            np.testing.assert_allclose(cut[number, side], (pixels / 65535 - mean) / deviation, atol=1e-4)
    assert (store.windows_read > 0) == (cache_mb == 0)


def test_beyond_the_image_is_black() -> None:
    cut = PairCutter(fake(), PairsConfig())(pd.DataFrame({"entry_id": ["e0"], "row": [-10], "col": [-10]}), 16)
    np.testing.assert_allclose(cut[0, 0, :10, :], -0.1 / 0.5)
    assert cut[0, 0, 10, 10] == pytest.approx((0 / 65535 - 0.1) / 0.5)


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_a_background_of_the_mean_is_zero_on_both_sides_where_either_has_no_tissue(cache_mb: int) -> None:
    store = fake()
    right = np.zeros_like(store._mask)
    right[12:80, 5:60] = True
    store.mask = lambda _entry, side: right if side == "right" else store._mask
    places = pd.DataFrame({"entry_id": ["e0"] * 4, "row": [-4, 30, 70, 5], "col": [-4, 20, 52, 0]})
    film, mean = (
        PairCutter(store, PairsConfig(cache_mb=cache_mb, background=background))(places, 16, 2)
        for background in ("film", "mean")
    )
    common = np.pad(store._mask & right, 40)
    for number, (row, col) in enumerate(places[["row", "col"]].itertuples(index=False)):
        tissue = common[row + 38 : row + 58, col + 38 : col + 58]
        np.testing.assert_array_equal(mean[number], np.where(tissue, film[number], 0))
    # All of them: at the corner, inside, at the lower right end, at the edge where the sides differ.
    assert [(patch == 0).all(axis=0).mean() > 0 for patch in mean] == [True, False, True, True]


def test_pair_normalization_keeps_the_difference_between_the_sides() -> None:
    cutter = PairCutter(fake(), PairsConfig(normalization="pair"))
    cut = cutter(pd.DataFrame({"entry_id": ["e0"], "row": [20], "col": [7]}), 16)
    np.testing.assert_allclose(cut[0, 1] - cut[0, 0], (1 / 65535) / np.sqrt((0.25 + 0.0625) / 2 + 0.04 / 4), rtol=0.05)


@given(st.integers(0, 1000))
def test_augmentation_moves_both_sides_alike(seed: int) -> None:
    still = AugmentationConfig(brightness=0, contrast=0, noise=0)
    context = augmentation_context(32, still)
    generator = torch.Generator().manual_seed(seed)
    one = torch.rand((3, 1, 32 + 2 * context, 32 + 2 * context), generator=generator)
    patches = augment(one.repeat(1, 2, 1, 1), 32, still, generator)
    assert patches.shape == (3, 2, 32, 32)
    torch.testing.assert_close(patches[:, 0], patches[:, 1])


def test_augmentation_changes_the_intensity_of_each_side_on_its_own() -> None:
    only = AugmentationConfig(flip=False, rotation_degrees=0, crop_scale=1, shift_share=0, noise=0)
    windows = torch.rand((64, 1, 32, 32), generator=torch.Generator().manual_seed(0)).repeat(1, 2, 1, 1)
    patches = augment(windows, 32, only, torch.Generator().manual_seed(1))
    assert (patches[:, 0] - patches[:, 1]).abs().amax(dim=(1, 2)).min() > 1e-3
    for patch, window in zip(patches.flatten(0, 1), windows.flatten(0, 1), strict=True):
        slope, offset = np.polyfit(window.flatten().numpy(), patch.flatten().numpy(), 1)
        assert 0.7 <= slope <= 1.3
        assert -0.3 <= offset <= 0.3


def test_augmentation_of_nothing_returns_the_patch() -> None:
    none = AugmentationConfig(
        flip=False, rotation_degrees=0, crop_scale=1, shift_share=0, brightness=0, contrast=0, noise=0
    )
    assert augmentation_context(32, none) == 0
    windows = torch.rand((4, 2, 32, 32))
    torch.testing.assert_close(augment(windows, 32, none, torch.Generator()), windows, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_rotation_shift_and_scale_stay_within_the_context(scale: float) -> None:
    most = AugmentationConfig(brightness=0, contrast=0, noise=0, crop_scale=scale, greatest_scale=scale)
    side, context = 32, augmentation_context(32, most)
    # The window's rim is a value no real pixel has: it must never be seen.
    windows = torch.zeros((500, 2, side + 2 * context + 2, side + 2 * context + 2))
    windows[:, :, 0], windows[:, :, -1], windows[:, :, :, 0], windows[:, :, :, -1] = 9, 9, 9, 9
    patches = augment(windows, side, most, torch.Generator().manual_seed(0))
    assert patches.abs().max() == 0


def test_a_scale_of_two_shows_twice_as_much_of_the_breast() -> None:
    still = {"rotation_degrees": 0.0, "shift_share": 0.0, "brightness": 0.0, "contrast": 0.0, "noise": 0.0}
    far = AugmentationConfig(flip=False, crop_scale=1.0, greatest_scale=2.0, **still)
    side, context = 32, augmentation_context(32, far)
    ramp = torch.arange(side + 2 * context).float().expand(64, 2, side + 2 * context, -1)
    patches = augment(ramp, side, far, torch.Generator().manual_seed(0))
    steps = (patches[:, 0, 0, -1] - patches[:, 0, 0, 0]) / (side - 1)
    assert 1 <= steps.min() < 1.1
    assert 1.9 < steps.max() <= 2
    torch.testing.assert_close(patches.mean(dim=(2, 3)), ramp.mean(dim=(2, 3)), atol=0.01, rtol=0)


def test_every_batch_may_have_a_seed_of_its_own() -> None:
    cutter = PairCutter(fake(), PairsConfig())
    batches = [pd.DataFrame({"entry_id": ["e0"], "row": [20], "col": [7]}) for _ in range(3)]
    patches = list(pair_batches(cutter, batches, 16, AugmentationConfig(), [5, 6, 5]))
    assert torch.equal(patches[0], patches[2])
    assert not torch.equal(patches[0], patches[1])


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=40), st.integers(0, 5))
def test_shuffled_partners_are_of_other_women_and_used_once(women: list[str], seed: int) -> None:
    pairs = pd.DataFrame({"woman_id": women})
    if max(women.count(woman) for woman in set(women)) * 2 > len(women):
        with pytest.raises(UserError, match="shuffled"):
            shuffle_partners(pairs, seed)
        return
    partners = shuffle_partners(pairs, seed)
    assert sorted(partners) == list(range(len(women)))
    assert all(women[partner] != woman for woman, partner in zip(women, partners, strict=True))


def test_batches_come_in_order_and_take_the_right_side_from_the_partner() -> None:
    store = fake()
    cutter = PairCutter(store, PairsConfig())
    batch = pd.DataFrame({"entry_id": ["e0"], "row": [20], "col": [7]})
    shuffled = batch.assign(partner_entry_id="e1", partner_row=40, partner_col=9)
    plain, mixed = pair_batches(cutter, [batch, shuffled], 16, None, seed=0)
    elsewhere = cutter(pd.DataFrame({"entry_id": ["e1"], "row": [40], "col": [9]}), 16)
    np.testing.assert_array_equal(plain.numpy(), cutter(batch, 16))
    np.testing.assert_array_equal(mixed[:, 0].numpy(), plain[:, 0].numpy())
    np.testing.assert_array_equal(mixed[:, 1].numpy(), elsewhere[:, 1])


def test_an_error_while_cutting_reaches_the_training() -> None:
    cutter = PairCutter(fake(), PairsConfig())
    with pytest.raises(KeyError):
        list(pair_batches(cutter, [pd.DataFrame({"entry_id": ["nobody"], "row": [0], "col": [0]})], 16, None, seed=0))


def test_same_seed_same_batches(tmp_path: Path) -> None:
    cutter = PairCutter(fake(), PairsConfig())
    batch = pd.DataFrame({"entry_id": ["e0", "e1"], "row": [20, 30], "col": [7, 8]})
    first, again, other = (
        next(iter(pair_batches(cutter, [batch], 16, AugmentationConfig(), seed))) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
