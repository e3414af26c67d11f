"""Outcomes of blocks (seed, fold) go in; their mean with its error, interval, tests and reach comes out."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from siamray.downstream.patches import TASK as PATCHES
from siamray.sweeps.contract import POWER

Floats = NDArray[np.float64]
Block = tuple[int, int]

# Metrics are of the order of 1, so that anything below is the rounding of sums and stands for 0.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Outcome:
    """A trial's statistic, its replicates over women [R], the samples it is of, and its values without some women.

    ``left_out`` [G] holds the statistic without one woman (or group of women) at a time; None where nobody asked.
    """

    value: float
    replicates: Floats
    samples: pd.DataFrame
    left_out: Floats | None = None


@dataclass(frozen=True)
class Estimate:
    """A mean over blocks with its standard error (NaN where unknown) and the degrees of freedom of that error.

    ``deviation`` is the standard deviation of what one woman with one seed would tell, with its degrees of freedom.
    """

    mean: float
    error: float
    freedom: float
    deviation: float = float("nan")
    deviation_freedom: float = float("nan")

    def interval(self, confidence: float) -> tuple[float, float]:
        """Gives the interval of Student's t around the mean."""
        # Without any error there may be no degrees of freedom to take a quantile of.
        reach = 0.0 if self.error == 0 else float(stats.t.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return self.mean - reach, self.mean + reach

    def p_value(self) -> float:
        """Tests two-sided whether the mean is 0; NaN for a mean other than 0 whose error vanishes, as nothing tells."""
        if self.error == 0:
            return 1.0 if self.mean == 0 else float("nan")
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.freedom))

    def p_equivalence(self, margin: float) -> float:
        """Tests whether the mean lies within the margin of 0: two one-sided tests, the greater p (Schuirmann 1987).

        Args:
            margin: half of the width of the range that counts as no difference, above 0.

        Returns:
            The p value of the hypothesis that the mean lies at the margin or beyond; NaN without an error.
        """
        if not self.error > 0:
            return float("nan")
        return float(stats.t.sf((margin - abs(self.mean)) / self.error, self.freedom))

    def detectable(self, level: float, power: float = POWER) -> float:
        """Gives the least true difference that the two-sided t test with this error finds with the given power.

        It is the difference whose noncentral t (noncentrality: difference over error) falls beyond the test's critical
        values with that chance. It says what the experiment was able to see, not how likely the difference is that it
        did see, whose "observed power" would say nothing but p over again (Hoenig and Heisey 2001).

        Args:
            level: p value below which a difference is stated.
            power: chance of finding it, above the level.

        Returns:
            The difference, in units of the metric; NaN without an error.
        """
        if not self.error > 0:
            return float("nan")
        critical = float(stats.t.isf(level / 2, self.freedom))
        # SciPy's noncentral t gives NaN for some far arguments, so the normal distribution is averaged over the error.
        shares, weights = _nodes()
        errors = critical * np.sqrt(stats.chi2.ppf(shares, self.freedom) / self.freedom)

        def lacking(noncentrality: float) -> float:
            beyond = special.ndtr(noncentrality - errors) + special.ndtr(-noncentrality - errors)
            return float(weights @ beyond) - power

        # At twice the critical value the test's own error would have to double to hide the difference.
        most = 2 * critical
        while lacking(most) < 0:
            most *= 2
        return float(optimize.brentq(lacking, 0, most)) * self.error

    def effect_size(self) -> float:
        """Standardizes the mean: Hedges' g of paired differences, in deviations of one woman with one seed.

        The mean over ``deviation``, which makes it free of the numbers of women and seeds (Cohen's d_z: Cohen 1988,
        section 2.3.5; the sum of all variances that are drawn anew in the denominator: Westfall, Kenny and Judd 2014),
        times Hedges' (1981) correction Gamma(f/2) / (sqrt(f/2) Gamma((f-1)/2)) for the f degrees of freedom of the
        deviation, without which few seeds make it too large.

        Returns:
            The size; NaN without a deviation or with less than 2 degrees of freedom, where its own spread is boundless.
        """
        half = self.deviation_freedom / 2
        if not self.deviation > 0 or not half >= 1 - ROUNDING:
            return float("nan")
        correction = np.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / np.sqrt(half)
        return float(correction * self.mean / self.deviation)


def estimate(blocks: Mapping[Block, Outcome]) -> Estimate:
    """Averages a statistic over blocks and gives the error that other women and other seeds would make.

    Two variances add up. V_women is that of the mean over blocks in the bootstrap over women, all seeds kept: a woman
    is drawn with all her patches (the cluster bootstrap; Davison and Hinkley 1997, section 3.8) and, as every block
    sees the same draw, with all her seeds. She is in the test set of one fold only, so that folds are no further
    sampling but parts of one sample of women, and their mean is resampled as a whole. V_seeds = s^2 / K is that of the
    mean of K seeds, s^2 being the sample variance (K - 1) of the seeds' means over the folds that they have; where
    seeds have unequal numbers of folds, their shares of the blocks take the place of 1 / K (sum of squares). The
    degrees of freedom are Satterthwaite's (1946): (V_women + V_seeds)^2 / (V_women^2 / (women - 1) + V_seeds^2 / (K -
    1)).

    What a seed does to single women is in both variances (1 / K of its variance each), so that the error is too large
    where this interaction prevails, by at most sqrt(2): it errs on the wide side. So it does where seeds lack folds, as
    folds then differ between the seeds' means. Unseen are the training women, which all trials of a fold share.

    The deviation of one woman with one seed is the root of n^2 / (n - 1) V_women + s^2 for n women: the first term is
    the sample variance of what the women tell (of a mean it is exactly that; of other statistics, that of their
    influence), and its degrees of freedom are Satterthwaite's again. One seed leaves the first term alone.

    Args:
        blocks: (seed, fold) -> outcome; at least one.

    Returns:
        The mean; with one seed the error is that of women only. NaN error for one woman or if no two replicates have a
        value.
    """
    means = pd.Series({block: outcome.value for block, outcome in sorted(blocks.items())})
    replicates = np.mean([blocks[block].replicates for block in means.index], axis=0)
    finite = replicates[~np.isnan(replicates)]
    women = counts(blocks)["women"]
    mean = float(means.mean(skipna=False))
    if women < 2 or finite.size < 2 or np.isnan(mean):
        return Estimate(mean, float("nan"), float("nan"))
    by_seed = means.groupby(level=0)
    shares = by_seed.size() / len(means)
    seeds = len(shares)
    of_women = float(np.var(finite, ddof=1))
    between = float(by_seed.mean().var(ddof=1)) if seeds > 1 else 0.0
    of_seeds = between * float((shares**2).sum())
    error = np.sqrt(of_women + of_seeds)
    if error < ROUNDING:
        return Estimate(mean if abs(mean) > ROUNDING else 0.0, 0.0, float("nan"))
    of_woman = of_women * women**2 / (women - 1)
    return Estimate(
        mean,
        float(error),
        _freedom(of_women, women, of_seeds, seeds),
        float(np.sqrt(of_woman + between)),
        _freedom(of_woman, women, between, seeds),
    )


@functools.cache
def _nodes() -> tuple[Floats, Floats]:
    """Gauss and Legendre's nodes and weights on 0..1; 400 give the power to 1e-5 with any degrees of freedom."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return (nodes + 1) / 2, weights / 2


def _freedom(of_women: float, women: int, of_seeds: float, seeds: int) -> float:
    """Satterthwaite's degrees of freedom of the sum of a variance of women and one of seeds."""
    spread = of_women**2 / (women - 1) + (of_seeds**2 / (seeds - 1) if seeds > 1 else 0.0)
    return float((of_women + of_seeds) ** 2 / spread)


def differences(own: Mapping[Block, Outcome], of_reference: Mapping[Block, Outcome]) -> dict[Block, Outcome]:
    """A variant's outcomes minus the reference's of the same seed and fold, replicate by replicate."""
    return {block: weighted_sum([outcome, of_reference[block]], [1.0, -1.0]) for block, outcome in own.items()}


def weighted_sum(outcomes: Sequence[Outcome], weights: Sequence[float]) -> Outcome:
    """Adds up outcomes of one block, replicate by replicate, woman by woman; the samples are those of the first."""
    parts = list(zip(weights, outcomes, strict=True))
    left_out = [weight * outcome.left_out for weight, outcome in parts if outcome.left_out is not None]
    return Outcome(
        float(sum(weight * outcome.value for weight, outcome in parts)),
        np.sum([weight * outcome.replicates for weight, outcome in parts], axis=0),
        outcomes[0].samples,
        np.sum(left_out, axis=0) if len(left_out) == len(parts) else None,
    )


def counts(blocks: Mapping[Block, Outcome]) -> dict[str, Any]:
    """Seeds, folds, and the women of the folds; of the task patches also its lesion and normal patches, else NA."""
    folds = {fold: outcome.samples.drop_duplicates("sample_id") for (_, fold), outcome in blocks.items()}
    of_patches = all((table.task == PATCHES).all() for table in folds.values())
    labels = [int(label) for table in folds.values() for label in table.label]
    return {
        "seeds": len({seed for seed, _ in blocks}),
        "folds": len(folds),
        "women": len({woman for table in folds.values() for woman in table.woman_id}),
        "lesions": sum(labels) if of_patches else pd.NA,
        "normals": len(labels) - sum(labels) if of_patches else pd.NA,
    }


def holm(p_values: ArrayLike) -> Floats:
    """Corrects the p values of a family by Holm (Scandinavian Journal of Statistics 6:65, 1979).

    Args:
        p_values: [n]; NaN stands for a test that could not be made and is none of the family.

    Returns:
        [n] corrected p values, NaN where there was none.
    """
    given = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(given.shape, np.nan)
    # NaN comes last.
    order = np.argsort(given, kind="stable")[: int((~np.isnan(given)).sum())]
    left = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(left * given[order]), 1)
    return corrected
