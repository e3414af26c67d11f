"""A DICOM header and the stream of its pixels go in; the stored pixels, whatever they are compressed with, come out.

gdcm decodes JPEG and JPEG-LS, openjpeg JPEG 2000: each alone, not whichever pydicom finds first, so that a
file gives the same pixels on every machine. Damage that keeps to the form of JPEG 2000 goes unseen: it holds no check
sums, and its decoder goes on.
"""

from typing import Any

import gdcm
import numpy as np
import numpy.typing as npt
from openjpeg.utils import decode_pixel_data, get_parameters
from pydicom import uid

from siamray.data import jpeg, rle
from siamray.data.dicom_file import Elements, check_native, encapsulated_bytes, native_bytes, pixel_element
from siamray.data.image import ImageError
from siamray.data.presentation import Layout

_NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
# Uncompressed, but in fragments like what is compressed; pydicom has no name for it.
_ENCAPSULATED = uid.UID("1.2.840.10008.1.2.1.98")
_PROCESSES = {
    uid.JPEGBaseline8Bit: (jpeg.BASELINE,),
    uid.JPEGExtended12Bit: (jpeg.BASELINE, jpeg.EXTENDED),
    uid.JPEGLossless: (jpeg.LOSSLESS,),
    uid.JPEGLosslessSV1: (jpeg.LOSSLESS,),
    uid.JPEGLSLossless: (jpeg.JPEG_LS,),
    uid.JPEGLSNearLossless: (jpeg.JPEG_LS,),
}
_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
DECODED = (*_NATIVE, _ENCAPSULATED, uid.RLELossless, *_PROCESSES, *_JPEG_2000)
# Compressed pixels never take more bytes than this for each one of them, but for headers.
_MOST_BYTES_A_PIXEL, _MOST_HEADERS = 4, 2**20
# Reports of gdcm on damaged data go to stderr, where a user can make nothing of them.
gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()


def stored_pixels(elements: Elements, layout: Layout) -> npt.NDArray[Any]:
    """Reads the pixels as they are stored, bits of overlays included.

    Args:
        elements: the header; its stream stands at the pixel data element.
        layout: how pixels are stored.

    Returns:
        uint8 or uint16 (rows, cols).

    Raises:
        ImageError: pixels are missing, damaged, cut short, of another size than the header says, or of an encoding
            that is not read.
    """
    length, words = check_pixels(elements, layout)
    if length is not None:
        return _native(native_bytes(elements, layout.bytes), elements, layout, words)
    return _decoded(encapsulated_bytes(elements, layout.pixels * _MOST_BYTES_A_PIXEL + _MOST_HEADERS), elements, layout)


def check_pixels(elements: Elements, layout: Layout) -> tuple[int | None, bool]:
    """Reads the start of the pixel data element and compares it with the header; the stream then stands at its value.

    Returns:
        Its length in bytes, None where it is compressed; whether its bytes lie in words of 16 bit.

    Raises:
        ImageError: pixels are missing, cut short, or not encoded as the transfer syntax says.
    """
    check_encoding(elements)
    start = pixel_element(elements)
    native = elements.syntax is None or elements.syntax in _NATIVE
    if native and start.length is None:
        raise ImageError("the pixels are compressed, but the transfer syntax says they are not")
    if not native and start.length is not None:
        raise ImageError("the pixels are not compressed, but the transfer syntax says they are")
    if start.length is not None:
        check_native(elements, start.length, layout.rows, layout.columns, layout.allocated // 8)
    return start.length, start.words


def check_encoding(elements: Elements) -> None:
    """Raises ImageError where the transfer syntax is none that is read."""
    if elements.syntax is not None and elements.syntax not in DECODED:
        raise ImageError(f"no decoder is installed for {elements.syntax_name or 'an unknown encoding'}")


def _native(content: npt.NDArray[np.uint8], elements: Elements, layout: Layout, words: bool) -> npt.NDArray[Any]:
    if layout.allocated == 8 and not elements.little_endian and words and content.size % 2 == 0:
        # Bytes were swapped with the words they lie in (PS3.5, 7.3).
        content = content.reshape(-1, 2)[:, ::-1]
    if layout.allocated == 16:
        numbers = content.view("<u2" if elements.little_endian else ">u2")
        return numbers.astype(np.uint16, copy=False).reshape(layout.rows, layout.columns)
    return content.reshape(layout.rows, layout.columns)


def _decoded(frame: bytes, elements: Elements, layout: Layout) -> npt.NDArray[Any]:
    """Decodes a frame; whatever a decoder raises on it is damage."""
    syntax = elements.syntax
    try:
        if syntax == uid.RLELossless:
            pixels = rle.decode(frame, layout.pixels, layout.allocated // 8)
            return pixels.reshape(layout.rows, layout.columns)
        if syntax == _ENCAPSULATED:
            return _native(np.frombuffer(frame, np.uint8, layout.bytes), elements, layout, words=False)
        if layout.high != layout.stored - 1:
            raise ImageError(f"BitsStored {layout.stored} and HighBit {layout.high} do not fit compressed pixels")
        return _jpeg_2000(frame, layout) if syntax in _JPEG_2000 else _jpeg(frame, uid.UID(str(syntax)), layout)
    except ImageError as error:
        raise ImageError(f"{error} ({elements.syntax_name})") from None
    except Exception:
        raise ImageError(f"the pixels are damaged, or not what the header says: {elements.syntax_name}") from None


def _jpeg_2000(frame: bytes, layout: Layout) -> npt.NDArray[Any]:
    facts = get_parameters(frame)
    rows, columns, components, precision = (
        int(facts[word]) for word in ("rows", "columns", "samples_per_pixel", "precision")
    )
    _check_stream(rows, columns, components, precision, layout)
    return _framed(decode_pixel_data(frame, version=2), precision, layout)


def _jpeg(frame: bytes, syntax: uid.UID, layout: Layout) -> npt.NDArray[Any]:
    facts = jpeg.parse(frame)
    if facts.process not in _PROCESSES[syntax]:
        raise ImageError("the pixels are not what the transfer syntax says")
    _check_stream(facts.rows, facts.columns, facts.components, facts.precision, layout)
    pixels = _framed(_by_gdcm(frame, str(syntax), facts), facts.precision, layout)
    if facts.process == jpeg.LOSSLESS:
        jpeg.check_lossless(frame, facts, pixels)
    elif facts.process != jpeg.JPEG_LS:
        _check_lossy(frame, str(syntax), facts, pixels, layout)
    return pixels


def _check_stream(rows: int, columns: int, components: int, precision: int, layout: Layout) -> None:
    """Compares what a compressed stream says of itself with the header, before memory is taken for its pixels."""
    if (rows, columns) != (layout.rows, layout.columns):
        raise ImageError(f"the compressed image is {rows} x {columns}, not {layout.rows} x {layout.columns}")
    if components != 1:
        raise ImageError("a colour image, not a mammogram")
    if precision > layout.allocated:
        raise ImageError(f"the compressed image has {precision} bits, not {layout.allocated} at most")


def _framed(content: Any, precision: int, layout: Layout) -> npt.NDArray[Any]:
    pixels = np.frombuffer(content, dtype=np.uint8 if precision <= 8 else np.uint16)
    if layout.allocated == 16:
        pixels = pixels.astype(np.uint16, copy=False)
    return pixels.reshape(layout.rows, layout.columns)


def _by_gdcm(frame: bytes, syntax: str, facts: jpeg.Jpeg) -> bytes:
    """Decodes one frame; pydicom's way to gdcm refuses 12 bit JPEG Extended, which gdcm can do."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((facts.columns, facts.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    allocated = 8 if facts.precision <= 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, facts.precision, facts.precision - 1, 0))
    # Bytes come as text, those that are no text escaped.
    content = image.GetBuffer().encode("utf-8", "surrogateescape")
    return bytes(content)


def _check_lossy(frame: bytes, syntax: str, facts: jpeg.Jpeg, pixels: npt.NDArray[Any], layout: Layout) -> None:
    """Raises ImageError where parts of a stream of JPEG's lossy processes are missing or garbled.

    A decoder that has read too little takes what follows for data, one that has lost its way does not read the end:
    so more data after the end must change nothing, and other data at the end must change something.
    """
    filler = np.random.default_rng(0).integers(1, 255, 64, dtype=np.uint8).tobytes()
    # FF may fill the place before a marker; among data it would make a marker of the byte that follows.
    data, rest = frame[: facts.end].rstrip(b"\xff"), frame[facts.end :]
    longer = _framed(_by_gdcm(data + filler + rest, syntax, facts), facts.precision, layout)
    kept = data[:-16].rstrip(b"\xff")
    other = _framed(_by_gdcm(kept + filler[:16] + rest, syntax, facts), facts.precision, layout)
    if not np.array_equal(longer, pixels) or np.array_equal(other, pixels):
        raise ImageError("the JPEG stream is damaged: parts of it are missing or garbled")
