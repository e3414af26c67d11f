"""A DICOM file goes in; the few elements that are needed come out, and the bytes of its pixels."""

import io
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from siamray.data.image import ImageError

# Only these elements are ever parsed, so that no name, date or identifier of a header can reach a message or a log.
KEYWORDS = (
    "ImageType",
    "SOPClassUID",
    "Modality",
    "PresentationIntentType",
    # Free text: only siamray.data.vendors.vendor_word sees it.
    "Manufacturer",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
    "EstimatedRadiographicMagnificationFactor",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "ViewPosition",
    "ImageLaterality",
    "Laterality",
    "ViewCodeSequence",
    "ViewModifierCodeSequence",
    "BreastImplantPresent",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "WindowCenter",
    "WindowWidth",
    "RescaleIntercept",
    "RescaleSlope",
    "VOILUTFunction",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "PresentationLUTShape",
)
# Overlay planes may lie in bits of the pixels: (60xx,0102) says in which (PS3.5, 8.1.2 of 2004).
OVERLAY_BIT_POSITIONS = tuple(0x60000102 + (group << 17) for group in range(16))
_TAGS: list[Any] = [*(Tag(tag_for_keyword(word) or 0) for word in KEYWORDS), *map(Tag, OVERLAY_BIT_POSITIONS)]
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
# The header of a deflated file has to be inflated to be read; one larger than this is no header of a mammogram.
LARGEST_HEADER = 4 * 2**20


@dataclass(frozen=True)
class Elements:
    """A DICOM header, and the stream that holds its pixels.

    Attributes:
        dataset: the elements of KEYWORDS and OVERLAY_BIT_POSITIONS, and the file meta information.
        stream: stands at the start of the pixel data element, or at its end where there is none.
        size: length of the stream in bytes.
    """

    dataset: Dataset
    stream: BinaryIO
    size: int

    @property
    def syntax(self) -> UID | None:
        """The transfer syntax, or None where the file does not say."""
        syntax = getattr(self.dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
        return syntax if isinstance(syntax, UID) else None

    @property
    def syntax_name(self) -> str | None:
        """The transfer syntax' name in the standard; what a damaged header holds instead is not repeated."""
        syntax = self.syntax
        return None if syntax is None or syntax.name == str(syntax) else syntax.name

    @property
    def little_endian(self) -> bool:
        """Whether numbers are stored little endian."""
        return self.dataset.original_encoding[1] is not False


def read_elements(file: BinaryIO, size: int, inflated_bytes: int = LARGEST_HEADER) -> Elements:
    """Reads the header of a DICOM file up to its pixels.

    Args:
        file: the file, from its start; seekable.
        size: its length in bytes.
        inflated_bytes: of a deflated file, no more than this is inflated.

    Raises:
        ImageError: it is no DICOM file, or its header cannot be read.
    """
    try:
        start = file.read(4096)
        file.seek(0)
        if DeflatedExplicitVRLittleEndian.encode() in start:
            inflated = _inflate(file, inflated_bytes)
            if inflated is not None:
                return inflated
            file.seek(0)
        dataset = pydicom.dcmread(file, specific_tags=_TAGS, force=True, stop_before_pixels=True)
    except Exception as error:
        raise ImageError(f"the DICOM header cannot be read ({type(error).__name__})") from None
    return Elements(dataset, file, size)


def _inflate(file: BinaryIO, most: int) -> Elements | None:
    """Inflates what follows the meta information; zlib bombs are cut at most bytes. None if it is not deflated."""
    file.seek(132)
    meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return None
    file.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
    # PS3.5 A.5: deflate without the header of zlib.
    content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), most)
    stream = io.BytesIO(content)
    dataset = read_dataset(
        stream,
        False,
        True,
        stop_when=lambda tag, _vr, _length: tag in _PIXELS,
        specific_tags=[BaseTag(t) for t in _TAGS],
    )
    dataset.file_meta = pydicom.dataset.FileMetaDataset(meta)
    return Elements(dataset, stream, len(content))


@dataclass(frozen=True)
class PixelElement:
    """The start of the pixel data element.

    Attributes:
        length: bytes of its value; None where it is encapsulated, and so of undefined length.
        words: whether its bytes lie in words of 16 bit (OW), which matters big endian.
    """

    length: int | None
    words: bool


def pixel_element(elements: Elements) -> PixelElement:
    """Reads the start of the pixel data element; the stream then stands at its value.

    Raises:
        ImageError: the file ends before its pixels, or they are floating-point numbers, or their element is damaged.
    """
    stream = elements.stream
    order: Literal["little", "big"] = "little" if elements.little_endian else "big"
    start = stream.read(8)
    if len(start) < 8:
        raise ImageError("the file has no pixel data, or is cut short before them")
    tag = int.from_bytes(start[:2], order) << 16 | int.from_bytes(start[2:4], order)
    if tag in _PIXELS[:2]:
        raise ImageError("pixels of floating-point numbers; 8 to 16 bit integers are read")
    if tag != _PIXELS[2]:
        raise ImageError("the file has no pixel data, or its header is damaged")
    words = True
    if elements.dataset.original_encoding[0]:
        length = int.from_bytes(start[4:], order)
    elif start[4:6] in (b"OB", b"OW", b"UN"):
        words = start[4:6] == b"OW"
        length = int.from_bytes(stream.read(4), order)
    else:
        raise ImageError("the element of the pixel data is damaged: it is neither OB nor OW")
    return PixelElement(None if length == _UNDEFINED else length, words)


def check_native(elements: Elements, length: int, rows: int, columns: int, bytes_each: int) -> None:
    """Compares the length of pixels that are not compressed with their number, before memory is taken for them.

    Args:
        elements: the header; its stream stands at the value.
        length: bytes the value holds by its header.
        rows: rows of the image.
        columns: columns of the image.
        bytes_each: bytes of a pixel.

    Raises:
        ImageError: there are fewer or clearly more bytes than the image needs.
    """
    needed = rows * columns * bytes_each
    if min(length, elements.size - elements.stream.tell()) < needed:
        raise ImageError("the pixel data are cut short: fewer bytes than Rows and Columns need")
    # A wrong number of rows or columns leaves at least a column or a row over; less than that is filling.
    if length - needed >= max(2, min(rows, columns) * bytes_each):
        raise ImageError("the pixel data are more bytes than Rows and Columns need")


def native_bytes(elements: Elements, needed: int) -> npt.NDArray[np.uint8]:
    """Reads pixels that are not compressed; check_native has seen that they are there."""
    content = np.empty(needed, dtype=np.uint8)
    if elements.stream.readinto(content.data) != needed:  # type: ignore[attr-defined]
        raise ImageError("the pixel data are cut short")
    return content


def encapsulated_bytes(elements: Elements, most: int) -> bytes:
    """Reads the fragments of one compressed frame (PS3.5, A.4) and joins them.

    Args:
        elements: the header; its stream stands at the value.
        most: more bytes than this are not read.

    Raises:
        ImageError: fragments are missing, cut short or not ended, or belong to several frames.
    """
    if elements.size - elements.stream.tell() > most:
        raise ImageError("the compressed pixel data are too large for a mammogram")
    fragments: list[bytes] = []
    while (item := _next_item(elements)) is not None:
        fragments.append(item)
    if len(fragments) < 2 or not any(fragments[1:]):
        raise ImageError("the compressed pixel data hold no fragment")
    # The first item is the table of the frames' offsets, which may be empty.
    if len(fragments[0]) > 4:
        raise ImageError("several frames: tomosynthesis or a sequence, not one mammogram")
    return fragments[1] if len(fragments) == 2 else b"".join(fragments[1:])


def _next_item(elements: Elements) -> bytes | None:
    """Returns the next fragment, or None at the end of the sequence."""
    stream = elements.stream
    start = stream.read(8)
    tag = int.from_bytes(start[:2], "little") << 16 | int.from_bytes(start[2:4], "little")
    length = int.from_bytes(start[4:], "little")
    if len(start) == 8 and tag == _SEQUENCE_END:
        return None
    if len(start) == 8 and tag != _ITEM:
        raise ImageError("the compressed pixel data are damaged: no fragment where one should start")
    if len(start) < 8 or length > elements.size - stream.tell():
        raise ImageError("the compressed pixel data are cut short")
    return stream.read(length)
