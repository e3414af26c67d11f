"""The encoder: a configuration or an exported folder in, a network from patches to embeddings out."""

import json
import os
import shutil
from importlib import metadata as packages
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from siamray.config import EncoderConfig
from siamray.errors import UserError, nearest
from siamray.files import space_for
from siamray.pretraining.imagenet import load_packaged_weights, packaged_weights

WEIGHTS_FILE = "model.safetensors"
# In a folder of its own: timm 1.0.16 to 1.0.22 fail where two weight files lie side by side.
PROJECTOR_FILE = "projector/projector.safetensors"
HEAD_FILE = "head/head.safetensors"
METADATA_FILE = "siamray.json"
DEFAULT_PIXELS = 64
# What timm raises for arguments, sizes, downloads and weights that do not fit.
BUILD_ERRORS = (OSError, RuntimeError, ValueError, TypeError, AssertionError)


class PairEncoder(nn.Module):
    """A timm backbone and the projector behind it, shared by both sides of a pair.

    Attributes:
        trunk: timm model without classifier, [N, channels, P, P] -> [N, features].
        projector: [N, features] -> [N, D], or None where a folder holds none.
        head: [N, features] -> [N, 1], log odds that a patch shows a drawn mass; None where none was trained.
        channels: input channels of the trunk; a grey patch is repeated over them.
        features: length of the features.
        trunk_arguments: what timm needs beside the architecture to build the trunk again.
        metadata: what is known of its making: backbone, patch_pixels, seed, ...
    """

    def __init__(
        self,
        trunk: nn.Module,
        projector: nn.Module | None,
        *,
        channels: int,
        features: int,
        trunk_arguments: dict[str, Any],
        metadata: dict[str, Any],
    ) -> None:
        """Joins the parts; `build` and `load` make them.

        Args:
            trunk: see the class.
            projector: see the class.
            channels: see the class.
            features: see the class.
            trunk_arguments: see the class.
            metadata: see the class.
        """
        super().__init__()
        self.trunk = trunk
        self.projector = projector
        self.head: nn.Linear | None = None
        self.channels = channels
        self.features = features
        self.trunk_arguments = trunk_arguments
        self.metadata = metadata

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes grey patches.

        Args:
            patches: [N, 1, P, P], normalised to mean 0 and deviation 1 of the tissue.

        Returns:
            Features [N, F] and embeddings [N, D]; without a projector the embeddings are the l2-normalised features.
        """
        features = self.trunk(patches.expand(-1, self.channels, -1, -1))
        if self.projector is None:
            return features, functional.normalize(features, dim=1)
        return features, self.projector(features)

    def add_head(self) -> None:
        """Adds a linear head whose log odds start at 0 for every patch."""
        self.head = nn.Linear(self.features, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def abnormality(self, features: Tensor) -> Tensor:
        """Log odds [N] that patches show a drawn mass, of their features [N, F].

        Raises:
            ValueError: the encoder has no head.
        """
        if self.head is None:
            raise ValueError("the encoder was trained without a head (pretraining.masses.head_weight)")
        return torch.as_tensor(self.head(features)).squeeze(1)


def build(config: EncoderConfig, seed: int, patch_pixels: int = DEFAULT_PIXELS) -> PairEncoder:
    """Builds an encoder; the same seed gives the same weights, and no global random state is touched.

    From ``config.folder`` the trunk is taken and the projector drawn anew, so that two networks that start from one
    folder still differ.

    Args:
        config: backbone, weights, folder and projector.
        seed: of all weights that are drawn.
        patch_pixels: side P of the patches; backbones of fixed input size (transformers) are built for it.

    Raises:
        UserError: the backbone is unknown or cannot take such patches, or its weights cannot be had.
    """
    # The CPU generator alone: torch.manual_seed would also reseed the GPUs, which this does not restore.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        encoder = load(config.folder, patch_pixels) if config.folder is not None else _new_trunk(config, patch_pixels)
        encoder.projector = make_projector(encoder.features, config.projector_hidden, config.projector_features)
        encoder.head = None
    encoder.metadata = {**encoder.metadata, "seed": seed, "patch_pixels": patch_pixels}
    return encoder.train()


def make_projector(features: int, hidden: int, embedding: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, Linear: the projector of SimCLR v2 and VICReg with one hidden layer.

    Args:
        features: length of the features F.
        hidden: width of the hidden layer.
        embedding: length of the embedding D.
    """
    # The bias of the first layer would be taken away by the batch norm's mean.
    return nn.Sequential(
        nn.Linear(features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, embedding),
    )


def _new_trunk(config: EncoderConfig, patch_pixels: int) -> PairEncoder:
    """Builds the backbone by its timm name, for one grey channel."""
    name = config.backbone
    if not timm.is_model(name):
        raise UserError(f"encoder.backbone={name} is not a timm model{nearest(name, timm.list_models())}")
    architecture, _, tag = name.partition(".")
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tagged:
        raise UserError(f"encoder.backbone={name}: timm knows no such weights{nearest(name, [architecture, *tagged])}")
    arguments: dict[str, Any] = {"in_chans": 1, "global_pool": "avg"}
    default = timm.get_pretrained_cfg(name)
    if default is not None and default.fixed_input_size:
        arguments["img_size"] = patch_pixels
    packaged = packaged_weights(name) if config.weights == "imagenet" else None
    try:
        download = config.weights == "imagenet" and packaged is None
        trunk = timm.create_model(name, pretrained=download, num_classes=0, **arguments)
        if packaged is not None:
            load_packaged_weights(trunk, packaged, 1)
    except BUILD_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        if config.weights == "imagenet":
            raise UserError(
                f"encoder.weights=imagenet: the weights of {name} could not be downloaded or loaded ({reason}); "
                "go online once, or use encoder.weights=random"
            ) from error
        raise UserError(
            f"encoder.backbone={name} cannot be built for {patch_pixels} pixel patches: {reason}"
        ) from error
    features = _feature_count(trunk, 1, patch_pixels, f"encoder.backbone={name}")
    metadata = {"backbone": name, "weights": config.weights}
    return PairEncoder(trunk, None, channels=1, features=features, trunk_arguments=arguments, metadata=metadata)


@torch.no_grad()
def _feature_count(trunk: nn.Module, channels: int, pixels: int, culprit: str) -> int:
    """Length of the features, measured: timm's num_features is another one where a head has its own convolution."""
    trunk.eval()
    try:
        features = trunk(torch.zeros(1, channels, pixels, pixels))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{culprit} cannot encode patches of {pixels} pixels (pairs.patch_pixels): {reason}") from error
    if features.ndim != 2:
        raise UserError(f"{culprit} gives features of shape {tuple(features.shape[1:])}, not one vector per patch")
    return int(features.shape[1])


def export(encoder: PairEncoder, folder: str | Path, metadata: dict[str, Any]) -> None:
    """Writes a folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads without siamray.

    The folder appears whole or not at all; an export that was there before is replaced.

    Args:
        encoder: on any device, in any memory format.
        folder: its parent is made if need be.
        metadata: JSON-able facts beside those of the encoder: patch_pixels, spacing_mm, normalization, epochs, ...

    Raises:
        UserError: the folder cannot be written, or holds something that is no export.
    """
    target = Path(folder)
    if target.exists() and not (target / METADATA_FILE).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} holds something else than an exported encoder; name another folder or remove it")
    facts = {"siamray": _version(), **encoder.metadata, **metadata}
    facts |= {"features": encoder.features, "projector": projector_shape(encoder.projector)}
    facts |= {"head": encoder.head is not None}
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        with space_for(target.parent):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            (part / WEIGHTS_FILE).write_bytes(save(_tensors(encoder.trunk), {"format": "pt"}))
            for module, name in ((encoder.projector, PROJECTOR_FILE), (encoder.head, HEAD_FILE)):
                if module is not None:
                    (part / name).parent.mkdir()
                    (part / name).write_bytes(save(_tensors(module), {"format": "pt"}))
            pixels = int(facts.get("patch_pixels") or DEFAULT_PIXELS)
            (part / "config.json").write_text(json.dumps(_timm_config(encoder, pixels), indent=2) + "\n")
            (part / METADATA_FILE).write_text(json.dumps(facts, indent=2) + "\n")
            if target.exists():
                os.replace(target, old)
            os.replace(part, target)
    except OSError as error:
        raise UserError(f"{target}: the encoder cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _version() -> str:
    """The installed version, or "unknown" in a checkout that was never installed."""
    try:
        return packages.version("siamray")
    except packages.PackageNotFoundError:
        return "unknown"


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's state as safetensors takes it: contiguous, on the CPU, no two names sharing memory."""
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in module.state_dict().items()
    }


def projector_shape(projector: nn.Module | None) -> list[int] | None:
    """Input, hidden and output width of the projector."""
    if projector is None:
        return None
    layers = [layer for layer in projector.modules() if isinstance(layer, nn.Linear)]
    return [layers[0].in_features, layers[0].out_features, layers[-1].out_features]


def _timm_config(encoder: PairEncoder, pixels: int) -> dict[str, Any]:
    """The config.json timm reads; input size and classes are those of the weights, so that timm converts nothing."""
    known: dict[str, Any] = vars(encoder.trunk)["pretrained_cfg"]
    arguments = encoder.trunk_arguments
    cfg: dict[str, Any] = {
        "input_size": [encoder.channels, pixels, pixels],
        "fixed_input_size": bool(known.get("fixed_input_size", False)),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": [0.0] * encoder.channels,
        "std": [1.0] * encoder.channels,
        "num_classes": 0,
        "pool_size": None,
        "first_conv": known.get("first_conv"),
        "classifier": known.get("classifier"),
    }
    return {
        "architecture": known["architecture"],
        "num_classes": 0,
        "num_features": encoder.features,
        "global_pool": arguments.get("global_pool", ""),
        "model_args": arguments,
        "pretrained_cfg": cfg,
    }


def load(folder: str | Path, patch_pixels: int | None = None) -> PairEncoder:
    """Loads an exported encoder, or any plain timm folder of other channels, without executing anything it holds.

    Args:
        folder: as `export` wrote it, or config.json beside weights, as timm writes it.
        patch_pixels: side of the patches it will get; null = what the folder says, else 64.

    Returns:
        The encoder in evaluation mode; ``projector`` is None where the folder holds none.

    Raises:
        UserError: the folder is missing, is no encoder, or is corrupt.
    """
    source = Path(folder)
    config = _read_json(source, "config.json")
    facts = _read_json(source, METADATA_FILE) if (source / METADATA_FILE).exists() else {}
    known = config.get("pretrained_cfg") or config
    arguments = dict(config.get("model_args") or {})
    pixels = int(patch_pixels or facts.get("patch_pixels") or DEFAULT_PIXELS)
    try:
        channels = int(arguments.get("in_chans") or (known.get("input_size") or [3])[0])
        arguments["in_chans"] = channels
        if known.get("fixed_input_size"):
            arguments["img_size"] = pixels
        with torch.random.fork_rng(devices=[]):
            trunk = timm.create_model(f"local-dir:{source}", pretrained=True, num_classes=0, **arguments)
            projector, head = _load_projector(source, facts), _load_head(source, facts)
        _check_tensors(source, trunk)
    except (*BUILD_ERRORS, KeyError, AttributeError, SafetensorError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source} cannot be loaded as an encoder: {reason}; export it again") from error
    features = _feature_count(trunk, channels, pixels, str(source))
    facts.setdefault("backbone", str(config.get("architecture", "unknown")))
    encoder = PairEncoder(
        trunk, projector, channels=channels, features=features, trunk_arguments=arguments, metadata=facts
    )
    encoder.head = head
    return encoder.eval()


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    """Reads a JSON object of a folder, or says in one line what is wrong with it."""
    if not folder.is_dir():
        raise UserError(f"encoder folder {folder} does not exist")
    try:
        values = json.loads((folder / name).read_text())
    except FileNotFoundError as error:
        raise UserError(f"{folder} is not an exported encoder: it holds no {name}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / name} cannot be read: {error}; export the encoder again") from error
    if not isinstance(values, dict):
        raise UserError(f"{folder / name} holds no JSON object; export the encoder again")
    return values


def _check_tensors(folder: Path, trunk: nn.Module) -> None:
    """Refuses weights that lack most of the trunk: timm loads them silently where the number of classes differs."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        return
    with safe_open(path, framework="pt") as tensors:
        held = set(tensors.keys())
    missing = [name for name in trunk.state_dict() if name not in held]
    if 2 * len(missing) > len(trunk.state_dict()):
        raise ValueError(f"{WEIGHTS_FILE} lacks {len(missing)} tensors of the architecture, such as {missing[0]}")


def _load_head(folder: Path, facts: dict[str, Any]) -> nn.Linear | None:
    """The head an export holds, or None."""
    if not facts.get("head"):
        return None
    head = nn.Linear(int(facts["features"]), 1)
    head.load_state_dict(load_file(folder / HEAD_FILE))
    return head


def _load_projector(folder: Path, facts: dict[str, Any]) -> nn.Sequential | None:
    """The projector an export holds, or None."""
    if not facts.get("projector"):
        return None
    projector = make_projector(*facts["projector"])
    projector.load_state_dict(load_file(folder / PROJECTOR_FILE))
    return projector
