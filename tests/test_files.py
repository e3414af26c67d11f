"""Files are whole or absent, and a folder that refuses is named in one line."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from siamray.errors import UserError
from siamray.files import write_atomically, write_json, write_parquet


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
