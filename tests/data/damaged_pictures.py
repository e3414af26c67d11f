"""Damaged or odd PNG, PGM and TIFF pictures, each with what reading it must give; damaged_files writes them."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

# Twelve bits, smooth with some noise, all of them used, and no two rows or columns alike.
_NOISE = np.random.default_rng(3).integers(0, 200, (40, 48))
PICTURE = (np.add.outer(np.arange(40) * 45, np.arange(48) * 40) + _NOISE).astype(np.uint16)
PICTURE[0, 0] = 4095
RIGHT = (PICTURE / 4095).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A damaged or odd file.

    Attributes:
        name: its name, with the ending that the file gets.
        write: writes it.
        reason: pattern of the reason that reading it must give; None where it is fine for all its oddness.
        pixels: grey values that reading it must give where it is fine.
    """

    name: str
    write: Callable[[Path], Any]
    reason: str | None
    pixels: np.ndarray | None = None


def written(data: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(data)


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1, old
    return data.replace(old, new)


def bad(name: str, data: bytes, reason: str) -> Case:
    return Case(name, written(data), reason)


def fine(name: str, data: bytes, pixels: np.ndarray = RIGHT) -> Case:
    return Case(name, written(data), None, pixels)


def saved(kind: str, picture: PillowImage.Image, **more: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **more)
    return buffer.getvalue()


def png_cases() -> Iterator[Case]:
    grey = (PICTURE >> 4).astype(np.uint8)
    picture = PillowImage.fromarray(grey)
    png = saved("PNG", picture)
    yield fine("whole.png", png, grey / 255)
    yield fine("16 bit.png", saved("PNG", PillowImage.fromarray(PICTURE * 16)), PICTURE * 16 / 65535)
    for chunk in ("IHDR", "IDAT", "IEND"):
        place = png.index(chunk.encode())
        flipped = png[: place + 5] + bytes([png[place + 5] ^ 0xFF]) + png[place + 6 :]
        if chunk != "IEND":
            yield bad(f"{chunk} damaged.png", flipped, "damaged|neither|cut short")
            yield bad(f"cut short in {chunk}.png", png[: place + 6], "damaged|neither|cut short")
    start = png.index(b"IDAT") - 4
    yield bad("IDAT missing.png", png[:start] + png[png.index(b"IEND") - 4 :], "damaged|neither")
    yield bad("half.png", png[: len(png) // 2], "damaged|cut short")
    body = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    claim = b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    yield bad("huge by its header.png", replaced(png, png[12:33], claim), "too large")
    body = struct.pack(">IIBBBBB", 9000, 9000, 8, 0, 0, 0, 0)
    claim = b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    yield bad("large by its header.png", replaced(png, png[12:33], claim), "damaged|cut short")
    yield bad("one pixel.png", saved("PNG", picture.crop((0, 0, 1, 1))), "blank")
    yield bad("black and white.png", saved("PNG", picture.convert("1")), "mode 1")
    yield bad("moving.png", saved("PNG", picture, save_all=True, append_images=[picture.rotate(180)]), "several")
    colours = np.stack([grey, grey, 255 - grey], axis=2)
    yield bad("colour.png", saved("PNG", PillowImage.fromarray(colours)), "colour")
    yield fine("grey in colours.png", saved("PNG", picture.convert("RGB")), grey / 255)
    for kind, name in (("BMP", "a.bmp"), ("GIF", "a.gif"), ("JPEG", "a.jpg"), ("JPEG", "jpeg called.png")):
        yield bad(name, saved(kind, picture), "neither DICOM nor")
    yield bad("text.png", b"no picture at all", "neither DICOM nor")


def pgm_cases() -> Iterator[Case]:
    pixels = PICTURE.astype(">u2").tobytes()
    yield fine("12 bit.pgm", b"P5\n# film 7\n48 40\n4095\n" + pixels)
    yield fine("text.pgm", b"P2 48 40 4095\n" + b"\n".join(b"%d" % value for value in PICTURE.ravel()))
    yield bad("16 bit cut short.pgm", b"P5 48 40 65535\n" + pixels[:-2], "cut short")
    yield bad("text cut short.pgm", b"P2 48 40 4095\n" + b" ".join([b"1"] * 1919), "cut short")
    yield bad("text with words.pgm", b"P2 48 40 4095\n" + b" ".join([b"12345", b"abcde"] * 1000), "damaged|cut")
    yield bad("brighter than white.pgm", b"P5 48 40 1000\n" + pixels, "exceed")
    yield bad("huge by its header.pgm", b"P5 60000 60000 65535\n" + pixels, "too large")
    yield bad("large by its header.pgm", b"P5 9000 9000 65535\n" + pixels, "cut short")
    yield bad("no header.pgm", b"P5 forty by fifty\n" + pixels, "damaged")
    yield bad("white is zero.pgm", b"P5 48 40 0\n" + pixels, "damaged")
    yield bad("two pictures.pgm", (b"P5 48 40 4095\n" + pixels) * 2, "several|damaged")
    yield bad("black and white.pgm", b"P1 2 2\n0 1 1 0\n", "mode 1|neither")
    yield bad("floats.pgm", b"Pf 48 40 -1.0\n" + bytes(4 * 48 * 40), "neither|mode F|damaged")


def tiff_cases() -> Iterator[Case]:
    picture = PillowImage.fromarray(PICTURE * 16)
    tiff = saved("TIFF", picture)
    yield fine("16 bit.tif", tiff, PICTURE * 16 / 65535)
    squeezed = saved("TIFF", picture, compression="tiff_lzw")
    yield fine("squeezed.tif", squeezed, PICTURE * 16 / 65535)
    yield bad("half.tif", tiff[: len(tiff) // 2], "damaged|neither|cut short")
    middle = len(squeezed) // 2
    yield bad("squeezed and garbled.tif", squeezed[:middle] + b"\xff" * 300 + squeezed[middle + 300 :], "damaged|cut")
    floats = PillowImage.fromarray(RIGHT)
    yield bad("floats.tif", saved("TIFF", floats), "mode F")
    pages = saved("TIFF", picture, save_all=True, append_images=[picture])
    yield bad("pages.tif", pages, "several")
    signed = PillowImage.fromarray(PICTURE.astype(np.int32) - 2000)
    yield bad("signed.tif", saved("TIFF", signed), "signed|32 bit")
    yield bad("colour.tif", saved("TIFF", PillowImage.effect_noise((9, 9), 90).convert("HSV").convert("CMYK")), "mode")
    claim = bytearray(saved("TIFF", PillowImage.fromarray((PICTURE >> 4).astype(np.uint8))))
    for tag in (256, 257):
        place = claim.index(struct.pack("<HH", tag, 4))
        claim[place : place + 12] = struct.pack("<HHII", tag, 4, 1, 60000)
    yield bad("huge by its header.tif", bytes(claim), "too large|damaged")
