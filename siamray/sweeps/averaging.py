"""Folders of experiments go in, one of each data set; what their variants are worth over all of them comes out."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from siamray.config import IntervalsConfig
from siamray.downstream.metrics import parse_metric, rows_of
from siamray.errors import UserError, nearest
from siamray.sweeps import results
from siamray.sweeps.across import Across
from siamray.sweeps.aggregate import CHANCE, Measured, interquartile_means, performance_profiles
from siamray.sweeps.comparison import Trial, measured
from siamray.sweeps.estimates import Outcome
from siamray.sweeps.ranks import RankedBlock, Ranking, rank_variants

Predictions = dict[Trial, pd.DataFrame]


def average_over(folders: Sequence[str | Path], metrics: Sequence[str] = ()) -> Across:
    """Averages the variants that some experiments have in common over metrics and data sets, and ranks them.

    Variants and controls are the same where they have the same name. Only seeds count that all of them finished on all
    folds of an experiment, so that every run is of the same women. Intervals are as the first experiment asks for.

    Args:
        folders: ``<results>/<experiment>`` each, paths or URLs, of different data sets.
        metrics: those to average over, the first one ranks; none = all that every experiment compares and that have a
            level of chance.

    Raises:
        UserError: two experiments of one data set, no variant in common, a metric that is unknown, has no level of
            chance or that a trial lacks, no seed that all finished on all folds, or unequal numbers of seeds.
    """
    loaded = _named([results.load(folder) for folder in folders])
    _check_data_sets(loaded)
    notes: list[str] = []
    variants, controls = _common_variants(loaded, notes)
    predictions = {name: _whole(name, one, variants, notes) for name, one in loaded.items()}
    asked = _metrics(loaded, predictions, metrics, notes)
    config = _intervals(next(iter(loaded.values())))
    outcomes: Measured = {
        # Another draw for every data set: their women are others.
        name: measured(own, asked, dataclasses.replace(config, seed=config.seed + place))
        for place, (name, own) in enumerate(predictions.items())
    }
    ranking, unranked = _ranked(predictions, outcomes, asked[0], [name for name in variants if name not in controls],
                                1 - config.confidence)  # fmt: skip
    return Across(
        experiments=list(loaded),
        reference=variants[0],
        controls=controls,
        tasks=_tasks(outcomes),
        means=interquartile_means(outcomes, variants, config),
        profiles=performance_profiles(outcomes, variants, config),
        ranked_by=asked[0],
        ranking=ranking,
        unranked=unranked,
        confidence=config.confidence,
        notes=notes,
    )


def _named(loaded: Sequence[results.Results]) -> dict[str, results.Results]:
    """Names experiments by their folders, and by as many of the folders above as it takes to tell them apart."""
    found: dict[str, results.Results] = {}
    for one in loaded:
        parts = one.path.parts
        same = [other.path.parts for other in loaded if other.path.name == one.path.name]
        depth = next((n for n in range(1, len(parts) + 1) if len({p[-n:] for p in same}) == len(same)), 0)
        if depth == 0:
            raise UserError(f"results: {one.path} is there twice; name every experiment once")
        found["/".join(parts[-depth:])] = one
    return found


def _check_data_sets(loaded: Mapping[str, results.Results]) -> None:
    """Refuses two experiments of one data set: its women would count as several samples.

    Raises:
        UserError: naming the two.
    """
    known: dict[Any, str] = {}
    for name, one in loaded.items():
        for identity in _identities(one):
            if known.setdefault(identity, name) != name:
                raise UserError(
                    f"results: {known[identity]} and {name} are both of {identity[0]}, so that its women would count "
                    "twice; give one experiment per data set, with its folds in one sweep (ablation.folds)"
                )


def _identities(loaded: results.Results) -> list[tuple[str, Any]]:
    """What tells whose women these are: the prepared exams, and the data set, of generated women with their seed."""
    data = loaded.experiment["data"] or {}
    found: list[tuple[str, Any]] = []
    if data.get("store_fingerprint"):
        found.append((f"the prepared exams {str(data['store_fingerprint'])[:12]}", None))
    finished = loaded.trials.loc[loaded.trials["state"] == "finished", "trial_id"]
    own: dict[str, Any] = {}
    if len(finished):
        own = (loaded.trial(str(finished.iloc[0]))["config"] or {}).get("data") or {}
    source = own.get("source") or data.get("source")
    which = {"phantom": (own.get("phantom") or {}).get("seed"), "folder": own.get("root")}
    # Generated women and one's own of unknown seed or folder may be others.
    if source and not (source in which and which[source] is None):
        found.append((f"the data set '{source}'", which.get(source)))
    return found


def _common_variants(loaded: Mapping[str, results.Results], notes: list[str]) -> tuple[list[str], list[str]]:
    """The variants and controls with a finished trial in every experiment, the reference first; and the controls.

    Raises:
        UserError: there is none, or one alone.
    """
    names: dict[str, list[str]] = {}
    for experiment, one in loaded.items():
        finished = set(one.trials.loc[one.trials["state"] == "finished", "variant"])
        record = one.experiment
        # Of a search this is many settings under one name.
        names[experiment] = [
            name for name in [*record["variants"], *record["controls"]] if name in finished and name != "searched"
        ]
    first, own = next(iter(names.items()))
    common = [name for name in own if all(name in others for others in names.values())]
    if len(common) < 2:
        shown = "; ".join(f"{experiment} has {', '.join(own) or 'none'}" for experiment, own in names.items())
        raise UserError(
            f"results: {len(common) or 'no'} variant{'s' * (not common)} with finished trials in common, and two are "
            f"needed ({shown})"
        )
    left_out = list(dict.fromkeys(name for own in names.values() for name in own if name not in common))
    if left_out:
        notes.append(f"not in every experiment, or not finished there, and so left out: {', '.join(left_out)}")
    reference = loaded[first].experiment["reference"]
    if reference not in common:
        notes.append(f"the reference of {first} is not in common; {common[0]} takes its place")
        reference = common[0]
    controls = [name for name in common if name in loaded[first].experiment["controls"]]
    return [reference, *(name for name in common if name != reference)], controls


def _whole(experiment: str, loaded: results.Results, variants: Sequence[str], notes: list[str]) -> Predictions:
    """Reads the trials of the seeds that all variants finished on all folds.

    Raises:
        UserError: there is no such seed.
    """
    rows = loaded.trials[(loaded.trials["state"] == "finished") & loaded.trials["variant"].isin(list(variants))]
    folds = set(rows["fold"])
    of_seed = {seed: set(zip(own["variant"], own["fold"], strict=True)) for seed, own in rows.groupby("seed")}
    whole = [seed for seed, there in of_seed.items() if len(there) == len(variants) * len(folds)]
    if not whole:
        raise UserError(
            f"results: {experiment} has no seed that all of {', '.join(variants)} finished on all folds "
            f"({', '.join(map(str, sorted(folds)))}), so that runs would be of different women; run its sweep again"
        )
    if len(whole) < len(of_seed):
        lost = ", ".join(str(seed) for seed in of_seed if seed not in whole)
        notes.append(f"{experiment}: seed {lost} is left out, as not all variants finished it on all folds")
    kept = rows[rows["seed"].isin(whole)]
    return {
        (str(row["variant"]), int(row["seed"]), int(row["fold"])): loaded.predictions(str(row["trial_id"]))
        for row in kept.to_dict("records")
    }


def _metrics(
    loaded: Mapping[str, results.Results],
    predictions: Mapping[str, Predictions],
    asked: Sequence[str],
    notes: list[str],
) -> list[str]:
    """The metrics to average over.

    Raises:
        UserError: one is unknown or on validation women, or none is left.
    """
    for name in asked:
        if parse_metric(name).split == "validation":
            raise UserError(f"metrics: {name} is of validation women, who chose the probe; say {name[11:]}")
        if parse_metric(name).kind not in CHANCE:
            known = ", ".join(CHANCE)
            raise UserError(f"metrics: {name} is worth another number by chance on each data set; average {known}")
    if asked:
        return list(dict.fromkeys(asked))
    compared = {
        name: list(dict.fromkeys([one.experiment["metric"], *one.comparison["metric"]])) for name, one in loaded.items()
    }
    first = next(iter(compared.values()))
    common = [metric for metric in first if metric and all(metric in others for others in compared.values())]
    found = []
    for metric in common:
        parsed = parse_metric(metric)
        if parsed.kind not in CHANCE or parsed.split != "test":
            continue
        lacking = [
            trial for own in predictions.values() for trial, table in own.items() if rows_of(table, parsed).empty
        ]
        if lacking:
            notes.append(f"{metric} is left out, as {lacking[0][0]} has no such score")
        else:
            found.append(metric)
    if not found:
        hint = nearest(str(first[0]), ["patches_linear_auc"]) if first else ""
        raise UserError(f"metrics: the experiments compare no metric in common that has a level of chance{hint}")
    return found


def _intervals(loaded: results.Results) -> IntervalsConfig:
    """Replicates, confidence and seed that the trials of an experiment were asked with."""
    trial_id = loaded.trials.loc[loaded.trials["state"] == "finished", "trial_id"].iloc[0]
    downstream = (loaded.trial(str(trial_id))["config"] or {}).get("downstream") or {}
    recorded = downstream.get("intervals") or {}
    known = {entry.name for entry in dataclasses.fields(IntervalsConfig)}
    return IntervalsConfig(**{name: value for name, value in recorded.items() if name in known})


def _ranked(
    predictions: Mapping[str, Predictions], outcomes: Measured, metric: str, variants: Sequence[str], level: float
) -> tuple[Ranking | None, str]:
    """Ranks the variants without the controls over the data sets; or why that is not justified."""
    blocks = [
        RankedBlock(
            name,
            # Ids of women are their data set's own.
            frozenset(f"{name} {woman}" for table in own.values() for woman in table["woman_id"].unique()),
            {variant: _mean(outcomes[name][metric], variant) for variant in variants},
        )
        for name, own in predictions.items()
    ]
    try:
        return rank_variants(blocks, level), ""
    except UserError as error:
        return None, str(error)


def _mean(trials: Mapping[Trial, Outcome], variant: str) -> float:
    return float(np.mean([outcome.value for trial, outcome in trials.items() if trial[0] == variant]))


def _tasks(outcomes: Measured) -> pd.DataFrame:
    rows = []
    for name, of_metric in outcomes.items():
        for metric, trials in of_metric.items():
            women = {woman for outcome in trials.values() for woman in outcome.samples["woman_id"]}
            seeds, folds = ({trial[place] for trial in trials} for place in (1, 2))
            rows.append({"experiment": name, "metric": metric, "women": len(women)} | {"seeds": len(seeds),
                                                                                      "folds": len(folds)})  # fmt: skip
    return pd.DataFrame(rows, columns=["experiment", "metric", "women", "seeds", "folds"])
