"""store.py: what was written is read again, whole or not at all, also from another process."""

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from siamray.config import DataConfig
from siamray.data import store as stores
from siamray.data.exams import EXAM_COLUMNS, FINDING_COLUMNS
from siamray.data.store import Store, entry_folder, read_entry, write_entry
from siamray.errors import UserError

SHAPE = (200, 150)


def arrays(seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    made: dict[str, Any] = {side: generator.integers(0, 65536, SHAPE, dtype=np.uint16) for side in stores.SIDES}
    return made | {f"{side}_mask": generator.random(SHAPE) < 0.5 for side in stores.SIDES}


def made_store(path: Path, women: int = 8) -> Store:
    """A complete store of one entry per woman; every third woman has a finding."""
    exams, entries, findings = [], [], []
    for number in range(women):
        woman = f"w{number:02d}"
        entry_id = f"{woman}_MLO"
        write_entry(path, entry_id, arrays(number), {"key": "k", "woman_id": woman}, 64)
        base = {"woman_id": woman, "exam_id": woman, "view": "MLO", "birads": 1, "density": "B", "outcome": "normal"}
        for side in ("L", "R"):
            exams.append({**dict.fromkeys(EXAM_COLUMNS), **base, "image_id": woman + side, "laterality": side})
        numbers = {"left_mean": 0.4, "left_deviation": 0.1, "right_mean": 0.5, "right_deviation": 0.2}
        entries.append({**base, "entry_id": entry_id, "height": 200, "width": 150, "spacing_mm": 0.4, **numbers})
        if number % 3 == 0:
            box = {"row_min": 10.0, "col_min": 20.0, "row_max": 30.0, "col_max": 40.0}
            place = {"entry_id": entry_id, "woman_id": woman, "image_id": woman + "L", "side": "left"}
            findings.append({**place, "category": "mass", **box})
    table = pd.DataFrame(exams)
    table.to_parquet(path / "exams.parquet")
    table[["image_id", "woman_id"]].assign(used=True, reason="").to_parquet(path / "manifest.parquet")
    pd.DataFrame(entries).to_parquet(path / "entries.parquet")
    pd.DataFrame(findings, columns=["entry_id", "woman_id", "side", *FINDING_COLUMNS]).to_parquet(
        path / "findings.parquet"
    )
    (path / "store.json").write_text(json.dumps({"format": stores.FORMAT, "complete": True, "fingerprint": "abc"}))
    return Store.open(path)


def test_images_and_masks_come_back_as_written(tmp_path: Path) -> None:
    store = made_store(tmp_path, 2)
    written = arrays(1)
    for side in stores.SIDES:
        assert np.array_equal(store.image("w01_MLO", side), written[side])
        assert store.image("w01_MLO", side).dtype == np.uint16
        assert np.array_equal(store.mask("w01_MLO", side), written[f"{side}_mask"])
        assert store.mask("w01_MLO", side).dtype == np.bool_


@pytest.mark.parametrize(
    "window", [(0, 0, 64, 64), (60, 50, 80, 90), (136, 86, 64, 64), (0, 0, 200, 150), (199, 149, 1, 1)]
)
def test_a_window_is_a_part_of_the_image(tmp_path: Path, window: tuple[int, int, int, int]) -> None:
    store = made_store(tmp_path, 1)
    row, col, height, width = window
    expected = store.image("w00_MLO", "right")[row : row + height, col : col + width]
    assert np.array_equal(store.window("w00_MLO", "right", *window), expected)


@pytest.mark.parametrize("window", [(-1, 0, 64, 64), (0, 100, 64, 64), (150, 0, 64, 64), (0, -5, 10, 10)])
def test_a_window_beyond_the_image_is_refused(tmp_path: Path, window: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="does not lie in"):
        made_store(tmp_path, 1).window("w00_MLO", "left", *window)


def test_the_tables_and_scales_are_those_written(tmp_path: Path) -> None:
    store = made_store(tmp_path)
    assert store.fingerprint == "abc"
    assert len(store.entries) == 8
    assert store.normalization("w03_MLO") == {"left": (0.4, 0.1), "right": (0.5, 0.2)}
    assert set(store.findings["woman_id"]) == {"w00", "w03", "w06"}
    assert store.record("w02_MLO")["woman_id"] == "w02"
    with pytest.raises(KeyError):
        store.record("nobody_MLO")


def test_women_of_the_store_are_split_and_women_left_out_are_not_counted(tmp_path: Path) -> None:
    store = made_store(tmp_path)
    store.manifest.loc[store.manifest["woman_id"] == "w07", "used"] = False
    split = store.split(DataConfig(source="mias", folds=3, fold=1))
    assert sorted(split.index) == [f"w{number:02d}" for number in range(7)]
    assert set(split) == {"training", "validation", "test"}


def test_a_store_goes_to_another_process_and_opens_itself_there(tmp_path: Path) -> None:
    store = made_store(tmp_path, 1)
    expected = store.image("w00_MLO", "left")
    again = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again.image("w00_MLO", "left"), expected)
    assert len(pickle.dumps(store)) < 2000


def test_names_that_no_file_system_likes_are_escaped(tmp_path: Path) -> None:
    write_entry(tmp_path, "a/b: ../c_MLO", arrays(), {"key": "k"}, 64)
    assert [folder.parent for folder in (tmp_path / "entries").iterdir()] == [tmp_path / "entries"]
    assert read_entry(tmp_path, "a/b: ../c_MLO") == {"key": "k"}


def test_an_entry_that_could_not_be_finished_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stores, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        write_entry(tmp_path, "w_MLO", arrays(), {"key": "k"}, 64)
    assert read_entry(tmp_path, "w_MLO") is None
    assert not entry_folder(tmp_path, "w_MLO").exists()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_folder_without_its_record_is_no_entry(tmp_path: Path) -> None:
    write_entry(tmp_path, "w_MLO", arrays(), {"key": "k"}, 64)
    (entry_folder(tmp_path, "w_MLO") / "entry.json").unlink()
    assert read_entry(tmp_path, "w_MLO") is None
    write_entry(tmp_path, "w_MLO", arrays(), {"key": "k"}, 64)
    assert read_entry(tmp_path, "w_MLO") == {"key": "k"}


def test_an_entry_of_other_options_makes_way_and_the_same_one_stays(tmp_path: Path) -> None:
    write_entry(tmp_path, "w_MLO", arrays(1), {"key": "old"}, 64)
    write_entry(tmp_path, "w_MLO", arrays(2), {"key": "new", "number": 1}, 64)
    assert read_entry(tmp_path, "w_MLO") == {"key": "new", "number": 1}
    write_entry(tmp_path, "w_MLO", arrays(2), {"key": "new", "number": 2}, 64)
    assert read_entry(tmp_path, "w_MLO") == {"key": "new", "number": 1}
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (None, "no store there"),
        ({"format": stores.FORMAT, "complete": False, "fingerprint": "x"}, "not complete"),
        ({"format": -1, "complete": True, "fingerprint": "x"}, "format -1"),
    ],
)
def test_what_is_no_whole_store_is_not_opened(tmp_path: Path, record: dict[str, Any] | None, words: str) -> None:
    if record is not None:
        (tmp_path / "store.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=words) as caught:
        Store.open(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_place_that_is_no_folder_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/store") as caught:
        write_entry(tmp_path / "file" / "store", "w_MLO", arrays(), {"key": "k"}, 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "full disk"), (errno.EROFS, "read-only")])
def test_a_full_or_read_only_disk_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(stores, "write_array", refused)
    with pytest.raises(UserError, match=words) as caught:
        write_entry(tmp_path, "w_MLO", arrays(), {"key": "k"}, 64)
    assert str(tmp_path) in str(caught.value)
    assert read_entry(tmp_path, "w_MLO") is None
    assert list((tmp_path / "temporary").iterdir()) == []
