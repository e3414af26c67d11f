"""Of the configurations of variants only the options are left in which they differ."""

import dataclasses

from siamray.config import AblationConfig, Config, PretrainingConfig
from siamray.sweeps.differences import config_difference, variant_differences


def config(**pretraining: object) -> Config:
    return Config(pretraining=PretrainingConfig(**pretraining))  # type: ignore[arg-type]


def test_what_is_the_same_is_left_out_and_what_differs_stands_at_every_variant() -> None:
    configs = {"a": config(epochs=3), "b": config(epochs=3, margin=0.6), "c": config(epochs=3, labels="hard")}
    assert config_difference(configs) == {
        "a": {"pretraining.labels": "mixture", "pretraining.margin": 1.2},
        "b": {"pretraining.labels": "mixture", "pretraining.margin": 0.6},
        "c": {"pretraining.labels": "hard", "pretraining.margin": 1.2},
    }


def test_configurations_alike_differ_in_nothing() -> None:
    assert config_difference({"a": config(), "b": config()}) == {"a": {}, "b": {}}
    assert config_difference({}) == {}


def test_the_ablation_they_belong_to_is_no_difference() -> None:
    of_an_ablation = dataclasses.replace(config(), ablation=AblationConfig(name="x", question="x?"))
    assert config_difference({"a": config(), "b": of_an_ablation}) == {"a": {}, "b": {}}


def test_a_control_is_set_against_the_reference_and_leaves_the_variants_alone() -> None:
    ablation = AblationConfig(
        name="x", question="x?", reference="a", variants={"a": [], "b": []}, controls={"untrained": [], "shuffled": []}
    )
    composed = {
        "a": config(),
        "b": config(margin=0.6),
        "untrained": config(epochs=0),
        "shuffled": config(partners="shuffled"),
    }
    assert variant_differences(ablation, composed) == {
        "a": {"pretraining.margin": 1.2},
        "b": {"pretraining.margin": 0.6},
        "untrained": {"pretraining.epochs": 0},
        "shuffled": {"pretraining.partners": "shuffled"},
    }
