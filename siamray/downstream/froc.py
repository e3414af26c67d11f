"""Candidates and lesions of women go in; which hit, the FROC curve and the pixels' AUROC come out, with intervals."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from siamray.config import DetectionConfig
from siamray.downstream.intervals import CHUNK_ELEMENTS

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FrocStatistic = Literal["froc_mean", "froc_0.25", "froc_0.5", "froc_1", "froc_2"]

# Tasks of the predictions that a FROC curve follows from; siamray.downstream.detection says what their rows are.
CANDIDATE, LESION, IMAGE = "detection_candidate", "detection_lesion", "detection_image"
# False positives per image of the statistics: what screening literature gives, and the default of the option.
RATES = (0.25, 0.5, 1.0, 2.0)


def hits(candidates: ArrayLike, lesions: ArrayLike, spacing_mm: float, config: DetectionConfig) -> Bools:
    """Says which candidates hit which lesions of the same side, by downstream.detection.hit.

    ``distance`` is the rule of the DBTex challenge: the centres lie no further from
    each other than half the diagonal of the lesion's box, or than hit_mm, whichever is larger.

    Args:
        candidates: [n, 4] boxes row_min, col_min, row_max, col_max in pixels, half open.
        lesions: [m, 4] boxes.
        spacing_mm: pixel spacing in mm.
        config: hit, hit_mm, hit_overlap.

    Returns:
        [n, m].
    """
    ours = np.asarray(candidates, dtype=np.float64).reshape(-1, 1, 4)
    marked = np.asarray(lesions, dtype=np.float64).reshape(1, -1, 4)
    centre, middle = ((boxes[..., :2] + boxes[..., 2:]) / 2 for boxes in (ours, marked))
    if config.hit == "centre":
        inside = (centre >= marked[..., :2]) & (centre < marked[..., 2:])
        return np.asarray(inside.all(axis=-1))
    if config.hit == "distance":
        diagonal = np.linalg.norm(marked[..., 2:] - marked[..., :2], axis=-1)
        reach = np.maximum(diagonal / 2, config.hit_mm / spacing_mm)
        return np.asarray(np.linalg.norm(centre - middle, axis=-1) <= reach)
    common = np.clip(np.minimum(ours[..., 2:], marked[..., 2:]) - np.maximum(ours[..., :2], marked[..., :2]), 0, None)
    shared = common.prod(axis=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (ours, marked)]
    return np.asarray(shared / (areas[0] + areas[1] - shared) >= config.hit_overlap)


def sensitivities(
    lesions: ArrayLike,
    lesion_women: ArrayLike,
    false_positives: ArrayLike,
    false_women: ArrayLike,
    images: ArrayLike,
    rates: Sequence[float],
    weights: NDArray[np.integer],
) -> Floats:
    """Computes the share of lesions found at rates of false positives per image, in every replicate of a bootstrap.

    A threshold finds the lesions and the false positives at or above it. Of all thresholds with at most the allowed
    false positives per image the lowest is taken; nothing is interpolated.

    Args:
        lesions: [n] score of the best candidate that hits each lesion; -inf where none does.
        lesion_women: [n] code of each lesion's woman: her column of ``weights``.
        false_positives: [m] scores of the candidates that hit no lesion.
        false_women: [m] code of each one's woman.
        images: [number of women] images of each woman on which false positives count.
        rates: allowed false positives per image.
        weights: [replicates, number of women] how often each woman is drawn.

    Returns:
        [replicates, rates]; NaN where no lesion or no image is drawn.
    """
    found, false = np.asarray(lesions, dtype=np.float64), np.asarray(false_positives, dtype=np.float64)
    order = np.argsort(-false, kind="stable")
    false, codes = false[order], np.asarray(false_women, dtype=np.int64)[order]
    of_lesion = np.asarray(lesion_women, dtype=np.int64)
    # A threshold takes all equal scores or none: the end of each run of them, after no false positive at all.
    ends = np.flatnonzero(np.append(np.diff(false) != 0, True)) if false.size else np.empty(0, dtype=np.int64)
    beyond = np.append(false[np.append(0, ends + 1)[:-1]], -np.inf) if false.size else np.array([-np.inf])
    # beyond[k]: the highest false positive not allowed once k runs are; lesions above it are found.
    is_found = (found[None, :] > beyond[:, None]).astype(np.float64)
    values = np.full((len(weights), len(rates)), np.nan)
    rows = max(1, CHUNK_ELEMENTS // max(1, false.size, found.size))
    for start in range(0, len(weights), rows):
        drawn = weights[start : start + rows].astype(np.float64)
        number = drawn @ np.asarray(images, dtype=np.float64)
        of_found = drawn[:, of_lesion] if found.size else np.zeros((len(drawn), 0))
        total = of_found.sum(axis=1)
        counts = np.cumsum(drawn[:, codes], axis=1)[:, ends] if false.size else np.zeros((len(drawn), 0))
        defined = (total > 0) & (number > 0)
        for place, rate in enumerate(rates):
            runs = (counts <= rate * number[:, None] * (1 + 1e-12)).sum(axis=1)
            hit = (of_found * is_found[runs]).sum(axis=1)
            shares = np.divide(hit, total, out=np.full(len(drawn), np.nan), where=defined)
            values[start : start + rows, place] = shares
    return values


def froc(rows: pd.DataFrame, women: NDArray[np.intp], rates: Sequence[float], weights: NDArray[np.integer]) -> Floats:
    """Computes the sensitivities of one score's predictions at rates of false positives per image.

    Args:
        rows: predictions of CANDIDATE, LESION and IMAGE, of one score and split.
        women: [rows] code of each row's woman: her column of ``weights``.
        rates: allowed false positives per image.
        weights: [replicates, number of women].

    Returns:
        [replicates, rates]; NaN where no lesion or no image is drawn.
    """
    lesions, images = (rows.task.eq(task).to_numpy() for task in (LESION, IMAGE))
    places = rows.entry_id.astype(str) + "_" + rows.side.astype(str)
    false = (rows.task.eq(CANDIDATE) & rows.label.eq(0) & places.isin(set(places[images]))).to_numpy()
    return sensitivities(
        rows.value[lesions].fillna(-np.inf),
        women[lesions],
        rows.value[false],
        women[false],
        np.bincount(women[images], minlength=weights.shape[1]),
        rates,
        weights,
    )


def froc_statistic(
    kind: FrocStatistic, rows: pd.DataFrame, women: NDArray[np.intp], weights: NDArray[np.integer]
) -> Floats:
    """Computes one sensitivity, or for froc_mean the mean of those at RATES, in every replicate; see `froc`."""
    rates = RATES if kind == "froc_mean" else (float(kind.removeprefix("froc_")),)
    return np.asarray(froc(rows, women, rates, weights).mean(axis=1))


def binned_auc(positive: ArrayLike, negative: ArrayLike, weights: NDArray[np.integer]) -> Floats:
    """Computes the area under the ROC curve of samples counted in bins of rising score, in every replicate.

    Samples of one bin count as ties. Pixels are too many to be sorted and drawn one by one.

    Args:
        positive: [number of women, bins] counts of positive samples.
        negative: [number of women, bins] counts of negative samples.
        weights: [replicates, number of women].

    Returns:
        [replicates]; NaN where a class is not drawn.
    """
    drawn = weights.astype(np.float64)
    true, false = (drawn @ np.asarray(counts, dtype=np.float64) for counts in (positive, negative))
    below = np.cumsum(false, axis=1) - false
    area = (true * (below + false / 2)).sum(axis=1)
    total = true.sum(axis=1) * false.sum(axis=1)
    return np.asarray(np.divide(area, total, out=np.full(len(drawn), np.nan), where=total > 0))
