"""Runs read together are what they are one by one, and damaged frames are refused alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siamray.data import rle
from siamray.data.image import ImageError

# A run: the byte that is repeated and how often, or bytes that stand for themselves; None is a code for nothing.
RUNS = st.one_of(
    st.tuples(st.binary(min_size=1, max_size=1), st.integers(2, 128)),
    st.tuples(st.binary(min_size=1, max_size=1), st.integers(2, 4)),
    st.binary(min_size=1, max_size=128),
    st.binary(min_size=1, max_size=3),
    st.none(),
)


def encoded(runs: list[bytes | tuple[bytes, int] | None]) -> bytes:
    codes = []
    for run in runs:
        if run is None:
            codes.append(b"\x80")
        elif isinstance(run, bytes):
            codes.append(bytes([len(run) - 1]) + run)
        else:
            codes.append(bytes([257 - run[1]]) + run[0])
    return b"".join(codes)


def one_by_one(source: bytes, pixels: int) -> bytes | None:
    """Decodes a segment slowly and obviously; None where it is damaged."""
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
    return None if len(found) != pixels or source[place:].strip(b"\0") else bytes(found)


def framed(segments: list[bytes]) -> bytes:
    starts = 64 + np.cumsum([0, *(len(segment) for segment in segments)])[:-1]
    header = np.array([len(segments), *starts], dtype="<u4").tobytes()
    return b"".join([header.ljust(64, b"\0"), *segments])


def decoded(segment: bytes, pixels: int) -> bytes | None:
    try:
        return rle.decode(framed([segment]), pixels, 1).tobytes()
    except ImageError:
        return None


@pytest.fixture(params=[(64, 16384), (1, 50), (3, 7)], ids=["as it is", "some at a time", "few at a time"])
def portions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many runs are read one by one before more, in so many bytes, are read together, however long they are."""
    tried, together = request.param
    monkeypatch.setattr(rle, "_TRIED", tried)
    monkeypatch.setattr(rle, "_TOGETHER", together)
    monkeypatch.setattr(rle, "_SHORT", 1000)


@pytest.mark.usefixtures("portions")
@given(st.lists(RUNS, min_size=1, max_size=200), st.integers(0, 3), st.integers(-2, 2), st.data())
def test_frames_whole_and_damaged_are_read_as_run_by_run(
    runs: list[bytes | tuple[bytes, int] | None], zeros: int, off: int, data: st.DataObject
) -> None:
    whole = encoded(runs)
    pixels = sum(0 if run is None else len(run) if isinstance(run, bytes) else run[1] for run in runs)
    segment = whole + bytes(zeros)
    assert decoded(segment, pixels) == one_by_one(segment, pixels)
    assert decoded(segment, max(1, pixels + off)) == one_by_one(segment, max(1, pixels + off))
    place = data.draw(st.integers(0, len(segment) - 1))
    cut, extra = data.draw(st.integers(0, 3)), data.draw(st.binary(max_size=3))
    damaged = segment[:place] + extra + segment[place + cut :]
    if damaged:
        expected = one_by_one(damaged, max(1, pixels))
        assert decoded(damaged, max(1, pixels)) == expected
        # As many pixels as there are after all, so that what is cut off in the middle of a run is met as well.
        for number in range(max(1, pixels - 130), pixels + 3):
            if one_by_one(damaged, number) is not None:
                assert decoded(damaged, number) == one_by_one(damaged, number)


@pytest.mark.usefixtures("portions")
@given(st.binary(min_size=1, max_size=400), st.integers(1, 6000))
def test_any_bytes_are_read_as_run_by_run(source: bytes, pixels: int) -> None:
    assert decoded(source, pixels) == one_by_one(source, pixels)


@pytest.mark.parametrize("longest", [3, 8, 128])
def test_a_large_frame_of_two_bytes_a_pixel_is_what_was_encoded(longest: int) -> None:
    rng = np.random.default_rng(longest)
    planes, segments = [], []
    pixels = 300_000
    for _ in range(2):
        lengths = rng.integers(2, longest + 1, pixels)
        lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), pixels)) + 1]
        lengths[-1] -= lengths.sum() - pixels
        runs: list[bytes | tuple[bytes, int] | None] = []
        for length in lengths.tolist():
            literal = length < 2 or rng.random() < 0.3
            runs.append(rng.bytes(length) if literal else (rng.bytes(1), length))
        planes.append(b"".join(run if isinstance(run, bytes) else run[0] * run[1] for run in runs if run is not None))
        segments.append(encoded(runs))
    found = rle.decode(framed(segments), pixels, 2)
    high, low = (np.frombuffer(plane, dtype=np.uint8).astype(np.uint16) for plane in planes)
    np.testing.assert_array_equal(found, 256 * high + low)
    with pytest.raises(ImageError, match="too few or too many"):
        rle.decode(framed([segments[0], segments[1][:-3]]), pixels, 2)
    with pytest.raises(ImageError, match="too few or too many"):
        rle.decode(framed([segments[0] + b"\x01ab", segments[1]]), pixels, 2)
