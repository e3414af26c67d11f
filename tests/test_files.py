"""Files are whole or absent, and a folder that refuses is named in one line."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from siamray.errors import DiskFull, UserError
from siamray.files import space_for, write_atomically, write_json, write_parquet
from siamray.pretraining import checkpoint


def test_json_says_null_for_what_is_no_number(tmp_path: Path) -> None:
    write_json(
        tmp_path / "a.json", {"x": math.nan, "y": [np.float32(1.5), np.int64(3), math.inf], "z": np.array([1, 2])}
    )
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": [1.5, 3, None], "z": [1, 2]}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": True})

    def half(temporary: Path) -> None:
        temporary.write_text('{"new"')
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_atomically(path, half)
    assert json.loads(path.read_text()) == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_under_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="part of its path is a file"):
        write_parquet(tmp_path / "file" / "below" / "a.parquet", pd.DataFrame({"x": [1]}))


def test_a_full_disk_is_refused_in_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")

    def write(_: Path) -> None:
        with Path("/dev/full").open("w") as full:
            full.write("x")

    with pytest.raises(UserError, match="full disk"):
        write_atomically(Path("/tmp/siamray-full-test"), write)


def test_whatever_library_fills_the_disk_it_is_said_in_one_line_and_what_was_there_is_whole(
    tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("1m")
    numbers = np.random.default_rng(0).normal(size=400_000)
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(numbers.tobytes())
    write_json(disk / "a.json", {"old": True})
    for write in (
        lambda: write_json(disk / "a.json", numbers),
        lambda: write_parquet(disk / "a.parquet", pd.DataFrame({"x": numbers})),
        lambda: checkpoint.save(disk, {"weights": torch.from_numpy(numbers)}),
        lambda: shutil.copytree(source, disk / "copied"),
    ):
        with pytest.raises(DiskFull, match=f"{disk} is on a full disk; free space") as refused, space_for(disk):
            write()
        assert "\n" not in str(refused.value)
        shutil.rmtree(disk / "copied", ignore_errors=True)
        assert [path.name for path in disk.iterdir()] == ["a.json"]
    assert json.loads((disk / "a.json").read_text()) == {"old": True}
    small_disk("64m")
    checkpoint.save(disk, {"weights": torch.from_numpy(numbers), "identity": {}})
    assert checkpoint.load(disk, {}) is not None


def test_an_error_that_is_not_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), space_for(tmp_path):
        raise RuntimeError("a bug")
    with pytest.raises(FileNotFoundError), space_for(tmp_path):
        (tmp_path / "absent").read_bytes()
