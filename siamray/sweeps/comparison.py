"""Predictions of many trials go in; differences of variants from a reference, with intervals and tests, come out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from siamray.config import IntervalsConfig
from siamray.downstream.froc import CANDIDATE
from siamray.downstream.intervals import women_weights
from siamray.downstream.metrics import LEAST, MetricName, measure, parse_metric, rows_of
from siamray.downstream.patches import TASK as PATCHES
from siamray.errors import UserError, nearest

Floats = NDArray[np.float64]
Trial = tuple[str, int, int]
Block = tuple[int, int]

# The controls that no network has learnt stand beside the scores that saw no label either; probes have seen labels.
BRIGHTNESS = "brightness difference"
BLOB = "blob filter"
UNLEARNT = {BRIGHTNESS: "brightness", BLOB: "blob"}
UNLABELLED_SCORES = ("distance", "abnormality")
# A score that only encoders with a head give: variants without one are not compared by it.
HEAD_SCORE = "abnormality"

# Metrics are of the order of 1, so that anything below is the rounding of sums and stands for 0.
ROUNDING = 1e-12

COLUMNS = [
    *("variant", "role", "reference", "metric", "value", "value_low", "value_high"),
    *("effect", "effect_low", "effect_high", "p", "p_holm"),
    *("seeds", "folds", "women", "lesions", "normals", "verdict", "cost_wall_s", "note"),
]


@dataclass(frozen=True)
class Outcome:
    """A trial's statistic, its replicates over women [R], and the samples it is of."""

    value: float
    replicates: Floats
    samples: pd.DataFrame


@dataclass(frozen=True)
class Estimate:
    """A mean over blocks with its standard error (NaN where unknown) and the degrees of freedom of that error."""

    mean: float
    error: float
    freedom: float

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


def compare(
    predictions: Mapping[Trial, pd.DataFrame],
    reference: str,
    metric: str,
    variants: Iterable[str],
    controls: Iterable[str],
    config: IntervalsConfig,
    costs: Mapping[Trial, float] | None = None,
) -> pd.DataFrame:
    """Compares every variant and control with the reference, paired over the same women, seeds and folds.

    The statistic of a variant is the mean of the metric over its blocks (seed, fold); the effect is the variant's minus
    the reference's over the blocks that both have, seeds paired by their number. Intervals and the two-sided p are
    those of Student's t with the error and the degrees of freedom of `estimate`: a paired bootstrap over women, plus
    the variance between seeds. Intervals of values are cut to 0..1, of kappas to -1..1. p is corrected by Holm over the
    variants; the controls are a family of their own. On a distance metric the brightness difference, which is the same
    for all trials, is one control more: both are scores that never saw a label.

    One seed says nothing of the luck of seeds: effect and interval over women are given, but no p and no verdict.

    Simulated (400 times; 24 women of 6 patches, half of the women with lesions, 200 replicates; level and intervals of
    .05 and .95): how often two variants worth the same were told apart, how often the intervals held the true effect,
    for the same variants and for one that is better, and the true value, and how often the better one was found.

    ===============================  ========  ===========  =============  ============  =====
    what makes the noise             rejected  covers same  covers better  covers value  power
    ===============================  ========  ===========  =============  ============  =====
    3 seeds, women                       .033         .968           .973          .943   .960
    3 seeds, seeds                       .069         .931           .935          .948   .642
    3 seeds, variant x woman             .055         .945           .948          .927   .672
    3 seeds, seed x woman                .013         .988           .965          .948   .915
    3 seeds, seed x patch                .015         .985           .980          .927   .950
    3 seeds, women and seeds             .064         .936           .940          .935   .795
    3 seeds, both, 3 folds of 12         .045         .955           .955          .943   .983
    5 seeds, women and seeds             .068         .932           .907          .905   .938
    5 seeds, seeds                       .050         .950           .938          .925   .772
    2 seeds, seeds                       .130         .870           .865          .917   .438
    ===============================  ========  ===========  =============  ============  =====

    Two seeds are too few where seeds make the noise, as the rows say: two that happen to be alike hide it.

    Args:
        predictions: (variant or control, seed, fold) -> its predictions, see downstream.evaluation; finished trials.
        reference: the variant that the others are compared with.
        metric: such as patches_linear_auc.
        variants: names of the variants, with or without the reference.
        controls: names of the controls.
        config: replicates, confidence (1 - confidence is also the level of the verdict), seed.
        costs: wall seconds of trials, where known.

    Returns:
        COLUMNS, one row per variant and control: the reference first (its effect and p are NaN), then in the given
        order. A variant without a trial has a row of NaN whose note says so.

    Raises:
        UserError: the reference has no trial, a trial lacks the metric's score, or two trials of a fold have not scored
            the same samples.
    """
    name = parse_metric(metric)
    names = list(dict.fromkeys([reference, *variants, *controls]))
    beside = set(controls) - {reference}
    given = {trial: table for trial, table in predictions.items() if trial[0] in names}
    if name.score == HEAD_SCORE:
        given = {trial: table for trial, table in given.items() if table.score.eq(HEAD_SCORE).any()}
    tables = {trial: _scored(table, name, trial) for trial, table in given.items()}
    if not any(trial[0] == reference for trial in tables):
        raise UserError(f"the reference '{reference}' has no finished trial, so nothing can be compared with it")
    if name.score in UNLABELLED_SCORES:
        of_reference = [trial for trial in tables if trial[0] == reference]
        for control, score in UNLEARNT.items():
            # Results of an earlier version lack the blob filter.
            plain = name._replace(score=score)
            unlearnt = {trial: rows_of(predictions[trial], plain) for trial in of_reference}
            if any(table.empty for table in unlearnt.values()):
                continue
            for trial, table in unlearnt.items():
                tables[control, *trial[1:]] = table
            names.append(control)
            beside.add(control)
    _check_samples(tables)
    outcomes = _outcomes(tables, name, config)
    rows = [
        {
            "variant": variant,
            "role": "control" if variant in beside else "variant",
            "reference": reference,
            "metric": metric,
            "cost_wall_s": _mean_cost(costs or {}, variant),
            **_compared(outcomes, variant, reference, LEAST.get(name.kind, 0.0), config),
        }
        for variant in names
    ]
    return _judged(pd.DataFrame(rows), config)[COLUMNS].astype({"lesions": "Int64", "normals": "Int64"})


def _scored(predictions: pd.DataFrame, name: MetricName, trial: Trial) -> pd.DataFrame:
    """The rows of one score and split, in the order of draw and sample_id."""
    rows = rows_of(predictions, name)
    if rows.empty:
        own = predictions.task.str.startswith(name.task) & (predictions.split == name.split)
        known = [str(score) for score in predictions[own].score.unique()]
        hint = nearest(name.score, known) if known else f"; the task is off: add {name.task} to downstream.tasks"
        raise UserError(f"{_named(trial)} has no score '{name.score}' of {name.split} women{hint}")
    return rows


def _check_samples(tables: Mapping[Trial, pd.DataFrame]) -> None:
    """Refuses trials of a fold that disagree on whose a sample is or on its label: then one of them is of other data.

    Variants may score other samples, as another registration or patch size has other places with enough tissue: women
    are drawn, and each variant's own samples come with them.

    Raises:
        UserError: naming two trials and a sample.
    """
    known: dict[tuple[int, str], tuple[Trial, str, int]] = {}
    for trial, table in ((trial, _samples(table)) for trial, table in tables.items()):
        for sample, woman, label in zip(table.sample_id, table.woman_id, table.label, strict=True):
            first, whose, told = known.setdefault((trial[2], sample), (trial, woman, label))
            if (whose, told) != (woman, label):
                raise UserError(
                    f"{_named(trial)} and {_named(first)} disagree on {sample}: woman {woman} and label {label}, "
                    f"or {whose} and {told}; their data differ, so run them as experiments of their own"
                )


def _samples(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose label is a fact: a candidate of a detector is one of its answers."""
    return table[table.task != CANDIDATE]


def _outcomes(tables: Mapping[Trial, pd.DataFrame], name: MetricName, config: IntervalsConfig) -> dict[Trial, Outcome]:
    """Statistic and replicates of every trial; all trials share one draw of the women of all folds."""
    women = pd.Index(sorted({woman for table in tables.values() for woman in table.woman_id}))
    weights = women_weights(len(women), config.replicates, config.seed)
    outcomes = {}
    for trial, table in tables.items():
        measured = measure(table, name.kind, women.get_indexer(table.woman_id), weights)
        outcomes[trial] = Outcome(measured.value, measured.replicates, _samples(table))
    return outcomes


def _compared(
    outcomes: Mapping[Trial, Outcome], variant: str, reference: str, least: float, config: IntervalsConfig
) -> dict[str, Any]:
    """Value and effect of one variant with their intervals, p, counts and note; no value can be below the least."""
    of_reference = _blocks(outcomes, reference)
    own = {block: outcome for block, outcome in _blocks(outcomes, variant).items() if block in of_reference}
    blank = dict.fromkeys(["value", "value_low", "value_high", "effect", "effect_low", "effect_high", "p"], np.nan)
    if not own:
        return blank | _counts(own) | {"note": f"no finished trial of a seed and fold that '{reference}' has"}
    value = estimate(own)
    low, high = np.clip(value.interval(config.confidence), least, 1)
    found = blank | {"value": value.mean, "value_low": low, "value_high": high} | _counts(own)
    notes = [_note(own, of_reference, reference)]
    if variant != reference:
        effect = estimate(_differences(own, of_reference))
        low, high = effect.interval(config.confidence)
        found |= {"effect": effect.mean, "effect_low": low, "effect_high": high}
        if found["seeds"] > 1:
            found["p"] = effect.p_value()
        if effect.error == 0 and effect.mean != 0:
            notes.append("the same effect in every replicate and seed: its error cannot be estimated")
            found |= {"effect_low": np.nan, "effect_high": np.nan}
        if any(np.isnan(of_reference[block].value) for block in own):
            notes.append(f"'{reference}' has no value")
    if np.isnan(value.mean):
        notes.append(_why_missing(own))
    return found | {"note": "; ".join(note for note in notes if note)}


def _blocks(outcomes: Mapping[Trial, Outcome], variant: str) -> dict[Block, Outcome]:
    return {(seed, fold): outcome for (name, seed, fold), outcome in outcomes.items() if name == variant}


def _differences(own: Mapping[Block, Outcome], of_reference: Mapping[Block, Outcome]) -> dict[Block, Outcome]:
    """A variant's outcomes minus the reference's of the same seed and fold, replicate by replicate."""
    return {
        block: Outcome(
            outcome.value - of_reference[block].value,
            outcome.replicates - of_reference[block].replicates,
            outcome.samples,
        )
        for block, outcome in own.items()
    }


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

    Args:
        blocks: (seed, fold) -> outcome; at least one.

    Returns:
        The mean; with one seed the error is that of women only. NaN error for one woman or if no two replicates have a
        value.
    """
    means = pd.Series({block: outcome.value for block, outcome in sorted(blocks.items())})
    replicates = np.mean([blocks[block].replicates for block in means.index], axis=0)
    finite = replicates[~np.isnan(replicates)]
    women = _counts(blocks)["women"]
    mean = float(means.mean(skipna=False))
    if women < 2 or finite.size < 2 or np.isnan(mean):
        return Estimate(mean, float("nan"), float("nan"))
    by_seed = means.groupby(level=0)
    shares = by_seed.size() / len(means)
    of_women = float(np.var(finite, ddof=1))
    of_seeds = float(by_seed.mean().var(ddof=1) * (shares**2).sum()) if len(shares) > 1 else 0.0
    error = np.sqrt(of_women + of_seeds)
    if error < ROUNDING:
        return Estimate(mean if abs(mean) > ROUNDING else 0.0, 0.0, float("nan"))
    spread = of_women**2 / (women - 1) + (of_seeds**2 / (len(shares) - 1) if len(shares) > 1 else 0.0)
    return Estimate(mean, float(error), error**4 / spread)


def _counts(blocks: Mapping[Block, Outcome]) -> dict[str, Any]:
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


def _note(own: Mapping[Block, Outcome], of_reference: Mapping[Block, Outcome], reference: str) -> str:
    notes = []
    if len(own) < len(of_reference):
        notes.append(f"compared on {len(own)} of the {len(of_reference)} trials (seed, fold) of '{reference}'")
    sets = [
        (set(outcome.samples.sample_id), set(of_reference[block].samples.sample_id)) for block, outcome in own.items()
    ]
    if any(mine != theirs for mine, theirs in sets):
        shared, union = (sum(len(op(*pair)) for pair in sets) for op in (set.intersection, set.union))
        notes.append(f"scored on other samples than '{reference}': {shared} of {union} in common")
    counts = _counts(own)
    if counts["seeds"] == 1:
        notes.append("one seed: the interval covers other women, not other seeds")
    if counts["seeds"] == 2:
        notes.append("2 seeds: the interval is too narrow if seeds move the metric more than women do")
    if counts["women"] == 1:
        notes.append("one woman: no interval")
    replicates = np.stack([outcome.replicates for outcome in own.values()])
    undefined = int(np.isnan(replicates).any(axis=0).sum())
    if undefined and not any(np.isnan(outcome.value) for outcome in own.values()):
        notes.append(f"{undefined} of {replicates.shape[1]} replicates lack a class and are left out")
    return "; ".join(notes)


def _why_missing(blocks: Mapping[Block, Outcome]) -> str:
    """Why a statistic is missing, in the words of the predictions where they have some."""
    tables = [outcome.samples for outcome in blocks.values() if np.isnan(outcome.value)]
    said = {str(note) for table in tables if "note" in table for note in table.note[table.value.isna()].unique()}
    return "; ".join(sorted(said - {""})) or "a class is absent from the tested samples"


def _mean_cost(costs: Mapping[Trial, float], variant: str) -> float:
    own = [seconds for trial, seconds in costs.items() if trial[0] == variant]
    return float(np.mean(own)) if own else float("nan")


def _judged(rows: pd.DataFrame, config: IntervalsConfig) -> pd.DataFrame:
    """Adds p_holm, corrected over the variants and over the controls, and the verdict."""
    level = 1 - config.confidence
    rows["p_holm"] = np.nan
    for role in ("variant", "control"):
        family = rows.role.eq(role) & rows.p.notna()
        if family.any():
            rows.loc[family, "p_holm"] = multipletests(rows.p[family], method="holm")[1]
    rows["verdict"] = [verdict(row, level) for row in rows.to_dict("records")]
    return rows


def verdict(row: Mapping[Any, Any], level: float) -> str:
    """Puts a row of the comparison into a sentence that claims no more than its numbers.

    Args:
        row: the columns of the comparison without ``verdict``.
        level: the p value after Holm's correction below which a difference is stated.
    """
    name, reference = row["variant"], row["reference"]
    seen = f"{row['women']} women, {_plural(row['seeds'], 'seed')}"
    if name == reference:
        ends = f"[{_short(row['value_low'])}, {_short(row['value_high'])}]"
        return f"{name} is the reference: {_short(row['value'])} {ends}, {seen}"
    effect = f"effect {_signed(row['effect'])} [{_signed(row['effect_low'])}, {_signed(row['effect_high'])}]"
    if row["seeds"] == 1 and not np.isnan(row["effect_low"]):
        return f"one seed: cannot tell {name} from the luck of its seed: {effect}, {row['women']} women"
    if np.isnan(row["effect"]) or np.isnan(row["p_holm"]):
        return f"{name} cannot be compared with {reference}: {row['note'] or 'no replicate has a value'}"
    corrected = "below .001" if row["p_holm"] < 0.001 else _short(row["p_holm"])
    numbers = f"{effect}, corrected p {corrected}, {seen}"
    if row["p_holm"] >= level:
        return f"no evidence that {name} differs from {reference}: {numbers}"
    return f"{name} is {'above' if row['effect'] > 0 else 'below'} {reference}: {numbers}"


def _named(trial: Trial) -> str:
    return f"'{trial[0]}' (seed {trial[1]}, fold {trial[2]})"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _short(value: float) -> str:
    """.812: three decimals, no zero before the point."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:.3f}"


def _signed(value: float) -> str:
    """+.012: as _short, always with its sign."""
    return f"{value:+.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:+.3f}"
