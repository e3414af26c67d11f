"""Predictions of many trials go in; differences of variants from a reference, with intervals and tests, come out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from siamray.config import IntervalsConfig
from siamray.downstream.froc import CANDIDATE
from siamray.downstream.intervals import women_weights
from siamray.downstream.metrics import LEAST, MetricName, measure, parse_metric, rows_of
from siamray.errors import UserError, nearest
from siamray.sweeps.bca import bca_interval, expanded
from siamray.sweeps.estimates import Block, Estimate, Outcome, counts, differences, estimate, holm, weighted_sum
from siamray.sweeps.improvement import probability_of_improvement
from siamray.sweeps.verdict import SAME_PREDICTIONS, verdict

Trial = tuple[str, int, int]

# The controls that no network has learnt stand beside the scores that saw no label either; probes have seen labels.
BRIGHTNESS = "brightness difference"
BLOB = "blob filter"
UNLEARNT = {BRIGHTNESS: "brightness", BLOB: "blob"}
UNLABELLED_SCORES = ("distance", "abnormality")
# A score that only encoders with a head give: variants without one are not compared by it.
HEAD_SCORE = "abnormality"

COLUMNS = [
    *("variant", "role", "reference", "metric", "value", "value_low", "value_high"),
    *("effect", "effect_low", "effect_high", "p", "p_holm"),
    *("effect_size", "improvement", "improvement_low", "improvement_high"),
    *("detectable", "equivalence_margin", "p_equivalence", "p_equivalence_holm"),
    *("seeds", "folds", "women", "lesions", "normals", "verdict", "cost_wall_s", "note"),
]

# The numbers of a row that are NaN where nothing is compared.
NUMBERS = COLUMNS[COLUMNS.index("value") : COLUMNS.index("seeds")]


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

    One seed says nothing of the luck of seeds: effect and interval over women are given, but no p and no verdict. Its
    intervals are BCa ones (`bca_interval`, with the confidence `expanded`), as they need no seeds and follow a metric
    near its end, where it is skewed; where BCa is undefined they are Student's t, and the note says so.

    Beside p stand what a reader of a difference, or of none, asks next:

    - effect_size: the effect in deviations of one woman with one seed (`Estimate.effect_size`).
    - improvement, improvement_low, improvement_high: the chance that a run does better than the reference's of the same
      seed and fold (`probability_of_improvement`).
    - detectable: the true difference that this test finds with a chance of .8 (`Estimate.detectable`) at the level over
      the number of comparisons in the family, which is what Holm asks of a difference that stands alone.
    - p_equivalence, p_equivalence_holm: of two one-sided tests that the effect lies within equivalence_margin
      (`Estimate.p_equivalence`), corrected in the same families; NaN where the margin is null, or with one seed.

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
        config: replicates, confidence (1 - confidence is also the level of the verdict), margin of equivalence, seed.
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
    women = pd.Index(sorted({woman for table in tables.values() for woman in table.woman_id}))
    outcomes = _outcomes(tables, name, women, config, left_out=_of_one_seed(tables, reference))
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
    return _judged(rows, config)[COLUMNS].astype({"lesions": "Int64", "normals": "Int64"})


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


def measured(
    predictions: Mapping[Trial, pd.DataFrame], metrics: Sequence[str], config: IntervalsConfig
) -> dict[str, dict[Trial, Outcome]]:
    """Measures metrics of trials with one draw of the women for all, so that they can be averaged and subtracted.

    Args:
        predictions: (variant, seed, fold) -> its predictions.
        metrics: such as patches_linear_auc.
        config: replicates and seed of the bootstrap.

    Returns:
        metric -> trial -> outcome.

    Raises:
        UserError: no trial at all, a trial lacks a metric's score, or two trials of a fold are of other data.
    """
    if not predictions:
        raise UserError("no trial has finished, so there is nothing to measure; the same command tries them again")
    names = {metric: parse_metric(metric) for metric in metrics}
    tables = {
        metric: {trial: _scored(table, name, trial) for trial, table in predictions.items()}
        for metric, name in names.items()
    }
    for of_metric in tables.values():
        _check_samples(of_metric)
    known = {woman for of_metric in tables.values() for table in of_metric.values() for woman in table.woman_id}
    women = pd.Index(sorted(known))
    return {metric: _outcomes(tables[metric], name, women, config, frozenset()) for metric, name in names.items()}


def _of_one_seed(tables: Mapping[Trial, pd.DataFrame], reference: str) -> frozenset[Trial]:
    """The trials of variants that share one seed with the reference, and the reference's of that seed."""
    of_reference = {trial[1:] for trial in tables if trial[0] == reference}
    found: set[Trial] = set()
    for variant in {trial[0] for trial in tables}:
        shared = [trial[1:] for trial in tables if trial[0] == variant and trial[1:] in of_reference]
        if len({seed for seed, _ in shared}) == 1:
            found |= {(name, *block) for name in (variant, reference) for block in shared}
    return frozenset(found)


def _outcomes(
    tables: Mapping[Trial, pd.DataFrame],
    name: MetricName,
    women: pd.Index,
    config: IntervalsConfig,
    left_out: frozenset[Trial],
) -> dict[Trial, Outcome]:
    """Statistic and replicates of every trial; all trials share one draw of the women of all folds.

    The trials of ``left_out`` are also measured without each woman; where there are more women than replicates, without
    each of as many groups, whose skewness tells the same.
    """
    weights = women_weights(len(women), config.replicates, config.seed)
    groups = np.arange(len(women)) % config.replicates
    without = (groups[None, :] != np.unique(groups)[:, None]).astype(np.int64)
    outcomes = {}
    for trial, table in tables.items():
        codes = women.get_indexer(pd.Index(table.woman_id))
        of_trial = np.vstack([weights, without]) if trial in left_out else weights
        found = measure(table, name.kind, codes, of_trial)
        replicates, rest = found.replicates[: len(weights)], found.replicates[len(weights) :]
        outcomes[trial] = Outcome(found.value, replicates, _samples(table), rest if trial in left_out else None)
    return outcomes


def _compared(
    outcomes: Mapping[Trial, Outcome], variant: str, reference: str, least: float, config: IntervalsConfig
) -> dict[str, Any]:
    """Value and effect of one variant with their intervals, p, counts and note; no value can be below the least.

    The effect's ``estimate`` comes along, for what depends on the family.
    """
    of_reference = _blocks(outcomes, reference)
    own = {block: outcome for block, outcome in _blocks(outcomes, variant).items() if block in of_reference}
    blank = {"estimate": None} | dict.fromkeys(NUMBERS, np.nan)
    if not own:
        return blank | counts(own) | {"note": f"no finished trial of a seed and fold that '{reference}' has"}
    value = estimate(own)
    low, high, undefined = _interval(value, own, config)
    reasons = {undefined: ["value"]}
    low, high = np.clip((low, high), least, 1)
    found = blank | {"value": value.mean, "value_low": low, "value_high": high} | counts(own)
    notes = [_note(own, of_reference, reference)]
    if variant != reference:
        paired = differences(own, of_reference)
        effect = estimate(paired)
        if all(_alike(outcome.samples, of_reference[block].samples) for block, outcome in own.items()):
            notes.append(SAME_PREDICTIONS)
        low, high, undefined = _interval(effect, paired, config)
        reasons.setdefault(undefined, []).append("effect")
        found |= {"estimate": effect, "effect": effect.mean, "effect_low": low, "effect_high": high}
        found["effect_size"] = effect.effect_size()
        better = probability_of_improvement(paired, config.confidence)
        found |= {"improvement": better.probability, "improvement_low": better.low, "improvement_high": better.high}
        if found["seeds"] > 1:
            found["p"] = effect.p_value()
        if effect.error == 0 and effect.mean != 0:
            notes.append("the same effect in every replicate and seed: its error cannot be estimated")
            found |= {"effect_low": np.nan, "effect_high": np.nan}
        if any(np.isnan(of_reference[block].value) for block in own):
            notes.append(f"'{reference}' has no value")
    notes += [f"t interval of {' and '.join(what)}, as BCa is undefined: {why}" for why, what in reasons.items() if why]
    if np.isnan(value.mean):
        notes.append(_why_missing(own))
    return found | {"note": "; ".join(note for note in notes if note)}


def _interval(found: Estimate, blocks: Mapping[Block, Outcome], config: IntervalsConfig) -> tuple[float, float, str]:
    """The BCa interval over women of one seed, else Student's t; and why there is no BCa interval of one seed."""
    by_t = found.interval(config.confidence)
    if len({seed for seed, _ in blocks}) > 1 or not found.error > 0:
        return *by_t, ""
    mean = weighted_sum(list(blocks.values()), [1 / len(blocks)] * len(blocks))
    women = counts(blocks)["women"]
    assert mean.left_out is not None
    by_bca = bca_interval(mean.value, mean.replicates, mean.left_out, women, expanded(config.confidence, women))
    return (*by_t, by_bca.undefined) if by_bca.undefined else (by_bca.low, by_bca.high, "")


def _blocks(outcomes: Mapping[Trial, Outcome], variant: str) -> dict[Block, Outcome]:
    return {(seed, fold): outcome for (name, seed, fold), outcome in outcomes.items() if name == variant}


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
    counted = counts(own)
    if counted["seeds"] == 1:
        notes.append("one seed: the interval covers other women, not other seeds")
    if counted["seeds"] == 2:
        notes.append("2 seeds: the interval is too narrow if seeds move the metric more than women do")
    if counted["women"] == 1:
        notes.append("one woman: no interval")
    replicates = np.stack([outcome.replicates for outcome in own.values()])
    undefined = int(np.isnan(replicates).any(axis=0).sum())
    if undefined and not any(np.isnan(outcome.value) for outcome in own.values()):
        notes.append(f"{undefined} of {replicates.shape[1]} replicates lack a class and are left out")
    return "; ".join(notes)


def _alike(own: pd.DataFrame, others: pd.DataFrame) -> bool:
    """Whether two trials have given the same samples the same values, and the same chances of every class."""
    if len(own) != len(others) or own.value.isna().any():
        return False
    if not all(np.array_equal(own[name].to_numpy(), others[name].to_numpy()) for name in ("sample_id", "value")):
        return False
    if "probabilities" not in own:
        return True
    return bool((own.probabilities.map(str).to_numpy() == others.probabilities.map(str).to_numpy()).all())


def _why_missing(blocks: Mapping[Block, Outcome]) -> str:
    """Why a statistic is missing, in the words of the predictions where they have some."""
    tables = [outcome.samples for outcome in blocks.values() if np.isnan(outcome.value)]
    said = {str(note) for table in tables if "note" in table for note in table.note[table.value.isna()].unique()}
    return "; ".join(sorted(said - {""})) or "a class is absent from the tested samples"


def _mean_cost(costs: Mapping[Trial, float], variant: str) -> float:
    own = [seconds for trial, seconds in costs.items() if trial[0] == variant]
    return float(np.mean(own)) if own else float("nan")


def _judged(rows: Sequence[Mapping[str, Any]], config: IntervalsConfig) -> pd.DataFrame:
    """Adds what depends on the family, which are the variants or the controls, and the verdict."""
    level = 1 - config.confidence
    table = pd.DataFrame(rows)
    margin = config.equivalence_margin
    table["equivalence_margin"] = np.nan if margin is None else margin
    for role in ("variant", "control"):
        family = table.index[table.role.eq(role) & table.p.notna()]
        table.loc[family, "p_holm"] = holm(table.p[family])
        estimates: list[Estimate] = list(table.estimate[family])
        table.loc[family, "detectable"] = [found.detectable(level / len(family)) for found in estimates]
        if margin is not None:
            equivalence = [found.p_equivalence(margin) for found in estimates]
            table.loc[family, "p_equivalence"] = equivalence
            table.loc[family, "p_equivalence_holm"] = holm(equivalence)
    table["verdict"] = [verdict(row, level) for row in table.to_dict("records")]
    return table


def _named(trial: Trial) -> str:
    return f"'{trial[0]}' (seed {trial[1]}, fold {trial[2]})"
