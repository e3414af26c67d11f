"""What reading an image file gives: its pixels and facts, its header alone, or the reason why it cannot be used."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# Kinds of image that are left out unless a source is known to use them, or the user asks for them.
ACCEPTABLE = ("secondary_capture", "implant")
# Mammograms have up to some 30 million pixels; more than this is no mammogram, and would fill a worker's memory.
MAXIMUM_PIXELS = 100_000_000


class ImageError(Exception):
    """An image that cannot be used; its message is a short reason without any value that identifies a person."""


@dataclass(frozen=True)
class Image:
    """One mammogram in presentation space.

    Attributes:
        pixels: grey values (rows, cols), 0 = black, 1 = white; 0 where there is padding.
        padding: True where a pixel shows nothing (rows, cols), or None where the file names no padding.
        spacing_mm: pixel spacing in mm in the plane of the breast, or None where the file does not say.
        laterality: "L", "R" or None.
        view: "CC", "MLO", another view position in upper case, or None.
    """

    pixels: Floats
    padding: Bools | None
    spacing_mm: float | None
    laterality: str | None
    view: str | None


@dataclass(frozen=True)
class Header:
    """What a file says of its image before any pixel is read.

    Attributes:
        kind: "DICOM", "PNG", "PGM" or "TIFF".
        syntax: name of the transfer syntax in the standard; None for pictures and where the file does not say.
        rows: number of rows.
        columns: number of columns.
        bits: bits stored for a pixel, or the picture's depth, or None where the file does not say.
        photometric: MONOCHROME1, MONOCHROME2, ..., or None.
        grey: how stored values become grey: "window", "window, 2 alternatives", "sigmoid window",
            "linear exact window", "VOI LUT" or "no window".
        padding: "value", "range" or None.
        spacing_mm: pixel spacing in mm in the plane of the breast, or None.
        spacing_from: the element it comes from, or None.
        laterality: "L", "R" or None.
        view: "CC", "MLO", another view position in upper case, or None.
        vendor: a word of siamray.data.vendors.VENDORS, or None.
        reason: why read_image would leave the image out, as far as the header tells; None where it may be used.
    """

    kind: str
    syntax: str | None
    rows: int
    columns: int
    bits: int | None
    photometric: str | None
    grey: str
    padding: str | None
    spacing_mm: float | None
    spacing_from: str | None
    laterality: str | None
    view: str | None
    vendor: str | None
    reason: str | None


def check_size(rows: int, columns: int, maximum_pixels: int) -> None:
    """Raises ImageError for an image of more than maximum_pixels, before memory is taken for it."""
    if rows * columns > maximum_pixels:
        raise ImageError(f"too large for a mammogram: {rows} x {columns} pixels")
