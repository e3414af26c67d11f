"""What many tests share: time limits of hypothesis off, a cache folder of the tests' own, a small prepared store."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from siamray import compose as composing
from siamray.config import Config
from siamray.data.store import Store

# The machines that run the tests are shared: a slow example is no failure.
settings.register_profile("siamray", deadline=None, max_examples=50)
settings.load_profile("siamray")
# Ray gives its workers way to all else on the machine (niceness 15); beside other tests they would hardly run.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112

MIAS = Path(__file__).resolve().parents[2] / "shared" / "data" / "mini-mias"

# Twelve small women: every split has lesions, and preparing them takes seconds.
TINY_PREPARATION = [
    "data=phantom",
    "data.phantom.women=16",
    "data.phantom.height_pixels=320",
    "data.phantom.width_pixels=256",
    "data.phantom.spacing_mm=0.6",
    "preparation.spacing_mm=0.8",
    "preparation.cpus=1",
]
TINY_DATA = [*TINY_PREPARATION, "pairs.patch_pixels=32"]
TINY_TRAINING = [
    "pretraining.epochs=2",
    "pretraining.warmup_epochs=1",
    "pretraining.pairs_per_epoch=64",
    "pretraining.batch_pairs=16",
    "pretraining.precision=float32",
    # timm's own for tests: a third of resnet10t's time.
    "encoder.backbone=test_resnet",
    "encoder.projector_hidden=16",
    "encoder.projector_features=8",
    "downstream.intervals.replicates=200",
]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of this test session, for this process and those it starts."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("SIAMRAY_CACHE")
    os.environ["SIAMRAY_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["SIAMRAY_CACHE"]
    else:
        os.environ["SIAMRAY_CACHE"] = before


@pytest.fixture
def mias() -> Path:
    """The real images, where they are."""
    if not (MIAS / "Info.txt").exists():
        pytest.skip(f"needs the mini-MIAS images in {MIAS}")
    return MIAS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Gives a folder on a disk of its own of a given size, such as 4m; given another size, the disk grows."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def of_size(size: str) -> Path:
        nonlocal mounted
        options = f"size={size},{'remount' if mounted else 'mode=755'}"
        line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(line, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs the right to mount a file system")
        mounted = True
        return folder

    yield of_size
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session", autouse=True)
def composed_once() -> Iterator[None]:
    """Lets Hydra put the same words together once: a tenth of a second each, while the files of experiments/ stay."""
    compose, known = composing._hydra, {}

    def remembered(overrides: list[str], texts: dict[str, str], folders: list[Path]) -> Any:
        if len(folders) > 1:
            return compose(overrides, texts, folders)
        words = (folders[0], *overrides, *texts.items())
        if words not in known:
            known[words] = compose(overrides, texts, folders)
        return known[words]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composing, "_hydra", remembered)
        yield


@pytest.fixture(scope="session")
def tiny_config(cache: Path) -> Config:
    """A configuration small enough to train in a test."""
    from siamray.compose import compose

    return compose("sweep", ["pretraining=siamese", *TINY_DATA, *TINY_TRAINING])


@pytest.fixture(scope="session")
def tiny_store(tiny_config: Config) -> Store:
    """The prepared exams of tiny_config."""
    from siamray.data.preparation import prepare

    return prepare(tiny_config, progress=False)


def pytest_collection_finish() -> None:
    """Keeps the collector of garbage from going again and again through millions of objects that all tests share."""
    gc.collect()
    gc.freeze()


_STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the process of the tests at once: threads of servers and browsers in it have crashed the interpreter's end.

    Seen once, after all was told. Commands end in processes of their own, whose exit codes are tested.
    """
    # Not under a profiler or a measure of coverage: they write what they have found as the interpreter ends.
    if _STATUS in config.stash and sys.getprofile() is None and sys.gettrace() is None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])
