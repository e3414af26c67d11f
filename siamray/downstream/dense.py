"""An encoder and a whole image go in; features and embeddings of its windows come out, the trunk shared between them.

A patch is encoded by a trunk, the mean of its final cells, and a projector. The dense way runs the trunk once over the
image, strides replaced by dilation so that cells come as close as the windows do (the algorithme a trous; Holschneider
1989, Yu and Koltun 2016), and takes each window's mean over the cells that lie where a patch has its own. The same
weights act on the same pixels, with one difference: a patch by itself is surrounded by zeros in every layer, a window
in the image by its neighbourhood. So the dense map is not the patchwise one, but close to it (`ways_agree`): rank
correlation .89 to .94 for ResNet-10 and ResNet-18 after short trainings on mini-MIAS, .87 to .91 untrained on phantoms,
mean deviation a quarter of the map's standard deviation. Making the deeper layers' padding that of patches changes
nothing, so that the first layers' edges are suspected. Where the trunk does not pad, both ways agree to rounding.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from siamray.downstream.features import evaluating, extract
from siamray.pretraining.encoder import PairEncoder

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

# Ends of a trunk that come after the windows' mean.
_HEADS = ("global_pool", "head", "head_drop", "conv_head", "norm_head", "act2", "flatten", "fc", "classifier")
# Layers that treat all places alike and look at one place only; those with a reach are dilated.
_POINTWISE = (
    *(nn.Identity, nn.Dropout, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.ELU, nn.PReLU, nn.Mish),
)
# Of timm's own, by name: their classes move between its versions.
_POINTWISE_NAMES = ("DropPath", "LayerNorm2d", "LayerNorm2dFp32", "BatchNormAct2d", "GELUTanh", "GELU")
_REACHING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
# Large enough that no layer of a convolutional trunk sees a single place only: what does, pools over the whole image.
_PROBE_PIXELS = 256
# Windows whose features go through the projector together.
_WINDOWS_AT_ONCE = 4096


class NotConvolutional(Exception):
    """The trunk cannot be shared between windows; the message says why."""


def map_shape(height: int, width: int, side: int, step: int) -> tuple[int, int]:
    """Rows and columns of windows of a side at a step, top-left pixels from (0, 0) on; 0 where none fits."""
    rows, cols = ((size - side) // step + 1 if size >= side else 0 for size in (height, width))
    return rows, cols


class WindowEncoder:
    """Encodes the windows of an image, densely where the trunk can be shared, else patch by patch.

    Attributes:
        side: window side in pixels.
        step: distance of neighbouring windows in pixels.
        way: dense or patchwise.
        reason: why it is patchwise where dense was asked for; else empty.
    """

    def __init__(self, encoder: PairEncoder, side: int, step: int, way: str = "dense") -> None:
        """Prepares the trunk; the encoder itself is left as it is.

        Args:
            encoder: encodes patches of this side.
            side: window side in pixels.
            step: distance of neighbouring windows in pixels, a power of two.
            way: dense or patchwise.
        """
        self.side, self.step, self.way, self.reason = side, step, way, ""
        self._encoder = encoder
        self._dense: _Dense | None = None
        if way == "dense":
            try:
                self._dense = _dense(encoder, side, step)
            except NotConvolutional as error:
                self.way, self.reason = "patchwise", str(error)

    def __call__(self, image: Floats, wanted: Bools) -> tuple[Floats, Floats]:
        """Encodes the wanted windows of an image.

        Args:
            image: [H, W], normalized like patches.
            wanted: [rows, cols] of `map_shape`.

        Returns:
            Features [n, F] and embeddings [n, D] of the wanted windows, in row-major order.

        Raises:
            ValueError: wanted has another shape than the windows.
        """
        shape = map_shape(image.shape[0], image.shape[1], self.side, self.step)
        if wanted.shape != shape:
            raise ValueError(f"wanted must be of shape {shape}, not {wanted.shape}")
        rows, cols = np.nonzero(wanted)
        if self._dense is None:
            return _patchwise(self._encoder, image, rows * self.step, cols * self.step, self.side)
        return self._dense.windows(image, rows, cols)


def ways_agree(first: NDArray[np.floating], second: NDArray[np.floating]) -> dict[str, float]:
    """Measures how far two maps of the same windows agree: what candidates depend on is the order of their values.

    Args:
        first: map, NaN where it has no value.
        second: map of the same shape.

    Returns:
        rank_correlation (Spearman), mean_deviation and greatest_deviation (absolute, in standard deviations of the
        second map), over the windows where both have a value.
    """
    known = np.isfinite(first) & np.isfinite(second)
    a, b = first[known].astype(np.float64), second[known].astype(np.float64)
    apart = np.abs(a - b) / max(float(b.std()), 1e-12)
    return {
        "rank_correlation": float(stats.spearmanr(a, b).statistic),
        "mean_deviation": float(apart.mean()),
        "greatest_deviation": float(apart.max()),
    }


def _patchwise(
    encoder: PairEncoder, image: Floats, rows: NDArray[np.intp], cols: NDArray[np.intp], side: int
) -> tuple[Floats, Floats]:
    """Cuts every window out and encodes it by itself: the slow reference."""
    views = np.lib.stride_tricks.sliding_window_view(image, (side, side))
    return extract(encoder, np.ascontiguousarray(views[rows, cols])[:, None])


@dataclass(frozen=True)
class _Dense:
    """A trunk made dense: cells lie ``spacing`` pixels apart, a window's own ones ``reduction`` pixels."""

    trunk: nn.Module
    encoder: PairEncoder
    cells: int
    reduction: int
    spacing: int
    step: int

    def windows(self, image: Floats, rows: NDArray[np.intp], cols: NDArray[np.intp]) -> tuple[Floats, Floats]:
        encoder = self.encoder
        device = next((value.device for value in self.trunk.parameters()), torch.device("cpu"))
        apart, stride = self.reduction // self.spacing, self.step // self.spacing
        with torch.inference_mode(), evaluating(encoder):
            pixels = torch.from_numpy(np.ascontiguousarray(image))[None, None].to(device)
            pixels = pixels.expand(-1, encoder.channels, -1, -1).contiguous(memory_format=torch.channels_last)
            found = self.trunk.forward_features(pixels)[0].permute(1, 2, 0)  # type: ignore[operator]
            own = range(0, self.cells * apart, apart)
            features, embeddings = [], []
            for start in range(0, max(len(rows), 1), _WINDOWS_AT_ONCE):
                some = slice(start, start + _WINDOWS_AT_ONCE)
                down, across = (torch.from_numpy(index[some] * stride).to(device) for index in (rows, cols))
                total = sum((found[down + i, across + j] for i in own for j in own), torch.zeros((), device=device))
                mean = (total / self.cells**2)[:, :, None, None]
                feature = self.trunk.forward_head(mean)  # type: ignore[operator]
                embedding = functional.normalize(feature, dim=1)
                if encoder.projector is not None:
                    embedding = encoder.projector(feature)
                features.append(feature.float().cpu().numpy())
                embeddings.append(embedding.float().cpu().numpy())
        return np.concatenate(features), np.concatenate(embeddings)


def _dense(encoder: PairEncoder, side: int, step: int) -> _Dense:
    """Makes an encoder's trunk dense.

    Raises:
        NotConvolutional: it has a layer that looks at the whole image, or whose dilation is not known.
    """
    trunk = copy.deepcopy(encoder.trunk).eval().to(memory_format=torch.channels_last)
    if not (hasattr(trunk, "forward_features") and hasattr(trunk, "forward_head")):
        raise NotConvolutional("the trunk is no timm model with forward_features")
    body = {name: module for name, module in trunk.named_modules() if name.split(".")[0] not in _HEADS}
    for name, module in body.items():
        leaf = not any(module.children())
        # Subclasses of convolutions and pools pad by rules of their own (Conv2dSame).
        kind = type(module).__name__
        if leaf and not (isinstance(module, _POINTWISE) or type(module) in _REACHING or kind in _POINTWISE_NAMES):
            raise NotConvolutional(f"its layer {name} is a {kind}")
    pixels = max(_PROBE_PIXELS, side)
    inputs, final = _sizes(trunk, body, encoder.channels, pixels)
    cells = _sizes(trunk, {}, encoder.channels, side)[1]
    reduction = pixels // final
    spacing = min(step, reduction)
    for name, size in inputs.items():
        if size == 1:
            raise NotConvolutional(f"its layer {name} sees the mean of the whole image")
        _spread(trunk, name, pixels // size, spacing)
    _fold_norms(trunk, encoder.channels, side)
    return _Dense(trunk, encoder, cells, reduction, spacing, step)


def _fold_norms(trunk: nn.Module, channels: int, side: int) -> None:
    """Multiplies batch norms into the convolutions right before them: the same numbers to rounding, a tenth faster."""
    made: dict[int, tuple[str, Tensor]] = {}
    pairs: dict[str, str] = {}
    used: list[str] = []

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            used.append(name)
            if type(module) is nn.Conv2d:
                made[id(result)] = (name, result)
            elif id(given[0]) in made:
                pairs[made[id(given[0])][0]] = name

        return note

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    named = [(name, module) for name, module in trunk.named_modules() if type(module) in kinds]
    hooks = [module.register_forward_hook(noting(name)) for name, module in named]
    with torch.inference_mode():
        trunk.forward_features(torch.zeros(1, channels, side, side))  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    for before, after in pairs.items():
        if used.count(before) == used.count(after) == 1:
            convolution, norm = trunk.get_submodule(before), trunk.get_submodule(after)
            fused = fuse_conv_bn_eval(convolution, norm)  # type: ignore[type-var,arg-type]
            for name, module in ((before, fused), (after, nn.Identity())):
                parent, _, own = name.rpartition(".")
                setattr(trunk.get_submodule(parent), own, module)


def _sizes(trunk: nn.Module, body: dict[str, nn.Module], channels: int, pixels: int) -> tuple[dict[str, int], int]:
    """Width of the input of every layer with a reach, by name, and of the final cells, for a square of pixels."""
    inputs: dict[str, int] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
            inputs.setdefault(name, int(given[0].shape[-1]))

        return note

    hooks = [
        module.register_forward_pre_hook(noting(name)) for name, module in body.items() if type(module) in _REACHING
    ]
    try:
        with torch.inference_mode():
            found = trunk.forward_features(torch.zeros(1, channels, pixels, pixels))  # type: ignore[operator]
    except (RuntimeError, AssertionError, ValueError) as error:
        raise NotConvolutional(f"it takes no image of {pixels} pixels ({' '.join(str(error).split())[:80]})") from error
    finally:
        for hook in hooks:
            hook.remove()
    if found.ndim != 4:
        raise NotConvolutional("its features are no map")
    return inputs, int(found.shape[-1])


def _spread(trunk: nn.Module, name: str, reduced: int, spacing: int) -> None:
    """Takes the stride beyond a spacing out of a layer, and dilates it by the strides taken out before it.

    Args:
        trunk: changed in place.
        name: of the layer.
        reduced: pixels between neighbouring inputs of the layer, in the trunk as it was.
        spacing: pixels between cells that are to be kept.
    """
    layer = trunk.get_submodule(name)
    stride, padding, kernel = (_one(getattr(layer, part)) for part in ("stride", "padding", "kernel_size"))
    kept, dilation = max(1, min(stride, spacing // reduced)), max(1, reduced // spacing)
    if (kept, dilation) == (stride, 1):
        return
    if isinstance(layer, nn.AvgPool2d):
        parent, _, own = name.rpartition(".")
        setattr(trunk.get_submodule(parent), own, _SpreadMean(kernel, padding, kept, dilation))
        return
    dilation *= _one(layer.dilation)
    reach = padding * dilation // _one(layer.dilation)
    if isinstance(layer, nn.Conv2d):
        layer.stride, layer.padding, layer.dilation = (kept, kept), (reach, reach), (dilation, dilation)
    else:
        # torch allows a pool no padding beyond half its kernel, however far apart its pixels are.
        parent, _, own = name.rpartition(".")
        setattr(trunk.get_submodule(parent), own, _SpreadMaximum(kernel, reach, kept, dilation))


def _one(value: object) -> int:
    """The number that holds for both axes."""
    values = value if isinstance(value, tuple) else (value, value)
    if isinstance(value, str) or values[0] != values[1]:
        raise NotConvolutional(f"a layer has {value} along rows and columns")
    return int(values[0])


class _SpreadMaximum(nn.Module):
    """Maximum over kernel x kernel pixels that lie ``dilation`` apart."""

    def __init__(self, kernel: int, padding: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.kernel, self.padding, self.stride, self.dilation = kernel, padding, stride, dilation

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, [self.padding] * 4, value=-torch.inf)
        return functional.max_pool2d(x, self.kernel, self.stride, 0, self.dilation)


class _SpreadMean(nn.Module):
    """Mean over kernel x kernel pixels that lie ``dilation`` apart; what lies beyond the image does not count."""

    def __init__(self, kernel: int, padding: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.kernel, self.padding, self.stride, self.dilation = kernel, padding * dilation, stride, dilation

    def forward(self, x: Tensor) -> Tensor:
        behind = (self.kernel - 1) * self.dilation - self.padding
        pads = [self.padding, behind, self.padding, behind]
        inside = functional.pad(torch.ones_like(x[:1, :1]), pads)
        padded = functional.pad(x, pads)
        total, count = (self._sum(values) for values in (padded, inside))
        return total / count

    def _sum(self, x: Tensor) -> Tensor:
        rows, cols = (size - (self.kernel - 1) * self.dilation for size in x.shape[-2:])
        starts = range(0, self.kernel * self.dilation, self.dilation)
        total = x.new_zeros(())
        for i in starts:
            for j in starts:
                total = total + x[..., i : i + rows : self.stride, j : j + cols : self.stride]
        return total
