"""Drawn masses: bright, compact, inside the patch, and as strong as their labels say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from siamray.config import MassesConfig
from siamray.pretraining.masses import LEAST_STRENGTH, draw_masses, mass_profiles


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
