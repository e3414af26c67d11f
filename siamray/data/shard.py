"""An image goes in; a zarr array of one shard, that any reader of zarr v3 opens, comes out on a local disk.

zarr itself takes four to eight times as long: it plans and awaits each chunk on its own, in another thread. What is
written follows the specifications of zarr v3 (https://zarr-specs.readthedocs.io/en/latest/v3/core/) and of its sharding
codec (.../v3/codecs/sharding-indexed/): the chunks one after another, then the index of their places and lengths.
"""

import json
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc

# zstd's higher levels make the noise of a detector no smaller (level 3: by 0.3 %) and take half as long again.
COMPRESSOR, LEVEL = "zstd", 1
# Place and length of a chunk that is not there, as it holds zeros only.
ABSENT = 2**64 - 1


def write_group(folder: Path) -> None:
    """Makes a folder a zarr group.

    Args:
        folder: an existing folder.
    """
    _write_metadata(folder, {"attributes": {}, "zarr_format": 3, "node_type": "group"})


def write_array(folder: Path, values: npt.NDArray[Any], chunk: int) -> None:
    """Writes a zarr array.

    Args:
        folder: is made; the array's name is the folder's.
        values: [H, W] of bool, uint8 or uint16.
        chunk: edge of the chunks in pixels; all of them lie in one file (a shard), of which parts can be read.

    Raises:
        OSError: the folder cannot be written.
    """
    shape = tuple(max(1, -(-size // chunk)) for size in values.shape)
    folder.mkdir()
    _write_metadata(folder, _metadata(values, chunk, (shape[0] * chunk, shape[1] * chunk)))
    chunks = [_chunk(values, row * chunk, col * chunk, chunk) for row in range(shape[0]) for col in range(shape[1])]
    if not any(chunks):
        # As zarr does: what is not there reads as zeros.
        return
    index = np.full((len(chunks), 2), ABSENT, dtype="<u8")
    place = 0
    for number, content in enumerate(chunks):
        if content:
            index[number] = place, len(content)
            place += len(content)
    (folder / "c" / "0").mkdir(parents=True)
    ends = index.tobytes()
    checksum = int(google_crc32c.value(ends)).to_bytes(4, "little")
    (folder / "c" / "0" / "0").write_bytes(b"".join([*chunks, ends, checksum]))


def _chunk(values: npt.NDArray[Any], row: int, col: int, chunk: int) -> bytes:
    """Compresses a chunk, filled up with zeros beyond the image; nothing where it holds only zeros."""
    part = values[row : row + chunk, col : col + chunk]
    if not part.any():
        return b""
    whole = np.zeros((chunk, chunk), dtype=values.dtype.newbyteorder("<"))
    whole[: part.shape[0], : part.shape[1]] = part
    return bytes(blosc.compress(whole, COMPRESSOR.encode(), LEVEL, blosc.BITSHUFFLE))


def _metadata(values: npt.NDArray[Any], chunk: int, shard: tuple[int, int]) -> dict[str, Any]:
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    compressed = {
        "typesize": values.dtype.itemsize,
        "cname": COMPRESSOR,
        "clevel": LEVEL,
        "shuffle": "bitshuffle",
        "blocksize": 0,
    }
    sharding = {
        "chunk_shape": [chunk, chunk],
        "codecs": [
            little if values.dtype.itemsize > 1 else {"name": "bytes"},
            {"name": "blosc", "configuration": compressed},
        ],
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "shape": list(values.shape),
        "data_type": values.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shard)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if values.dtype == np.bool_ else 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _write_metadata(folder: Path, record: dict[str, Any]) -> None:
    (folder / "zarr.json").write_text(json.dumps(record), encoding="utf-8")
