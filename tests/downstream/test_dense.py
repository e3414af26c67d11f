"""Encoding all windows of an image at once: against patch by patch, and against the trunk as it is."""

import numpy as np
import pytest
import torch
from torch import nn

from siamray.config import Config, EncoderConfig
from siamray.data.pairs import PairCutter
from siamray.data.store import Store
from siamray.downstream.candidates import measure
from siamray.downstream.dense import WindowEncoder, map_shape, ways_agree
from siamray.pretraining import encoder
from siamray.pretraining.encoder import PairEncoder
from tests.downstream.mean_brightness import mean_brightness

SIDE = 64


def image(height: int = 230, width: int = 198) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((height, width)).astype(np.float32)


def windows(network: PairEncoder, pixels: np.ndarray, step: int, way: str = "dense", side: int = SIDE) -> np.ndarray:
    shape = map_shape(*pixels.shape, side, step)
    features, _ = WindowEncoder(network, side, step, way)(pixels, np.ones(shape, dtype=bool))
    return features.reshape(*shape, -1)


@pytest.mark.parametrize("step", [4, 16, 32, 64])
def test_both_ways_give_the_same_where_the_trunk_does_not_pad(step: int) -> None:
    pixels = image()
    dense, patchwise = (windows(mean_brightness(), pixels, step, way) for way in ("dense", "patchwise"))
    assert dense.shape == (*map_shape(*pixels.shape, SIDE, step), 1)
    np.testing.assert_allclose(dense, patchwise, atol=1e-5)
    assert dense[1, 2, 0] == pytest.approx(pixels[step : step + SIDE, 2 * step : 2 * step + SIDE].mean(), abs=1e-5)


@pytest.mark.parametrize("backbone", ["resnet10t", "resnet18", "resnet50", "regnetx_002"])
def test_finer_steps_hold_the_windows_of_the_trunk_as_it_is(backbone: str) -> None:
    network = encoder.build(EncoderConfig(backbone=backbone), 0, SIDE).eval()
    pixels = image(224, 192)
    with torch.inference_mode():
        cells = network.trunk.forward_features(torch.from_numpy(pixels)[None, None])[0].numpy()
    untouched = (cells[:, :-1, :-1] + cells[:, 1:, :-1] + cells[:, :-1, 1:] + cells[:, 1:, 1:]) / 4
    for step in (8, 16, 32):
        found = windows(network, pixels, step)[:: 32 // step, :: 32 // step]
        np.testing.assert_allclose(found.transpose(2, 0, 1), untouched, atol=1e-5)


@pytest.mark.parametrize("backbone", ["resnet10t", "resnet18"])
def test_the_distance_map_keeps_the_order_of_the_patchwise_one(
    backbone: str, tiny_store: Store, tiny_config: Config
) -> None:
    network = encoder.build(EncoderConfig(backbone=backbone), 0, SIDE).eval()
    cutter = PairCutter(tiny_store, tiny_config.pairs)
    entry = str(tiny_store.entries.entry_id.iloc[0])
    dense, patchwise = (
        measure(WindowEncoder(network, SIDE, 8, way), network, tiny_store, cutter, entry, 0.5).distance
        for way in ("dense", "patchwise")
    )
    assert np.array_equal(np.isnan(dense), np.isnan(patchwise))
    assert ways_agree(dense, patchwise)["rank_correlation"] > 0.8


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [("vit_tiny_patch16_224", "LayerNorm"), ("mobilenetv3_small_050", "mean of the whole image")],
)
def test_a_trunk_that_looks_at_the_whole_image_is_run_patch_by_patch_and_says_why(backbone: str, reason: str) -> None:
    network = encoder.build(EncoderConfig(backbone=backbone), 0, SIDE).eval()
    asked = WindowEncoder(network, SIDE, 32)
    assert asked.way == "patchwise"
    assert reason in asked.reason
    pixels = image(100, 100)
    np.testing.assert_array_equal(windows(network, pixels, 32), windows(network, pixels, 32, "patchwise"))


def test_only_wanted_windows_are_given_and_the_encoder_stays_as_it_is() -> None:
    network = encoder.build(EncoderConfig(), 0, SIDE)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pixels = image()
    wanted = np.zeros(map_shape(*pixels.shape, SIDE, 16), dtype=bool)
    wanted[3, 4] = wanted[7, 1] = True
    features, embeddings = WindowEncoder(network, SIDE, 16)(pixels, wanted)
    np.testing.assert_allclose(features, windows(network, pixels, 16)[wanted], atol=1e-6)
    assert embeddings.shape == (2, EncoderConfig().projector_features)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(isinstance(module, nn.Conv2d) and module.dilation != (1, 1) for module in network.modules())


def test_an_image_smaller_than_a_window_has_none() -> None:
    assert map_shape(SIDE - 1, 500, SIDE, 16)[0] == 0
    features, _ = WindowEncoder(mean_brightness(), SIDE, 16)(image(100, 70)[:SIDE], np.zeros((1, 1), dtype=bool))
    assert features.shape == (0, 1)
