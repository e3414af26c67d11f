"""Soft labels: pair distances and what was fitted to a sample of them in, a label w in 0..1 per pair out."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from siamray.config import PretrainingConfig
from siamray.pretraining.mixture import Mixture

Floats = npt.NDArray[np.float64]
Values = TypeVar("Values", Floats, Tensor)

RANK_STEPS = 1000


def rank_quantiles(sample: npt.ArrayLike) -> Floats:
    """Condenses the sampled distances to what a worker needs to rank its own: 1001 evenly spaced quantiles.

    Args:
        sample: [n] distances drawn from all workers; those that are not finite are left out.

    Returns:
        [1001] ascending, or [0] where no distance is finite.
    """
    values = np.asarray(sample, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return np.empty(0)
    return np.quantile(np.sort(values), np.linspace(0, 1, RANK_STEPS + 1))


def rank_labels(distances: npt.ArrayLike, quantiles: Floats, expected_abnormal: float) -> Floats:
    """Labels without a mixture: w = max(0, (r - (1 - 2 rho)) / (2 rho)), r the share of smaller distances (ours).

    r is uniform over the sample, so the mean label is rho; the share 2 rho of the largest distances gets labels that
    rise from 0 to 1. Equal distances get equal ranks, and constant distances the label 0.

    Args:
        distances: [N].
        quantiles: of the sample, as `rank_quantiles` returns them.
        expected_abnormal: rho, the expected share of abnormal pairs.

    Returns:
        [N] in 0..1; 0 where a distance is NaN.
    """
    values = np.asarray(distances, dtype=np.float64)
    if not len(quantiles):
        return np.zeros(values.shape)
    known, first = np.unique(quantiles, return_index=True)
    if len(known) == 1:
        return np.zeros(values.shape)
    rank = np.interp(values, known, first / (len(quantiles) - 1))
    labels = np.clip((rank - (1 - 2 * expected_abnormal)) / (2 * expected_abnormal), 0, 1)
    return np.nan_to_num(labels, nan=0.0)


def soft_labels(distances: npt.ArrayLike, config: PretrainingConfig, fitted: Mixture | Floats | None) -> Floats:
    """Labels of pairs by the configured kind; each depends on its own distance and the fit alone, so workers agree.

    Args:
        distances: [N].
        config: ``labels`` and ``expected_abnormal`` are read.
        fitted: the mixture for ``mixture`` and ``hard``, the sample's `rank_quantiles` for ``rank``.

    Returns:
        [N] in 0..1, 1 = different (one side abnormal); all 0 where the mixture is not usable.

    Raises:
        TypeError: ``fitted`` is not what the kind needs.
    """
    if config.labels == "none":
        return np.zeros(np.shape(distances))
    if config.labels == "rank":
        if not isinstance(fitted, np.ndarray):
            raise TypeError("labels=rank needs the quantiles of the sampled distances")
        return rank_labels(distances, fitted, config.expected_abnormal)
    if not isinstance(fitted, Mixture):
        raise TypeError(f"labels={config.labels} needs a mixture")
    posterior = fitted.posterior(distances)
    if config.labels == "hard":
        return (posterior > 0.5).astype(np.float64)
    return posterior


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
