"""The mixture: counts of pair distances in, a Gaussian mixture and its monotone posterior out.

The soft label of a pair is the posterior of the component with the highest mean (DivideMix, Li, Socher, Hoi 2020, does
this on losses). Guards, each of them ours: the posterior is made monotone in the distance, the fit has several seeded
starts, and a mixture that does not separate gives no labels at all.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from siamray.config import MixtureConfig
from siamray.pretraining.expectation_maximisation import Anchors, Fit, Scale, likeliest
from siamray.pretraining.histogram import CHUNK, Histogram

Floats = npt.NDArray[np.float64]

# Share of distances that may be NaN or infinite before none is trusted.
TOLERATED_NOT_FINITE = 0.01
LEAST_PER_COMPONENT = 10
MOST_COMPONENTS = 5
# The posterior is looked up in an evenly spaced table of this many cells where that is as exact.
TABLE_CELLS = 1 << 16
# The grid of the posterior: neighbouring values differ by less than this wherever doubles allow it.
GRID_STEP = 5e-4


@dataclass(frozen=True)
class Mixture:
    """A mixture of normals fitted to pair distances, components in ascending order of their means.

    Attributes:
        weights: share of each component; a single normal describes distances no mixture was fitted to.
        means: in units of the distance.
        deviations: standard deviations, in units of the distance.
        separation: Ashman's D between the top component and the others pooled as one normal.
        bic_gain: BIC of one normal minus BIC of the mixture; above 0 the mixture describes the distances better.
        log_likelihood: mean log likelihood per distance, in units of the distance.
        converged: whether the fit reached its tolerance.
        usable: whether the posterior may be used as a label; if not it is 0 everywhere.
        reason: why it is not usable, else empty.
        count: number of distances fitted to.
        dropped: number of distances that were NaN or infinite and were left out.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    separation: float
    bic_gain: float
    log_likelihood: float
    converged: bool
    usable: bool
    reason: str
    count: int = 0
    dropped: int = 0

    def posterior(self, distances: npt.ArrayLike) -> Floats:
        """Probability that a pair belongs to the top component, made non-decreasing in the distance.

        With the mean of the other components as anchor, the posterior is replaced by its running maximum upward from
        the anchor and by its running minimum downward from it. This is evaluated on a grid that depends on the mixture
        alone, so each value is independent of the others; beyond the grid it is held constant.

        Args:
            distances: [n] in any shape.

        Returns:
            The same shape, in 0..1; 0 for NaN, and everywhere if the mixture is not usable.
        """
        values = np.asarray(distances)
        result = np.zeros(values.shape)
        if not self.usable:
            return result
        flat, out = values.reshape(-1), result.reshape(-1)
        table = self._table
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            out[start : start + CHUNK] = _interpolated(part, *self._grid) if table is None else _looked_up(part, *table)
        return result

    def raw_posterior(self, distances: npt.ArrayLike) -> Floats:
        """Probability of the top component as Bayes' rule gives it, monotone or not.

        Args:
            distances: [n].

        Returns:
            [n] in 0..1.
        """
        logs = self._log_joint(distances)
        result: Floats = np.exp(logs[..., -1] - logsumexp(logs, axis=-1))
        return result

    def density(self, x: npt.ArrayLike) -> Floats:
        """Weighted density of each component, for a picture over the histogram of distances.

        Args:
            x: [n] distances.

        Returns:
            [components, n] per unit of distance; their sum is the mixture's. 0 for constant distances.
        """
        if min(self.deviations) <= 0:
            return np.zeros((len(self.weights), *np.shape(x)))
        return np.moveaxis(np.exp(self._log_joint(x)), -1, 0)

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold: lists, numbers, words; a number that is not finite becomes None."""

        def plain(value: Any) -> Any:
            if isinstance(value, tuple):
                return [plain(item) for item in value]
            return None if isinstance(value, float) and not np.isfinite(value) else value

        return {name: plain(value) for name, value in asdict(self).items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Mixture":
        """The mixture that `to_dict` wrote.

        Args:
            values: its fields.
        """
        numbers = dict(values)
        for name in ("weights", "means", "deviations"):
            numbers[name] = tuple(_number(value) for value in numbers[name])
        for name in ("separation", "bic_gain", "log_likelihood"):
            numbers[name] = _number(numbers[name])
        return Mixture(**numbers)

    def _log_joint(self, x: npt.ArrayLike) -> Floats:
        """Log of weight times normal density, [..., components]."""
        means, deviations = np.asarray(self.means), np.asarray(self.deviations)
        scores = (np.asarray(x, dtype=np.float64)[..., None] - means) / deviations
        with np.errstate(divide="ignore"):
            logs = np.log(np.asarray(self.weights))
        result: Floats = logs - np.log(deviations) - 0.5 * np.log(2 * np.pi) - 0.5 * scores**2
        return result

    @cached_property
    def _grid(self) -> tuple[Floats, Floats]:
        """Ascending distances and the monotone posterior there, fine where the posterior is steep."""
        means, deviations = np.asarray(self.means), np.asarray(self.deviations)
        anchor = pooled_rest(self)[0]
        around = means[:, None] + deviations[:, None] * np.linspace(-10, 10, 801)
        low, high = around.min(), around.max()
        # Means that all but coincide have posteriors that settle far out only.
        beyond = (high - low) * np.geomspace(1e-2, 1e4, 61)
        grid = np.unique(
            np.concatenate([around.ravel(), np.linspace(low, high, 2001), low - beyond, high + beyond, [anchor]])
        )
        values = self.raw_posterior(grid)
        for _ in range(60):
            middle = (grid[1:] + grid[:-1]) / 2
            steep = (np.abs(np.diff(values)) > GRID_STEP) & (middle > grid[:-1]) & (middle < grid[1:])
            if not steep.any():
                break
            added = middle[steep]
            places = np.searchsorted(grid, added)
            values = np.insert(values, places, self.raw_posterior(added))
            grid = np.insert(grid, places, added)
        at = int(np.searchsorted(grid, anchor))
        upward = np.maximum.accumulate(values[at:])
        downward = np.minimum.accumulate(values[: at + 1][::-1])[::-1]
        return grid, np.clip(np.concatenate([downward[:-1], upward]), 0, 1)

    @cached_property
    def _table(self) -> tuple[float, float, Floats] | None:
        """First and last distance of an evenly spaced table of the posterior, and its values.

        Looking up in it needs no search. None where the posterior is too steep for a table.
        """
        grid, values = self._grid
        # Beyond the first and last change that anyone could see the posterior is held constant.
        moving = np.flatnonzero(np.diff(values) > 1e-9)
        if not len(moving):
            return float(grid[0]), float(grid[-1]), np.full(2, values[0])
        first, last = float(grid[moving[0]]), float(grid[moving[-1] + 1])
        table = np.interp(np.linspace(first, last, TABLE_CELLS + 1), grid, values)
        return (first, last, table) if np.diff(table).max() <= 2 * GRID_STEP else None


def _looked_up(x: npt.NDArray[Any], first: float, last: float, table: Floats) -> Floats:
    """Linear interpolation in an evenly spaced table, monotone to the last bit; constant beyond, 0 for NaN."""
    place = np.clip(np.asarray(x, dtype=np.float64), first, last)
    unknown = np.isnan(place)
    some = bool(unknown.any())
    if some:
        place = np.where(unknown, first, place)
    place -= first
    place *= (len(table) - 1) / (last - first)
    cell = place.astype(np.int32)
    np.minimum(cell, len(table) - 2, out=cell)
    place -= cell
    upper = table[cell + 1]
    result = table[cell]
    place *= upper - result
    result += place
    np.minimum(result, upper, out=result)
    if some:
        result[unknown] = 0.0
    return result


def _interpolated(x: npt.NDArray[Any], grid: Floats, values: Floats) -> Floats:
    """Linear interpolation that is monotone to the last bit, which np.interp is not; constant beyond, 0 for NaN."""
    known = np.clip(np.asarray(x, dtype=np.float64), grid[0], grid[-1])
    # NaN sorts behind all numbers, so its index is that of the last cell.
    cell = np.minimum(np.searchsorted(grid, known, side="right"), len(grid) - 1)
    left, right = cell - 1, cell
    share = (known - grid[left]) / (grid[right] - grid[left])
    result: Floats = np.minimum(values[left] + share * (values[right] - values[left]), values[right])
    result[np.isnan(known)] = 0.0
    return result


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def pooled_rest(mixture: Mixture) -> tuple[float, float]:
    """Mean and variance of all components but the top one, pooled as one normal.

    Args:
        mixture: of two components or more.

    Returns:
        The mean in units of the distance, and the variance in its square.
    """
    weights = np.asarray(mixture.weights[:-1])
    share = weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))
    means, deviations = np.asarray(mixture.means[:-1]), np.asarray(mixture.deviations[:-1])
    mean = float(share @ means)
    return mean, float(share @ (deviations**2 + (means - mean) ** 2))


def ashman_separation(mixture: Mixture) -> float:
    """Ashman's D = sqrt(2) |mu_top - mu_rest| / sqrt(var_top + var_rest) (Ashman, Bird, Zepf 1994).

    Args:
        mixture: of two components or more.

    Returns:
        0 or more; two normals count as cleanly separated from 2 on.
    """
    mean, variance = pooled_rest(mixture)
    spread = variance + mixture.deviations[-1] ** 2
    return float(np.sqrt(2) * abs(mixture.means[-1] - mean) / np.sqrt(spread)) if spread > 0 else 0.0


def fit(distances: npt.ArrayLike | Histogram, config: MixtureConfig, seed: int, anchors: Anchors | None = None,
        expected_abnormal: float = 0.1) -> Mixture:  # fmt: skip
    """Fits the mixture to the counts of all distances; their order and their unit do not matter.

    Expectation maximisation on the bins of a `Histogram`, which costs the same for a thousand distances and for ten
    million, and gives the same mixture however many workers counted them. With ``components=auto`` the number between
    1 and 5 with the least BIC is taken; distances of overlapping patches are not independent, so BIC tends to more
    components than there are populations.

    Args:
        distances: [n] raw distances, or their counts; those that are NaN or infinite are dropped and counted.
        config: components, covariance, starts, tolerances, prior and the minimum separation.
        seed: of the starts.
        anchors: where the mixture's ends lie, see `Anchors`; None lets the distances alone decide.
        expected_abnormal: mean of the prior of the top component's weight, which ``prior_weight`` weighs.

    Returns:
        The mixture. It is not usable, with a reason and a single normal as its description, if too few distances are
        left, too many were not finite, or all are equal; and not usable, with its fit, if the fit did not converge,
        does not separate by ``minimum_separation``, or one normal describes the distances best.
    """
    counted = distances if isinstance(distances, Histogram) else Histogram.of(distances)
    total = counted.count + counted.dropped
    if counted.count == 0:
        return _single(counted, "no distance is finite")
    if counted.dropped > TOLERATED_NOT_FINITE * total:
        return _single(counted, f"{counted.dropped} of {total} distances are not finite")
    numbers = range(1, MOST_COMPONENTS + 1) if config.components == "auto" else [int(config.components)]
    least = LEAST_PER_COMPONENT * max(2, min(numbers))
    if counted.count < least:
        return _single(counted, f"{counted.count} distances are fewer than {least}, 10 per component")
    mean, deviation = counted.moments()
    # Equal up to the rounding of float32, in which distances are computed.
    if counted.constant or deviation <= 1e-9 * max(abs(mean), 1e-300):
        return _single(counted, "all distances are equal")
    if anchors is not None and not anchors.similar < anchors.different:
        return _single(counted, "sure-different pairs are no farther apart than sure-similar ones")
    scale = Scale(mean, deviation)
    ends = None if anchors is None else anchors.standardized(scale)
    tried = (
        likeliest(counted, scale, number, config, seed, ends, expected_abnormal)
        for number in numbers
        if LEAST_PER_COMPONENT * number <= counted.count
    )
    fits = [found for found in tried if found is not None]
    if not fits:
        return _single(counted, f"no fit of {config.components} components succeeded from any start")
    best = min(fits, key=lambda found: found.bic(counted.count))
    return _judged(best, counted, scale, config)


def _judged(found: Fit, counted: Histogram, scale: Scale, config: MixtureConfig) -> Mixture:
    """Brings the fit back to units of distance, measures it, and decides whether its labels may be used."""
    order = np.argsort(found.means, kind="stable")
    # One normal, fitted by its moments, with the same regularization.
    variance = 1.0 + config.regularization
    single = Fit(np.ones(1), np.zeros(1), np.full(1, variance), -0.5 * (np.log(2 * np.pi * variance) + 1 / variance),
                 True, 2)  # fmt: skip
    fields: dict[str, Any] = {
        "weights": tuple(float(value) for value in found.weights[order]),
        "means": tuple(float(value) for value in scale.mean + scale.deviation * found.means[order]),
        "deviations": tuple(float(value) for value in scale.deviation * np.sqrt(found.variances[order])),
        "bic_gain": float(single.bic(counted.count) - found.bic(counted.count)),
        "log_likelihood": float(found.log_likelihood - np.log(scale.deviation)),
        "converged": found.converged,
        "count": counted.count,
        "dropped": counted.dropped,
    }
    draft = Mixture(**fields, separation=0.0, usable=False, reason="")
    if len(draft.weights) == 1:
        return replace(draft, reason="one normal describes the distances best (BIC)")
    separation = ashman_separation(draft)
    numbers = [*fields["weights"], *fields["means"], *fields["deviations"], separation, fields["log_likelihood"]]
    reason = ""
    if not np.isfinite(numbers).all():
        reason = "the fit is not finite"
    elif not found.converged:
        reason = f"the fit did not converge in {config.iterations} iterations"
    elif separation < config.minimum_separation:
        reason = f"separation {separation:.2f} is below {config.minimum_separation:g}"
    return replace(draft, separation=separation, usable=not reason, reason=reason)


def _single(counted: Histogram, reason: str) -> Mixture:
    """The fallback: one normal that describes the distances, never usable, with the reason."""
    mean, deviation = counted.moments()
    return Mixture(
        weights=(1.0,),
        means=(mean,),
        deviations=(deviation,),
        separation=0.0,
        bic_gain=0.0,
        log_likelihood=float("nan"),
        converged=False,
        usable=False,
        reason=reason,
        count=counted.count,
        dropped=counted.dropped,
    )
