"""The number of an epoch's pairs goes in; how many of its own pairs each worker trains on, step by step, comes out."""

import numpy as np
from numpy.typing import NDArray

from siamray.config import PretrainingConfig
from siamray.errors import UserError
from siamray.pretraining.measurement import BLOCK_PAIRS, own_share
from siamray.pretraining.worker import Worker

Counts = NDArray[np.int64]
# Of fewer pairs a worker's part of a batch has no statistics: terms that compare the pairs of a batch are not defined.
LEAST_PAIRS = 2


def deal(pairs: int, method: PretrainingConfig, workers: int, uneven: bool) -> Counts:
    """Deals the pairs of an epoch to the parts of its steps, the same on all workers, so that all know all numbers.

    Pairs that fill no step wait for another epoch.

    Args:
        pairs: of the epoch.
        method: batch_pairs, of a step over all workers, and accumulate, its parts.
        workers: who train together.
        uneven: whether their parts may differ in size, see siamray.pretraining.learner.Learner.

    Returns:
        [steps * accumulate, workers], none of them 1. Uneven: over all workers every step has the pairs that it has on
        one worker (or one fewer, where they are odd), and a worker has as many as its share allows, perhaps none.

    Raises:
        UserError: too few pairs for the workers or the parts.
    """
    shares = np.array([len(own_share(pairs, Worker(rank, workers))) for rank in range(workers)])
    if not uneven:
        return _evenly(shares, method)
    part = min(method.batch_pairs, pairs) // method.accumulate
    if part < LEAST_PAIRS:
        raise UserError(
            f"pretraining.accumulate={method.accumulate}: {pairs} pairs and pretraining.batch_pairs="
            f"{method.batch_pairs} leave a part of a step fewer than {LEAST_PAIRS} pairs; take fewer parts, larger "
            "batches or more pairs"
        )
    parts = pairs // (part * method.accumulate) * method.accumulate
    counts = _interleaved(shares, part, parts)
    if (counts == 1).any():
        counts = LEAST_PAIRS * _interleaved(shares // LEAST_PAIRS, part // LEAST_PAIRS, parts)
    return counts


def _evenly(shares: Counts, method: PretrainingConfig) -> Counts:
    """All workers do the steps of the smallest share, in parts of one size."""
    workers, fewest = len(shares), int(shares.min())
    part = min(method.batch_pairs // workers, fewest) // method.accumulate
    if part < LEAST_PAIRS:
        in_parts = f" in pretraining.accumulate={method.accumulate} parts" if method.accumulate > 1 else ""
        raise UserError(
            f"cluster.workers={workers}: {shares.sum()} pairs and pretraining.batch_pairs={method.batch_pairs}"
            f"{in_parts} leave a worker fewer than {LEAST_PAIRS} pairs a step, as they are dealt in blocks of "
            f"{BLOCK_PAIRS}, and pretraining.method={method.method} needs as many on each; take fewer workers, larger "
            "batches or more pairs"
        )
    steps = fewest // (part * method.accumulate)
    return np.full((steps * method.accumulate, workers), part)


def _interleaved(shares: Counts, part: int, parts: int) -> Counts:
    """Cuts parts of one size from all shares together, each spread evenly over the epoch: [parts, workers]."""
    places = np.concatenate([(np.arange(share) + 0.5) / share for share in shares])
    ranks = np.repeat(np.arange(len(shares)), shares)
    dealt = ranks[np.lexsort((ranks, places))][: parts * part].reshape(parts, part)
    return np.stack([(dealt == rank).sum(axis=1) for rank in range(len(shares))], axis=1)
