"""Labels, scores and the women they belong to go in; AUC, average precision and their bootstrap over women come out."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Statistic = Literal["auc", "ap"]

# Weights of replicates x samples held at once: 2 million doubles are 16 MB, which stays near the processor's cache.
CHUNK_ELEMENTS = 2_000_000


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Computes the area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Args:
        labels: [n] of 0 and 1.
        scores: [n], higher = more positive.
        weights: [n] not negative, or None for 1 each.

    Returns:
        The area; NaN where a class has no weight or a score is NaN.
    """
    return _single("auc", labels, scores, weights)


def average_precision(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Computes average precision, sum over distinct thresholds of (gain of recall) x precision, as scikit-learn does.

    Args:
        labels: [n] of 0 and 1.
        scores: [n], higher = more positive.
        weights: [n] not negative, or None for 1 each.

    Returns:
        The average precision; NaN where a class has no weight (no negative makes it trivially 1) or a score is NaN.
    """
    return _single("ap", labels, scores, weights)


def women_weights(n_women: int, replicates: int, seed: int) -> NDArray[np.int64]:
    """Draws the bootstrap over women: how often each woman is in each replicate.

    A woman is drawn with all her patches, as patches of one woman are not independent (the cluster bootstrap; Davison
    and Hinkley 1997, section 3.8).

    Args:
        n_women: number of women, each drawn with the same chance.
        replicates: number of replicates.
        seed: seed of the draw.

    Returns:
        [replicates, n_women] counts; each row sums to n_women.

    Raises:
        ValueError: there is no woman.
    """
    if n_women < 1:
        raise ValueError("a bootstrap over women needs at least one woman")
    generator = np.random.default_rng([seed, 0])
    return generator.multinomial(n_women, np.full(n_women, 1.0 / n_women), size=replicates).astype(np.int64)


def bootstrap(
    kind: Statistic, labels: ArrayLike, scores: ArrayLike, women: ArrayLike, weights: NDArray[np.int64] | Floats
) -> Floats:
    """Computes a statistic in every replicate of a bootstrap over women.

    The samples are sorted once; a replicate only changes their weights, so that its statistic is a cumulative sum.

    Args:
        kind: "auc" or "ap".
        labels: [n] of 0 and 1.
        scores: [n], higher = more positive.
        women: [n] code of the sample's woman: her column in ``weights``.
        weights: [replicates, number of women] from `women_weights`.

    Returns:
        [replicates] values; NaN in replicates where a class is absent: ``np.isnan(...).sum()`` counts them.

    Raises:
        ValueError: lengths differ, a label is not 0 or 1, or the statistic is unknown.
    """
    labels, scores = _checked(labels, scores)
    codes = np.asarray(women, dtype=np.int64)
    if codes.shape != labels.shape:
        raise ValueError(f"{labels.size} labels but {codes.size} women")
    replicates = weights.shape[0]
    values = np.full(replicates, np.nan)
    if labels.size == 0 or np.isnan(scores).any():
        return values
    statistic = _statistic(kind)
    order, ends = _descending(scores)
    positive = labels[order]
    by_sample = codes[order]
    rows = max(1, CHUNK_ELEMENTS // labels.size)
    for start in range(0, replicates, rows):
        chunk = weights[start : start + rows].astype(np.float64)[:, by_sample]
        values[start : start + rows] = statistic(positive, chunk, ends)
    return values


def interval(values: ArrayLike, confidence: float) -> tuple[float, float]:
    """Gives the percentile interval of bootstrap replicates.

    The simplest interval that stays within a metric's range and is carried along by monotone transforms (Efron and
    Tibshirani 1993, chapter 13); it corrects neither bias nor skew. NaN replicates are left out: where there are any,
    the interval holds given that both classes were drawn.

    Args:
        values: [replicates].
        confidence: coverage, such as 0.95.

    Returns:
        Low and high end; both NaN where no replicate is finite.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[~np.isnan(finite)]
    if finite.size == 0:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def _single(kind: Statistic, labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None) -> float:
    labels, scores = _checked(labels, scores)
    given = np.ones(labels.size) if weights is None else np.asarray(weights, dtype=np.float64)
    if given.shape != labels.shape:
        raise ValueError(f"{labels.size} labels but {given.size} weights")
    if labels.size == 0 or np.isnan(scores).any():
        return float("nan")
    order, ends = _descending(scores)
    return float(_statistic(kind)(labels[order], given[order][None, :], ends)[0])


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    y = np.asarray(labels, dtype=np.float64)
    s = np.asarray(scores, dtype=np.float64)
    if y.ndim != 1 or y.shape != s.shape:
        raise ValueError(f"labels and scores must be of one length, not of shapes {y.shape} and {s.shape}")
    if not np.isin(y, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1")
    return y, s


def _descending(scores: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Orders samples by falling score; the second array holds the last position of each run of equal scores."""
    order = np.argsort(-scores, kind="stable")
    last_of_run = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    return order, last_of_run.astype(np.intp)


def _statistic(kind: str) -> Callable[[Floats, Floats, NDArray[np.intp]], Floats]:
    known = {"auc": _aucs, "ap": _average_precisions}
    if kind not in known:
        raise ValueError(f"unknown statistic '{kind}'; valid: {', '.join(known)}")
    return known[kind]


def _counts(positive: Floats, weights: Floats, ends: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Weights of the true and the false positives at every distinct threshold, [replicates, thresholds] each."""
    true = np.cumsum(weights * positive, axis=1)
    false = np.cumsum(weights * (1 - positive), axis=1)
    if ends.size < positive.size:
        return true[:, ends], false[:, ends]
    return true, false


def _aucs(positive: Floats, weights: Floats, ends: NDArray[np.intp]) -> Floats:
    true, false = _counts(positive, weights, ends)
    # Trapezoids between thresholds, the first of them from the origin.
    area = true[:, 0] * false[:, 0] / 2
    if ends.size > 1:
        area = area + np.einsum("rt,rt->r", np.diff(false, axis=1), (true[:, 1:] + true[:, :-1]) / 2)
    return _ratio(area, true[:, -1] * false[:, -1])


def _average_precisions(positive: Floats, weights: Floats, ends: NDArray[np.intp]) -> Floats:
    true, false = _counts(positive, weights, ends)
    flagged = true + false
    precision = np.divide(true, flagged, out=np.zeros_like(true), where=flagged > 0)
    area = true[:, 0] * precision[:, 0]
    if ends.size > 1:
        area = area + np.einsum("rt,rt->r", np.diff(true, axis=1), precision[:, 1:])
    both_present = (true[:, -1] > 0) & (false[:, -1] > 0)
    return _ratio(area, np.where(both_present, true[:, -1], 0.0))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
