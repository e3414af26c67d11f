"""Paired differences of a variant from the reference go in; how probable it is that a run improves comes out."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from siamray.sweeps.estimates import ROUNDING, Block, Outcome

Floats = NDArray[np.float64]


class Improvement(NamedTuple):
    """The probability of improvement, 0 to 1, and the ends of its interval."""

    probability: float
    low: float
    high: float


def probability_of_improvement(blocks: Mapping[Block, Outcome], confidence: float) -> Improvement:
    """Estimates the chance that a run of the variant does better than the reference's run of the same seed and fold.

    Agarwal et al. (2021, section 4.3) average over tasks how often a run of one algorithm beats one of another, ties
    counting half. Here runs are paired, as both have drawn the same numbers from the seed and are tested on the same
    women: the probability is the share of blocks (seed, fold) in which the variant is above, ties half.

    Few seeds say little about it: 3 wins of 3 are no certainty, which a percentile bootstrap over the seeds would claim
    (all its replicates win). So the interval is Clopper and Pearson's (1934) over seeds, K x share wins of K, with the
    women drawn anew: its two Beta distributions are averaged over the shares of the replicates of the bootstrap over
    women, and the ends are the tails' quantiles of these averages. It has no less than its confidence where seeds
    decide, and is wide where the replicates disagree on the winner. Folds of a seed count as parts of one draw.

    Args:
        blocks: (seed, fold) -> the paired difference, variant minus reference.
        confidence: coverage of the interval.

    Returns:
        Probability and interval; NaN with one seed, which says nothing of the luck of seeds, or without a value.
    """
    order = sorted(blocks)
    by_seed = pd.Series([seed for seed, _ in order]).value_counts(normalize=True)
    share = float(np.mean([_won(np.array([blocks[block].value]))[0] for block in order]))
    if len(by_seed) < 2 or np.isnan(share):
        return Improvement(float("nan"), float("nan"), float("nan"))
    replicates = np.mean([_won(blocks[block].replicates) for block in order], axis=0)
    found, times = np.unique(replicates[~np.isnan(replicates)].round(12), return_counts=True)
    if not found.size:
        return Improvement(share, float("nan"), float("nan"))
    # As many seeds of equal weight as tell what these do; K where all have the same folds (Kish 1965).
    seeds = 1 / float((by_seed**2).sum())
    tail = (1 - confidence) / 2
    weights = times / times.sum()
    low = _quantile(tail, seeds * found, seeds * (1 - found) + 1, weights)
    high = _quantile(1 - tail, seeds * found + 1, seeds * (1 - found), weights)
    return Improvement(share, low, high)


def _won(differences: Floats) -> Floats:
    """1 for a win, a half for a tie, 0 for a loss; NaN for NaN."""
    ties = np.abs(differences) <= ROUNDING
    return np.where(np.isnan(differences), np.nan, np.where(ties, 0.5, differences > 0))


def _quantile(share: float, alpha: Floats, beta: Floats, weights: Floats) -> float:
    """The quantile of a mixture of Beta distributions; one without wins lies at 0, one without losses at 1."""

    def reached(x: float) -> float:
        inner = stats.beta.cdf(x, np.maximum(alpha, ROUNDING), np.maximum(beta, ROUNDING))
        return float(weights @ np.where(alpha <= 0, 1.0, np.where(beta <= 0, float(x >= 1), inner))) - share

    if reached(0.0) >= 0:
        return 0.0
    if reached(1.0 - ROUNDING) < 0:
        return 1.0
    return float(optimize.brentq(reached, 0.0, 1.0 - ROUNDING))
