"""The results of a search in, the same with every trial as a variant of its own out, as in an ablation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dashboards.figures import style
from siamray.sweeps.results import Results

SHOWN = 6
"""Trials of a search that a figure shows, the best ones: as many as colours can be told apart."""


def as_variants(results: Results) -> Results:
    """Ranks the trials of a search and names them by rank.

    Args:
        results: a search, whose trials are all of one variant, with the searched options as its overrides.

    Returns:
        The same with variants "no. 1", "no. 2", ... from best to worst; the overrides of a variant are the searched
        options as the trial drew them. Failed and broken trials come last.
    """
    metric = str(results.experiment["metric"])
    scores = results.trials[metric] if metric in results.trials else pd.Series(float("nan"), results.trials.index)
    order = scores.where(results.trials["state"] == "finished").sort_values(ascending=False, na_position="last").index
    trials = results.trials.loc[order].reset_index(drop=True)
    trials["variant"] = [f"no. {rank}" for rank in range(1, len(trials) + 1)]
    options = list(dict.fromkeys(option for names in results.experiment["variants"].values() for option in names))
    variants = {
        str(name): _drawn(results, trial_id, options) if state != "broken" else []
        for name, trial_id, state in zip(trials["variant"], trials["trial_id"], trials["state"], strict=True)
    }
    return dataclasses.replace(results, trials=trials, experiment=results.experiment | {"variants": variants})


def answer(results: Results) -> str:
    """Says which trial of a search is best, and that this is a selection, not a finding.

    Args:
        results: from as_variants().
    """
    metric = str(results.experiment["metric"])
    finished = results.trials[results.trials["state"] == "finished"]
    if metric not in finished or not finished[metric].notna().any():
        return "No trial has finished yet."
    best = finished.iloc[0]
    drawn = " ".join(results.experiment["variants"][best["variant"]]) or "its settings"
    return (
        f"Best of {style.count(len(finished), 'finished trial')} by the {style.metric_name(metric)}: "
        f"{style.number(best[metric])} with {drawn}. The best of many is better by luck too: it is a choice to be "
        "confirmed by an ablation on fresh seeds and test women, not a result."
    )


def _drawn(results: Results, trial_id: str, options: list[str]) -> list[str]:
    config = results.trial(trial_id)["config"] or {}
    # An option written with its value, name=value, was not searched but set.
    return [option if "=" in option else f"{option}={_looked_up(config, option)}" for option in options]


def _looked_up(config: Mapping[str, Any], option: str) -> Any:
    value: Any = config
    for key in option.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return f"{value:.4g}" if isinstance(value, float) else value
