"""Two cropped breasts, chest wall left, go in; the transform that brings the right one onto the left one comes out.

Transforms map places of the fixed crop to places of the moving crop: (row, col) in mm from the upper left corner.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from siamray.config import RegistrationConfig
from siamray.data.geometry import Geometry, Spline, Transform, resample, resample_mask

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

KINDS = ("none", "centroid", "affine", "bspline")
# A finer kind is kept only where it does not cost this much overlap or correlation of the simpler one.
TOLERANCE = 0.02
# Areas may shrink or grow by this factor at most: two breasts of a woman differ less, a failed search differs more.
AREA_FACTOR = 2.0
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
    """

    kind: str
    transform: Transform
    dice: float
    correlation: float
    fell_back: bool


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
    if not fixed_mask.any() or not moving_mask.any():
        raise ValueError("an empty breast mask cannot be registered")
    spacing = max(spacing_mm, config.working_spacing_mm)
    sigma = config.smoothing_mm / spacing
    one = _breast(fixed, fixed_mask, spacing_mm, spacing, sigma)
    two = _breast(moving, moving_mask, spacing_mm, spacing, sigma)
    best = _rated("none", Transform(), one, two, spacing)
    for kind in KINDS[1 : KINDS.index(config.kind) + 1]:
        if kind == "centroid":
            transform: Transform | None = _centroid(one.mask, two.mask, spacing)
        elif kind == "affine":
            transform = _affine(one, two, spacing, best.transform, config.iterations)
        else:
            transform = _bspline(one, two, spacing, best.transform, config)
        best = _better(best, kind, transform, one, two, spacing)
    return best


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
    # The grid reaches beyond the fixed crop, so that what the transform pushes out of it counts as not overlapping.
    border = round(BORDER_SHARE * max(one.mask.shape))
    shape = (one.mask.shape[0] + 2 * border, one.mask.shape[1] + 2 * border)
    origin = (-border * spacing, -border * spacing)
    geometry = Geometry(False, two.mask.shape[1], (0, 0), spacing, spacing, origin, transform)
    fixed_mask, fixed = np.pad(one.mask, border), np.pad(one.smooth, border)
    moving_mask, moving = resample_mask(two.mask, geometry, shape), resample(two.smooth, geometry, shape)
    both = fixed_mask & moving_mask
    dice = 2 * float(both.sum()) / float(fixed_mask.sum() + two.mask.sum() * _area_factor(transform))
    correlation = 0.0
    if both.sum() > 2 and fixed[both].std() > 1e-6 and moving[both].std() > 1e-6:
        correlation = float(np.corrcoef(fixed[both], moving[both])[0, 1])
    return Registration(kind, transform, dice, correlation, False)


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
            return Registration(kind, transform, rated.dice, rated.correlation, best.fell_back)
    return Registration(best.kind, best.transform, best.dice, best.correlation, True)


def _plausible(transform: Transform, one: _Breast, spacing: float) -> bool:
    """Whether areas change within bounds everywhere in the breast, and nothing folds."""
    rows, cols = np.nonzero(one.mask)
    points = (np.stack([rows, cols], axis=1) + 0.5) * spacing
    step = 0.5 * spacing
    downwards, sidewards = np.array([step, 0.0]), np.array([0.0, step])
    down = transform.forward(points + downwards) - transform.forward(points - downwards)
    across = transform.forward(points + sidewards) - transform.forward(points - sidewards)
    area = (down[:, 0] * across[:, 1] - down[:, 1] * across[:, 0]) / (2 * step) ** 2
    return bool(np.all(np.isfinite(area)) and area.min() > 1 / AREA_FACTOR and area.max() < AREA_FACTOR)


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
    # Half the working resolution finds the same transforms (mini-MIAS: Dice .968, .967) in half the time.
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SetInitialTransform(affine, inPlace=True)
    if not _ran(method, _image(one.outline, spacing, BORDER_SHARE), _image(two.outline, spacing, BORDER_SHARE)):
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
    # Control points lie tens of millimetres apart: the full working resolution would only cost time.
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
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
