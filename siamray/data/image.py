"""What reading an image file gives: its pixels and facts, its header alone, or the reason why it cannot be used."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# Kinds of image that are left out unless a source is known to use them, or the user asks for them.
ACCEPTABLE = ("secondary_capture", "implant")
# Mammograms have up to some 30 million pixels; more than this is no mammogram, and would fill a worker's memory.
MAXIMUM_PIXELS = 100_000_000
# Rows looked up at a time.
STRIP_ROWS = 64


class ImageError(Exception):
    """An image that cannot be used; its message is a short reason without any value that identifies a person."""


class Lazy(Protocol):
    """An image whose parts are made when they are asked for; arrays are such, too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    def __getitem__(self, part: tuple[slice, slice], /) -> npt.NDArray[Any]:
        """Returns rows and columns of it."""


@dataclass(frozen=True)
class LookedUp:
    """Stored pixels and what each of their values means: a part is looked up when it is asked for.

    The image as a whole, in memory, would cost more time than looking it up twice, and three times the memory.

    Attributes:
        stored: uint8 or uint16 (rows, cols).
        table: the meaning of each value that stored can have, (256,) or (65536,).
    """

    stored: npt.NDArray[Any]
    table: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.stored.shape

    def __getitem__(self, part: tuple[slice, slice], /) -> npt.NDArray[Any]:
        """Looks a part up, a copy."""
        # The table has an entry for each value: nothing wraps, but numpy wraps faster than it cuts or complains.
        return np.take(self.table, self.stored[part], mode="wrap")

    def whole(self) -> npt.NDArray[Any]:
        """Looks all of it up, bit by bit: numpy takes eight bytes a pixel meanwhile."""
        found = np.empty(self.shape, dtype=self.table.dtype)
        for start in range(0, self.shape[0], STRIP_ROWS):
            rows = slice(start, start + STRIP_ROWS)
            found[rows] = self[rows, :]
        return found


@dataclass(frozen=True)
class Blocks:
    """An image of which each value stands for a square block of an original image's pixels.

    Attributes:
        values: (rows, cols); the last of either may stand for a part of a block.
        edge: rows and columns of a block.
        shape: rows and columns of the original image.
    """

    values: npt.NDArray[Any]
    edge: int
    shape: tuple[int, int]


@dataclass(frozen=True)
class Image:
    """One mammogram in presentation space.

    Attributes:
        grey: grey values (rows, cols), 0 = black, 1 = white; 0 where there is padding. Its parts are float32 arrays.
        padded: True where a pixel shows nothing (rows, cols), or None where the file names no padding.
        spacing_mm: pixel spacing in mm in the plane of the breast, or None where the file does not say.
        laterality: "L", "R" or None.
        view: "CC", "MLO", another view position in upper case, or None.
    """

    grey: Floats | LookedUp
    padded: Bools | LookedUp | None
    spacing_mm: float | None
    laterality: str | None
    view: str | None

    @property
    def pixels(self) -> Floats:
        """All grey values as one array (rows, cols)."""
        return self.grey.whole() if isinstance(self.grey, LookedUp) else self.grey

    @property
    def padding(self) -> Bools | None:
        """All that is padding as one array (rows, cols), or None where the file names no padding."""
        return self.padded.whole() if isinstance(self.padded, LookedUp) else self.padded


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
