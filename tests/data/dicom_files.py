"""DICOM mammograms that tests write: a data set with every element that matters, and parts to change in it."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

SECRETS = {"PatientName": "Secret^Person", "PatientID": "SECRET-77", "PatientBirthDate": "19501224"}
RAMP = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 4


def mammogram(stored: np.ndarray = RAMP, **elements: Any) -> Dataset:
    """A 12 bit mammogram; elements of value None are left out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    values = {
        "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation,
        "SOPInstanceUID": generate_uid(),
        "Modality": "MG",
        "PresentationIntentType": "FOR PRESENTATION",
        "ImageLaterality": "L",
        "ViewPosition": "MLO",
        "ImagerPixelSpacing": [0.1, 0.1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": 8 * stored.dtype.itemsize,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "WindowCenter": 2048,
        "WindowWidth": 4096,
        **SECRETS,
        "PixelData": stored.tobytes(),
    }
    for name, value in {**values, **elements}.items():
        if value is not None:
            setattr(dataset, name, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "1.2.3")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def write(folder: Path, dataset: Dataset, name: str = "image.dcm") -> Path:
    path = folder / name
    dataset.save_as(path, enforce_file_format=True)
    return path


def code(value: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meaning"
    return item


def lut(output: list[int], bits: int, first: int = 0, sign: str = "US") -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", sign, [len(output) % 65536, first, bits])
    item.add_new("LUTData", "US", output)
    return Sequence([item])
