"""Results go in; a warning comes out where their trials had batches of different sizes."""

from siamray.sweeps.results import Results


def batches_that_differ(results: Results) -> list[str]:
    """Warns, in a sentence, where variants were trained in batches of different sizes, which makes a difference."""
    of_batch: dict[int, set[str]] = {}
    finished = results.trials[results.trials["state"] == "finished"]
    for trial_id, variant in zip(finished["trial_id"], finished["variant"], strict=True):
        if (pairs := results.trial(trial_id)["batch_pairs"]) is not None:
            of_batch.setdefault(int(pairs), set()).add(str(variant))
    if len(of_batch) < 2:
        return []
    named = "; ".join(f"{pairs} pairs: {', '.join(sorted(names))}" for pairs, names in sorted(of_batch.items()))
    return [
        f"Not all trials had the same number of pairs per step ({named}), which makes a difference of its own; with "
        "pretraining.batch_pairs a multiple of cluster.workers it is the same on any number of workers."
    ]
