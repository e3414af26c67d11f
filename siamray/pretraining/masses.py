"""Patches go in; the same with a drawn mass in each, and how strong it is, come out: pairs that surely differ."""

import math

import torch
from torch import Tensor

from siamray.config import MassesConfig

# Least strength of a mass as a share of the greatest: one that cannot be seen would teach nothing.
LEAST_STRENGTH = 0.1
# Ratio of an ellipse's axes to the circle of the same area, at most 1 / LEAST_ASPECT the other way round.
LEAST_ASPECT, GREATEST_ASPECT = 0.7, 1.3
# Width of a mass's edge, from full to nothing, as a share of its radius: from sharp to ill-defined.
LEAST_EDGE, GREATEST_EDGE = 0.15, 0.65


def mass_profiles(count: int, side: int, config: MassesConfig, generator: torch.Generator) -> Tensor:
    """Draws ellipses with soft edges, each at a random place in the middle of a patch (ours).

    The profile is a logistic function of the distance to the ellipse's outline, as the brightness of a mass falls over
    its edge in a projection.

    Args:
        count: number of profiles N.
        side: patch side P in pixels.
        config: radii and the part of the patch the centres lie in.
        generator: source of all randomness.

    Returns:
        [N, 1, P, P] in 0..1.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((count, 1, 1), generator=generator)

    margin = (1 - config.centre_share) / 2
    rows, cols = (uniform(margin * side, (1 - margin) * side) for _ in range(2))
    radius = uniform(config.least_radius_share, config.greatest_radius_share) * side
    aspect, angle = uniform(LEAST_ASPECT, GREATEST_ASPECT), uniform(0, math.pi)
    edge = uniform(LEAST_EDGE, GREATEST_EDGE)
    down, right = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    y, x = down - rows, right - cols
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    distance = ((along * aspect).square() + (across / aspect).square()).sqrt() / radius
    # Three times steeper, so that the logistic function falls from 0.95 to 0.05 over twice the edge's half width.
    return torch.sigmoid(3 * (1 - distance) / edge)[:, None]


def draw_masses(patches: Tensor, config: MassesConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Adds a bright mass to every patch: a pair of a patch and its changed self surely differs, by a known strength.

    Synthetic anomalies as in CutPaste (Li 2021) and foreign patch interpolation (Tan 2020), whose label is the share
    of what was mixed in as well; a mass is added instead, as tissue adds up in a projection. No annotation is used,
    but the knowledge is that lesions are bright and compact.

    Args:
        patches: [N, 1, P, P], in standard deviations of the tissue.
        config: contrast, radii, place.
        generator: source of all randomness, on the CPU.

    Returns:
        The changed patches [N, 1, P, P], and the strengths [N] in LEAST_STRENGTH..1, their soft labels.
    """
    count, side = len(patches), patches.shape[-1]
    profiles = mass_profiles(count, side, config, generator).to(patches)
    strengths = LEAST_STRENGTH + (1 - LEAST_STRENGTH) * torch.rand(count, generator=generator).to(patches)
    return patches + config.contrast * strengths[:, None, None, None] * profiles, strengths
