"""Patches go in; the same with a drawn mass in each, and how strong it is, come out: pairs that surely differ."""

import math
from functools import partial

import torch
from torch import Tensor

from siamray.config import MassesConfig

# Least strength of a mass as a share of the greatest: one that cannot be seen would teach nothing.
LEAST_STRENGTH = 0.1
# Ratio of an ellipse's axes to the circle of the same area, at most 1 / LEAST_ASPECT the other way round.
LEAST_ASPECT, GREATEST_ASPECT = 0.7, 1.3
# Width of a mass's edge, from full to nothing, as a share of its radius: from sharp to ill-defined.
LEAST_EDGE, GREATEST_EDGE = 0.15, 0.65
# Calcifications of a cluster, and the deviation of each Gaussian in pixels: at 0.4 mm they are about a pixel wide.
LEAST_SPECKS, GREATEST_SPECKS = 4, 20
LEAST_SPECK_PIXELS, GREATEST_SPECK_PIXELS = 0.5, 1.3
# Peak of the brightest calcification as a share of a mass's of the same strength: mini-MIAS's are as faint at 0.4 mm.
SPECK_BRIGHTNESS = 0.6


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
    uniform = partial(_uniform, (count, 1, 1), generator)
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


def cluster_profiles(count: int, side: int, config: MassesConfig, generator: torch.Generator) -> Tensor:
    """Draws clusters of calcifications: Gaussian specks, normally spread around a random place of a patch (ours).

    Args:
        count: number of profiles N.
        side: patch side P in pixels.
        config: the radii, here of a cluster (two standard deviations of its specks), and the part the centres lie in.
        generator: source of all randomness.

    Returns:
        [N, 1, P, P] in 0..SPECK_BRIGHTNESS; specks of a cluster differ in brightness, and the brightest has it all.
    """
    each, speck = (partial(_uniform, shape, generator) for shape in ((count, 1), (count, GREATEST_SPECKS)))
    margin = (1 - config.centre_share) / 2
    spread = each(config.least_radius_share, config.greatest_radius_share) * side / 2
    number = torch.randint(LEAST_SPECKS, GREATEST_SPECKS + 1, (count, 1), generator=generator)
    lines = []
    widths = speck(LEAST_SPECK_PIXELS, GREATEST_SPECK_PIXELS)
    for _ in range(2):
        centre = each(margin * side, (1 - margin) * side)
        places = centre + spread * torch.randn((count, GREATEST_SPECKS), generator=generator)
        offsets = torch.arange(side) + 0.5 - places[..., None]
        lines.append(torch.exp(-0.5 * (offsets / widths[..., None]).square()))
    brightness = speck(0.3, 1.0)
    brightness[:, 0] = 1.0
    brightness = brightness * (torch.arange(GREATEST_SPECKS) < number)
    drawn = torch.einsum("ns,nsr,nsc->nrc", brightness, *lines)
    return SPECK_BRIGHTNESS * drawn.clamp(max=1.0)[:, None]


def _uniform(shape: tuple[int, ...], generator: torch.Generator, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


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
    profiles = mass_profiles(count, side, config, generator)
    if config.cluster_share > 0:
        clustered = torch.rand(count, generator=generator) < config.cluster_share
        profiles[clustered] = cluster_profiles(count, side, config, generator)[clustered]
    profiles = profiles.to(patches)
    strengths = LEAST_STRENGTH + (1 - LEAST_STRENGTH) * torch.rand(count, generator=generator).to(patches)
    return patches + config.contrast * strengths[:, None, None, None] * profiles, strengths
