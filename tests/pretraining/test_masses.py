"""Drawn masses: bright, compact, inside the patch, and as strong as their labels say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure

from siamray.config import MassesConfig
from siamray.pretraining.masses import (
    GREATEST_SPECKS,
    LEAST_SPECKS,
    LEAST_STRENGTH,
    SPECK_BRIGHTNESS,
    cluster_profiles,
    draw_masses,
    mass_profiles,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([32, 48, 64]))
def test_a_mass_only_brightens_and_by_no_more_than_its_label(seed, side):
    patches = torch.randn(8, 1, side, side, generator=generator(seed))
    config = MassesConfig()
    changed, strengths = draw_masses(patches, config, generator(seed))
    added = (changed - patches).flatten(1)
    assert (added >= -1e-6).all()
    assert (added.amax(1) <= config.contrast * strengths + 1e-5).all()
    assert (added.amax(1) > 0.5 * config.contrast * strengths).all()
    assert ((strengths >= LEAST_STRENGTH) & (strengths <= 1)).all()


def test_radii_and_places_are_those_of_the_options():
    config = MassesConfig(least_radius_share=0.2, greatest_radius_share=0.2, centre_share=0.0)
    profiles = mass_profiles(300, 64, config, generator(0))[:, 0].double().numpy()
    rows = np.arange(64) + 0.5
    share = profiles / profiles.sum((1, 2), keepdims=True)
    for axis in (1, 2):
        assert (share.sum(3 - axis) @ rows) == pytest.approx(np.full(300, 32), abs=0.1)
    # The half-height area is that of the circle: the axes' product is its squared radius.
    assert (profiles > 0.5).sum((1, 2)) == pytest.approx(np.full(300, np.pi * (0.2 * 64) ** 2), rel=0.03)


def test_the_same_generator_draws_the_same_masses_and_patches_are_left_alone():
    patches = torch.randn(4, 1, 32, 32, generator=generator(1))
    before = patches.clone()
    first, again = (draw_masses(patches, MassesConfig(), generator(3)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], draw_masses(patches, MassesConfig(), generator(4))[0])
    assert torch.equal(patches, before)


def test_a_cluster_is_of_several_small_specks_inside_its_radius():
    config = MassesConfig(least_radius_share=0.25, greatest_radius_share=0.25, centre_share=0.0)
    profiles = cluster_profiles(400, 64, config, generator(0))[:, 0].double().numpy()
    assert profiles.min() >= 0
    assert profiles.max() <= SPECK_BRIGHTNESS + 1e-6
    # The brightest speck of each cluster has its full brightness, but for lying between pixels.
    assert np.quantile(profiles.max(axis=(1, 2)), 0.05) > 0.5 * SPECK_BRIGHTNESS
    specks = [measure.label(profile > 0.05 * SPECK_BRIGHTNESS).max() for profile in profiles]
    # Specks may touch, or be too narrow to fall onto a pixel, but there is never one too many.
    assert max(specks) <= GREATEST_SPECKS
    assert np.median(specks) >= LEAST_SPECKS
    # Two standard deviations of the specks are the radius.
    offsets = np.arange(64) + 0.5 - 32
    spread = np.sqrt((profiles * offsets**2).sum() / profiles.sum())
    assert spread == pytest.approx(0.25 * 64 / 2, rel=0.1)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_share_of_clusters_is_that_of_the_option(share: float):
    patches = torch.zeros(600, 1, 64, 64)
    changed, _ = draw_masses(patches, MassesConfig(cluster_share=share), generator(0))
    # Specks are narrow: their brightness falls by half within three pixels, that of the least mass does not.
    filled = (changed > 0.5 * changed.amax((2, 3), keepdim=True)).flatten(1)
    centre = changed.flatten(1).argmax(1)
    around = torch.stack([filled.gather(1, (centre + step).clamp(0, 64 * 64 - 1)[:, None])[:, 0] for step in (-4, 4)])
    clustered = (~around).all(0).double().mean().item()
    assert clustered == pytest.approx(share, abs=0.15)
