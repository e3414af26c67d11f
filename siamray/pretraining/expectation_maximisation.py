"""Counts of standardized distances go in; the likeliest mixture of normals over several seeded starts comes out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.cluster import KMeans

from siamray.config import MixtureConfig
from siamray.pretraining.histogram import BINS, Histogram

Floats = npt.NDArray[np.float64]

# Starts are compared on bins this coarse; only the likeliest is then fitted to all bins.
STARTING_BINS = BINS >> 4


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of all distances: the fit works on standardized ones, whatever the unit.

    Attributes:
        mean: in units of the distance.
        deviation: standard deviation, in units of the distance; above 0.
    """

    mean: float
    deviation: float


@dataclass(frozen=True)
class Anchors:
    """Where the mixture's ends lie (ours): distances of pairs that surely are similar, and of pairs that surely differ.

    The top component is that of the sure-different distances, its mean and variance fixed; only its weight is fitted.
    The other components lie between the two means. A purely normal population then gives the top component no weight,
    instead of being split for want of abnormal pairs.

    Attributes:
        similar: mean of the sure-similar distances (two views of one patch).
        different: mean of the sure-different distances.
        deviation: standard deviation of the sure-different distances; all in one unit.
    """

    similar: float
    different: float
    deviation: float

    def standardized(self, scale: Scale) -> "Anchors":
        """The same in standardized distances."""
        low, high = ((value - scale.mean) / scale.deviation for value in (self.similar, self.different))
        return Anchors(low, high, self.deviation / scale.deviation)


@dataclass(frozen=True)
class Fit:
    """A mixture of standardized distances.

    Attributes:
        weights: [k] shares.
        means: [k], in any order.
        variances: [k].
        log_likelihood: mean per distance.
        converged: whether the tolerance was reached.
        parameters: number of fitted parameters, which BIC charges for.
    """

    weights: Floats
    means: Floats
    variances: Floats
    log_likelihood: float
    converged: bool
    parameters: int

    def bic(self, count: int) -> float:
        """Bayesian information criterion (Schwarz 1978): -2 log L + parameters log n; the least is best."""
        return -2 * count * self.log_likelihood + self.parameters * float(np.log(count))


def likeliest(
    counted: Histogram, scale: Scale, components: int, config: MixtureConfig, seed: int, anchors: Anchors | None,
    expected_abnormal: float,
) -> Fit | None:  # fmt: skip
    """Fits from several starts on coarse bins (the first from k-means), then the likeliest to all bins.

    Args:
        counted: the distances.
        scale: what standardizes them.
        components: k, 1 or more.
        config: covariance, starts, iterations, tolerance, regularization, prior_weight.
        seed: of the starts.
        anchors: standardized, or None.
        expected_abnormal: mean of the prior of the top component's weight.

    Returns:
        The fit, or None where a variance fell to 0 from every start, which can happen without regularization.
    """
    x, n = _standardized(counted.rebinned(STARTING_BINS), scale)
    seeds = np.random.SeedSequence([seed, components]).generate_state(config.starts)
    best: Fit | None = None
    for start, state in enumerate(seeds):
        means = _k_means(x, n, components, int(state)) if start == 0 else _points(x, n, components, int(state))
        variances = np.full(components, 1 / components**2)
        begin = Fit(np.full(components, 1 / components), np.sort(means), variances, -np.inf, False, 0)
        found = _maximised(x, n, begin, config, anchors, expected_abnormal)
        if found is not None and (best is None or found.log_likelihood > best.log_likelihood):
            best = found
    if best is None:
        return None
    return _maximised(*_standardized(counted.rebinned(BINS), scale), best, config, anchors, expected_abnormal)


def _standardized(binned: tuple[Floats, npt.NDArray[np.int64]], scale: Scale) -> tuple[Floats, npt.NDArray[np.int64]]:
    return (binned[0] - scale.mean) / scale.deviation, binned[1]


def _k_means(x: Floats, n: npt.NDArray[np.int64], components: int, seed: int) -> Floats:
    if len(x) <= components:
        return np.resize(x, components)
    found = KMeans(components, n_init=1, random_state=seed).fit(x[:, None], sample_weight=n)
    return np.asarray(found.cluster_centers_[:, 0], dtype=np.float64)


def _points(x: Floats, n: npt.NDArray[np.int64], components: int, seed: int) -> Floats:
    return np.asarray(np.random.default_rng(seed).choice(x, size=components, p=n / n.sum()))


def _maximised(
    x: Floats, n: npt.NDArray[np.int64], begin: Fit, config: MixtureConfig, anchors: Anchors | None,
    expected_abnormal: float,
) -> Fit | None:  # fmt: skip
    """Expectation maximisation over bins x [m] with counts n [m]; None where a variance fell to 0."""
    weights, means, variances = begin.weights.copy(), begin.means.copy(), begin.variances.copy()
    k, total = len(weights), float(n.sum())
    free = slice(0, k - 1) if anchors is not None and k > 1 else slice(0, k)
    tied = config.covariance == "tied"
    # Pseudo-counts of a Dirichlet prior whose mean gives the top component the expected share: the penalty
    # KL(expected || weights), times the number of distances, in the log likelihood.
    prior = np.full(k, (1 - expected_abnormal) / max(1, k - 1))
    prior[-1] = expected_abnormal if k > 1 else 1.0
    pseudo = config.prior_weight * total * prior
    if anchors is not None and k > 1:
        means[-1], variances[-1] = anchors.different, anchors.deviation**2 + config.regularization
        means[free] = np.clip(means[free], anchors.similar, anchors.different)
    previous, reached = -np.inf, False
    for _ in range(config.iterations):
        if not (variances > 0).all():
            return None
        logs = _log_joint(x, weights, means, variances)
        evidence = logsumexp(logs, axis=0)
        # The likelihood, and the prior's logarithm where there is one; the regularization may make a step lower it.
        objective = float(n @ evidence + pseudo @ np.log(np.maximum(weights, 1e-300))) / total
        if abs(objective - previous) < config.tolerance:
            reached = True
            break
        previous = objective
        share = np.exp(logs - evidence) * n
        mass = share.sum(axis=1)
        weights = (mass + pseudo) / (mass + pseudo).sum()
        held = np.maximum(mass, 1e-300)
        if len(means[free]):
            means[free] = (share[free] @ x) / held[free]
            if anchors is not None and k > 1:
                means[free] = np.clip(means[free], anchors.similar, anchors.different)
            spread = (share[free] * (x - means[free, None]) ** 2).sum(axis=1)
            if tied:
                variances[free] = spread.sum() / held[free].sum() + config.regularization
            else:
                variances[free] = spread / held[free] + config.regularization
    if not (np.isfinite(weights).all() and np.isfinite(means).all() and (variances > 0).all()):
        return None
    number = len(means[free])
    parameters = (k - 1) + number + (min(1, number) if tied else number)
    final = float(n @ logsumexp(_log_joint(x, weights, means, variances), axis=0)) / total
    return Fit(weights, means, variances, final, reached, parameters)


def _log_joint(x: Floats, weights: Floats, means: Floats, variances: Floats) -> Floats:
    """Log of weight times normal density, [k, m]."""
    with np.errstate(divide="ignore"):
        logs = np.log(weights)
    scores = (x - means[:, None]) ** 2 / variances[:, None]
    return np.asarray((logs - 0.5 * np.log(2 * np.pi * variances))[:, None] - 0.5 * scores)
