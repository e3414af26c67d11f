"""The results of an ablation that tuned its variants in; what that changed out, as HTML, and the results without it."""

import dataclasses

from dashboards import page
from dashboards.figures import style
from siamray.sweeps.metric_words import metric_name
from siamray.sweeps.results import Results
from siamray.sweeps.setting_words import shown
from siamray.sweeps.tuning_changes import tuning_changes


def compared(results: Results) -> Results:
    """Leaves out the trials that chose settings: they are compared with nothing.

    Args:
        results: an experiment.
    """
    return dataclasses.replace(results, trials=results.trials[results.trials["role"] != "tuning"])


def changes(results: Results, looks: dict[str, style.Look]) -> str:
    """Tabulates what tuning changed; "" where nothing was tuned.

    Args:
        results: an experiment.
        looks: variant -> look.
    """
    if results.tuning.empty:
        return ""
    record = results.experiment["tuning"]
    chosen_by, tested = str(record.get("metric")), str(results.experiment["metric"])
    lines = [
        [
            page.key(style.look_of(str(row["variant"]), looks).color) + page.text(row["variant"]),
            style.whole(row["fold"]),
            style.whole(row["tried"]) + (f", {row['failed']} failed" if row["failed"] else ""),
            style.number(row["own_value"]),
            style.number(row["value"]),
            style.number(row["own_test"]),
            style.number(row["test"]),
            "its own" if row["own"] else page.code(shown(row["settings"])),
        ]
        for row in style.records(tuning_changes(results.tuning))
    ]
    head = ["", "fold", "settings tried", "validation: own", "chosen", "test: own", "chosen", "setting"]
    words = (
        f"Every variant and control tried {record.get('settings')} settings on each fold, drawn by "
        f"{record.get('sampler')} with seed {record.get('seed')}, its own first; the best by the "
        f"{metric_name(chosen_by)} is compared above, with other seeds. Validation: the best of several is "
        f"flattered by the choice. Test: the {metric_name(tested)} of the same trials, which chose nothing; one "
        "seed each, so no evidence of its own."
    )
    untuned = [f"Not tuned: {name}: {reason}." for name, reason in (record.get("untuned") or {}).items()]
    return page.section(
        "What tuning changed", page.table(head, lines, words=[7]), page.note(words), *map(page.note, untuned)
    )
