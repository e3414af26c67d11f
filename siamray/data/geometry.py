"""Points, boxes and pixels of an original image go in; the same in the store come out, and back.

Three frames, all (row, col): *original* pixels of the file; the *crop* in mm, whose origin is the upper left corner of
the cropped, oriented image; *store* pixels. In pixel frames the centres of pixels are at integers. The right side's
crop is tied to the left side's by a Transform (left crop -> right crop). Pixels and findings go through the same
functions, so they cannot part ways.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from siamray.data.image import Blocks, Lazy

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# Numerical inverse of a B-spline: far below a pixel, and given up after so many steps (a fold would never converge).
INVERSE_TOLERANCE_MM = 1e-4
INVERSE_STEPS = 60
# Sums of weights in single precision are this exact.
ROUNDING = 1e-6
# Samples whose weights make one matrix: of more, it would mostly be zeros.
BLOCK = 16
# Rows of pixels taken from an image at a time: what lies between the two axes stays in the processor's cache.
READ = 128
# Places sampled at a time where rows do not stay rows: each takes a hundred bytes meanwhile.
PLACES = 2**18
# Of these so many are sampled at a time: what each takes meanwhile stays in the processor's cache.
AT_ONCE = 2**14


@dataclass(frozen=True)
class Spline:
    """A cubic B-spline displacement field on a regular grid of control points.

    Attributes:
        origin: place of control point (0, 0) in mm, (row, col).
        spacing: distance of the control points in mm, (row, col).
        coefficients: displacements in mm at the control points, [rows, cols, 2].
    """

    origin: tuple[float, float]
    spacing: tuple[float, float]
    coefficients: Doubles

    def displacement(self, points: Doubles) -> Doubles:
        """Evaluates the field; beyond its grid it goes on as at the grid's edge (Unser 1999, equation 4).

        A field that ended there at once would tear the image: places beyond the edge would have no inverse.

        Args:
            points: places in mm, [N, 2].

        Returns:
            displacements in mm, [N, 2].
        """
        size = np.asarray(self.coefficients.shape[:2])
        index = (points - np.asarray(self.origin)) / np.asarray(self.spacing)
        index = np.clip(index, 1.0, size - 2.0)
        first = np.minimum(np.floor(index).astype(np.int64), size - 3) - 1
        weights = _cubic(index - (first + 1))
        total = np.zeros_like(points)
        for row in range(4):
            for col in range(4):
                weight = weights[row, :, 0] * weights[col, :, 1]
                total += weight[:, None] * self.coefficients[first[:, 0] + row, first[:, 1] + col]
        return total


def _cubic(fraction: Doubles) -> Doubles:
    """The four cubic B-spline weights at fractions 0..1 of a knot span: shape [4, *fraction.shape]."""
    t = fraction
    return np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6


@dataclass(frozen=True)
class Transform:
    """A map of the plane in mm: first the spline's displacement, then ``matrix @ point + offset``."""

    matrix: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0))
    offset: tuple[float, float] = (0.0, 0.0)
    spline: Spline | None = None

    @property
    def keeps_axes(self) -> bool:
        """Whether rows stay rows and columns columns: nothing is turned, sheared or bent."""
        return self.spline is None and self.matrix[0][1] == 0 and self.matrix[1][0] == 0

    def forward(self, points: Doubles) -> Doubles:
        """Maps places in mm, [N, 2] -> [N, 2]."""
        if self.spline is not None:
            points = points + self.spline.displacement(points)
        # Spelt out: numpy's product of two columns takes five times as long.
        (a, b), (c, d) = self.matrix
        rows, cols = points[:, 0], points[:, 1]
        return np.stack([a * rows + b * cols + self.offset[0], c * rows + d * cols + self.offset[1]], axis=1)

    def inverse(self, points: Doubles) -> Doubles:
        """Finds the places that forward maps to the given ones, [N, 2] -> [N, 2]; iteratively for a spline.

        The fixed point of x = y - displacement(x) is sought with halved steps where it does not come nearer.
        """
        target = (points - np.asarray(self.offset)) @ np.linalg.inv(np.asarray(self.matrix)).T
        if self.spline is None:
            return np.asarray(target)
        found = target - self.spline.displacement(target)
        step = np.ones(len(target))
        error = np.full(len(target), np.inf)
        for _ in range(INVERSE_STEPS):
            residual = target - found - self.spline.displacement(found)
            size = np.abs(residual).max(axis=1, initial=0.0)
            if size.max(initial=0.0) < INVERSE_TOLERANCE_MM:
                break
            step = np.where(size > error, step / 2, step)
            error = size
            found = found + step[:, None] * residual
        return np.asarray(found)

    def to_dict(self) -> dict[str, Any]:
        """Turns the transform into what JSON can hold."""
        record: dict[str, Any] = {"matrix": [list(row) for row in self.matrix], "offset": list(self.offset)}
        if self.spline is not None:
            record["spline"] = {
                "origin": list(self.spline.origin),
                "spacing": list(self.spline.spacing),
                "coefficients": self.spline.coefficients.tolist(),
            }
        return record

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> "Transform":
        """Makes the transform that to_dict took apart."""
        (a, b), (c, d) = record["matrix"]
        spline = record.get("spline")
        return Transform(
            matrix=((float(a), float(b)), (float(c), float(d))),
            offset=_pair(record["offset"]),
            spline=None
            if spline is None
            else Spline(
                _pair(spline["origin"]), _pair(spline["spacing"]), np.asarray(spline["coefficients"], dtype=np.float64)
            ),
        )


def _pair(values: Any) -> tuple[float, float]:
    first, second = values
    return float(first), float(second)


@dataclass(frozen=True)
class Geometry:
    """How the pixels of one original image come into the store.

    Attributes:
        mirrored: whether the image is mirrored left-right, so that its chest wall comes to the left.
        width: columns of the original image, in pixels.
        crop: row and column of the crop's upper left pixel, in the oriented image.
        spacing_mm: pixel spacing of the original image, in mm.
        store_spacing_mm: pixel spacing of the store, in mm.
        store_origin: the store image's upper left corner in the left crop's frame, in mm.
        transform: left crop -> this side's crop, in mm; the identity for the left side.
    """

    mirrored: bool
    width: int
    crop: tuple[int, int]
    spacing_mm: float
    store_spacing_mm: float
    store_origin: tuple[float, float] = (0.0, 0.0)
    transform: Transform = field(default_factory=Transform)

    def to_store(self, points: Doubles) -> Doubles:
        """Maps original pixels to store pixels, [N, 2] -> [N, 2]."""
        oriented = np.array(points, dtype=np.float64)
        if self.mirrored:
            oriented[:, 1] = self.width - 1 - oriented[:, 1]
        millimetres = self.transform.inverse((oriented + 0.5 - np.asarray(self.crop)) * self.spacing_mm)
        return np.asarray((millimetres - np.asarray(self.store_origin)) / self.store_spacing_mm - 0.5)

    def to_original(self, points: Doubles) -> Doubles:
        """Maps store pixels to original pixels, [N, 2] -> [N, 2]."""
        centres = np.asarray(points, dtype=np.float64) + 0.5
        millimetres = centres * self.store_spacing_mm + np.asarray(self.store_origin)
        original = self.transform.forward(millimetres) / self.spacing_mm + np.asarray(self.crop) - 0.5
        if self.mirrored:
            original[:, 1] = self.width - 1 - original[:, 1]
        return np.asarray(original)

    def box_to_store(self, box: tuple[float, float, float, float]) -> Doubles:
        """Carries a box of original pixels to the four corners it has in the store.

        Args:
            box: row_min, col_min, row_max, col_max in original pixels, half open: edges, not pixel centres.

        Returns:
            the corners' edges in store pixels, [4, 2]: the original's upper left, upper right, lower right, lower left.
        """
        row_min, col_min, row_max, col_max = box
        corners = [[row_min, col_min], [row_min, col_max], [row_max, col_max], [row_max, col_min]]
        return self.to_store(np.asarray(corners, dtype=np.float64) - 0.5) + 0.5

    def polygon_to_original(self, polygon: Doubles) -> Doubles:
        """Carries edges in the store, as box_to_store gives them, to edges in original pixels, [N, 2] -> [N, 2]."""
        return self.to_original(np.asarray(polygon, dtype=np.float64) - 0.5) + 0.5

    def to_dict(self) -> dict[str, Any]:
        """Turns the geometry into what JSON can hold."""
        return {
            "mirrored": self.mirrored,
            "width": self.width,
            "crop": list(self.crop),
            "spacing_mm": self.spacing_mm,
            "store_spacing_mm": self.store_spacing_mm,
            "store_origin": list(self.store_origin),
            "transform": self.transform.to_dict(),
        }

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> "Geometry":
        """Makes the geometry that to_dict took apart."""
        row, col = record["crop"]
        return Geometry(
            mirrored=bool(record["mirrored"]),
            width=int(record["width"]),
            crop=(int(row), int(col)),
            spacing_mm=float(record["spacing_mm"]),
            store_spacing_mm=float(record["store_spacing_mm"]),
            store_origin=_pair(record["store_origin"]),
            transform=Transform.from_dict(record["transform"]),
        )


def polygon_box(polygon: Doubles) -> tuple[float, float, float, float]:
    """Returns the upright box around corners, [N, 2] -> row_min, col_min, row_max, col_max."""
    low, high = np.min(polygon, axis=0), np.max(polygon, axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def clip_box(
    box: tuple[float, float, float, float], shape: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """Cuts a half-open box to an image of a shape; None where nothing of it lies inside."""
    row_min, col_min, row_max, col_max = box
    row_min, col_min = max(0.0, row_min), max(0.0, col_min)
    row_max, col_max = min(float(shape[0]), row_max), min(float(shape[1]), col_max)
    if not (row_min < row_max and col_min < col_max):
        return None
    return row_min, col_min, row_max, col_max


def resample(pixels: Lazy | Blocks, geometry: Geometry, shape: tuple[int, int]) -> Floats:
    """Brings an original image into the store's grid, in one interpolation.

    Before sampling down, a Gaussian of half the reduction keeps out what the coarser grid cannot hold (aliasing);
    sampling is bilinear. Where rows do not stay rows, the smoothed image is sampled from every n-th of its pixels, n
    at most 4/3 of the Gaussian's deviation, and the Gaussian is the narrower for it: at most 4 % of an edge's height is
    between that and sampling from all of them, places stay where they are, and it takes a third of the time.

    Args:
        pixels: the original image (rows, cols), or one of blocks of its pixels.
        geometry: the way of the original's pixels into the store.
        shape: rows and columns of the store image.

    Returns:
        the store image; 0 where the original has no pixels.
    """
    source = _Source(pixels.values, pixels.edge, pixels.shape) if isinstance(pixels, Blocks) else _whole(pixels)
    sigma = max(0.0, (geometry.store_spacing_mm / (geometry.spacing_mm * source.edge) - 1) / 2)
    if geometry.transform.keeps_axes:
        return _straight(source, geometry, shape, sigma)
    every = max(1, int(4 * sigma / 3))
    # Bilinear sampling smooths as well: by a variance of a sixth of the squared distance of what it samples from.
    narrower = float(np.sqrt(max(0.0, sigma**2 - (every**2 - 1) / 6)))
    values = np.zeros(shape, dtype=np.float32)
    step = max(1, PLACES // shape[1])
    for start in range(0, shape[0], step):
        block = slice(start, min(start + step, shape[0]))
        down, across = _places(geometry, block, shape[1])
        inner = source.places(down), source.places(across)
        # Only the part that is needed is smoothed: half of a film is background.
        rows, cols = (_needed(inner[axis], source.pixels.shape[axis], every) for axis in (0, 1))
        if not rows.size or not cols.size:
            continue
        part = _smoothed(source.pixels, rows, cols, narrower)
        for row in range(0, len(down), max(1, AT_ONCE // shape[1])):
            some = slice(row, row + max(1, AT_ONCE // shape[1]))
            # Beyond the edge of an inner part nothing is asked for; beyond the image itself is nothing.
            found = _bilinear(part, *((inner[axis][some] - (rows, cols)[axis][0]) / every for axis in (0, 1)))
            found[_outside(down[some], source.shape[0]) | _outside(across[some], source.shape[1])] = 0
            values[start + row : start + row + len(found)] = found
    return values


def resample_mask(mask: Lazy | Blocks, geometry: Geometry, shape: tuple[int, int]) -> Bools:
    """Brings an original mask into the store's grid: True where at least half of what a store pixel shows is True."""
    return np.asarray(resample(mask, geometry, shape) >= 0.5 - ROUNDING)


@dataclass(frozen=True)
class _Source:
    """What is sampled: pixels, or blocks of an edge, of an original image of a shape."""

    pixels: Lazy
    edge: int
    shape: tuple[int, int]

    def places(self, original: Doubles) -> Doubles:
        """Maps places along an axis of the original to places in pixels: of both, centres are at integers."""
        return original if self.edge == 1 else (original + 0.5) / self.edge - 0.5


def _whole(pixels: Lazy) -> _Source:
    return _Source(pixels, 1, (pixels.shape[0], pixels.shape[1]))


def _straight(source: _Source, geometry: Geometry, shape: tuple[int, int], sigma: float) -> Floats:
    """Does what resample does where rows stay rows and columns columns."""
    rows, cols = np.zeros((shape[0], 2)), np.zeros((shape[1], 2))
    rows[:, 0], cols[:, 1] = np.arange(shape[0]), np.arange(shape[1])
    down, across = geometry.to_original(rows)[:, 0], geometry.to_original(cols)[:, 1]
    # What lies within half a pixel beyond the image's edge shows its edge; what lies further out is set below.
    places = (source.places(down), source.places(across))
    rows, cols = (np.clip(along, 0, size - 1) for along, size in zip(places, source.pixels.shape, strict=True))
    values = _smoothed(source.pixels, rows, cols, sigma)
    values[_outside(down, source.shape[0])] = 0
    values[:, _outside(across, source.shape[1])] = 0
    return values


def _places(geometry: Geometry, rows: slice, cols: int) -> tuple[Doubles, Doubles]:
    """Returns the original's row and column of each store pixel of some rows, each (rows, cols)."""
    if geometry.transform.spline is None:
        # The map is affine: three of its places tell all.
        corner, below, beside = geometry.to_original(np.array([[rows.start, 0], [rows.start + 1, 0], [rows.start, 1]]))
        down, along = np.arange(rows.stop - rows.start)[:, None], np.arange(cols)[None, :]
        first, second = ((below[axis] - corner[axis]) * down + corner[axis] for axis in (0, 1))
        return first + (beside[0] - corner[0]) * along, second + (beside[1] - corner[1]) * along
    grid = np.empty((rows.stop - rows.start, cols, 2))
    grid[..., 0], grid[..., 1] = np.arange(rows.start, rows.stop)[:, None], np.arange(cols)
    found = geometry.to_original(grid.reshape(-1, 2)).reshape(grid.shape)
    return found[..., 0], found[..., 1]


def _outside(places: Doubles, size: int) -> Bools:
    return np.asarray((places < -0.5) | (places > size - 0.5))


def _needed(places: Doubles, size: int, every: int) -> npt.NDArray[np.int64]:
    """Returns every so manieth of the pixels along an axis that lie between and around places, none if none does."""
    low, high = max(0, int(np.floor(places.min())) - 1), min(size, int(np.ceil(places.max())) + 2)
    # One more beyond the image's edge, where its edge pixels go on.
    return np.arange(low, high + every - 1, every) if high > low else np.arange(0)


def _bilinear(pixels: Floats, rows: Doubles, cols: Doubles) -> Floats:
    """Samples an image, its edge pixels going on beyond it, at places given by row and column, all (rows, cols)."""
    (above, down), (left, along) = (
        _floored(places, size) for places, size in zip((rows, cols), pixels.shape, strict=True)
    )
    height, width = pixels.shape
    place = (above * np.int32(width) + left).astype(np.intp)
    right, below = int(width > 1), width if height > 1 else 0
    flat = pixels.reshape(-1)
    # A step ahead in the image is a step of its start: the places need not be added to.
    corners = [flat[ahead:].take(place, mode="wrap") for ahead in (0, right, below, below + right)]
    return _between(_between(corners[0], corners[1], along), _between(corners[2], corners[3], along), down)


def _floored(places: Doubles, size: int) -> tuple[npt.NDArray[np.int32], Floats]:
    """Returns the pixel before each place, of which there is another behind it, and the fraction of the way there."""
    inner = places.astype(np.float32)
    np.clip(inner, 0, np.nextafter(np.float32(max(size - 1, 1)), np.float32(0)), out=inner)
    if size == 1:
        inner[:] = 0
    first = np.floor(inner)
    inner -= first
    return first.astype(np.int32), inner


def _between(one: Floats, two: Floats, fraction: Floats) -> Floats:
    two -= one
    two *= fraction
    two += one
    return two


def _smoothed(pixels: Lazy, rows: npt.NDArray[Any], cols: npt.NDArray[Any], sigma: float) -> Floats:
    """Smooths an image, its edge pixels going on beyond it, and samples it where given rows and columns cross.

    Both are linear along each axis: products with matrices that are bands, so that only small parts along the diagonal
    are multiplied, and nothing is computed where nothing is sampled.
    """
    down, across = _Weights.of(rows, pixels.shape[0], sigma), _Weights.of(cols, pixels.shape[1], sigma)
    those = across.pixels(slice(None))
    blocks = [(block, across.pixels(block), across.matrix(block).T) for block in across.blocks(0)]
    values = np.empty((len(rows), len(cols)), dtype=np.float32)
    for some in down.blocks(READ):
        these = down.pixels(some)
        part = np.asarray(pixels[these, those], dtype=np.float32)
        between = np.empty((some.stop - some.start, part.shape[1]), dtype=np.float32)
        for block in down.blocks(0, some):
            needed = down.pixels(block)
            inner = part[needed.start - these.start : needed.stop - these.start]
            np.matmul(down.matrix(block), inner, out=between[block.start - some.start : block.stop - some.start])
        for block, needed, matrix in blocks:
            values[some, block] = between[:, needed.start - those.start : needed.stop - those.start] @ matrix
    return values


@dataclass(frozen=True)
class _Weights:
    """What pixels along an axis weigh in samples.

    Attributes:
        places: the pixel of each weight, [samples, taps]; what lies beyond the image counts for its edge.
        weights: [samples, taps].
    """

    places: npt.NDArray[np.int64]
    weights: Floats

    @staticmethod
    def of(places: npt.NDArray[Any], size: int, sigma: float) -> "_Weights":
        """Makes the weights of samples at places that rise or fall."""
        first = np.floor(places).astype(np.int64)
        fraction = (places - first)[:, None]
        reach = int(4 * sigma + 0.5)
        gauss = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-9)) ** 2)
        gauss /= gauss.sum()
        weights = (1 - fraction) * np.append(gauss, 0) + fraction * np.append(0, gauss)
        taps = np.clip(first[:, None] + np.arange(-reach, reach + 2), 0, size - 1)
        return _Weights(taps, weights.astype(np.float32))

    def pixels(self, samples: slice) -> slice:
        """Returns the pixels that weigh in samples."""
        start, stop, _ = samples.indices(len(self.places))
        ends = (self.places.item(start, 0), self.places.item(start, -1))
        others = (self.places.item(stop - 1, 0), self.places.item(stop - 1, -1))
        return slice(min(ends[0], others[0]), max(ends[1], others[1]) + 1)

    def blocks(self, pixels: int, within: slice = slice(None)) -> Iterator[slice]:
        """Divides samples into blocks for which about so many pixels are needed, BLOCK samples or a multiple each."""
        start, stop, _ = within.indices(len(self.places))
        span = self.pixels(within)
        each = max(1.0, (span.stop - span.start) / max(1, stop - start))
        step = BLOCK * max(1, round(pixels / (BLOCK * each)))
        for begin in range(start, stop, step):
            yield slice(begin, min(begin + step, stop))

    def matrix(self, samples: slice) -> Floats:
        """Returns the weights of all pixels that weigh in samples, [samples, pixels]."""
        places, span = self.places[samples], self.pixels(samples)
        number, width = len(places), span.stop - span.start
        cells = np.arange(number)[:, None] * width + places - span.start
        found = np.bincount(cells.ravel(), self.weights[samples].ravel(), number * width)
        return found.reshape(number, width).astype(np.float32)
