"""The results of a search in, the same with every searched trial as a variant of its own out, as in an ablation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dashboards import page
from dashboards.figures import style
from siamray.sweeps.metric_words import metric_name
from siamray.sweeps.results import Results
from siamray.sweeps.setting_words import shown

SEARCHED = "searched"
SHOWN = 6
"""Trials of a search that a figure shows, the best ones: as many as colours can be told apart."""


def as_variants(results: Results) -> Results:
    """Ranks the searched trials of a search and names them by rank.

    Args:
        results: a search, whose searched trials are all of one variant, with the searched options as its overrides.
            The trials that confirm its winner on fresh seeds have variants of their own, and stay what they are.

    Returns:
        The same with variants "no. 1", "no. 2", ... from best to worst by the first objective; the overrides of a
        variant are the searched options as the trial drew them. Pruned, failed and broken trials come last.
    """
    metric = str(results.experiment["metric"])
    named = {name: overrides for name, overrides in results.experiment["variants"].items() if name != SEARCHED}
    own = results.trials[~results.trials["variant"].isin(list(named))]
    scores = own[metric] if metric in own else pd.Series(float("nan"), own.index)
    finished = scores.where(own["state"] == "finished")
    least = results.experiment["objectives"].get(metric) == "minimize"
    order = finished.sort_values(ascending=least, na_position="last").index
    trials = own.loc[order].reset_index(drop=True)
    trials["variant"] = [f"no. {rank}" for rank in range(1, len(trials) + 1)]
    options = results.experiment["variants"].get(SEARCHED, [])
    chosen = {} if results.selection.empty else dict(results.selection[["trial_id", "settings"]].to_numpy())
    variants = {
        str(name): _drawn(results, trial_id, options, chosen.get(trial_id)) if state != "broken" else []
        for name, trial_id, state in zip(trials["variant"], trials["trial_id"], trials["state"], strict=True)
    }
    confirming = results.trials[results.trials["variant"].isin(list(named))]
    return dataclasses.replace(
        results,
        trials=pd.concat([trials, confirming], ignore_index=True),
        experiment=results.experiment | {"variants": variants | named},
    )


def searched(results: Results) -> Results:
    """Leaves the searched trials only.

    Args:
        results: from as_variants().
    """
    return dataclasses.replace(results, trials=results.trials[results.trials["variant"].str.startswith("no. ")])


def answer(results: Results) -> str:
    """Says which trial of a search is best, and that this is a selection, not a finding.

    Args:
        results: from as_variants().
    """
    metric = str(results.experiment["metric"])
    own = searched(results).trials
    finished = own[own["state"] == "finished"]
    if metric not in finished or not finished[metric].notna().any():
        return "No trial has finished yet."
    best = finished.iloc[0]
    by = f"by the {metric_name(metric)}: {style.number(best[metric])}"
    first = "Best"
    sought = list(results.experiment["objectives"])
    if len(sought) > 1 and not results.selection.empty:
        own = results.selection[results.selection["winner"].astype(bool)]
        if own.empty or not finished["trial_id"].isin(own["trial_id"]).any():
            return "The winner is a trial of another experiment, see below."
        best = finished[finished["trial_id"].isin(own["trial_id"])].iloc[0]
        values = [f"{metric_name(name)} {style.number(own[name].iloc[0])}" for name in sought]
        first, by = f"{best['variant']} is the winner", f"by {len(sought)} objectives ({'; '.join(values)})"
    drawn = " ".join(results.experiment["variants"][best["variant"]]) or "its settings"
    after = "the comparison below, on fresh seeds and test women, is the result"
    if results.comparison.empty:
        after = "to be confirmed on fresh seeds and test women, not a result"
    return (
        f"{first} of {style.count(len(finished), 'finished trial')} {by} with {drawn}. "
        f"The best of many is better by luck too: it is a choice; {after}."
    )


def front(results: Results) -> str:
    """Tabulates the Pareto front of a search with several objectives, as HTML; "" where it has one.

    Args:
        results: from as_variants().
    """
    sought = results.experiment["objectives"]
    selection = results.selection
    if len(sought) < 2 or selection.empty:
        return ""
    numbers = results.trials.set_index("trial_id")["variant"]
    lines = [
        [
            page.text(numbers.get(row["trial_id"], "lent") + (" (winner)" if row["winner"] else "")),
            *(style.number(row[name]) for name in sought),
            page.code(shown(row["settings"])),
        ]
        for row in style.records(selection[selection["front"].astype(bool)])
    ]
    wanted = {"maximize": "high", "minimize": "low"}
    head = ["", *(f"{metric_name(name)}, {wanted[direction]} is better" for name, direction in sought.items())]
    words = (
        "Settings that no other one beats in one objective without losing in another. The winner is the one nearest to "
        "the ideal point, every objective scaled to its range on the front."
    )
    return f"<h3>Pareto front</h3>{page.table([*head, 'setting'], lines, words=[len(head)])}{page.note(words)}"


def _drawn(results: Results, trial_id: str, options: list[str], settings: str | None) -> list[str]:
    """What a trial drew: its settings where they are known, without options that did not matter; else all options."""
    if settings:
        return shown(settings).split()
    config = results.trial(trial_id)["config"] or {}
    # An option written with its value, name=value, was not searched but set.
    return [option if "=" in option else f"{option}={_looked_up(config, option)}" for option in options]


def _looked_up(config: Mapping[str, Any], option: str) -> Any:
    value: Any = config
    for key in option.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return f"{value:.4g}" if isinstance(value, float) else value
