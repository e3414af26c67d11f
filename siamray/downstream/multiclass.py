"""Classes, their probabilities and women go in; macro AUC, kappa, macro F1 and their bootstrap come out.

The classes of a macro average are those that the samples hold. A replicate without one of them has no value, as one
class less is another average.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from siamray.downstream.intervals import bootstrap

Floats = NDArray[np.float64]
MulticlassStatistic = Literal["macro_auc", "kappa", "macro_f1"]


def bootstrap_classes(
    kind: MulticlassStatistic,
    truth: ArrayLike,
    probabilities: ArrayLike,
    women: ArrayLike,
    weights: NDArray[np.int64] | Floats,
) -> Floats:
    """Computes a statistic of several classes in every replicate of a bootstrap over women.

    - ``macro_auc``: mean over the classes of the AUC of one class against all others (Provost and Domingos 2001 without
      their weights, scikit-learn's ``roc_auc_score(multi_class="ovr", average="macro")``).
    - ``kappa``: Cohen's kappa with quadratic weights, of the likeliest class; classes are one rank apart.
    - ``macro_f1``: mean over the classes of the F1 of the likeliest class. An answer of a class that no sample holds
      counts as a miss of the sample's own class.

    Args:
        kind: the statistic.
        truth: [n] number of the sample's class, counted from 0 in their order.
        probabilities: [n, K] of every class; a row need not sum to 1.
        women: [n] code of the sample's woman: her column in ``weights``.
        weights: [replicates, number of women], such as from `intervals.women_weights`; a row of ones gives the
            statistic of the samples themselves.

    Returns:
        [replicates] values; NaN where a class that the samples hold is absent from the replicate, where there is one
        class only, or where a probability is NaN.

    Raises:
        ValueError: lengths differ, a class is none of the K, or the statistic is unknown.
    """
    classes = np.asarray(truth, dtype=np.int64)
    scores = np.asarray(probabilities, dtype=np.float64)
    codes = np.asarray(women, dtype=np.int64)
    if scores.ndim != 2 or classes.shape != scores.shape[:1] or codes.shape != classes.shape:
        raise ValueError(f"{classes.size} classes and {codes.size} women, but probabilities of shape {scores.shape}")
    if classes.size and not (classes.min() >= 0 and classes.max() < scores.shape[1]):
        raise ValueError(f"classes must be 0 to {scores.shape[1] - 1}")
    present = np.unique(classes)
    if len(present) < 2 or np.isnan(scores).any():
        return np.full(weights.shape[0], np.nan)
    if kind == "macro_auc":
        areas = [bootstrap("auc", classes == one, scores[:, one], codes, weights) for one in present]
        return np.asarray(np.mean(areas, axis=0))
    confusion = _confusion(classes, scores.argmax(axis=1), codes, scores.shape[1], weights)
    if kind == "kappa":
        return _quadratic_kappa(confusion)
    if kind == "macro_f1":
        return _macro_f1(confusion, present)
    raise ValueError(f"unknown statistic '{kind}'; valid: macro_auc, kappa, macro_f1")


def _confusion(
    truth: NDArray[np.int64],
    answers: NDArray[np.int64],
    women: NDArray[np.int64],
    number: int,
    weights: NDArray[np.int64] | Floats,
) -> Floats:
    """Weight of every true class (axis 1) and answer (axis 2) in every replicate: that of its women, added up."""
    of_women = np.zeros((weights.shape[1], number, number))
    np.add.at(of_women, (women, truth, answers), 1)
    return np.asarray(np.tensordot(weights.astype(np.float64), of_women, axes=1))


def _quadratic_kappa(confusion: Floats) -> Floats:
    ranks = np.arange(confusion.shape[1])
    disagreement = (ranks[:, None] - ranks[None, :]) ** 2
    total = confusion.sum(axis=(1, 2))
    by_chance = np.einsum("ri,rj,ij->r", confusion.sum(axis=2), confusion.sum(axis=1), disagreement)
    seen = np.einsum("rij,ij->r", confusion, disagreement) * total
    # Nothing but one class, answered throughout, leaves no disagreement that chance could make.
    return np.asarray(1 - np.divide(seen, by_chance, out=np.full_like(seen, np.nan), where=by_chance > 0))


def _macro_f1(confusion: Floats, present: NDArray[np.int64]) -> Floats:
    right = np.einsum("rcc->rc", confusion)[:, present]
    true = confusion.sum(axis=2)[:, present]
    answered = confusion.sum(axis=1)[:, present]
    scores = np.divide(2 * right, true + answered, out=np.full_like(right, np.nan), where=true > 0)
    return np.asarray(scores.mean(axis=1))
