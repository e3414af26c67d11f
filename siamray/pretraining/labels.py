"""Soft labels: pair distances and what was fitted to all of them in, a label w in 0..1 per pair out."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from torch import Tensor

from siamray.config import PretrainingConfig
from siamray.pretraining.histogram import Histogram
from siamray.pretraining.mixture import Mixture

Floats = npt.NDArray[np.float64]
Values = TypeVar("Values", Floats, Tensor)


def rank_labels(distances: npt.ArrayLike, counted: Histogram, expected_abnormal: float) -> Floats:
    """Labels without a mixture: w = max(0, (r - (1 - 2 rho)) / (2 rho)), r the share of smaller distances (ours).

    r is uniform over all pairs, so the mean label is rho; the share 2 rho of the largest distances gets labels that
    rise from 0 to 1. Equal distances get equal ranks, and constant distances the label 0.

    Args:
        distances: [N].
        counted: all workers' distances.
        expected_abnormal: rho, the expected share of abnormal pairs.

    Returns:
        [N] in 0..1; 0 where a distance is NaN.
    """
    labels = np.clip((counted.rank(distances) - (1 - 2 * expected_abnormal)) / (2 * expected_abnormal), 0, 1)
    return np.nan_to_num(labels, nan=0.0)


def sharpened(labels: npt.ArrayLike, temperature: float) -> Floats:
    """Labels closer to 0 and 1: w^(1/T) / (w^(1/T) + (1-w)^(1/T)); DivideMix (Li, Socher, Hoi 2020) sharpens so.

    Args:
        labels: [N] in 0..1.
        temperature: T; 1 leaves the labels as they are, below 1 they are sharpened.
    """
    values = np.asarray(labels, dtype=np.float64)
    if temperature == 1:
        return values
    with np.errstate(divide="ignore"):
        return np.asarray(expit((np.log(values) - np.log1p(-values)) / temperature))


def soft_labels(
    distances: npt.ArrayLike, config: PretrainingConfig, fitted: Mixture | Histogram | None,
    refined: Sequence[npt.ArrayLike] = (),
) -> Floats:  # fmt: skip
    """Labels of pairs by the configured kind; each depends on its own distances and the fit alone, so workers agree.

    Args:
        distances: [N].
        config: ``labels``, ``label_temperature`` and ``expected_abnormal`` are read.
        fitted: the mixture for ``mixture`` and ``hard``, the counts of all distances for ``rank``.
        refined: distances [N] of augmented views: the label is the mean over them and the plain one, and then hardened
            or sharpened (co-refinement: Li, Socher, Hoi 2020).

    Returns:
        [N] in 0..1, 1 = different (one side abnormal); all 0 where the mixture is not usable.

    Raises:
        TypeError: ``fitted`` is not what the kind needs.
    """
    if config.labels == "none":
        return np.zeros(np.shape(distances))
    if config.labels == "rank":
        if not isinstance(fitted, Histogram):
            raise TypeError("labels=rank needs the counts of all distances")
        ranks = [rank_labels(values, fitted, config.expected_abnormal) for values in (distances, *refined)]
        return np.asarray(np.mean(ranks, axis=0))
    if not isinstance(fitted, Mixture):
        raise TypeError(f"labels={config.labels} needs a mixture")
    posterior = np.mean([fitted.posterior(values) for values in (distances, *refined)], axis=0)
    if config.labels == "hard":
        return np.asarray((posterior > 0.5).astype(np.float64))
    return sharpened(posterior, config.label_temperature)


def exchange(own: Values, peer: Values, kind: str) -> Values:
    """Whose labels train a network: DivideMix's co-divide (Li, Socher, Hoi 2020) where it is the peer's.

    Args:
        own: [N] labels from the network's own distances.
        peer: [N] labels of the same pairs from the other network's distances.
        kind: ``peer``, ``self`` or ``mean``.

    Returns:
        [N].

    Raises:
        ValueError: the kind is none of them.
    """
    if kind == "peer":
        return peer
    if kind == "self":
        return own
    if kind == "mean":
        return (own + peer) / 2
    raise ValueError(f"label_exchange must be peer, self or mean, not {kind}")
