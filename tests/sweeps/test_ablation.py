"""An ablation's trials are its variants times seeds times folds, and what would mislead is refused."""

import dataclasses

import pytest

from siamray.compose import compose
from siamray.config import AblationConfig, Config
from siamray.errors import UserError
from siamray.sweeps.ablation import (
    Trial,
    base_words,
    compose_variants,
    list_trials,
    make_trial,
    trial_identity,
)
from siamray.sweeps.designs import make_design


def as_it_is(config: Config) -> tuple[Config, str]:
    return config, "data"


def designed(*words: str, **changes: object) -> list[Trial]:
    line = ["ablation=soft_labels", *words]
    config = compose("sweep", line)
    assert config.ablation is not None
    ablation: AblationConfig = dataclasses.replace(config.ablation, **changes)  # type: ignore[arg-type]
    config = dataclasses.replace(config, ablation=ablation)
    config = dataclasses.replace(config, ablation=make_design(config).ablation)
    return list_trials(config, compose_variants(config, line), as_it_is)


def test_every_variant_and_control_gets_every_seed_once() -> None:
    trials = designed("seeds=3", "seed=5")
    assert len({trial.trial_id for trial in trials}) == len(trials) == (5 + 1) * 3
    assert {trial.seed for trial in trials} == {5, 6, 7}
    assert [trial.variant for trial in trials if trial.role == "control"] == ["untrained"] * 3
    assert all(trial.config.seed == trial.seed for trial in trials)


def test_folds_are_a_factor() -> None:
    trials = designed("seeds=2", folds=[0, 2])
    assert len(trials) == 6 * 2 * 2
    assert {(trial.fold, trial.config.data.fold) for trial in trials} == {(0, 0), (2, 2)}


def test_seeds_may_be_named_one_by_one() -> None:
    trials = designed("seeds=3", seeds=[7, 0])
    assert [trial.seed for trial in trials] == [7] * 6 + [0] * 6
    assert {trial.config.seed for trial in trials} == {7, 0}


def test_what_a_command_line_sets_anyway_is_no_mistake_of_a_variant() -> None:
    variants = {"soft": ["pretraining.margin=0.7"], "rank": ["pretraining.margin=0.7", "pretraining.labels=rank"]}
    assert len(designed("pretraining.margin=0.7", "seeds=1", variants=variants)) == 3


def test_a_variant_is_the_base_with_its_overrides_and_nothing_else() -> None:
    by_name = {trial.variant: trial.config for trial in designed("pretraining.margin=0.9")}
    assert by_name["hard"].pretraining.labels == "hard"
    assert dataclasses.replace(by_name["hard"].pretraining, labels="mixture") == by_name["soft"].pretraining
    assert all(config.pretraining.margin == 0.9 for config in by_name.values())


def test_a_variant_starts_from_the_ablations_base_which_the_command_line_overrides() -> None:
    base = ["pretraining.margin=0.7", "pretraining.warmup_epochs=3"]
    (soft, *_) = designed("pretraining.margin=0.9", base=base)
    assert (soft.config.pretraining.margin, soft.config.pretraining.warmup_epochs) == (0.9, 3)


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["results=/elsewhere"], True),
        (["cluster.cpus=2"], True),
        (["pairs.cache_mb=1"], True),
        (["seeds=9"], True),
        (["pretraining.margin=0.5"], False),
        (["pairs.patch_pixels=48"], False),
        (["downstream.intervals.replicates=500"], False),
        (["seed=1"], False),
        (["cluster.workers=2"], False),
    ],
)
def test_a_trial_is_the_same_trial_unless_its_numbers_would_differ(words: list[str], same: bool) -> None:
    first = make_trial("soft", "variant", compose("sweep", []), "data")
    second = make_trial("soft", "variant", compose("sweep", words), "data")
    assert (first.trial_id == second.trial_id) == same


def test_other_data_is_another_trial() -> None:
    config = compose("sweep", [])
    assert trial_identity(config, "a") != trial_identity(config, "b")


def test_the_sweep_itself_is_no_part_of_its_variants() -> None:
    line = ["ablation=soft_labels", "ablation.metric=patches_knn20_auc", "search=method", "seed=1"]
    assert base_words(line) == ["seed=1"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"variants": {}}, "no variants"),
        ({"reference": "sofd"}, "did you mean 'soft'"),
        ({"controls": {"soft": ["seed=3"]}}, "both|variant and a control"),
        ({"variants": {"soft": ["pretraining.epochs=3"], "same": ["pretraining.epochs=3"]}}, "do not differ"),
        ({"variants": {"soft": ["pretraining.marjin=3"]}}, "did you mean 'pretraining.margin'"),
        ({"variants": {"soft": [], "../evil": ["seed=1"]}}, "names folders"),
        ({"folds": [7]}, "none of the folds"),
        ({"folds": [1, 1]}, "ablation.folds: 1 is there twice"),
        ({"seeds": [0, 5, 0]}, "ablation.seeds: 0 is there twice"),
        (
            {"variants": {"soft": [], "b": ["pretraining.labels=hard", "pretraining.margin=1.2"]}},
            "margin=1.2' of 'b' ch",
        ),
        ({"variants": {"soft": [], "b": ["seed=4"]}}, "'soft' and 'b' do not differ"),
        ({"variants": {"soft": [], "b": ["cluster.cpus=4"]}}, "'soft' and 'b' do not differ"),
    ],
)
def test_a_design_that_cannot_answer_is_refused(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        designed(**changes)
