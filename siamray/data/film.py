"""A mammogram goes in; a small view of it without frames, and what its background is like, come out."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from siamray.data.image import STRIP_ROWS, Lazy

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]

# The mask is sought on an image of about this longer side: the skin line is found to about half a millimetre.
WORKING_PIXELS = 384
# A line of the image's edge is frame where its greys spread less than this share of the range, and lie at its dark or
# bright end; this share of them, the darkest, and the brightest, may be others.
FRAME_SPREAD, FRAME_REST = 0.04, 0.02
DARK, BRIGHT = 0.1, 0.9
# A background is even where this share of what is dark along the image's edge lies this near its most frequent grey.
EVEN, EVEN_SHARE = 0.025, 0.55
# It slopes where a plane, the best of this many, has this share more of it near.
SLOPING, PLANES = 0.15, 200
# A sloping background spreads about a plane by less than this share of its distance to the tissue; where
# the breast fills the frame it is more than .1.
BACKGROUND_SPREAD = 0.09
# Greys that much darker than the level found are a background of their own, if they are not as rare as this.
DARKER, RARE = 0.15, 0.06
# Where the darkest that the image's edge shows is brighter than this share of the tissue, there is no background.
FILLED_LEVEL = 0.35
# An image is inverted where its edge shows the bright peak this many times as often as the dark one (mini-MIAS: at
# most 1.7 times; inverted more than that in 19 of 20), and the bright one lies at the bright end.
INVERTED_RATIO, INVERTED_PEAK = 2.0, 0.92


@dataclass(frozen=True)
class View:
    """The image at working size, its greys stretched to 0..1.

    Attributes:
        values: smoothed greys (rows, cols).
        seen: neither padding nor frame (rows, cols).
        window: rows and columns within the frame.
        dark_frame: whether a twentieth of the image or more was dark frame.
    """

    values: Floats
    seen: Bools
    window: tuple[slice, slice]
    dark_frame: bool


def reduced(pixels: Lazy, padding: Lazy | None) -> tuple[Floats, Floats, int]:
    """Reduces an image to about the working size.

    Args:
        pixels: grey values (rows, cols).
        padding: True where a pixel shows nothing (rows, cols), or None.

    Returns:
        Means of square blocks over what is no padding, the share of each block that is none, and the blocks' edge.
    """
    block = max(1, round(max(pixels.shape) / WORKING_PIXELS))
    rows, cols = np.arange(0, pixels.shape[0], block), np.arange(0, pixels.shape[1], block)
    sums = np.empty((rows.size, cols.size), dtype=np.float32)
    heights, widths = (
        np.diff(np.append(starts, size)) for starts, size in zip((rows, cols), pixels.shape, strict=True)
    )
    areas = (heights[:, None] * widths).astype(np.float32)
    counts = areas.copy()
    # Some rows of blocks at a time: no copy of the whole image is made, however large it is.
    step = max(1, STRIP_ROWS // block)
    for start in range(0, rows.size, step):
        some = slice(start, min(start + step, rows.size))
        strip = slice(start * block, some.stop * block)
        greys = np.asarray(pixels[strip, :], dtype=np.float32)
        if padding is not None and (padded := padding[strip, :]).any():
            greys = np.where(padded, np.float32(0), greys)
            counts[some] -= np.add.reduceat(_row_sums(padded.astype(np.float32), block), cols, axis=1)
        sums[some] = np.add.reduceat(_row_sums(greys, block), cols, axis=1)
    means, shares = sums / np.maximum(counts, 1), counts / areas
    return np.asarray(means, dtype=np.float32), np.asarray(shares, dtype=np.float32), block


def _row_sums(pixels: Floats, block: int) -> Floats:
    """Adds up every so many rows; the last sum may be of fewer."""
    whole = len(pixels) // block
    # Faster than a sum over an axis.
    sums = np.einsum("abc->ac", pixels[: whole * block].reshape(whole, block, -1))
    if whole * block == len(pixels):
        return np.asarray(sums)
    return np.concatenate([sums, pixels[whole * block :].sum(axis=0, keepdims=True)])


def stretched(small: Floats, seen: Bools) -> View | None:
    """Stretches the greys to 0..1, takes frames off and smooths; None where all is of one grey."""
    if not seen.any():
        return None
    low, high = _quantiles(small[seen], (0.002, 0.998))
    if high - low < 1e-3:
        return None
    values = np.clip((small - low) / (high - low), 0, 1).astype(np.float32)
    window = _within_frame(values, seen)
    inner = np.zeros_like(seen)
    inner[window] = seen[window]
    if not inner.any():
        return None
    # Smoothed within what is seen (a normalised convolution): padding must not darken the chest wall.
    weight = _smooth_weight(inner, window, 1.2)
    smooth = ndimage.gaussian_filter(np.where(inner, values, 0), 1.2) / np.maximum(weight, 1e-3)
    frame = values[seen & ~inner]
    dark_frame = frame.size > 0.05 * seen.sum() and median(frame) < 0.5
    return View(np.where(inner, smooth, 0).astype(np.float32), inner, window, dark_frame)


def otsu_threshold(values: Floats) -> float:
    """Returns Otsu's threshold of 256 classes of grey: as scikit-image's, in a third of the time."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return low
    counts = np.bincount(np.minimum((values - low) * (256 / (high - low)), 255).astype(np.uint8), minlength=256)
    centres = low + (np.arange(256) + 0.5) * ((high - low) / 256)
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    with np.errstate(invalid="ignore"):
        mean_below = np.cumsum(counts * centres) / below
        mean_above = (np.cumsum((counts * centres)[::-1]) / above[::-1])[::-1]
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(centres[int(np.nanargmax(between))])


def median(values: Floats) -> float:
    """Returns the median, of an even number of values the upper one of both in the middle: numpy's takes thrice."""
    return float(np.partition(values, values.size // 2)[values.size // 2])


def _quantiles(values: Floats, shares: tuple[float, float]) -> tuple[float, float]:
    """Returns two quantiles, as np.quantile does, which takes ten times as long where values are few."""
    places = [share * (values.size - 1) for share in shares]
    ends = [min(int(place) + more, values.size - 1) for place in places for more in (0, 1)]
    found = np.partition(values, ends)[ends].astype(np.float64)
    low, high = (found[2 * end] + (places[end] % 1) * (found[2 * end + 1] - found[2 * end]) for end in (0, 1))
    return float(low), float(high)


def _smooth_weight(inner: Bools, window: tuple[slice, slice], sigma: float) -> Floats:
    """Returns a smoothed mask; of one that fills its window, rows and columns are smoothed each for itself."""
    if not inner[window].all():
        return np.asarray(ndimage.gaussian_filter(inner.astype(np.float32), sigma))
    lines = []
    for part, size in zip(window, inner.shape, strict=True):
        line = np.zeros(size, dtype=np.float32)
        line[part] = 1
        lines.append(ndimage.gaussian_filter1d(line, sigma))
    return np.asarray(lines[0][:, None] * lines[1])


def _within_frame(values: Floats, seen: Bools) -> tuple[slice, slice]:
    """Returns the window that is left when even, very dark or very bright lines are taken off from all four sides."""
    even, bounds = [], []
    known = np.where(seen, values, np.float32(np.inf)), np.where(seen, values, np.float32(-np.inf))
    for axis in (1, 0):
        low, high = known[0].min(axis=axis).astype(np.float64), known[1].max(axis=axis).astype(np.float64)
        # A part of an even line is even, too.
        even.append(((high - low < FRAME_SPREAD) & ((high < DARK) | (low > BRIGHT))).tolist())
        lines = np.flatnonzero(np.isfinite(low))
        bounds += [int(lines[0]), int(lines[-1]) + 1]
    # Lengths from which on the line at each side is surely no frame: to be so, it must lose what is of no frame's grey.
    sure = [math.inf] * 4

    def is_frame(side: int) -> bool:
        across, place = side // 2, bounds[side] - side % 2
        start, stop = bounds[2 - 2 * across : 4 - 2 * across]
        if even[across][place]:
            return True
        if stop - start >= sure[side]:
            return False
        part = (place, slice(start, stop)) if across == 0 else (slice(start, stop), place)
        greys = values[part][seen[part]]
        if greys.size == 0:
            return True
        other = min(np.count_nonzero(greys >= DARK), np.count_nonzero(greys <= BRIGHT))
        spare = int(other - FRAME_REST * greys.size - 2)
        if spare > 0:
            sure[side] = stop - start - spare
            return False
        return _is_even(*_quantiles(greys, (FRAME_REST, 1 - FRAME_REST)))

    shrinking = True
    while shrinking and bounds[1] - bounds[0] > 4 and bounds[3] - bounds[2] > 4:
        shrinking = False
        for side in range(4):
            if is_frame(side):
                bounds[side] += 1 - 2 * (side % 2)
                sure[side], shrinking = math.inf, True
    return slice(bounds[0], bounds[1]), slice(bounds[2], bounds[3])


def _is_even(low: float, high: float) -> bool:
    return high - low < FRAME_SPREAD and (high < DARK or low > BRIGHT)


def _edge(view: View, width: int) -> Bools:
    """Returns where the seen part of the window is near its four sides."""
    edge = np.zeros_like(view.seen)
    edge[view.window] = True
    inner = tuple(slice(part.start + width, max(part.start + width, part.stop - width)) for part in view.window)
    edge[inner[0], inner[1]] = False
    return edge & view.seen


def is_inverted(view: View) -> bool:
    """Tells whether the grey that the image's edge mostly shows is the bright class's peak, not the dark one's.

    An even dark part around it is background, as detectors blacken it: then the image is not inverted.
    """
    if view.dark_frame:
        return False
    values = view.values[view.seen]
    otsu = otsu_threshold(values)
    edge = view.values[_edge(view, 1)]
    peaks: list[float] = []
    shares: list[tuple[float, float]] = []
    for part in (values[values <= otsu], values[values > otsu]):
        if part.size == 0:
            return False
        counts, steps = np.histogram(part, bins=50, range=(0, 1))
        peaks.append(float(steps[np.convolve(counts, [1, 1, 1], "same").argmax()]) + 0.01)
        near_edge, near = (np.abs(greys - peaks[-1]) < 0.04 for greys in (edge, values))
        shares.append((float(near_edge.mean()), float(near.mean())))
    (dark_edge, dark), (bright_edge, bright) = shares
    often = bright_edge + 0.02 > INVERTED_RATIO * (dark_edge + 0.02)
    return often and bright > 0.4 * dark and peaks[1] > INVERTED_PEAK


def background_level(view: View, otsu: float, tissue: float, small: Floats) -> Floats | None:
    """Returns the background's level, a plane fitted to what is dark along the image's edge; None if there is none."""
    edge = _edge(view, 5)
    dark = edge & (view.values <= otsu)
    if dark.sum() < max(8, 0.02 * edge.sum()):
        return None
    rows, cols = np.nonzero(dark)
    greys = view.values[dark]
    counts, steps = np.histogram(greys, bins=25, range=(0, otsu))
    peak = float(steps[np.convolve(counts, [1, 1, 1], "same").argmax()]) + 0.5 * otsu / 25
    kept = np.abs(greys - peak) < EVEN
    level, spread = np.full(view.values.shape, float(np.median(greys[kept])), dtype=np.float32), 0.0
    share = float(kept.mean())
    # A background of nearly one grey, such as digital detectors show, can have no more near a plane.
    if share + SLOPING < 1:
        slope, about = _plane(rows, cols, greys, view.values.shape)
        if share < EVEN_SHARE or np.mean(np.abs(greys - slope[dark]) < EVEN) > share + SLOPING:
            level, spread = slope, about
    # Where tissue reaches the image's edge everywhere, it can be as even; then there is darker still, or no background.
    tissue_grey = median(small[view.seen & (view.values > otsu)])
    bright = float(np.median(small[dark])) > FILLED_LEVEL * tissue_grey
    darker = float((greys < level[dark] - DARKER).mean()) > RARE
    even = spread < BACKGROUND_SPREAD * (tissue - float(np.median(greys)))
    if even and not (bright and darker):
        return level
    counts, steps = np.histogram(greys, bins=20, range=(0, otsu))
    darkest = float(steps[int(np.argmax(counts >= RARE * greys.size))])
    near = dark & (view.values >= darkest) & (view.values <= darkest + otsu / 20)
    if float(np.median(small[near])) > FILLED_LEVEL * tissue_grey:
        return None
    return np.full(view.values.shape, float(np.median(view.values[near])), dtype=np.float32)


def _plane(rows: Ints, cols: Ints, greys: Floats, shape: tuple[int, ...]) -> tuple[Floats, float]:
    """Fits a plane to the greys that most agree upon; returns it and the spread of all greys about it."""
    size = np.asarray(shape, dtype=np.float64)
    design = np.stack([np.ones(rows.size), rows / size[0] - 0.5, cols / size[1] - 0.5], axis=1)
    kept = _agreeing(design, greys)
    for _ in range(4):
        some = design[kept]
        # Three equations: a singular value decomposition of thousands of greys would take ten times as long.
        plane = np.linalg.lstsq(some.T @ some, some.T @ greys[kept], rcond=None)[0]
        residual = greys - design @ plane
        found = some @ plane
        kept = np.abs(residual) < max(3 * 1.4826 * float(np.median(np.abs(residual[kept]))), 0.01)
    down, along = np.arange(size[0])[:, None] / size[0] - 0.5, np.arange(size[1])[None, :] / size[1] - 0.5
    level = np.clip(plane[0] + plane[1] * down + plane[2] * along, found.min(), found.max())
    return level.astype(np.float32), 1.4826 * float(np.median(np.abs(residual)))


def _agreeing(design: Doubles, greys: Floats) -> Bools:
    """Returns which greys lie near the plane through three of them that has most greys near it (RANSAC)."""
    chosen = np.random.default_rng(0).integers(greys.size, size=(PLANES, 3))
    thin = slice(None, None, max(1, greys.size // 500))
    # Three nearly in a line make no plane: a little ridge keeps it flat.
    points, values = design[chosen], greys[chosen].astype(np.float64)[..., None]
    ridge = 1e-6 * np.eye(3)
    planes = np.linalg.solve(points.transpose(0, 2, 1) @ points + ridge, points.transpose(0, 2, 1) @ values)[..., 0]
    near = np.abs(greys[thin][None, :] - planes @ design[thin].T) < EVEN
    best = planes[int(near.sum(axis=1).argmax())]
    return np.asarray(np.abs(greys - design @ best) < EVEN)
