"""registration.py: known deformations are found again, finer kinds fit better, and failures fall back."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamray.config import RegistrationConfig
from siamray.data import registration
from siamray.data.geometry import Geometry, Spline, Transform, resample, resample_mask
from siamray.data.registration import KINDS, Registration, judge, register
from tests.benchmarks import registration_kinds
from tests.benchmarks.registration_kinds import Pair, film_pairs, measure, phantom_pairs, polygon_area

MINI_MIAS = Path(__file__).resolve().parents[3] / "shared" / "data" / "mini-mias"
SPACING = 0.8
SHAPE = (230, 150)
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def breast() -> tuple[Floats, Bools]:
    """A textured half ellipse with its chest wall at the left, 184 by 120 mm."""
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = ((rows - 115) / 95) ** 2 + (cols / (110 + 12 * np.sin(rows / 40))) ** 2 < 1
    texture = 0.5 + 0.15 * np.sin(rows / 19 + 1) * np.cos(cols / 23) + 0.1 * np.sin(cols / 31 - rows / 27)
    return np.where(inside, texture, 0).astype(np.float32), inside


def moved(transform: Transform) -> tuple[Floats, Bools]:
    """The breast as another film would show it: its place x lies at the fixed breast's transform(x)."""
    pixels, mask = breast()
    geometry = Geometry(False, SHAPE[1], (0, 0), SPACING, SPACING, (0.0, 0.0), transform)
    return resample(pixels, geometry, SHAPE), resample_mask(mask, geometry, SHAPE)


def run(kind: str, transform: Transform) -> Registration:
    fixed, fixed_mask = breast()
    moving, moving_mask = moved(transform)
    return register(fixed, moving, fixed_mask, moving_mask, SPACING, RegistrationConfig(kind=kind))


def mean_error(found: Registration, transform: Transform) -> float:
    """Mean distance in mm between where the breast's places are and where they are said to be."""
    rows, cols = np.nonzero(breast()[1])
    places = (np.stack([rows, cols], axis=1)[::50] + 0.5) * SPACING
    return float(np.linalg.norm(transform.forward(found.transform.forward(places)) - places, axis=1).mean())


BENT = Transform(
    ((1.03, 0.02), (-0.02, 0.98)),
    (3.0, -2.0),
    Spline((-80.0, -80.0), (40.0, 40.0), np.random.default_rng(3).uniform(-6, 6, (10, 9, 2))),
)


@pytest.mark.parametrize("shift", [(12.0, 0.0), (-8.0, 2.0)])
def test_a_shift_is_found_by_the_centroid(shift: tuple[float, float]) -> None:
    found = run("centroid", Transform(offset=shift))
    assert found.kind == "centroid"
    assert mean_error(found, Transform(offset=shift)) < 3
    assert found.dice > 0.95


@pytest.mark.parametrize(
    "matrix", [((1.08, 0.0), (0.0, 0.93)), ((1.0, 0.08), (-0.05, 1.0)), ((0.97, -0.03), (0.03, 1.03))]
)
def test_an_affine_deformation_is_found(matrix: tuple[tuple[float, float], tuple[float, float]]) -> None:
    transform = Transform(matrix, (-4.0, 1.0))
    found = run("affine", transform)
    assert found.kind == "affine"
    assert not found.fell_back
    # Not nearer: where the film's edge cuts the breast its outline is not anatomy, and pulls.
    assert mean_error(found, transform) < 2.5
    assert found.dice > 0.98
    assert found.correlation > 0.97


def test_a_finer_kind_fits_a_bent_breast_better() -> None:
    found = {kind: run(kind, BENT) for kind in registration.KINDS}
    errors = [mean_error(found[kind], BENT) for kind in ("centroid", "affine", "bspline")]
    assert found["bspline"].kind == "bspline"
    assert errors[0] > errors[1] > errors[2]
    assert found["none"].dice < found["affine"].dice <= found["bspline"].dice + 0.005
    assert found["none"].transform == Transform()
    assert found["none"].quality < found["centroid"].quality < found["affine"].quality


def test_a_lesion_in_one_breast_keeps_its_size_under_the_bspline() -> None:
    fixed, fixed_mask = breast()
    moving, moving_mask = moved(BENT)
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    moving = np.clip(moving + 0.4 * (((rows - 110) ** 2 + (cols - 45) ** 2) < 10**2), 0, 1).astype(np.float32)
    found = register(fixed, moving, fixed_mask, moving_mask, SPACING, RegistrationConfig(kind="bspline"))
    edge = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circle = (np.stack([110 + 10 * np.sin(edge), 45 + 10 * np.cos(edge)], axis=1) + 0.5) * SPACING
    carried = found.transform.inverse(circle)
    assert found.kind == "bspline"
    assert 0.8 < polygon_area(carried) / polygon_area(circle) < 1.25


@pytest.mark.parametrize("factor", [1.1, 1.25])
def test_the_bspline_changes_no_area_by_more_than_its_factor(factor: float) -> None:
    fixed, fixed_mask = breast()
    moving, moving_mask = moved(BENT)
    config = RegistrationConfig(kind="bspline", bspline_area_factor=factor)
    found = register(fixed, moving, fixed_mask, moving_mask, SPACING, config)
    affine = abs(np.linalg.det(np.asarray(found.transform.matrix)))
    rows, cols = np.nonzero(fixed_mask)
    places = (np.stack([rows, cols], axis=1)[::97] + 0.5) * SPACING
    steps = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    areas = [polygon_area(found.transform.forward(place + steps)) / 4 for place in places]
    assert min(areas) > min(1 / factor, affine) - 0.01
    assert max(areas) < max(factor, affine) + 0.01


def test_a_spline_that_cannot_be_weakened_enough_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "TAMING", ())
    found = run("bspline", BENT)
    assert found.kind == "affine"
    assert found.fell_back


@pytest.fixture(scope="module")
def phantoms() -> list[Pair]:
    return list(phantom_pairs(3))


def test_each_finer_kind_finds_the_same_anatomy_nearer_in_phantoms(phantoms: list[Pair]) -> None:
    errors = [np.mean([measure(pair, RegistrationConfig(kind=kind)).error for pair in phantoms]) for kind in KINDS]
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[2] < 4


@pytest.mark.parametrize("kind", ["affine", "bspline"])
def test_lesions_of_phantoms_survive(kind: str, phantoms: list[Pair]) -> None:
    outcomes = [measure(pair, RegistrationConfig(kind=kind)) for pair in phantoms]
    areas = [area for outcome in outcomes for area in outcome.areas]
    contrasts = [contrast for outcome in outcomes for contrast in outcome.contrasts if np.isfinite(contrast)]
    assert areas
    assert all(0.8 <= area <= 1.25 for area in areas)
    assert all(contrast > 0.9 for contrast in contrasts)


def test_quality_is_lower_for_wrong_pairs(phantoms: list[Pair]) -> None:
    found = registration_kinds.wrong_qualities(phantoms, RegistrationConfig())
    right = found.pop("right")
    limit = RegistrationConfig().minimum_quality
    assert min(right) > 2 * limit
    assert max(found[f"shifted by {registration_kinds.OFF_MM:.0f} mm"]) < limit
    assert all(np.median(wrong) < min(right) for wrong in found.values())


@settings(max_examples=8, deadline=None)
@given(down=st.floats(-150, 150), right=st.floats(-150, 150))
def test_quality_never_exceeds_overlap_and_lies_between_0_and_1(down: float, right: float) -> None:
    pixels, mask = breast()
    found = judge(Transform(offset=(down, right)), pixels, pixels, mask, mask, SPACING, RegistrationConfig())
    assert 0 <= found.quality <= max(found.dice, 0) + 1e-9
    assert found.quality <= 1


def test_an_image_fits_itself_perfectly() -> None:
    pixels, mask = breast()
    found = judge(Transform(), pixels, pixels, mask, mask, SPACING, RegistrationConfig())
    assert found.quality == pytest.approx(1, abs=1e-3)
    assert found.outline_mm == pytest.approx(0, abs=1e-3)


@pytest.mark.skipif(not MINI_MIAS.is_dir(), reason="the mini-MIAS images are not there")
def test_pairs_of_mini_mias_are_good_enough_and_their_lesions_survive() -> None:
    outcomes = [measure(pair, RegistrationConfig(kind="bspline")) for pair in list(film_pairs(MINI_MIAS, 6))]
    assert min(outcome.found.quality for outcome in outcomes) > RegistrationConfig().minimum_quality
    areas = [area for outcome in outcomes for area in outcome.areas]
    assert areas
    assert all(0.75 < area < 1.3 for area in areas)


@pytest.mark.parametrize("kind", ["affine", "bspline"])
def test_the_same_images_give_the_same_transform(kind: str) -> None:
    one, two = run(kind, BENT), run(kind, BENT)
    assert one.transform.to_dict() == two.transform.to_dict()


@pytest.mark.parametrize(
    "failure",
    [
        None,  # the search gave up
        Transform(((3.0, 0.0), (0.0, 3.0))),  # areas change ninefold
        Transform(((-1.0, 0.0), (0.0, 1.0))),  # mirrored
        Transform(offset=(60.0, 40.0)),  # less overlap
    ],
)
def test_a_failed_search_falls_back_to_the_simpler_kind(
    failure: Transform | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "_affine", lambda *_: failure)
    found = run("affine", Transform(offset=(12.0, 0.0)))
    assert found.kind == "centroid"
    assert found.fell_back
    assert found.dice > 0.95


def test_breasts_of_different_fields_of_view_are_registered_without_failing() -> None:
    fixed, fixed_mask = breast()
    found = register(
        fixed, fixed[60:200, :90], fixed_mask, fixed_mask[60:200, :90], SPACING, RegistrationConfig(kind="bspline")
    )
    assert 0 < found.dice <= 1
    assert np.isfinite(found.correlation)


def test_a_flat_image_is_registered_by_its_outline() -> None:
    _, mask = breast()
    flat = np.where(mask, 0.5, 0).astype(np.float32)
    found = register(flat, flat[10:], mask, mask[10:], SPACING, RegistrationConfig(kind="affine"))
    assert found.dice > 0.97
    assert found.correlation == pytest.approx(0, abs=1e-6) or found.correlation > 0
    assert found.quality > 0.8


def test_an_empty_mask_is_refused() -> None:
    fixed, mask = breast()
    with pytest.raises(ValueError, match="empty breast mask"):
        register(fixed, fixed, mask, np.zeros_like(mask), SPACING, RegistrationConfig())
