"""How fast pairs are cut from a store at a URL, as ratios taken in one run; printed, never asserted.

Run: make benchmark. Not part of the test suite's verdict: a slow machine is no failure. The object store is on this
machine and answers in a millisecond; a real one takes tens of them.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from siamray.compose import compose
from siamray.data.pairs import PairCutter, patch_side
from siamray.data.preparation import prepare
from siamray.data.store import Store
from siamray.pretraining.loop import epoch_pairs, training_pairs
from tests.data.conftest import s3, server

__all__ = ["s3", "server"]
pytestmark = pytest.mark.benchmark


def test_pairs_from_a_url_with_a_cache_and_without(
    s3: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark: Callable[..., object]
) -> None:
    monkeypatch.setenv("SIAMRAY_CACHE", str(tmp_path / "cache"))
    config = compose("pretrain", ["pretraining=siamese", "data.phantom.women=12", "pairs.cache_mb=0"])
    local = prepare(config, progress=False)
    s3.fs.put(str(local.path), s3.path, recursive=True)
    drawn = dataclasses.replace(config, pretraining=dataclasses.replace(config.pretraining, pairs_per_epoch=1000))
    pairs = epoch_pairs(training_pairs(config, local), drawn, 0)
    pairs = pairs.sample(frac=1, random_state=0)
    side = patch_side(config)

    def cut(store: Store) -> tuple[float, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        cutter = PairCutter(store, config.pairs)
        started = time.perf_counter()
        windows = cutter(pairs, side)
        return time.perf_counter() - started, windows

    passes = {
        "local folder": local,
        "s3, no cache": Store.open(s3),
        "s3, first pass with a cache": Store.open(s3, 1),
        "s3, second pass, another trial": Store.open(s3, 1),
    }
    cut(local)
    taken = {name: cut(store) for name, store in passes.items()}
    benchmark(lambda: None)
    print(f"\n{len(pairs)} pairs of {side} pixels in random order, no cache in memory")
    for name, (seconds, windows) in taken.items():
        assert np.array_equal(windows, taken["local folder"][1])
        shares = (taken[other][0] / seconds for other in ("s3, no cache", "local folder"))
        print("{}: {:.0f} pairs/s, {:.1f} x no cache, {:.2f} x local".format(name, len(pairs) / seconds, *shares))
