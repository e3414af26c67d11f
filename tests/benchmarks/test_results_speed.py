"""How long 10,000 trials take to list: read one by one, known from before, and with some of them new.

python -m pytest tests/benchmarks/test_results_speed.py -s
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from siamray.sweeps import results
from tests.sweeps.test_results import experiment, trial

TRIALS = 10_000
# With their intervals, beside the nine columns of every trial and its costs, about 42 columns.
METRICS = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of many trials, an hour old."""
    path = experiment(tmp_path_factory.mktemp("many") / "e")
    metrics = {f"patches_score{number}_auc": {"value": 0.7, "low": 0.6, "high": 0.8} for number in range(METRICS)}
    config = {"pretraining": {f"option{number}": number for number in range(150)}}
    trial(path, "t00000", metrics=metrics, config=config)
    text = (path / "trials" / "t00000" / "trial.json").read_text()
    for number in range(1, TRIALS):
        add(path, number, text)
    return path


def add(folder: Path, number: int, text: str) -> None:
    """Writes a trial as fast as it goes."""
    place = folder / "trials" / f"t{number:05d}"
    place.mkdir(exist_ok=True)
    record = json.loads(text)
    (place / "trial.json").write_text(json.dumps({**record, "trial_id": place.name, "seed": number}))
    an_hour_ago = time.time() - 3600
    os.utime(place / "trial.json", (an_hour_ago, an_hour_ago))


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Times a call: seconds on the clock, and of the processor, which other work on the machine does not lengthen."""
    start, used = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - used


def test_listing_ten_thousand_trials(folder: Path) -> None:
    text = (folder / "trials" / "t00000" / "trial.json").read_text()
    lines = [("load, nothing known", seconds(lambda: results.load(folder)))]
    lines.append(("collect, nothing known", seconds(lambda: results.collect(folder))))
    lines.append(("load, all known", seconds(lambda: results.load(folder))))
    lines.append(("collect, all known", seconds(lambda: results.collect(folder))))
    for number in range(0, TRIALS, 100):
        add(folder, number, text.replace("0.7", "0.75"))
    lines.append(("load, a hundredth changed", seconds(lambda: results.load(folder))))
    table = results.load(folder).trials
    assert table.shape == (TRIALS, 9 + 5 + 3 * METRICS)
    print(f"\n{table.shape[0]:,} trials, {table.shape[1]} columns, trials.parquet of "
          f"{(folder / 'trials.parquet').stat().st_size / 1e6:.1f} MB")  # fmt: skip
    for name, (clock, processor) in lines:
        print(f"  {name:<28} {clock:6.2f} s, {processor:6.2f} s of the processor")
