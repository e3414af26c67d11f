"""A PNG, PGM or TIFF file goes in; its grey values, scaled by the range of its bit depth, come out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from siamray.data.image import Floats, Header, ImageError, check_size

_KINDS = {"PNG": "PNG", "PPM": "PGM", "TIFF": "TIFF"}
_COLOURS = ("RGB", "RGBA", "P", "PA", "LA")
_WRONG = "neither DICOM nor a PNG, PGM or TIFF picture"
# Width, height and greatest value of a PGM, with blanks and comments between (netpbm's pgm(5)).
_BLANK = rb"(?:\s|#[^\n]*\n)+"
_PGM = re.compile(rb"(P[25])" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})\s")
_PGM_START = 4096
# Tags of TIFF: what the least value means (0 = white), bits and kind of a sample.
_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT = 262, 258, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1


@dataclass(frozen=True)
class _Pgm:
    """The header of a PGM file, and where its pixels start."""

    rows: int
    columns: int
    white: int
    ascii: bool
    start: int


def read_picture(path: Path, maximum_pixels: int) -> Floats:
    """Reads the grey values of a picture.

    Args:
        path: the file; its content says what it is.
        maximum_pixels: a picture of more is not read.

    Returns:
        Grey values in 0..1 (rows, cols).

    Raises:
        ImageError: no picture, damaged, coloured, of another depth than 8 to 16 bits, several pictures, or too large.
    """
    with _damage_is_a_reason():
        pgm = _pgm_header(path)
        if pgm is not None:
            check_size(pgm.rows, pgm.columns, maximum_pixels)
            return _pgm_pixels(path, pgm)
        with PillowImage.open(path, formats=tuple(_KINDS)) as picture:
            reason = _reason(picture)
            if reason:
                raise ImageError(reason)
            check_size(picture.height, picture.width, maximum_pixels)
            return _grey(picture)


def read_picture_header(path: Path) -> Header:
    """Reads what a picture says of itself; no pixel is read.

    Args:
        path: the file.

    Raises:
        ImageError: it is no picture, or its header is damaged.
    """
    with _damage_is_a_reason():
        pgm = _pgm_header(path)
        if pgm is not None:
            return _header("PGM", pgm.rows, pgm.columns, pgm.white.bit_length(), None)
        with PillowImage.open(path, formats=tuple(_KINDS)) as picture:
            kind = _KINDS[str(picture.format)]
            return _header(kind, picture.height, picture.width, _depth(picture), _reason(picture))


def _header(kind: str, rows: int, columns: int, bits: int, reason: str | None) -> Header:
    return Header(kind, None, rows, columns, bits, None, "no window", None, None, None, None, None, None, reason)


@contextmanager
def _damage_is_a_reason() -> Iterator[None]:
    """Turns what Pillow and numpy raise, which differs from version to version, into ImageError."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(_WRONG) from None
    except PillowImage.DecompressionBombError:
        raise ImageError("too large for a mammogram") from None
    except Exception as error:
        raise ImageError(f"the picture is damaged or cut short ({type(error).__name__})") from None


def _pgm_header(path: Path) -> _Pgm | None:
    """Reads the header of a PGM file; Pillow reads those that are not of 8 or of 16 full bits pixel by pixel."""
    with path.open("rb") as file:
        start = file.read(_PGM_START)
    if start[:2] not in (b"P2", b"P5"):
        return None
    match = _PGM.match(start)
    if match is None:
        raise ImageError("the picture is damaged or cut short: its PGM header is not complete")
    columns, rows, white = (int(match.group(place)) for place in (2, 3, 4))
    if not rows or not columns or not 1 <= white <= 65535:
        raise ImageError("the picture is damaged: its PGM header has no possible size and greatest value")
    return _Pgm(rows, columns, white, match.group(1) == b"P2", match.end())


def _pgm_pixels(path: Path, pgm: _Pgm) -> Floats:
    number, size = pgm.rows * pgm.columns, path.stat().st_size - pgm.start
    each = 1 if pgm.white < 256 else 2
    # Looked at before anything is allocated: in ASCII a pixel and its blank take two bytes.
    least, most = (2 * number - 1, 16 * number + _PGM_START) if pgm.ascii else (number * each, number * each)
    if size < least:
        raise ImageError("the picture is cut short")
    if size > most + _PGM_START:
        raise ImageError("several pictures in one file, or a damaged PGM header")
    with path.open("rb") as file:
        file.seek(pgm.start)
        content = file.read()
    values: npt.NDArray[Any]
    if pgm.ascii:
        # Comments among the pixels are so rare that they count as damage; numbers are at most 65535.
        values = np.fromstring(content.decode("ascii"), dtype=np.int32, sep=" ")
    else:
        if content[number * each :].strip():
            raise ImageError("several pictures in one file, or a damaged PGM header")
        values = np.frombuffer(content, dtype=np.uint8 if each == 1 else ">u2", count=number)
    if values.size != number:
        raise ImageError("the picture is cut short, or damaged among its pixels")
    if values.min() < 0 or values.max() > pgm.white:
        raise ImageError("the picture is damaged: pixels exceed its greatest value")
    return _scaled(values.reshape(pgm.rows, pgm.columns), pgm.white)


def _scaled(values: npt.NDArray[Any], white: int) -> Floats:
    scaled = np.empty(values.shape, dtype=np.float32)
    np.divide(values, np.float32(white), out=scaled, casting="unsafe")
    return scaled


def _reason(picture: PillowImage.Image) -> str | None:
    """Says why a picture cannot be used, as far as its header tells."""
    if getattr(picture, "n_frames", 1) > 1:
        return "several pictures in one file"
    tags = _tags(picture)
    if tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] != _UNSIGNED or not picture.mode.startswith(
        ("L", "I;16", "I", "R", "P")
    ):
        return f"a picture of mode {picture.mode} or of signed numbers; 8 to 16 bit grey are read"
    return None


def _tags(picture: PillowImage.Image) -> dict[int, Any]:
    """Returns a TIFF's tags that matter, each as a tuple; nothing for other kinds."""
    tags = getattr(picture, "tag_v2", {})
    found = {tag: tags.get(tag) for tag in (_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT)}
    return {tag: value if isinstance(value, tuple) else (value,) for tag, value in found.items() if value is not None}


def _depth(picture: PillowImage.Image) -> int:
    bits = _tags(picture).get(_BITS)
    return int(bits[0]) if bits else (16 if picture.mode.startswith("I") else 8)


def _grey(picture: PillowImage.Image) -> Floats:
    """Returns the grey values scaled by the range of the bit depth."""
    if picture.mode in _COLOURS:
        red, green, blue = picture.convert("RGB").split()
        if red.tobytes() != green.tobytes() or red.tobytes() != blue.tobytes():
            raise ImageError("a colour picture, not a mammogram")
        return _scaled(np.asarray(red), 255)
    depth, values = _depth(picture), np.asarray(picture)
    if picture.mode == "L":
        # Pillow has spread fewer bits over all of 0..255, and turned white-is-zero.
        return _scaled(values, 255)
    if not 8 < depth <= 16 or values.min() < 0 or values.max() >= 2**depth:
        raise ImageError(f"a picture of {depth} bit; 8 to 16 bit grey are read")
    pixels = _scaled(values, 2**depth - 1)
    if _tags(picture).get(_PHOTOMETRIC) == (_WHITE_IS_ZERO,):
        np.subtract(1, pixels, out=pixels)
    return pixels
