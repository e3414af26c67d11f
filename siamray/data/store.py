"""Prepared exams go in, and come out again as images, masks, random windows, and tables of entries and findings.

An entry is one view of one exam: the left image and the right image registered onto it. On disk, as
siamray.data.preparation writes it: ``store.json`` (options, fingerprint; complete or not), ``entries.parquet``,
``findings.parquet``, ``exams.parquet``, ``manifest.parquet``, and ``entries/<entry_id>/``, a zarr v3 group (left,
right, left_mask, right_mask) with ``entry.json`` in it. At a URL (s3://bucket/prefix) lie the same files, so that a
store may be copied from one place to the other.
"""

import hashlib
import io
import itertools
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr
from pandas.util import hash_pandas_object
from upath import UPath
from zarr.storage import FsspecStore

from siamray.config import DataConfig
from siamray.data.chunk_cache import CachedStore, ChunkCache
from siamray.data.exams import assign_splits
from siamray.data.shard import write_array, write_group
from siamray.errors import UserError
from siamray.files import (
    Location,
    cache_folder,
    location,
    reaching,
    read_bytes,
    send,
    write_json,
    writing_to,
    written_aside,
)

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
# Counts up when what prepare does or writes changes, so that older stores are not taken for new ones.
FORMAT = 3
# Grey levels 0..1 are kept as whole numbers up to this.
WHITE = 65535
# zarr arrays kept open per process: an open one costs a few kB, opening it again most of a millisecond.
OPEN_ARRAYS = 2048
# Records that are asked for together where the store is remote.
READ_AT_ONCE = 256


class Store:
    """A complete store, for reading; may be sent to other processes, which then open it themselves.

    Attributes:
        path: its folder, or its URL.
        fingerprint: hash of the options and inputs it was prepared from.
        entries: one row per entry: entry_id, woman_id, exam_id, view, height, width, spacing_mm, birads, density,
            outcome (the worse of the two sides), left_image_id, right_image_id, left_mean, left_deviation, right_mean,
            right_deviation (tissue, 0..1 grey levels), and registration_kind, _dice, _correlation, _fell_back.
        findings: one row per finding of an entry: entry_id, woman_id, image_id, side, category, row_min, col_min,
            row_max, col_max in store pixels (half open; four NaN = place unknown, or outside the store image).
        exams: the source's exam table.
        manifest: one row per image seen: image_id, used, reason, entry_id, ...
    """

    def __init__(self, path: Location, cache_gb: float = 0.0) -> None:
        self.path = path
        self._cache_gb = cache_gb
        self.fingerprint: str = read_store_record(path)["fingerprint"]
        self.entries = _read_table(path / "entries.parquet")
        self.findings = _read_table(path / "findings.parquet")
        self.exams = _read_table(path / "exams.parquet")
        self.manifest = _read_table(path / "manifest.parquet")
        # One for all arrays, so that they share its connections.
        self._remote = None if isinstance(path, Path) else self._opened(path)
        self._arrays: dict[tuple[str, str], zarr.Array[Any]] = {}
        self._lock = threading.Lock()
        self._normalization: dict[str, dict[Side, tuple[float, float]]] | None = None

    @classmethod
    def open(cls, path: Location | str, cache_gb: float = 0.0) -> "Store":
        """Opens a store.

        Args:
            path: its folder, or its URL.
            cache_gb: see cluster.chunk_cache_gb; a folder's files are never cached.

        Raises:
            UserError: there is none, its preparation has not ended, or it cannot be reached.
        """
        folder = location(path)
        record = read_store_record(folder)
        if not record:
            raise UserError(
                f"store={folder}: no store there; python -m siamray.prepare data=... store={folder} makes it"
            )
        if record.get("format") != FORMAT:
            raise UserError(
                f"store={folder} has format {record.get('format')}, this siamray reads {FORMAT}; "
                "prepare into another store="
            )
        if not record.get("complete"):
            raise UserError(f"store={folder} is not complete; run the same siamray.prepare again, it goes on")
        return cls(folder, cache_gb)

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.path, self._cache_gb)

    def image(self, entry_id: str, side: Side) -> npt.NDArray[np.uint16]:
        """Reads one side, [H, W]; 65535 = white."""
        with reaching(self.path):
            return np.asarray(self._array(entry_id, side)[:])

    def mask(self, entry_id: str, side: Side) -> npt.NDArray[np.bool_]:
        """Reads where the breast of one side is, [H, W]."""
        with reaching(self.path):
            return np.asarray(self._array(entry_id, f"{side}_mask")[:])

    def window(self, entry_id: str, side: Side, row: int, col: int, height: int, width: int) -> npt.NDArray[np.uint16]:
        """Reads a window of one side; only its chunks are read and decoded.

        Args:
            entry_id: the entry.
            side: left or right.
            row: first row.
            col: first column.
            height: rows of the window.
            width: columns of the window.

        Returns:
            [height, width].

        Raises:
            ValueError: if the window does not lie within the image.
        """
        with reaching(self.path):
            array = self._array(entry_id, side)
            rows, cols = array.shape
            if row < 0 or col < 0 or row + height > rows or col + width > cols:
                raise ValueError(
                    f"window {row}+{height}, {col}+{width} does not lie in {entry_id} of {rows} x {cols} pixels"
                )
            return np.asarray(array[row : row + height, col : col + width])

    def normalization(self, entry_id: str) -> dict[Side, tuple[float, float]]:
        """Mean and standard deviation of each side's tissue, in 0..1 grey levels."""
        if self._normalization is None:
            columns = ["left_mean", "left_deviation", "right_mean", "right_deviation"]
            values = self.entries[columns].to_numpy(dtype=np.float64).tolist()
            self._normalization = {
                entry: {"left": (row[0], row[1]), "right": (row[2], row[3])}
                for entry, row in zip(self.entries["entry_id"], values, strict=True)
            }
        return self._normalization[entry_id]

    def record(self, entry_id: str) -> dict[str, Any]:
        """Reads the entry's record: geometry and image of both sides, findings with their polygons, registration."""
        record = read_entry(self.path, entry_id)
        if record is None:
            raise KeyError(entry_id)
        return record

    def split(self, config: DataConfig) -> "pd.Series[str]":
        """Deals the women who have an entry into training, validation and test (siamray.data.exams.assign_splits).

        Args:
            config: folds, fold, split_seed, official_split.

        Returns:
            split by woman_id.
        """
        used = self.manifest.loc[self.manifest["used"], "image_id"]
        exams = self.exams[self.exams["image_id"].isin(used)]
        options = config.folds, config.fold, config.split_seed, config.official_split
        return assign_splits(exams, self.findings, *options)

    def _opened(self, path: UPath) -> FsspecStore | CachedStore:
        there = _zarr_store(path)
        if not self._cache_gb:
            return there
        # The entries' sizes, brightness and registrations: a store that was prepared anew has others.
        content = hash_pandas_object(self.entries, index=False).to_numpy().tobytes()
        identity = f"{path} {self.fingerprint} {hashlib.sha256(content).hexdigest()}"
        return CachedStore(there, ChunkCache(cache_folder() / "chunks", identity, int(self._cache_gb * 2**30)))

    def _array(self, entry_id: str, name: str) -> "zarr.Array[Any]":
        key = (entry_id, name)
        with self._lock:
            array = self._arrays.get(key)
            if array is None:
                array = self._open_array(entry_id, name)
                if len(self._arrays) >= OPEN_ARRAYS:
                    self._arrays.pop(next(iter(self._arrays)))
                self._arrays[key] = array
        return array

    def _open_array(self, entry_id: str, name: str) -> "zarr.Array[Any]":
        if self._remote is None:
            return zarr.open_array(entry_folder(self.path, entry_id) / name, mode="r")
        # Told the format, zarr does not ask for the files of the older one.
        path = f"entries/{_escaped(entry_id)}/{name}"
        return zarr.open_array(self._remote, path=path, mode="r", zarr_format=3)


def entry_folder(store: Location, entry_id: str) -> Location:
    """Names the folder of an entry; characters that no file system likes are escaped."""
    return store / "entries" / _escaped(entry_id)


def read_store_record(store: Location) -> dict[str, Any]:
    """Reads store.json; an empty record where there is none."""
    return _read_json(store / "store.json") or {}


def read_entry(store: Location, entry_id: str) -> dict[str, Any] | None:
    """Reads an entry's record; None where there is no whole entry."""
    return _read_json(_entry_file(store, entry_id))


def known_entries(store: Location, keys: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Finds the entries that were prepared, or left out, before with the same options and inputs.

    Args:
        store: folder of the store.
        keys: entry_id -> the key its record has if nothing has changed.

    Yields:
        entry_id, and the record, of the entry or of why it was left out, that has this key; first all entries, then all
        that were left out. The records of a large store do not fit in memory together.

    Raises:
        UserError: a remote store cannot be reached.
    """
    wanted = list(keys)
    for name in (_entry_file, _exclusion_file):
        others = []
        for entry_id, record in zip(wanted, _read_jsons(name(store, wanted_id) for wanted_id in wanted), strict=True):
            if record is not None and record.get("key") == keys[entry_id]:
                yield entry_id, record
            else:
                others.append(entry_id)
        wanted = others


def write_exclusion(store: Location, entry_id: str, record: Mapping[str, Any]) -> None:
    """Notes that an entry was left out, so that preparing again need not find out once more."""
    write_json(_exclusion_file(store, entry_id), dict(record))


def write_entry(
    store: Location, entry_id: str, arrays: Mapping[str, npt.NDArray[Any]], record: Mapping[str, Any], chunk: int
) -> None:
    """Writes an entry so that a reader meets all of it or nothing.

    In a local store it is written aside and moved to its place in one step. In a remote one, where nothing can be
    moved, entry.json is sent last: without it the arrays are no entry.

    Args:
        store: folder of the store.
        entry_id: the entry; an older one of this name is replaced.
        arrays: name -> [H, W].
        record: what entry.json will say.
        chunk: edge of the chunks in pixels; all chunks of an array lie in one file (a shard).

    Raises:
        UserError: the folder cannot be written.
    """
    if not isinstance(store, Path):
        with written_aside(lambda aside: _write_group(aside, arrays, record, chunk)) as folder, writing_to(store):
            _send(folder, store / "entries" / _escaped(entry_id), record.get("key"))
        return
    with writing_to(store), temporary_folder(store) as folder:
        _write_group(folder, arrays, record, chunk)
        _move(folder, store / "entries" / _escaped(entry_id), store, record.get("key"))


def _write_group(folder: Path, arrays: Mapping[str, npt.NDArray[Any]], record: Mapping[str, Any], chunk: int) -> None:
    write_group(folder)
    for name, values in arrays.items():
        # A file per chunk would be millions of files for a large data set.
        write_array(folder / name, values, chunk)
    write_json(folder / "entry.json", dict(record))


@contextmanager
def temporary_folder(store: Path) -> Iterator[Path]:
    """Makes a folder within the store (so that moving out of it is one step), and removes what is left of it."""
    folder = store / "temporary" / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, target: Path, store: Path, key: Any) -> None:
    """Moves a folder to its place; an older entry there makes way, the same one of another preparation stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(20):
        if key is not None and (_read_json(target / "entry.json") or {}).get("key") == key:
            return
        try:
            os.rename(folder, target)
            return
        except OSError:
            if attempt == 19 or not target.exists():
                raise
        with temporary_folder(store) as aside:
            try:
                os.rename(target, aside / "old")
            except FileNotFoundError:
                continue  # another preparation took it away first


def _send(folder: Path, target: UPath, key: Any) -> None:
    """Copies the files of an entry to a remote folder, entry.json last; an older entry there makes way.

    Two preparations of the same entry may do so at the same time, as they send the same. Of different ones, which
    siamray.data.preparation keeps from one store, the parts would mix.
    """
    there = _read_json(target / "entry.json")
    if key is not None and there is not None and there.get("key") == key:
        return
    fs = target.fs
    if there is not None:
        # From here on there is no entry, until all of the new one is there.
        with suppress(FileNotFoundError):
            fs.rm_file((target / "entry.json").path)
    files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    arrays = [file for file in files if file != "entry.json"]
    # Listings are cached per process, while other processes write.
    fs.invalidate_cache(target.path)
    # zarr leaves out a shard that holds only zeros, so that the older one would show through.
    for left in set(fs.find(target.path)) - {(target / file).path for file in files}:
        with suppress(FileNotFoundError):
            fs.rm_file(left)
    send([(folder / file, target / file) for file in arrays])
    send([(folder / "entry.json", target / "entry.json")])


def _entry_file(store: Location, entry_id: str) -> Location:
    return entry_folder(store, entry_id) / "entry.json"


def _exclusion_file(store: Location, entry_id: str) -> Location:
    return store / "excluded" / f"{_escaped(entry_id)}.json"


def _escaped(entry_id: str) -> str:
    return quote(entry_id, safe="")


def _zarr_store(path: UPath) -> FsspecStore:
    return FsspecStore.from_mapper(path.fs.get_mapper(path.path), read_only=True)


def _read_table(path: Location) -> pd.DataFrame:
    return pd.read_parquet(path if isinstance(path, Path) else io.BytesIO(read_bytes(path)))


def _read_json(path: Location) -> dict[str, Any] | None:
    try:
        return _parsed(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read_jsons(paths: Iterator[Location]) -> Iterator[dict[str, Any] | None]:
    """Reads many records of one store; remote ones many at a time, as each takes a round trip."""
    while some := list(itertools.islice(paths, READ_AT_ONCE)):
        if isinstance(some[0], Path):
            yield from map(_read_json, some)
            continue
        with reaching(some[0]):
            # Ranges from 0 on, the whole files, as s3fs asks for the size of a file before it reads it as a whole.
            contents = some[0].fs.cat_ranges([path.path for path in some if isinstance(path, UPath)], 0, None)
        for path, content in zip(some, contents, strict=True):
            yield _received(path, content)


def _received(path: Location, content: bytes | Exception) -> dict[str, Any] | None:
    try:
        with reaching(path):
            if isinstance(content, Exception):
                raise content
    except FileNotFoundError:
        return None
    return _parsed(content)


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(content.decode("utf-8"))
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None
