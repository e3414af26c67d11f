"""shard.py: zarr reads what was written, and would have written the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from zarr.codecs import BloscCodec, BloscShuffle

from siamray.data.shard import COMPRESSOR, LEVEL, write_array, write_group

SHAPES = [(1, 1), (64, 64), (200, 150), (128, 65), (63, 300)]


def image(kind: str, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Noise in the upper half: some chunks hold only zeros, which are not written."""
    values = np.random.default_rng(0).integers(0, 65536, shape)
    values[shape[0] // 2 + 1 :] = 0
    return (values > 30000) if kind == "bool" else values.astype(kind)


def by_zarr(folder: Path, values: npt.NDArray[Any], chunk: int) -> None:
    shard = tuple(-(-size // chunk) * chunk for size in values.shape)
    compressors = BloscCodec(cname=COMPRESSOR, clevel=LEVEL, shuffle=BloscShuffle.bitshuffle)
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    layout = {"chunks": (chunk, chunk), "shards": shard, "compressors": compressors, "fill_value": 0}
    group.create_array("image", shape=values.shape, dtype=values.dtype, **layout)[:] = values


@pytest.mark.parametrize("kind", ["bool", "uint8", "uint16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_zarr_reads_what_was_written_whole_and_in_parts(tmp_path: Path, kind: str, shape: tuple[int, int]) -> None:
    values = image(kind, shape)
    write_group(tmp_path)
    write_array(tmp_path / "image", values, 64)
    read = zarr.open_group(tmp_path, mode="r")["image"]
    assert isinstance(read, zarr.Array)
    assert read.dtype == values.dtype
    assert np.array_equal(read[:], values)
    top, left = shape[0] // 3, shape[1] // 2
    assert np.array_equal(read[top : top + 70, left : left + 9], values[top : top + 70, left : left + 9])


@pytest.mark.parametrize("kind", ["bool", "uint8", "uint16"])
def test_zarr_would_have_written_the_same_metadata_and_a_shard_of_the_same_length(tmp_path: Path, kind: str) -> None:
    values = image(kind, (200, 150))
    (tmp_path / "ours").mkdir()
    write_group(tmp_path / "ours")
    write_array(tmp_path / "ours" / "image", values, 64)
    by_zarr(tmp_path / "theirs", values, 64)
    for name in ("zarr.json", "image/zarr.json"):
        ours, theirs = (json.loads((tmp_path / who / name).read_text()) for who in ("ours", "theirs"))
        assert ours == theirs
    lengths = [(tmp_path / who / "image" / "c" / "0" / "0").stat().st_size for who in ("ours", "theirs")]
    assert lengths[0] == lengths[1]


def test_an_image_of_zeros_has_no_shard_and_reads_as_zeros(tmp_path: Path) -> None:
    write_group(tmp_path)
    write_array(tmp_path / "image", np.zeros((100, 90), dtype=np.uint16), 64)
    assert [path.name for path in (tmp_path / "image").rglob("*")] == ["zarr.json"]
    read = zarr.open_array(tmp_path / "image", mode="r")
    assert read.shape == (100, 90)
    assert not np.asarray(read[:]).any()


def test_a_damaged_index_is_noticed(tmp_path: Path) -> None:
    write_array(tmp_path / "image", image("uint16", (200, 150)), 64)
    shard = tmp_path / "image" / "c" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[-10] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(tmp_path / "image", mode="r")[:]
