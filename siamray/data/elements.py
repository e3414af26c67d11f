"""A DICOM header goes in; whether it is an ordinary mammogram, its spacing, side, view and vendor come out."""

import math
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID

from siamray.data.image import ImageError
from siamray.data.vendors import vendor_word

_FOR_PROCESSING = ("1.2.840.10008.5.1.4.1.1.1.2.1", "1.2.840.10008.5.1.4.1.1.1.1.1")
# Digital mammography, digital radiography and computed radiography, for presentation (PS3.4, B.5).
_MAMMOGRAMS = ("1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1")
_SECONDARY_CAPTURES = (
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
)
_TOMOSYNTHESIS = (
    "1.2.840.10008.5.1.4.1.1.13.1.3",
    "1.2.840.10008.5.1.4.1.1.13.1.4",
    "1.2.840.10008.5.1.4.1.1.13.1.5",
)
# Views as DICOM codes them: SNOMED CT, and SNOMED RT in older files (PS3.16, CID 4014).
_VIEW_CODES = {
    "399162004": "CC",
    "R-10242": "CC",
    "399368009": "MLO",
    "R-10226": "MLO",
    "399260004": "ML",
    "R-10224": "ML",
    "399352003": "LM",
    "R-10228": "LM",
    "399099002": "LMO",
    "R-10230": "LMO",
    "399188001": "SIO",
    "R-102D0": "SIO",
    "441555000": "ISO",
    "R-40AAA": "ISO",
    "399192008": "XCCL",
    "R-1024A": "XCCL",
    "399101009": "XCCM",
    "R-1024B": "XCCM",
    "399196006": "FB",
    "R-10244": "FB",
}
# The words that view positions are written with; the element is free text in some archives, which may hold anything.
_VIEW_WORDS = frozenset(_VIEW_CODES.values()) | {"XCC", "AT", "CV", "RM", "RL", "TAN", "MLOID", "CCID"}
# View modifiers that make an image unfit for comparison with the other side (PS3.16, CID 4015; specimen: CID 4014).
# Nipple in profile, inframammary fold and axillary tissue say what a standard view shows, and do no harm.
_UNFIT_MODIFIERS = {
    "399163009": "magnification view",
    "R-102D6": "magnification view",
    "399055006": "spot compression view",
    "R-102D7": "spot compression view",
    "399110001": "tangential view",
    "R-102C2": "tangential view",
    "399161006": "cleavage view",
    "R-102D2": "cleavage view",
    "399011000": "axillary tail view",
    "R-102D1": "axillary tail view",
    "441752004": "anterior compression view",
    "P2-00161": "anterior compression view",
    "399197002": "rolled view",
    "R-102D3": "rolled view",
    "399226006": "rolled view",
    "R-102D4": "rolled view",
    "415670009": "rolled view",
    "R-102C9": "rolled view",
    "414493004": "rolled view",
    "R-102CA": "rolled view",
    "399209000": "implant displaced view",
    "R-102D5": "implant displaced view",
    "127457009": "specimen",
    "G-8310": "specimen",
}
# Values of ImageType that tomosynthesis and what is computed from it carry (PS3.3, C.8.11.7.1.4 and vendors' own).
_TOMOSYNTHESIS_TYPES = {
    "TOMO": "tomosynthesis, not one mammogram",
    "TOMO_PROJ": "a projection of tomosynthesis, not one mammogram",
    "TOMOSYNTHESIS": "tomosynthesis, not one mammogram",
    "GENERATED_2D": "synthetic: computed from tomosynthesis",
}
# A contact mammogram magnifies by its breast's height over the detector, some 1.05; magnification views by 1.5 to 2.
_GREATEST_CONTACT_MAGNIFICATION = 1.3
# Beyond this the distances in a header are no magnification but a fault.
_GREATEST_MAGNIFICATION = 4.0
# Spacing of rows and columns may differ by this share before an image counts as not square.
_SPACING_TOLERANCE = 0.05


def refuse_unfit(dataset: Dataset, accept: frozenset[str]) -> None:
    """Raises ImageError for what is no ordinary mammogram for presentation.

    Args:
        dataset: the header.
        accept: words of siamray.data.image.ACCEPTABLE that are taken all the same.
    """
    _refuse_class(dataset, accept)
    types = {str(word).strip().upper() for word in _list(dataset.get("ImageType"))}
    reasons = [reason for word, reason in _TOMOSYNTHESIS_TYPES.items() if word in types]
    if reasons:
        raise ImageError(reasons[-1])
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise ImageError("several frames: tomosynthesis or a sequence, not one mammogram")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise ImageError("a colour image, not a mammogram")
    if str(dataset.get("BreastImplantPresent") or "").upper() == "YES" and "implant" not in accept:
        raise ImageError("breast with an implant")
    for item in _view_items(dataset):
        word = _UNFIT_MODIFIERS.get(str(item.get("CodeValue") or ""))
        if word:
            raise ImageError(word)
    factor = magnification(dataset)
    if factor > _GREATEST_CONTACT_MAGNIFICATION:
        raise ImageError(f"magnification view (factor {factor:.2f})")


def _refuse_class(dataset: Dataset, accept: frozenset[str]) -> None:
    """Raises ImageError by kind of object, modality and intent."""
    kind = str(dataset.get("SOPClassUID") or "")
    if kind in _SECONDARY_CAPTURES and "secondary_capture" not in accept:
        raise ImageError("secondary capture: a screenshot or a digitised film, not a mammogram as it was taken")
    if kind in _TOMOSYNTHESIS:
        raise ImageError("tomosynthesis, not one mammogram")
    intent = str(dataset.get("PresentationIntentType") or "").strip().upper()
    if intent == "FOR PROCESSING" or kind in _FOR_PROCESSING:
        raise ImageError("for processing, not for presentation")
    if kind and kind not in _MAMMOGRAMS + _SECONDARY_CAPTURES:
        name = UID(kind).name
        # A UID that the standard does not know has itself as its name.
        raise ImageError(f"not a mammogram but {name if name != kind else 'an object of an unknown kind'}")
    if str(dataset.get("Modality") or "MG").strip().upper() != "MG":
        raise ImageError("not a mammogram: its Modality is not MG")


def _list(value: Any) -> list[Any]:
    """Returns the values of an element that may have none, one or several."""
    if value is None:
        return []
    return [value] if isinstance(value, (str, int, float)) else list(value)


def _view_items(dataset: Dataset) -> list[Dataset]:
    """Returns the view codes and their modifiers, nested in the view code or beside it."""
    views = list(dataset.get("ViewCodeSequence") or [])
    modifiers = [modifier for item in views for modifier in item.get("ViewModifierCodeSequence") or []]
    return [*views, *modifiers, *(dataset.get("ViewModifierCodeSequence") or [])]


def magnification(dataset: Dataset) -> float:
    """Returns by how much the detector's image is larger than the breast.

    EstimatedRadiographicMagnificationFactor, else what the standard defines it as (PS3.3, C.8.7.1.1): the source's
    distance to the detector over that to the patient. 1 where neither makes sense.
    """
    factor = _number(dataset.get("EstimatedRadiographicMagnificationFactor"))
    if 1 <= factor <= _GREATEST_MAGNIFICATION:
        return factor
    detector, patient = (_number(dataset.get(f"DistanceSourceTo{end}")) for end in ("Detector", "Patient"))
    if detector > 0 and patient > 0 and 1 <= detector / patient <= _GREATEST_MAGNIFICATION:
        return detector / patient
    return 1.0


def _number(value: Any) -> float:
    """Returns an element's single finite number, or 0."""
    number = float(value) if isinstance(value, (str, int, float)) and str(value).strip() else 0.0
    return number if math.isfinite(number) else 0.0


def spacing(dataset: Dataset) -> tuple[float, str] | None:
    """Returns the pixel spacing in the plane of the breast in mm, and the element it comes from.

    ImagerPixelSpacing lies in the detector's plane and is divided by the magnification; PixelSpacing, where it is
    calibrated, lies in the plane of the breast already (PS3.3, 10.7); NominalScannedPixelSpacing is that of a film.

    Raises:
        ImageError: the pixels are not square.
    """
    for name in ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing"):
        values = [_number(value) for value in _list(dataset.get(name))]
        if len(values) != 2 or min(values) <= 0:
            continue
        rows, columns = values
        if abs(rows - columns) > _SPACING_TOLERANCE * max(rows, columns):
            raise ImageError(f"pixels are not square: {name} is {rows:g} by {columns:g} mm")
        factor = 1.0 if name == "PixelSpacing" else magnification(dataset)
        return math.sqrt(rows * columns) / factor, name
    return None


def laterality(dataset: Dataset) -> str | None:
    """Returns "L", "R", or None where the header does not say or means both."""
    for name in ("ImageLaterality", "Laterality"):
        word = str(dataset.get(name) or "").strip().upper()
        if word in ("L", "R"):
            return word
    return None


def view(dataset: Dataset) -> str | None:
    """Returns the view in upper case, or None where the header does not say it in a word or code that is known."""
    word = str(dataset.get("ViewPosition") or "").strip().upper()
    if word in _VIEW_WORDS:
        return word
    codes = (_VIEW_CODES.get(str(item.get("CodeValue") or "")) for item in dataset.get("ViewCodeSequence") or [])
    return next((code for code in codes if code), None)


def vendor(dataset: Dataset) -> str | None:
    """Returns the vendor's word; what the element says is not repeated."""
    text = dataset.get("Manufacturer")
    return vendor_word(text) if isinstance(text, str) else None
