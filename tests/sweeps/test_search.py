"""A search draws only what can matter, within its limits, and its settings are words of the command line."""

import dataclasses

import optuna
import pytest

from siamray.compose import compose, compose_variant
from siamray.config import ParameterConfig, SearchConfig
from siamray.errors import UserError
from siamray.sweeps.search import check_parameters, search_overrides, suggest

PARAMETERS = {
    "pretraining.cross_regularization.kind": ParameterConfig(kind="categorical", choices=["relational", "none"]),
    "pretraining.cross_regularization.weight": ParameterConfig(
        kind="float", low=0.01, high=1.0, log=True, only_if={"pretraining.cross_regularization.kind": ["relational"]}
    ),
    "pretraining.mixture.components": ParameterConfig(kind="int", low=2, high=5),
}


def test_a_condition_decides_whether_an_option_is_drawn() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(study.ask(), PARAMETERS) for _ in range(40)]
    kinds = {setting["pretraining.cross_regularization.kind"] for setting in drawn}
    assert kinds == {"relational", "none"}
    for setting in drawn:
        conditional = "pretraining.cross_regularization.weight" in setting
        assert conditional == (setting["pretraining.cross_regularization.kind"] == "relational")
        assert 2 <= setting["pretraining.mixture.components"] <= 5


def test_drawn_settings_compose() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    search = compose("sweep", ["search=method"]).search
    assert search is not None
    check_parameters(search)
    for _ in range(5):
        setting = suggest(study.ask(), search.parameters)
        config = compose_variant("sweep", ["seed=3"], search_overrides(setting))
        assert config.pretraining.masses.weight == pytest.approx(setting["pretraining.masses.weight"])
        assert config.encoder.backbone == setting["encoder.backbone"]


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (ParameterConfig(kind="categorical"), "no choices"),
        (ParameterConfig(kind="float", low=1.0), "needs low and high"),
        (ParameterConfig(kind="int", low=3, high=2), "low first"),
        (ParameterConfig(kind="int", low=2, high=3, only_if={"encoder.backbone": "x"}), "not searched"),
    ],
)
def test_a_parameter_without_its_place_is_refused(parameter: ParameterConfig, expected: str) -> None:
    search = SearchConfig(name="s", question="q?", parameters={"pretraining.margin": parameter})
    with pytest.raises(UserError, match=expected):
        check_parameters(search)
    with pytest.raises(UserError, match="no parameters"):
        check_parameters(dataclasses.replace(search, parameters={}))
