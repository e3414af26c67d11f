"""How fast the dense map is against patch by patch, and how far they differ, in one run; printed, never asserted.

Run: make benchmark. Not part of the test suite's verdict: a slow machine is no failure.
"""

import os
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from siamray.compose import compose
from siamray.data.pairs import PairCutter, common_tissue
from siamray.data.preparation import prepare
from siamray.downstream.candidates import View, measure
from siamray.downstream.dense import WindowEncoder, ways_agree
from siamray.pretraining import encoder

pytestmark = pytest.mark.benchmark
# Four generated views of the size that full-field mammograms have in the store: 240 x 180 mm at 0.4 mm.
WORDS = [
    *("data.phantom.women=4", "data.phantom.height_pixels=800", "data.phantom.width_pixels=600"),
    "encoder=resnet18",
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("step", [8, 16])
def test_dense_maps_against_patch_by_patch(step: int, threads: int, benchmark: Callable[..., object]) -> None:
    folder = os.environ.get("SIAMRAY_BENCHMARK_ENCODER")
    words = os.environ.get("SIAMRAY_BENCHMARK_DATA", " ".join(WORDS)).split()
    config = compose("evaluate", words)
    torch.set_num_threads(threads)
    store = prepare(config, progress=False)
    network = encoder.load(folder) if folder else encoder.build(config.encoder, 0, 64).eval()
    entries = [str(entry) for entry in store.entries.entry_id[:2]]
    cutter = PairCutter(store, config.pairs)

    def maps(way: str) -> tuple[list[View], float]:
        windows = WindowEncoder(network, 64, step, way)
        for entry in entries:
            measure(windows, network, store, cutter, entry, 0.999)
        start, busy = time.perf_counter(), time.process_time()
        found = [measure(windows, network, store, cutter, entry, 0.5) for entry in entries]
        # Where others use the processors, their time is the fairer one: the sum over threads.
        seconds.append((time.perf_counter() - start, time.process_time() - busy))
        return found, seconds[-1][0]

    seconds: list[tuple[float, float]] = []
    (dense, _), (patchwise, _) = maps("dense"), maps("patchwise")
    benchmark(lambda: None)
    sizes = ", ".join("{} x {}".format(*common_tissue(store, entry).shape) for entry in entries)
    shares = pd.DataFrame(ways_agree(a.distance, b.distance) for a, b in zip(dense, patchwise, strict=True)).mean()
    windows = 2 * int(np.sum([view.tissue.sum() for view in dense]))
    print(f"\n{network.metadata['backbone']}, {threads} threads, step {step}: {windows} windows")
    print(f"two pairs = four views of {sizes} pixels")
    aims = "(aims: 2 s on two cores, 10 times)"
    for name, place in (("wall", 0), ("processor", 1)):
        ours, theirs = seconds[0][place], seconds[1][place]
        print(f"{name}: dense {ours:.2f} s, patchwise {theirs:.1f} s: {theirs / ours:.1f} times {aims}")
    print("the same map? " + ", ".join(f"{name} {value:.3f}" for name, value in shares.items()))
