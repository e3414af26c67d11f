"""The option pretraining.precision goes in; the number format and memory layout of the forward pass come out."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from siamray.pretraining.distances import embed
from siamray.pretraining.precision import fastest_precision

Arranged = TypeVar("Arranged", torch.Tensor, nn.Module)


@dataclass(frozen=True)
class Arithmetic:
    """Number format of the forward pass, and memory layout of images and weights; weights stay float32."""

    bfloat16: bool = False
    channels_last: bool = False

    @property
    def name(self) -> str:
        """The value of pretraining.precision that chooses it."""
        return ("bfloat16" if self.bfloat16 else "float32") + ("_channels_last" if self.channels_last else "")

    @classmethod
    def named(cls, name: str) -> "Arithmetic":
        """Makes the one that `name` names."""
        return cls(name.startswith("bfloat16"), name.endswith("_channels_last"))

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """The context of a forward pass."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    def arrange(self, thing: Arranged) -> Arranged:
        """Brings a network or a batch of images into the memory layout."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        if isinstance(thing, torch.Tensor):
            return thing.contiguous(memory_format=layout)
        return thing.to(memory_format=layout)

    def embeddings(self, network: nn.Module, patches: torch.Tensor, kind: str, device: torch.device) -> torch.Tensor:
        """Embeds patches in the space in which distances are measured.

        Args:
            network: an encoder, arranged already.
            patches: [N, 1, P, P].
            kind: ``unit`` or ``raw``, see `embed`.
            device: of the network.

        Returns:
            [N, D] in full precision.
        """
        with self.autocast(device):
            _, embedding = network(self.arrange(patches.to(device)))
        return embed(embedding, kind)


def choose(name: str, encoder: nn.Module, side: int, batch: int) -> Arithmetic:
    """Reads pretraining.precision; auto measures for a moment which arithmetic trains this encoder fastest here.

    Args:
        name: the option's value.
        encoder: on the device it trains on; left as it is.
        side: patch side in pixels.
        batch: patches per forward pass.
    """
    if name != "auto":
        return Arithmetic.named(name)
    dtype, channels_last = fastest_precision(encoder, side, batch)
    return Arithmetic(dtype == torch.bfloat16, channels_last)
