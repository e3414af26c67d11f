"""Every ablation of the catalogue: it says its question and command, and each of its variants runs in tiny form."""

import dataclasses
from pathlib import Path

import pytest

from siamray.compose import compose, experiments_folder
from siamray.config import Config
from siamray.data.preparation import prepare
from siamray.data.store import Store
from siamray.pretraining.trainer import pretrain
from siamray.sweeps.ablation import Trial, compose_variants, list_trials
from siamray.sweeps.designs import make_design
from siamray.sweeps.results import read_trial
from siamray.sweeps.study import check_search
from siamray.sweeps.trial import run_trial
from siamray.sweeps.tuning import plan_tuning
from tests.conftest import TINY_DATA, TINY_TRAINING

CATALOGUE = sorted(path.stem for path in (experiments_folder() / "ablation").glob("*.yaml"))
SEARCHES = sorted(path.stem for path in (experiments_folder() / "search").glob("*.yaml"))
# One for every part of the method; a group may add its own.
ASKED = {
    *("soft_labels", "gmm_components", "margin", "dual_network", "label_exchange", "cross_regularization", "collapse"),
    *("registration", "patch_scale", "negatives", "warmup", "backbone", "initialisation", "labels_fraction"),
    *("baselines", "augmentation", "components", "negative_controls"),
}
TINY = [
    *TINY_DATA, *TINY_TRAINING, "seeds=1", "pretraining.epochs=1", "pretraining.pairs_per_epoch=16",
    "pretraining.batch_pairs=8", "pretraining.mixture.anchor_pairs=16", "pretraining.rival.queue=32",
    "pretraining.rival.prototypes=8", "pretraining.rival.predictor_hidden=8", "downstream.examples=0",
    "downstream.intervals.replicates=100",
]  # fmt: skip
# Options that an ablation's command names as well.
MORE = {
    "labels_fraction": ["downstream=few_labels", "downstream.fine_tuning.epochs=1", "downstream.label_draws=1"],
    "real_women": ["ablation.folds=[0]"],
    "tasks": ["downstream=all", "downstream.attention.epochs=2"],
}

# Ablations whose variants differ in how they are evaluated.
TESTED_WHOLE = ("labels_fraction", "tasks")


def words(name: str) -> list[str]:
    return [f"ablation={name}", *MORE.get(name, []), *TINY]


def trials(name: str, stores: dict[str, Store]) -> list[Trial]:
    def settle(chosen: Config) -> tuple[Config, str]:
        kind = chosen.preparation.registration.kind
        if kind not in stores:
            stores[kind] = prepare(chosen, progress=False)
        return chosen, stores[kind].fingerprint

    config = written_out(name)
    return list_trials(config, compose_variants(config, words(name)), settle)


def written_out(name: str) -> Config:
    config = compose("sweep", words(name))
    return dataclasses.replace(config, ablation=make_design(config).ablation)


def begins_as_it_must(group: str, name: str) -> Config:
    """Asserts that a file of the catalogue says its question and its command first; returns what it composes to."""
    first, second = (experiments_folder() / group / f"{name}.yaml").read_text().splitlines()[:2]
    assert first.startswith("# ")
    assert second.startswith(f"# python -m siamray.sweep {group}={name}")
    config = compose("sweep", [f"{group}={name}"])
    section = getattr(config, group)
    assert section is not None
    assert section.name == name
    assert section.question.endswith("?")
    return config


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_ablation_begins_with_its_question_and_its_command(name: str) -> None:
    ablation = begins_as_it_must("ablation", name).ablation
    assert ablation is not None
    assert ablation.controls
    if ablation.tune:
        config = written_out(name)
        # Refuses what cannot be tuned.
        assert plan_tuning(config, compose_variants(config, words(name))) is not None


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_begins_with_its_question_and_its_command_and_can_be_run(name: str) -> None:
    search = begins_as_it_must("search", name).search
    assert search is not None
    check_search(search)


def test_the_catalogue_is_whole() -> None:
    assert set(CATALOGUE) >= ASKED


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUE)
def test_every_variant_of_an_ablation_runs(name: str, tmp_path: Path, stores: dict[str, Store], done: set[str]) -> None:
    reference = written_out(name).ablation.reference
    for trial in trials(name, stores):
        store, folder = stores[trial.config.preparation.registration.kind], tmp_path / trial.trial_id
        # Many ablations share a variant; evaluating is the same for all that do not change it.
        if (code := trial.trial_id.rsplit("-", 1)[-1]) in done:
            continue
        done.add(code)
        if trial.variant == reference or name in TESTED_WHOLE:
            run_trial(trial, store, folder)
            record = read_trial(folder)
            assert record["state"] == "finished", f"{trial.variant}: {record['reason']}"
            assert record["metrics"]
        else:
            assert (pretrain(trial.config, store, folder) / "model.safetensors").exists(), trial.variant


@pytest.fixture(scope="module")
def stores() -> dict[str, Store]:
    """Kind of registration -> the prepared exams."""
    return {}


@pytest.fixture(scope="module")
def done() -> set[str]:
    """Codes of the trials that have run."""
    return set()
