"""A folder goes in; over a hundred damaged or odd files in it, each with what reading it must give, come out.

Write them by hand with `python -m tests.data.damaged_files FOLDER`.
"""

import io
import os
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, get_frame
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from tests.data.damaged_pictures import (
    PICTURE,
    RIGHT,
    Case,
    bad,
    fine,
    pgm_cases,
    png_cases,
    replaced,
    tiff_cases,
)
from tests.data.dicom_files import code, lut, mammogram


def content(dataset: Dataset) -> bytes:
    """The bytes of a DICOM file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def plain(**elements: Any) -> bytes:
    return content(mammogram(PICTURE, **elements))


def _header_cases() -> Iterator[Case]:
    whole = plain()
    head = len(whole) - PICTURE.nbytes
    yield bad("zero bytes.dcm", b"", "empty")
    yield bad("one byte.dcm", b"D", "DICOM")
    yield bad("preamble alone.dcm", whole[:132], "not a DICOM image")
    yield bad("text.dcm", b"Dear colleague, please find the mammogram attached. " * 40, "DICOM")
    yield bad("noise.dcm", np.random.default_rng(1).bytes(5000), "DICOM|damaged")
    yield bad("zeros.dcm", bytes(5000), "DICOM|damaged")
    yield bad("noise after the preamble.dcm", whole[:132] + np.random.default_rng(2).bytes(5000), "DICOM|damaged")
    for number, place in enumerate(np.linspace(140, head - 12, 7).astype(int)):
        yield bad(f"cut short in the header {number}.dcm", whole[:place], "DICOM|no pixel data|missing|damaged")
    yield bad("cut short before the pixels.dcm", whole[:head], "cut short")
    yield bad("cut short among the pixels.dcm", whole[: head + PICTURE.nbytes // 2], "cut short")
    yield bad("last byte missing.dcm", whole[:-1], "cut short")
    for name in ("BitsAllocated", "BitsStored", "PixelRepresentation"):
        yield bad(f"without {name}.dcm", plain(**{name: None}), f"{name} is missing")
    yield bad("without Rows.dcm", plain(Rows=None), "no header of an image")
    yield bad("without Columns.dcm", plain(Columns=None), "no header of an image")
    yield bad("without PhotometricInterpretation.dcm", plain(PhotometricInterpretation=None), "Photometric")
    yield bad("without PixelData.dcm", plain(PixelData=None), "no pixel data")
    yield fine("without HighBit.dcm", plain(HighBit=None))
    yield fine("without Modality.dcm", plain(Modality=None))
    yield bad("no rows.dcm", plain(Rows=0), "no rows")
    yield bad("huge by its header.dcm", plain(Rows=60000, Columns=60000), "too large")
    yield bad("large by its header.dcm", plain(Rows=9000, Columns=9000), "cut short")
    yield bad("a row too many.dcm", plain(Rows=41), "cut short")
    yield bad("a row too few.dcm", plain(Rows=39), "more bytes")
    yield bad("a column too few.dcm", plain(Columns=47), "more bytes")
    yield bad(
        "an element of four gigabytes.dcm", _with_element(b"\x09\x00\x01\x10UN\0\0\xf0\xff\xff\xff"), "DICOM|pixel"
    )
    unended = b"\x08\x00\x50\x12SQ\0\0\xff\xff\xff\xff"
    yield bad("a sequence without end.dcm", _with_element(unended), "DICOM|pixel")
    nested = (b"\x08\x00\x50\x12SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000
    yield bad("sequences in sequences.dcm", _with_element(nested), "DICOM|pixel")


def _with_element(element: bytes) -> bytes:
    """Puts an element into the header, before SOPClassUID."""
    whole = plain()
    place = whole.index(b"\x08\x00\x16\x00UI")
    return whole[:place] + element + whole[place:]


def _value_cases() -> Iterator[Case]:
    for value in (1, 12, 32, 64):
        yield bad(f"BitsAllocated {value}.dcm", plain(BitsAllocated=value), "bits; 8 and 16|cut short")
    yield bad("BitsAllocated 8.dcm", plain(BitsAllocated=8), "do not fit")
    yield bad("BitsStored 0.dcm", plain(BitsStored=0), "do not fit")
    yield bad("BitsStored 20.dcm", plain(BitsStored=20), "do not fit")
    yield bad("BitsStored too few.dcm", plain(BitsStored=10, HighBit=9), "more bits")
    yield bad("HighBit too high.dcm", plain(HighBit=15), "more bits")
    yield bad("HighBit too low.dcm", plain(HighBit=5), "do not fit")
    yield bad("PixelRepresentation 7.dcm", plain(PixelRepresentation=7), "PixelRepresentation")
    yield bad("RGB by its header.dcm", plain(PhotometricInterpretation="RGB"), "Photometric")
    yield bad("palette.dcm", plain(PhotometricInterpretation="PALETTE COLOR"), "Photometric")
    yield bad("an unknown photometric interpretation.dcm", plain(PhotometricInterpretation="GREY"), "Photometric")
    yield bad("three samples.dcm", plain(SamplesPerPixel=3), "colour")
    yield bad("two frames.dcm", plain(NumberOfFrames=2), "several frames")
    yield fine("no frames.dcm", plain(NumberOfFrames=0))
    yield bad("frames abc.dcm", replaced(plain(NumberOfFrames=4444), b"IS\x04\x004444", b"IS\x04\x00abc "), "damaged")
    yield bad("Rows as text.dcm", replaced(plain(), b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00LO\x02\x00"), ".")
    yield bad("pixels as SS.dcm", replaced(plain(), b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00SS"), "OB nor OW|damaged")
    for name, value in (("no", None), ("zero", [0, 0]), ("negative", [-0.1, -0.1]), ("one", 0.1)):
        yield fine(f"{name} spacing.dcm", plain(ImagerPixelSpacing=value))
    yield bad("spacing not square.dcm", plain(ImagerPixelSpacing=[0.1, 0.3]), "not square")
    yield bad("spacing abc.dcm", replaced(plain(ImagerPixelSpacing=[0.7777, 0.1]), b"0.7777", b"abcdef"), "damaged")
    for value in (0, -4096, 0.5):
        yield bad(f"window width {value}.dcm", plain(WindowWidth=value), "window width")
    for value in (b"nan ", b"inf "):
        data = _number_replaced(plain(WindowWidth=4444), value)
        yield bad(f"window width {value.decode().strip()}.dcm", data, "window width|damaged")
    yield bad("window width abc.dcm", _number_replaced(plain(WindowWidth=4444), b"abc "), "damaged")
    stretched = (PICTURE - PICTURE.min()) / float(PICTURE.max() - PICTURE.min())
    yield fine("no window centre.dcm", plain(WindowCenter=None), stretched)
    yield fine("a second window centre alone.dcm", plain(WindowCenter=[2048, 7]))
    yield bad("an unknown window function.dcm", plain(VOILUTFunction="CUBIC"), "VOILUTFunction")
    for value in (b"nan ", b"inf ", b"abc "):
        data = _number_replaced(plain(RescaleSlope=4444, RescaleIntercept=0), value)
        yield bad(f"slope {value.decode().strip()}.dcm", data, "Rescale|damaged")
    yield bad("slope 0.dcm", plain(RescaleSlope=0, RescaleIntercept=0), "RescaleSlope")
    negative = plain(RescaleSlope=-1, RescaleIntercept=4095)
    yield fine("slope -1.dcm", negative, 1 - RIGHT)
    yield bad("all padding.dcm", _blank(7, PixelPaddingValue=7), "blank")
    yield bad("padding range over everything.dcm", plain(PixelPaddingValue=0, PixelPaddingRangeLimit=4095), "blank")
    yield bad("constant.dcm", _blank(7), "blank")
    yield bad("one pixel.dcm", content(mammogram(PICTURE[:1, :1])), "blank")
    yield fine("two pixels.dcm", content(mammogram(PICTURE[:1, :2])), RIGHT[:1, :2])


def _blank(value: int, **elements: Any) -> bytes:
    return content(mammogram(np.full((40, 48), value, np.uint16), **elements))


def _lut_cases() -> Iterator[Case]:
    identity = list(range(4096))
    short = lut(identity, 12)
    short[0].LUTData = identity[:3000]
    yield bad("LUT of too few entries.dcm", plain(VOILUTSequence=short), "fewer entries")
    empty = lut(identity, 12)
    empty[0].LUTData = None
    yield bad("LUT without entries.dcm", plain(VOILUTSequence=empty), "fewer entries|damaged")
    halved = lut(identity, 12)
    halved[0].LUTDescriptor = [4096, 0]
    yield bad("LUT with half a descriptor.dcm", plain(VOILUTSequence=halved), "descriptor")
    yield bad("LUT of 40 bits.dcm", plain(VOILUTSequence=lut(identity, 40)), "descriptor")
    modality = lut(identity, 12)
    modality[0].LUTData = identity[:17]
    yield bad("modality LUT of too few entries.dcm", plain(ModalityLUTSequence=modality), "fewer entries")
    yield fine("no item in the LUT.dcm", plain(VOILUTSequence=Sequence([])))
    yield fine("LUT of more bits than it says.dcm", plain(VOILUTSequence=lut(identity, 10)))
    packed = lut(identity, 8)
    del packed[0]["LUTData"]
    packed[0].add_new("LUTData", "OW", bytes(value >> 4 for value in range(4096)))
    yield fine("LUT of 8 bit, two in a word.dcm", plain(VOILUTSequence=packed), (PICTURE >> 4) / 255)


def _kind_cases() -> Iterator[Case]:
    kinds = {
        "1.2.840.10008.5.1.4.1.1.11.1": "Presentation State",
        "1.2.840.10008.5.1.4.1.1.88.50": "CAD SR",
        "1.2.840.10008.5.1.4.1.1.104.1": "Encapsulated PDF",
        "1.2.840.10008.1.3.10": "Media Storage Directory",
    }
    no_image = dict.fromkeys(("Rows", "Columns", "PixelData", "PresentationIntentType"))
    for kind, name in kinds.items():
        yield bad(f"{name}.dcm", plain(SOPClassUID=kind, **no_image), name)
    yield bad("DICOMDIR", plain(SOPClassUID="1.2.840.10008.1.3.10", **no_image), "Media Storage Directory")
    yield bad("CT.dcm", plain(SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT"), "not a mammogram but CT")
    yield bad("a private kind.dcm", plain(SOPClassUID="1.2.840.113619.4.26"), "unknown kind")
    yield bad("tomosynthesis.dcm", plain(SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.3"), "tomosynthesis")
    yield bad("projection.dcm", plain(ImageType=["ORIGINAL", "PRIMARY", "TOMO_PROJ", "LEFT"]), "projection")
    synthetic = ["DERIVED", "PRIMARY", "TOMO", "GENERATED_2D"]
    yield bad("synthetic.dcm", plain(ImageType=synthetic), "synthetic")
    yield fine("derived.dcm", plain(ImageType=["DERIVED", "PRIMARY", "", "150000"]))
    yield bad("secondary capture.dcm", plain(SOPClassUID=SecondaryCaptureImageStorage), "secondary capture")
    yield bad("for processing.dcm", plain(PresentationIntentType="FOR PROCESSING"), "for processing")
    yield bad("spot.dcm", plain(ViewModifierCodeSequence=Sequence([code("399055006")])), "spot")
    icon = Dataset()
    icon.Rows, icon.Columns, icon.BitsAllocated, icon.PixelData = 2, 2, 8, b"\1\2\3\4"
    yield fine("icon.dcm", plain(IconImageSequence=Sequence([icon])))
    small = PICTURE[:5, :5].astype(np.uint8)
    odd = mammogram(small, BitsStored=8, HighBit=7, WindowCenter=128, WindowWidth=256)
    data = content(odd)
    # pydicom makes the length even; the file says and holds 25 bytes.
    data = replaced(data, struct.pack("<I", 26) + small.tobytes(), struct.pack("<I", 25) + small.tobytes())[:-1]
    yield fine("odd length.dcm", data, small / 255)
    yield fine("eight bytes more than needed.dcm", _longer(plain(), 8))
    yield bad("twice the bytes.dcm", _longer(plain(), PICTURE.nbytes), "more bytes")
    whole = plain()
    length = 12 + struct.unpack("<I", whole[140:144])[0] + 132
    yield fine("without preamble and meta header.dcm", whole[length:])
    yield bad("without preamble and meta header", whole[length:], "neither DICOM")


def _number_replaced(whole: bytes, value: bytes) -> bytes:
    """Puts four other bytes for the decimal string 4444.0, whose digits unique identifiers may hold as well."""
    return replaced(whole, b"DS\x06\x004444.0", b"DS\x06\x00" + value + b"  ")


def _longer(whole: bytes, more: int) -> bytes:
    length = struct.pack("<I", PICTURE.nbytes)
    return replaced(whole, b"OW\0\0" + length, b"OW\0\0" + struct.pack("<I", PICTURE.nbytes + more)) + bytes(more)


def stream_of(syntax: UID) -> bytes:
    """The picture, compressed."""
    if syntax == JPEGLosslessSV1:
        return lossless_jpeg(PICTURE, 12)
    if syntax == RLELossless:
        dataset = mammogram(PICTURE)
        dataset.compress(syntax, encoding_plugin="pydicom")
    else:
        dataset = _compressed_by_gdcm(syntax)
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def _compressed_by_gdcm(syntax: UID) -> Dataset:
    names = {JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless, JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless}
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    with tempfile.TemporaryDirectory() as folder:
        source, target = str(Path(folder) / "plain.dcm"), str(Path(folder) / "compressed.dcm")
        Path(source).write_bytes(plain())
        reader.SetFileName(source)
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(names[syntax]))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(target)
        assert writer.Write()
        return dcmread(target)


def lossless_jpeg(picture: np.ndarray, precision: int) -> bytes:
    """Encodes as ITU T.81, annex H has it, slowly: predictor 1, and codes of five bits for all 17 categories."""
    rows, columns = picture.shape
    values = picture.astype(int).tolist()
    bits = []
    for row in range(rows):
        for column in range(columns):
            first = values[row - 1][0] if row else 2 ** (precision - 1)
            predicted = values[row][column - 1] if column else first
            difference = values[row][column] - predicted
            category = abs(difference).bit_length()
            bits.append(f"{category:05b}")
            if category:
                bits.append(f"{difference if difference > 0 else difference + 2**category - 1:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    data = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    tables = b"\xff\xc4" + struct.pack(">HB", 36, 0) + bytes([0] * 4 + [17] + [0] * 11) + bytes(range(17))
    frame = b"\xff\xc3" + struct.pack(">HBHHBBBB", 11, precision, rows, columns, 1, 1, 0x11, 0)
    scan = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0)
    return b"\xff\xd8" + tables + frame + scan + data + b"\xff\xd9"


def encoded(syntax: UID, stream: bytes, **elements: Any) -> bytes:
    dataset = mammogram(PICTURE, **elements)
    dataset.file_meta.TransferSyntaxUID = syntax
    # Without a stream: the empty table of offsets, and no fragment after it.
    dataset.PixelData = encapsulate([stream], has_bot=False) if stream else b"\xfe\xff\x00\xe0\0\0\0\0"
    dataset["PixelData"].VR = "OB"
    return content(dataset)


SYNTAXES = {
    "RLE": RLELossless,
    "JPEG Lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}


def _compressed_cases() -> Iterator[Case]:
    for name, syntax in SYNTAXES.items():
        stream = stream_of(syntax)
        whole, third = encoded(syntax, stream), len(stream) // 3
        yield fine(f"{name} whole.dcm", whole)
        yield fine(f"{name} with zeros after it.dcm", encoded(syntax, stream + bytes(64)))
        yield bad(f"{name} cut short.dcm", whole[: -len(stream) // 2], "cut short")
        yield bad(f"{name} without end of the fragments.dcm", whole[:-8], "cut short")
        yield bad(f"{name} without fragments.dcm", encoded(syntax, b""), "no fragment")
        yield bad(f"{name} half.dcm", encoded(syntax, stream[: len(stream) // 2]), name[:4])
        yield bad(
            f"{name} middle missing.dcm", encoded(syntax, stream[:third] + stream[2 * third :]), "damaged|missing"
        )
        yield bad(f"{name} start garbled.dcm", encoded(syntax, bytes(200) + stream[200:]), name[:4])
        yield bad(f"{name} of another size.dcm", encoded(syntax, stream, Rows=30), "damaged|40 x 48, not 30 x 48")
        claimed = encoded(syntax, stream, Rows=9000, Columns=9000)
        yield bad(f"{name} large by its header.dcm", claimed, "damaged|40 x 48, not 9000 x 9000")
        garbled = stream[:third] + bytes(range(60)) + stream[third + 60 :]
        if name != "JPEG 2000":
            # JPEG 2000 has no way to notice: test_dicom_decoding says so.
            yield bad(f"{name} middle garbled.dcm", encoded(syntax, garbled), "damaged|more bits")
    yield bad("RLE called JPEG Lossless.dcm", encoded(JPEGLosslessSV1, stream_of(RLELossless)), "JPEG Lossless")
    yield bad("JPEG Lossless called RLE.dcm", encoded(RLELossless, stream_of(JPEGLosslessSV1)), "RLE")
    yield bad("JPEG 2000 called JPEG-LS.dcm", encoded(JPEGLSLossless, stream_of(JPEG2000Lossless)), "JPEG-LS")
    yield bad("JPEG-LS called JPEG Lossless.dcm", encoded(JPEGLosslessSV1, stream_of(JPEGLSLossless)), "not what")
    yield bad(
        "RLE called uncompressed.dcm",
        encoded(UID("1.2.840.10008.1.2.1"), stream_of(RLELossless)),
        "cut short|compressed",
    )
    yield bad("MPEG.dcm", encoded(UID("1.2.840.10008.1.2.4.102"), b"\0\0\1\xb3" * 50), "no decoder .* MPEG")
    huge = bytearray(stream_of(JPEG2000Lossless))
    huge[8:16] = struct.pack(">II", 60000, 60000)
    yield bad("JPEG 2000 huge by its stream.dcm", encoded(JPEG2000Lossless, bytes(huge)), "JPEG 2000")
    yield from _syntax_cases()


def _syntax_cases() -> Iterator[Case]:
    whole = plain()
    explicit, unknown = b"1.2.840.10008.1.2.1\0", b"9.9.999.99999.9.9.9\0"
    yield bad("an unknown transfer syntax.dcm", replaced(whole, explicit, unknown), "an unknown encoding")
    yield bad("uncompressed called RLE.dcm", replaced(whole, explicit, b"1.2.840.10008.1.2.5\0"), "not compressed")
    yield bad("little called big endian.dcm", replaced(whole, explicit, b"1.2.840.10008.1.2.2\0"), ".")
    meta = whole[: 144 + struct.unpack("<I", whole[140:144])[0]]
    deflated = mammogram(PICTURE)
    deflated.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    start = content(deflated)
    start = start[: 144 + struct.unpack("<I", start[140:144])[0]]
    body = whole[len(meta) :]
    yield fine("deflated.dcm", start + deflate(body))
    yield bad("deflated cut short.dcm", start + deflate(body)[:400], "DICOM|cut short|no header")
    yield bad("called deflated.dcm", start + body, "DICOM")
    bomb = body[: -PICTURE.nbytes] + PICTURE.tobytes() + bytes(300_000_000)
    yield fine("deflated, with much after the pixels.dcm", start + deflate(bomb))
    hidden = b"\x09\x00\x01\x10UN\0\0" + struct.pack("<I", 300_000_000) + bytes(300_000_000)
    yield bad("deflated bomb in the header.dcm", start + deflate(hidden + body), "DICOM|no header|no pixel")


def deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()


def _special_cases() -> Iterator[Case]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("image.dcm", plain())
    yield bad("zip.png", archive.getvalue(), "neither DICOM nor")
    yield bad("zip.dcm", archive.getvalue(), "DICOM|damaged")
    yield bad("pdf.dcm", b"%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj\n" * 50, "DICOM|damaged")
    yield Case("folder.dcm", Path.mkdir, "cannot be opened")
    yield Case("link to itself.dcm", lambda path: path.symlink_to(path), "cannot be opened")
    yield Case("link to nothing.png", lambda path: path.symlink_to(path.with_name("none.png")), "does not exist")
    yield Case("missing.dcm", lambda _: None, "does not exist")
    if hasattr(os, "mkfifo"):
        yield Case("pipe.dcm", os.mkfifo, "cannot be opened")
    for device in ("zero", "full"):
        if Path("/dev", device).exists():
            yield Case(f"{device}.dcm", lambda path, name=device: path.symlink_to(f"/dev/{name}"), "cannot be opened")
    if hasattr(os, "geteuid") and os.geteuid():
        yield Case("secret.dcm", lambda path: (path.write_bytes(plain()), path.chmod(0)), "cannot be opened")


def cases() -> list[Case]:
    """All the cases, each with a name of its own."""
    groups = (
        _header_cases,
        _value_cases,
        _lut_cases,
        _kind_cases,
        _compressed_cases,
        png_cases,
        pgm_cases,
        tiff_cases,
        _special_cases,
    )
    found = [case for group in groups for case in group()]
    names = [case.name for case in found]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return found


def write_cases(folder: Path) -> dict[Path, Case]:
    """Writes every case into a folder.

    Args:
        folder: where to; it is made.

    Returns:
        The case of each file; a file that must be missing is listed all the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for case in cases():
        path = folder / case.name
        case.write(path)
        found[path] = case
    return found


if __name__ == "__main__":
    print(f"{len(write_cases(Path(sys.argv[1])))} files")
