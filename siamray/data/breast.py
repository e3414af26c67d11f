"""A mammogram goes in; where the breast is, at which side its chest wall lies, and the box to crop to come out."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from siamray.data.film import View, background_level, is_inverted, median, otsu_threshold, reduced, stretched
from siamray.data.image import Blocks, Lazy

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Window = tuple[slice, slice]

# Share of the way from the background's level to the tissue's that surely is breast, and from which the skin is sought.
SURE_LEVEL = 0.06
# Share of that way at which the fading skin ends: film shows it to 12 mm beyond the sure level, dense breasts most.
SKIN_LEVEL = 0.015
# Greys that fall by less than this over a length of the longer side are background: a slope of the film, not skin.
FALL_PER_SIDE = 0.6
# The skin lies at most this far beyond the sure breast, as a share of the longer side; more would be fogged film.
SKIN_SHARE = 0.07
# Background this near, in pixels at working size, tells the level that the skin's greys sink to.
NEARBY = 16
# Radius of the opening that cuts labels and film edges off the breast, as a share of the longer side.
OPENING_SHARE = 0.03
# A component that fills its upright bounding box, at most this share of the image wide or high, is a strip of film.
STRIP_SHARE = 0.25
STRIP_EXTENT = 0.9
# A strip of tissue narrower than this share of the breast that does not taper over this share of the longer side.
TAIL_WIDTH, TAIL_LENGTH = 0.22, 0.04
# A label is smaller than this share of the image, fills its bounding box by more than this, and this share of what
# surrounds it is dark.
LABEL_SHARE, LABEL_EXTENT, LABEL_DARK = 0.04, 0.65, 0.4
# Difference of the shares of rows that reach either side, below which the orientation is a guess, and above which sure.
UNSURE, SURE = 0.15, 0.45
# From this certainty on an orientation may be held against a header.
CERTAIN = 0.5


@dataclass(frozen=True)
class Breast:
    """What was found in an image.

    Attributes:
        blocks: True where the breast is, by blocks of the image's pixels; all False where there is none.
        greys: mean grey of each block, padding left out (rows, cols of blocks).
        padding: pixels that show nothing, where blocks of the breast hold any; they are no breast. Else None.
        inverted: whether the background is bright and the breast dark, so that the greys must not be used as they are.
    """

    blocks: Blocks
    greys: Floats
    padding: Lazy | None
    inverted: bool

    @property
    def mask(self) -> Bools:
        """True where the breast is, pixel by pixel (rows, cols)."""
        mask = _enlarged(self.blocks)
        if self.padding is not None:
            mask &= ~np.asarray(self.padding[:, :])
        return mask


@dataclass(frozen=True)
class Orientation:
    """Where the chest wall lies.

    Attributes:
        side: ``"left"`` or ``"right"`` edge of the image.
        certainty: 0 (a guess) to 1; at CERTAIN and above it may be held against what a header says.
    """

    side: str
    certainty: float


def find_breast(pixels: Lazy, padding: Lazy | None = None) -> Breast:
    """Finds the breast, pectoral muscle included, and leaves out background, labels, markers, frames and film edges.

    The background is what the image's edge shows that is dark and even; its level may slope. What is clearly brighter
    is breast, opened so that what merely touches it is cut off: the largest component that is no strip. From there the
    mask grows to the skin, where the greys sink to the level of the background nearby.

    Args:
        pixels: image in presentation space (rows, cols), 1 = white.
        padding: pixels that show nothing (rows, cols), or None.

    Returns:
        The mask, and whether the image looks inverted; then the mask is sought in its negative.
    """
    shape = pixels.shape[0], pixels.shape[1]
    greys, share, edge = reduced(pixels, padding)
    view = stretched(greys, np.asarray(share > 0.5))
    if view is None:
        return Breast(Blocks(np.zeros(greys.shape, dtype=bool), edge, shape), greys, None, False)
    inverted = is_inverted(view)
    small = greys
    if inverted:
        view = replace(view, values=np.where(view.seen, 1 - view.values, 0).astype(np.float32))
        small = float(small.max()) - small
    mask = _breast(view, small)
    touched = padding is not None and bool((share[mask] < 1).any())
    return Breast(Blocks(mask, edge, shape), greys, padding if touched else None, inverted)


def _breast(view: View, small: Floats) -> Bools:
    """Returns the mask at working size."""
    values, seen = view.values, view.seen
    otsu = otsu_threshold(values[seen])
    bright = values[seen & (values > otsu)]
    if bright.size == 0:
        return np.zeros_like(seen)
    tissue = median(bright)
    background = background_level(view, otsu, tissue, small)
    if background is None:
        return seen.copy()
    longer = max(part.stop - part.start for part in view.window)
    radius = max(1, round(OPENING_SHARE * longer))
    sure = seen & (values > background + SURE_LEVEL * (tissue - background))
    labels = _touching_labels(view, background, tissue, radius)
    opened = np.zeros_like(sure)
    opened[view.window] = _opened((sure & ~labels)[view.window], radius)
    breast = _filled(_largest_component(opened, view.window)) & seen
    # What the opening cut off stays off, but for nipples and corners: the abdomen below the breast, an arm, a wire.
    cut = _larger_components(sure & ~breast, 2 * radius**2)
    return _without_tails(_grown_to_skin(view, breast, cut | labels, background, tissue), longer)


def _touching_labels(view: View, background: Floats, tissue: float, radius: int) -> Bools:
    """Returns labels that the opening would leave: bright, about rectangular, and mostly dark around."""
    dark = view.values < background + 0.25 * (tissue - background)
    found = np.zeros_like(dark)
    most = LABEL_SHARE * float(view.seen.sum())
    # A label hangs together with the tissue that it touches, unless it is whiter.
    for level in (background + 0.7 * (tissue - background), 0.5 * (tissue + 1)):
        for region in _regions(view.seen & (view.values > level)):
            if not radius**2 < region.area < most or _extent(region, region.window) < LABEL_EXTENT:
                continue
            rows, cols = region.window
            window = slice(max(0, rows.start - 5), rows.stop + 5), slice(max(0, cols.start - 5), cols.stop + 5)
            component = region.labels[window] == region.number
            wide, narrow = (ndimage.binary_dilation(component, iterations=steps) for steps in (5, 3))
            ring = wide & ~narrow & view.seen[window]
            if ring.any() and float(dark[window][ring].mean()) > LABEL_DARK:
                found[window] |= narrow
    return found


@dataclass(frozen=True)
class _Region:
    """A component of a mask: where labels have its number."""

    labels: npt.NDArray[Any]
    number: int
    area: int

    @property
    def window(self) -> Window:
        """The rows and columns it lies in."""
        return _box(self.labels == self.number)


def _extent(region: _Region, window: Window) -> float:
    """Returns the share of its window that a component fills."""
    rows, cols = window
    return region.area / float((rows.stop - rows.start) * (cols.stop - cols.start))


def _regions(mask: Bools) -> list[_Region]:
    """Returns the components of a mask, the largest first."""
    labels = _labelled(mask)
    areas = np.bincount(labels.ravel()).tolist()
    found = [_Region(labels, number, area) for number, area in enumerate(areas) if number > 0]
    return sorted(found, key=lambda region: region.area, reverse=True)


def _labelled(mask: Bools) -> npt.NDArray[np.int32]:
    """Numbers the components of a mask, from 1; only the box it lies in is looked at."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    box = _box(mask)
    ndimage.label(mask[box], output=labels[box])
    return labels


def _box(mask: Bools, margin: int = 0, window: Window | None = None) -> Window:
    """Returns the rows and columns that a mask lies in, with a margin within a window; none where it is empty."""
    rows, cols = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if rows.size == 0:
        return slice(0, 0), slice(0, 0)
    row, col = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)
    return (row, col) if window is None else (_widened(row, margin, window[0]), _widened(col, margin, window[1]))


def _widened(part: slice, margin: int, bounds: slice) -> slice:
    return slice(max(bounds.start, part.start - margin), min(bounds.stop, part.stop + margin))


def _filled(mask: Bools) -> Bools:
    """Fills holes: what hangs together with no edge of the box that the mask lies in."""
    filled, box = np.zeros_like(mask), _box(mask)
    labels, _ = ndimage.label(np.pad(~mask[box], 1, constant_values=True))
    # The first corner is outside, and so is all that hangs together with it.
    filled[box] = labels[1:-1, 1:-1] != labels[0, 0]
    return filled


def _within(mask: Bools, distance: float) -> Bools:
    """Returns what lies within a distance of a mask, to a pixel: it is found at every second row and column."""
    found = ~_eroded(~mask[::2, ::2], int(distance / 2), distance / 2)
    return np.asarray(found.repeat(2, axis=0).repeat(2, axis=1)[: mask.shape[0], : mask.shape[1]])


def _opened(mask: Bools, radius: int) -> Bools:
    """Opens a mask with a disk; it is mirrored at the image's edge, lest corners of the breast be cut."""
    eroded = _eroded(np.pad(mask, radius + 1, mode="symmetric"), radius)
    inside = slice(radius + 1, -radius - 1)
    return np.asarray(~_eroded(~eroded, radius)[inside, inside] & mask)


def _eroded(mask: Bools, radius: int, distance: float | None = None) -> Bools:
    """Returns where no False lies within a distance, the radius unless given; beyond the image's edge is none.

    Sums along rows tell of each row of the disk whether it holds one: many times as fast as a distance transform. They
    differ by less than 256 across a disk of fewer pixels, and so a byte is enough to tell whether they do.
    """
    rows, cols = mask.shape
    smallest = np.uint8 if radius < 128 else np.int32
    sums = np.cumsum(np.pad(~mask, ((radius, radius), (radius + 1, radius))), axis=1, dtype=smallest)
    found = np.zeros_like(mask)
    reach = radius if distance is None else distance
    for down in range(radius + 1):
        half = math.isqrt(int(reach**2 - down**2))
        begin, end = radius - half, radius + half + 1
        hit = sums[:, end : end + cols] != sums[:, begin : begin + cols]
        found |= hit[radius - down : radius - down + rows] | hit[radius + down : radius + down + rows]
    return ~found


def _largest_component(mask: Bools, window: Window) -> Bools:
    """Returns the largest component that is no strip of film edge, or the largest of all if all are strips."""
    regions = _regions(mask)
    if not regions:
        return np.zeros_like(mask)
    height, width = (part.stop - part.start for part in window)
    chosen = regions[0]
    for region in regions:
        rows, cols = region.window
        narrow = min((rows.stop - rows.start) / height, (cols.stop - cols.start) / width) < STRIP_SHARE
        if not (narrow and _extent(region, (rows, cols)) > STRIP_EXTENT):
            chosen = region
            break
    return np.asarray(chosen.labels == chosen.number)


def _larger_components(mask: Bools, area: float) -> Bools:
    """Returns the components of more pixels than an area."""
    labels = _labelled(mask)
    larger = np.bincount(labels.ravel()) > area
    larger[0] = False
    return np.asarray(larger[labels])


def _grown_to_skin(view: View, sure: Bools, barred: Bools, background: Floats, tissue: float) -> Bools:
    """Lets the sure breast grow to its skin: outwards as long as the greys fall, then back to what is above the rest.

    Films fade over a centimetre, each to another level; a fixed level would cut dense breasts and take in fogged film.
    """
    if not sure.any():
        return sure
    longer = max(part.stop - part.start for part in view.window)
    reach = max(2.0, SKIN_SHARE * longer)
    gap = tissue - background
    steep = np.zeros_like(view.values)
    # So smooth that every second row and column tell it.
    coarse = 0.5 * ndimage.gaussian_gradient_magnitude(view.values[view.window][::2, ::2], 1.25, mode="nearest")
    steep[view.window] = _doubled(coarse, steep[view.window].shape)
    within, dark = _within(sure, reach), view.values < background + SURE_LEVEL * gap
    free = view.seen & ~barred
    near, far = free & within, free & ~within & dark
    slope = max(FALL_PER_SIDE / longer, 2.5 * median(steep[far]) if far.any() else 0.0)
    fading = _connected_to(sure, near & (steep > slope))
    flat = free & ~fading & dark
    if not flat.any():
        return fading
    rough = view.values - ndimage.uniform_filter(view.values, 7)
    noise = 1.4826 * median(np.abs(rough[flat]))
    box = _box(fading, NEARBY, view.window)
    if not flat[box].any():
        box = view.window
    level = _level_nearby(view.values[box], flat[box])
    least = np.clip(np.maximum(SKIN_LEVEL * gap[box], 4 * noise), 0, SURE_LEVEL * gap[box])
    skin = sure[box] | (fading[box] & (view.values[box] > level + least))
    grown = np.zeros_like(sure)
    grown[box] = _opened(skin, max(1, round(0.3 * OPENING_SHARE * longer)))
    return _filled(_connected_to(sure, grown & ~barred)) & view.seen


def _level_nearby(values: Floats, flat: Bools) -> Floats:
    """Returns the smoothed grey of the nearest flat place, for all places.

    It is smooth, and so found at every second row and column, where that leaves flat places, and interpolated.
    """
    every = 2 if flat[::2, ::2].any() else 1
    places = ndimage.distance_transform_edt(~flat[::every, ::every], return_distances=False, return_indices=True)
    level = ndimage.gaussian_filter(values[::every, ::every][tuple(places)], 3 / every)
    return np.asarray(level) if every == 1 else _doubled(level, values.shape)


def _doubled(coarse: Floats, shape: tuple[int, ...]) -> Floats:
    """Interpolates between every second row and column of an array of a shape."""
    tall = np.empty((shape[0], coarse.shape[1]), dtype=np.float32)
    tall[::2], tall[1::2] = coarse, coarse[: shape[0] // 2]
    tall[1:-1:2] = 0.5 * (coarse[:-1] + coarse[1:])
    whole = np.empty(shape, dtype=np.float32)
    whole[:, ::2], whole[:, 1::2] = tall, tall[:, : shape[1] // 2]
    whole[:, 1:-1:2] = 0.5 * (tall[:, :-1] + tall[:, 1:])
    return whole


def _connected_to(sure: Bools, more: Bools) -> Bools:
    """Returns a mask, enlarged by what of another hangs together with it."""
    labels = _labelled(sure | more)
    return np.asarray(labels == np.bincount(labels[sure]).argmax())


def _without_tails(mask: Bools, longer: int) -> Bools:
    """Cuts off narrow strips above and below the breast that get no narrower: the abdomen, a film edge."""
    step = max(1, round(TAIL_LENGTH * longer))
    trimmed = mask.copy()
    for flip in (False, True):
        part = trimmed[::-1] if flip else trimmed
        widths = part.sum(axis=1)
        widest = int(widths.argmax())
        following = np.append(widths[step:], np.zeros(step))
        tail = (widths < TAIL_WIDTH * widths.max()) & (following > 0.85 * widths) & (np.arange(widths.size) > widest)
        if tail.any():
            part[int(tail.argmax()) :] = False
    return trimmed


def _enlarged(mask: Blocks) -> Bools:
    """Brings a mask of blocks back to pixels; its outline is interpolated between the blocks."""
    if mask.edge == 1:
        return np.array(mask.values)
    # Eight bits a pixel, and no other copy: the image may have 64 megapixels.
    picture = Image.fromarray(mask.values.astype(np.uint8) * np.uint8(255))
    rows, cols = mask.shape
    box = (0, 0, cols / mask.edge, rows / mask.edge)
    return np.asarray(picture.resize((cols, rows), Image.Resampling.BILINEAR, box=box)) > 127


def orientation(mask: Bools, pixels: Floats) -> Orientation:
    """Tells at which side the chest wall lies, and how certain that is.

    At the chest wall the breast ends in a straight upright edge: nearly all its rows reach the mask's outermost
    column, at the nipple few do. Where the breast fills the frame both sides are straight; then the side with
    more tissue rows counts, and last the brighter one, as the pectoral muscle is bright: a guess.

    Args:
        mask: the breast (rows, cols).
        pixels: image in presentation space (rows, cols), used where the mask is symmetric.

    Returns:
        The side and its certainty; left with certainty 0 for an empty mask.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return Orientation("left", 0.0)
    inside = mask[rows]
    first = inside.argmax(axis=1)
    last = inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
    start, stop = int(first.min()), int(last.max()) + 1
    near = max(2.0, 0.03 * (stop - start))
    left, right = float(np.mean(first - start <= near)), float(np.mean(stop - 1 - last <= near))
    difference = left - right
    if abs(difference) > UNSURE:
        certainty = float(np.clip((abs(difference) - UNSURE) / (SURE - UNSURE), 0, 1))
        return Orientation("left" if difference > 0 else "right", certainty)
    band = max(1, (stop - start) // 5)
    # The muscle lies in the upper part.
    upper = slice(int(rows[0]), int(rows[0]) + max(1, rows.size // 3))
    brightness = [_mean_inside(mask, pixels, upper, slice(begin, begin + band)) for begin in (start, stop - band)]
    return Orientation("left" if brightness[0] >= brightness[1] else "right", 0.0)


def _mean_inside(mask: Bools, pixels: Floats, rows: slice, cols: slice) -> float:
    inside = mask[rows, cols]
    return float(pixels[rows, cols][inside].mean()) if inside.any() else 0.0


def crop_box(mask: Bools | Blocks, margin_pixels: int, mirrored: bool = False) -> tuple[int, int, int, int]:
    """Returns the mask's bounding box with a margin, within the image; no margin at the left, the chest wall.

    Args:
        mask: the breast (rows, cols) with its chest wall at the left; not empty.
        margin_pixels: margin at the top, bottom and right, in pixels.
        mirrored: whether to mirror the mask first, as its chest wall is at the right.

    Returns:
        row_min, col_min, row_max, col_max in pixels of the original; the maxima are exclusive.
    """
    blocks = mask if isinstance(mask, Blocks) else Blocks(mask, 1, (mask.shape[0], mask.shape[1]))
    height, width = blocks.shape
    rows, cols = (np.flatnonzero(blocks.values.any(axis=axis)) for axis in (1, 0))
    top, bottom = int(rows[0]) * blocks.edge, min(height, (int(rows[-1]) + 1) * blocks.edge)
    left, right = int(cols[0]) * blocks.edge, min(width, (int(cols[-1]) + 1) * blocks.edge)
    if mirrored:
        left, right = width - right, width - left
    return max(0, top - margin_pixels), left, min(height, bottom + margin_pixels), min(width, right + margin_pixels)
