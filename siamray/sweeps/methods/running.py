"""What an experiment recorded goes in; paragraphs on how it was searched, tuned and run come out."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from siamray.sweeps.methods.recorded import Known, Paragraph, shared_trials
from siamray.sweeps.methods.wording import NOT_RECORDED, distinct, in_words, listed, numbered
from siamray.sweeps.metric_words import metric_name

# Reasons and notes named one by one.
_SHOWN = 5
_STATES = {"failed": "failed", "pruned": "stopped early by the search", "broken": "unreadable"}


def describe_search(known: Known) -> Paragraph | None:
    """Space, sampler, objectives and budget of a search; nothing of an ablation."""
    if not known.is_search:
        return None
    asked = known.record["search"] or {}
    sought = known.record["objectives"] or {known.record["metric"] or NOT_RECORDED: "maximize"}
    limits = {"trials": "settings", "hours": "hours", "cpu_hours": "CPU hours", "gpu_hours": "GPU hours"}
    budget = listed([f"{asked[key]:g} {unit}" for key, unit in limits.items() if asked.get(key) is not None])
    pruner = asked.get("pruner")
    stopped = {
        None: NOT_RECORDED,
        "none": "none, every setting was trained to its end",
        "asha": f"asha (one in {asked.get('reduction')} goes on, from epoch {asked.get('grace_epochs')} on)",
        "median": f"median (after {asked.get('startup_trials')} settings, from epoch {asked.get('grace_epochs')} on)",
    }.get(pruner, str(pruner))
    objectives = listed([f"{direction} the {metric_name(str(name))}" for name, direction in sought.items()])
    text = (
        f"Objective: {objectives}. Sampler (Optuna): {asked.get('sampler') or NOT_RECORDED}; budget: "
        f"{budget or NOT_RECORDED}; early stopping: {stopped}. Settings were chosen by validation women alone"
    )
    if len(sought) > 1:
        text += (
            "; of the Pareto front the member nearest to the ideal point was taken, every objective scaled to its range"
        )
    states = known.results.selection["state"].value_counts()
    tried = [f"{states[state]} {state}" for state in ("complete", "pruned", "failed") if state in states]
    text += f". Settings tried: {listed(tried) or NOT_RECORDED}. "
    if len(known.compared):
        text += (
            f"The winner was then compared with the untouched base on test women, over {numbered(known.seeds, 'seed')} "
            "that the search had not seen."
        )
    else:
        text += "The winner is not confirmed on fresh seeds and test women: what is reported is a selection."
    items = [f"{name}: {_space(place)}" for name, place in (asked.get("parameters") or {}).items()]
    if not items:
        searched = (known.record["variants"] or {}).get("searched") or []
        items = [f"{option}: limits {NOT_RECORDED}" for option in searched]
    importance = known.results.importance()
    if importance["importance"].notna().any():
        methods = listed(sorted(set(importance["method"].dropna())))
        text += f" The importance of the options was told by {methods}; it describes the search and tests nothing."
    return Paragraph("Search", text, items)


def _space(place: Mapping[str, Any]) -> str:
    if place.get("choices"):
        words = f"one of {', '.join(map(in_words, place['choices']))}"
    else:
        words = f"{place.get('kind')} from {in_words(place.get('low'))} to {in_words(place.get('high'))}"
        words += " (log)" if place.get("log") else ""
    rule = place.get("only_if") or {}
    return words + (
        f", only if {listed([f'{name} is {in_words(value)}' for name, value in rule.items()])}" if rule else ""
    )


def describe_tuning(known: Known) -> Paragraph | None:
    """How variants were tuned before they were compared; nothing where none was."""
    tuning = known.record.get("tuning") or {}
    if not tuning:
        return None
    text = (
        f"Before the comparison each variant and control tried {tuning.get('settings') or NOT_RECORDED} settings on "
        f"each fold (sampler {tuning.get('sampler') or NOT_RECORDED}, seed {in_words(tuning.get('seed'))}); the one "
        f"with the best {metric_name(str(tuning.get('metric')))} was compared. Test women chose nothing."
    )
    items = [f"{name}: {_space(place)}" for name, place in (tuning.get("parameters") or {}).items()]
    items += [f"{name} was not tuned: {why}" for name, why in (tuning.get("untuned") or {}).items()]
    return Paragraph("Tuning", text, items)


def describe_trials(known: Known) -> Paragraph:
    """Seeds, folds, and what became of the trials."""
    states = known.results.trials["state"].value_counts()
    unfinished = len(known.results.unfinished)
    begun = int(states.sum()) + unfinished
    asked = known.record["trials"]
    total = max(begun, len(asked)) if asked is not None else begun
    parts = [f"{int(states.get('finished', 0))} finished"]
    parts += [f"{states[name]} {words}" for name, words in _STATES.items() if name in states]
    parts += [f"{unfinished} not ended"] if unfinished else []
    parts += [f"{total - begun} not begun"] if total > begun else []
    seeds, folds = known.record["seeds"] or [], known.record["folds"] or []
    text = (
        f"{'The experiment had' if known.is_search else 'Each variant and control was trained with'} "
        f"{numbered(len(seeds), 'seed')} ({', '.join(map(str, seeds)) or NOT_RECORDED}) on "
        f"{numbered(len(folds), 'fold')} ({', '.join(map(str, folds)) or NOT_RECORDED}). A seed decides the weights at "
        f"the start, the order of the pairs and their augmentation. Of {numbered(total, 'trial')}: {listed(parts)}."
    )
    tuned = int(known.results.trials["role"].eq("tuning").sum())
    if tuned:
        text += f" {numbered(tuned, 'trial')} of them chose settings and are not compared."
    shared = shared_trials(known.results)
    if shared:
        sources = listed([f"{number} from {name}" for name, number in shared.items()])
        text += f" Trials taken over from another experiment with the same options, data, code and versions: {sources}."
    failed = known.results.trials[known.results.trials["state"].isin(["failed", "broken"])]
    items = [f"{row['trial_id']} {row['state']}: {row['reason'] or 'reason ' + NOT_RECORDED}"
             for row in failed.head(_SHOWN).to_dict("records")]  # fmt: skip
    if len(failed) > _SHOWN:
        items.append(f"and {len(failed) - _SHOWN} more")
    return Paragraph("Seeds and trials", text, items)


def describe_compute(known: Known) -> Paragraph:
    """Hours, machines and processes."""
    costs = [trial.get("cost") or {} for trial in known.trials if not trial.get("shared_from")]
    here = pd.DataFrame(costs, columns=["wall_s", "cpu_s", "gpu_s"], dtype="float64")
    parts = [
        f"{here[column].sum() / 3600:.2f} {unit}"
        for column, unit in (("cpu_s", "CPU hours"), ("gpu_s", "GPU hours"))
        if here[column].gt(0).any()
    ]
    spent = (
        f"{listed(parts)} reserved by {numbered(len(here), 'trial')} ({here['wall_s'].sum() / 3600:.2f} hours if they "
        "had run one after the other)"
        if parts
        else NOT_RECORDED
    )
    text = f"{spent[0].upper()}{spent[1:]}. "
    if len(here) < len(known.trials):
        text += f"The other {numbered(len(known.trials) - len(here), 'trial')}, taken over, cost nothing here. "
    machines = [trial.get("environment") or {} for trial in known.trials] or [known.record["environment"] or {}]
    text += f"Hardware: {_machines(machines)}. Processes per trial: {_processes(known)}."
    return Paragraph("Compute", text)


def _machines(machines: Sequence[Mapping[str, Any]]) -> str:
    counted: dict[str, int] = {}
    for machine in machines:
        if not machine:
            continue
        gpus = machine.get("gpus") or []
        threads = machine.get("threads")
        used = f", {numbered(threads, 'thread')} per process" if isinstance(threads, int) else ""
        words = (
            f"{machine.get('cpu') or 'processor ' + NOT_RECORDED}, {in_words(machine.get('cpus'))} processors, "
            f"{listed(gpus) if gpus else 'no GPU'}"
            f"{used}, {machine.get('platform') or 'system ' + NOT_RECORDED}"
        )
        counted[words] = counted.get(words, 0) + 1
    if len(counted) > 1:
        return "; ".join(f"{words} ({numbered(number, 'trial')})" for words, number in counted.items())
    return next(iter(counted), NOT_RECORDED)


def _processes(known: Known) -> str:
    workers = known.option("cluster.workers")
    if workers is None:
        return NOT_RECORDED
    return "1" if workers == 0 else f"{workers} Ray Train workers"


def describe_reproducibility(known: Known) -> Paragraph:
    """Versions, code, data and command."""
    record = known.record
    versions: dict[str, set[str]] = {}
    for own in [trial.get("versions") or {} for trial in known.trials] or [record["versions"] or {}]:
        for name, version in own.items():
            versions.setdefault(name, set()).add(str(version))
    if not versions:
        versions = {name: {str(version)} for name, version in (record["versions"] or {}).items()}
    named = ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in versions.items())
    states = [trial.get("git") or {} for trial in known.trials] + [record["git"] or {}]
    commits = distinct(state.get("commit") for state in states)
    dirty = any(state.get("dirty") for state in states)
    diffs = distinct(state.get("diff_sha256") for state in states)
    recorded = any("dirty" in state for state in states)
    changes = "with uncommitted changes" if dirty else "without uncommitted changes"
    text = (
        f"Software: {named or NOT_RECORDED}. Code: commit {listed(commits) or NOT_RECORDED}, "
        f"{changes if recorded else 'uncommitted changes ' + NOT_RECORDED}"
        f"{f' to the code (SHA-256 of the difference {listed(diffs)})' if diffs else ''}; fingerprint of the code that "
        "decides the numbers "
        f"{listed(distinct(trial.get('code') for trial in known.trials)) or NOT_RECORDED}; fingerprint of "
        f"the data {listed(distinct(trial.get('data_fingerprint') for trial in known.trials)) or NOT_RECORDED}. Begun "
        f"{record['created'] or NOT_RECORDED}. Command: {record['command'] or NOT_RECORDED}"
    )
    return Paragraph("Software and reproducibility", text)
