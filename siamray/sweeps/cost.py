"""Trials that have not run go in; what they will cost, and how that was estimated, comes out."""

import time
from dataclasses import dataclass

import torch

from siamray.config import Config, PretrainingConfig
from siamray.data.pairs import patch_side
from siamray.data.store import Store
from siamray.pretraining import encoder
from siamray.pretraining.arithmetic import Arithmetic
from siamray.pretraining.loop import training_pairs
from siamray.pretraining.siamese import draws_masses
from siamray.pretraining.threads import threads
from siamray.sweeps.ablation import Trial

_BATCH = 64
# A forward pass without gradients takes about a third of a training step; every epoch measures its pairs with one.
_FORWARD_SHARE = 1 / 3


@dataclass(frozen=True)
class Cost:
    """Estimated seconds of one trial on its processors; None where the pairs are not known yet."""

    seconds: float | None
    basis: str


def estimate(trial: Trial, store: Store | None, known: dict[tuple[str, int], float]) -> Cost:
    """Estimates a trial's training time from a short timing of its encoder here.

    Args:
        trial: what would run.
        store: its prepared exams, if they are there; they tell the number of pairs.
        known: (backbone, patch side) -> seconds per image timed already; grows.
    """
    config, method = trial.config, trial.config.pretraining
    pairs = method.pairs_per_epoch
    if store is not None:
        there = len(training_pairs(config, store))
        pairs = there if pairs is None else min(pairs, there)
    if pairs is None:
        return Cost(None, "the number of pairs is known after prepare")
    key = (config.encoder.backbone, patch_side(config))
    if key not in known:
        known[key] = seconds_per_image(config)
    images = 2 * pairs * _encoded(method)
    seconds = known[key] * images * (method.epochs * (1 + _FORWARD_SHARE) + _FORWARD_SHARE)
    return Cost(seconds, f"{pairs} pairs an epoch, {1 / known[key]:.0f} images/s timed here")


def _encoded(method: PretrainingConfig) -> float:
    """How often a patch of an epoch passes forward and backward through an encoder."""
    if method.method != "siamese":
        # Two views; a teacher's forward passes are a share of that.
        return 2 * (1 + (_FORWARD_SHARE if method.method in ("moco", "byol", "dino") else 0))
    # Beside every patch the same with a drawn mass.
    views = 2 if draws_masses(method) else 1
    return views * {"network": 2.0, "teacher": 1 + _FORWARD_SHARE, "none": 1.0}[method.peer]


def seconds_per_image(config: Config) -> float:
    """Times forward and backward of one patch through the encoder, on the processors a trial gets."""
    side = patch_side(config)
    arithmetic = Arithmetic.named(config.pretraining.precision)
    with threads(config.cluster.cpus):
        model = arithmetic.arrange(encoder.build(config.encoder, 0, side))
        patches = arithmetic.arrange(torch.zeros(_BATCH, 1, side, side))
        fastest = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            with arithmetic.autocast(patches.device):
                _, embedding = model(patches)
            embedding.float().square().mean().backward()
            fastest = min(fastest, time.perf_counter() - start)
        return fastest / _BATCH
