"""A frame of DICOM's run-length encoding goes in; its pixels come out, if none is missing and none left over.

Other decoders cut off what is too much, so that a garbled frame would pass as an image whose pixels are shifted.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from siamray.data.image import ImageError

_HEADER = 64
# Bytes that a run of each code takes, its own included, and how often the byte after the code is to be repeated.
_CODES = np.arange(256)
_LENGTHS = np.select([_CODES < 128, _CODES > 128], [_CODES + 2, 2], 1)
_REPEATS = np.where(_CODES > 128, 257 - _CODES, 0)
# Runs read one by one; where these take fewer bytes a run, the runs in the next bytes, as many as fit a processor's
# cache, are read together.
_TRIED, _SHORT, _TOGETHER, _DOUBLINGS = 64, 10, 16384, 4


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
    codes, together = np.frombuffer(source, dtype=np.uint8), True
    while len(found) < pixels and place < last:
        before = place
        for _ in range(_TRIED):
            if len(found) >= pixels or place >= last:
                break
            run = source[place]
            if run < 128:
                found += source[place + 1 : place + 2 + run]
                place += run + 2
            else:
                if run > 128:
                    found += source[place + 1 : place + 2] * (257 - run)
                    place += 1
                place += 1
        if together and place < last and place - before < _TRIED * _SHORT:
            some, length = _many_runs(codes[place:])
            # The last ones are read one by one: only then it is known where the pixels end.
            together = len(found) + some.size < pixels
            if together:
                found += some.data
                place += length
    # A segment may be filled up with zeros to an even length.
    if len(found) != pixels or source[place:].strip(b"\0"):
        raise ImageError("the run-length encoded pixels are damaged: too few or too many")
    return found


def _many_runs(codes: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], int]:
    """Decodes the runs that begin in the first some thousand bytes, all together.

    Where a run begins follows from where the one before began, that from the one before it, and so on: each place is
    given the place two, four, eight and sixteen runs further, and only every sixteenth run is walked to.

    Args:
        codes: the rest of a segment, two bytes or more.

    Returns:
        The bytes of those runs, and the length of their codes.
    """
    size = min(_TOGETHER, codes.size - 1)
    ends = _LENGTHS.take(codes[:size]) + np.arange(size)
    jumps = [np.append(np.minimum(ends, size), size)]
    for _ in range(_DOUBLINGS):
        jumps.append(jumps[-1].take(jumps[-1], mode="clip"))
    farthest, walked, place = jumps[-1].data, [], 0
    while place < size:
        walked.append(place)
        place = farthest[place]
    begins = np.empty((len(walked), 2**_DOUBLINGS), dtype=np.intp)
    begins[:, 0] = walked
    for doubling in range(_DOUBLINGS - 1, -1, -1):
        step = 2**doubling
        begins[:, step :: 2 * step] = jumps[doubling].take(begins[:, :: 2 * step], mode="clip")
    heads = begins.ravel()
    heads = heads[: np.searchsorted(heads, size)]
    length = min(int(ends[heads[-1]]), codes.size)
    # What is no head is a byte that stands for itself, or for as many as the head before it says.
    times = np.ones(length, dtype=np.intp)
    times[heads] = 0
    repeats = _REPEATS.take(codes.take(heads))
    repeated = repeats > 0
    times[heads[repeated] + 1] = repeats[repeated]
    return codes[:length].repeat(times), length
