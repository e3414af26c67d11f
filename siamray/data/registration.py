"""Two cropped breasts, chest wall left, go in; the transform that brings the right one onto the left one comes out.

Transforms map places of the fixed crop to places of the moving crop: (row, col) in mm from the upper left corner.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from siamray.config import RegistrationConfig
from siamray.data.geometry import Geometry, Spline, Transform, resample, resample_mask

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

KINDS = ("none", "centroid", "affine", "bspline")
# A finer kind is kept only where it does not cost this much overlap or correlation of the simpler one.
TOLERANCE = 0.02
# Areas may shrink or grow by this factor at most: two breasts of a woman differ less, a failed search differs more.
AREA_FACTOR = 2.0
# Distance of the outlines that costs a factor e of quality: right pairs lie within 7 mm, failed ones 10 to 30 mm apart.
OUTLINE_MM = 20.0
# Areas are measured at every third pixel of the working image: splines bend over tens of pixels.
AREA_STEP = 3
# Shares of a B-spline's displacements that are tried, until it leaves areas as they should be.
TAMING = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1)
# Empty border around the searched images, as a share of their longer side: a shifted breast must not leave the image.
BORDER_SHARE = 0.35
# Control points moved by no more than this share of their distance cannot fold the plane (Choi and Lee 2000: 1 / 2.48).
FOLD_FREE = 0.25
# Weight of the tissue's contrast against the breast's outline in the searched images.
CONTRAST = 0.5


@dataclass(frozen=True)
class Registration:
    """The outcome of a registration.

    Attributes:
        kind: the kind that was kept: the one asked for, or a simpler one.
        transform: fixed crop -> moving crop, in mm.
        dice: Dice overlap of the two breast masks after registration, 0..1.
        correlation: Pearson correlation of the smoothed images where both breasts are, -1..1; 0 without overlap.
        fell_back: whether a finer kind was tried and gave less.
        outline_mm: mean distance of the two breasts' outlines after registration, in mm.
        quality: dice * correlation * exp(-outline_mm / 20), 0..1, 0 where the correlation is negative: tells right
            pairs from wrong ones (docs/registration.md). Where a breast has no contrast its outline alone counts.
    """

    kind: str
    transform: Transform
    dice: float
    correlation: float
    fell_back: bool
    outline_mm: float = 0.0
    quality: float = 0.0


@dataclass(frozen=True)
class _Breast:
    """A crop at working spacing: smoothed grey levels, mask, and the image the search sees."""

    smooth: Floats
    mask: Bools
    outline: Floats


def register(
    fixed: Floats,
    moving: Floats,
    fixed_mask: Bools,
    moving_mask: Bools,
    spacing_mm: float,
    config: RegistrationConfig,
) -> Registration:
    """Registers the moving crop onto the fixed one, from simple to fine; a finer kind is kept where it is no worse.

    none aligns the crops' corners (chest wall and top of the breast); centroid the masks' centres of mass; affine and
    bspline minimise the mean squared difference of images that hold the breast's outline and its smoothed tissue. All
    samples are used, in one thread, so that the same images give the same transform.

    Args:
        fixed: left crop (rows, cols), presentation space, 0..1.
        moving: right crop (rows, cols), its chest wall at the left too.
        fixed_mask: breast in the fixed crop.
        moving_mask: breast in the moving crop.
        spacing_mm: pixel spacing of both, in mm.
        config: kind, working spacing, smoothing, iterations, spacing of the B-spline's control points.

    Returns:
        The transform and how well it fits.

    Raises:
        ValueError: if a mask is empty.
    """
    one, two, spacing = _prepared(fixed, moving, fixed_mask, moving_mask, spacing_mm, config)
    best = _rated("none", Transform(), one, two, spacing)
    for kind in KINDS[1 : KINDS.index(config.kind) + 1]:
        if kind == "centroid":
            transform: Transform | None = _centroid(one.mask, two.mask, spacing)
        elif kind == "affine":
            transform = _affine(one, two, spacing, best.transform, config.iterations)
        else:
            transform = _bspline(one, two, spacing, best.transform, config)
            if transform is not None:
                transform = _tamed(transform, one, spacing, config.bspline_area_factor)
        best = _better(best, kind, transform, one, two, spacing)
    return _judged(best, one, two, spacing)


def judge(
    transform: Transform,
    fixed: Floats,
    moving: Floats,
    fixed_mask: Bools,
    moving_mask: Bools,
    spacing_mm: float,
    config: RegistrationConfig,
) -> Registration:
    """Measures how well a given transform fits, as register does with those that it finds.

    Args:
        transform: fixed crop -> moving crop, in mm.
        fixed: left crop (rows, cols), presentation space, 0..1.
        moving: right crop (rows, cols), its chest wall at the left too.
        fixed_mask: breast in the fixed crop.
        moving_mask: breast in the moving crop.
        spacing_mm: pixel spacing of both, in mm.
        config: working spacing and smoothing.

    Returns:
        The transform with its overlap, correlation, distance of outlines and quality; its kind reads "given".

    Raises:
        ValueError: if a mask is empty.
    """
    one, two, spacing = _prepared(fixed, moving, fixed_mask, moving_mask, spacing_mm, config)
    return _judged(_rated("given", transform, one, two, spacing), one, two, spacing)


def _prepared(
    fixed: Floats,
    moving: Floats,
    fixed_mask: Bools,
    moving_mask: Bools,
    spacing_mm: float,
    config: RegistrationConfig,
) -> tuple[_Breast, _Breast, float]:
    """Brings both crops to working spacing, which is returned with them."""
    if not fixed_mask.any() or not moving_mask.any():
        raise ValueError("an empty breast mask cannot be registered")
    spacing = max(spacing_mm, config.working_spacing_mm)
    sigma = config.smoothing_mm / spacing
    one = _breast(fixed, fixed_mask, spacing_mm, spacing, sigma)
    return one, _breast(moving, moving_mask, spacing_mm, spacing, sigma), spacing


def _breast(pixels: Floats, mask: Bools, spacing_mm: float, working_mm: float, sigma: float) -> _Breast:
    """Brings a crop to working spacing and makes the image that is searched: outline and tissue contrast."""
    shape = (
        max(8, round(pixels.shape[0] * spacing_mm / working_mm)),
        max(8, round(pixels.shape[1] * spacing_mm / working_mm)),
    )
    geometry = Geometry(False, pixels.shape[1], (0, 0), spacing_mm, working_mm)
    coarse, inside = resample(pixels, geometry, shape), resample_mask(mask, geometry, shape)
    if not inside.any():
        inside = resample(mask.astype(np.float32), geometry, shape) > 0
    # Smoothing within the mask only (a normalised convolution): background must not darken the skin.
    weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma)
    smooth = ndimage.gaussian_filter(np.where(inside, coarse, 0), sigma) / np.maximum(weight, 1e-3)
    tissue = smooth[inside]
    deviation = max(float(tissue.std()), 1e-6)
    contrast = np.clip((smooth - float(tissue.mean())) / deviation, -1.5, 1.5)
    outline = np.where(inside, 1 + CONTRAST * contrast, 0).astype(np.float32)
    return _Breast(smooth.astype(np.float32), inside, ndimage.gaussian_filter(outline, min(sigma, 1.0)))


def _centroid(fixed: Bools, moving: Bools, spacing: float) -> Transform:
    one, two = (np.asarray(ndimage.center_of_mass(mask)) for mask in (fixed, moving))
    row, col = (two - one) * spacing
    return Transform(offset=(float(row), float(col)))


def _rated(kind: str, transform: Transform, one: _Breast, two: _Breast, spacing: float) -> Registration:
    """Measures how well a transform fits: overlap of the masks and correlation of the smoothed tissue."""
    fixed, moving = _laid_together(transform, one, two, spacing)
    both = fixed.mask & moving.mask
    dice = 2 * float(both.sum()) / float(fixed.mask.sum() + two.mask.sum() * _area_factor(transform))
    correlation = _correlation(fixed.smooth[both], moving.smooth[both])
    return Registration(kind, transform, dice, 0.0 if correlation is None else correlation, False)


def _judged(found: Registration, one: _Breast, two: _Breast, spacing: float) -> Registration:
    """Adds the distance of the outlines and the quality."""
    fixed, moving = _laid_together(found.transform, one, two, spacing)
    both = fixed.mask & moving.mask
    if not both.any():
        return replace(found, outline_mm=float(np.hypot(*fixed.mask.shape)) * spacing, quality=0.0)
    edges = [mask ^ ndimage.binary_erosion(mask) for mask in (fixed.mask, moving.mask)]
    away = [ndimage.distance_transform_edt(~edge) for edge in edges]
    outline = 0.5 * spacing * float(away[0][edges[1]].mean() + away[1][edges[0]].mean())
    correlation = _correlation(fixed.smooth[both], moving.smooth[both])
    alike = 1.0 if correlation is None else max(0.0, correlation)
    quality = min(1.0, found.dice) * alike * float(np.exp(-outline / OUTLINE_MM))
    return replace(found, outline_mm=outline, quality=quality)


def _laid_together(transform: Transform, one: _Breast, two: _Breast, spacing: float) -> tuple[_Breast, _Breast]:
    """Brings both breasts into one grid that reaches beyond the fixed crop.

    So what the transform pushes out of the crop counts as not overlapping.
    """
    border = round(BORDER_SHARE * max(one.mask.shape))
    shape = (one.mask.shape[0] + 2 * border, one.mask.shape[1] + 2 * border)
    origin = (-border * spacing, -border * spacing)
    geometry = Geometry(False, two.mask.shape[1], (0, 0), spacing, spacing, origin, transform)
    moving = resample(two.smooth, geometry, shape)
    fixed = _Breast(np.pad(one.smooth, border), np.pad(one.mask, border), np.pad(one.outline, border))
    return fixed, _Breast(moving, resample_mask(two.mask, geometry, shape), moving)


def _correlation(one: Floats, two: Floats) -> float | None:
    """Returns Pearson's correlation; None where there is too little to compare, or no contrast."""
    if one.size <= 2 or one.std() <= 1e-6 or two.std() <= 1e-6:
        return None
    return float(np.corrcoef(one, two)[0, 1])


def _area_factor(transform: Transform) -> float:
    """Factor by which the moving breast's area changes when it is brought onto the fixed one."""
    return 1 / max(abs(float(np.linalg.det(np.asarray(transform.matrix)))), 1e-6)


def _better(
    best: Registration, kind: str, transform: Transform | None, one: _Breast, two: _Breast, spacing: float
) -> Registration:
    """Returns the finer registration where it fits no worse, else the simpler one, marked as fallen back to."""
    if transform is not None and _plausible(transform, one, spacing):
        rated = _rated(kind, transform, one, two, spacing)
        no_worse = rated.dice >= best.dice - TOLERANCE and rated.correlation >= best.correlation - TOLERANCE
        if no_worse or rated.dice + rated.correlation > best.dice + best.correlation + TOLERANCE:
            return replace(rated, fell_back=best.fell_back)
    return replace(best, fell_back=True)


def _plausible(transform: Transform, one: _Breast, spacing: float) -> bool:
    """Whether areas change within bounds everywhere in the breast, and nothing folds."""
    area = _areas(transform, one, spacing)
    return bool(np.all(np.isfinite(area)) and area.min() > 1 / AREA_FACTOR and area.max() < AREA_FACTOR)


def _areas(transform: Transform, one: _Breast, spacing: float) -> Doubles:
    """Returns the factor by which areas grow at places all over the fixed breast; negative where the plane folds."""
    rows, cols = np.nonzero(one.mask[::AREA_STEP, ::AREA_STEP])
    if rows.size == 0:
        rows, cols = np.nonzero(one.mask)
    else:
        rows, cols = AREA_STEP * rows, AREA_STEP * cols
    points = (np.stack([rows, cols], axis=1) + 0.5) * spacing
    step = 0.5 * spacing
    downwards, sidewards = np.array([step, 0.0]), np.array([0.0, step])
    down = transform.forward(points + downwards) - transform.forward(points - downwards)
    across = transform.forward(points + sidewards) - transform.forward(points - sidewards)
    return np.asarray((down[:, 0] * across[:, 1] - down[:, 1] * across[:, 0]) / (2 * step) ** 2)


def _tamed(transform: Transform, one: _Breast, spacing: float, factor: float) -> Transform | None:
    """Weakens a spline until it changes areas by a factor at most, or as the affine part does; None where it cannot.

    A lesion's area changes by what the transform does where it lies: a spline that follows the outline freely
    squeezes or swells what lies behind it.
    """
    affine = abs(float(np.linalg.det(np.asarray(transform.matrix))))
    low, high = min(1 / factor, affine), max(factor, affine)
    spline = transform.spline
    if spline is None:
        return transform
    for strength in TAMING:
        weaker = replace(transform, spline=replace(spline, coefficients=strength * spline.coefficients))
        area = _areas(weaker, one, spacing)
        if area.min() >= low and area.max() <= high:
            return weaker
    return None


def _affine(one: _Breast, two: _Breast, spacing: float, start: Transform, iterations: int) -> Transform | None:
    """Seeks the affine transform from the centroid's; None where the search fails."""
    centre = np.asarray(ndimage.center_of_mass(one.mask))[::-1] * spacing + spacing / 2
    affine = sitk.AffineTransform(2)
    affine.SetCenter(centre.tolist())
    affine.SetTranslation(start.offset[::-1])
    method = _method()
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=1e-3, numberOfIterations=iterations, gradientMagnitudeTolerance=1e-7
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(affine, inPlace=True)
    if not _ran(method, _image(one.outline, spacing, BORDER_SHARE / 3), _image(two.outline, spacing, BORDER_SHARE)):
        return None
    matrix = np.asarray(affine.GetMatrix()).reshape(2, 2)
    offset = np.asarray(affine.GetTranslation()) + centre - matrix @ centre
    flipped = matrix[::-1, ::-1]
    return Transform(
        ((float(flipped[0, 0]), float(flipped[0, 1])), (float(flipped[1, 0]), float(flipped[1, 1]))),
        (float(offset[1]), float(offset[0])),
    )


def _bspline(
    one: _Breast, two: _Breast, spacing: float, start: Transform, config: RegistrationConfig
) -> Transform | None:
    """Seeks a B-spline displacement before the affine transform; None where the search fails."""
    fixed = _image(one.outline, spacing, BORDER_SHARE / 3)
    mesh = [max(1, round(size * spacing / config.bspline_mesh_mm)) for size in fixed.GetSize()]
    spline = sitk.BSplineTransformInitializer(fixed, mesh, order=3)
    affine = sitk.AffineTransform(2)
    matrix = np.asarray(start.matrix)[::-1, ::-1]
    affine.SetMatrix(matrix.ravel().tolist())
    affine.SetTranslation(start.offset[::-1])
    method = _method()
    method.SetMovingInitialTransform(affine)
    bound = FOLD_FREE * config.bspline_mesh_mm
    method.SetOptimizerAsLBFGSB(
        gradientConvergenceTolerance=1e-6,
        numberOfIterations=config.iterations,
        maximumNumberOfCorrections=5,
        maximumNumberOfFunctionEvaluations=2 * config.iterations,
        lowerBound=-bound,
        upperBound=bound,
    )
    method.SetInitialTransform(spline, inPlace=True)
    if not _ran(method, fixed, _image(two.outline, spacing, BORDER_SHARE)):
        return None
    images = spline.GetCoefficientImages()
    coefficients = np.stack([sitk.GetArrayFromImage(images[1]), sitk.GetArrayFromImage(images[0])], axis=-1)
    origin, step = images[0].GetOrigin(), images[0].GetSpacing()
    return Transform(
        start.matrix, start.offset, Spline((origin[1], origin[0]), (step[1], step[0]), coefficients.astype(np.float64))
    )


def _method() -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    # A quarter of the working resolution finds transforms as good as a finer level after it (mini-MIAS: Dice .967 and
    # .967; phantoms: 3.0 and 3.1 mm) in half the time: the search image is smooth, control points lie far apart.
    method.SetShrinkFactorsPerLevel([4])
    method.SetSmoothingSigmasPerLevel([2])
    return method


def _ran(method: sitk.ImageRegistrationMethod, fixed: sitk.Image, moving: sitk.Image) -> bool:
    """Runs a search; False where ITK gives up, as when the images no longer overlap."""
    try:
        method.Execute(fixed, moving)
    except RuntimeError:
        return False
    return True


def _image(outline: Floats, spacing: float, border_share: float) -> sitk.Image:
    """Makes an ITK image with an empty border; places are mm from the crop's upper left corner, (x, y)."""
    border = round(border_share * max(outline.shape))
    image = sitk.GetImageFromArray(np.pad(outline, border))
    image.SetSpacing((spacing, spacing))
    first = (0.5 - border) * spacing
    image.SetOrigin((first, first))
    return image
