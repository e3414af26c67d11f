"""Trials go in; which variants were trained without the labels that their method has comes out."""

from collections.abc import Sequence

from siamray.sweeps.ablation import Trial
from siamray.sweeps.results import Results


def unused_labels(results: Results, trials: Sequence[Trial]) -> dict[str, str]:
    """Says of which variants some trials have used no label at all, so that nothing about labels was tested by them.

    A mixture whose components tell nothing apart gives no labels, and neither does a warm-up that lasts to the end:
    then all pairs are taken for similar.

    Args:
        results: of the experiment.
        trials: those that are looked at; only finished ones whose method has labels count.

    Returns:
        variant -> a remark; only variants of which a trial has used none.
    """
    finished = set(results.trials.trial_id[results.trials.state == "finished"])
    used: dict[str, list[bool]] = {}
    for trial in trials:
        method = trial.config.pretraining
        if trial.trial_id in finished and method.epochs and method.method == "siamese" and method.labels != "none":
            used.setdefault(trial.variant, []).append(bool((results.epochs(trial.trial_id).label_mean > 0).any()))
    return {
        variant: f"{known.count(False)} of {len(known)} trials used no label: no mixture told anything apart once the "
        "warm-up was over"
        for variant, known in used.items()
        if not all(known)
    }
