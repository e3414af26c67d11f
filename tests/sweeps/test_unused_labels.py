"""A reader learns which trials were trained without the labels that they are compared for."""

from pathlib import Path

from siamray.compose import compose
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial
from siamray.sweeps.unused_labels import unused_labels
from tests.dashboards import generated_results


def test_trials_that_used_no_label_are_counted_by_variant(tmp_path: Path) -> None:
    folder = generated_results.write(tmp_path / "e", seeds=(0, 1), failed=[("hard", 1, "ended")])
    loaded = results.load(folder)
    config = compose("sweep", ["pretraining=siamese"])
    methods = {"none": compose("sweep", ["pretraining=siamese", "pretraining.labels=none"])}
    trials = [
        Trial(str(row.trial_id), str(row.variant), "variant", int(row.seed), 0, methods.get(str(row.variant), config))
        for row in loaded.trials[loaded.trials.role == "variant"].itertuples()
    ]
    assert unused_labels(loaded, trials) == {}
    for trial in trials:
        if (trial.variant, trial.seed) in (("soft", 0), ("hard", 0), ("hard", 1), ("none", 0)):
            path = folder / "trials" / trial.trial_id / "epochs.parquet"
            results.write_parquet(path, loaded.epochs(trial.trial_id).assign(label_mean=0.0))
    found = unused_labels(results.load(folder), trials)
    # A failed trial is not compared, and none has labels that it might have used.
    assert {variant: words.split(":")[0] for variant, words in found.items()} == {
        "soft": "1 of 2 trials used no label",
        "hard": "1 of 1 trials used no label",
    }
