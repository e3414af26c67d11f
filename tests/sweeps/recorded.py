"""A small experiment of one trial that was really trained, for what runs a trial again."""

from pathlib import Path

from siamray.compose import compose
from siamray.data.preparation import prepare
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial, make_trial
from siamray.sweeps.trial import run_trial
from tests.conftest import TINY_DATA, TINY_TRAINING

WORDS = ["pretraining=siamese", *TINY_DATA, *TINY_TRAINING, "pretraining.epochs=1", "pretraining.pairs_per_epoch=32"]


def write(folder: Path) -> tuple[Path, Trial]:
    """Trains the trial and writes the experiment.

    Args:
        folder: ``<results>/<experiment>``.

    Returns:
        the trial's folder, and the trial.
    """
    config = compose("sweep", WORDS)
    store = prepare(config, progress=False)
    trial = make_trial("soft", "variant", config, store.fingerprint)
    record = {"name": folder.name, "kind": "ablation", "question": "?", "variants": {"soft": []}, "seeds": [0]}
    results.write_experiment(folder, {**record, "reference": "soft", "metric": "patches_linear_auc"})
    path = folder / results.TRIALS_FOLDER / trial.trial_id
    run_trial(trial, store, path)
    return path, trial
