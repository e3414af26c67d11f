"""store.py at a URL: an object store (moto's S3 server) and fsspec's memory, with the guarantees of a local store."""

import json
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest
from botocore.exceptions import ClientError
from fsspec.implementations.memory import MemoryFileSystem
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error
from upath import UPath

from siamray import files
from siamray.data import store as stores
from siamray.data.store import (
    Store,
    entry_folder,
    known_entries,
    read_entry,
    read_store_record,
    write_entry,
    write_exclusion,
)
from siamray.errors import UserError
from siamray.files import Location, location, read_bytes, write_json, write_parquet, writing_to
from tests.data.conftest import SECRET

SHAPE = (600, 500)
CHUNK = 64
ODD = "a/b: 1?#_MLO"


@pytest.fixture
def memory() -> Iterator[UPath]:
    place = location("memory://folder/store")
    assert isinstance(place, UPath)
    yield place
    MemoryFileSystem.store.clear()


@pytest.fixture(params=["memory", "s3"])
def remote(request: pytest.FixtureRequest) -> UPath:
    place: UPath = request.getfixturevalue(request.param)
    return place


def arrays(seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    made: dict[str, Any] = {side: generator.integers(0, 65536, SHAPE, dtype=np.uint16) for side in stores.SIDES}
    return made | {f"{side}_mask": generator.random(SHAPE) < 0.5 for side in stores.SIDES}


def made_store(path: Location, entry_id: str = "w_MLO") -> Store:
    """A complete store of one entry."""
    write_entry(path, entry_id, arrays(), {"key": "k", "number": 7}, CHUNK)
    numbers = {"left_mean": 0.4, "left_deviation": 0.1, "right_mean": 0.5, "right_deviation": 0.2}
    for name in ("entries", "findings", "exams", "manifest"):
        write_parquet(path / f"{name}.parquet", pd.DataFrame([{"entry_id": entry_id, "woman_id": "w", **numbers}]))
    write_json(path / "store.json", {"format": stores.FORMAT, "complete": True, "fingerprint": "abc"})
    return Store.open(path)


def names(place: UPath) -> set[str]:
    place.fs.invalidate_cache()
    return {str(name).split(place.path.strip("/") + "/")[1] for name in place.fs.find(place.path)}


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, int]]:
    """What was read from S3: key, range, bytes."""
    seen: list[tuple[str, str | None, int]] = []
    ask = S3FileSystem._call_s3

    async def noted(self: S3FileSystem, method: str, *args: Any, **words: Any) -> Any:
        answer = await ask(self, method, *args, **words)
        if method == "get_object":
            seen.append((words["Key"], words.get("Range"), answer["ContentLength"]))
        return answer

    monkeypatch.setattr(S3FileSystem, "_call_s3", noted)
    return seen


@pytest.mark.parametrize("entry_id", ["w_MLO", ODD])
def test_an_entry_comes_back_as_written(remote: UPath, entry_id: str) -> None:
    store = made_store(remote, entry_id)
    written = arrays()
    for side in stores.SIDES:
        assert np.array_equal(store.image(entry_id, side), written[side])
        assert np.array_equal(store.mask(entry_id, side), written[f"{side}_mask"])
        window = store.window(entry_id, side, 100, 90, 130, 70)
        assert np.array_equal(window, written[side][100:230, 90:160])
    assert store.record(entry_id) == {"key": "k", "number": 7}
    assert store.normalization(entry_id)["left"] == (0.4, 0.1)
    assert store.fingerprint == "abc"
    assert list(store.findings["woman_id"]) == ["w"]
    with pytest.raises(ValueError, match="does not lie in"):
        store.window(entry_id, "left", 590, 0, 64, 64)
    with pytest.raises(KeyError):
        store.record("nobody_MLO")


def test_a_local_and_a_remote_store_hold_the_same_files(tmp_path: Path, memory: UPath) -> None:
    made_store(tmp_path)
    made_store(memory)
    local = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert names(memory) == local


def test_a_window_reads_its_chunks_and_no_more(s3: UPath, received: list[tuple[str, str | None, int]]) -> None:
    store = made_store(s3)
    store.window("w_MLO", "left", 0, 0, 1, 1)  # opens the array
    received.clear()
    store.window("w_MLO", "left", 0, 0, CHUNK, CHUNK)
    assert all(span is not None for _, span, _ in received)
    read = sum(size for _, _, size in received)
    received.clear()
    store.image("w_MLO", "left")
    whole = sum(size for _, _, size in received)
    assert CHUNK * CHUNK * 2 <= read < whole / 20


def test_an_entry_whose_arrays_alone_are_there_is_absent(remote: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(remote.fs)
    name = "_put_file" if kind is S3FileSystem else "put_file"
    put = getattr(kind, name)

    def lost(self: Any, source: str, target: str, *rest: Any, **words: Any) -> Any:
        if target.endswith("entry.json"):
            raise RuntimeError("the machine was lost")
        return put(self, source, target, *rest, **words)

    with monkeypatch.context() as patched:
        patched.setattr(kind, name, lost)
        kind.clear_instance_cache()
        with pytest.raises(RuntimeError):
            write_entry(location(str(remote)), "w_MLO", arrays(), {"key": "k"}, CHUNK)
    assert "entries/w_MLO/left/c/0/0" in names(remote)
    assert "entries/w_MLO/entry.json" not in names(remote)
    assert read_entry(remote, "w_MLO") is None
    assert dict(known_entries(remote, {"w_MLO": "k"})) == {}
    write_entry(remote, "w_MLO", arrays(), {"key": "k"}, CHUNK)
    assert read_entry(remote, "w_MLO") == {"key": "k"}


def test_an_entry_of_other_options_makes_way_and_the_same_one_stays(remote: UPath) -> None:
    write_entry(remote, "w_MLO2", arrays(), {"key": "neighbour"}, CHUNK)
    write_entry(remote, "w_MLO", arrays(1) | {"other": np.ones((4, 4))}, {"key": "old"}, CHUNK)
    # zarr writes no chunk of zeros: the old chunk must not show in its place.
    empty = {name: np.zeros_like(values) for name, values in arrays().items()}
    write_entry(remote, "w_MLO", empty, {"key": "new", "number": 1}, CHUNK)
    assert read_entry(remote, "w_MLO") == {"key": "new", "number": 1}
    assert not {name for name in names(remote) if "w_MLO/" in name and ("other" in name or "/c/" in name)}
    write_entry(remote, "w_MLO", arrays(2), {"key": "new", "number": 2}, CHUNK)
    assert read_entry(remote, "w_MLO") == {"key": "new", "number": 1}
    assert read_entry(remote, "w_MLO2") == {"key": "neighbour"}
    assert "entries/w_MLO2/left/c/0/0" in names(remote)


def test_the_old_entry_is_gone_before_the_new_one_comes(memory: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    write_entry(memory, "w_MLO", arrays(1), {"key": "old"}, CHUNK)

    def refused(*_: Any, **__: Any) -> None:
        assert read_entry(memory, "w_MLO") is None
        raise PermissionError("no")

    monkeypatch.setattr(MemoryFileSystem, "put", refused)
    with pytest.raises(UserError, match="forbidden"):
        write_entry(memory, "w_MLO", arrays(2), {"key": "new"}, CHUNK)
    assert read_entry(memory, "w_MLO") is None


def test_what_was_done_before_is_found_at_once(remote: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "READ_AT_ONCE", 2)
    for place in (remote, tmp_path):
        for name, key in (("a", "k"), ("b", "old"), (ODD, "k")):
            write_json(entry_folder(place, name) / "entry.json", {"key": key})
        write_exclusion(place, "b", {"key": "k", "reasons": {}})
        write_exclusion(place, "c", {"key": "old"})
        found = dict(known_entries(place, dict.fromkeys(["a", "b", "c", "d", ODD], "k")))
        assert found == {"a": {"key": "k"}, "b": {"key": "k", "reasons": {}}, ODD: {"key": "k"}}
        assert dict(known_entries(place, {"c": "old"})) == {"c": {"key": "old"}}
        assert read_store_record(place) == {}


def test_records_are_read_a_few_at_a_time_as_they_are_asked_for(
    s3: UPath, received: list[tuple[str, str | None, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "READ_AT_ONCE", 2)
    for name in "abcd":
        write_json(entry_folder(s3, name) / "entry.json", {"key": "k"})
    found = known_entries(s3, dict.fromkeys("abcd", "k"))
    assert next(found) == ("a", {"key": "k"})
    assert len(received) == 2
    assert [name for name, _ in found] == ["b", "c", "d"]


def test_a_damaged_record_is_no_record(memory: UPath) -> None:
    memory.fs.pipe_file((entry_folder(memory, "w_MLO") / "entry.json").path, b'{"key": "k')
    assert read_entry(memory, "w_MLO") is None
    assert dict(known_entries(memory, {"w_MLO": "k"})) == {}


def test_a_store_goes_to_another_process_and_opens_itself_there(s3: UPath, tmp_path: Path) -> None:
    store = made_store(s3)
    sent = pickle.dumps(store)
    assert SECRET.encode() not in sent
    assert len(sent) < 2000
    again = pickle.loads(sent)
    assert again.path == store.path
    assert again.entries.equals(store.entries)
    (tmp_path / "store").write_bytes(sent)
    code = "import pickle, sys; s = pickle.load(open(sys.argv[1], 'rb')); print(s.image('w_MLO', 'left').sum())"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], capture_output=True, text=True)
    assert done.stdout.strip() == str(arrays()["left"].sum()), done.stderr
    assert done.stderr == ""


def test_what_is_no_whole_store_is_not_opened(remote: UPath) -> None:
    with pytest.raises(UserError, match="no store there"):
        Store.open(str(remote))
    write_json(remote / "store.json", {"format": stores.FORMAT, "complete": False, "fingerprint": "x"})
    with pytest.raises(UserError, match="not complete"):
        Store.open(str(remote))


def refusal(place: str) -> list[str]:
    """The messages of whatever first touches a store."""
    there, messages = location(place), []
    for touch in (
        lambda: Store.open(there),
        lambda: write_entry(there, "w", {"left": np.ones((4, 4))}, {"key": "k"}, 4),
        lambda: write_json(there / "store.json", {}),
        lambda: dict(known_entries(there, {"w": "k"})),
    ):
        with pytest.raises(UserError) as caught:
            touch()
        messages.append(str(caught.value))
    for message in messages:
        assert message.startswith(place)
        assert "\n" not in message
        assert "store=" in message
        assert SECRET not in message
    return messages


def test_a_missing_bucket_is_named_in_one_line_and_not_made(s3: UPath, server: str) -> None:
    client = boto3.client("s3", endpoint_url=server, region_name="us-east-1")
    before = client.list_buckets()["Buckets"]
    assert all("no bucket that exists" in message for message in refusal("s3://other/store"))
    assert client.list_buckets()["Buckets"] == before


def test_missing_credentials_are_named_in_one_line(s3: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    S3FileSystem.clear_instance_cache()
    assert all("AWS_ACCESS_KEY_ID" in message for message in refusal("s3://bucket/store"))


def test_a_service_that_does_not_answer_is_named_in_one_line(s3: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listened to
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setattr(S3FileSystem, "retries", 1)
        S3FileSystem.clear_instance_cache()
        assert all("AWS_ENDPOINT_URL" in message for message in refusal("s3://bucket/store"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccessDenied", r"is forbidden \(AccessDenied\)"),
        ("SignatureDoesNotMatch", "forbidden"),
        ("SlowDown", "fails just now"),
        ("PermanentRedirect", r"refused \(PermanentRedirect\).*AWS_REGION"),
        ("NoSuchBucket", "no bucket that exists"),
    ],
)
def test_what_a_service_refuses_is_said_without_its_words(memory: UPath, code: str, words: str) -> None:
    error = translate_boto_error(ClientError({"Error": {"Code": code, "Message": SECRET}}, "PutObject"))
    with pytest.raises(UserError, match=words) as caught, writing_to(memory):
        raise error
    assert SECRET not in str(caught.value)
    assert str(memory) in str(caught.value)


def test_an_error_of_the_program_stays_what_it_is(memory: UPath) -> None:
    with pytest.raises(ZeroDivisionError), writing_to(memory):
        raise ZeroDivisionError


def test_a_missing_s3fs_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(files.fsspec, "get_filesystem_class", missing)
    with pytest.raises(UserError, match=r"s3://b/x needs the package s3fs; pip install 'siamray\[s3\]'.*store="):
        location("s3://b/x")


def test_text_with_a_scheme_is_a_url_and_all_else_a_path(tmp_path: Path) -> None:
    assert location("a/b") == Path("a/b")
    assert location(tmp_path) == tmp_path
    assert location(f"file://{tmp_path}") == tmp_path
    assert type(location(f"file://{tmp_path}")) is type(tmp_path)
    there = location("s3://bucket/a b/c")
    assert isinstance(there, UPath)
    assert not isinstance(there, Path)
    assert str(there) == "s3://bucket/a b/c"
    assert location(there) == there
    assert pickle.loads(pickle.dumps(there)) == there


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nowhere://x", "fsspec does not know"),
        ("s3://", "names no bucket"),
        (f"ftp://someone:{SECRET}@host/x", "no password"),
        (f"s3://bucket/x?token={SECRET}", "no password"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        location(text)
    assert SECRET not in str(caught.value)
    assert "store=" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_and_records_are_written_whole(remote: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(remote / "a.json", {"x": float("nan")})
    assert json.loads(read_bytes(remote / "a.json")) == {"x": None}

    class Unwritable:
        def to_parquet(self, path: Path, index: bool) -> None:
            path.write_bytes(b"half of it")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_parquet(remote / "a.parquet", Unwritable())  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        read_bytes(remote / "a.parquet")
