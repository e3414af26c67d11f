"""Reads of a remote zarr store go in; the same bytes come out, the second time from a folder of this machine.

All processes of a node share the folder (siamray.files.cache_folder() / "chunks"). A record is what one read gave: a
whole file of the store, or a range of it. Whole files also serve the ranges within them.

- Records are written and thrown out by one process at a time (flock), each to a file aside that is then renamed: what
  a killed process leaves is never read, and the next writer overwrites it.
- A record carries checksums, of its name too. What does not fit them is removed and read from the store again.
- The bytes on disk are counted in the lock's file, and counted anew whenever the least recently used records make room.
- Nothing here fails a training: what cannot be kept is read from the store, and said once per process.
"""

import asyncio
import fcntl
import hashlib
import os
import shutil
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import google_crc32c
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, WrapperStore

# Left free on the cache's disk, for what cannot be read again: checkpoints and results.
SPARED_BYTES = 2**30
# A writer that does not come to its turn for so long reads on without the cache: another one is stopped or hangs.
WAIT_SECONDS = 10.0
# What is left of the bound after records were thrown out, so that not every record must throw out another one.
KEPT_SHARE = 0.9

_LOCK, _ARRIVING = "lock", "arriving"
# Bytes that have a checksum of their own, so that a range of a whole file is checked without reading all of it.
_BLOCK = 2**16
# Disks give out space in pieces of so many bytes.
_PIECE = 4096
_said: set[Path] = set()


class ChunkCache:
    """A folder of records, bounded over all processes that use it.

    Args:
        folder: of all stores' records on this machine.
        identity: of one store's content; others' records are never read.
        most_bytes: the bound on the folder, with what other stores have in it.
    """

    def __init__(self, folder: Path, identity: str, most_bytes: int) -> None:
        self._folder = folder
        self._identity = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._most = most_bytes
        self._off = False

    def read(self, key: str, span: ByteRequest | None) -> bytes | None:
        """Gives what an earlier read of the same kind gave, or of the whole file; None where it is not here.

        Args:
            key: of a file of the store.
            span: the bytes of it; None = all.
        """
        found = self._read(self._path(key, span), None)
        return self._read(self._path(key, None), span) if found is None and span is not None else found

    def write(self, key: str, span: ByteRequest | None, content: bytes) -> None:
        """Keeps what a read gave; the least recently used records make room for it.

        Args:
            key: of a file of the store.
            span: the bytes of it; None = all.
            content: those bytes.
        """
        if self._off:
            return
        try:
            self._write(self._path(key, span), content)
        except FileNotFoundError:
            return  # someone removes the folder just now
        except OSError as error:
            self._stop(error.strerror or type(error).__name__)

    def _write(self, path: Path, content: bytes) -> None:
        more = _on_disk(len(_header(path.name, content)) + len(content))
        if more > self._most:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with _alone(self._folder / _LOCK) as handle:
            if handle is None:
                self._stop("another process holds it")
                return
            if path.exists():
                return
            if shutil.disk_usage(self._folder).free < SPARED_BYTES + more:
                self._stop(f"less than {SPARED_BYTES / 2**30:g} GB of its disk would be left free")
                return
            total = _noted(handle)
            if total is None or total + more > self._most:
                total = self._make_room(more)
            # Before the record is there: who is killed in between has counted too much, never too little.
            os.pwrite(handle, f"{total + more:020d}".encode(), 0)
            arriving = self._folder / _ARRIVING
            arriving.write_bytes(_header(path.name, content) + content)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(arriving, path)

    def _make_room(self, more: int) -> int:
        """Throws out the least recently used records if the bound wants it; returns the bytes that are left."""
        found = sorted(self._records())
        total = sum(size for _, size, _ in found)
        if total + more <= self._most:
            return total
        for _, size, name in found:
            if total <= max(0, KEPT_SHARE * self._most - more):
                break
            with suppress(FileNotFoundError):
                os.unlink(name)
            total -= size
        for folder in self._folder.glob("*/*"):
            # Only empty ones go; nobody fills one meanwhile, as that takes the lock.
            with suppress(OSError):
                folder.rmdir()
                folder.parent.rmdir()
        return total

    def _records(self) -> Iterator[tuple[int, int, str]]:
        """Time of the last use in ns, bytes on disk, and path of every record."""
        for folder in self._folder.glob("*/*"):
            with os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        about = entry.stat()
                        yield about.st_mtime_ns, _on_disk(about.st_size), entry.path

    def _read(self, path: Path, span: ByteRequest | None) -> bytes | None:
        """A record's bytes, or a range of them; None where there is none, or a damaged one."""
        try:
            with path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                content = _checked(file.fileno(), size, path.name, span)
                if content is not None:
                    now = time.time_ns()
                    os.utime(file.fileno(), ns=(now, now))
                    return content
            path.unlink(missing_ok=True)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._stop(error.strerror or type(error).__name__)
        return None

    def _path(self, key: str, span: ByteRequest | None) -> Path:
        name = hashlib.sha256(f"{self._identity} {_written(span)} {key}".encode()).hexdigest()
        return self._folder / self._identity / name[:2] / name

    def _stop(self, reason: str) -> None:
        self._off = True
        if self._folder not in _said:
            _said.add(self._folder)
            print(
                f"siamray: nothing more is kept in {self._folder} ({reason}); chunks are read from the store again; "
                "free space, name another cache with SIAMRAY_CACHE, or set cluster.chunk_cache_gb=0",
                file=sys.stderr,
                flush=True,
            )


class CachedStore(WrapperStore[FsspecStore]):
    """A zarr store, for reading, whose files come from a cache where it has them.

    Args:
        store: the remote one.
        cache: of its files.
    """

    def __init__(self, store: FsspecStore, cache: ChunkCache) -> None:
        super().__init__(store)
        self._cache = cache

    def _with_store(self, store: FsspecStore) -> Self:
        return type(self)(store, self._cache)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Reads a file or a range of it; None where there is none, which is asked anew each time."""
        kept = await asyncio.to_thread(self._cache.read, key, byte_range)
        if kept is not None:
            return prototype.buffer.from_bytes(kept)
        buffer = await super().get(key, prototype, byte_range)
        if buffer is not None:
            await asyncio.to_thread(self._cache.write, key, byte_range, buffer.to_bytes())
        return buffer

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Reads several files or ranges together."""
        return list(await asyncio.gather(*(self.get(key, prototype, span) for key, span in key_ranges)))


@contextmanager
def _alone(path: Path) -> Iterator[int | None]:
    """Holds a lock between the threads and processes of this machine; gives its file, or None if it stays taken."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        until, pause = time.monotonic() + WAIT_SECONDS, 0.0005
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    yield None
                    return
                time.sleep(pause)
                pause = min(2 * pause, 0.01)
            else:
                break
        yield handle
    finally:
        os.close(handle)


def _noted(handle: int) -> int | None:
    """The bytes that all records take, as it was noted; None where it was not."""
    try:
        return int(os.pread(handle, 20, 0))
    except ValueError:
        return None


def _on_disk(size: int) -> int:
    return -(-size // _PIECE) * _PIECE


def _written(span: ByteRequest | None) -> str:
    match span:
        case RangeByteRequest(start, end):
            return f"{start}-{end}"
        case OffsetByteRequest(offset):
            return f"{offset}-"
        case SuffixByteRequest(suffix):
            return f"-{suffix}"
        case _:
            return "all"


def _limits(span: ByteRequest | None, length: int) -> tuple[int, int]:
    """First byte, and the one after the last, of a range of so many bytes."""
    match span:
        case RangeByteRequest(start, end):
            return min(start, length), min(end, length)
        case OffsetByteRequest(offset):
            return min(offset, length), length
        case SuffixByteRequest(suffix):
            return max(0, length - suffix), length
        case _:
            return 0, length


def _header(name: str, content: bytes) -> bytes:
    """What stands before a record's bytes: their number, a checksum of each block, and one of all this and its name."""
    blocks = [content[start : start + _BLOCK] for start in range(0, len(content), _BLOCK)]
    sums = struct.pack(f"<Q{len(blocks)}I", len(content), *(google_crc32c.value(block) for block in blocks))
    return sums + struct.pack("<I", google_crc32c.value(name.encode() + sums))


def _checked(file: int, size: int, name: str, span: ByteRequest | None) -> bytes | None:
    """Reads a record's bytes, or a range of them; None where they are not what was written."""
    first = os.pread(file, 8, 0)
    if len(first) < 8:
        return None
    (length,) = struct.unpack("<Q", first)
    blocks = -(-length // _BLOCK)
    start = 8 + 4 * blocks + 4
    if size != start + length:
        return None
    header = os.pread(file, start, 0)
    (own,) = struct.unpack("<I", header[-4:])
    if google_crc32c.value(name.encode() + header[:-4]) != own:
        return None
    sums = struct.unpack(f"<{blocks}I", header[8:-4])
    low, high = _limits(span, length)
    block = low // _BLOCK
    content = os.pread(file, min(-(-high // _BLOCK) * _BLOCK, length) - block * _BLOCK, start + block * _BLOCK)
    for begin in range(0, len(content), _BLOCK):
        if google_crc32c.value(content[begin : begin + _BLOCK]) != sums[block + begin // _BLOCK]:
            return None
    wanted = content[low - block * _BLOCK : high - block * _BLOCK]
    return wanted if len(wanted) == high - low else None
