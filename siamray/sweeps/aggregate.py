"""Outcomes of several metrics and data sets go in; interquartile means and performance profiles come out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from siamray.config import IntervalsConfig
from siamray.downstream.metrics import Kind, parse_metric
from siamray.errors import UserError
from siamray.sweeps.comparison import Trial
from siamray.sweeps.estimates import Outcome

Floats = NDArray[np.float64]
Measured = Mapping[str, Mapping[str, Mapping[Trial, Outcome]]]

CHANCE: dict[Kind, float] = {"auc": 0.5, "macro_auc": 0.5, "kappa": 0.0}
"""What a metric is worth where nothing is known. That of average precision and F1 depends on the share of the classes,
so that they are not put on one scale with others."""

MEAN_COLUMNS = ["variant", "value", "low", "high", "effect", "effect_low", "effect_high", "tasks", "seeds", "note"]
PROFILE_COLUMNS = ["variant", "threshold", "share", "low", "high"]


@dataclass(frozen=True)
class _Scores:
    """A variant's scores above chance [tasks x seeds], and their replicates [R, tasks x seeds]."""

    values: Floats
    replicates: Floats
    tasks: int
    seeds: int


def interquartile_means(outcomes: Measured, variants: Sequence[str], config: IntervalsConfig) -> pd.DataFrame:
    """Averages each variant's scores over metrics and data sets by the interquartile mean.

    It is the mean of the middle half of all runs of all tasks (Agarwal et al. 2021, section 4.3): less moved by one
    easy task than the mean, and surer than the median. A task is a metric on a data set, a run is a seed, the mean over
    its folds. Scores are (metric - chance) / (1 - chance), 0 for chance and 1 for all, so that an AUC does not outweigh
    a kappa.

    Intervals are percentiles of a bootstrap stratified by data set: in each, women and seeds are drawn anew, for all
    its metrics and all variants alike, as one encoder gives all metrics and variants are compared on the same women and
    seeds. Agarwal et al. draw seeds for each task apart, which takes metrics of one encoder for independent. Of K seeds
    K are drawn out of all but one (bootknife; Hesterberg 2004), without which 3 seeds would show two thirds of their
    variance. Percentiles still know no Student's t: where seeds make all the noise, 3 seeds cover less than they say.

    Args:
        outcomes: data set -> metric -> trial -> outcome, a data set's metrics with one draw of women
            (`comparison.measured`), all with as many replicates.
        variants: those to be shown; the first is the one that the others are compared with.
        config: confidence and seed.

    Returns:
        MEAN_COLUMNS, a row per variant; the effect is the variant's value minus the first one's, NaN for itself.

    Raises:
        UserError: a metric without a level of chance, a variant without a value, unequal numbers of seeds.
    """
    scores = _scores(outcomes, variants, config)
    tail = (1 - config.confidence) / 2
    found = {name: (_middle(own.values[None])[0], _middle(own.replicates)) for name, own in scores.items()}
    reference = found[variants[0]]
    rows = []
    for name, (value, replicates) in found.items():
        low, high = np.quantile(replicates, [tail, 1 - tail])
        row = {"variant": name, "value": value, "low": low, "high": high}
        if name != variants[0]:
            low, high = np.quantile(replicates - reference[1], [tail, 1 - tail])
            row |= {"effect": value - reference[0], "effect_low": low, "effect_high": high}
        seeds = scores[name].seeds
        note = "one seed: the interval covers other women, not other seeds" if seeds == 1 else ""
        if 1 < seeds < 5:
            note = f"{seeds} seeds: the interval is too narrow if seeds move the scores more than women do"
        rows.append(row | {"tasks": scores[name].tasks, "seeds": seeds, "note": note})
    return pd.DataFrame(rows, columns=MEAN_COLUMNS)


def performance_profiles(
    outcomes: Measured, variants: Sequence[str], config: IntervalsConfig, thresholds: Sequence[float] | None = None
) -> pd.DataFrame:
    """Tells for each variant which share of its runs scores above a threshold (Agarwal et al. 2021, section 4.2).

    A profile that lies above another one everywhere is better whatever score is asked for; where two cross, none is
    better in general. Scores, runs and bootstrap are those of `interquartile_means`; the intervals hold at each
    threshold, not along the whole curve.

    Args:
        outcomes: as in `interquartile_means`.
        variants: those to be shown.
        config: confidence and seed.
        thresholds: scores above chance; None = 0, 0.01, ..., 1.

    Returns:
        PROFILE_COLUMNS, a row per variant and threshold.

    Raises:
        UserError: as `interquartile_means`.
    """
    asked = np.linspace(0, 1, 101) if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    tail = (1 - config.confidence) / 2
    parts = []
    for name, own in _scores(outcomes, variants, config).items():
        above = np.stack([(own.replicates > threshold).mean(axis=1) for threshold in asked], axis=1)
        low, high = np.quantile(above, [tail, 1 - tail], axis=0)
        share = [(own.values > threshold).mean() for threshold in asked]
        parts.append(pd.DataFrame({"variant": name, "threshold": asked, "share": share, "low": low, "high": high}))
    return pd.concat(parts, ignore_index=True)[PROFILE_COLUMNS]


def _middle(scores: Floats) -> Floats:
    """The interquartile mean of every row."""
    return np.asarray(stats.trim_mean(scores, 0.25, axis=1), dtype=np.float64)


def _scores(outcomes: Measured, variants: Sequence[str], config: IntervalsConfig) -> dict[str, _Scores]:
    """The scores of all variants in replicates that share women and seeds.

    Raises:
        UserError: see `interquartile_means`.
    """
    tasks = [(data, metric, trials) for data, metrics in outcomes.items() for metric, trials in metrics.items()]
    if not tasks or not variants:
        raise UserError("nothing to average: name data sets, metrics and variants")
    seeds = {data: _common_seeds(data, metrics, variants) for data, metrics in outcomes.items()}
    fewest, most = (end(seeds, key=lambda data: len(seeds[data])) for end in (min, max))
    if len(seeds[fewest]) < len(seeds[most]):
        raise UserError(
            f"'{fewest}' has {len(seeds[fewest])} seeds of all variants and '{most}' {len(seeds[most])}, so that runs "
            f"would not count alike; run '{fewest}' again with seeds={len(seeds[most])}"
        )
    sizes = {len(outcome.replicates) for _, _, trials in tasks for outcome in trials.values()}
    if len(sizes) > 1:
        raise ValueError(f"outcomes with different numbers of replicates: {sorted(sizes)}")
    replicates = sizes.pop()
    drawn = {
        data: _bootknife(len(known), replicates, np.random.default_rng([config.seed, 1, number]))
        for number, (data, known) in enumerate(seeds.items())
    }
    found = {}
    for variant in variants:
        values, redrawn = [], []
        for data, metric, trials in tasks:
            chance = _chance(metric)
            runs = [_run(trials, variant, seed, f"{metric} of '{data}'") for seed in seeds[data]]
            values.append([(value - chance) / (1 - chance) for value, _ in runs])
            by_seed = np.stack([(of_run - chance) / (1 - chance) for _, of_run in runs])
            redrawn.append(by_seed[drawn[data], np.arange(replicates)[:, None]])
        scores = np.concatenate(redrawn, axis=1)
        found[variant] = _Scores(np.concatenate(values), scores, len(tasks), len(seeds[fewest]))
    return _without_holes(found)


def _without_holes(found: Mapping[str, _Scores]) -> dict[str, _Scores]:
    """Leaves out the replicates in which any variant lacks a value, as a class was not drawn.

    Raises:
        UserError: none is left.
    """
    whole = ~np.any([np.isnan(scores.replicates).any(axis=1) for scores in found.values()], axis=0)
    if not whole.any():
        raise UserError("every replicate lacks a class in some task: too few women to average over these metrics")
    return {
        name: _Scores(scores.values, scores.replicates[whole], scores.tasks, scores.seeds)
        for name, scores in found.items()
    }


def _chance(metric: str) -> float:
    kind = parse_metric(metric).kind
    if kind not in CHANCE:
        known = ", ".join(CHANCE)
        raise UserError(f"metric {metric}: what {kind} is worth by chance depends on the data; average {known} instead")
    return CHANCE[kind]


def _common_seeds(data: str, metrics: Mapping[str, Mapping[Trial, Outcome]], variants: Sequence[str]) -> list[int]:
    """The seeds that all variants have in all metrics of a data set.

    Raises:
        UserError: there is none.
    """
    known = [{trial[1] for trial in trials if trial[0] == name} for trials in metrics.values() for name in variants]
    common = set.intersection(*known) if known else set()
    if not common:
        raise UserError(f"'{data}' has no seed that all of {', '.join(variants)} finished; run its sweep again")
    return sorted(common)


def _run(trials: Mapping[Trial, Outcome], variant: str, seed: int, where: str) -> tuple[float, Floats]:
    """Value and replicates of one seed, the means over its folds.

    Raises:
        UserError: it has no value.
    """
    own = [trials[trial] for trial in sorted(trials) if trial[:2] == (variant, seed)]
    value = float(np.mean([outcome.value for outcome in own]))
    if np.isnan(value):
        raise UserError(f"{where}: '{variant}' (seed {seed}) has no value; leave this metric or variant out")
    return value, np.mean([outcome.replicates for outcome in own], axis=0)


def _bootknife(seeds: int, replicates: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draws K of K seeds with replacement, without one that is left out at random, [replicates, K]."""
    if seeds == 1:
        return np.zeros((replicates, 1), dtype=np.int64)
    without = generator.integers(seeds, size=(replicates, 1))
    drawn = generator.integers(seeds - 1, size=(replicates, seeds))
    return np.asarray(drawn + (drawn >= without), dtype=np.int64)
