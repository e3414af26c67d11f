"""A sweep shows how far it is, what it costs and which variant is best, on a terminal and in a log."""

import dataclasses
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from siamray.compose import compose
from siamray.config import Config, IntervalsConfig
from siamray.downstream.intervals import auc
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial
from siamray.sweeps.progress import UNKNOWN, Progress, Shown, Standing, duration, way
from siamray.sweeps.standings import Standings


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def config() -> Config:
    return compose("sweep", ["pretraining.epochs=3", "cluster.cpus=2"])


def trials(config: Config, variants: tuple[str, ...] = ("soft", "hard"), seeds: int = 2) -> dict[str, Trial]:
    made = [
        Trial(f"{name}-{seed}", name, "variant", seed, 0, dataclasses.replace(config, seed=seed))
        for seed in range(seeds)
        for name in variants
    ]
    return {trial.trial_id: trial for trial in made}


def test_time_left_is_that_of_the_epochs_left_at_the_pace_so_far(config: Config) -> None:
    clock = Clock()
    progress = Progress(trials(config), {"soft-0"}, clock)
    assert progress.left is None
    progress.start("hard-0")
    clock.now += 40
    for epoch in range(1, 3):
        progress.epoch("hard-0", epoch)
    # 2 steps of 4 in 40 s; 2 left of this trial and 4 of each of two others.
    assert progress.left == pytest.approx(20 * (2 + 8))
    progress.epoch("hard-0", 2)
    assert progress.left == pytest.approx(20 * (2 + 8))
    progress.end("hard-0", failed=False)
    assert progress.left == pytest.approx(20 * 8)
    assert progress.done == 2
    assert progress.of_variant("soft") == (1, 0, 2)
    assert progress.of_variant("hard") == (1, 0, 2)


def test_a_resumed_trial_counts_only_the_epochs_it_still_trains(config: Config) -> None:
    clock = Clock()
    progress = Progress(trials(config, ("soft",), 1), set(), clock)
    progress.start("soft-0")
    clock.now += 10
    progress.epoch("soft-0", 3)
    assert progress.left == pytest.approx(10)


def test_cost_is_that_of_the_processors_reserved_also_by_trials_that_failed(config: Config) -> None:
    clock = Clock()
    progress = Progress(trials(config), set(), clock)
    progress.start("soft-0")
    progress.start("hard-0")
    clock.now += 1800
    progress.end("hard-0", failed=True)
    clock.now += 1800
    assert progress.processor_hours == pytest.approx(2 * (1 + 0.5))
    assert progress.of_variant("hard") == (0, 1, 2)


def show(
    how: str, config: Config, standing: Callable[[str], Standing] = lambda _: (0.8, 0.7, 0.9), *, terminal: bool = False
) -> tuple[Shown, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=terminal)
    return Shown(Progress(trials(config), set(), Clock()), how, console, "patches_linear_auc", standing), out


def run_all(shown: Shown) -> None:
    with shown.shown():
        for name in ("soft-0", "hard-0"):
            shown.start(name)
            shown.epoch(name, 1)
            shown.end(name, failed=name == "hard-0", reason="the loss is not finite" if name == "hard-0" else "")


def test_json_lines_hold_every_event_with_progress_cost_and_value(config: Config) -> None:
    shown, out = show("json", config)
    run_all(shown)
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["started", "epoch", "finished", "started", "epoch", "failed"]
    finished, failed = events[2], events[5]
    assert (finished["patches_linear_auc"], finished["patches_linear_auc_low"]) == (0.8, 0.7)
    assert (finished["done"], finished["trials"], finished["trial_id"]) == (1, 4, "soft-0")
    assert failed["reason"] == "the loss is not finite"
    assert (failed["done"], failed["failed"]) == (2, 1)


def test_a_value_that_is_unknown_is_null_in_json(config: Config) -> None:
    shown, out = show("json", config, lambda _: UNKNOWN)
    run_all(shown)
    assert json.loads(out.getvalue().splitlines()[2])["patches_linear_auc"] is None


def test_a_log_has_a_line_per_trial_and_nothing_that_is_drawn_anew(config: Config) -> None:
    shown, out = show("lines", config)
    run_all(shown)
    first, second = out.getvalue().splitlines()
    assert first.startswith("1/4  soft-0  soft 0.800 [0.700, 0.900]")
    assert second.startswith("2/4  failed: the loss is not finite  hard-0")
    assert "\x1b" not in out.getvalue()


def test_a_line_stays_one_line_in_a_narrow_log(config: Config) -> None:
    shown, _ = show("lines", config)
    narrow = io.StringIO()
    shown._console = Console(file=narrow, width=20)
    run_all(shown)
    assert len(narrow.getvalue().splitlines()) == 2


def test_quiet_says_nothing(config: Config) -> None:
    shown, out = show("quiet", config)
    run_all(shown)
    assert out.getvalue() == ""


def test_the_table_lists_the_best_variant_first_with_failures_and_what_runs(config: Config) -> None:
    shown, out = show("live", config, lambda name: {"soft": (0.7, 0.6, 0.8), "hard": (0.9, 0.8, 1.0)}[name])
    shown.end("soft-0", failed=False)
    shown.end("hard-0", failed=False)
    shown.start("soft-1")
    shown.epoch("soft-1", 2)
    shown.end("hard-1", failed=True, reason="x")
    Console(file=out, width=120).print(shown.table())
    lines = [line for line in out.getvalue().splitlines() if line.startswith(("soft", "hard"))]
    assert [line.split()[0] for line in lines] == ["hard", "soft"]
    assert "1/2 (1 failed)" in lines[0]
    assert "0.900 [0.800, 1.000]" in lines[0]
    assert "seed 1 fold 0: 2/3" in lines[1]
    assert "3 of 4 trials, 1 failed" in out.getvalue()


def test_a_terminal_gets_the_table_and_a_file_gets_lines() -> None:
    assert way("auto", Console(file=io.StringIO(), force_terminal=True)) == "live"
    assert way("auto", Console(file=io.StringIO())) == "lines"
    assert way("json", Console(file=io.StringIO(), force_terminal=True)) == "json"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600 * 3, "3 h 0 min")])
def test_durations_are_written_as_one_reads_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def write(folder: Path, trial: Trial, values: np.ndarray, state: str = "finished") -> pd.DataFrame:
    number = np.arange(40)
    table = pd.DataFrame({"woman_id": [f"w{n // 4}" for n in number], "label": (number % 4 < 2).astype(int)})
    table = table.assign(
        task="patches", score="linear", split="test", sample_id=[f"s{n:02d}" for n in number], value=values,
        entry_id="e", side="left", note="", draw=0,
    )  # fmt: skip
    record = {"trial_id": trial.trial_id, "variant": trial.variant, "seed": trial.seed, "state": state}
    results.write_trial(folder / results.TRIALS_FOLDER / trial.trial_id, record, predictions=table)
    return table


def test_a_standing_is_the_mean_over_finished_trials_within_its_interval(config: Config, tmp_path: Path) -> None:
    generator, known = np.random.default_rng(0), trials(config, seeds=3)
    standings = Standings(tmp_path, "patches_linear_auc", known, IntervalsConfig())
    assert all(math.isnan(value) for value in standings("soft"))
    expected = []
    for seed in range(2):
        table = write(tmp_path, known[f"soft-{seed}"], generator.normal(size=40) + np.tile([1, 1, 0, 0], 10))
        expected.append(auc(table.label, table.value))
        value, low, high = standings("soft")
        assert value == pytest.approx(np.mean(expected))
        assert low < value < high
    write(tmp_path, known["soft-2"], np.zeros(40), state="failed")
    assert standings("soft")[0] == pytest.approx(np.mean(expected))
    assert all(math.isnan(value) for value in standings("hard"))


def test_an_interval_stays_within_the_range_of_the_metric(config: Config, tmp_path: Path) -> None:
    known = trials(config, seeds=2)
    standings = Standings(tmp_path, "patches_linear_auc", known, IntervalsConfig())
    # One seed right and one wrong: Student's t of two seeds reaches far beyond 0 and 1.
    for seed, sign in enumerate((1, -1)):
        write(tmp_path, known[f"soft-{seed}"], sign * np.tile([2.0, 1.0, 0.5, -1.0], 10))
    value, low, high = standings("soft")
    assert (low, high) == (0, 1)
    assert low < value < high


def test_a_damaged_trial_has_no_standing(config: Config, tmp_path: Path) -> None:
    known = trials(config)
    write(tmp_path, known["soft-0"], np.arange(40.0))
    (tmp_path / results.TRIALS_FOLDER / "soft-0" / "predictions.parquet").write_bytes(b"PAR1 half")
    assert all(
        math.isnan(value) for value in Standings(tmp_path, "patches_linear_auc", known, IntervalsConfig())("soft")
    )
