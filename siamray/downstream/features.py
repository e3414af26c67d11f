"""An encoder and patches go in; the patches' frozen features and projected embeddings come out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from siamray.data.pairs import SIDES

Patches = NDArray[np.float32]
SAMPLES_AT_ONCE = 2048


class Cut(Protocol):
    """Cuts the normalized pairs of samples."""

    def __call__(self, samples: pd.DataFrame, context: int = 0) -> Patches:
        """Cuts pairs.

        Args:
            samples: rows with entry_id, row, col.
            context: pixels added on every side.

        Returns:
            [N, 2, P + 2 context, P + 2 context]; axis 1 is left, right.
        """


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module has the mode it had."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def extract(encoder: nn.Module, patches: Patches, batch: int = 64) -> tuple[Patches, Patches]:
    """Encodes patches in evaluation mode, without gradients.

    Every forward pass sees exactly ``batch`` patches, the last one filled up with zeros: kernels are chosen by batch
    size, and so a patch gets the same numbers whichever patches are encoded along with it.

    Args:
        encoder: turns [B, 1, P, P] into features [B, F] and embeddings [B, D]; its modules' modes are restored.
        patches: float32 [N, 1, P, P], normalized.
        batch: patches per forward pass; 64 was the fastest for resnet10t on one core.

    Returns:
        Features [N, F] and embeddings [N, D], float32.

    Raises:
        ValueError: the patches have another shape.
    """
    if patches.ndim != 4 or patches.shape[1] != 1:
        raise ValueError(f"patches must be [N, 1, P, P], not of shape {patches.shape}")
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    # The same numbers to rounding, a quarter faster; only the layout of the weights in memory changes.
    encoder.to(memory_format=torch.channels_last)
    features, embeddings = [], []
    with evaluating(encoder), torch.inference_mode():
        for start in range(0, max(len(patches), 1), batch):
            part = patches[start : start + batch]
            full = np.zeros((batch, *patches.shape[1:]), dtype=np.float32)
            full[: len(part)] = part
            inputs = torch.from_numpy(full).to(device).contiguous(memory_format=torch.channels_last)
            feature, embedding = encoder(inputs)
            features.append(feature[: len(part)].float().cpu().numpy())
            embeddings.append(embedding[: len(part)].float().cpu().numpy())
    return np.concatenate(features), np.concatenate(embeddings)


def own_features(encoder: nn.Module, samples: pd.DataFrame, cut: Cut) -> Patches:
    """Encodes the patches of the samples' own sides, some at a time, whatever their number.

    Args:
        encoder: as for `extract`.
        samples: rows with entry_id, side, row, col.
        cut: gives the normalized pairs of samples.

    Returns:
        [N, F].
    """
    found = []
    for start in range(0, max(len(samples), 1), SAMPLES_AT_ONCE):
        part = samples.iloc[start : start + SAMPLES_AT_ONCE]
        own = part.side.eq(SIDES[1]).to_numpy(dtype=np.int64)
        found.append(extract(encoder, cut(part)[np.arange(len(part)), own][:, None])[0])
    return np.concatenate(found)
