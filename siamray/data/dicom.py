"""An image file goes in; its pixels in presentation space, with spacing, laterality and view, come out."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError
from pydicom import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# Only these elements are ever parsed, so that no name, date or identifier of a header can reach a message or a log.
_TAGS: list[Any] = [
    "SOPClassUID",
    "Modality",
    "PresentationIntentType",
    "ImageLaterality",
    "Laterality",
    "ViewPosition",
    "ViewCodeSequence",
    "ViewModifierCodeSequence",
    "BreastImplantPresent",
    "ImagerPixelSpacing",
    "PixelSpacing",
    "NominalScannedPixelSpacing",
    "EstimatedRadiographicMagnificationFactor",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PresentationLUTShape",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "PixelData",
]
# Views as DICOM codes them: SNOMED CT, and SNOMED RT in older files (PS3.16, CID 4014).
_VIEW_CODES = {"399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO"}
# View modifiers that make an image unfit for comparison with the other side (PS3.16, CID 4015).
_UNFIT_MODIFIERS = {
    "399163009": "magnification view",
    "R-102D6": "magnification view",
    "399055006": "spot compression view",
    "R-102D7": "spot compression view",
    "399110001": "tangential view",
    "R-102C2": "tangential view",
    "399209000": "implant displaced view",
    "R-102D5": "implant displaced view",
    "127457009": "specimen",
    "G-8310": "specimen",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# A contact mammogram magnifies by its breast's height over the detector, some 1.05; magnification views by 1.5 to 2.
_GREATEST_CONTACT_MAGNIFICATION = 1.3
# Spacing of rows and columns may differ by this share before an image counts as not square.
_SPACING_TOLERANCE = 0.05


class ImageError(Exception):
    """An image that cannot be used; its message is a short reason without any value that identifies a person."""


@dataclass(frozen=True)
class Image:
    """One mammogram in presentation space.

    Attributes:
        pixels: grey values (rows, cols), 0 = black, 1 = white; 0 where there is padding.
        padding: True where a pixel shows nothing (rows, cols), or None where the file names no padding.
        spacing_mm: pixel spacing in mm in the plane of the breast, or None where the file does not say.
        laterality: "L", "R" or None.
        view: "CC", "MLO", another view position in upper case, or None.
    """

    pixels: Floats
    padding: Bools | None
    spacing_mm: float | None
    laterality: str | None
    view: str | None


def read_image(path: Path) -> Image:
    """Reads a mammogram from a DICOM file, or from an 8 or 16 bit grey PNG, PGM or TIFF file.

    DICOM (PS3.3 C.11): stored values are rescaled, the first VOI LUT, else the first window is applied, and the
    result is scaled to 0..1 by the whole output range of that step, not by the values that occur, so that
    exposures stay comparable. A file without LUT and window is scaled by the least and greatest value outside the
    padding.
    MONOCHROME1 and PresentationLUTShape INVERSE, alone or together, invert once and last. Padding (PixelPaddingValue
    to PixelPaddingRangeLimit) is found in the stored values before all that. Spacing is ImagerPixelSpacing, divided by
    the magnification factor where given, else PixelSpacing, else NominalScannedPixelSpacing.
    Other files are scaled by the range of their bit depth.

    Args:
        path: the file; its content says what it is, not its name.

    Raises:
        ImageError: missing, damaged, not an image, of a kind that is not compared (for processing, magnified, spot,
            tangential, implant, specimen, tomosynthesis, secondary capture of no mammogram), or blank.
    """
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except FileNotFoundError:
        raise ImageError("the file does not exist") from None
    except OSError:
        raise ImageError("the file cannot be opened") from None
    if not start:
        raise ImageError("the file is empty")
    if start[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom"):
        image = _read_dicom(path)
    else:
        image = _read_picture(path)
    seen = image.pixels if image.padding is None else image.pixels[~image.padding]
    if seen.size == 0 or float(seen.max()) == float(seen.min()):
        raise ImageError("the image is blank: all its pixels have one value")
    return image


def _read_dicom(path: Path) -> Image:
    # pydicom warns with the offending value in the text, and raises errors of many kinds on damaged files.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, specific_tags=_TAGS, force=True)
            known = "Rows" in dataset and "Columns" in dataset
        except Exception as error:
            raise ImageError(f"the DICOM header cannot be read ({type(error).__name__})") from None
        if not known:
            raise ImageError("not a DICOM image: it has no header of an image")
        try:
            _refuse_unfit(dataset)
            stored = _stored_values(dataset)
            padding = _padding(stored, dataset)
            pixels = _presentation(stored, padding, dataset)
            return Image(pixels, padding, _spacing(dataset), _laterality(dataset), _view(dataset))
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"the DICOM header or pixels are damaged ({type(error).__name__})") from None


def _refuse_unfit(dataset: Dataset) -> None:
    """Raises ImageError for images that are no ordinary mammogram for presentation."""
    modality = str(dataset.get("Modality") or "MG")
    if modality != "MG":
        raise ImageError(
            "not a mammogram: its Modality is not MG"
            if dataset.get("SOPClassUID") != _SECONDARY_CAPTURE
            else "secondary capture, not a mammogram"
        )
    if str(dataset.get("PresentationIntentType") or "").upper() == "FOR PROCESSING":
        raise ImageError("for processing, not for presentation")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise ImageError("several frames: tomosynthesis or a sequence, not one mammogram")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise ImageError("a colour image, not a mammogram")
    if str(dataset.get("BreastImplantPresent") or "").upper() == "YES":
        raise ImageError("breast with an implant")
    for item in _view_items(dataset):
        word = _UNFIT_MODIFIERS.get(str(item.get("CodeValue") or ""))
        if word:
            raise ImageError(word)
    factor = _magnification(dataset)
    if factor > _GREATEST_CONTACT_MAGNIFICATION:
        raise ImageError(f"magnification view (factor {factor:.2f})")


def _view_items(dataset: Dataset) -> list[Dataset]:
    """Returns the view codes and their modifiers, nested in the view code or beside it."""
    views = list(dataset.get("ViewCodeSequence") or [])
    modifiers = [modifier for item in views for modifier in item.get("ViewModifierCodeSequence") or []]
    return [*views, *modifiers, *(dataset.get("ViewModifierCodeSequence") or [])]


def _stored_values(dataset: Dataset) -> npt.NDArray[Any]:
    if "PixelData" not in dataset:
        raise ImageError("the file has no pixel data")
    try:
        values = np.asarray(dataset.pixel_array)
    except (RuntimeError, NotImplementedError):
        syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
        # A UID that the standard does not know has itself as its name; what a damaged header holds is not repeated.
        known = syntax is not None and syntax.name != str(syntax)
        name = syntax.name if syntax is not None and known else "an unknown encoding"
        raise ImageError(f"pixels are damaged, or no decoder is installed for {name}") from None
    except Exception as error:
        raise ImageError(f"pixel data are damaged or cut short ({type(error).__name__})") from None
    if values.ndim != 2:
        raise ImageError("the pixels are not one grey image")
    return values


def _padding(stored: npt.NDArray[Any], dataset: Dataset) -> Bools | None:
    """Finds the padding in stored values; PS3.3 C.7.5.1.1.2: a value, or a range in either order."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    bounds = [_as_stored(int(bound), stored.dtype) for bound in (value, value if limit is None else limit)]
    padding: Bools = (stored >= min(bounds)) & (stored <= max(bounds))
    return padding


def _as_stored(value: int, dtype: np.dtype[Any]) -> int:
    """Reads a value whose sign was written wrongly (a frequent fault of PixelPaddingValue) as the pixels are signed."""
    limits = np.iinfo(dtype)
    if limits.min <= value <= limits.max:
        return value
    span = int(limits.max) - int(limits.min) + 1
    return (value - int(limits.min)) % span + int(limits.min)


def _presentation(stored: npt.NDArray[Any], padding: Bools | None, dataset: Dataset) -> Floats:
    rescaled = apply_modality_lut(stored, dataset)
    shown = np.asarray(apply_voi_lut(rescaled, dataset, prefer_lut=True), dtype=np.float32)
    low, high = _output_range(shown, padding, dataset)
    pixels: Floats = np.clip((shown - low) / np.float32(max(high - low, 1e-12)), 0, 1)
    inverse = str(dataset.get("PresentationLUTShape") or "").upper() == "INVERSE"
    if inverse or dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = 1 - pixels
    if padding is not None:
        pixels[padding] = 0
    return pixels


def _output_range(shown: Floats, padding: Bools | None, dataset: Dataset) -> tuple[float, float]:
    """Returns the least and greatest value that the VOI step can give (PS3.3 C.11.2), as pydicom computes them."""
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return 0.0, float(2**bits - 1)
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        seen = shown if padding is None or padding.all() else shown[~padding]
        return float(seen.min()), float(seen.max())
    if dataset.get("ModalityLUTSequence"):
        low, high = 0.0, float(2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    else:
        bits = int(dataset.BitsStored)
        low = -float(2 ** (bits - 1)) if dataset.PixelRepresentation else 0.0
        high = low + 2**bits - 1
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is not None and intercept is not None:
        low, high = low * float(slope) + float(intercept), high * float(slope) + float(intercept)
    return low, high


def _magnification(dataset: Dataset) -> float:
    factor = float(dataset.get("EstimatedRadiographicMagnificationFactor") or 1)
    return factor if np.isfinite(factor) and factor >= 1 else 1.0


def _spacing(dataset: Dataset) -> float | None:
    for name in ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing"):
        values = dataset.get(name)
        if values is None or isinstance(values, (str, float, int)) or len(values) != 2:
            continue
        rows, cols = float(values[0]), float(values[1])
        if not (np.isfinite([rows, cols]).all() and rows > 0 and cols > 0):
            continue
        if abs(rows - cols) > _SPACING_TOLERANCE * max(rows, cols):
            raise ImageError(f"pixels are not square: {name} is {rows:g} by {cols:g} mm")
        spacing = float(np.sqrt(rows * cols))
        # PixelSpacing, where calibrated, already lies in the plane of the breast (PS3.3 10.7).
        return spacing if name == "PixelSpacing" else spacing / _magnification(dataset)
    return None


def _laterality(dataset: Dataset) -> str | None:
    for name in ("ImageLaterality", "Laterality"):
        word = str(dataset.get(name) or "").strip().upper()
        if word in ("L", "R"):
            return word
    return None


def _view(dataset: Dataset) -> str | None:
    word = str(dataset.get("ViewPosition") or "").strip().upper()
    # Letters only: the element is free text in some archives, and free text may hold anything.
    if word.isalpha() and len(word) <= 5:
        return word
    for item in dataset.get("ViewCodeSequence") or []:
        code = _VIEW_CODES.get(str(item.get("CodeValue") or ""))
        if code:
            return code
    return None


def _read_picture(path: Path) -> Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", PillowImage.DecompressionBombWarning)
        try:
            with PillowImage.open(path) as picture:
                if getattr(picture, "n_frames", 1) > 1:
                    raise ImageError("several pictures in one file")
                pixels = _grey(picture)
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError("neither DICOM nor a PNG, PGM or TIFF picture") from None
        except (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning):
            raise ImageError("the picture is too large for a mammogram") from None
        except Exception as error:
            raise ImageError(f"the picture is damaged or cut short ({type(error).__name__})") from None
    return Image(pixels, None, None, None, None)


def _grey(picture: PillowImage.Image) -> Floats:
    """Returns the grey values scaled by the range of the bit depth."""
    if picture.mode in ("RGB", "RGBA", "P", "PA", "LA"):
        colours = np.asarray(picture.convert("RGB"))
        if not (colours == colours[..., :1]).all():
            raise ImageError("a colour picture, not a mammogram")
        return colours[..., 0].astype(np.float32) / np.float32(255)
    if picture.mode == "L":
        return np.asarray(picture).astype(np.float32) / np.float32(255)
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("a picture of 32 bit; 8 and 16 bit grey are read")
        return values.astype(np.float32) / np.float32(65535)
    raise ImageError(f"a picture of mode {picture.mode}; 8 and 16 bit grey are read")
