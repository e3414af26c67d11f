"""The rivals: views of pairs go in, the loss of a standard self-supervised method comes out, by lightly.

All take the encoder and projector, the patches, the augmentation and the optimiser of siamray's own method, two views
of each patch, and no annotation. In their bilateral form the positive of a patch is a view of the other side's patch.
"""

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamray.config import PretrainingConfig
from siamray.errors import UserError
from siamray.pretraining.arithmetic import Arithmetic
from siamray.pretraining.encoder import PairEncoder, projector_shape
from siamray.pretraining.learner import Learner, follow, other_sides


class Baseline(Learner):
    """A rival with one trained network and two views of each patch."""

    views = 2

    def __init__(self, network: PairEncoder, arithmetic: Arithmetic, method: PretrainingConfig, workers: int) -> None:
        """Takes the network; a rival adds its heads and its loss.

        Args:
            network: the encoder that is trained.
            arithmetic: of the forward passes.
            method: rival gives the rivals' options.
            workers: processes that train together; negatives and statistics are gathered over them.
        """
        super().__init__([network], arithmetic)
        self.options = method.rival
        self.gather = workers > 1
        shape = projector_shape(network.projector)
        self.add(network, network.features if shape is None else shape[-1])

    def add(self, network: PairEncoder, width: int) -> None:
        """Adds what the rival trains beside the network, whose embeddings are of this width."""
        raise NotImplementedError

    def inputs(self, views: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Two views [2B, 1, P, P]; in the bilateral form the second one shows the other sides."""
        first, second = super().inputs(views, generator)
        return [first, other_sides(second) if self.options.bilateral else second]

    def embed(self, patches: Tensor) -> Tensor:
        """Embeddings [N, D] by the trained network."""
        return self.encode(self.networks[0], patches)[1]

    def forward(self, labels: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        """Computes the loss of two views."""
        return {"loss": self.loss(*inputs)}

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """The rival's loss of two views [2B, 1, P, P]; the same place is a positive pair."""
        raise NotImplementedError


class WithTeacher(Baseline):
    """A rival whose targets come from an exponential moving average of the network."""

    def add(self, network: PairEncoder, width: int) -> None:
        """Copies the network: the teacher starts where the student starts."""
        self.teacher = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def taught(self, patches: Tensor) -> Tensor:
        """Embeddings [N, D] by the teacher, without gradient."""
        return self.encode(self.teacher, patches)[1]

    def followers(self) -> list[tuple[nn.Module, nn.Module]]:
        """The modules that follow, and whom."""
        return [(self.teacher, self.networks[0])]

    def step_done(self, step: int, steps: int) -> None:
        """Lets the teacher follow, ever more slowly (the cosine schedule of BYOL)."""
        from lightly.utils.scheduler import cosine_schedule

        momentum = cosine_schedule(step - 1, steps, self.options.momentum, 1.0)
        for teacher, student in self.followers():
            follow(teacher, student, momentum)


class SimCLR(Baseline):
    """Chen 2020."""

    def add(self, network: PairEncoder, width: int) -> None:
        """The normalised temperature-scaled cross-entropy over the batch."""
        from lightly.loss import NTXentLoss

        self.criterion = NTXentLoss(temperature=self.options.temperature, gather_distributed=self.gather)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Each patch finds its other view among all patches."""
        return torch.as_tensor(self.criterion(self.embed(first), self.embed(second)))


class MoCo(WithTeacher):
    """MoCo v2 (He 2020, Chen 2020)."""

    def add(self, network: PairEncoder, width: int) -> None:
        """A queue of the teacher's embeddings gives the negatives."""
        from lightly.loss import NTXentLoss

        super().add(network, width)
        self.criterion = NTXentLoss(
            temperature=self.options.temperature, gather_distributed=self.gather,
            memory_bank_size=(self.options.queue, width),
        )  # fmt: skip

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Each patch finds the teacher's embedding of its other view among those in the queue."""
        return torch.as_tensor(self.criterion(self.embed(first), self.taught(second)))

    def get_extra_state(self) -> dict[str, Tensor]:
        """The queue, which lightly does not keep: a resumed run must go on with the same negatives."""
        bank = self.criterion.memory_bank
        return {"bank": bank.bank, "place": bank.bank_ptr}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Puts the queue back."""
        self.criterion.memory_bank.bank.copy_(state["bank"])
        self.criterion.memory_bank.bank_ptr.copy_(state["place"])


class BYOL(WithTeacher):
    """Grill 2020."""

    uneven = True

    def add(self, network: PairEncoder, width: int) -> None:
        """A predictor of the teacher's embedding."""
        from lightly.loss import NegativeCosineSimilarity

        super().add(network, width)
        self.predictor = _predictor(width, self.options.predictor_hidden)
        self.criterion = NegativeCosineSimilarity()

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Each view predicts the teacher's embedding of the other."""
        predicted = [self.predictor(self.embed(view)) for view in (first, second)]
        targets = [self.taught(view) for view in (first, second)]
        return torch.as_tensor(self.criterion(predicted[0], targets[1]) + self.criterion(predicted[1], targets[0])) / 2


class SimSiam(Baseline):
    """Chen 2021."""

    uneven = True

    def add(self, network: PairEncoder, width: int) -> None:
        """A predictor of the network's own embedding."""
        from lightly.loss import NegativeCosineSimilarity

        self.predictor = _predictor(width, self.options.predictor_hidden)
        self.criterion = NegativeCosineSimilarity()

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Each view predicts the embedding of the other, through which no gradient flows."""
        embedded = [self.embed(view) for view in (first, second)]
        predicted = [self.predictor(embedding) for embedding in embedded]
        return (
            torch.as_tensor(
                self.criterion(predicted[0], embedded[1].detach()) + self.criterion(predicted[1], embedded[0].detach())
            )
            / 2
        )


class BarlowTwins(Baseline):
    """Zbontar 2021."""

    def add(self, network: PairEncoder, width: int) -> None:
        """The cross-correlation matrix of both views shall be the identity."""
        from lightly.loss import BarlowTwinsLoss

        self.criterion = BarlowTwinsLoss(gather_distributed=self.gather)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """The distance of the cross-correlation matrix to the identity."""
        return torch.as_tensor(self.criterion(self.embed(first), self.embed(second)))


class VICReg(Baseline):
    """Bardes 2022."""

    def add(self, network: PairEncoder, width: int) -> None:
        """Variance, invariance and covariance."""
        from lightly.loss import VICRegLoss

        self.criterion = VICRegLoss(gather_distributed=self.gather)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """The three terms with the paper's weights."""
        return torch.as_tensor(self.criterion(self.embed(first), self.embed(second)))


class SwAV(Baseline):
    """Caron 2020, without its small crops: two views, as all rivals have."""

    def add(self, network: PairEncoder, width: int) -> None:
        """Prototypes on the unit sphere."""
        from lightly.loss import SwaVLoss
        from lightly.models.modules.heads import SwaVPrototypes

        self.prototypes = SwaVPrototypes(width, self.options.prototypes)
        self.prototypes.normalize()
        self.criterion = SwaVLoss(temperature=self.options.temperature, sinkhorn_gather_distributed=self.gather)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Each view predicts the other's assignment to the prototypes."""
        scores = [self.prototypes(functional.normalize(self.embed(view), dim=1)) for view in (first, second)]
        return torch.as_tensor(self.criterion(scores, []))

    def step_done(self, step: int, steps: int) -> None:
        """Puts the prototypes back onto the sphere."""
        self.prototypes.normalize()


class DINO(WithTeacher):
    """Caron 2021, without its small crops: two views, as all rivals have."""

    def add(self, network: PairEncoder, width: int) -> None:
        """Student and teacher head on the embeddings, so that distances are measured in a trained space."""
        from lightly.loss import DINOLoss
        from lightly.models.modules.heads import DINOProjectionHead

        super().add(network, width)
        self.head, self.teacher_head = (
            DINOProjectionHead(width, self.options.predictor_hidden, width, self.options.prototypes) for _ in range(2)
        )
        # Not a copy: a weight-normed layer cannot be copied.
        self.teacher_head.load_state_dict(self.head.state_dict())
        self.teacher_head.requires_grad_(False)
        self.criterion = DINOLoss(output_dim=self.options.prototypes, student_temp=self.options.temperature)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Each view predicts the teacher's distribution over the outputs for the other."""
        student = [self.head(self.embed(view)) for view in (first, second)]
        with torch.no_grad():
            teacher = [self.teacher_head(self.taught(view)) for view in (first, second)]
        # A temperature of its own accord, not a schedule over thirty epochs, which short runs would never leave.
        return torch.as_tensor(self.criterion(teacher, student, teacher_temp=self.criterion.teacher_temp))

    def followers(self) -> list[tuple[nn.Module, nn.Module]]:
        """The head follows as well."""
        return [*super().followers(), (self.teacher_head, self.head)]


class MAE(Baseline):
    """He 2022; bilateral: the visible part of one side predicts the hidden part of the other."""

    uneven = True

    def add(self, network: PairEncoder, width: int) -> None:
        """A light decoder; the projector, which nothing would train, goes."""
        from lightly.models.modules import MaskedVisionTransformerTIMM
        from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
        from timm.models.vision_transformer import VisionTransformer

        trunk = network.trunk
        if not isinstance(trunk, VisionTransformer):
            raise UserError(
                f"pretraining.method=mae hides patches from a vision transformer; encoder.backbone="
                f"{network.metadata.get('backbone')} is none: take encoder.backbone=vit_tiny_patch16_224"
            )
        network.projector = None
        self.channels = network.channels
        # Layers behind the last block that only the pooled features pass through learn nothing here.
        for layer in (trunk.fc_norm, trunk.head):
            layer.requires_grad_(False)
        self.masked = MaskedVisionTransformerTIMM(trunk, weight_initialization="skip")
        self.masked.mask_token.requires_grad_(False)
        self.size = int(trunk.patch_embed.patch_size[0])
        features = self.options.decoder_features
        self.entrance = nn.Linear(trunk.embed_dim, features)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=trunk.patch_embed.num_patches, embed_dim=features, num_heads=4,
            depth=self.options.decoder_depth, num_prefix_tokens=trunk.num_prefix_tokens,
        )  # fmt: skip
        self.exit = nn.Linear(features, network.channels * self.size**2)

    def inputs(self, views: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        """What is seen and what is to be predicted, [4B, 1, P, P] each, of one view and the other."""
        seen = torch.cat(Learner.inputs(self, views, generator))
        if not self.options.bilateral:
            return [seen, seen]
        return [seen, torch.cat([other_sides(half) for half in seen.chunk(2)])]

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """The mean squared error of the hidden patches, each brought to mean 0 and deviation 1."""
        from lightly.models import utils

        first, second = (patches.expand(-1, self.channels, -1, -1) for patches in (first, second))
        length = self.masked.sequence_length
        kept, hidden = utils.random_token_mask(
            (len(first), length), mask_ratio=self.options.masked_share, device=first.device
        )
        with self.arithmetic.autocast(first.device):
            tokens = self.entrance(self.masked.encode(first, idx_keep=kept))
            # Mask tokens everywhere, and what was seen put in at its place.
            full = utils.repeat_token(self.decoder.mask_token, (len(first), length)).to(tokens.dtype)
            decoded = self.decoder(utils.set_at_index(full, kept, tokens))
            predicted = self.exit(utils.get_at_index(decoded, hidden))
        target = utils.get_at_index(utils.patchify(second, self.size), hidden - self.decoder.num_prefix_tokens)
        deviation = (target.var(dim=-1, keepdim=True) + 1e-6).sqrt()
        return functional.mse_loss(predicted.float(), (target - target.mean(dim=-1, keepdim=True)) / deviation)


BASELINES: dict[str, Callable[[PairEncoder, Arithmetic, PretrainingConfig, int], Baseline]] = {
    "simclr": SimCLR,
    "moco": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "swav": SwAV,
    "dino": DINO,
    "mae": MAE,
}
"""pretraining.method -> the rival."""


def _predictor(width: int, hidden: int) -> nn.Module:
    """BYOL's predictor, which is SimSiam's as well."""
    from lightly.models.modules.heads import BYOLPredictionHead

    return cast(nn.Module, BYOLPredictionHead(width, hidden, width))
