"""Results in, the tables of a report out, as HTML."""

from typing import Any

from dashboards import page
from dashboards.figures import style
from siamray.sweeps.metric_words import metric_name
from siamray.sweeps.results import Results


def comparison(results: Results, metric: str, looks: dict[str, style.Look]) -> str:
    """Tabulates one metric: a row per variant, the controls below.

    Args:
        results: an experiment.
        metric: one metric of its comparison.
        looks: variant -> look.
    """
    rows = results.comparison[results.comparison["metric"] == metric]
    lines: list[list[str]] = []
    for role, group in rows.groupby(rows["role"].eq("control"), sort=True):
        lines.append([f"<em>{'Controls' if role else 'Variants'}</em>"])
        lines += [_comparison_row(row, looks) for row in style.records(group)]
    head = ["", "value [interval]", "difference [interval]", "p", "Holm p", "seeds", "women", "time per trial"]
    return page.table(head, lines)


def _comparison_row(row: dict[str, Any], looks: dict[str, style.Look]) -> list[str]:
    name = str(row["variant"])
    reference = name == row["reference"]
    effect = style.interval(row["effect"], row["effect_low"], row["effect_high"], sign=True)
    return [
        page.key(style.look_of(name, looks).color) + page.text(name),
        style.interval(row["value"], row["value_low"], row["value_high"]),
        "reference" if reference else effect,
        page.text(style.probability(row["p"])),
        page.text(style.probability(row["p_holm"])),
        style.whole(row["seeds"]),
        style.whole(row["women"]),
        style.seconds(row["cost_wall_s"]),
    ]


def trials(results: Results, metric: str | None, looks: dict[str, style.Look]) -> str:
    """Tabulates every trial, in the order of the results.

    Args:
        results: an experiment.
        metric: the metric that is shown.
        looks: variant -> look.
    """
    frame = results.trials
    if metric not in frame:
        frame = frame.assign(**{str(metric): float("nan")})
    names = results.experiment["variants"] | results.experiment["controls"]
    lines = []
    for row in style.records(frame):
        overrides = names.get(row["variant"]) or []
        ends = (row.get(f"{metric}_low", float("nan")), row.get(f"{metric}_high", float("nan")))
        lines.append(
            [
                page.key(style.look_of(str(row["variant"]), looks).color)
                + page.text(row["variant"] or row["trial_id"]),
                style.whole(row["seed"]),
                style.whole(row["fold"]),
                page.text(row["state"]),
                style.interval(row[str(metric)], *ends),
                style.seconds(row.get("wall_s", float("nan"))),
                page.code(" ".join(overrides)) if overrides else "",
            ]
        )
    head = ["", "seed", "fold", "state", metric_name(str(metric)), "time", "overrides"]
    return page.table(head, lines, words=[3, 6])


def failures(results: Results) -> str:
    """Tabulates the trials that failed, cannot be read, or have not ended, with the reason."""
    lines = [
        [
            page.text(row["variant"] or row["trial_id"]),
            style.whole(row["seed"]),
            row["state"],
            page.text(row["reason"] or "unknown"),
        ]
        for row in style.records(results.trials[results.trials["state"] != "finished"])
    ]
    reason = "still runs, or was interrupted: the same command goes on with it"
    lines += [[page.text(trial), style.NONE, "not ended", reason] for trial in results.unfinished]
    return page.table(["", "seed", "state", "reason"], lines, words=[2, 3]) if lines else ""


def setup(results: Results) -> str:
    """Lists how the experiment was set up: data, women, options, code."""
    record = results.experiment
    women = (record["data"] or {}).get("women") or {}
    git = record["git"] or {}
    commit = git.get("commit") or "unknown"
    entries = [
        ("command", page.code(record["command"] or "unknown")),
        ("data", page.text((record["data"] or {}).get("source", "unknown"))),
        ("prepared exams", page.code((record["data"] or {}).get("store_fingerprint", "unknown"))),
        ("women", page.text(", ".join(f"{n} {split}" for split, n in women.items()) or "unknown")),
        ("seeds", page.text(", ".join(map(str, record["seeds"])))),
        ("test folds", page.text(", ".join(map(str, record["folds"])) or "as configured")),
        ("common overrides", _overrides(record["base_overrides"])),
        ("commit", page.code(commit) + (" with uncommitted changes" if git.get("dirty") else "")),
        ("versions", page.text(", ".join(f"{name} {version}" for name, version in (record["versions"] or {}).items()))),
        ("created", page.text(record["created"] or "unknown")),
    ]
    lines: list[list[str]] = []
    for title, names in (("Variants", record["variants"]), ("Controls", record["controls"])):
        if names:
            lines.append([f"<em>{title}</em>"])
            lines += [[page.text(name), _overrides(overrides)] for name, overrides in names.items()]
    return page.definitions(entries) + page.table(["", "overrides"], lines, words=[1])


def primary_metric(results: Results) -> str | None:
    """The experiment's metric, or any it has where none is named."""
    if results.experiment["metric"]:
        return str(results.experiment["metric"])
    columns = [str(name) for name in results.trials]
    named = [*results.comparison["metric"], *(name.removesuffix("_low") for name in columns if name.endswith("_low"))]
    return str(named[0]) if named else None


def _overrides(overrides: list[str]) -> str:
    return page.code(" ".join(overrides)) if overrides else "none"
