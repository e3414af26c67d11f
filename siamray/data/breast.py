"""A mammogram goes in; where the breast is, at which side its chest wall lies, and the box to crop to come out."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from skimage.transform import resize

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# The mask is sought on an image of this longer side: the skin line is found to about half a millimetre, in 50 ms.
WORKING_PIXELS = 384
# Share of the way from the background's level to the tissue's at which the fading skin counts as breast.
SKIN_LEVEL = 0.12
# Where the dark class is brighter than this share of the bright one, it is tissue too: the breast fills the frame.
FILLED_LEVEL = 0.5
# Radius of the opening that cuts labels and film edges off the breast, as a share of the longer side.
OPENING_SHARE = 0.03
# A component that fills its upright bounding box, at most this share of the image wide or high, is a strip of film.
STRIP_SHARE = 0.25
STRIP_EXTENT = 0.9


def breast_mask(pixels: Floats, padding: Bools | None = None) -> Bools:
    """Finds the breast, pectoral muscle included, and leaves out background, labels, markers and film edges.

    The threshold lies a little above the most frequent background level (searched below Otsu's threshold), so the
    background need not be zero; an opening cuts off what merely touches the breast; the largest component that is not a
    strip is kept and its holes are filled.

    Args:
        pixels: image in presentation space (rows, cols), 1 = white.
        padding: pixels that show nothing (rows, cols), or None.

    Returns:
        True where the breast is (rows, cols); all False where there is none.
    """
    rows, cols = pixels.shape
    scale = min(1.0, WORKING_PIXELS / max(rows, cols))
    shape = (max(1, round(rows * scale)), max(1, round(cols * scale)))
    small = np.asarray(resize(pixels, shape, order=1, anti_aliasing=scale < 1), dtype=np.float32)
    seen = np.ones(shape, dtype=bool)
    if padding is not None and padding.any():
        seen = np.asarray(resize(padding.astype(np.float32), shape, order=1)) < 0.5
    smooth = ndimage.gaussian_filter(np.where(seen, small, 0), 1.5)
    threshold = _threshold(smooth[seen])
    if threshold is None:
        return np.zeros((rows, cols), dtype=bool)
    radius = max(1, round(OPENING_SHARE * max(shape)))
    breast = _largest_component(_opened((smooth > threshold) & seen, radius))
    breast = ndimage.binary_fill_holes(breast) & seen
    full = np.asarray(resize(breast.astype(np.float32), (rows, cols), order=1)) > 0.5
    return full if padding is None else full & ~padding


def _threshold(values: Floats) -> float | None:
    """Returns the grey level above which there is breast, or None where the image is of one grey."""
    if values.size == 0 or float(values.max()) - float(values.min()) < 1e-3:
        return None
    otsu = float(threshold_otsu(values, nbins=256))
    dark, bright = values[values <= otsu], values[values > otsu]
    if dark.size == 0 or bright.size == 0:
        return None
    counts, edges = np.histogram(dark, bins=64)
    peak = int(counts.argmax())
    background = float(edges[peak] + edges[peak + 1]) / 2
    tissue = float(np.median(bright))
    if background > FILLED_LEVEL * tissue and background - float(values.min()) > SKIN_LEVEL * tissue:
        # The dark peak is tissue, and something darker still exists: that is the background.
        background = float(values.min())
    return background + SKIN_LEVEL * (tissue - background)


def _opened(mask: Bools, radius: int) -> Bools:
    """Opens a mask with a disk; it is mirrored at the image's edge, lest corners of the breast be cut."""
    padded = np.pad(mask, radius + 1, mode="symmetric")
    # Two distance transforms are the erosion and the dilation by a disk, and faster than either.
    eroded = ndimage.distance_transform_edt(np.pad(padded, 1, mode="edge"))[1:-1, 1:-1] > radius
    opened = ndimage.distance_transform_edt(~eroded) <= radius if eroded.any() else eroded
    inside = slice(radius + 1, -radius - 1)
    return np.asarray(opened[inside, inside] & mask)


def _largest_component(mask: Bools) -> Bools:
    """Returns the largest component that is no strip of film edge, or the largest of all if all are strips."""
    labels = label(mask, connectivity=1)
    regions = sorted(regionprops(labels), key=lambda region: region.area, reverse=True)
    if not regions:
        return np.zeros_like(mask)

    def is_strip(region: Any) -> bool:
        row_min, col_min, row_max, col_max = region.bbox
        narrow = min((row_max - row_min) / mask.shape[0], (col_max - col_min) / mask.shape[1]) < STRIP_SHARE
        return narrow and bool(region.extent > STRIP_EXTENT)

    chosen = next((region for region in regions if not is_strip(region)), regions[0])
    return np.asarray(labels == chosen.label)


def chest_side(mask: Bools, pixels: Floats) -> str:
    """Tells at which side the chest wall lies: where the breast ends in a straight upright edge.

    Both ends of every row of the mask are compared with the mask's outermost columns: at the chest wall nearly all rows
    reach them, at the nipple few do. Where both sides are about as straight (the breast fills the frame), the brighter
    side is taken, as the pectoral muscle is bright.

    Args:
        mask: the breast (rows, cols).
        pixels: image in presentation space (rows, cols), used where the mask is symmetric.

    Returns:
        ``"left"`` or ``"right"``; ``"left"`` for an empty mask.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return "left"
    inside = mask[rows]
    first = inside.argmax(axis=1)
    last = inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
    width = int(last.max()) - int(first.min()) + 1
    near = max(2.0, 0.03 * width)
    left = float(np.mean(first - first.min() <= near))
    right = float(np.mean(last.max() - last <= near))
    if abs(left - right) > 0.05:
        return "left" if left > right else "right"
    edge = max(1, width // 5)
    bright_left = float(pixels[:, first.min() : first.min() + edge].mean())
    bright_right = float(pixels[:, last.max() + 1 - edge : last.max() + 1].mean())
    return "left" if bright_left >= bright_right else "right"


def crop_box(mask: Bools, margin_pixels: int) -> tuple[int, int, int, int]:
    """Returns the mask's bounding box with a margin, within the image; no margin at the left, the chest wall.

    Args:
        mask: the breast (rows, cols) with its chest wall at the left; not empty.
        margin_pixels: margin at the top, bottom and right, in pixels.

    Returns:
        row_min, col_min, row_max, col_max; the maxima are exclusive.
    """
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        max(0, int(rows[0]) - margin_pixels),
        int(cols[0]),
        min(mask.shape[0], int(rows[-1]) + 1 + margin_pixels),
        min(mask.shape[1], int(cols[-1]) + 1 + margin_pixels),
    )
