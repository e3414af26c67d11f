"""Preparing through Ray, as a command and with what can happen to its workers: the store is what one process makes."""

import importlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest
import ray
from PIL import Image
from upath import UPath

from siamray.config import Config
from siamray.data.preparation import WITHOUT_RAY, prepare
from siamray.data.store import Store
from siamray.files import Location
from tests.benchmarks.preparation_at_scale import film
from tests.conftest import TINY_PREPARATION

PHANTOM = [word for word in TINY_PREPARATION if not word.startswith("preparation.cpus")]


def command(store: Location) -> list[str]:
    return [sys.executable, "-m", "siamray.prepare", *PHANTOM, "preparation.cpus=2", f"store={store}"]


def run(store: Location) -> None:
    done = subprocess.run(command(store), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert f"store: {store}" in done.stdout


def assert_equal(store: Store, expected: Store) -> None:
    """Tables, records and pixels of two stores are the same."""
    assert store.fingerprint == expected.fingerprint
    for name in ("entries", "findings", "exams", "manifest"):
        pd.testing.assert_frame_equal(getattr(store, name), getattr(expected, name))
    for entry in expected.entries["entry_id"]:
        assert store.record(entry) == expected.record(entry)
        for side in ("left", "right"):
            assert np.array_equal(store.image(entry, side), expected.image(entry, side))
            assert np.array_equal(store.mask(entry, side), expected.mask(entry, side))


@pytest.mark.slow
def test_a_store_in_s3_is_what_one_process_makes_here_and_is_made_once(
    s3: UPath, server: str, tiny_store: Store
) -> None:
    assert len(tiny_store.entries) >= WITHOUT_RAY
    run(s3)
    assert_equal(Store.open(s3), tiny_store)
    client = boto3.client("s3", endpoint_url=server, region_name="us-east-1")

    def listed() -> dict[str, Any]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=s3.path.split("/", 1)[1])
        return {found["Key"]: (found["ETag"], found["LastModified"]) for page in pages for found in page["Contents"]}

    before = listed()
    assert len(before) > 5 * len(tiny_store.entries)
    run(s3)
    assert listed() == before


@pytest.fixture
def folder_config(tmp_path: Path) -> Config:
    """Pairs of small films, one more than are prepared without Ray."""
    config = Config(store=str(tmp_path / "store"))
    config.data.source, config.data.root = "folder", str(tmp_path / "films")
    config.preparation.spacing_mm = 2.0
    config.preparation.cpus = 2
    (tmp_path / "films").mkdir()
    rows = []
    for number, side in itertools.product(range(WITHOUT_RAY + 1), "LR"):
        name = f"w{number:02d}_{side}"
        Image.fromarray(film(number, side == "R")).save(tmp_path / "films" / f"{name}.png")
        rows.append((f"w{number:02d}", name, side, "CC", f"{name}.png", 2.0))
    columns = ["woman_id", "image_id", "laterality", "view", "path", "spacing_mm"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "films" / "exams.csv", index=False)
    return config


@pytest.fixture
def odd_decoder() -> Iterator[None]:
    """A Ray whose workers hang for ever in C, with Python's lock, at w01_L, and crash at w02_R."""

    def replace_decoder() -> None:
        entries = importlib.import_module("siamray.data.entry")
        ordinary = entries.read_image

        def odd(path: Path, *rest: Any) -> Any:
            with path.with_suffix(".read").open("a") as log:
                log.write("once\n")
            if path.stem == "w01_L":
                sum(itertools.repeat(0))
            if path.stem == "w02_R":
                os.kill(os.getpid(), signal.SIGSEGV)
            return ordinary(path, *rest)

        entries.read_image = odd

    hook = {"worker_process_setup_hook": replace_decoder}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=hook)
    yield
    ray.shutdown()


def stat(store: Path, entry: str) -> tuple[int, int]:
    found = (store / "excluded" / f"{entry}.json").stat()
    return found.st_ino, found.st_mtime_ns


@pytest.mark.slow
def test_images_whose_decoder_hangs_or_crashes_are_left_out_and_all_others_are_done(
    folder_config: Config, odd_decoder: None, tmp_path: Path
) -> None:
    folder_config.preparation.image_seconds = 2
    store = prepare(folder_config, progress=False)
    # What hung is not tried again, and what crashed is, once.
    times = [(tmp_path / "films" / f"{name}.read").read_text().count("once") for name in ("w00_L", "w01_L", "w02_R")]
    assert times == [1, 1, 2]
    expected = {f"w{number:02d}_CC" for number in range(WITHOUT_RAY + 1)} - {"w01_CC", "w02_CC"}
    assert set(store.entries["entry_id"]) == expected
    reasons = store.manifest.set_index("image_id")["reason"]
    for side in "LR":
        assert reasons[f"w01_{side}"] == "its preparation hung: it took longer than preparation.image_seconds=2"
        assert reasons[f"w02_{side}"] == "its preparation crashed"
    # The next command finds no trace of what hung or crashed, only that it is left out.
    assert not any(
        "trace" in left.name or "crash" in left.name for left in (tmp_path / "store" / "temporary").iterdir()
    )
    crashed = stat(tmp_path / "store", "w02_CC")
    prepare(folder_config, progress=False)
    assert stat(tmp_path / "store", "w02_CC") == crashed
    assert (tmp_path / "films" / "w02_R.read").read_text().count("once") == 2


def end_with_children(process: "subprocess.Popen[str]") -> None:
    """Ends a process and all that it started by SIGKILL, as a machine that loses power would."""
    # Importing ray makes the copy of psutil that it brings along importable.
    psutil = importlib.import_module("psutil")
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert any("raylet" in member.name() for member in family)
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=30)
    process.wait(timeout=30)


@pytest.mark.slow
def test_a_preparation_killed_in_the_middle_goes_on_and_does_nothing_twice(tiny_store: Store, tmp_path: Path) -> None:
    store = tmp_path / "store"

    def done() -> dict[str, tuple[int, int]]:
        files = [file.stat() for file in sorted(store.glob("entries/*/entry.json"))]
        names = [file.parent.name for file in sorted(store.glob("entries/*/entry.json"))]
        return {name: (file.st_ino, file.st_mtime_ns) for name, file in zip(names, files, strict=True)}

    process = subprocess.Popen(command(store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    while len(done()) < 3 and process.poll() is None:
        time.sleep(0.01)
    end_with_children(process)
    before = done()
    assert 3 <= len(before) < len(tiny_store.entries)
    assert not (store / "manifest.parquet").exists()
    run(store)
    after = done()
    assert {name: after[name] for name in before} == before
    assert_equal(Store.open(store), tiny_store)
