"""A picture of what was found goes in; a DICOM Secondary Capture that viewers open comes out."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from siamray.downstream.overlay import NOT_FOR_DIAGNOSIS
from siamray.errors import UserError
from siamray.files import write_atomically


def write_capture(
    path: Path, picture: Image.Image, *, woman_id: str, exam_id: str, number: int, view: str, describes: str
) -> None:
    """Writes a picture as a colour Secondary Capture; the same exam again gives the same study.

    No date, name or number of the original headers is in it: they never reach the store. PatientID is the source's
    pseudonymous woman id.

    Args:
        path: the file.
        picture: RGB.
        woman_id: becomes PatientID.
        exam_id: names the study.
        number: instance number within the exam's series, from 1.
        view: CC or MLO, for the series description.
        describes: what else it depends on, such as encoder and score: another one gives another series.

    Raises:
        UserError: highdicom is not installed, or the file cannot be written.
    """
    try:
        from highdicom.sc import SCImage
    except ImportError:
        raise UserError(
            "downstream.detection.dicom=true: needs highdicom; pip install 'siamray[dicom]', or say "
            "downstream.detection.dicom=false"
        ) from None
    series = [woman_id, exam_id, "detection", describes]
    capture: Any = SCImage(
        pixel_array=np.asarray(picture.convert("RGB")),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=generate_uid(entropy_srcs=["siamray", woman_id, exam_id]),
        series_instance_uid=generate_uid(entropy_srcs=["siamray", *series]),
        series_number=1,
        sop_instance_uid=generate_uid(entropy_srcs=["siamray", *series, str(number)]),
        instance_number=number,
        manufacturer="siamray",
        patient_id=woman_id,
        patient_orientation=("A", "F"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    # Two breasts lie beside each other, the right one mirrored: no one orientation holds, and highdicom wants one.
    capture.PatientOrientation = ""
    capture.SeriesDescription = f"siamray lesion candidates, {NOT_FOR_DIAGNOSIS.lower()}"[:64]
    capture.ImageComments = f"{NOT_FOR_DIAGNOSIS}. Research software. {view}: {describes}"
    capture.DerivationDescription = "map of an encoder over registered mammograms"
    capture.BurnedInAnnotation = "NO"
    capture.QualityControlSubject = "NO"
    write_atomically(path, lambda temporary: capture.save_as(temporary, enforce_file_format=True))
