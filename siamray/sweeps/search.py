"""A search configuration goes in; what its Optuna study selected comes out; its trials run as tasks of Ray.

The driver asks the study for settings and tells it how they ended, so that a stopped trial is told as pruned and a
diverged one as failed. All that it must remember is on disk: the study in study.log, the trials in their folders, what
was spent in spent.json. Killed and given the same command, it goes on. Where results lie at a URL, study.log and
spent.json are sent there whenever the study has asked or was told something, trials by their own processes: what a
driver elsewhere does not find in the study, it finds as a trial that has ended, and does not run again.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from siamray.cluster import connected
from siamray.compose import compose_variant, to_dict
from siamray.config import ClusterConfig, Config, SearchConfig
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.files import space_for, write_json
from siamray.pretraining.trainer import make_room
from siamray.sweeps import results
from siamray.sweeps import study as studies
from siamray.sweeps.ablation import Trial, base_words, make_trial
from siamray.sweeps.contract import IMPORTANCE_COLUMNS, SELECTION_COLUMNS
from siamray.sweeps.early_stopping import (
    Examination,
    answer,
    forget_answer,
    read_measured,
)
from siamray.sweeps.fixed_arithmetic import fix_arithmetic
from siamray.sweeps.importance import importances
from siamray.sweeps.interruption import Interruption
from siamray.sweeps.launcher import Launcher, RayLauncher
from siamray.sweeps.remote_results import KEEP_SECONDS, fetch_trial, send_meanwhile
from siamray.sweeps.space import search_overrides, suggest
from siamray.sweeps.trial import describe

VARIANT = "searched"
SPENT_FILE = "spent.json"
# A trial that a pruner looks at waits for the answer as long.
_POLL_SECONDS = 0.2
# A space of a few settings has been tried whole when that many draws in a row gave no new one.
_DRAWS_IN_A_ROW = 50


@dataclass(frozen=True)
class Selection:
    """What a search has found on validation women: a choice, not a result.

    Attributes:
        table: SELECTION_COLUMNS and a column per objective, complete trials first: the front, the best first.
        winner: the words of the setting to confirm; None where no trial is complete.
        fresh_seed: the first seed that no trial of the search was trained with, and all above it.
        trials: ids of the trial folders that belong to the search.
        notes: what a reader must know, one line each.
        importance: IMPORTANCE_COLUMNS; no rows where the trials are too few to tell.
    """

    table: pd.DataFrame
    winner: list[str] | None
    fresh_seed: int
    trials: list[str]
    notes: list[str]
    importance: pd.DataFrame


def run_search(config: Config, words: list[str], store: Store, experiment: Path, console: Console) -> Selection:
    """Runs a search until its budget is spent, going on where an earlier run of it stopped.

    Args:
        config: of the sweep, with its search.
        words: the sweep's command line.
        store: the prepared exams.
        experiment: ``<results>/<experiment>``.
        console: progress is printed there.

    Raises:
        UserError: see `studies.check_search`; a folder that holds another search; workers that can never be placed.
        DiskFull, RayEnded, TakenOver, Interrupted: as `conduct`.
    """
    base = base_words(words)

    def make(settings: dict[str, Any]) -> Trial:
        chosen = fix_arithmetic(compose_variant("sweep", base, search_overrides(settings)), experiment)
        return make_trial(VARIANT, "variant", chosen, store.fingerprint)

    return conduct(
        config, store, experiment, make, lambda resources: RayLauncher(config.cluster, resources, store), console
    )


def conduct(
    config: Config,
    store: Store,
    experiment: Path,
    make: Callable[[dict[str, Any]], Trial],
    launcher: Callable[[dict[str, float]], Launcher],
    console: Console,
) -> Selection:
    """Opens the study, asks and tells until the budget is spent, and selects.

    Args:
        config: of the sweep, with its search.
        store: the prepared exams.
        experiment: ``<results>/<experiment>``.
        make: makes the trial of a setting.
        launcher: given the resources of the cluster, what runs the trials; Ray is not started where nothing is to run.
        console: progress is printed there.

    Raises:
        DiskFull, RayEnded: the trials that ran keep their checkpoints, and the study asks for their settings again.
        TakenOver: another driver goes on with the search at its URL.
        Interrupted: a signal asked for the end; the same holds.
    """
    search = config.search
    assert search is not None
    with space_for(experiment):
        study = studies.open_study(experiment, search, config.seed, studies.question(config, store.fingerprint))
        notes = [note for note in [studies.sampler_limits(search)] if note]
        if search.warm_start is not None:
            notes.append(str(studies.warm_start(study, config, store.fingerprint)))
        for note in notes:
            console.print(note, soft_wrap=True, highlight=False)
        spent = Spent.read(experiment)
        if _budget_left(search, study, spent, 0):
            with connected(config.cluster) as resources, Interruption(lambda line: _say(console, line)) as interruption:
                if config.cluster.trials is not None:
                    make_room(config.cluster, resources, lambda line: _say(console, line))
                runs = launcher(resources)
                _Driver(config, search, store, experiment, make, runs, console, study, spent, notes, interruption).go()
                interruption.end()
    return select(study, search, config.seed, notes)


@dataclass
class Spent:
    """Hours that a search has taken, all its runs together; written down every few seconds."""

    path: Path
    hours: float = 0.0
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0

    @classmethod
    def read(cls, experiment: Path) -> "Spent":
        """Reads what earlier runs have spent."""
        path = experiment / SPENT_FILE
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return cls(path, **known)

    def add(self, seconds: float, running: int, cluster: ClusterConfig) -> None:
        """Adds a while in which some trials held what they reserve, and writes it down."""
        trainers = max(1, cluster.workers)
        self.hours += seconds / 3600
        self.cpu_hours += seconds / 3600 * running * trainers * cluster.cpus
        self.gpu_hours += seconds / 3600 * running * trainers * cluster.gpus
        write_json(self.path, {"hours": self.hours, "cpu_hours": self.cpu_hours, "gpu_hours": self.gpu_hours})


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _budget_left(search: SearchConfig, study: Any, spent: Spent, running: int) -> bool:
    """Whether a new trial may be asked: neither trials nor hours are used up."""
    if search.trials is not None and len(studies.own_trials(study)) + running >= search.trials:
        return False
    limits = ((search.hours, spent.hours), (search.cpu_hours, spent.cpu_hours), (search.gpu_hours, spent.gpu_hours))
    return all(limit is None or used < limit for limit, used in limits)


@dataclass
class _Running:
    """A trial that runs: Optuna's trials of its setting (the first one is told more), and how far it got."""

    asked: list[Any]
    trial: Trial
    folder: Path
    settings: dict[str, Any]
    attempts: int = 1
    judged: set[int] = field(default_factory=set)
    stop: bool = False


@dataclass
class _Driver:
    """Asks, starts, judges and tells, until nothing runs and nothing more may be asked."""

    config: Config
    search: SearchConfig
    store: Store
    experiment: Path
    make: Callable[[dict[str, Any]], Trial]
    launcher: Launcher
    console: Console
    study: Any
    spent: Spent
    notes: list[str]
    interruption: Interruption
    running: dict[str, _Running] = field(default_factory=dict)
    repeats: int = 0
    sent: float = 0.0

    def go(self) -> None:
        """Runs the search."""
        clock = time.monotonic()
        written = clock
        while True:
            while not self.interruption.asked and self._may_ask():
                self._ask()
                self._send()
            if not self.running:
                break
            ended = self.launcher.ended(_POLL_SECONDS)
            for running in self.running.values():
                self._judge(running)
            now = time.monotonic()
            # Often enough that a killed driver forgets little, and seldom enough for a network's disk.
            if ended or now - written > 5 * _POLL_SECONDS:
                self.spent.add(now - written, len(self.running), self.config.cluster)
                written = now
            if self.interruption.asked:
                # What has ended meanwhile is told when the study asks for its setting again.
                self.spent.add(now - written, len(self.running), self.config.cluster)
                return
            for trial_id, failure in ended.items():
                self._end(self.running[trial_id], failure)
            if ended or now - self.sent > KEEP_SECONDS:
                self._send()
        if self.repeats >= _DRAWS_IN_A_ROW and _budget_left(self.search, self.study, self.spent, 0):
            note = f"{_DRAWS_IN_A_ROW} draws in a row gave no new setting: the space is tried whole"
            self.notes.append(note)
            self.console.print(note, soft_wrap=True)

    def _send(self) -> None:
        """Sends the study as it is now, where results lie at a URL."""
        self.sent = time.monotonic()
        send_meanwhile(self.experiment)

    def _may_ask(self) -> bool:
        return (
            len(self.running) < self.launcher.slots
            and self.repeats < _DRAWS_IN_A_ROW
            and _budget_left(self.search, self.study, self.spent, len(self.running))
        )

    def _ask(self) -> None:
        """Asks for a setting and starts its trial, unless it is known already how it ends."""
        asked = self.study.ask()
        settings = suggest(asked, self.search.parameters)
        if self._is_known(asked, settings=settings):
            return
        try:
            trial = self.make(settings)
        except UserError as error:
            record = {"state": "failed", "reason": " ".join(str(error).split())}
            self._tell([asked], record, settings)
            return
        asked.set_user_attr(studies.TRIAL_ID, trial.trial_id)
        if self._is_known(asked, trial_id=trial.trial_id):
            return
        self.repeats = 0
        folder = self.experiment / results.TRIALS_FOLDER / trial.trial_id
        running = _Running([asked], trial, folder, settings)
        if (record_left := _record(folder)) is not None and record_left["state"] in ("finished", "pruned"):
            # Left by a driver that was killed before it told so.
            self._judge(running)
            self._tell(running.asked, record_left, settings)
            return
        forget_answer(folder)
        self.running[trial.trial_id] = running
        self._start(running)

    def _is_known(self, asked: Any, settings: dict[str, Any] | None = None, trial_id: str = "") -> bool:
        """Whether a setting, or the trial that it makes, was drawn before; it is told alike, now or when that ends."""
        for running in self.running.values():
            if running.settings == settings or running.trial.trial_id == trial_id:
                running.asked.append(asked)
                self.repeats += 1
                return True
        for first in studies.own_trials(self.study):
            same_trial = bool(trial_id) and first.user_attrs.get(studies.TRIAL_ID) == trial_id
            if same_trial or first.params == settings:
                studies.tell_alike(self.study, asked, first)
                self.repeats += 1
                return True
        return False

    def _start(self, running: _Running) -> None:
        examination = None
        if self.search.pruner != "none":
            examination = Examination(
                to_dict(running.trial.config),
                str(self.store.path),
                next(iter(studies.objectives(self.search))),
                self.search.evaluate_every,
            )
        self.launcher.start(running.trial, running.folder, examination)

    def _judge(self, running: _Running) -> None:
        """Reports what a trial has measured to Optuna, epoch by epoch, and answers it whether to go on."""
        if self.search.pruner == "none":
            return
        measured = read_measured(running.folder, next(iter(studies.objectives(self.search))))
        new = {epoch: value for epoch, value in measured.items() if epoch not in running.judged}
        for epoch, value in new.items():
            running.judged.add(epoch)
            # What is no number says nothing of a trial; one that goes on so fails at its end.
            if value == value:
                running.asked[0].report(value, epoch)
                running.stop = not studies.goes_on(self.study, running.asked[0], self.search) or running.stop
        if new and running.trial.trial_id in self.running:
            answer(running.folder, max(new), running.stop)

    def _end(self, running: _Running, failure: str) -> None:
        """Tells how a trial ended, or starts it again where only its attempt failed."""
        record = _record(running.folder)
        if record is None:
            with suppress(UserError):
                fetch_trial(self.experiment, running.trial.trial_id)
            record = _record(running.folder)
        if record is None:
            if running.attempts <= self.config.cluster.failures:
                running.attempts += 1
                self._start(running)
                return
            reason = failure or "ended without a result"
            written = {**describe(running.trial, self.store.fingerprint), "state": "failed", "reason": reason}
            results.write_trial(running.folder, written)
            record = results.read_trial(running.folder)
        del self.running[running.trial.trial_id]
        self._judge(running)
        # Optuna knows more now, and may draw what it has not drawn yet.
        self.repeats = 0
        forget_answer(running.folder)
        self._tell(running.asked, record, running.settings)

    def _tell(self, asked: list[Any], record: dict[str, Any], settings: dict[str, Any]) -> None:
        state = studies.tell(self.study, asked[0], record, studies.objectives(self.search))
        first = self.study.get_trials(deepcopy=False)[asked[0].number]
        for other in asked[1:]:
            studies.tell_alike(self.study, other, first)
        self._show(state, first, settings)

    def _show(self, state: str, told: Any, settings: dict[str, Any]) -> None:
        words = {
            "complete": lambda: ", ".join(
                f"{name} {value:.3f}" for name, value in zip(studies.objectives(self.search), told.values, strict=True)
            ),
            "pruned": lambda: f"pruned: {told.user_attrs.get(studies.REASON, '')}",
            "failed": lambda: f"failed: {told.user_attrs.get(studies.REASON, '')}",
        }[state]()
        done = len(studies.own_trials(self.study))
        of = f"/{self.search.trials}" if self.search.trials is not None else ""
        line = f"  {done}{of} {words}  {' '.join(search_overrides(settings))}"
        self.console.print(line, style="red" if state == "failed" else "dim", highlight=False, markup=False)


def _record(folder: Path) -> dict[str, Any] | None:
    """The record of a trial that has ended; None where it has not, or left it damaged."""
    try:
        return results.read_trial(folder)
    except (FileNotFoundError, results.Unreadable):
        return None


def select(study: Any, search: SearchConfig, seed: int, notes: list[str]) -> Selection:
    """Tabulates a study, finds its Pareto front, and names the winner.

    The winner is the complete trial with the best objective; of several objectives the member of the front that is
    nearest to the ideal point (see `studies.compromise`).

    Args:
        study: its trials have ended.
        search: its configuration.
        seed: of the search.
        notes: what is to be told beside it.
    """
    sought = studies.objectives(search)
    directions = list(sought.values())
    complete = studies.complete(study)
    values = [list(trial.values) for trial in complete]
    front = [trial for trial, beaten in zip(complete, studies.dominated(values, directions), strict=True) if not beaten]
    best = front[studies.compromise([list(trial.values) for trial in front], directions)] if front else None
    on_front = {trial.number for trial in front}
    lent = [trial for trial in complete if studies.SOURCE in trial.user_attrs]
    unknown = [float("nan")] * len(sought)
    rows = [
        {
            "number": trial.number,
            "trial_id": trial.user_attrs.get(studies.TRIAL_ID, ""),
            "state": {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed"),
            "settings": " ".join(search_overrides(trial.params)),
            "front": trial.number in on_front,
            "winner": best is not None and trial.number == best.number,
            "epoch": trial.last_step,
            "source": trial.user_attrs.get(studies.SOURCE, ""),
            "reason": trial.user_attrs.get(studies.REASON, ""),
            **dict(zip(sought, trial.values if trial.state.name == "COMPLETE" else unknown, strict=True)),
        }
        for trial in [*studies.own_trials(study), *lent]
    ]
    table = pd.DataFrame(rows, columns=[*SELECTION_COLUMNS, *sought]).astype(
        SELECTION_COLUMNS | dict.fromkeys(sought, "float64")
    )
    first, direction = next(iter(sought.items()))
    order = ["_state", "front", first, "number"]
    table = (
        table.assign(_state=table.state.map({"complete": 0, "pruned": 1, "failed": 2}))
        .sort_values(order, ascending=[True, False, direction == "minimize", True], ignore_index=True)
        .drop(columns="_state")
    )
    return Selection(
        table,
        search_overrides(best.params) if best is not None else None,
        max(studies.seeds_seen(study, seed)) + 1,
        sorted(set(table.trial_id) - {""}),
        notes,
        _importance(study, list(sought), seed),
    )


def _importance(study: Any, sought: list[str], seed: int) -> pd.DataFrame:
    """IMPORTANCE_COLUMNS for every objective that enough trials have answered differently."""
    tables = []
    for place, metric in enumerate(sought):
        # Too few trials, or all alike: nothing is known yet, which is no mistake of the user's.
        with suppress(UserError):
            tables.append(importances(study, objective=place, seed=seed).assign(objective=metric))
    if not tables:
        return pd.DataFrame(columns=IMPORTANCE_COLUMNS)
    return pd.concat(tables, ignore_index=True)[IMPORTANCE_COLUMNS]
