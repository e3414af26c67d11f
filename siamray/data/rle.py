"""A frame of DICOM's run-length encoding goes in; its pixels come out, if none is missing and none left over.

Other decoders cut off what is too much, so that a garbled frame would pass as an image whose pixels are shifted.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from siamray.data.image import ImageError

_HEADER = 64


def decode(frame: bytes, pixels: int, bytes_each: int) -> npt.NDArray[Any]:
    """Decodes a frame (PS3.5, annex G).

    Args:
        frame: the frame: a header, and a segment for each byte of a pixel, the most significant first.
        pixels: their number.
        bytes_each: 1 or 2.

    Returns:
        uint8 or uint16 (pixels,).

    Raises:
        ImageError: the frame is damaged.
    """
    header = np.frombuffer(frame[:_HEADER].ljust(_HEADER, b"\xff"), dtype="<u4").astype(np.int64)
    starts = header[1 : bytes_each + 1]
    ends = np.append(starts[1:], len(frame))
    if header[0] != bytes_each or starts[0] < _HEADER or (starts >= ends).any():
        raise ImageError("the run-length encoded pixels are damaged, or not what the header says")
    decoded = np.empty((pixels, bytes_each), dtype=np.uint8)
    for place, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        # Little endian in memory: the first segment is the last byte.
        decoded[:, bytes_each - 1 - place] = np.frombuffer(_segment(frame[start:end], pixels), dtype=np.uint8)
    return decoded.reshape(-1).view(np.uint8 if bytes_each == 1 else "<u2")


def _segment(source: bytes, pixels: int) -> bytearray:
    found, place, last = bytearray(), 0, len(source) - 1
    while len(found) < pixels and place < last:
        run = source[place]
        if run < 128:
            found += source[place + 1 : place + 2 + run]
            place += run + 2
        else:
            if run > 128:
                found += source[place + 1 : place + 2] * (257 - run)
                place += 1
            place += 1
    # A segment may be filled up with zeros to an even length.
    if len(found) != pixels or source[place:].strip(b"\0"):
        raise ImageError("the run-length encoded pixels are damaged: too few or too many")
    return found
