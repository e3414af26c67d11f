"""What a method of pretraining is to the train function: views of a batch of pairs in, a loss out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from siamray.pretraining.arithmetic import Arithmetic
from siamray.pretraining.encoder import PairEncoder


class Learner(nn.Module):
    """The networks of a method and its loss, as one module, so that DDP reduces all gradients together.

    Attributes:
        networks: encoders whose distances are measured after each epoch; the first one is exported.
        arithmetic: number format and memory layout of the forward passes.
        views: how many times each pair is augmented, each time for itself.
        uses_labels: whether the soft labels of the pairs enter the loss.
        uneven: whether the parts of a batch that workers have may differ in size: nothing but gradients is gathered.
    """

    views = 1
    uses_labels = False
    uneven = False

    def __init__(self, networks: Sequence[PairEncoder], arithmetic: Arithmetic) -> None:
        """Takes the networks; a method adds what else it trains.

        Args:
            networks: see the class.
            arithmetic: see the class.
        """
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.arithmetic = arithmetic

    def encode(self, network: nn.Module, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes patches [N, 1, P, P]; features [N, F] and embeddings [N, D] come out in full precision."""
        with self.arithmetic.autocast(patches.device):
            features, embeddings = network(self.arithmetic.arrange(patches))
        return features.float(), embeddings.float()

    def inputs(self, views: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Makes what `forward` takes of a batch, on the CPU.

        Args:
            views: each [B, 2, P, P]: the same pairs, augmented each time for itself.
            generator: source of randomness.
        """
        return [both_sides(view) for view in views]

    def forward(self, labels: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        """Computes the loss of a batch.

        Args:
            labels: [networks, B] soft labels of the pairs, 1 = different.
            inputs: from `inputs`, on the networks' device.

        Returns:
            "loss", which is minimised, and its terms.
        """
        raise NotImplementedError

    def step_done(self, step: int, steps: int) -> None:
        """Told after each optimiser step: its number, counted from 1, and that of all steps of the run."""


def both_sides(view: Tensor) -> Tensor:
    """Stacks pairs [B, 2, P, P] to patches [2B, 1, P, P]: the left ones before the right ones."""
    return view.transpose(0, 1).reshape(-1, 1, *view.shape[2:])


def other_sides(patches: Tensor) -> Tensor:
    """Puts the right half of patches [2B, ...] before the left half: each patch's place gets its partner."""
    return patches.roll(len(patches) // 2, dims=0)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Moves every weight of a teacher by 1 - momentum of the way to its student's."""
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.lerp_(new, 1 - momentum)
