"""Nothing that identifies a person passes from a DICOM file into what is stored, printed, logged or raised."""

import gzip
import logging
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import zarr
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from siamray.compose import compose
from siamray.data.dicom import ImageError, read_header, read_image
from siamray.data.preparation import prepare
from siamray.data.sources import read_exams
from siamray.files import cache_folder
from tests.conftest import TINY_PREPARATION
from tests.data.dicom_files import mammogram, write
from tests.data.identifying import DATE, NAME, PROFILE, find_planted, plant, planted_in


def planted_file(folder: Path) -> Path:
    # Enough grey values that the picture is one.
    path = write(folder, mammogram())
    plant(path)
    return path


def edited(path: Path, change: Callable[[pydicom.Dataset], object]) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def test_every_element_of_the_profile_is_planted(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(planted_file(tmp_path))
    missing = [name for name in PROFILE.split() if name not in dataset]
    assert not missing
    values = {name: dataset[name].value for name in PROFILE.split()}
    texts = {name: str(value[0] if dataset[name].VR == "SQ" else value) for name, value in values.items()}
    assert [name for name, text in texts.items() if not planted_in(text)] == []
    assert NAME in str(dataset.get_private_item(0x0029, 0x01, f"{NAME} 2").value)


def test_a_planted_file_is_read_as_before_and_gives_away_nothing(tmp_path: Path) -> None:
    plain = read_image(write(tmp_path, mammogram(ViewPosition=None)))
    path = planted_file(tmp_path)
    image, header = read_image(path), read_header(path)
    assert np.array_equal(image.pixels, plain.pixels)
    assert planted_in(repr(image) + repr(header)) == []
    assert header.vendor == "other"
    assert (image.view, image.laterality) == (None, "L")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short early": lambda path: path.write_bytes(path.read_bytes()[:3000]),
    "cut short late": lambda path: path.write_bytes(path.read_bytes()[:-700]),
    "bytes flipped": lambda path: path.write_bytes(path.read_bytes().replace(b"\x28\x00", b"\x29\x07")),
    "not a mammogram": lambda path: edited(path, lambda dataset: setattr(dataset, "Modality", "CT")),
    "window of words": lambda path: path.write_bytes(
        path.read_bytes().replace(b"DS\x04\x004096", b"DS\x04\x00ZQXP").replace(b"DS\x04\x002048", b"DS\x04\x00ZQXP")
    ),
    "no pixels": lambda path: edited(path, lambda dataset: dataset.pop("PixelData")),
    "words for numbers": lambda path: path.write_bytes(
        path.read_bytes().replace(b"\x28\x00\x01\x01US\x02\x00", b"\x28\x00\x01\x01PN\x02\x00")
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_to_a_planted_file_gives_away_nothing(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = planted_file(tmp_path)
    DAMAGES[name](path)
    said = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for read in (read_header, read_image):
            try:
                said.append(repr(read(path)))
            except ImageError as error:
                said.append("".join(traceback.format_exception(error)))
    printed = capfd.readouterr()
    said += [printed.out, printed.err, caplog.text, *(str(warning.message) for warning in warned)]
    assert planted_in("\n".join(said)) == []
    assert "ZQXP" not in "\n".join(said)


def test_nothing_reaches_a_prepared_store_or_what_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    root, store = tmp_path / "phantoms", tmp_path / "store"
    options = [*TINY_PREPARATION, "preparation.registration.kind=centroid", "data.phantom.women=4"]
    options += [f"data.root={root}", f"store={store}"]
    config = compose("prepare", options)
    read_exams(config.data, cache_folder())
    files = sorted(root.rglob("*.dcm"))
    assert len(files) == 16
    for path in files:
        plant(path)
    for path, damage in zip(files, ("cut short late", "not a mammogram", "no pixels"), strict=False):
        DAMAGES[damage](path)
    prepare(config, progress=True)
    manifest = pd.read_parquet(store / "manifest.parquet")
    assert len(manifest) == 16
    assert find_planted(root), "the images hold what is looked for"
    assert find_planted(store) == []
    printed = capfd.readouterr()
    assert planted_in(printed.out + printed.err + caplog.text) == []
    assert planted_in(manifest.to_string()) == []


def test_planted_values_are_found_wherever_they_hide(tmp_path: Path) -> None:
    text = f"seen by {NAME.lower()} on {DATE}"
    (tmp_path / "plain.txt").write_text("aged 107Y")
    with gzip.open(tmp_path / "a.gz", "wt") as file:
        file.write(text)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.txt", text * 9)
    pd.DataFrame({"note": [text] * 9, "number": range(9)}).to_parquet(tmp_path / "a.parquet", compression="zstd")
    info = PngInfo()
    info.add_text("Comment", text, zip=True)
    PillowImage.new("L", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    codes = np.frombuffer(text.encode() * 90, dtype=np.uint8)
    zarr.create_array(tmp_path / "blosc.zarr", data=codes, compressors=zarr.codecs.BloscCodec(shuffle="noshuffle"))
    zarr.create_array(tmp_path / "zstd.zarr", data=codes, compressors=zarr.codecs.ZstdCodec())
    (tmp_path / f"{NAME}.txt").write_text("")
    (tmp_path / "nothing.txt").write_text("107 years, 107Yards, 1903")
    found = {line.split(":")[0].split("/")[0] for line in find_planted(tmp_path)}
    hidden = {"plain.txt", "a.gz", "a.zip", "a.parquet", "a.png", "blosc.zarr", "zstd.zarr", f"{NAME}.txt"}
    assert found == hidden
