"""The mixture: a sample of pair distances in, a Gaussian mixture and its monotone posterior out.

The soft label of a pair is the posterior of the component with the highest mean (DivideMix, Li, Socher, Hoi 2020, does
this on losses). Guards, each of them ours: the posterior is made monotone in the distance, the fit has several seeded
starts, and a mixture that does not separate gives no labels at all.
"""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from siamray.config import MixtureConfig

Floats = npt.NDArray[np.float64]

# Share of distances that may be NaN or infinite before none is trusted.
TOLERATED_NOT_FINITE = 0.01
LEAST_PER_COMPONENT = 10
# Starts are compared on this many distances; only the likeliest is then fitted to all of them.
STARTING_SAMPLE = 4000
# The grid of the posterior: neighbouring values differ by less than this wherever doubles allow it.
GRID_STEP = 5e-4
CHUNK = 1 << 20


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
        grid, labels = self._grid
        for start in range(0, flat.size, CHUNK):
            out[start : start + CHUNK] = _interpolated(flat[start : start + CHUNK], grid, labels)
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


def fit(distances: npt.ArrayLike, config: MixtureConfig, seed: int) -> Mixture:
    """Fits the mixture to a sample of distances; the order of the sample and the unit of distance do not matter.

    Args:
        distances: [n] raw distances; those that are NaN or infinite are dropped and counted.
        config: components, covariance, starts, tolerances and the minimum separation.
        seed: of the starts.

    Returns:
        The mixture. It is not usable, with a reason and a single normal as its description, if too few distances are
        left, too many were not finite, or all are equal; and not usable, with its fit, if the fit did not converge
        or does not separate by ``minimum_separation``.
    """
    values = np.asarray(distances, dtype=np.float64).reshape(-1)
    finite = np.sort(values[np.isfinite(values)])
    dropped = len(values) - len(finite)
    if len(finite) == 0:
        return _single(finite, dropped, "no distance is finite")
    if dropped > TOLERATED_NOT_FINITE * len(values):
        return _single(finite, dropped, f"{dropped} of {len(values)} distances are not finite")
    least = LEAST_PER_COMPONENT * config.components
    if len(finite) < least:
        return _single(finite, dropped, f"{len(finite)} distances are fewer than {least}, 10 per component")
    # A power of two near the largest value keeps tiny and huge distances away from under- and overflow, exactly.
    unit = 2.0 ** np.floor(np.log2(max(float(np.abs(finite).max()), 1e-300)))
    mean, deviation = float((finite / unit).mean()), float((finite / unit).std())
    if deviation <= 1e-9 * max(abs(mean), 1e-9):
        return _single(finite, dropped, "all distances are equal")
    # Rounded, so that the unit's last bits cannot decide between two starts that are equally likely.
    scores = np.round((finite / unit - mean) / deviation, 9)
    model = _likeliest(scores, config, seed)
    if model is None:
        return _single(finite, dropped, f"no fit of {config.components} components succeeded from any start")
    return _judged(model, scores, unit * mean, unit * deviation, dropped, config)


def _likeliest(scores: Floats, config: MixtureConfig, seed: int) -> GaussianMixture | None:
    """Fits from several starts (the first from k-means, the others from random points); None if all of them fail."""
    column = scores[:, None]
    # Evenly spaced order statistics stand for all of the sorted scores: the same distribution, in less time.
    few = column[np.linspace(0, len(column) - 1, min(len(column), STARTING_SAMPLE)).round().astype(int)]
    seeds = np.random.SeedSequence(seed).generate_state(config.starts)
    options: dict[str, Any] = {
        "n_components": config.components,
        "covariance_type": "tied" if config.covariance == "tied" else "full",
        "tol": config.tolerance,
        "reg_covar": config.regularization,
        "max_iter": config.iterations,
    }
    with warnings.catch_warnings():
        # Whether the fit converged is part of the result; coinciding points only make k-means find fewer clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        best = None
        for start, state in enumerate(seeds):
            chosen = "kmeans" if start == 0 else "random_from_data"
            model = _fitted(GaussianMixture(**options, init_params=chosen, random_state=int(state)), few)
            if model is not None and (best is None or model.score(few) > best.score(few)):
                best = model
        if best is None or len(few) == len(column):
            return best
        begin = {"weights_init": best.weights_, "means_init": best.means_, "precisions_init": best.precisions_}
        return _fitted(GaussianMixture(**options, **begin, random_state=int(seeds[0])), column)


def _fitted(model: GaussianMixture, column: Floats) -> GaussianMixture | None:
    """The fitted model, or None where a variance fell to 0, which can happen without regularization."""
    try:
        return model.fit(column)
    except ValueError:
        return None


def _judged(
    model: GaussianMixture, scores: Floats, mean: float, deviation: float, dropped: int, config: MixtureConfig
) -> Mixture:
    """Brings the fit back to units of distance, measures it, and decides whether its labels may be used."""
    order = np.argsort(model.means_[:, 0], kind="stable")
    variances = (
        np.full(config.components, model.covariances_[0, 0])
        if config.covariance == "tied"
        else (model.covariances_[:, 0, 0])
    )
    column = scores[:, None]
    single = GaussianMixture(1, reg_covar=config.regularization).fit(column)
    fields: dict[str, Any] = {
        "weights": tuple(float(value) for value in model.weights_[order]),
        "means": tuple(float(value) for value in mean + deviation * model.means_[order, 0]),
        "deviations": tuple(float(value) for value in deviation * np.sqrt(variances[order])),
        "bic_gain": float(single.bic(column) - model.bic(column)),
        "log_likelihood": float(model.score(column) - np.log(deviation)),
        "converged": bool(model.converged_),
        "count": len(scores),
        "dropped": dropped,
    }
    draft = Mixture(**fields, separation=0.0, usable=False, reason="")
    separation = ashman_separation(draft)
    numbers = [*fields["weights"], *fields["means"], *fields["deviations"], separation, fields["log_likelihood"]]
    reason = ""
    if not np.isfinite(numbers).all():
        reason = "the fit is not finite"
    elif not model.converged_:
        reason = f"the fit did not converge in {config.iterations} iterations"
    elif separation < config.minimum_separation:
        reason = f"separation {separation:.2f} is below {config.minimum_separation:g}"
    return Mixture(**fields, separation=separation, usable=not reason, reason=reason)


def _single(finite: Floats, dropped: int, reason: str) -> Mixture:
    """The fallback: one normal that describes the distances, never usable, with the reason."""
    return Mixture(
        weights=(1.0,),
        means=(float(finite.mean()) if len(finite) else float("nan"),),
        deviations=(float(finite.std()) if len(finite) else float("nan"),),
        separation=0.0,
        bic_gain=0.0,
        log_likelihood=float("nan"),
        converged=False,
        usable=False,
        reason=reason,
        count=len(finite),
        dropped=dropped,
    )
