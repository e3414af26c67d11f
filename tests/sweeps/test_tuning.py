"""Every variant is tuned with the same budget on validation women, and what chose a setting is never compared."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from siamray.compose import compose, option_value
from siamray.config import Config, ParameterConfig
from siamray.errors import UserError
from siamray.sweep import main
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial, compose_variants, list_trials
from siamray.sweeps.designs import make_design
from siamray.sweeps.tuning import Chosen, plan_tuning, tune, tuned_variants
from siamray.sweeps.tuning_changes import tuning_changes
from tests.conftest import TINY_DATA, TINY_TRAINING

RATE, MARGIN = "pretraining.learning_rate", "pretraining.margin"
METRIC = "patches_linear_auc"
SPACE = {
    RATE: ParameterConfig(kind="float", low=1e-4, high=1e-2, log=True),
    # Only the hinge has a margin, and the loss is what the variants differ in.
    MARGIN: ParameterConfig(kind="float", low=0.4, high=1.6, only_if={"pretraining.loss": "hinge"}),
}
VARIANTS = {"hinge": ["pretraining.loss=hinge"], "logistic": ["pretraining.loss=logistic"]}
WORDS = ["ablation=margin", "seeds=2"]


def asked(**changes: Any) -> tuple[Config, dict[str, Config]]:
    """A sweep that tunes two variants and a control that trains nothing."""
    config = compose("sweep", WORDS)
    assert config.ablation is not None
    values = {
        "base": ["pretraining=siamese"], "variants": VARIANTS, "controls": {"untrained": ["pretraining.epochs=0"]},
        "reference": "hinge", "tune": 4, "tuned": SPACE, "folds": [0, 2],
    } | changes  # fmt: skip
    config = dataclasses.replace(config, ablation=dataclasses.replace(config.ablation, **values))
    config = dataclasses.replace(config, ablation=make_design(config).ablation)
    return config, compose_variants(config, WORDS)


def worth(config: Config) -> float:
    """A made-up value that has its best learning rate at 1e-3 on fold 0, and at 3e-4 elsewhere."""
    best = 1e-3 if config.data.fold == 0 else 3e-4
    return 0.9 - abs(config.pretraining.learning_rate - best)


class Laboratory:
    """Answers trials at once; remembers which it was asked for."""

    def __init__(self, fails: Callable[[Trial], bool] | None = None) -> None:
        self.trials: dict[str, Trial] = {}
        self.rounds: list[list[str]] = []
        self._fails = fails

    def __call__(self, trials: list[Trial], known: list[str]) -> Mapping[str, Mapping[str, Any]]:
        assert set(known) >= {trial.trial_id for trial in trials}
        self.rounds.append([trial.trial_id for trial in trials])
        self.trials |= {trial.trial_id: trial for trial in trials}
        return {trial.trial_id: self.record(trial) for trial in trials}

    def record(self, trial: Trial) -> dict[str, Any]:
        if self._fails is not None and self._fails(trial):
            return {"state": "failed", "reason": "the loss is no number", "metrics": {}, "cost": {}}
        # On test women the worst settings look best: they must have no say.
        metrics = {f"validation_{METRIC}": worth(trial.config), METRIC: -worth(trial.config)}
        return {"state": "finished", "reason": "", "metrics": metrics, "cost": {}}


def tuned(laboratory: Laboratory, **changes: Any) -> tuple[Config, dict[str, Config], Chosen, pd.DataFrame]:
    config, composed = asked(**changes)
    plan = plan_tuning(config, composed)
    assert plan is not None
    chosen, table = tune(config, WORDS, plan, composed, lambda one: (one, "data"), laboratory)
    return config, composed, chosen, table


def test_every_variant_tries_as_many_settings_on_every_fold_its_own_first() -> None:
    laboratory = Laboratory()
    _, composed, _, table = tuned(laboratory)
    counts = table.groupby(["variant", "fold"]).size()
    assert counts.to_dict() == {(name, fold): 4 for name in VARIANTS for fold in (0, 2)}
    assert not table.trial_id.duplicated().any()
    first = table[table.number == 0]
    assert first.own.all()
    assert len(first) == len(table[table.own])
    for trial_id in first.trial_id:
        trial = laboratory.trials[trial_id]
        untouched = composed[trial.variant.removesuffix("+tuning")]
        assert trial.config.pretraining == untouched.pretraining


def test_an_option_is_tuned_only_where_it_matters_and_what_trains_nothing_is_not_tuned() -> None:
    config, composed = asked()
    plan = plan_tuning(config, composed)
    assert plan is not None
    assert list(plan.spaces["hinge"]) == [RATE, MARGIN]
    assert list(plan.spaces["logistic"]) == [RATE]
    assert plan.untuned == {"untrained": "it trains nothing"}
    assert plan.trials == 4 * 2 * 2


def test_the_best_on_validation_women_is_chosen_for_each_fold_and_compared() -> None:
    config, composed, chosen, table = tuned(Laboratory())
    best = table.loc[table.groupby(["variant", "fold"]).value.idxmax()]
    assert best.chosen.all()
    assert table.chosen.sum() == 4
    trials = list_trials(config, composed, lambda one: (one, "data"), tuned_variants(config, WORDS, chosen))
    assert len(trials) == 3 * 2 * 2
    for trial in trials:
        if trial.variant == "untrained":
            assert trial.config.pretraining == composed["untrained"].pretraining
            continue
        words = chosen[trial.variant, trial.fold]
        assert words == best[(best.variant == trial.variant) & (best.fold == trial.fold)].settings.item().split()
        for word in words:
            option, _, value = word.partition("=")
            assert option_value(trial.config, option) == pytest.approx(json.loads(value))
        assert trial.seed in (0, 1)


def test_the_seed_that_tunes_is_compared_with_no_one() -> None:
    laboratory = Laboratory()
    tuned(laboratory)
    assert {trial.seed for trial in laboratory.trials.values()} == {1000}
    assert {trial.role for trial in laboratory.trials.values()} == {"tuning"}
    with pytest.raises(UserError, match="tune_seed=1 is one of the seeds compared"):
        plan_tuning(*asked(tune_seed=1))


def test_settings_are_drawn_again_alike_and_a_larger_budget_only_adds() -> None:
    first, second, longer = Laboratory(), Laboratory(), Laboratory()
    tuned(first)
    tuned(second)
    assert first.rounds == second.rounds
    tuned(longer, tune=6)
    assert longer.rounds[:4] == first.rounds
    assert len(longer.rounds) == 6


def test_variants_with_the_same_options_begin_with_the_same_settings() -> None:
    variants = {"soft": ["pretraining.labels=mixture"], "rank": ["pretraining.labels=rank"]}
    _, _, _, table = tuned(Laboratory(), variants=variants, reference="soft", tuned={RATE: SPACE[RATE]}, folds=[0])
    of = {name: table[table.variant == name].sort_values("number").settings.tolist() for name in variants}
    assert of["soft"] == of["rank"]


def test_a_setting_that_fails_counts_and_is_not_chosen() -> None:
    _, _, _, table = tuned(Laboratory(lambda trial: trial.config.pretraining.learning_rate == 2e-3))
    assert table[table.own].state.eq("failed").all()
    assert table[table.own].reason.eq("the loss is no number").all()
    assert not (table.own & table.chosen).any()
    assert table.groupby(["variant", "fold"]).size().eq(4).all()
    changes = tuning_changes(table)
    assert changes.failed.eq(1).all()
    assert changes.own_value.isna().all()


def test_a_variant_none_of_whose_settings_trains_is_named_with_the_reason() -> None:
    with pytest.raises(UserError, match=r"none of the 4 settings of 'logistic' on fold 0.*the loss is no number"):
        tuned(Laboratory(lambda trial: trial.variant.startswith("logistic")))


def test_a_space_of_a_few_settings_is_tried_whole_and_no_setting_twice() -> None:
    few = {RATE: ParameterConfig(kind="categorical", choices=[0.001, 0.002])}
    laboratory = Laboratory()
    _, _, chosen, table = tuned(laboratory, tuned=few, folds=[0])
    assert table.groupby("variant").settings.nunique().eq(2).all()
    assert len(laboratory.trials) == len(table) == 4
    assert set(map(tuple, chosen.values())) == {(f"{RATE}=0.001",)}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tuned": {}}, "no options to tune"),
        ({"tune": 0}, "nothing is tuned"),
        ({"tuned": {"pretraining.loss": ParameterConfig(kind="categorical", choices=["hinge"])}}, "'hinge' sets"),
        ({"tuned": {"pretraining.margn": SPACE[RATE]}}, "pretraining.margin"),
        ({"tuned": {RATE: dataclasses.replace(SPACE[RATE], only_if={"pretraining.los": "x"})}}, "pretraining.loss"),
        ({"tune_metric": METRIC}, "validation_patches_linear_auc"),
        ({"tune": 500}, "ablation.limit=1000"),
    ],
)
def test_what_would_mislead_is_refused_with_its_remedy(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        plan_tuning(*asked(**changes))


@pytest.mark.slow
def test_an_ablation_tunes_compares_and_goes_on_where_it_was_enlarged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    (own / "ablation").mkdir(parents=True)
    (own / "ablation" / "rates.yaml").write_text(
        "name: rates\nquestion: Which loss, each with its own rate?\nreference: hinge\nbase: [pretraining=siamese]\n"
        "variants:\n  hinge: [pretraining.loss=hinge]\n  logistic: [pretraining.loss=logistic]\n"
        "controls:\n  untrained: [pretraining.epochs=0]\ntune: 2\n"
        "tuned:\n  pretraining.learning_rate: {kind: float, low: 0.0001, high: 0.01, log: true}\n",
        encoding="utf-8",
    )
    words = [f"experiments={own}", "ablation=rates", *TINY_DATA, *TINY_TRAINING, f"results={tmp_path}"]
    main([*words, "dry_run=true"])
    assert "4 trials at most" in capsys.readouterr().out
    main([*words, "seeds=1"])
    printed = capsys.readouterr().out
    assert "what tuning changed" in printed
    loaded = results.load(tmp_path / "rates")
    assert loaded.trials.role.value_counts().to_dict() == {"tuning": 4, "variant": 2, "control": 1}
    assert set(loaded.comparison.seeds) == {1}
    assert loaded.experiment["tuning"]["settings"] == 2
    compared = loaded.trials[loaded.trials.role == "variant"].set_index("variant").trial_id
    for name, folds in loaded.experiment["tuning"]["chosen"].items():
        rate = float(folds["0"][0].partition("=")[2])
        assert loaded.trial(compared[name])["config"]["pretraining"]["learning_rate"] == pytest.approx(rate)
    main([*words, "seeds=1", "ablation.tune=3"])
    more = results.load(tmp_path / "rates")
    assert more.trials.role.value_counts()["tuning"] == 6
    unchanged = loaded.trials[loaded.trials.role == "tuning"].set_index("trial_id").ended
    assert more.trials.set_index("trial_id").ended[unchanged.index].equals(unchanged)
