"""A search whose results lie at a URL goes on on any machine: every setting once, whatever was lost in between."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from upath import UPath

from siamray.files import read_bytes, write_json
from siamray.sweeps import results
from siamray.sweeps.driver import LOCK_FILE, TakenOver
from siamray.sweeps.remote_results import attempt, url_of, worked_on
from siamray.sweeps.study import STUDY_FILE, own_trials
from tests.sweeps.test_remote_results import move, names
from tests.sweeps.test_search import Fakes, Trial, no_ray, run
from tests.test_commands import TINY, siamray

__all__ = ["no_ray"]


class AtAUrl(Fakes):
    """Trials whose processes fetch and send them, as those of Ray do; with a node, on another machine."""

    node: Path | None = None

    def _leave(self, trial: Trial, folder: Path, state: str, metrics: dict[str, Any], reason: str) -> None:
        url = url_of(folder.parent.parent)
        assert url is not None
        with pytest.MonkeyPatch.context() as elsewhere:
            if self.node is not None:
                move(self.node, elsewhere)
            with attempt(str(folder), str(url / "trials" / trial.trial_id)) as (here, _):
                super()._leave(trial, here, state, metrics, reason)


def search_until_lost(place: UPath, fakes: Fakes, **given: Any) -> None:
    """Runs a search on a machine that is lost when the fakes die: nothing is sent any more."""
    with pytest.MonkeyPatch.context() as lost, worked_on(str(place), "s") as folder:
        try:
            run(folder / "s", fakes, **given)
        finally:
            lost.setattr("siamray.sweeps.remote_results._send", lambda *_: None)


def ended_at(place: UPath) -> set[str]:
    return {name.split("/")[2] for name in names(place) if name.endswith("/trial.json")}


@pytest.mark.parametrize("trials_run", ["here", "on a node"])
@pytest.mark.parametrize("study_sent", [True, False])
def test_a_search_goes_on_on_another_machine_and_runs_no_setting_twice(
    trials_run: str, study_sent: bool, s3: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine in range(2):
        move(tmp_path / f"machine {machine}", monkeypatch)
        before = ended_at(s3)
        fakes = AtAUrl(slots=2, die_after=3)
        fakes.node = tmp_path / "node" if trials_run == "on a node" else None
        with monkeypatch.context() as patched:
            if not study_sent:
                # Lost before it was: the trials that have ended are all that is known.
                patched.setattr("siamray.sweeps.search.send_meanwhile", lambda *_, **__: None)
            with pytest.raises(KeyboardInterrupt):
                search_until_lost(s3, fakes)
        assert ended_at(s3) > before
        assert not before & set(fakes.started)
    before = ended_at(s3)
    move(tmp_path / "the last machine", monkeypatch)
    fakes = AtAUrl(slots=2)
    with worked_on(str(s3), "s") as folder:
        found, study = run(folder / "s", fakes)
    assert not before & set(fakes.started)
    assert len(fakes.started) == len(set(fakes.started)) == 6 - len(before)
    assert len(own_trials(study)) == 6
    assert set(found.table.trial_id) == ended_at(s3)
    assert found.table.state.tolist() == ["complete"] * 6
    assert STUDY_FILE in {name.removeprefix("s/") for name in names(s3)}


def test_a_stopped_trial_is_pruned_at_a_url_too(s3: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move(tmp_path, monkeypatch)
    with worked_on(str(s3), "s") as folder:
        found, _ = run(folder / "s", AtAUrl(slots=3), trials=9, pruner="asha", grace_epochs=1, reduction=3)
    assert {"complete", "pruned"} == set(found.table.state)
    assert set(found.table.trial_id) == ended_at(s3)


def test_a_driver_that_was_taken_over_leaves_the_study_of_the_other_and_starts_nothing_more(
    s3: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overtaken(AtAUrl):
        def ended(self, seconds: float) -> dict[str, str]:
            write_json(s3 / "s" / LOCK_FILE, {"token": "another", "beat": 0})
            s3.fs.pipe_file((s3 / "s" / STUDY_FILE).path, b"the other's")
            return super().ended(seconds)

    move(tmp_path, monkeypatch)
    fakes = Overtaken(slots=2)
    with pytest.raises(TakenOver, match="another sweep runs this experiment since"), worked_on(str(s3), "s") as folder:
        run(folder / "s", fakes)
    # Of six.
    assert len(fakes.started) == 2
    assert read_bytes(s3 / "s" / STUDY_FILE) == b"the other's"


@pytest.mark.slow
def test_a_search_through_ray_at_a_url_goes_on_from_an_empty_folder(
    s3: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "rates.yaml").write_text(
        "name: rates\nquestion: which rate?\nconfirm: 0\npruner: asha\n"
        "parameters: {pretraining.learning_rate: {kind: float, low: 0.00001, high: 0.1, log: true}}\n"
    )
    words = [f"experiments={tmp_path}", "search=rates", *TINY, f"results={s3}", f"store={tmp_path / 'store'}"]
    known: set[str] = set()
    for trials in (1, 2):
        move(tmp_path / f"machine {trials}", monkeypatch)
        done = siamray("sweep", *words, f"search.trials={trials}")
        assert done.returncode == 0, done.stderr
        loaded = results.load(s3 / "rates")
        assert loaded.trials["state"].tolist() == ["finished"] * trials
        assert known < set(loaded.trials["trial_id"])
        # A pruner has looked after the first of two epochs, and what it saw lies beside the rest.
        assert [loaded.validation(name)["epoch"].tolist() for name in loaded.trials["trial_id"]] == [[1]] * trials
        assert pd.read_parquet(loaded.path / results.SELECTION_FILE)["epoch"].tolist() == [1] * trials
        known = set(loaded.trials["trial_id"])
    assert not [name for name in names(s3) if name.endswith("checkpoint.pt") or LOCK_FILE in name]
