"""Stored values and their header go in; grey values in presentation space and the padding come out.

A mammogram's pixels have 16 bits at most, so whatever the header asks for is computed once for each of the values that
can be stored, in double precision, and the image is looked up in that table. pydicom's functions are not used: they
take sixteen bytes a pixel, and read look-up tables of 8 bits and of more than 256 entries, or negative slopes, wrongly.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from siamray.data.dicom_file import OVERLAY_BIT_POSITIONS
from siamray.data.image import Bools, ImageError, LookedUp

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
# Pixels counted at a time: temporary memory stays small whatever the size of the image.
_BLOCK = 2**20
# Every so manieth row and column is looked at first.
_EVERY = 8
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_WINDOWS = {"LINEAR": "window", "LINEAR_EXACT": "linear exact window", "SIGMOID": "sigmoid window"}


@dataclass(frozen=True)
class Layout:
    """How pixels are stored (PS3.5, 8.1.1).

    Attributes:
        rows: number of rows.
        columns: number of columns.
        allocated: bits each takes, 8 or 16.
        stored: bits that hold its value.
        high: place of the highest of these, counted from 0.
        signed: whether the value is a two's complement.
    """

    rows: int
    columns: int
    allocated: int
    stored: int
    high: int
    signed: bool

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return self.rows * self.columns

    @property
    def bytes(self) -> int:
        """Bytes that the pixels take uncompressed."""
        return self.pixels * self.allocated // 8

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the greatest value that can be stored."""
        least = -(2 ** (self.stored - 1)) if self.signed else 0
        return least, least + 2**self.stored - 1

    def values(self) -> Integers:
        """Returns the value of each pattern of bits of a pixel: overlays and other bits around it are masked."""
        patterns = np.arange(2**self.allocated, dtype=np.int64)
        bits = (patterns >> (self.high + 1 - self.stored)) & (2**self.stored - 1)
        return np.asarray(np.where(bits > self.limits[1], bits - 2**self.stored, bits))


@dataclass(frozen=True)
class _Lut:
    """A look-up table: values below first give the first entry, values beyond the last the last (PS3.3, C.11.2.1.1)."""

    first: int
    entries: Doubles
    bits: int

    def __call__(self, values: Doubles) -> Doubles:
        places = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return np.asarray(self.entries[places.astype(np.int64)])


def read_layout(dataset: Dataset) -> Layout:
    """Reads how pixels are stored.

    Raises:
        ImageError: an element is missing, or they cannot all be true.
    """
    rows, columns, allocated, stored, representation = (
        _integer(dataset, name) for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
    )
    high = stored - 1 if dataset.get("HighBit") is None else _integer(dataset, "HighBit")
    if rows < 1 or columns < 1:
        raise ImageError("the image has no rows or columns")
    if allocated not in (8, 16):
        raise ImageError(f"pixels of {allocated} bits; 8 and 16 are read")
    if not 8 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise ImageError(f"BitsStored {stored} and HighBit {high} do not fit pixels of {allocated} bits")
    if representation not in (0, 1):
        raise ImageError("PixelRepresentation is neither 0 nor 1")
    if photometric(dataset) not in _MONOCHROME:
        raise ImageError("its PhotometricInterpretation is neither MONOCHROME1 nor MONOCHROME2")
    return Layout(rows, columns, allocated, stored, high, representation == 1)


def photometric(dataset: Dataset) -> str | None:
    """Returns the photometric interpretation where it is a word of the standard (PS3.3, C.7.6.3.1.2)."""
    word = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    known = (*_MONOCHROME, "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
    return word if word in known else None


def _integer(dataset: Dataset, name: str) -> int:
    value = dataset.get(name)
    if value is None or value == "":
        raise ImageError(f"{name} is missing")
    if not isinstance(value, int):
        raise ImageError(f"{name} is no number")
    return int(value)


def grey_word(dataset: Dataset) -> str:
    """Says in words how stored values become grey, and between how many ways the header leaves the choice."""
    luts, windows = len(_luts(dataset)), len(_windows(dataset))
    if luts:
        word, ways = "VOI LUT", luts
    elif windows:
        word, ways = _WINDOWS.get(_function(dataset), "window"), windows
    else:
        word, ways = "no window", 1
    return word if ways == 1 else f"{word}, {ways} alternatives"


def padding_word(dataset: Dataset) -> str | None:
    """Says how the header names padding: by a value, by a range of values, or not at all."""
    if dataset.get("PixelPaddingValue") is None:
        return None
    return "value" if dataset.get("PixelPaddingRangeLimit") is None else "range"


def check_grey(dataset: Dataset, layout: Layout) -> None:
    """Raises ImageError where the header asks for a grey scale that cannot be."""
    _shown(np.array(layout.limits, dtype=np.int64), np.ones(2, dtype=np.bool_), dataset, layout)


def to_grey(patterns: npt.NDArray[Any], dataset: Dataset, layout: Layout) -> tuple[LookedUp, LookedUp | None]:
    """Brings stored pixels into presentation space.

    Args:
        patterns: pixels as they are stored, bits that are not theirs included; unsigned (rows, cols).
        dataset: the header.
        layout: how pixels are stored.

    Returns:
        Grey values in 0..1 (rows, cols), 0 where there is padding; and where that is, or None where none is named.

    Raises:
        ImageError: the header asks for what cannot be, contradicts the pixels, or they all look the same.
    """
    values = layout.values()
    padded = _padded(values, dataset, layout)
    seen, grey = _seen_and_grey(patterns, values, padded, dataset, layout)
    if not seen.any():
        raise ImageError("the image is blank: all its pixels are padding")
    if grey[seen].min() == grey[seen].max():
        raise ImageError("the image is blank: all its pixels have one value")
    inverse = str(dataset.get("PresentationLUTShape") or "").strip().upper() == "INVERSE"
    if inverse or photometric(dataset) == "MONOCHROME1":
        grey = 1 - grey
    looked_up = LookedUp(patterns, np.where(padded, 0, grey).astype(np.float32))
    return looked_up, None if dataset.get("PixelPaddingValue") is None else LookedUp(patterns, padded)


def _seen_and_grey(
    patterns: npt.NDArray[Any], values: Integers, padded: Bools, dataset: Dataset, layout: Layout
) -> tuple[Bools, Doubles]:
    """Returns which patterns occur and are no padding, or enough of them, and the grey of each pattern.

    Raises:
        ImageError: the header asks for what cannot be, or contradicts the pixels.
    """
    if _stretched(dataset) or int(np.bitwise_or.reduce(patterns, axis=None)) & _unused_bits(dataset, layout):
        seen = _occurring(patterns, len(values)) & ~padded
        _check_unused_bits(values, seen, dataset, layout)
        return seen, _shown(values, seen, dataset, layout)
    # Counting all pixels takes as long as reading them. Where only bits that are used are set, and a header's window or
    # table makes them grey, what occurs matters no more once two greys do.
    for part in (patterns[::_EVERY, ::_EVERY], patterns):
        seen = _occurring(part, len(values)) & ~padded
        grey = _shown(values, seen, dataset, layout)
        if seen.any() and grey[seen].min() < grey[seen].max():
            break
    return seen, grey


def _stretched(dataset: Dataset) -> bool:
    """Whether the header names no window and no table, so that the values that occur set the grey scale."""
    return not _luts(dataset) and not _windows(dataset)


def _occurring(patterns: npt.NDArray[Any], number: int) -> Bools:
    flat, found = patterns.reshape(-1), np.zeros(number, dtype=np.bool_)
    for start in range(0, flat.size, _BLOCK):
        found |= np.bincount(flat[start : start + _BLOCK], minlength=number) > 0
    return found


def _padded(values: Integers, dataset: Dataset, layout: Layout) -> Bools:
    """Finds the patterns that are padding; PS3.3 C.7.5.1.1.2: a value, or a range in either order."""
    if dataset.get("PixelPaddingValue") is None:
        return np.zeros(len(values), dtype=np.bool_)
    value = _integer(dataset, "PixelPaddingValue")
    limit = value if dataset.get("PixelPaddingRangeLimit") is None else _integer(dataset, "PixelPaddingRangeLimit")
    least, greatest = layout.limits
    bounds = [_as_stored(bound, layout) for bound in (value, limit)]
    if any(not least <= bound <= greatest for bound in bounds):
        # A value that BitsStored leaves no room for: it lies in the whole of the pixel's bits.
        bounds, values = [bound % 2**layout.allocated for bound in (value, limit)], np.arange(len(values))
    return np.asarray((values >= min(bounds)) & (values <= max(bounds)))


def _as_stored(value: int, layout: Layout) -> int:
    """Reads a value whose sign was written wrongly (a frequent fault of PixelPaddingValue) as the pixels are signed."""
    span = 1 << layout.allocated
    if layout.signed and value >= span // 2:
        return value - span
    return value + span if not layout.signed and value < 0 else value


def _unused_bits(dataset: Dataset, layout: Layout) -> int:
    """Returns the bits of a pixel that neither its value nor an overlay takes."""
    low = layout.high + 1 - layout.stored
    unused: int = (2**layout.allocated - 1) ^ ((2**layout.stored - 1) << low)
    for tag in OVERLAY_BIT_POSITIONS:
        if isinstance(position := getattr(dataset.get(tag), "value", None), int) and 0 < position < layout.allocated:
            unused &= ~(1 << position)
    return unused


def _check_unused_bits(values: Integers, seen: Bools, dataset: Dataset, layout: Layout) -> None:
    """Raises ImageError for pixels that have more bits than the header says: masking would show another image."""
    patterns, unused = np.arange(len(values)), _unused_bits(dataset, layout)
    # Bits above a negative value may repeat its sign.
    sign = (2**layout.allocated - 1) & ~(2 ** (layout.high + 1) - 1) & unused
    rest = patterns & unused
    if (seen & (rest != 0) & ~((values < 0) & (rest == sign))).any():
        raise ImageError("the pixels hold more bits than BitsStored and HighBit say")


def _shown(values: Integers, seen: Bools, dataset: Dataset, layout: Layout) -> Doubles:
    """Returns the grey of each value before inversion: modality LUT, then VOI LUT or window, scaled to 0..1."""
    inputs, limits = _rescaled(values, dataset, layout)
    items = _luts(dataset)
    if items:
        lut = _read_lut(items[0], limits[0] < 0, "VOI LUT", dataset)
        return np.asarray(lut(inputs) / (2**lut.bits - 1))
    windows = _windows(dataset)
    if windows:
        return _windowed(inputs, *windows[0], _function(dataset))
    low, high = float(inputs[seen].min()), float(inputs[seen].max())
    return np.asarray(np.clip((inputs - low) / max(high - low, 1e-12), 0, 1))


def _rescaled(values: Integers, dataset: Dataset, layout: Layout) -> tuple[Doubles, tuple[float, float]]:
    """Returns the output of the modality step (PS3.3, C.11.1), and its least and greatest possible value."""
    sequence = dataset.get("ModalityLUTSequence")
    if sequence:
        lut = _read_lut(sequence[0], layout.signed, "modality LUT", dataset)
        return lut(values.astype(np.float64)), (0.0, float(2**lut.bits - 1))
    slope, intercept = _decimal(dataset, "RescaleSlope", 1.0), _decimal(dataset, "RescaleIntercept", 0.0)
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise ImageError("RescaleSlope is 0, or RescaleSlope or RescaleIntercept is no number")
    least, greatest = (bound * slope + intercept for bound in layout.limits)
    return values.astype(np.float64) * slope + intercept, (min(least, greatest), max(least, greatest))


def _decimal(dataset: Dataset, name: str, default: float) -> float:
    value = dataset.get(name)
    return default if value is None or value == "" else float(value)


def _luts(dataset: Dataset) -> list[Dataset]:
    return [item for item in dataset.get("VOILUTSequence") or [] if "LUTDescriptor" in item and "LUTData" in item]


def _windows(dataset: Dataset) -> list[tuple[float, float]]:
    """Returns centre and width of each window."""
    both = [dataset.get(name) for name in ("WindowCenter", "WindowWidth")]
    if any(value is None or value == "" for value in both):
        return []
    lists = [[value] if isinstance(value, (str, int, float)) else list(value) for value in both]
    return [(float(centre), float(width)) for centre, width in zip(*lists, strict=False)]


def _function(dataset: Dataset) -> str:
    return str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()


def _windowed(inputs: Doubles, centre: float, width: float, function: str) -> Doubles:
    """Applies a window; PS3.3 C.11.2.1.2 and C.11.2.1.3 with an output of 0..1."""
    if function not in _WINDOWS:
        raise ImageError("its VOILUTFunction is none of the standard")
    if not np.isfinite([centre, width]).all() or width <= 0 or (function == "LINEAR" and width < 1):
        raise ImageError("its window width or centre is not possible: zero, negative or no number")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (inputs - centre) / width, -700, 700))))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return np.asarray(inputs > centre, dtype=np.float64)
    return np.asarray(np.clip((inputs - centre) / width + 0.5, 0, 1))


def _read_lut(item: Dataset, signed: bool, name: str, dataset: Dataset) -> _Lut:
    """Reads a look-up table (PS3.3, C.11.1.1 and C.11.2.1.1).

    Args:
        item: holds LUTDescriptor and LUTData.
        signed: whether what it maps may be negative: the sign of its first input is written in many ways.
        name: which table, for the message.
        dataset: the header that item lies in.
    """
    descriptor = [int(value) & 0xFFFF for value in item.LUTDescriptor]
    if len(descriptor) != 3 or not 8 <= descriptor[2] <= 16:
        raise ImageError(f"the descriptor of its {name} is not possible")
    number, first, bits = descriptor[0] or 2**16, descriptor[1], descriptor[2]
    entries = _lut_entries(item["LUTData"].value, number, bits, dataset)
    if len(entries) < number:
        raise ImageError(f"its {name} has fewer entries than its descriptor says")
    entries = entries[:number]
    # Some vendors' descriptors say fewer bits than the entries take; cut off, they would wrap.
    bits = max(bits, int(entries.max()).bit_length())
    return _Lut(first - 2**16 if signed and first >= 2**15 else first, entries.astype(np.float64), bits)


def _lut_entries(data: Any, number: int, bits: int, dataset: Dataset) -> Integers:
    """Returns the entries of a table, which may lie two in a word where they have 8 bits."""
    if isinstance(data, bytes):
        words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if dataset.original_encoding[1] is not False else ">u2")
    else:
        listed = [data] if isinstance(data, int) else list(data or [])
        words = (np.array(listed, dtype=np.int64) & 0xFFFF).astype(np.uint16)
    if bits == 8 and len(words) < number and len(words) == (number + 1) // 2:
        # The first of the two is the lower byte.
        return words.astype("<u2").view(np.uint8).astype(np.int64)
    return words.astype(np.int64)
