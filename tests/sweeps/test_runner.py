"""Trials are placed so that none waits for ever."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from siamray.config import ClusterConfig
from siamray.errors import UserError
from siamray.sweeps import runner
from siamray.sweeps.driver import TakenOver
from siamray.sweeps.runner import concurrency, trial_resources


@pytest.mark.parametrize(
    ("cluster", "resources", "expected"),
    [
        (ClusterConfig(), {"CPU": 2.0}, 2),
        (ClusterConfig(cpus=2), {"CPU": 2.0}, 1),
        (ClusterConfig(workers=2), {"CPU": 5.0}, 2),
        (ClusterConfig(cpus=1, gpus=0.5), {"CPU": 8.0, "GPU": 2.0}, 4),
        (ClusterConfig(workers=3, cpus=2, gpus=1), {"CPU": 64.0, "GPU": 8.0}, 2),
    ],
)
def test_as_many_trials_run_at_a_time_as_can_place_their_workers(
    cluster: ClusterConfig, resources: dict[str, float], expected: int
) -> None:
    assert concurrency(cluster, resources) == expected


def test_eight_workers_on_two_cores_are_refused() -> None:
    with pytest.raises(UserError, match="needs 8 CPUs, and there are 2; ask for fewer"):
        concurrency(ClusterConfig(workers=8), {"CPU": 2.0})


def test_a_driver_that_waits_for_workers_leaves_them_the_processors() -> None:
    assert trial_resources(ClusterConfig(workers=2))["CPU"] < 0.1
    assert trial_resources(ClusterConfig(cpus=2, gpus=0.5)) == {"CPU": 2.0, "GPU": 0.5}


def test_a_sweep_of_any_length_is_given_to_ray_tune_in_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Events:
        ended = False

        def over(self) -> bool:
            return self.ended

    events, rounds = Events(), []

    def tune(part: dict[str, dict[str, str]], *given: object) -> dict[str, str]:
        rounds.append(list(part))
        events.ended = "6" in part
        return {"4": "lost"} if "4" in part else {}

    monkeypatch.setattr(runner, "ROUND_TRIALS", 3)
    monkeypatch.setattr(runner, "_tune", tune)
    specifications: dict[str, dict[str, str]] = {str(number): {} for number in range(20)}
    assert runner._in_rounds(specifications, ClusterConfig(), 1, events) == {"4": "lost"}  # type: ignore[arg-type]
    # An end that was asked for is the end of all rounds.
    assert rounds == [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"]]


def test_a_sweep_that_was_taken_over_ends_its_trials_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def sent(experiment: Path) -> None:
        raise TakenOver("another sweep runs this experiment")

    monkeypatch.setattr(runner, "send_meanwhile", sent)
    monkeypatch.setattr(runner, "COLLECT_SECONDS", 0)
    monkeypatch.setattr(runner.results, "collect", lambda _: None)
    shown = SimpleNamespace(epoch=lambda *_: None)
    events = runner._Events(shown, tmp_path, SimpleNamespace(asked=0))  # type: ignore[arg-type]
    assert not events.over()
    trial = SimpleNamespace(config={"specification": json.dumps({"folder": "trials/soft-s0"})})
    events.epoch(trial, {"epoch": 1})
    assert events.over()
    assert isinstance(events.hindrance, TakenOver)
