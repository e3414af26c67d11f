"""chunk_cache.py: what a node has read from a remote store it reads from its own disk, bounded, checked, and shared."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upath import UPath
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest

from siamray.data import chunk_cache
from siamray.data.chunk_cache import ChunkCache
from siamray.data.store import Store, write_entry
from siamray.files import write_json
from tests.data.test_remote_store import CHUNK, arrays, made_store, received

__all__ = ["received"]

GB = 0.01
Received = list[tuple[str, str | None, int]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIAMRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(chunk_cache, "_said", set())
    return tmp_path / "cache" / "chunks"


def records(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/*/*") if path.is_file()]


def taken(folder: Path) -> int:
    """Bytes that all files of the cache take on disk."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def read_all(store: Store) -> list[np.ndarray[Any, Any]]:
    """Whole images and masks, and windows of some of their chunks."""
    windows = [store.window("w_MLO", "right", row, 70, 90, 130) for row in range(0, 500, 100)]
    return [*windows, store.image("w_MLO", "left"), store.mask("w_MLO", "left"), store.mask("w_MLO", "right")]


def same(some: list[np.ndarray[Any, Any]], others: list[np.ndarray[Any, Any]]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(some, others, strict=True))


def arrays_read(received: Received) -> Received:
    return [read for read in received if "/entries/" in read[0]]


def test_another_trial_of_the_node_reads_nothing_from_the_server(s3: UPath, received: Received, folder: Path) -> None:
    made_store(s3)
    plain = read_all(Store.open(s3))
    without = arrays_read(received)
    received.clear()
    assert same(read_all(Store.open(s3, GB)), plain)
    # Nothing that would not be read without a cache, and each part once.
    assert sorted(arrays_read(received), key=str) == sorted(set(without), key=str)
    received.clear()
    assert same(read_all(Store.open(s3, GB)), plain)
    assert arrays_read(received) == []
    assert len(records(folder)) == len(set(without))


def test_windows_are_cut_from_images_that_were_read_whole(s3: UPath, received: Received) -> None:
    made_store(s3)
    Store.open(s3, GB).image("w_MLO", "left")
    received.clear()
    window = Store.open(s3, GB).window("w_MLO", "left", 300, 200, 128, 128)
    assert np.array_equal(window, arrays()["left"][300:428, 200:328])
    assert arrays_read(received) == []


def test_other_processes_read_what_one_has_read_and_all_may_read_at_once(s3: UPath, folder: Path) -> None:
    made_store(s3)
    code = (
        "import sys, numpy; from siamray.data.store import Store; s = Store.open(sys.argv[1], 0.01);"
        "print(sum(int(s.window('w_MLO', 'left', r, c, 64, 64).sum()) for r in range(0, 512, 64)"
        " for c in range(0, 448, 64)) + int(s.image('w_MLO', 'right').sum()))"
    )
    command = [sys.executable, "-c", code, str(s3)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    seen = [process.communicate() for process in running]
    expected = int(arrays()["left"][:512, :448].astype(np.int64).sum() + arrays()["right"].astype(np.int64).sum())
    assert seen == [(f"{expected}\n", "")] * 2
    # Where both have read the same, it is there once: the metadata and indexes of two arrays, 56 chunks, one image.
    assert len(records(folder)) == 2 + 1 + 56 + 1


def test_a_local_store_is_not_cached(tmp_path: Path, folder: Path) -> None:
    made_store(tmp_path / "store")
    read_all(Store.open(tmp_path / "store", GB))
    assert not folder.exists()


def test_a_cache_of_no_gigabytes_is_none(s3: UPath, folder: Path) -> None:
    made_store(s3)
    read_all(Store.open(s3, 0))
    assert not folder.exists()


@pytest.mark.parametrize("change", ["flip", "cut", "empty", "swap"])
def test_damaged_records_are_read_from_the_store_again(
    s3: UPath, received: Received, folder: Path, change: str
) -> None:
    made_store(s3)
    plain = read_all(Store.open(s3, GB))
    whole = records(folder)
    contents = [path.read_bytes() for path in whole]
    for path, content, other in zip(whole, contents, [*contents[1:], contents[0]], strict=True):
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"flip": flipped, "cut": content[:-1], "empty": b"", "swap": other}[change])
    received.clear()
    assert same(read_all(Store.open(s3, GB)), plain)
    assert arrays_read(received)
    received.clear()
    assert same(read_all(Store.open(s3, GB)), plain)
    assert arrays_read(received) == []


def test_a_store_prepared_anew_is_not_read_from_the_cache_of_the_old_one(s3: UPath) -> None:
    made_store(s3)
    read_all(Store.open(s3, GB))
    write_entry(s3, "w_MLO", arrays(5), {"key": "new"}, CHUNK)
    record = {"format": 3, "complete": True, "fingerprint": "another"}
    write_json(s3 / "store.json", record)
    assert np.array_equal(Store.open(s3, GB).image("w_MLO", "left"), arrays(5)["left"])


def test_the_bound_is_kept_and_what_was_used_last_stays(folder: Path) -> None:
    most = 40 * 8192
    cache = ChunkCache(folder, "store", most)
    for number in range(200):
        cache.write(f"chunk {number}", None, bytes([number]) * 8000)
        assert taken(folder) <= most + 4096  # the lock's own file
        # What every epoch reads stays, though it came first.
        assert cache.read("chunk 0", None) == bytes(8000)
    assert cache.read("chunk 199", None) is not None
    assert cache.read("chunk 100", None) is None
    assert len(records(folder)) >= 30
    # A lower bound, of another trial, holds for what is there already.
    ChunkCache(folder, "other", most // 4).write("chunk", None, b"x")
    assert taken(folder) <= most // 4 + 4096


def test_what_is_larger_than_the_bound_is_not_kept(folder: Path) -> None:
    cache = ChunkCache(folder, "store", 8192)
    cache.write("small", None, b"x")
    cache.write("large", None, bytes(9000))
    assert cache.read("large", None) is None
    assert cache.read("small", None) == b"x"


def test_the_bound_holds_over_processes_that_write_at_once(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from siamray.data.chunk_cache import ChunkCache;"
        "c = ChunkCache(Path(sys.argv[1]), 'store', 40 * 8192);"
        "[c.write(f'{sys.argv[2]} {i}', None, bytes(8000)) for i in range(300)]"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(folder), str(which)]) for which in range(3)]
    while any(process.poll() is None for process in running):
        if folder.exists():
            with chunk_cache._alone(folder / "lock"):
                assert taken(folder) <= 40 * 8192 + 4096 + 8192  # and what a writer left aside
    assert [process.returncode for process in running] == [0, 0, 0]
    assert 30 <= len(records(folder)) <= 40


def test_a_killed_writer_leaves_nothing_that_is_read_and_no_lock(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from siamray.data.chunk_cache import ChunkCache;"
        "c = ChunkCache(Path(sys.argv[1]), 'store', 2**30); print(flush=True);"
        "[c.write(str(i), None, bytes([i % 251]) * 300000) for i in range(10**6)]"
    )
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        before = len(records(folder))
        until = time.monotonic() + 30
        while len(records(folder)) <= before + 20 and time.monotonic() < until:
            time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    cache = ChunkCache(folder, "store", 2**30)
    for number in range(len(records(folder))):
        assert cache.read(str(number), None) == bytes([number % 251]) * 300000
    (folder / "arriving").write_bytes(b"half of")
    cache.write("more", None, b"content")
    assert cache.read("more", None) == b"content"
    assert not (folder / "arriving").exists()


def test_the_folder_may_be_removed_at_any_time(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cache = ChunkCache(folder, "store", 2**20)
    for _ in range(2):
        cache.write("c", None, b"content")
        assert cache.read("c", None) == b"content"
        shutil.rmtree(folder)
        assert cache.read("c", None) is None
    assert capfd.readouterr().err == ""


def test_a_damaged_count_is_counted_anew(folder: Path) -> None:
    cache = ChunkCache(folder, "store", 10 * 4096)
    for number in range(9):
        cache.write(str(number), None, b"x")
    (folder / "lock").write_bytes(b"\x00" * 20)
    for number in range(9, 20):
        cache.write(str(number), None, b"x")
        assert len(records(folder)) <= 10


def test_ranges_are_those_of_the_whole(folder: Path) -> None:
    content = np.random.default_rng(0).bytes(300_000)
    cache = ChunkCache(folder, "store", 2**30)
    cache.write("c", None, content)
    for start, end in [(0, 1), (65_535, 65_537), (65_536, 131_072), (299_999, 300_000), (0, 300_000), (5, 5)]:
        assert cache.read("c", RangeByteRequest(start, end)) == content[start:end]
    assert cache.read("c", SuffixByteRequest(20)) == content[-20:]
    assert cache.read("c", OffsetByteRequest(299_000)) == content[299_000:]
    assert cache.read("other", RangeByteRequest(0, 1)) is None


@pytest.mark.parametrize("trouble", ["full", "nearly full", "a file", "held"])
def test_where_nothing_can_be_kept_reading_goes_on_and_says_so_once(
    s3: UPath, folder: Path, trouble: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made_store(s3)
    plain = read_all(Store.open(s3))
    if trouble == "full":

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(chunk_cache.os, "replace", full)
    elif trouble == "nearly full":
        monkeypatch.setattr(chunk_cache, "SPARED_BYTES", 2**60)
    elif trouble == "a file":
        folder.parent.mkdir()
        folder.write_text("")
    else:
        monkeypatch.setattr(chunk_cache, "WAIT_SECONDS", 0.05)
        folder.mkdir(parents=True)
        holder = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
        chunk_cache.fcntl.flock(holder, chunk_cache.fcntl.LOCK_EX)
    for _ in range(2):
        assert same(read_all(Store.open(s3, GB)), plain)
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert str(folder) in said[0]
    assert "cluster.chunk_cache_gb=0" in said[0]
    if trouble == "held":
        os.close(holder)
