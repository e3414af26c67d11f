"""Networks and pairs go in; every worker's distances, the fitted mixtures and the collapse indicators come out."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from siamray.config import Config
from siamray.data.pairs import PairCutter, pair_batches
from siamray.pretraining import mixture
from siamray.pretraining.anchors import measure_anchors
from siamray.pretraining.arithmetic import Arithmetic
from siamray.pretraining.distances import (
    agreement,
    dimension_deviation,
    distance_quantiles,
    effective_rank,
)
from siamray.pretraining.expectation_maximisation import Anchors
from siamray.pretraining.histogram import Histogram, Range
from siamray.pretraining.mixture import Mixture
from siamray.pretraining.shifts import central, least_distances, shift_pixels, shifted
from siamray.pretraining.worker import Worker
from siamray.seeds import named_seed

# Pairs are measured in blocks of fixed size and content, so that a pair's distance is the same number whichever worker
# measures it: a convolution may round differently in a batch of another size.
BLOCK_PAIRS = 64
# Embeddings kept for the collapse indicators; their singular values need no more.
_EMBEDDINGS_KEPT = 1024
# Pairs by which the two networks' ranking is compared: the error of a rank correlation is then .01.
_PAIRS_COMPARED = 10_000
# Of the histogram that the report shows; a divisor of BINS.
_BINS = 64


def own_share(pairs: int, worker: Worker) -> NDArray[np.int64]:
    """Positions of the pairs that a worker measures and trains on: every world_size-th block."""
    positions = np.arange(pairs)
    return np.asarray(positions[(positions // BLOCK_PAIRS) % worker.world_size == worker.rank])


@dataclass(frozen=True)
class Measurement:
    """Distances of an epoch's pairs, and what was fitted to them."""

    own: NDArray[np.float64]
    """[networks, own pairs]: this worker's distances."""
    refined: list[NDArray[np.float64]]
    """The same of each augmented view (pretraining.refinement_views)."""
    counted: list[Histogram]
    """One per network: the distances of all workers, counted; equal on all of them."""
    mixtures: list[Mixture]
    """One per network, equal on all workers."""
    indicators: list[dict[str, float]]
    """One per network: quantiles of the raw distances, embedding_deviation, effective_rank, agreement."""
    anchors: list[Anchors] = field(default_factory=list)
    """One per network where the mixture is anchored, else none."""

    @property
    def _no_anchors(self) -> list[None]:
        return [None] * len(self.mixtures)

    def log(self) -> list[dict[str, Any]]:
        """One record per network for the epoch table."""
        return [
            {
                **indicators,
                "usable": fitted.usable,
                "unusable_reason": fitted.reason,
                "separation": fitted.separation,
                "bic_gain": fitted.bic_gain,
                "sure_similar": anchor.similar if anchor else float("nan"),
                "sure_different": anchor.different if anchor else float("nan"),
            }
            for indicators, fitted, anchor in zip(
                self.indicators, self.mixtures, self.anchors or self._no_anchors, strict=True
            )
        ]

    def histograms(self) -> list[dict[str, Any]]:
        """One record per network for the table of distance histograms."""
        records = []
        for counted, fitted in zip(self.counted, self.mixtures, strict=True):
            low, high = counted.range.low, counted.range.high
            # Constant distances still have a bar, of a width that can be drawn.
            edges = np.linspace(low, high, _BINS + 1) if low < high else np.linspace(low - 0.5, low + 0.5, _BINS + 1)
            records.append(
                {
                    "edges": edges.tolist(),
                    "counts": counted.counts.reshape(_BINS, -1).sum(axis=1).tolist(),
                    "weights": list(map(float, fitted.weights)),
                    "means": list(map(float, fitted.means)),
                    "deviations": list(map(float, fitted.deviations)),
                    "usable": fitted.usable,
                }
            )
        return records


def measure(
    networks: nn.ModuleList, pairs: pd.DataFrame, cutter: PairCutter, side: int, config: Config, worker: Worker,
    arithmetic: Arithmetic, epoch: int,
) -> Measurement:  # fmt: skip
    """Measures an epoch's pairs in eval mode and fits one mixture per network; no worker sees all distances.

    Workers tell each other the range of their distances, and then their counts in common bins.

    Args:
        networks: encoders; their mode is restored.
        pairs: the epoch's pairs, the same table on every worker.
        cutter: cuts the patches.
        side: patch side in pixels.
        config: the configuration.
        worker: this worker.
        arithmetic: of the forward pass.
        epoch: seeds the mixture's starts.
    """
    own = own_share(len(pairs), worker)
    distances, embeddings = _forward(networks, pairs.iloc[own], cutter, side, config, worker, arithmetic)
    blocks = own[::BLOCK_PAIRS] // BLOCK_PAIRS
    refined = [
        _forward(
            networks, pairs.iloc[own], cutter, side, config, worker, arithmetic,
            # Of a block and not of a worker, so that labels do not depend on the number of workers.
            [named_seed(config.seed, "refinement", epoch, view, int(block)) for block in blocks],
        )[0]
        for view in range(config.pretraining.refinement_views)
    ]  # fmt: skip
    counted = _counted(distances, worker)
    ends: list[Anchors] | list[None] = [None] * len(counted)
    if config.pretraining.mixture.anchors == "ends":
        ends = measure_anchors(networks, pairs, cutter, side, config, worker, arithmetic, epoch)
    fitted = [
        mixture.fit(
            histogram, config.pretraining.mixture, named_seed(config.seed, "mixture", epoch, number) % 2**32,
            anchor, config.pretraining.expected_abnormal,
        )
        for number, (histogram, anchor) in enumerate(zip(counted, ends, strict=True))
    ]  # fmt: skip
    mixtures = worker.broadcast(fitted)
    sample = _shared_sample(distances, own, len(pairs), config, worker, epoch)
    agree = agreement(sample[0], sample[1]) if len(sample) > 1 else float("nan")
    # Of the leading worker's embeddings; it has the first block.
    indicators = worker.broadcast([
        {
            **distance_quantiles(histogram),
            "embedding_deviation": dimension_deviation(kept),
            "effective_rank": effective_rank(kept),
            "agreement": agree,
        }
        for histogram, kept in zip(counted, embeddings, strict=False)
    ])  # fmt: skip
    return Measurement(distances, refined, counted, mixtures, indicators, [end for end in ends if end is not None])


def _forward(
    networks: nn.ModuleList, own: pd.DataFrame, cutter: PairCutter, side: int, config: Config, worker: Worker,
    arithmetic: Arithmetic, view: list[int] | None = None,
) -> tuple[NDArray[np.float64], list[torch.Tensor]]:  # fmt: skip
    """Distances [networks, own pairs] and, per network, some embeddings [kept, D]; augmented where seeds are given."""
    reach = 0 if view else shift_pixels(config.pretraining.shift_share, side)
    augmentation = config.pairs.augmentation if view else None
    batches = [own.iloc[start : start + BLOCK_PAIRS] for start in range(0, len(own), BLOCK_PAIRS)]
    if not batches:
        # There may be more workers than blocks.
        return np.zeros((len(networks), 0)), []
    distances: list[list[NDArray[np.float64]]] = [[] for _ in networks]
    kept: list[list[torch.Tensor]] = [[] for _ in networks]
    was_training = networks.training
    networks.eval()
    with torch.inference_mode():
        windows = pair_batches(cutter, batches, side, augmentation, view or 0, reach)
        for number, of_batch in enumerate(windows):
            pairs = len(of_batch)
            patches = torch.cat([central(of_batch[:, :1], reach), shifted(of_batch[:, 1:], reach)])
            for index, network in enumerate(networks):
                embedded = arithmetic.embeddings(network, patches, config.pretraining.embedding, worker.device)
                left, right = embedded[:pairs], embedded[pairs:]
                distances[index].append(least_distances(left, right).double().cpu().numpy())
                if number * 2 * BLOCK_PAIRS < _EMBEDDINGS_KEPT:
                    # The unshifted right patches lie in the middle.
                    middle = len(right) // pairs // 2 * pairs
                    kept[index].append(torch.cat([left, right[middle : middle + pairs]]).cpu())
    networks.train(was_training)
    return np.stack([np.concatenate(parts) for parts in distances]), [torch.cat(parts) for parts in kept]


def _counted(distances: NDArray[np.float64], worker: Worker) -> list[Histogram]:
    """One histogram per network of the distances [networks, own pairs] of all workers, equal on all of them."""
    ranges = worker.gather([Range.of(values) for values in distances])
    spans = [Range.union(of_worker[network] for of_worker in ranges) for network in range(len(distances))]
    own = [Histogram.of(values, span) for values, span in zip(distances, spans, strict=True)]
    counts = worker.total(np.stack([np.append(part.counts, part.dropped) for part in own]))
    return [Histogram(span, of_all[:-1], int(of_all[-1])) for span, of_all in zip(spans, counts, strict=True)]


def _shared_sample(
    distances: NDArray[np.float64], own: NDArray[np.int64], pairs: int, config: Config, worker: Worker, epoch: int
) -> NDArray[np.float64]:
    """[networks, sample]: the distances of seeded positions, in order of position, collected from all workers."""
    size = min(pairs, _PAIRS_COMPARED)
    generator = np.random.default_rng(named_seed(config.seed, "sample", epoch))
    chosen = np.sort(generator.choice(pairs, size=size, replace=False))
    mine = np.isin(own, chosen)
    parts = worker.gather((own[mine], distances[:, mine]))
    order = np.argsort(np.concatenate([positions for positions, _ in parts]))
    return np.asarray(np.concatenate([values for _, values in parts], axis=1)[:, order])
