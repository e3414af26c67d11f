"""An image file goes in; its pixels in presentation space, with spacing, laterality and view, come out."""

import logging
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from siamray.data import elements as meaning
from siamray.data.decoding import check_encoding, check_pixels, stored_pixels
from siamray.data.dicom_file import LARGEST_HEADER, Elements, read_elements
from siamray.data.image import ACCEPTABLE, MAXIMUM_PIXELS, Header, Image, ImageError, check_size
from siamray.data.picture import read_picture, read_picture_header
from siamray.data.presentation import check_grey, grey_word, padding_word, photometric, read_layout, to_grey

__all__ = ["ACCEPTABLE", "MAXIMUM_PIXELS", "Header", "Image", "ImageError", "read_header", "read_image"]


def read_image(path: Path, accept: frozenset[str] = frozenset(), maximum_pixels: int = MAXIMUM_PIXELS) -> Image:
    """Reads a mammogram from a DICOM file, or from an 8 to 16 bit grey PNG, PGM or TIFF file.

    DICOM (PS3.3 C.11): stored values are rescaled, the first VOI LUT, else the first window is applied, and the
    result is scaled to 0..1 by the whole output range of that step, not by the values that occur, so that
    exposures stay comparable. A file without LUT and window is scaled by the least and greatest value outside the
    padding.
    MONOCHROME1 and PresentationLUTShape INVERSE, alone or together, invert once and last. Padding (PixelPaddingValue
    to PixelPaddingRangeLimit) is found in the stored values before all that. Overlays are not drawn. Spacing is
    ImagerPixelSpacing, divided by the magnification, else PixelSpacing, else NominalScannedPixelSpacing.
    Other files are scaled by the range of their bit depth.

    Args:
        path: the file; its content says what it is, not its name.
        accept: words of ACCEPTABLE: kinds of image that are taken beside ordinary mammograms.
        maximum_pixels: an image of more is left out before memory is taken for it.

    Raises:
        ImageError: missing, damaged, not an image, of a kind that is not compared (for processing, magnified, spot,
            tangential, rolled, implant, specimen, tomosynthesis and what is computed from it, secondary capture), too
            large, or blank.
    """
    size = _size(path)
    if not _is_dicom(path):
        pixels = read_picture(path, maximum_pixels)
        if float(pixels.max()) == float(pixels.min()):
            raise ImageError("the image is blank: all its pixels have one value")
        return Image(pixels, None, None, None, None)
    with _quiet(), _damage_is_a_reason(), path.open("rb") as file:
        found = read_elements(file, size, 2 * maximum_pixels + LARGEST_HEADER)
        dataset = found.dataset
        _refuse_no_image(found)
        meaning.refuse_unfit(dataset, accept)
        check_encoding(found)
        layout = read_layout(dataset)
        check_size(layout.rows, layout.columns, maximum_pixels)
        spacing = meaning.spacing(dataset)
        grey, padded = to_grey(stored_pixels(found, layout), dataset, layout)
        spacing_mm = None if spacing is None else spacing[0]
        return Image(grey, padded, spacing_mm, meaning.laterality(dataset), meaning.view(dataset))


def read_header(path: Path, accept: frozenset[str] = frozenset()) -> Header:
    """Reads what a file says of its image; no pixel is read, and no element that identifies a person.

    Args:
        path: the file; its content says what it is, not its name.
        accept: words of ACCEPTABLE, as in read_image.

    Raises:
        ImageError: missing, damaged, or not an image.
    """
    size = _size(path)
    if not _is_dicom(path):
        return read_picture_header(path)
    with _quiet(), _damage_is_a_reason(), path.open("rb") as file:
        found = read_elements(file, size)
        _refuse_no_image(found)
        dataset = found.dataset
        reason, spacing = None, None
        try:
            meaning.refuse_unfit(dataset, accept)
            spacing = meaning.spacing(dataset)
            check_encoding(found)
            layout = read_layout(dataset)
            check_grey(dataset, layout)
            check_pixels(found, layout)
        except ImageError as error:
            reason = str(error)
        bits = dataset.get("BitsStored")
        return Header(
            kind="DICOM",
            syntax=found.syntax_name,
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            bits=bits if isinstance(bits, int) else None,
            photometric=photometric(dataset),
            grey=grey_word(dataset),
            padding=padding_word(dataset),
            spacing_mm=None if spacing is None else spacing[0],
            spacing_from=None if spacing is None else spacing[1],
            laterality=meaning.laterality(dataset),
            view=meaning.view(dataset),
            vendor=meaning.vendor(dataset),
            reason=reason,
        )


def _size(path: Path) -> int:
    """Returns the length of a file; pipes and devices, which would be waited for, are not opened."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("the file cannot be opened: it is a folder, a pipe or a device")
        if not status.st_size:
            raise ImageError("the file is empty")
        path.open("rb").close()
    except FileNotFoundError:
        raise ImageError("the file does not exist") from None
    except OSError as error:
        raise ImageError(f"the file cannot be opened ({type(error).__name__})") from None
    return status.st_size


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def _refuse_no_image(found: Elements) -> None:
    """Raises ImageError for DICOM files that hold no image: reports, presentation states, directories, documents."""
    dataset = found.dataset
    if "Rows" in dataset and "Columns" in dataset:
        return
    if dataset.get("SOPClassUID"):
        meaning.refuse_unfit(dataset, frozenset(ACCEPTABLE))
    raise ImageError("not a DICOM image: it has no header of an image")


@contextmanager
def _damage_is_a_reason() -> Iterator[None]:
    """Turns what pydicom raises on damaged files, which are errors of many kinds, into ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"the DICOM header or pixels are damaged ({type(error).__name__})") from None


_silence = threading.Lock()
_silent = 0
_caught = warnings.catch_warnings()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences pydicom, which warns and logs with the offending value in the text; threads may be within at once."""
    global _silent, _caught
    logger = logging.getLogger("pydicom")
    with _silence:
        if _silent == 0:
            _caught = warnings.catch_warnings()
            _caught.__enter__()
            warnings.simplefilter("ignore")
            logger.disabled = True
        _silent += 1
    try:
        yield
    finally:
        with _silence:
            _silent -= 1
            if _silent == 0:
                logger.disabled = False
                _caught.__exit__(None, None, None)
