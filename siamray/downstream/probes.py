"""Frozen features and labels of training patches go in; scores of other patches by simple classifiers come out."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from siamray.config import ProbeConfig
from siamray.downstream.intervals import auc

Floats = NDArray[np.float64]

ITERATIONS = 2000
QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class LinearProbe:
    """What a linear probe answers: log-odds of "abnormal" [n] of validation and test samples, and how it came about.

    ``strength`` is the chosen C (NaN where no probe could be trained), ``validation_auc`` what each C reached, and
    ``note`` says what a reader must know: empty, or why a fallback was taken.
    """

    validation_scores: Floats
    test_scores: Floats
    strength: float
    validation_auc: dict[float, float]
    note: str


@dataclass(frozen=True)
class NeighbourVotes:
    """Weighted share [n] of the nearest training samples that are abnormal, and how many neighbours voted."""

    scores: Floats
    neighbours: int


def linear_probe(
    train_x: ArrayLike,
    train_y: ArrayLike,
    validation_x: ArrayLike,
    validation_y: ArrayLike,
    test_x: ArrayLike,
    config: ProbeConfig,
) -> LinearProbe:
    """Trains logistic regressions on standardized features; validation AUC chooses C, the smaller one on a tie.

    A class that is absent from training leaves nothing to learn: all scores are NaN, with the reason in ``note``. A
    class absent from validation leaves nothing to choose by: the middle one of the strengths is taken.

    Args:
        train_x: [n, F] features; their mean and deviation standardize all features.
        train_y: [n] of 0 and 1.
        validation_x: [v, F] features.
        validation_y: [v] of 0 and 1.
        test_x: [t, F] features; nothing is chosen by them.
        config: the strengths C that are tried.

    Returns:
        Scores of the chosen probe.

    Raises:
        ValueError: a feature is not finite (its set, row and column are named), or lengths differ.
    """
    train, validation, test = (
        _features(name, x) for name, x in (("training", train_x), ("validation", validation_x), ("test", test_x))
    )
    labels, chosen_by = _labels("training", train_y, len(train)), _labels("validation", validation_y, len(validation))
    if len(np.unique(labels)) < 2:
        nothing = (np.full(len(validation), np.nan), np.full(len(test), np.nan))
        return LinearProbe(*nothing, float("nan"), {}, f"no probe: training has {_classes(labels)} only")
    scaler = StandardScaler().fit(train)
    train, validation, test = (scaler.transform(x) if len(x) else x for x in (train, validation, test))
    strengths = sorted(config.strengths)
    fits = [_fit(train, labels, strength) for strength in strengths]
    answers = [model.decision_function(validation) if len(validation) else np.empty(0) for model, _ in fits]
    reached = [auc(chosen_by, answer) for answer in answers]
    note = ""
    if np.isnan(reached).any():
        best = (len(strengths) - 1) // 2
        note = f"C={strengths[best]:g} not chosen: validation has {_classes(chosen_by)} only"
    else:
        best = int(np.argmax(reached))  # the first, so the smaller C, on a tie
    model, converged = fits[best]
    if not converged:
        note = f"{note}; " * bool(note) + f"logistic regression not converged in {ITERATIONS} iterations"
    return LinearProbe(
        validation_scores=answers[best],
        test_scores=model.decision_function(test) if len(test) else np.empty(0),
        strength=strengths[best],
        validation_auc=dict(zip(strengths, reached, strict=True)),
        note=note,
    )


def knn_scores(train_x: ArrayLike, train_y: ArrayLike, x: ArrayLike, k: int, temperature: float) -> NeighbourVotes:
    """Lets the k nearest training samples by cosine vote with weight exp(cosine / temperature).

    The votes are those of Wu et al. 2018 (Unsupervised Feature Learning via Non-Parametric Instance Discrimination),
    divided by the sum of the weights. Of equally near samples the one that comes first in training votes.

    Args:
        train_x: [n, F] features.
        train_y: [n] of 0 and 1.
        x: [m, F] features to score.
        k: number of neighbours; capped to n, see ``neighbours`` of what is returned.
        temperature: temperature of the votes.

    Returns:
        Scores [m] in 0..1, NaN where training is empty, and the number of neighbours that voted.

    Raises:
        ValueError: a feature is not finite, lengths differ, or k or temperature is not positive.
    """
    if k < 1 or temperature <= 0:
        raise ValueError(f"k and temperature must be positive, not {k} and {temperature}")
    train, queries = _unit(_features("training", train_x)), _unit(_features("scored", x))
    labels = _labels("training", train_y, len(train))
    neighbours = min(k, len(train))
    scores = np.full(len(queries), np.nan)
    if neighbours == 0:
        return NeighbourVotes(scores, 0)
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        cosine = queries[start : start + QUERIES_AT_ONCE] @ train.T
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :neighbours]
        similarity = np.take_along_axis(cosine, nearest, axis=1)
        # The nearest one's weight is made 1: the shares stay the same, and no small temperature overflows.
        weight = np.exp((similarity - similarity[:, :1]) / temperature)
        scores[start : start + QUERIES_AT_ONCE] = (weight * labels[nearest]).sum(axis=1) / weight.sum(axis=1)
    return NeighbourVotes(scores, neighbours)


def _fit(x: Floats, y: NDArray[np.int64], strength: float) -> tuple[LogisticRegression, bool]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ConvergenceWarning)
        # Newton steps: a few exact ones where lbfgs takes hundreds, and stops short of the optimum for weak penalties.
        model = LogisticRegression(C=strength, solver="newton-cholesky", max_iter=ITERATIONS).fit(x, y)
    return model, not any(issubclass(warning.category, ConvergenceWarning) for warning in seen)


def _features(name: str, x: ArrayLike) -> Floats:
    features = np.asarray(x, dtype=np.float64)
    if features.ndim != 2:
        raise ValueError(f"{name} features must be [samples, features], not of shape {features.shape}")
    bad = np.argwhere(~np.isfinite(features))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{name} features are not finite: {len(bad)} of {features.size} values in {len(np.unique(bad[:, 0]))} "
            f"samples, first sample {row}, feature {column}: {features[row, column]}"
        )
    return features


def _labels(name: str, y: ArrayLike, length: int) -> NDArray[np.int64]:
    labels = np.asarray(y, dtype=np.int64)
    if labels.shape != (length,):
        raise ValueError(f"{name}: {length} samples but labels of shape {labels.shape}")
    return labels


def _classes(labels: NDArray[np.int64]) -> str:
    return {(): "no sample", (0,): "normal samples", (1,): "abnormal samples"}[tuple(np.unique(labels).tolist())]


def _unit(x: Floats) -> Floats:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    unit: Floats = np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
    return unit
