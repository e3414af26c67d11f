"""A statistic, its bootstrap replicates and its values without each woman go in; its BCa interval comes out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]

LEAST_WOMEN = 20
"""Women below whom no BCa interval is given: its end then often lies beyond the replicates (see `expanded`)."""


class Interval(NamedTuple):
    """The ends of an interval, NaN where it is undefined, and then the reason why."""

    low: float
    high: float
    undefined: str = ""


def bca_interval(value: float, replicates: Floats, left_out: Floats, women: int, confidence: float) -> Interval:
    """Gives the bias-corrected and accelerated bootstrap interval (Efron 1987; Efron and Tibshirani 1993, chapter 14).

    Percentiles of the replicates that allow for the median bias of the statistic (z0, from the share of the replicates
    below the value, ties half) and for the change of its error with its value (a, from the skewness of the jackknife:
    sum u^3 / (6 (sum u^2)^1.5) with u the mean of the values left out minus each). It stays within the metric's range
    and is as skewed as the metric is near its end.

    Simulated (600 times; an AUC of about .87 of women of 6 patches, 400 replicates, 95 % `expanded`): how often the
    interval of the AUC, and that of the difference of two, held the truth, beside Student's t of the same replicates;
    and how often BCa was defined for the AUC.

    =====  =========  =======  ==============  ============  =======
    women  value BCa  value t  difference BCa  difference t  defined
    =====  =========  =======  ==============  ============  =======
       24       .923     .902            .932          .963      .90
       40       .935     .930            .935          .958      .97
       80       .947     .937            .915          .935     1.00
    =====  =========  =======  ==============  ============  =======

    Intervals by t lay above the AUC 5 to 19 times as often as below it, those of BCa twice at most. Not `expanded`,
    the difference's BCa interval held it .916, .922 and .907 times.

    Args:
        value: the statistic of the whole sample.
        replicates: [R] of the bootstrap over women.
        left_out: [G] the statistic without each woman, or each group of women of equal size.
        women: number of women.
        confidence: coverage, such as 0.95.

    Returns:
        The interval; undefined with less than LEAST_WOMEN women, where a replicate or a jackknife value has no value,
        where all of them are equal, or where an end would lie beyond the replicates.
    """
    undefined = _undefined(value, replicates, left_out, women)
    if undefined:
        return Interval(float("nan"), float("nan"), undefined)
    below = float(np.mean(replicates < value) + np.mean(replicates <= value)) / 2
    bias = float(special.ndtri(below))
    influence = left_out.mean() - left_out
    acceleration = float((influence**3).sum() / (6 * (influence**2).sum() ** 1.5))
    ends = bias + special.ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    shares = special.ndtr(bias + ends / (1 - acceleration * ends))
    outermost = 1 / replicates.size
    if (acceleration * ends >= 1).any() or not outermost <= shares[0] < shares[1] <= 1 - outermost:
        return Interval(float("nan"), float("nan"), "an end lies beyond the replicates")
    low, high = np.quantile(replicates, shares)
    return Interval(float(low), float(high))


def expanded(confidence: float, women: int) -> float:
    """Widens the confidence that a bootstrap interval is asked for, so that it covers what it says with few women.

    Bootstrap percentiles take the spread of the sample for the population's and the normal distribution for Student's
    t. Tails of Phi(-sqrt(n / (n - 1)) t(n - 1)) in place of those asked for mend both for a mean (Hesterberg 2015,
    "expanded percentile interval").

    Args:
        confidence: coverage that the interval shall have.
        women: number of women, at least 2.

    Returns:
        The confidence to ask for.
    """
    reach = np.sqrt(women / (women - 1)) * stats.t.isf((1 - confidence) / 2, women - 1)
    return float(1 - 2 * stats.norm.sf(reach))


def _undefined(value: float, replicates: Floats, left_out: Floats, women: int) -> str:
    if np.isnan(value):
        return "the statistic has no value"
    if women < LEAST_WOMEN:
        return f"less than {LEAST_WOMEN} women"
    if np.isnan(replicates).any():
        return "replicates lack a class"
    if np.isnan(left_out).any():
        return "one woman is all of a class"
    if np.ptp(replicates) == 0 or np.ptp(left_out) == 0:
        return "all replicates are equal"
    if not 0 < np.mean(replicates < value) + np.mean(replicates <= value) < 2:
        return "all replicates lie on one side of the value"
    return ""
