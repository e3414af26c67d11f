"""A prepared exam's view and an encoder go in; maps of what may be abnormal, and candidates on them, come out."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, uniform_filter

from siamray.config import Config, DetectionConfig
from siamray.data.pairs import SIDES, PairCutter, Side, common_tissue, patch_side, tissue_share
from siamray.data.store import Store
from siamray.downstream.dense import WindowEncoder, map_shape
from siamray.errors import UserError
from siamray.pretraining.distances import pair_distances
from siamray.pretraining.encoder import PairEncoder

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DISTANCE, LINEAR, BRIGHTNESS = "distance", "linear", "brightness"
SCORES = (DISTANCE, LINEAR, BRIGHTNESS)


@dataclass(frozen=True)
class Probe:
    """A linear score of features, ``features @ weights + bias``: log-odds of a lesion."""

    weights: Floats
    bias: float
    note: str = ""

    def __call__(self, features: NDArray[np.floating]) -> Floats:
        """Scores features [n, F] -> [n]."""
        return np.asarray(features @ self.weights + self.bias, dtype=np.float64)


@dataclass(frozen=True)
class View:
    """What was measured in the windows of one view.

    Attributes:
        entry_id: the view.
        side_pixels: window side in store pixels.
        step: distance of neighbouring windows in store pixels; window (i, j) has its top-left pixel at (i, j) * step.
        tissue: [rows, cols], windows with enough tissue on both sides; only they are measured.
        features: [2, n, F] of left and right, of the n windows with tissue in row-major order.
        distance: [rows, cols] between the sides' embeddings, NaN without tissue.
        brightness: [2, rows, cols], each side's smoothed brightness, NaN without tissue.
    """

    entry_id: str
    side_pixels: int
    step: int
    tissue: Bools
    features: NDArray[np.float32]
    distance: Floats
    brightness: Floats


@dataclass(frozen=True)
class Candidate:
    """A window that may hold a lesion: its side, its top-left pixel and side in store pixels, and its score."""

    side: Side
    row: int
    col: int
    size: int
    value: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """row_min, col_min, row_max, col_max in store pixels, half open."""
        return float(self.row), float(self.col), float(self.row + self.size), float(self.col + self.size)


def window_encoder(encoder: PairEncoder, config: Config) -> WindowEncoder:
    """Makes the encoder of an image's windows that downstream.detection asks for.

    Raises:
        UserError: the step is no power of two.
    """
    step = config.downstream.detection.step_pixels
    if step & (step - 1):
        near = 2 ** round(np.log2(step))
        raise UserError(
            f"downstream.detection.step_pixels={step}: must be a power of two, as the strides of encoders are; "
            f"say downstream.detection.step_pixels={near}"
        )
    return WindowEncoder(encoder, patch_side(config), step, config.downstream.detection.way)


def measure(windows: WindowEncoder, encoder: PairEncoder, store: Store, cutter: PairCutter, entry_id: str,
            minimum_tissue: float) -> View:  # fmt: skip
    """Measures all windows of a view in which both sides have tissue.

    Args:
        windows: encodes them.
        encoder: says in its metadata in which space distances are measured.
        store: the prepared exams.
        cutter: normalizes the images as it does patches.
        entry_id: the view.
        minimum_tissue: share of a window that must be tissue on both sides.
    """
    mask = common_tissue(store, entry_id)
    height, width = mask.shape
    whole = pd.DataFrame({"entry_id": [entry_id], "row": [0], "col": [0]})
    images = cutter(whole, max(height, width))[0, :, :height, :width]
    side, step = windows.side, windows.step
    rows, cols = map_shape(height, width, side, step)
    tissue = np.zeros((rows, cols), dtype=np.bool_)
    if rows and cols:
        tissue = tissue_share(mask, side)[::step, ::step] >= minimum_tissue
    encoded = [windows(np.ascontiguousarray(image), tissue) for image in images]
    kind = str(encoder.metadata.get("embedding", "unit"))
    left, right = (torch.from_numpy(embeddings) for _, embeddings in encoded)
    return View(
        entry_id=entry_id,
        side_pixels=side,
        step=step,
        tissue=tissue,
        features=np.stack([features for features, _ in encoded]),
        distance=placed(pair_distances(left, right, kind).numpy(), tissue),
        brightness=np.stack([placed(_brightness(image, side, step, tissue), tissue) for image in images]),
    )


def placed(values: NDArray[np.floating], tissue: Bools) -> Floats:
    """Puts the values [n] of the windows with tissue in their places; NaN elsewhere."""
    found = np.full(tissue.shape, np.nan)
    found[tissue] = values
    return found


def _brightness(image: NDArray[np.float32], side: int, step: int, tissue: Bools) -> Floats:
    """Brightness of windows as the plain control of the patches measures it: smoothed, mean of the central half."""
    smooth = gaussian_filter(image.astype(np.float64), sigma=side / 8, mode="nearest")
    centre = uniform_filter(smooth, size=side // 2, mode="nearest")
    rows, cols = np.nonzero(tissue)
    return np.asarray(centre[rows * step + side // 2, cols * step + side // 2])


def side_evidence(view: View, rule: str, probe: Probe | None) -> Floats:
    """By how much more the left window looks abnormal than the right one, [rows, cols]; NaN without tissue.

    The distance is symmetric: it says that the sides differ, not which one is abnormal.

    Args:
        view: what was measured.
        rule: brightness (lesions are bright) or probe (the linear score).
        probe: the linear score, for rule=probe.

    Raises:
        ValueError: the rule needs a probe and there is none.
    """
    if rule == "brightness":
        return np.asarray(view.brightness[0] - view.brightness[1])
    if probe is None:
        raise ValueError("the rule 'probe' needs a probe")
    return placed(probe(view.features[0]) - probe(view.features[1]), view.tissue)


def side_maps(view: View, score: str, rule: str, probe: Probe | None) -> Floats:
    """Maps a score on both sides, [2, rows, cols]; higher = more abnormal, NaN = no value.

    A score of the pair (distance; brightness, the plain difference) stands on the side that the rule names, and the
    other side has no value there. The linear score stands on both.

    Args:
        view: what was measured.
        score: one of SCORES.
        rule: as `side_evidence`.
        probe: the linear score, for score=linear or rule=probe.
    """
    if score == LINEAR:
        if probe is None:
            raise ValueError("the score 'linear' needs a probe")
        return np.stack([placed(probe(features), view.tissue) for features in view.features])
    difference = np.abs(view.brightness[0] - view.brightness[1])
    of_pair = view.distance if score == DISTANCE else difference
    left = side_evidence(view, "brightness" if score == BRIGHTNESS else rule, probe) >= 0
    return np.stack([np.where(left, of_pair, np.nan), np.where(left, np.nan, of_pair)])


def find_candidates(view: View, maps: Floats, of_pair: bool, config: DetectionConfig) -> list[Candidate]:
    """Finds the windows that stand out: local maxima, the highest first, no two of them near each other.

    Args:
        view: where the windows lie.
        maps: [2, rows, cols] from `side_maps`.
        of_pair: whether a window has its value on one side only, so that candidates of both sides keep apart.
        config: candidates and separation_share.

    Returns:
        Candidates of both sides by falling score, config.candidates at most.
    """
    apart = config.separation_share * view.side_pixels
    if of_pair:
        either = np.fmax(maps[0], maps[1])
        chosen = [(*peak, 0 if np.isfinite(maps[0][peak]) else 1) for peak in _peaks(either, apart / view.step)]
    else:
        chosen = [(*peak, side) for side in (0, 1) for peak in _peaks(maps[side], apart / view.step)]
    found = [
        Candidate(SIDES[side], row * view.step, col * view.step, view.side_pixels, float(maps[side, row, col]))
        for row, col, side in chosen
    ]
    return sorted(found, key=lambda candidate: -candidate.value)[: config.candidates]


def _peaks(values: Floats, apart: float) -> list[tuple[int, int]]:
    """Local maxima by falling value; of two nearer than ``apart`` cells along both axes the lower one is left out."""
    if values.size == 0:
        return []
    known = np.where(np.isfinite(values), values, -np.inf)
    rows, cols = np.nonzero((known == maximum_filter(known, size=3, mode="nearest")) & np.isfinite(known))
    order = np.argsort(-known[rows, cols], kind="stable")
    kept: list[tuple[int, int]] = []
    for row, col in zip(rows[order].tolist(), cols[order].tolist(), strict=True):
        if all(max(abs(row - other), abs(col - beside)) >= apart for other, beside in kept):
            kept.append((row, col))
    return kept


def pixel_maps(view: View, maps: Floats, shape: tuple[int, int]) -> Floats:
    """Brings the maps of both sides to pixels.

    Args:
        view: where the windows lie.
        maps: [2, rows, cols] from `side_maps`; where a score of the pair stands on the other side, it is 0 here.
        shape: height and width of the images.

    Returns:
        [2, height, width], see `pixel_map`.
    """
    return np.stack([pixel_map(view, np.where(view.tissue & np.isnan(own), 0.0, own), shape) for own in maps])


def pixel_map(view: View, values: Floats, shape: tuple[int, int]) -> Floats:
    """Brings a map of windows to pixels, linear between the centres of the windows that have a value.

    Args:
        view: where the windows lie.
        values: [rows, cols], NaN = no value.
        shape: height and width of the image.

    Returns:
        [height, width]; beyond the outer centres it goes on as at them; NaN where no window around has a value.
    """
    if values.size == 0:
        return np.full(shape, np.nan)
    along = [_between(size, number, view) for size, number in zip(shape, values.shape, strict=True)]
    known = np.isfinite(values)
    total, weight = (along[0] @ part @ along[1].T for part in (np.where(known, values, 0.0), known.astype(np.float64)))
    return np.asarray(np.divide(total, weight, out=np.full(shape, np.nan), where=weight > 1e-9))


def _between(size: int, number: int, view: View) -> Floats:
    """Weights [pixels, windows] of linear interpolation between the windows' centres along an axis."""
    place = np.clip((np.arange(size) - (view.side_pixels - 1) / 2) / view.step, 0, number - 1)
    first = np.minimum(np.floor(place).astype(np.int64), max(number - 2, 0))
    weights = np.zeros((size, number))
    weights[np.arange(size), first] = 1 - (place - first)
    if number > 1:
        weights[np.arange(size), first + 1] = place - first
    return weights
