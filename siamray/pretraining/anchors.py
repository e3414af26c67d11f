"""Networks and pairs go in; how far patches that surely are similar, and that surely differ, lie apart comes out."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from siamray.config import Config
from siamray.data.pairs import PairCutter, shuffle_partners
from siamray.pretraining.arithmetic import Arithmetic
from siamray.pretraining.distances import pair_distances
from siamray.pretraining.expectation_maximisation import Anchors
from siamray.pretraining.masses import draw_masses
from siamray.pretraining.worker import Worker
from siamray.seeds import named_seed

# Sure-similar patches are the same place, shifted by at most this share of the patch side: registration is no better.
SHIFT_SHARE = 1 / 16
# Patches of fixed number and content per forward pass, so that a distance does not depend on who measures it.
_BLOCK = 32


def measure_anchors(
    networks: nn.ModuleList, pairs: pd.DataFrame, cutter: PairCutter, side: int, config: Config, worker: Worker,
    arithmetic: Arithmetic, epoch: int,
) -> list[Anchors]:  # fmt: skip
    """Measures sure-similar and sure-different distances on seeded pairs (ours).

    Sure-similar: a left patch and the same left breast a small shift away, seeded. Sure-different: a left patch and the
    right patch of another woman's pair; where the method draws masses, the same left patch with a mass. Every worker
    measures its share; the distances of all, which are few, are then known to all.

    Args:
        networks: encoders in evaluation mode; their mode is restored.
        pairs: the epoch's pairs, the same on every worker.
        cutter: cuts the patches.
        side: patch side in pixels.
        config: pretraining.mixture.anchor_pairs, pretraining.embedding, seed.
        worker: this worker.
        arithmetic: of the forward pass.
        epoch: seeds the choice and the shifts.

    Returns:
        One per network, equal on all workers.

    Raises:
        UserError: one woman has more than half of the pairs, so that there are no random partners.
    """
    anchors, partners = _chosen(pairs, side, config, epoch)
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(anchors), _BLOCK)]
    found: list[tuple[int, NDArray[np.float64]]] = []
    was_training = networks.training
    networks.eval()
    with torch.inference_mode():
        for number in range(worker.rank, len(blocks), worker.world_size):
            block = blocks[number]
            generator = torch.Generator().manual_seed(named_seed(config.seed, "anchor masses", epoch, number))
            patches = _patches(cutter, anchors.iloc[block], partners.iloc[block], side, config, generator)
            found.append((number, _distances(networks, patches, config, worker, arithmetic)))
    networks.train(was_training)
    gathered = sorted((item for items in worker.gather(found) for item in items), key=lambda item: item[0])
    distances = np.concatenate([values for _, values in gathered], axis=2)
    return [
        Anchors(float(similar.mean()), float(different.mean()), float(different.std()))
        for similar, different in distances
    ]


def _chosen(pairs: pd.DataFrame, side: int, config: Config, epoch: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The seeded pairs with their shifted places (shifted_row, shifted_col), and their random partners."""
    generator = np.random.default_rng(named_seed(config.seed, "anchors", epoch))
    size = min(len(pairs), config.pretraining.mixture.anchor_pairs)
    chosen = pairs.iloc[np.sort(generator.choice(len(pairs), size=size, replace=False))].reset_index(drop=True)
    reach = max(1, round(SHIFT_SHARE * side))
    shifts = generator.integers(-reach, reach + 1, size=(size, 2))
    chosen = chosen.assign(shifted_row=chosen.row + shifts[:, 0], shifted_col=chosen.col + shifts[:, 1])
    return chosen, chosen.iloc[shuffle_partners(chosen, named_seed(config.seed, "anchors", epoch))]


def _patches(
    cutter: PairCutter, anchors: pd.DataFrame, partners: pd.DataFrame, side: int, config: Config,
    generator: torch.Generator,
) -> torch.Tensor:  # fmt: skip
    """Left patches, the same shifted, and what surely differs from them: [3 n, 1, P, P]."""
    places = ["entry_id", "row", "col"]
    shifted = anchors[["entry_id", "shifted_row", "shifted_col"]].set_axis(places, axis=1)
    left, similar = (torch.from_numpy(cutter(table, side)[:, :1]) for table in (anchors[places], shifted))
    if config.pretraining.masses.weight > 0:
        different, _ = draw_masses(left, config.pretraining.masses, generator)
    else:
        different = torch.from_numpy(cutter(partners[places], side)[:, 1:])
    return torch.cat([left, similar, different])


def _distances(
    networks: nn.ModuleList, patches: torch.Tensor, config: Config, worker: Worker, arithmetic: Arithmetic
) -> NDArray[np.float64]:
    """[networks, 2, n]: sure-similar and sure-different distances."""
    found = []
    for network in networks:
        embedded = arithmetic.embeddings(network, patches, config.pretraining.embedding, worker.device)
        left, shifted, partner = embedded.chunk(3)
        similar, different = pair_distances(left, shifted, "raw"), pair_distances(left, partner, "raw")
        found.append(torch.stack([similar, different]).double().cpu().numpy())
    return np.stack(found)
