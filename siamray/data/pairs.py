"""The store goes in; places of patch pairs, cut patches and augmented training batches come out."""

import queue
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray

from siamray.config import AugmentationConfig, Config, PairsConfig
from siamray.data.store import Store
from siamray.errors import UserError

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")


def patch_side(config: Config) -> int:
    """Side of a patch in store pixels: pairs.patch_mm at the store's spacing, else pairs.patch_pixels."""
    if config.pairs.patch_mm is None:
        return config.pairs.patch_pixels
    return max(16, round(config.pairs.patch_mm / config.preparation.spacing_mm))


def tissue_share(mask: NDArray[np.bool_], side: int) -> NDArray[np.float64]:
    """Share of tissue in every square window of a mask, by an integral image.

    Args:
        mask: [H, W], true where both breasts have tissue.
        side: window side in pixels.

    Returns:
        [H - side + 1, W - side + 1]: the share in the window whose top-left pixel is (row, col); empty if none fits.
    """
    height, width = mask.shape
    if height < side or width < side:
        return np.zeros((0, 0))
    total = np.zeros((height + 1, width + 1))
    total[1:, 1:] = mask.cumsum(0, dtype=np.float64).cumsum(1)
    window = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    return np.asarray(window / side**2)


def common_tissue(store: Store, entry_id: str) -> NDArray[np.bool_]:
    """Where both sides of an entry show breast: [H, W]."""
    return store.mask(entry_id, "left") & store.mask(entry_id, "right")


def place_pairs(store: Store, config: Config, women: set[str]) -> pd.DataFrame:
    """Places the pairs of some women: where both sides have enough tissue, on a grid or at random.

    Args:
        store: the prepared exams.
        config: its pairs section says how; config.seed seeds placement=sampled.
        women: the women whose exams are used.

    Returns:
        One row per pair, in a fixed order: entry_id, woman_id, row, col (top-left pixel in the store), tissue (share).

    Raises:
        UserError: if no patch of this size and tissue share fits anywhere.
    """
    side = patch_side(config)
    found = []
    entries = store.entries[store.entries.woman_id.isin(women)].sort_values("entry_id")
    for entry in entries.itertuples():
        share = tissue_share(common_tissue(store, str(entry.entry_id)), side)
        rows, cols = _places(share, side, str(entry.entry_id), config)
        found.append(
            pd.DataFrame(
                {
                    "entry_id": entry.entry_id,
                    "woman_id": entry.woman_id,
                    "row": rows,
                    "col": cols,
                    "tissue": share[rows, cols] if len(rows) else np.zeros(0),
                }
            )
        )
    pairs = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
    if pairs.empty:
        raise UserError(
            f"pairs.patch_pixels={side}: no patch of {side} pixels with pairs.minimum_tissue="
            f"{config.pairs.minimum_tissue} fits into any breast of the store; take smaller patches"
        )
    return pairs


def _places(
    share: NDArray[np.float64], side: int, entry_id: str, config: Config
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    enough = share >= config.pairs.minimum_tissue
    if config.pairs.placement == "grid":
        stride = max(1, round(side * config.pairs.stride_share))
        rows, cols = np.nonzero(enough[::stride, ::stride])
        return rows * stride, cols * stride
    rows, cols = np.nonzero(enough)
    # A seed of its own for every entry: the places of one woman do not depend on which other women there are.
    generator = np.random.default_rng([config.seed, zlib.crc32(entry_id.encode())])
    chosen = generator.choice(len(rows), size=min(len(rows), config.pairs.per_exam_view), replace=False)
    chosen.sort()
    return rows[chosen], cols[chosen]


class PairCutter:
    """Cuts windows of both sides out of the store, with a bounded cache of decoded images.

    Args:
        store: the prepared exams.
        config: normalization and cache_mb.
    """

    def __init__(self, store: Store, config: PairsConfig) -> None:
        self._store = store
        self._config = config
        self._arrays: OrderedDict[tuple[str, str], NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._sizes = store.entries.set_index("entry_id")[["height", "width"]].to_dict("index")
        self._scales: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {}

    def __call__(self, samples: pd.DataFrame, side: int, context: int = 0) -> NDArray[np.float32]:
        """Cuts one window per sample and side.

        Args:
            samples: rows with entry_id, row, col (top-left pixel of the patch).
            side: patch side in pixels.
            context: pixels added around the patch on every side; beyond the image they are black.

        Returns:
            [N, 2, side + 2 context, side + 2 context], standardized by the tissue's mean and deviation; axis 1 is left,
            right. With background=mean all places where either side has no tissue are 0 on both.
        """
        edge = side + 2 * context
        windows = np.zeros((len(samples), 2, edge, edge), dtype=np.float32)
        places = zip(
            samples.entry_id.to_numpy(), samples.row.to_numpy() - context, samples.col.to_numpy() - context, strict=True
        )
        for number, (entry_id, row, col) in enumerate(places):
            scales = self._scale(entry_id)
            for index, name in enumerate(SIDES):
                mean, deviation = scales[index]
                target = windows[number, index]
                self._fill(target, entry_id, name, int(row), int(col))
                target *= 1 / (65535 * deviation)
                target -= mean / deviation
            if self._config.background == "mean":
                windows[number, :, ~self._tissue(entry_id, int(row), int(col), edge)] = 0
        return windows

    def _fill(self, target: NDArray[np.float32], entry_id: str, side: Side, row: int, col: int) -> None:
        size = self._sizes[entry_id]
        edge = target.shape[0]
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + edge, int(size["height"])), min(col + edge, int(size["width"]))
        if bottom <= top or right <= left:
            return
        image = self._cached(entry_id, side, 2, lambda: self._store.image(entry_id, side))
        if image is None:
            pixels = self._store.window(entry_id, side, top, left, bottom - top, right - left)
        else:
            pixels = image[top:bottom, left:right]
        target[top - row : bottom - row, left - col : right - col] = pixels

    def _tissue(self, entry_id: str, row: int, col: int, edge: int) -> NDArray[np.bool_]:
        """Where a window shows tissue of both sides, [edge, edge]."""
        mask = self._cached(entry_id, "tissue", 1, lambda: common_tissue(self._store, entry_id))
        if mask is None:
            mask = common_tissue(self._store, entry_id)
        tissue = np.zeros((edge, edge), dtype=np.bool_)
        top, left = max(row, 0), max(col, 0)
        part = mask[top : max(row + edge, 0), left : max(col + edge, 0)]
        tissue[top - row : top - row + part.shape[0], left - col : left - col + part.shape[1]] = part
        return tissue

    def _cached(
        self, entry_id: str, kind: str, pixel_bytes: int, read: Callable[[], NDArray[Any]]
    ) -> NDArray[Any] | None:
        """The decoded image or mask from the cache; None where the cache has no room for it."""
        key = (entry_id, kind)
        with self._lock:
            if key in self._arrays:
                return self._arrays[key]
            size = self._sizes[entry_id]
            # Once full, the cache keeps what it has: pairs come in random order, so turnover would only cost.
            more = pixel_bytes * int(size["height"]) * int(size["width"])
            if self._bytes + more > self._config.cache_mb * 2**20:
                return None
        array = read()
        with self._lock:
            if key not in self._arrays:
                self._arrays[key] = array
                self._bytes += array.nbytes
        return array

    def _scale(self, entry_id: str) -> tuple[tuple[float, float], tuple[float, float]]:
        """(mean, deviation) of left and right in 0..1 units, by pairs.normalization."""
        if entry_id not in self._scales:
            values = self._store.normalization(entry_id)
            left, right = values["left"], values["right"]
            if self._config.normalization == "pair":
                mean = (left[0] + right[0]) / 2
                # Variance of the two sides' tissue together: within the sides and between them.
                deviation = float(np.sqrt((left[1] ** 2 + right[1] ** 2) / 2 + (left[0] - right[0]) ** 2 / 4))
                left = right = (mean, deviation)
            smallest = 1e-3  # a blank image has no deviation; it stays blank instead of becoming noise
            self._scales[entry_id] = (left[0], max(left[1], smallest)), (right[0], max(right[1], smallest))
        return self._scales[entry_id]


def augmentation_context(side: int, config: AugmentationConfig) -> int:
    """Pixels around a patch that rotation and shift can reach into."""
    angle = np.deg2rad(min(config.rotation_degrees, 45))
    reach = config.greatest_scale * (np.cos(angle) + np.sin(angle)) / 2 + config.shift_share
    return int(np.ceil(max(0.0, reach - 0.5) * side))


def augment(windows: torch.Tensor, side: int, config: AugmentationConfig, generator: torch.Generator) -> torch.Tensor:
    """Changes pairs at random: one geometry for both sides of a pair, an intensity for each side.

    Args:
        windows: [N, 2, W, W], patches with their context around them.
        side: side P of the patches that come out.
        config: the ranges.
        generator: source of all randomness.

    Returns:
        [N, 2, P, P].
    """
    count, _, width, _ = windows.shape

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    angle = uniform(-1, 1, count) * float(np.deg2rad(config.rotation_degrees))
    scale = uniform(min(config.crop_scale, config.greatest_scale), config.greatest_scale, count)
    shift = uniform(-config.shift_share, config.shift_share, count, 2)
    mirrored = (torch.rand((count, 2), generator=generator) < 0.5) & config.flip
    sign = torch.where(mirrored, -1.0, 1.0)
    # In affine_grid's units the window spans -1..1, so the patch spans -side/width..side/width.
    half = scale * side / width
    cosine, sine = torch.cos(angle) * half, torch.sin(angle) * half
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = cosine * sign[:, 0], -sine * sign[:, 1]
    theta[:, 1, 0], theta[:, 1, 1] = sine * sign[:, 0], cosine * sign[:, 1]
    theta[:, :, 2] = shift * 2 * side / width
    grid = functional.affine_grid(theta, [count, 2, side, side], align_corners=False)
    patches = functional.grid_sample(windows, grid, mode="bilinear", padding_mode="border", align_corners=False)
    contrast = 1 + uniform(-config.contrast, config.contrast, count, 2, 1, 1)
    brightness = uniform(-config.brightness, config.brightness, count, 2, 1, 1)
    patches = patches * contrast + brightness
    if config.noise > 0:
        patches = patches + config.noise * torch.randn(patches.shape, generator=generator)
    return patches


def shuffle_partners(pairs: pd.DataFrame, seed: int) -> NDArray[np.int64]:
    """Gives every pair another woman's pair as partner: the key negative control.

    Args:
        pairs: rows with woman_id.
        seed: seed of the drawing.

    Returns:
        [N] positions of the partners; a permutation in which no one keeps a partner of the same woman.

    Raises:
        UserError: if one woman has more than half of the pairs, so that no such permutation exists.
    """
    women = pairs.woman_id.to_numpy()
    _, counts = np.unique(women, return_counts=True)
    if counts.max() * 2 > len(women):
        raise UserError(
            "pretraining.partners=shuffled: needs other women for every woman; use more women or fewer pairs of one"
        )
    generator = np.random.default_rng([seed, 0x5F])
    # Women in random order, each woman's pairs together: a turn by the largest woman's count leaves nobody at home.
    rank = {woman: place for place, woman in enumerate(generator.permutation(np.unique(women)))}
    order = np.lexsort((generator.random(len(women)), np.array([rank[woman] for woman in women])))
    partners = np.empty(len(women), dtype=np.int64)
    partners[order] = np.roll(order, -int(counts.max()))
    return partners


def pair_batches(
    cutter: PairCutter,
    batches: list[pd.DataFrame],
    side: int,
    augmentation: AugmentationConfig | None,
    seed: int | Sequence[int],
    context: int = 0,
    ahead: int = 3,
) -> Iterator[torch.Tensor]:
    """Cuts and augments batches in a thread of its own, ahead of the training.

    Args:
        cutter: cuts the windows.
        batches: the pairs of each batch: entry_id, row, col; with partner_entry_id, partner_row, partner_col the right
            patch comes from there.
        side: patch side in pixels.
        augmentation: None leaves the patches as they are.
        seed: of the augmentation of these batches, or one for each batch.
        context: pixels around the patch that come out as well where nothing is augmented.
        ahead: batches prepared in advance.

    Yields:
        [B, 2, P, P] float32, P with the context on both sides.
    """
    ready: queue.Queue[torch.Tensor | BaseException | None] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(item: torch.Tensor | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            generator = torch.Generator()
            if isinstance(seed, int):
                generator.manual_seed(seed)
            for number, batch in enumerate(batches):
                if stopped.is_set():
                    return
                if not isinstance(seed, int):
                    generator.manual_seed(seed[number])
                put(_batch(cutter, batch, side, augmentation, generator, context))
            put(None)
        except BaseException as error:  # handed over to the training thread, which raises it
            put(error)

    thread = threading.Thread(target=work, name="pair-batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def _batch(
    cutter: PairCutter,
    batch: pd.DataFrame,
    side: int,
    augmentation: AugmentationConfig | None,
    generator: torch.Generator,
    context: int,
) -> torch.Tensor:
    context = augmentation_context(side, augmentation) if augmentation else context
    windows = cutter(batch, side, context)
    if "partner_entry_id" in batch:
        names = {"partner_entry_id": "entry_id", "partner_row": "row", "partner_col": "col"}
        windows[:, 1] = cutter(batch[list(names)].rename(columns=names), side, context)[:, 1]
    patches = torch.from_numpy(windows)
    return augment(patches, side, augmentation, generator) if augmentation else patches
