"""Pixels come out in presentation space however a file stores them, and a damaged file is a short reason."""

import logging
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEGLosslessSV1, RLELossless, SecondaryCaptureImageStorage

from siamray.data.dicom import ACCEPTABLE, Header, ImageError, read_header, read_image
from tests.data.dicom_files import RAMP, SECRETS, code, lut, mammogram, write


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
    stored = RAMP // 2 + 100
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
        ({"DistanceSourceToDetector": 660, "DistanceSourceToPatient": 600}, 0.1 / 1.1),
        ({"DistanceSourceToDetector": 660, "DistanceSourceToPatient": 0}, 0.1),
        ({"DistanceSourceToDetector": 600, "DistanceSourceToPatient": 660}, 0.1),
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
        ({"WindowWidth": 0}, "window width"),
        ({"Rows": None}, "no header of an image"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"PixelPaddingValue": 7, "PixelData": np.full((32, 32), 7, np.uint16).tobytes()}, "blank"),
    ],
)
def test_what_cannot_be_compared_is_a_reason(tmp_path: Path, elements: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read_image(write(tmp_path, mammogram(**elements)))


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2.1", "PresentationIntentType": None}, "for processing"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.3"}, "tomosynthesis"),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMO", "GENERATED_2D"]}, "synthetic"),
        ({"ViewModifierCodeSequence": Sequence([code("R-102D3", "SRT")])}, "rolled"),
        ({"ViewModifierCodeSequence": Sequence([code("399161006")])}, "cleavage"),
        ({"ViewCodeSequence": Sequence([code("127457009")])}, "specimen"),
        ({"DistanceSourceToDetector": 660, "DistanceSourceToPatient": 366}, r"magnification view \(factor 1.80\)"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "secondary capture"),
        ({"SOPClassUID": "1.2.3.4"}, "an unknown kind"),
    ],
)
def test_the_header_alone_tells_what_cannot_be_compared(tmp_path: Path, elements: dict[str, Any], reason: str) -> None:
    path = write(tmp_path, mammogram(**elements))
    with pytest.raises(ImageError, match=reason) as left_out:
        read_image(path)
    assert read_header(path).reason == str(left_out.value)


def test_secondary_captures_and_implants_are_read_where_they_are_accepted(tmp_path: Path) -> None:
    for word, elements in (
        ("secondary_capture", {"SOPClassUID": SecondaryCaptureImageStorage}),
        ("implant", {"BreastImplantPresent": "YES"}),
    ):
        path = write(tmp_path, mammogram(**elements))
        other = next(iter({*ACCEPTABLE} - {word}))
        assert read_image(path, frozenset({word})).view == "MLO"
        assert read_header(path, frozenset({word})).reason is None
        assert read_header(path, frozenset({other})).reason is not None
    document = mammogram(SOPClassUID=SecondaryCaptureImageStorage, Modality="OT")
    with pytest.raises(ImageError, match="Modality"):
        read_image(write(tmp_path, document), frozenset({"secondary_capture"}))


def test_a_header_says_what_reading_will_do(tmp_path: Path) -> None:
    header = read_header(
        write(
            tmp_path,
            mammogram(
                Manufacturer="HOLOGIC, Inc. of Dr Secret",
                WindowCenter=[2048, 1000],
                WindowWidth=[4096, 300],
                PixelPaddingValue=0,
                PixelPaddingRangeLimit=3,
                EstimatedRadiographicMagnificationFactor=1.05,
            ),
        )
    )
    assert header == Header(
        kind="DICOM",
        syntax="Explicit VR Little Endian",
        rows=32,
        columns=32,
        bits=12,
        photometric="MONOCHROME2",
        grey="window, 2 alternatives",
        padding="range",
        spacing_mm=pytest.approx(0.1 / 1.05),
        spacing_from="ImagerPixelSpacing",
        laterality="L",
        view="MLO",
        vendor="hologic",
        reason=None,
    )


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"VOILUTSequence": lut(list(range(4096)), 12)}, "VOI LUT"),
        ({"VOILUTFunction": "SIGMOID"}, "sigmoid window"),
        ({"VOILUTFunction": "LINEAR_EXACT"}, "linear exact window"),
        ({"WindowCenter": None}, "no window"),
        ({}, "window"),
    ],
)
def test_a_header_says_how_values_become_grey(tmp_path: Path, elements: dict[str, Any], words: str) -> None:
    assert read_header(write(tmp_path, mammogram(**elements))).grey == words


def test_headers_of_pictures_are_read_too(tmp_path: Path) -> None:
    PillowImage.fromarray(RAMP).save(tmp_path / "a.png")
    (tmp_path / "a.pgm").write_bytes(b"P5 32 32 4095\n" + RAMP.astype(">u2").tobytes())
    PillowImage.fromarray(RAMP).save(tmp_path / "a.tif")
    for name, kind, bits in (("a.png", "PNG", 16), ("a.pgm", "PGM", 12), ("a.tif", "TIFF", 16)):
        header = read_header(tmp_path / name)
        assert (header.kind, header.rows, header.columns, header.bits) == (kind, 32, 32, bits)
        assert (header.syntax, header.reason, header.grey) == (None, None, "no window")


def test_the_number_of_pixels_is_limited(tmp_path: Path) -> None:
    PillowImage.fromarray(RAMP).save(tmp_path / "a.png")
    for path in (write(tmp_path, mammogram()), tmp_path / "a.png"):
        assert read_image(path, maximum_pixels=1024).pixels.shape == (32, 32)
        with pytest.raises(ImageError, match="too large for a mammogram: 32 x 32"):
            read_image(path, maximum_pixels=1023)


@pytest.mark.parametrize(
    ("function", "centre", "width", "expected"),
    [
        ("LINEAR", 1000, 1, RAMP > 999.5),
        ("LINEAR", 1000.5, 2, np.clip((RAMP - 1000.0) / 1 + 0.5, 0, 1)),
        ("LINEAR_EXACT", 1000, 500, np.clip((RAMP - 1000.0) / 500 + 0.5, 0, 1)),
        ("LINEAR_EXACT", 1000, 0.25, np.clip((RAMP - 1000.0) / 0.25 + 0.5, 0, 1)),
        ("SIGMOID", 1000, 500, 1 / (1 + np.exp(-4 * (RAMP - 1000.0) / 500))),
        ("SIGMOID", 1000, 0.001, np.where(RAMP == 1000, 0.5, RAMP > 1000)),
    ],
)
def test_windows_follow_the_formulas_of_the_standard(
    tmp_path: Path, function: str, centre: float, width: float, expected: np.ndarray
) -> None:
    dataset = mammogram(VOILUTFunction=function, WindowCenter=centre, WindowWidth=width)
    np.testing.assert_allclose(read_image(write(tmp_path, dataset)).pixels, expected, atol=1e-6)


def test_a_negative_slope_turns_grey_round_once(tmp_path: Path) -> None:
    dataset = mammogram(RescaleSlope=-2, RescaleIntercept=0, WindowCenter=-4095 + 0.5, WindowWidth=8191)
    np.testing.assert_allclose(read_image(write(tmp_path, dataset)).pixels, 1 - RAMP / 4095, atol=1e-6)
    dataset = mammogram(RescaleSlope=-2, RescaleIntercept=0, WindowCenter=None)
    np.testing.assert_allclose(read_image(write(tmp_path, dataset)).pixels, 1 - RAMP / RAMP.max(), atol=1e-6)


@pytest.mark.parametrize(("first", "sign"), [(65536 - 2000, "US"), (-2000, "SS")])
def test_the_first_value_of_a_table_is_signed_where_its_inputs_are(tmp_path: Path, first: int, sign: str) -> None:
    stored = (RAMP.astype(np.int32) - 2048).astype(np.int16)
    output = list(range(4000))
    path = write(tmp_path, mammogram(stored, VOILUTSequence=lut(output, 12, first, sign)))
    expected = np.clip(stored.astype(int) + 2000, 0, 3999) / 4095
    np.testing.assert_allclose(read_image(path).pixels, expected, atol=1e-6)


def test_the_first_value_of_a_table_is_unsigned_where_its_inputs_are(tmp_path: Path) -> None:
    stored = RAMP * 16
    elements = {"BitsStored": 16, "HighBit": 15}
    path = write(tmp_path, mammogram(stored, VOILUTSequence=lut(list(range(4096)), 12, 40000), **elements))
    expected = np.clip(stored.astype(int) - 40000, 0, 4095) / 4095
    np.testing.assert_allclose(read_image(path).pixels, expected, atol=1e-6)


def test_a_table_of_zero_entries_has_65536(tmp_path: Path) -> None:
    stored = RAMP * 16
    output = list(range(65535, -1, -1))
    table = lut(output, 16)
    assert table[0].LUTDescriptor[0] == 0
    path = write(tmp_path, mammogram(stored, VOILUTSequence=table, BitsStored=16, HighBit=15))
    np.testing.assert_allclose(read_image(path).pixels, 1 - stored / 65535, atol=1e-6)


def test_threads_read_headers_at_once_and_leave_warnings_as_they_were(tmp_path: Path) -> None:
    path = write(tmp_path, mammogram())
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        headers = list(pool.map(read_header, [path] * 100))
    assert headers == [headers[0]] * 100
    assert warnings.filters == before
    assert not logging.getLogger("pydicom").disabled


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
    read_header(tmp_path / "image.dcm")
    assert len(read) == 2
    assert not any(name in dataset for dataset in read for name in SECRETS)


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


def test_one_pixel_of_another_grey_makes_an_image(tmp_path: Path) -> None:
    stored = np.full((40, 50), 300, dtype=np.uint16)
    with pytest.raises(ImageError, match="blank"):
        read_image(write(tmp_path, mammogram(stored)))
    stored[13, 27] = 400
    assert read_image(write(tmp_path, mammogram(stored))).pixels[13, 27] > 0


def test_one_pixel_of_too_many_bits_is_noticed(tmp_path: Path) -> None:
    stored = np.arange(2000, dtype=np.uint16).reshape(40, 50)
    stored[13, 27] = 5000
    with pytest.raises(ImageError, match="more bits"):
        read_image(write(tmp_path, mammogram(stored)))


def test_a_part_of_the_image_is_a_part_of_its_pixels_and_padding(tmp_path: Path) -> None:
    image = read_image(write(tmp_path, mammogram(PixelPaddingValue=0, PixelPaddingRangeLimit=500)))
    part = slice(3, 9), slice(5, 30)
    assert image.padding is not None
    assert image.padded is not None
    assert np.array_equal(image.grey[part], image.pixels[part])
    assert np.array_equal(image.padded[part], image.padding[part])
    assert image.padding.any()
