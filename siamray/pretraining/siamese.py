"""The method: pairs and their soft labels go in, the soft contrastive loss of one or two Siamese networks comes out."""

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamray.config import PretrainingConfig
from siamray.pretraining.arithmetic import Arithmetic
from siamray.pretraining.distances import embed, pair_distances
from siamray.pretraining.encoder import PairEncoder
from siamray.pretraining.learner import Learner, follow
from siamray.pretraining.masses import draw_masses
from siamray.pretraining.objective import (
    LOGISTIC_START,
    anti_collapse,
    contrastive_loss,
    cross_regularization,
    logistic_loss,
)

NETWORKS = ("A", "B")


class Siamese(Learner):
    """One or two Siamese networks; the second may follow the first as its exponential moving average.

    Attributes:
        logistic: [networks, 2] slope and threshold of loss=logistic, or None.
    """

    uses_labels = True
    uneven = True

    def __init__(self, networks: Sequence[PairEncoder], arithmetic: Arithmetic, method: PretrainingConfig) -> None:
        """Adds to the networks what the method trains beside them.

        Args:
            networks: one, or two for peer=network.
            arithmetic: of the forward passes.
            method: the method's options.
        """
        networks = list(networks)
        if method.masses.head_weight > 0:
            for network in networks:
                network.add_head()
        if method.peer == "teacher":
            networks.append(copy.deepcopy(networks[0]).requires_grad_(False))
        super().__init__(networks, arithmetic)
        self.method = method
        self.taught = 1 if method.peer == "teacher" else len(networks)
        start = torch.tensor([LOGISTIC_START] * len(networks))
        self.logistic = nn.Parameter(start) if method.loss == "logistic" else None

    def inputs(self, views: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Stacks both sides, and behind them the same with drawn masses; their strengths come second."""
        (patches,) = super().inputs(views, generator)
        if not draws_masses(self.method):
            return [patches]
        changed, strengths = draw_masses(patches, self.method.masses, generator)
        return [torch.cat([patches, changed]), strengths]

    def forward(self, labels: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        """Computes the loss and its terms, see `siamese_loss`."""
        patches, strengths = inputs[0], inputs[1] if len(inputs) > 1 else None
        encoded = [self.encode(network, patches) for network in self.networks[: self.taught]]
        with torch.no_grad():
            encoded += [self.encode(network, patches) for network in self.networks[self.taught :]]
        losses = siamese_loss(
            [embeddings for _, embeddings in encoded], labels, self.method, self.logistic, strengths, self.taught
        )
        if self.method.masses.head_weight > 0 and strengths is not None:
            unchanged = torch.zeros_like(strengths)
            for name, network, (features, _) in zip(NETWORKS[: self.taught], self.networks, encoded, strict=False):
                found = cast(PairEncoder, network).abnormality(features)
                losses[f"head_{name}"] = functional.binary_cross_entropy_with_logits(
                    found, torch.cat([unchanged, strengths])
                )
                losses["loss"] = losses["loss"] + self.method.masses.head_weight * losses[f"head_{name}"]
        return losses

    def step_done(self, step: int, steps: int) -> None:
        """Lets the teacher follow: every weight moves by 1 - momentum of the way to the network's."""
        for teacher in self.networks[self.taught :]:
            follow(teacher, self.networks[0], self.method.teacher_momentum)


def draws_masses(method: PretrainingConfig) -> bool:
    """Says whether the method draws masses into the patches."""
    return method.masses.weight > 0 or method.masses.head_weight > 0


def siamese_loss(
    embeddings: list[Tensor], labels: Tensor, method: PretrainingConfig, logistic: Tensor | None = None,
    strengths: Tensor | None = None, taught: int = 2,
) -> dict[str, Tensor]:  # fmt: skip
    """Adds up the objective over the networks: real pairs, sure pairs, anti-collapse term, cross-regularization.

    Args:
        embeddings: per network [2B, D], the B left embeddings before the B right ones; with drawn masses [4B, D], the
            changed patches behind them in the same order.
        labels: [networks, B] soft labels, 1 = different.
        method: kinds and weights of the terms.
        logistic: [networks, 2] slope and threshold of loss=logistic.
        strengths: [2B] of the drawn masses, None without. Each changed patch makes two sure pairs of this label, with
            its unchanged self and with the other side.
        taught: how many of the networks are trained; the others only take part in the cross-regularization.

    Returns:
        "loss" to minimise, and its terms as contrastive_A, sure_A, anti_collapse_A, ..., cross.
    """
    pairs = labels.shape[1]
    embedded = [embed(embedding, method.embedding) for embedding in embeddings]
    halves = [(of_all[:pairs], of_all[pairs : 2 * pairs]) for of_all in embedded]
    # Embedded already, so their plain distance is meant.
    distances = [pair_distances(left, right, "raw") for left, right in halves]
    parts: dict[str, Tensor] = {}
    loss = torch.zeros((), device=labels.device)
    for number, (name, (left, right)) in enumerate(zip(NETWORKS[:taught], halves, strict=False)):
        scale = None if logistic is None else logistic[number]
        parts[f"contrastive_{name}"] = _pair_loss(distances[number], labels[number], method, scale)
        parts[f"anti_collapse_{name}"] = anti_collapse(
            method.anti_collapse.kind, left, right, margin=method.margin, embedding=method.embedding,
            covariance_weight=method.anti_collapse.covariance_weight,
        )  # fmt: skip
        loss = loss + parts[f"contrastive_{name}"] + method.anti_collapse.weight * parts[f"anti_collapse_{name}"]
        if strengths is not None and method.masses.weight > 0:
            changed = embedded[number][2 * pairs :].repeat(2, 1)
            apart = pair_distances(torch.cat([left, right, right, left]), changed, "raw")
            parts[f"sure_{name}"] = _pair_loss(apart, strengths.repeat(2), method, scale)
            loss = loss + method.masses.weight * parts[f"sure_{name}"]
    parts["cross"] = torch.zeros((), device=labels.device)
    if len(halves) == 2:
        parts["cross"] = cross_regularization(
            method.cross_regularization.kind, distances[0], distances[1], torch.cat(halves[0]), torch.cat(halves[1])
        )
        loss = loss + method.cross_regularization.weight * parts["cross"]
    parts["loss"] = loss
    return parts


def _pair_loss(distances: Tensor, labels: Tensor, method: PretrainingConfig, logistic: Tensor | None) -> Tensor:
    if logistic is not None:
        return logistic_loss(distances, labels, logistic)
    return contrastive_loss(distances, labels, method.margin, method.soft_margin)
