"""A search draws only what can matter, tells Optuna the truth of every trial, and goes on after a kill."""

import asyncio
import dataclasses
import functools
import io
import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from siamray.compose import compose, compose_variant, to_dict
from siamray.config import Config, ParameterConfig, SearchConfig
from siamray.errors import DiskFull, Interrupted, UserError
from siamray.sweeps import results, study
from siamray.sweeps.ablation import Trial, make_trial
from siamray.sweeps.early_stopping import Board, Examination, answer, read_measured, write_measured
from siamray.sweeps.search import Selection, Spent, conduct, select
from siamray.sweeps.space import check_parameters, located, search_overrides, suggest
from siamray.sweeps.trial import describe

KIND, WEIGHT = "pretraining.cross_regularization.kind", "pretraining.cross_regularization.weight"
COMPONENTS, MARGIN = "pretraining.mixture.components", "pretraining.margin"
AUC, DISTANCE_AUC = "validation_patches_linear_auc", "validation_patches_distance_auc"
PARAMETERS = {
    KIND: ParameterConfig(kind="categorical", choices=["relational", "symmetric_kl"]),
    WEIGHT: ParameterConfig(kind="float", low=0.01, high=1.0, log=True, only_if={KIND: ["relational"]}),
    COMPONENTS: ParameterConfig(kind="int", low=2, high=5),
    MARGIN: ParameterConfig(kind="float", low=0.4, high=1.6),
}
MARGIN_ALONE = {MARGIN: ParameterConfig(kind="float", low=0.0, high=1.0)}
SAMPLERS = ("tpe", "multivariate_tpe", "nsga2", "nsga3", "gp", "cmaes", "random", "quasi_random")
STATES = optuna.trial.TrialState
EPOCHS = 9


def search_of(**given: Any) -> SearchConfig:
    return SearchConfig(**{"name": "s", "question": "q?", "parameters": PARAMETERS, **given})


@functools.cache
def base() -> Config:
    return compose("sweep", ["pretraining=siamese"])


@functools.cache
def provenance() -> dict[str, Any]:
    described = describe(make_trial("searched", "variant", base(), "data"), "data")
    return {name: described[name] for name in ("git", "versions", "data_fingerprint")}


class Fakes:
    """Trials without training: the objective is the margin, and grows to it by the epoch; one step of all per wait."""

    def __init__(
        self, slots: int = 1, die_after: int | None = None, outcome: Callable[[float], str] = lambda _: "finished"
    ) -> None:
        self.slots = slots
        self.die_after = die_after
        self.outcome = outcome
        self.running: dict[str, tuple[Trial, Path, Examination | None, int]] = {}
        self.started: list[str] = []
        self.most = 0

    def start(self, trial: Trial, folder: Path, examination: Examination | None) -> None:
        self.started.append(trial.trial_id)
        self.running[trial.trial_id] = (trial, folder, examination, 0)
        self.most = max(self.most, len(self.running))

    def ended(self, seconds: float) -> dict[str, str]:
        ended = {}
        for trial_id, (trial, folder, examination, epoch) in list(self.running.items()):
            margin = trial.config.pretraining.margin
            outcome = self.outcome(margin)
            if self.die_after is not None and len(self.started) > self.die_after:
                raise KeyboardInterrupt
            if outcome == "raises":
                ended[trial_id] = "the node was lost"
            elif examination is not None and epoch < EPOCHS:
                epoch += 1
                write_measured(folder, epoch, AUC, margin * epoch / EPOCHS)
                self.running[trial_id] = (trial, folder, examination, epoch)
                # The driver answers after the next look, as it would a slow one.
                answered = folder / "answer.json"
                if answered.exists() and '"stop": true' in answered.read_text():
                    self._leave(trial, folder, "pruned", {}, f"stopped after epoch {epoch}")
                    ended[trial_id] = ""
            else:
                state = "failed" if outcome == "failed" else "finished"
                value = math.nan if outcome == "nan" else margin
                metrics = {AUC: {"value": value}, DISTANCE_AUC: 1 - margin**2} if state == "finished" else {}
                self._leave(trial, folder, state, metrics, "diverged" if state == "failed" else "")
                ended[trial_id] = ""
        for trial_id in ended:
            del self.running[trial_id]
        return ended

    def _leave(self, trial: Trial, folder: Path, state: str, metrics: dict[str, Any], reason: str) -> None:
        named = {"trial_id": trial.trial_id, "variant": trial.variant, "seed": trial.seed, "fold": trial.fold}
        record = {**provenance(), **named, "config": to_dict(trial.config), "state": state, "metrics": metrics}
        cost = {"cpu_s": 10.0 + trial.config.pretraining.margin}
        results.write_trial(folder, {**record, "reason": reason, "cost": cost})


def run(folder: Path, fakes: Fakes, seed: int = 0, **given: Any) -> tuple[Selection, optuna.Study]:
    """Runs a search of the margin with fakes instead of Ray; returns its selection and its study."""
    search = search_of(**{"parameters": MARGIN_ALONE, "trials": 6, "sampler": "random", **given})
    study.check_search(search)
    config = dataclasses.replace(base(), search=search, seed=seed)

    def make(settings: dict[str, Any]) -> Trial:
        method = dataclasses.replace(config.pretraining, margin=settings[MARGIN])
        return make_trial("searched", "variant", dataclasses.replace(config, pretraining=method), "data")

    folder.mkdir(parents=True, exist_ok=True)
    store: Any = SimpleNamespace(fingerprint="data", path=folder)
    quiet = Console(file=io.StringIO())
    found = conduct(config, store, folder, make, lambda _: fakes, quiet)
    asked = study.question(config, "data")
    return found, study.open_study(folder, search, seed, asked)


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """In-process searches start no Ray."""
    monkeypatch.setattr("siamray.sweeps.search.connected", lambda _: nullcontext({"CPU": 2.0}))
    monkeypatch.setattr("siamray.sweeps.search._POLL_SECONDS", 0.0)


def test_a_condition_decides_whether_an_option_is_drawn() -> None:
    drawing = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(drawing.ask(), PARAMETERS) for _ in range(40)]
    assert {setting[KIND] for setting in drawn} == {"relational", "symmetric_kl"}
    for setting in drawn:
        assert (WEIGHT in setting) == (setting[KIND] == "relational")
        assert 2 <= setting[COMPONENTS] <= 5


def test_drawn_settings_compose() -> None:
    drawing = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    search = compose("sweep", ["search=method"]).search
    assert search is not None
    study.check_search(search)
    assert len(study.objectives(search)) == 2
    for _ in range(5):
        setting = suggest(drawing.ask(), search.parameters)
        config = compose_variant("sweep", ["seed=3"], search_overrides(setting))
        assert config.pretraining.masses.weight == setting["pretraining.masses.weight"]
        assert config.encoder.backbone == setting["encoder.backbone"]
        assert located(to_dict(config), search.parameters) == setting


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_inside_of_the_conditional_space(sampler: str, tmp_path: Path) -> None:
    search = search_of(sampler=sampler, population=8)
    asked = study.open_study(tmp_path, search, 0, {"q": 1})
    seen = []
    for _ in range(14):
        trial = asked.ask()
        setting = suggest(trial, search.parameters)
        assert (WEIGHT in setting) == (setting[KIND] == "relational")
        assert 0.01 <= setting.get(WEIGHT, 0.5) <= 1.0
        assert setting[COMPONENTS] in (2, 3, 4, 5)
        assert 0.4 <= setting[MARGIN] <= 1.6
        asked.tell(trial, setting[MARGIN])
        seen.append(setting)
    assert {setting[KIND] for setting in seen} == {"relational", "symmetric_kl"}
    assert len({setting[MARGIN] for setting in seen}) > 6
    limits = study.sampler_limits(search)
    assert (WEIGHT in limits) == (sampler in ("nsga2", "nsga3", "gp", "cmaes", "quasi_random"))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_resumed_search_does_not_draw_its_first_settings_again(sampler: str, tmp_path: Path) -> None:
    drawn: list[float] = []
    for _ in range(3):
        asked = study.open_study(tmp_path, search_of(sampler=sampler), 0, {"q": 1})
        for _ in range(2):
            trial = asked.ask()
            drawn.append(suggest(trial, PARAMETERS)[MARGIN])
            asked.tell(trial, 0.5)
    assert len(set(drawn)) == 6


def test_cmaes_needs_its_package_and_says_what_it_cannot_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    search = search_of(sampler="cmaes")
    monkeypatch.setattr(study, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'siamray\[cmaes\]'"):
        study.check_search(search)
    monkeypatch.setattr(study, "find_spec", lambda _: object())
    study.check_search(search)
    assert study.sampler_limits(search).endswith(f"at random: {KIND}, {WEIGHT}")
    with pytest.raises(UserError, match="one objective only"):
        study.check_search(search_of(sampler="cmaes", objectives={AUC: "maximize", DISTANCE_AUC: "maximize"}))
    with pytest.raises(UserError, match="two float or int options"):
        study.check_search(search_of(sampler="cmaes", parameters=MARGIN_ALONE))


@pytest.mark.parametrize(
    ("name", "parameter", "expected"),
    [
        (MARGIN, ParameterConfig(kind="categorical"), "no choices"),
        (MARGIN, ParameterConfig(kind="float", low=1.0), "needs low and high"),
        (MARGIN, ParameterConfig(kind="int", low=3, high=2), "low first"),
        (MARGIN, ParameterConfig(kind="int", low=2.5, high=4), "whole numbers"),
        (MARGIN, ParameterConfig(kind="float", low=0, high=4, log=True), "above 0"),
        (MARGIN, ParameterConfig(kind="int", low=2, high=3, only_if={"encoder.backbone": "x"}), "not searched"),
        ("pretraining.marjin", ParameterConfig(kind="float", low=0, high=1), "did you mean 'pretraining.margin'"),
        ("preparation.spacing_mm", ParameterConfig(kind="float", low=0.1, high=1), "no option that can be searched"),
        ("downstream.probe.temperature", ParameterConfig(kind="float", low=0.1, high=1), "no option that can be"),
    ],
)
def test_a_parameter_without_its_place_is_refused(name: str, parameter: ParameterConfig, expected: str) -> None:
    search = search_of(parameters={name: parameter})
    with pytest.raises(UserError, match=expected):
        check_parameters(search)
    with pytest.raises(UserError, match="no parameters"):
        check_parameters(dataclasses.replace(search, parameters={}))


def test_a_condition_that_can_never_hold_is_refused() -> None:
    late = {WEIGHT: PARAMETERS[WEIGHT], KIND: PARAMETERS[KIND]}
    with pytest.raises(UserError, match="listed before it"):
        check_parameters(search_of(parameters=late))
    wrong = dataclasses.replace(PARAMETERS[WEIGHT], only_if={KIND: "relatoinal"})
    with pytest.raises(UserError, match="did you mean 'relational'"):
        check_parameters(search_of(parameters={KIND: PARAMETERS[KIND], WEIGHT: wrong}))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"metric": "patches_linear_auc"}, "of test women"),
        ({"objectives": {AUC: "maximize", "patches_distance_auc": "maximize"}}, "say validation_patches_distance_auc"),
        ({"objectives": {AUC: "maximise"}}, "did you mean 'maximize'"),
        ({"objectives": {"cpu_s": "minimize"}}, "costs alone"),
        ({"objectives": {AUC: "maximize", "cpu_seconds": "minimize"}}, "unknown"),
        ({"objectives": {AUC: "maximize", "cpu_s": "minimize"}, "pruner": "asha"}, "one objective only"),
        ({"objectives": {AUC: "maximize"}, "metric": DISTANCE_AUC}, "one or the other"),
        ({"trials": None}, "no budget"),
        ({"metric": "validation_patches_finetuned_auc", "pruner": "median"}, "fine-tune after every look"),
        ({"metric": "validation_detection_linear_froc_mean", "pruner": "asha"}, "map whole images after every look"),
    ],
)
def test_a_search_that_cannot_be_honest_or_end_is_refused_in_one_line(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected) as raised:
        study.check_search(search_of(**given))
    assert "\n" not in str(raised.value)


def test_finished_failed_and_undefined_trials_are_told_as_what_they_are(tmp_path: Path) -> None:
    fates = ["finished", "failed", "nan", "raises", "finished", "finished"]
    margins: list[float] = []

    def outcome(margin: float) -> str:
        if margin not in margins:
            margins.append(margin)
        return fates[margins.index(margin)]

    fakes = Fakes(outcome=outcome)
    found, told = run(tmp_path, fakes)
    states = [trial.state.name for trial in told.get_trials()]
    assert states == ["COMPLETE", "FAIL", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.user_attrs.get("reason") for trial in told.get_trials()][1:4] == [
        "diverged",
        f"{AUC} is not a number",
        "the node was lost",
    ]
    # A lost attempt is tried again as often as cluster.failures says.
    lost = told.get_trials()[3].user_attrs["trial_id"]
    assert fakes.started.count(lost) == 1 + compose("sweep", []).cluster.failures
    assert results.read_trial(tmp_path / "trials" / lost)["state"] == "failed"
    assert found.table.state.tolist() == ["complete"] * 3 + ["failed"] * 3
    best = max(trial.params[MARGIN] for trial in told.get_trials(states=(STATES.COMPLETE,)))
    assert found.winner == [f"{MARGIN}={best}"]
    assert found.table[AUC][3:].isna().all()


@pytest.mark.parametrize("pruner", ["asha", "median"])
def test_a_stopped_trial_is_told_as_pruned_with_what_it_measured(pruner: str, tmp_path: Path) -> None:
    fakes = Fakes(slots=2)
    found, told = run(tmp_path, fakes, pruner=pruner, trials=16, startup_trials=2)
    pruned = told.get_trials(states=(STATES.PRUNED,))
    complete = told.get_trials(states=(STATES.COMPLETE,))
    assert len(pruned) >= 4
    assert len(pruned) + len(complete) == 16
    assert fakes.most == 2
    for trial in pruned:
        measured = read_measured(tmp_path / "trials" / trial.user_attrs["trial_id"], AUC)
        assert trial.intermediate_values == measured
        assert max(measured) < EPOCHS
        assert results.read_trial(tmp_path / "trials" / trial.user_attrs["trial_id"])["state"] == "pruned"
    for trial in complete:
        assert trial.value == trial.params[MARGIN]
        assert max(trial.intermediate_values) == EPOCHS
    # A value of few epochs is nobody's result.
    assert found.table[AUC][found.table.state == "pruned"].isna().all()
    assert max(trial.params[MARGIN] for trial in told.get_trials()) == max(trial.value for trial in complete)


def test_asha_lets_no_more_go_on_than_its_rungs_say(tmp_path: Path) -> None:
    _, told = run(tmp_path, Fakes(), pruner="asha", trials=12, reduction=3)
    values: list[float] = []
    for trial in told.get_trials():
        values.append(trial.intermediate_values[1])
        kept = max(1, len(values) // 3)
        goes_on = sorted(values, reverse=True)[kept - 1] <= values[-1]
        assert (max(trial.intermediate_values) > 2) == goes_on


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_search_in_order_and_it_goes_on_as_if_there_was_none(number: int, tmp_path: Path) -> None:
    class Signalled(Fakes):
        def ended(self, seconds: float) -> dict[str, str]:
            found = super().ended(seconds)
            if len(self.started) > 2 and self.running:
                os.kill(os.getpid(), number)
                # The node of the trials that run may get the signal too.
                found |= dict.fromkeys(self.running, "its process ended")
            return found

    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    first = Signalled(slots=2)
    with pytest.raises(Interrupted) as ended:
        run(tmp_path, first, trials=6, pruner="asha")
    assert ended.value.code == 128 + number
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    assert 2 < len(first.started) < 6
    assert "failed" not in {results.read_trial(path.parent)["state"] for path in tmp_path.rglob("trial.json")}
    begun = set(first.started)
    found, told = run(tmp_path, Fakes(slots=2), trials=6, pruner="asha")
    assert begun <= set(found.table.trial_id)
    assert len(found.table) == found.table.trial_id.nunique() == 6
    assert not told.get_trials(states=(STATES.RUNNING, STATES.WAITING))


def test_a_search_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_space(
    small_disk: Callable[[str], Path],
) -> None:
    class Filling(Fakes):
        def ended(self, seconds: float) -> dict[str, str]:
            found = super().ended(seconds)
            if len(self.started) > 2:
                with suppress(OSError), (disk / "filler").open("wb") as file:
                    file.write(bytes(1 << 21))
            return found

    disk = small_disk("1m")
    with pytest.raises(DiskFull, match="is on a full disk; free space or name another"):
        run(disk / "search", Filling(), trials=6)
    with pytest.raises(DiskFull, match="is on a full disk"):
        run(disk / "search", Fakes(), trials=6)
    (disk / "filler").unlink()
    found, told = run(disk / "search", Fakes(), trials=6)
    assert found.table.state.tolist() == ["complete"] * 6
    assert found.table.trial_id.nunique() == 6
    assert not told.get_trials(states=(STATES.RUNNING, STATES.WAITING))


def test_a_killed_search_goes_on_and_loses_no_setting_and_runs_none_twice(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", Fakes(slots=2), trials=5)
    dying = Fakes(slots=2, die_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", dying, trials=5)
    search = search_of(parameters=MARGIN_ALONE)
    left = optuna.load_study(study_name="s", storage=_storage(tmp_path / "killed"))
    assert len(left.get_trials(states=(STATES.RUNNING,))) == 2
    going_on = Fakes(slots=2)
    found, told = run(tmp_path / "killed", going_on, trials=5)
    assert not told.get_trials(states=(STATES.RUNNING, STATES.WAITING))
    assert [trial.user_attrs["given_up"] for trial in told.get_trials(states=(STATES.FAIL,))] == [True, True]
    assert len(told.get_trials(states=(STATES.COMPLETE,))) == 5
    asked = {trial.params[MARGIN] for trial in told.get_trials()}
    assert asked == {trial.params[MARGIN] for trial in told.get_trials(states=(STATES.COMPLETE,))}
    assert len(found.table) == 5
    assert set(dying.started) <= set(going_on.started) | set(_finished(tmp_path / "killed"))
    assert not set(going_on.started) & (set(dying.started) - set(going_on.started))
    # The settings asked before the kill are those of the undisturbed search.
    assert set(dying.started) <= set(whole.table.trial_id)
    assert search.name == told.study_name


def test_what_a_killed_driver_had_not_told_yet_is_read_from_its_folder(tmp_path: Path) -> None:
    before = run(tmp_path, Fakes(), trials=3, pruner="asha")[1].get_trials()[2]
    journal = (tmp_path / study.STUDY_FILE).read_text().splitlines(keepends=True)
    # Cut off where the last trial was told, in the middle of a line, its lock left behind.
    last = max(place for place, line in enumerate(journal) if '"state":' in line and '"op_code":6' in line)
    (tmp_path / study.STUDY_FILE).write_text("".join(journal[:last]) + journal[last][:9])
    (tmp_path / f"{study.STUDY_FILE}.lock").symlink_to(tmp_path / study.STUDY_FILE)
    again = Fakes()
    started = time.monotonic()
    found, now = run(tmp_path, again, trials=3, pruner="asha")
    assert time.monotonic() - started < 10
    assert again.started == []
    after = now.get_trials()[-1]
    assert after.number > before.number
    assert (before.params, before.state, before.value, before.intermediate_values) == (
        after.params,
        after.state,
        after.value,
        after.intermediate_values,
    )
    assert len(found.table) == 3


def test_a_trial_given_up_is_not_counted_again_by_the_pruner(tmp_path: Path) -> None:
    search = search_of(parameters=MARGIN_ALONE, pruner="asha", reduction=2)
    judged = study.open_study(tmp_path, search, 0, {"q": 1})

    def report(value: float) -> bool:
        trial = judged.ask()
        trial.suggest_float(MARGIN, 0.0, 1.0)
        trial.report(value, 1)
        return study.goes_on(judged, trial, search)

    assert report(0.1)
    # The driver is killed, and the next one reports the same trial again.
    judged = study.open_study(tmp_path, search, 0, {"q": 1})
    assert report(0.1)
    assert report(0.5)
    # Not the best of three; were the first counted twice, it would be among the best two of four.
    assert not report(0.4)
    assert [trial.state for trial in judged.get_trials()] == [STATES.FAIL, *[STATES.RUNNING] * 3]


def test_a_larger_budget_extends_a_search_and_the_same_one_runs_nothing(tmp_path: Path) -> None:
    first, _ = run(tmp_path, Fakes(), trials=3)
    again = Fakes()
    assert run(tmp_path, again, trials=3)[0].table.equals(first.table)
    assert again.started == []
    more = Fakes()
    found, _ = run(tmp_path, more, trials=5)
    assert len(more.started) == 2
    assert set(found.table.trial_id) == {*first.table.trial_id, *more.started}


def test_another_space_or_objective_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path, Fakes(), trials=1)
    wider = {MARGIN: ParameterConfig(kind="float", low=0.0, high=2.0)}
    with pytest.raises(UserError, match=r"parameters.pretraining.margin was .* name another results=DIR"):
        run(tmp_path, Fakes(), trials=2, parameters=wider)
    with pytest.raises(UserError, match="objectives was"):
        run(tmp_path, Fakes(), trials=2, metric=DISTANCE_AUC)
    with pytest.raises(UserError, match="seed was 0, is 1"):
        run(tmp_path, Fakes(), trials=2, seed=1)
    # How it is searched may change.
    assert len(run(tmp_path, Fakes(), trials=2, sampler="tpe", pruner="asha")[0].table) == 2


def test_a_setting_drawn_twice_is_run_once_and_told_alike(tmp_path: Path) -> None:
    few = {MARGIN: ParameterConfig(kind="categorical", choices=[0.25, 0.5, 0.75])}
    fakes = Fakes(slots=2)
    found, told = run(tmp_path, fakes, trials=20, parameters=few)
    assert len(fakes.started) == 3
    assert len(found.table) == 3
    assert any("tried whole" in note for note in found.notes)
    values = {trial.params[MARGIN]: trial.value for trial in told.get_trials() if "same_as" not in trial.user_attrs}
    assert all(trial.value == values[trial.params[MARGIN]] for trial in told.get_trials())
    assert not told.get_trials(states=(STATES.RUNNING,))


def test_a_search_stops_asking_when_its_hours_are_spent_and_counts_those_of_earlier_runs(tmp_path: Path) -> None:
    run(tmp_path, Fakes(), trials=2)
    config = compose("sweep", ["cluster.cpus=3", "cluster.gpus=0.5"])
    spent = Spent.read(tmp_path)
    before = spent.cpu_hours
    assert before > 0
    spent.add(3600.0, 2, config.cluster)
    again = Spent.read(tmp_path)
    assert again.cpu_hours == pytest.approx(before + 6)
    assert again.gpu_hours == pytest.approx(1.0)
    assert again.hours > 1
    for limit in ({"hours": 1.0}, {"cpu_hours": 6.0}, {"gpu_hours": 1.0}):
        fakes = Fakes()
        assert len(run(tmp_path, fakes, trials=None, **limit)[0].table) == 2
        assert fakes.started == []
    assert len(run(tmp_path, Fakes(), trials=3, hours=2.0)[0].table) == 3


def test_several_objectives_give_a_front_and_a_winner_on_it(tmp_path: Path) -> None:
    sought = {AUC: "maximize", DISTANCE_AUC: "maximize", "cpu_s": "minimize"}
    found, told = run(tmp_path, Fakes(), trials=8, sampler="nsga2", population=4, objectives=sought)
    table = found.table
    assert table.cpu_s.tolist() == pytest.approx((10 + table[AUC]).tolist())
    assert set(table.number[table.front]) == {trial.number for trial in told.best_trials}
    assert table.winner.sum() == 1
    assert table.front[table.winner].all()
    assert found.winner == table.settings[table.winner].iloc[0].split(" ")


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 2), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats_and_the_winner_lies_on_it(points: list[tuple[int, int]]) -> None:
    def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return a != b and a[0] >= b[0] and a[1] <= b[1]

    directions = ["maximize", "minimize"]
    beaten = study.dominated(points, directions)
    assert beaten == [any(beats(other, point) for other in points) for point in points]
    front = [point for point, lost in zip(points, beaten, strict=True) if not lost]
    winner = front[study.compromise(front, directions)]
    ranges = [max(column) - min(column) or 1 for column in zip(*front, strict=True)]
    ideal = (max(a for a, _ in front), min(b for _, b in front))

    def distance(point: tuple[int, int]) -> float:
        return math.hypot((ideal[0] - point[0]) / ranges[0], (ideal[1] - point[1]) / ranges[1])

    assert distance(winner) == pytest.approx(min(map(distance, front)))


def test_with_one_objective_the_winner_is_the_best() -> None:
    assert study.compromise([[0.1], [0.7], [0.4]], ["maximize"]) == 1
    assert study.compromise([[0.1], [0.7], [0.4]], ["minimize"]) == 0


def lending(folder: Path, data: str = "data", seed: int = 7, **method: Any) -> None:
    """Writes an experiment with one finished trial."""
    words = ["pretraining=siamese", f"seed={seed}", *(f"{name}={value}" for name, value in method.items())]
    trial = make_trial("other", "variant", compose("sweep", words), data)
    results.write_experiment(folder, {"name": folder.name, "kind": "ablation", "question": "q?"})
    record = {**describe(trial, data), "state": "finished", "metrics": {AUC: {"value": 0.9}, "patches_linear_auc": 0.1}}
    results.write_trial(folder / "trials" / trial.trial_id, record)


def test_a_warm_start_takes_the_trials_that_answer_the_question_and_says_how_many(tmp_path: Path) -> None:
    other = tmp_path / "other"
    lending(other, **{"pretraining.margin": 0.25})
    lending(other, **{"pretraining.margin": 1.2})
    lending(other, data="other data", **{"pretraining.margin": 0.5})
    lending(other, **{"pretraining.margin": 0.5, "pretraining.epochs": 77})
    lending(other, **{"pretraining.margin": 0.5, "downstream.patches.per_lesion": 9})
    found, told = run(tmp_path / "new", Fakes(), trials=2, warm_start=str(other))
    line = found.notes[0]
    assert line.startswith("warm start: 1 finished trials taken; 1 left")
    for reason in ("outside of the space", "other data", "another pretraining.epochs", "another evaluation"):
        assert f"1 left: {reason}" in line
    (lent,) = (trial for trial in told.get_trials() if "source" in trial.user_attrs)
    assert (lent.params, lent.value, lent.state) == ({MARGIN: 0.25}, 0.9, STATES.COMPLETE)
    # It does not count as one of the search's own, and its seed is no fresh one.
    assert len(found.table) == 3
    assert found.fresh_seed == 8
    assert found.trials == sorted(_finished(tmp_path / "new"))
    again, told = run(tmp_path / "new", Fakes(), trials=2, warm_start=str(other))
    assert len(told.get_trials()) == 3
    assert "1 of them taken before" in again.notes[0]


def test_a_warm_start_takes_trials_from_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIAMRAY_CACHE", str(tmp_path / "cache"))
    lending(tmp_path / "other", **{"pretraining.margin": 0.25})
    MemoryFileSystem().put(str(tmp_path / "other"), "/lent/other", recursive=True)
    found, told = run(tmp_path / "new", Fakes(), trials=1, warm_start="memory://lent/other")
    assert found.notes[0] == "warm start: 1 finished trials taken"
    (source,) = (trial.user_attrs["source"] for trial in told.get_trials() if "source" in trial.user_attrs)
    assert source.startswith("memory://lent/other/other-seed7-")
    MemoryFileSystem.store.clear()


def test_a_search_where_nothing_was_trained_to_its_end_has_no_winner(tmp_path: Path) -> None:
    found, told = run(tmp_path, Fakes(outcome=lambda _: "failed"), trials=3)
    assert found.winner is None
    assert [trial.state for trial in told.get_trials()] == [STATES.FAIL] * 3
    empty = select(optuna.create_study(), search_of(), 0, [])
    assert empty.winner is None
    assert empty.table.empty


def test_a_trial_waits_for_its_answer_and_goes_on_without_one(tmp_path: Path) -> None:
    looked: list[int] = []

    def value(encoder: Any, store: Any, config: Config, metric: str) -> float:
        looked.append(1)
        return 0.5

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("siamray.sweeps.early_stopping.validation_value", value)
        patch.setattr("siamray.sweeps.early_stopping.Store", SimpleNamespace(open=lambda *_: None))
        examine = Examination(to_dict(compose("sweep", [])), "store", AUC, 2, wait_seconds=0.05)
        encoder: Any = None
        assert examine(1, encoder, tmp_path)
        assert not looked
        assert examine(2, encoder, tmp_path)
        answer(tmp_path, 4, stop=False)
        assert dataclasses.replace(examine, wait_seconds=60.0)(4, encoder, tmp_path)
        answer(tmp_path, 4, stop=True)
        assert not dataclasses.replace(examine, wait_seconds=60.0)(6, encoder, tmp_path)
    assert read_measured(tmp_path, AUC) == {2: 0.5, 4: 0.5, 6: 0.5}
    write_measured(tmp_path, 4, AUC, 0.75)
    assert read_measured(tmp_path, AUC) == {2: 0.5, 4: 0.75}


def _finished(folder: Path) -> dict[str, Any]:
    return results.finished_trials(folder)


def _storage(folder: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(folder / study.STUDY_FILE)))


def test_a_board_passes_measurements_on_and_waits_for_answers() -> None:
    async def story() -> None:
        board = Board()
        asked = asyncio.ensure_future(board.examined("t1", 2, AUC, 0.5, 60))
        other = asyncio.ensure_future(board.examined("t2", 2, AUC, 0.4, 60))
        await asyncio.sleep(0.01)
        assert await board.take() == [("t1", 2, AUC, 0.5), ("t2", 2, AUC, 0.4)]
        assert await board.take() == []
        await board.answer("t1", 1, False)
        await asyncio.sleep(0.01)
        assert not asked.done()
        await board.answer("t1", 2, False)
        await board.answer("t2", 2, True)
        assert await asked
        assert not await other
        # Without an answer a trial goes on.
        assert await board.examined("t1", 4, AUC, 0.6, 0.01)

    asyncio.run(story())
