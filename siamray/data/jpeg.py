"""A JPEG stream goes in; what it holds, and whether nothing of a lossless one is missing or garbled, comes out.

Decoders of JPEG fill what is missing with grey and say nothing, so that a damaged file would pass as an image. JPEG
Lossless can be checked: decoded pixels and the stream's code lengths say how many bits it must have taken.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from siamray.data.image import ImageError

# Starts of frames (ITU T.81, table B.1; T.87 for JPEG-LS): each names a process.
BASELINE, EXTENDED, LOSSLESS, JPEG_LS = 0xC0, 0xC1, 0xC3, 0xF7
_OTHER_FRAMES = (0xC2, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_START, _END, _SCAN, _TABLES, _RESTARTS = 0xD8, 0xD9, 0xDA, 0xC4, 0xDD
# Encoders fill up the last byte, and may write another; more bits than this, and the decoder has lost its way.
_FILLING_BITS = 8
_BLOCK_ROWS = 256


@dataclass
class Jpeg:
    """The headers of a JPEG or JPEG-LS stream with one scan.

    Attributes:
        process: BASELINE, EXTENDED, LOSSLESS or JPEG_LS.
        precision: bits of a pixel.
        rows: number of rows.
        columns: number of columns.
        components: 1 for grey.
        predictor: number of the predictor (LOSSLESS).
        shift: point transform: bits that were cut off below (LOSSLESS).
        table: number of the scan's Huffman table.
        lengths: bits of the code of each category, by table.
        restart: pixels between restarts, 0 = none.
        start: where the scan's data start.
        end: where they end.
    """

    process: int = 0
    precision: int = 0
    rows: int = 0
    columns: int = 0
    components: int = 0
    predictor: int = 0
    shift: int = 0
    table: int = 0
    lengths: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    restart: int = 0
    start: int = 0
    end: int = 0


def parse(stream: bytes) -> Jpeg:
    """Reads the headers of a stream.

    Raises:
        ImageError: no JPEG stream, or damaged or cut short.
    """
    found = Jpeg()
    # A byte may be added to make the length even.
    found.end = stream.rfind(bytes([0xFF, _END]))
    if stream[:2] != bytes([0xFF, _START]) or found.end < 0 or len(stream) - found.end > 2 + 1024:
        raise ImageError("the JPEG stream has no start, or is cut short")
    place = 2
    while not found.start:
        if place + 4 > found.end or stream[place] != 0xFF:
            raise ImageError("the JPEG stream is damaged in its headers")
        marker, length = stream[place + 1], int.from_bytes(stream[place + 2 : place + 4], "big")
        if marker == 0xFF:
            place += 1
            continue
        _read_segment(found, marker, stream[place + 4 : place + 2 + length])
        place += 2 + length
        if marker == _SCAN:
            found.start = place
    if not found.process:
        raise ImageError("the JPEG stream is damaged: it has no frame")
    return found


def _read_segment(found: Jpeg, marker: int, body: bytes) -> None:
    if marker in (BASELINE, EXTENDED, LOSSLESS, JPEG_LS) and len(body) >= 6:
        found.process, found.precision, found.components = marker, body[0], body[5]
        found.rows, found.columns = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    elif marker in _OTHER_FRAMES:
        raise ImageError("a JPEG stream of a process that DICOM does not know")
    elif marker == _RESTARTS:
        found.restart = int.from_bytes(body[:4], "big")
    elif marker == _TABLES:
        while len(body) > 16:
            codes = np.frombuffer(body[1:17], dtype=np.uint8)
            number = int(codes.sum())
            # A category's code that no table lists cannot occur; 0 would hide it.
            lengths = np.full(256, 10**6, dtype=np.int64)
            symbols = np.frombuffer(body[17 : 17 + number], dtype=np.uint8)
            lengths[symbols] = np.repeat(np.arange(1, 17), codes)[: len(symbols)]
            found.lengths[body[0]] = lengths
            body = body[17 + number :]
    elif marker == _SCAN and len(body) >= 6:
        found.table = body[2] >> 4
        found.predictor, found.shift = body[-3], body[-1] & 15


def check_lossless(stream: bytes, jpeg: Jpeg, pixels: npt.NDArray[Any]) -> None:
    """Raises ImageError where a lossless stream cannot hold just these pixels (ITU T.81, annex H).

    Args:
        stream: the stream.
        jpeg: its headers.
        pixels: what a decoder made of it; unsigned, its bits below (rows, cols).
    """
    lengths = jpeg.lengths.get(jpeg.table)
    rows, columns = pixels.shape
    if lengths is None or not 1 <= jpeg.predictor <= 7 or jpeg.restart % columns:
        raise ImageError("the JPEG stream is damaged in its headers")
    sizes = _sizes(lengths)
    interval = jpeg.restart // columns or rows
    bits = np.zeros(rows, dtype=np.int64)
    for first in range(0, rows, _BLOCK_ROWS):
        last = min(rows, first + _BLOCK_ROWS)
        above = pixels[max(first - 1, 0) : last].astype(np.int32) & (2**jpeg.precision - 1)
        differences = _differences(above >> jpeg.shift, first, interval, jpeg)
        bits[first:last] = sizes[differences & 0xFFFF].sum(axis=1)
    needed = sum(-(-int(bits[first : first + interval].sum()) // 8) * 8 for first in range(0, rows, interval))
    data = stream[jpeg.start : jpeg.end].rstrip(b"\xff")
    # FF may fill the place before a marker. A zero follows each FF of the data; restarts are markers of two bytes.
    there = 8 * (len(data) - data.count(b"\xff\x00") - 2 * (-(-rows // interval) - 1))
    if not needed <= there <= needed + _FILLING_BITS:
        raise ImageError("the JPEG stream is damaged: parts of it are missing or garbled")


def _sizes(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns the bits that each difference, modulo 65536, takes: those of its category's code, and its own."""
    patterns = np.arange(65536)
    magnitude = np.where(patterns > 32768, 65536 - patterns, patterns)
    category = np.frexp(magnitude)[1]
    # Category 16 holds 32768 alone, and needs no bits to tell which.
    return np.asarray(lengths[category] + np.where(category == 16, 0, category))


def _differences(above: npt.NDArray[np.int32], first: int, interval: int, jpeg: Jpeg) -> npt.NDArray[np.int32]:
    """Returns pixels minus their prediction.

    Args:
        above: the rows, with the one above them before where there is one.
        first: number of the first row.
        interval: rows between restarts.
        jpeg: headers of the stream.
    """
    x = above if first == 0 else above[1:]
    b = np.vstack([x[:1], above[: len(x) - 1]]) if first == 0 else above[:-1]
    left, upper = x[:, :-1], b[:, 1:]
    corner = b[:, :-1]
    differences = np.empty_like(x)
    differences[:, 1:] = x[:, 1:] - _predicted(jpeg.predictor, left, upper, corner)
    differences[:, 0] = x[:, 0] - b[:, 0]
    # The first row of the image and after each restart is predicted from the left, its first pixel from mid-grey.
    fresh = np.arange(-first % interval, len(x), interval)
    differences[fresh, 1:] = x[fresh, 1:] - x[fresh, :-1]
    differences[fresh, 0] = x[fresh, 0] - (1 << (jpeg.precision - jpeg.shift - 1))
    return differences


def _predicted(
    predictor: int, left: npt.NDArray[np.int32], upper: npt.NDArray[np.int32], corner: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Applies one of the seven predictors (ITU T.81, table H.1)."""
    match predictor:
        case 1:
            return left
        case 2:
            return upper
        case 3:
            return corner
        case 4:
            return left + upper - corner
        case 5:
            return left + ((upper - corner) >> 1)
        case 6:
            return upper + ((left - corner) >> 1)
        case _:
            return (left + upper) >> 1
