"""An encoder made by hand: the only feature, and the embedding, is the patch's mean brightness."""

from torch import Tensor, nn

from siamray.pretraining.encoder import PairEncoder


class _MeanTrunk(nn.Module):
    """Means of cells of 32 pixels, without padding, and their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(1, 1, 32, stride=32, bias=False)
        nn.init.constant_(self.cells.weight, 1 / 32**2)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.cells(x)

    def forward_head(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def mean_brightness() -> PairEncoder:
    """Encodes patches whose side is a multiple of 32 pixels."""
    return PairEncoder(
        _MeanTrunk(), nn.Identity(), channels=1, features=1, trunk_arguments={}, metadata={"embedding": "raw"}
    ).eval()
