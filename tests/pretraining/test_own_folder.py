"""A run's folder that not all workers see: the files that go between them are those that have changed, and whole."""

import os
from pathlib import Path

import pytest

from siamray.errors import UserError
from siamray.pretraining import own_folder


def test_whoever_sees_the_same_folder_sees_its_newest_mark(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    first, other = own_folder.mark(here), own_folder.mark(elsewhere)
    assert own_folder.sees(here, first)
    assert not own_folder.sees(here, other)
    assert not own_folder.sees(tmp_path / "nowhere", first)
    assert not own_folder.sees(here, own_folder.mark(elsewhere))
    own_folder.mark(here)
    # Left of an earlier attempt.
    assert not own_folder.sees(here, first)
    own_folder.unmark(here)
    assert list(here.iterdir()) == []


def test_changed_files_arrive_whole_and_private_ones_stay(tmp_path: Path) -> None:
    made, arrived = tmp_path / "made", tmp_path / "arrived"
    files = {"checkpoint.pt": b"one", "encoder/model.safetensors": b"weights", "examples/a/b.png": b""}
    own_folder.unpack(made, files)
    own_folder.mark(made)
    own_folder.unpack(made / "ray" / "train", {"state.json": b"{}"})
    changes = own_folder.Changes(made, leave_out="ray")
    assert changes.take() == files
    assert changes.take() == {}
    own_folder.unpack(made, {"checkpoint.pt": b"two", "epochs.parquet": b"table"})
    (made / ".half.written").write_bytes(b"tw")
    sent = changes.take()
    assert sent == {"checkpoint.pt": b"two", "epochs.parquet": b"table"}
    own_folder.unpack(arrived, files)
    own_folder.unpack(arrived, sent)
    assert own_folder.Changes(arrived).take() == files | sent
    # The same bytes written anew are new: nobody reads a file to know that it has not changed.
    os.utime(made / "checkpoint.pt", ns=(0, 0))
    assert changes.take() == {"checkpoint.pt": b"two"}


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        own_folder.mark(tmp_path / "file" / "run")
    with pytest.raises(UserError, match="file"):
        own_folder.unpack(tmp_path / "file" / "run", {"a": b""})
