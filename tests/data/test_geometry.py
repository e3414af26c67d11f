"""geometry.py: points, boxes and pixels reach the store and come back, whatever transform lies between."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from siamray.data.geometry import Geometry, Spline, Transform, clip_box, polygon_box, resample, resample_mask
from siamray.data.image import Blocks, LookedUp

small = st.floats(-0.15, 0.15)


@st.composite
def transforms(draw: st.DrawFn) -> Transform:
    matrix = ((1 + draw(small), draw(small)), (draw(small), 1 + draw(small)))
    offset = (draw(st.floats(-30, 30)), draw(st.floats(-30, 30)))
    kind = draw(st.sampled_from(["none", "centroid", "affine", "bspline"]))
    if kind == "none":
        return Transform()
    if kind == "centroid":
        return Transform(offset=offset)
    if kind == "affine":
        return Transform(matrix, offset)
    # Up to a quarter of the control points' distance, as far as registration lets them move.
    shifts = np.random.default_rng(draw(st.integers(0, 10_000))).uniform(-10, 10, (12, 11, 2))
    return Transform(matrix, offset, Spline((-120.0, -120.0), (40.0, 40.0), shifts))


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    return Geometry(
        mirrored=draw(st.booleans()),
        width=draw(st.integers(600, 3000)),
        crop=(draw(st.integers(0, 200)), draw(st.integers(0, 200))),
        spacing_mm=draw(st.floats(0.05, 0.3)),
        store_spacing_mm=draw(st.floats(0.1, 1)),
        store_origin=(draw(st.floats(-20, 0)), draw(st.floats(-20, 0))),
        transform=draw(transforms()),
    )


@settings(max_examples=150, deadline=None)
@given(
    geometry=geometries(),
    row=st.floats(0, 900),
    col=st.floats(0, 500),
    height=st.floats(1, 400),
    width=st.floats(1, 300),
)
def test_a_box_goes_to_the_store_and_back_within_a_pixel(
    geometry: Geometry, row: float, col: float, height: float, width: float
) -> None:
    box = (row, col, row + height, col + width)
    back = polygon_box(geometry.polygon_to_original(geometry.box_to_store(box)))
    assert np.allclose(back, box, atol=1)
    # A spline's inverse is iterative; all else is exact but for rounding.
    assert np.allclose(back, box, atol=0.01 if geometry.transform.spline else 1e-6)


@settings(max_examples=30, deadline=None)
@given(geometry=geometries())
def test_a_geometry_comes_back_from_json(geometry: Geometry) -> None:
    again = Geometry.from_dict(json.loads(json.dumps(geometry.to_dict())))
    places = np.random.default_rng(0).uniform(0, 400, (20, 2))
    assert np.array_equal(again.to_original(places), geometry.to_original(places))
    assert np.array_equal(again.to_store(places), geometry.to_store(places))


def test_a_box_is_half_open_edges_and_keeps_its_area() -> None:
    geometry = Geometry(mirrored=True, width=100, crop=(10, 20), spacing_mm=0.2, store_spacing_mm=0.4)
    # Columns 30..39 of a mirrored image 100 wide are columns 60..69, 40..49 of the crop, 20..24 of the store.
    assert polygon_box(geometry.box_to_store((10, 30, 30, 40))) == pytest.approx((0, 20, 10, 25))


def test_the_spline_is_the_one_of_simpleitk() -> None:
    image = sitk.Image(100, 140, sitk.sitkFloat32)
    transform = sitk.BSplineTransformInitializer(image, [3, 4], order=3)
    generator = np.random.default_rng(1)
    transform.SetParameters(generator.normal(0, 5, len(transform.GetParameters())).tolist())
    first, second = transform.GetCoefficientImages()
    origin, spacing = first.GetOrigin(), first.GetSpacing()
    ours = Spline(
        (origin[1], origin[0]),
        (spacing[1], spacing[0]),
        np.stack([sitk.GetArrayFromImage(second), sitk.GetArrayFromImage(first)], axis=-1).astype(np.float64),
    )
    places = generator.uniform(2, 97, (50, 2))
    theirs = [transform.TransformPoint((col, row))[::-1] for row, col in places.tolist()]
    assert np.allclose(places + ours.displacement(places), theirs, atol=1e-9)


def test_beyond_its_grid_a_spline_goes_on_as_at_its_edge() -> None:
    spline = Spline((0.0, 0.0), (10.0, 10.0), np.random.default_rng(2).uniform(-2, 2, (5, 6, 2)))
    beyond = np.array([[-50.0, 25.0], [500.0, 25.0], [25.0, -1.0], [25.0, 900.0], [900.0, 900.0]])
    edge = np.array([[10.0, 25.0], [30.0, 25.0], [25.0, 10.0], [25.0, 40.0], [30.0, 40.0]])
    assert np.array_equal(spline.displacement(beyond), spline.displacement(edge))
    assert np.allclose(spline.displacement(edge - 1e-9), spline.displacement(edge), atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1000), row=st.floats(-200, 600), col=st.floats(-200, 600), rows=st.integers(4, 9))
def test_a_bounded_spline_has_an_inverse_everywhere(seed: int, row: float, col: float, rows: int) -> None:
    shifts = np.random.default_rng(seed).uniform(-10, 10, (rows, 8, 2))
    transform = Transform(spline=Spline((-40.0, -40.0), (40.0, 40.0), shifts))
    place = np.array([[row, col]])
    assert np.allclose(transform.inverse(transform.forward(place)), place, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(geometry=geometries(), seed=st.integers(0, 100))
def test_pixels_and_points_go_the_same_way(geometry: Geometry, seed: int) -> None:
    """A bright blob of the original appears in the store where its centre is mapped to."""
    centre = np.random.default_rng(seed).uniform(60, 140, 2)
    height, width = 220, geometry.width
    rows, cols = np.mgrid[:height, :width]
    blob = np.exp(-((rows - centre[0]) ** 2 + (cols - centre[1]) ** 2) / (2 * 6**2)).astype(np.float32)
    place = geometry.to_store(centre[None])[0]
    # A store grid laid around the place, wherever it lies.
    corner = np.round(place).astype(int) - 40
    origin = np.asarray(geometry.store_origin) + corner * geometry.store_spacing_mm
    shifted = Geometry(
        geometry.mirrored,
        width,
        geometry.crop,
        geometry.spacing_mm,
        geometry.store_spacing_mm,
        (float(origin[0]), float(origin[1])),
        geometry.transform,
    )
    seen = resample(blob, shifted, (81, 81))
    total = seen.sum()
    if total < 1:  # the blob is finer than the store's pixels
        return
    found = np.array([(seen.sum(1) * np.arange(81)).sum(), (seen.sum(0) * np.arange(81)).sum()]) / total
    size = 6 * geometry.spacing_mm / geometry.store_spacing_mm
    # The centre of mass of a blob as wide as the window, or bent by a spline, is off by a share of its size.
    if size < 8:
        assert np.allclose(found, place - corner, atol=0.3 + 0.2 * size)


def test_sampling_down_shows_the_mean_of_what_is_too_fine() -> None:
    checks = (np.indices((240, 240)).sum(axis=0) % 2).astype(np.float32)
    geometry = Geometry(False, 240, (0, 0), 0.1, 0.4)
    inner = resample(checks, geometry, (60, 60))[3:-3, 3:-3]
    assert np.abs(inner - 0.5).max() < 0.02


def test_where_the_original_has_no_pixels_the_store_is_black_and_no_breast() -> None:
    pixels = np.ones((50, 50), dtype=np.float32)
    geometry = Geometry(False, 50, (0, 0), 0.2, 0.2, store_origin=(-2.0, -2.0))
    store = resample(pixels, geometry, (70, 70))
    assert store[:10].max() == 0
    assert store[:, 60:].max() == 0
    assert store[12:58, 12:58].min() > 0.99
    assert resample_mask(pixels > 0, geometry, (70, 70)).sum() == 2500


def test_resampling_far_away_gives_black() -> None:
    geometry = Geometry(False, 50, (0, 0), 0.2, 0.2, store_origin=(500.0, 0.0))
    assert resample(np.ones((50, 50), dtype=np.float32), geometry, (20, 20)).max() == 0


@given(st.tuples(*[st.floats(-100, 200)] * 2), st.tuples(*[st.floats(0.1, 100)] * 2))
def test_a_clipped_box_lies_in_the_image_or_is_none(corner: tuple[float, float], size: tuple[float, float]) -> None:
    box = (corner[0], corner[1], corner[0] + size[0], corner[1] + size[1])
    clipped = clip_box(box, (80, 60))
    if clipped is None:
        assert box[2] <= 0 or box[3] <= 0 or box[0] >= 80 or box[1] >= 60
    else:
        assert 0 <= clipped[0] < clipped[2] <= 80
        assert 0 <= clipped[1] < clipped[3] <= 60


def reference(pixels: np.ndarray, geometry: Geometry, shape: tuple[int, int]) -> np.ndarray:
    """What resample says it does, the slow way: all pixels smoothed, then sampled bilinearly."""
    sigma = max(0.0, (geometry.store_spacing_mm / geometry.spacing_mm - 1) / 2)
    smooth = ndimage.gaussian_filter(pixels.astype(np.float64), sigma, mode="nearest") if sigma else pixels
    places = geometry.to_original(np.indices(shape).reshape(2, -1).T.astype(np.float64)).T
    found = ndimage.map_coordinates(smooth, places, order=1, mode="nearest")
    for axis in (0, 1):
        found[(places[axis] < -0.5) | (places[axis] > pixels.shape[axis] - 0.5)] = 0
    return found.reshape(shape)


def edges() -> np.ndarray:
    """Black and white areas with sharp edges in all directions."""
    rows, cols = np.mgrid[:420, :300]
    return ((np.hypot(rows - 200, cols - 150) // 45) % 2).astype(np.float32)


TURNED = Transform(((1.03, 0.06), (-0.05, 0.97)), (2.0, -1.5))
BENT = Transform(TURNED.matrix, TURNED.offset, Spline((-20.0, -20.0), (20.0, 20.0), np.full((6, 6, 2), 1.5)))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("reduction", [0.7, 1.0, 1.4, 2.6, 4.3, 5.7, 11.0])
def test_resampling_is_the_smoothing_and_sampling_that_it_says(reduction: float, mirrored: bool) -> None:
    pixels = edges()
    shape = (int(440 / reduction), int(300 / reduction))
    for transform, tolerance in ((Transform(offset=(1.3, -0.4)), 1e-5), (TURNED, 0.04), (BENT, 0.04)):
        # No place lies on the very rim of the image, where rounding would decide.
        geometry = Geometry(mirrored, 300, (3, 5), 0.1, 0.1 * reduction, (-1.03, -1.02), transform)
        difference = resample(pixels, geometry, shape) - reference(pixels, geometry, shape)
        assert np.abs(difference).max() < tolerance
        # What is within the tolerance is no shift: it averages out.
        assert abs(float(difference.mean())) < 1e-3


@pytest.mark.parametrize("transform", [Transform(), TURNED, BENT])
def test_pixels_that_are_looked_up_are_resampled_as_those_in_memory(transform: Transform) -> None:
    table = np.random.default_rng(0).random(65536).astype(np.float32)
    stored = np.random.default_rng(1).integers(0, 65536, (230, 170), dtype=np.uint16)
    geometry = Geometry(True, 170, (2, 3), 0.1, 0.25, transform=transform)
    assert np.array_equal(
        resample(LookedUp(stored, table), geometry, (90, 60)), resample(table[stored], geometry, (90, 60))
    )


@settings(max_examples=40, deadline=None)
@given(geometry=geometries(), edge=st.integers(1, 12), seed=st.integers(0, 99))
def test_blocks_lie_where_their_pixels_do(geometry: Geometry, edge: int, seed: int) -> None:
    """A mask in blocks, the last of which are cut, comes into the store as the same mask in pixels does."""
    height, width = 12 * 40 + seed % 12, geometry.width
    rows, cols = (np.arange(-(-size // edge)) for size in (height, width))
    blocks = (rows[:, None] * edge > 150) & (rows[:, None] * edge < 400) & (cols * edge > 100) & (cols * edge < 420)
    pixels = blocks.repeat(edge, axis=0).repeat(edge, axis=1)[:height, :width]
    shape = (int(300 * geometry.spacing_mm / geometry.store_spacing_mm) + 20,) * 2
    of_blocks = resample_mask(Blocks(blocks, edge, (height, width)), geometry, shape)
    of_pixels = resample_mask(pixels, geometry, shape)
    # Corners are rounded by the size of a block or of a store pixel; straight outlines stay where they are.
    reach = 1 + int(edge * geometry.spacing_mm / geometry.store_spacing_mm)
    sure, possible = (
        ndimage.binary_erosion(of_pixels, iterations=reach, border_value=1),
        ndimage.binary_dilation(of_pixels, iterations=reach),
    )
    assert not (of_blocks & ~possible).any()
    assert not (sure & ~of_blocks).any()
    assert abs(int(of_blocks.sum()) - int(of_pixels.sum())) <= 4 * (reach + 1) ** 2 + 0.06 * of_pixels.sum()
