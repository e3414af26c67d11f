"""Pixels come out in presentation space however a file stores them, and a damaged file is a short reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from siamray.data.dicom import ImageError, read_image

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
        "BitsAllocated": 16,
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
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def write(folder: Path, dataset: Dataset) -> Path:
    path = folder / "image.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def code(value: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meaning"
    return item


def lut(output: list[int], bits: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(output), 0, bits])
    item.add_new("LUTData", "US", output)
    return Sequence([item])


def test_the_whole_window_range_becomes_0_to_1(tmp_path: Path) -> None:
    image = read_image(write(tmp_path, mammogram()))
    assert image.pixels.dtype == np.float32
    np.testing.assert_allclose(image.pixels, RAMP / 4095, atol=1e-6)
    assert (image.laterality, image.view, image.spacing_mm, image.padding) == ("L", "MLO", 0.1, None)


def test_a_window_stretches_by_the_formula_of_the_standard(tmp_path: Path) -> None:
    image = read_image(write(tmp_path, mammogram(WindowCenter=1000, WindowWidth=501)))
    expected = np.clip((RAMP - 999.5) / 500 + 0.5, 0, 1)
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)


def test_the_first_of_several_windows_is_used(tmp_path: Path) -> None:
    several = read_image(write(tmp_path, mammogram(WindowCenter=[1000, 3000], WindowWidth=[501, 10])))
    single = read_image(write(tmp_path, mammogram(WindowCenter=1000, WindowWidth=501)))
    assert np.array_equal(several.pixels, single.pixels)


def test_a_lut_is_preferred_to_a_window_and_scaled_by_its_bits(tmp_path: Path) -> None:
    output = [min(1023, value // 2) for value in range(4096)]
    image = read_image(write(tmp_path, mammogram(VOILUTSequence=lut(output, 10), WindowCenter=5, WindowWidth=3)))
    np.testing.assert_allclose(image.pixels, np.minimum(1023, RAMP // 2) / 1023, atol=1e-6)


def test_without_window_and_lut_the_values_outside_the_padding_are_the_range(tmp_path: Path) -> None:
    stored = RAMP + 100
    stored[0] = 0
    dataset = mammogram(stored, WindowCenter=None, WindowWidth=None, PixelPaddingValue=0)
    image = read_image(write(tmp_path, dataset))
    assert image.padding is not None
    assert image.pixels[~image.padding].min() == 0
    assert image.pixels.max() == 1


def test_rescale_comes_before_the_window(tmp_path: Path) -> None:
    rescaled = mammogram(RescaleSlope=2, RescaleIntercept=-100, WindowCenter=2 * 2048 - 100, WindowWidth=2 * 4095 + 1)
    image = read_image(write(tmp_path, rescaled))
    np.testing.assert_allclose(image.pixels, RAMP / 4095, atol=2e-4)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", None, False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_inversion_happens_once(tmp_path: Path, photometric: str, shape: str | None, inverted: bool) -> None:
    dataset = mammogram(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    image = read_image(write(tmp_path, dataset))
    assert (image.pixels[-1, -1] < image.pixels[0, 0]) == inverted
    np.testing.assert_allclose(image.pixels, 1 - RAMP / 4095 if inverted else RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_found_before_inversion_and_is_black(tmp_path: Path, photometric: str) -> None:
    stored = RAMP.copy()
    stored[:, :5] = 4000
    dataset = mammogram(stored, PhotometricInterpretation=photometric, PixelPaddingValue=4000)
    image = read_image(write(tmp_path, dataset))
    assert image.padding is not None
    assert np.array_equal(image.padding, stored == 4000)
    assert (image.pixels[:, :5] == 0).all()


@pytest.mark.parametrize(("value", "limit"), [(10, 40), (40, 10)])
def test_a_padding_range_counts_in_either_order(tmp_path: Path, value: int, limit: int) -> None:
    image = read_image(write(tmp_path, mammogram(PixelPaddingValue=value, PixelPaddingRangeLimit=limit)))
    assert image.padding is not None
    assert np.array_equal(image.padding, (RAMP >= 10) & (RAMP <= 40))


def test_signed_pixels_with_padding_of_the_wrong_sign_are_understood(tmp_path: Path) -> None:
    stored = (RAMP.astype(np.int16) - 2048).astype(np.int16)
    stored[0] = -2000
    dataset = mammogram(stored, WindowCenter=0, WindowWidth=4096)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    image = read_image(write(tmp_path, dataset))
    assert image.padding is not None
    assert np.array_equal(image.padding, stored == -2000)
    np.testing.assert_allclose(image.pixels[1:], (RAMP[1:]) / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("elements", "spacing"),
    [
        ({"ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 1.05}, 0.2 / 1.05),
        ({"ImagerPixelSpacing": None, "PixelSpacing": [0.07, 0.07]}, 0.07),
        ({"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": [0.05, 0.05]}, 0.05),
        ({"ImagerPixelSpacing": [0.0, 0.0], "PixelSpacing": [0.07, 0.07]}, 0.07),
        ({"ImagerPixelSpacing": None}, None),
    ],
)
def test_spacing_is_that_in_the_plane_of_the_breast(
    tmp_path: Path, elements: dict[str, Any], spacing: float | None
) -> None:
    assert read_image(write(tmp_path, mammogram(**elements))).spacing_mm == pytest.approx(spacing)


def test_side_and_view_fall_back_and_unknown_words_are_null(tmp_path: Path) -> None:
    image = read_image(
        write(
            tmp_path,
            mammogram(
                ImageLaterality=None, Laterality="R", ViewPosition=None, ViewCodeSequence=Sequence([code("399162004")])
            ),
        )
    )
    assert (image.laterality, image.view) == ("R", "CC")
    image = read_image(write(tmp_path, mammogram(ImageLaterality="B", ViewPosition="")))
    assert (image.laterality, image.view) == (None, None)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, "for processing"),
        ({"Modality": "CT"}, "not a mammogram"),
        ({"Modality": "OT", "SOPClassUID": SecondaryCaptureImageStorage}, "secondary capture"),
        ({"BreastImplantPresent": "YES"}, "implant"),
        ({"EstimatedRadiographicMagnificationFactor": 1.8}, "magnification"),
        ({"ViewModifierCodeSequence": Sequence([code("399055006")])}, "spot compression"),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, "not square"),
        ({"PixelData": None}, "no pixel data"),
        ({"Rows": 3000}, "pixel data"),
        ({"WindowWidth": 0}, "damaged"),
        ({"Rows": None}, "no header of an image"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"PixelPaddingValue": 7, "PixelData": np.full((32, 32), 7, np.uint16).tobytes()}, "blank"),
    ],
)
def test_what_cannot_be_compared_is_a_reason(tmp_path: Path, elements: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read_image(write(tmp_path, mammogram(**elements)))


def test_modifiers_nested_in_the_view_code_count_too(tmp_path: Path) -> None:
    view = code("R-10242", "SRT")
    view.ViewModifierCodeSequence = Sequence([code("R-102D6", "SRT")])
    with pytest.raises(ImageError, match="magnification"):
        read_image(write(tmp_path, mammogram(ViewCodeSequence=Sequence([view]))))


def test_compressed_pixels_are_read_and_a_missing_decoder_is_named(tmp_path: Path) -> None:
    dataset = mammogram()
    dataset.compress(RLELossless)
    np.testing.assert_allclose(read_image(write(tmp_path, dataset)).pixels, RAMP / 4095, atol=1e-6)
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    with pytest.raises(ImageError, match="JPEG Lossless"):
        read_image(write(tmp_path, dataset))


def test_an_encoding_nobody_knows_is_not_repeated(tmp_path: Path) -> None:
    path = write(tmp_path, mammogram())
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\x00", b"9.9.999.99999.9.9.9\x00"))
    with pytest.raises(ImageError, match=r"an unknown encoding$"):
        read_image(path)


@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=20))
def test_any_damage_is_an_image_or_a_reason_without_identifying_values(
    tmp_path_factory: pytest.TempPathFactory, cut: float, flips: list[tuple[float, int]]
) -> None:
    path = write(tmp_path_factory.mktemp("damaged"), mammogram())
    content = bytearray(path.read_bytes())
    head = len(content) - RAMP.nbytes
    for place, value in flips:
        content[132 + int(place * (head - 132))] = value
    path.write_bytes(content[: int(cut * len(content)) + 1])
    try:
        image = read_image(path)
    except ImageError as error:
        text = str(error)
        assert 0 < len(text) < 200
        assert "\n" not in text
        assert not any(secret in text for secret in SECRETS.values())
    else:
        assert np.isfinite(image.pixels).all()
        assert 0 <= image.pixels.min() <= image.pixels.max() <= 1


def test_identifying_elements_are_never_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Dataset] = []
    original: Callable[..., Dataset] = pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda *args, **more: read.append(original(*args, **more)) or read[-1])
    read_image(write(tmp_path, mammogram()))
    assert len(read) == 1
    assert not any(name in read[0] for name in SECRETS)


@pytest.mark.parametrize(
    ("name", "dtype", "top"),
    [
        (name, dtype, top)
        for name in ("a.png", "a.pgm", "a.tif")
        for dtype, top in ((np.uint8, 255), (np.uint16, 65535))
    ],
)
def test_pictures_are_scaled_by_their_bit_depth(tmp_path: Path, name: str, dtype: type, top: int) -> None:
    values = np.linspace(0, 0.5 * top, 300).astype(dtype).reshape(15, 20)
    if name == "a.pgm" and dtype is np.uint16:
        (tmp_path / name).write_bytes(b"P5 20 15 65535\n" + values.astype(">u2").tobytes())
    else:
        PillowImage.fromarray(values).save(tmp_path / name)
    image = read_image(tmp_path / name)
    np.testing.assert_allclose(image.pixels, values / top, atol=1e-6)
    assert (image.padding, image.spacing_mm, image.laterality, image.view) == (None, None, None, None)


def test_grey_in_colour_is_read_and_colour_is_not(tmp_path: Path) -> None:
    grey = np.repeat(np.arange(100, dtype=np.uint8).reshape(10, 10, 1), 3, axis=2)
    PillowImage.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_allclose(read_image(tmp_path / "grey.png").pixels, grey[..., 0] / 255, atol=1e-6)
    grey[0, 0, 1] = 200
    PillowImage.fromarray(grey).save(tmp_path / "colour.png")
    with pytest.raises(ImageError, match="colour"):
        read_image(tmp_path / "colour.png")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", b"", "empty"),
        ("a.png", b"no picture at all", "neither DICOM nor"),
        ("a.dcm", b"no picture at all" * 20, "DICOM"),
        ("a.pgm", b"P5 20 15 255\n123", "damaged|cut short"),
    ],
)
def test_a_file_that_is_no_image_is_a_reason(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        read_image(tmp_path / name)


def test_a_truncated_png_a_missing_file_a_folder_and_a_blank_picture_are_reasons(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.png"
    PillowImage.fromarray(rng.integers(0, 255, (200, 200), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(ImageError, match="damaged or cut short"):
        read_image(path)
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="cannot be opened"):
        read_image(tmp_path)
    PillowImage.new("L", (20, 20), 9).save(path)
    with pytest.raises(ImageError, match="blank"):
        read_image(path)
