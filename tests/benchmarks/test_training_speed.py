"""How fast the training is, as ratios taken in one run; printed, never asserted.

Run: make benchmark. Not part of the test suite's verdict: a slow machine is no failure.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from siamray.compose import compose
from siamray.data.pairs import PairCutter, pair_batches, patch_side
from siamray.data.preparation import prepare
from siamray.pretraining import encoder, loop
from siamray.pretraining.arithmetic import choose
from siamray.pretraining.loop import epoch_pairs, training_pairs
from siamray.pretraining.siamese import siamese_loss
from siamray.pretraining.steps import deal
from siamray.pretraining.worker import Worker

pytestmark = pytest.mark.benchmark
WORDS = ["pretraining=siamese", "data.phantom.women=24", "pretraining.pairs_per_epoch=512", "pretraining.epochs=2"]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.mark.parametrize("pixels", [64, 128, 224])
def test_loader_and_loop_against_bare_training(pixels: int, tmp_path: Path, benchmark: Callable[..., object]) -> None:
    config = compose(
        "pretrain", [*WORDS, f"pairs.patch_pixels={pixels}", f"pretraining.pairs_per_epoch={32768 // pixels}"]
    )
    torch.set_num_threads(config.cluster.cpus)
    store = prepare(config, progress=False)
    side = patch_side(config)
    arithmetic = choose("auto", encoder.build(config.encoder, 0), side, 2 * config.pretraining.batch_pairs)
    method = dataclasses.replace(config.pretraining, precision=arithmetic.name)
    config = dataclasses.replace(config, pretraining=method)
    pairs = epoch_pairs(training_pairs(config, store), config, 0)
    steps, batch = len(dealt := deal(len(pairs), method, 1, uneven=True)), int(dealt[0, 0])
    batches = [pairs.iloc[step * batch : (step + 1) * batch] for step in range(steps)]
    cutter = PairCutter(store, config.pairs)

    def load() -> None:
        for _ in pair_batches(cutter, batches, side, config.pairs.augmentation, seed=0):
            pass

    networks = torch.nn.ModuleList(encoder.build(config.encoder, seed) for seed in range(2))
    networks = arithmetic.arrange(networks)
    both = arithmetic.arrange(torch.randn(2 * batch, 1, side, side))

    def bare(step_count: int = steps) -> None:
        for _ in range(step_count):
            with arithmetic.autocast(both.device):
                embeddings = [network(both)[1] for network in networks]
            siamese_loss(embeddings, torch.zeros(2, batch), method)["loss"].backward()

    load()
    bare(2)
    loading, training = seconds(load), seconds(bare)
    run = loop._set_up(config, store, tmp_path, Worker())
    labels = torch.zeros(2, len(pairs)).double().numpy()
    loop._train_epoch(run, 0, labels)
    real = seconds(lambda: loop._train_epoch(run, 1, labels))
    training = (training + seconds(bare)) / 2
    benchmark(lambda: None)
    print(f"\n{config.encoder.backbone} {side} px {arithmetic.name}, {steps} steps of {batch} pairs, one thread")
    rates = (len(pairs) / loading, steps * batch / training, steps * batch / real)
    print("pairs/s: loader {:.0f}, bare {:.0f}, loop {:.0f}".format(*rates))
    print(f"loader / bare forward+backward: {training / loading:.1f} (aim: at least 3)")
    print(f"loop / bare forward+backward:   {training / real:.2f} (aim: at least .95)")


@pytest.mark.parametrize("side", [64, 128, 224])
@pytest.mark.parametrize("method", ["masses", "simclr"])
def test_a_patch_against_plain_lightly_simclr(
    method: str, side: int, tmp_path: Path, benchmark: Callable[..., object]
) -> None:
    """The whole loop here, with cutting and augmenting, against forward, backward and step on images in memory."""
    import timm
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    count = 256 if side == 64 else 128
    words = [f"pretraining={method}", f"pairs.patch_pixels={side}", f"pretraining.pairs_per_epoch={count}"]
    # As many epochs as are run below: the schedule refuses more.
    config = compose("pretrain", [*WORDS, *words, "pretraining.epochs=4"])
    torch.set_num_threads(config.cluster.cpus)
    store = prepare(config, progress=False)
    run = loop._set_up(config, store, tmp_path, Worker())
    labels = np.zeros((len(run.networks), count))
    plain = torch.nn.Sequential(
        timm.create_model(config.encoder.backbone, in_chans=1, num_classes=0),
        SimCLRProjectionHead(512, config.encoder.projector_hidden, config.encoder.projector_features),
    )
    optimizer, criterion = torch.optim.AdamW(plain.parameters(), lr=1e-3), NTXentLoss(0.1)
    views = [torch.randn(2 * run.batch, 1, side, side) for _ in range(2)]

    def lightly_loop() -> None:
        for _ in range(run.steps):
            optimizer.zero_grad()
            criterion(*(plain(view) for view in views)).backward()
            optimizer.step()

    def ours() -> None:
        loop._train_epoch(run, 1, labels)

    lightly_loop()
    loop._train_epoch(run, 0, labels)
    took = [(seconds(lightly_loop), seconds(ours)) for _ in range(3)]
    benchmark(lambda: None)
    # Two views, or the patches and their changed selves, of both sides: 4 encoder images a pair either way.
    images = 4 * run.batch * run.steps
    theirs, own = (min(times) / images * 1000 for times in zip(*took, strict=True))
    print(f"\n{method} {side} px {run.learner.arithmetic.name}: {own:.2f} ms an encoder image, lightly {theirs:.2f} ms")
    print(f"lightly / ours: {theirs / own:.2f} (aim: at least 1.5)")
