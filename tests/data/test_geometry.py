"""geometry.py: points, boxes and pixels reach the store and come back, whatever transform lies between."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from siamray.data.geometry import Geometry, Spline, Transform, clip_box, polygon_box, resample, resample_mask

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
