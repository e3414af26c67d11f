"""How fast the pages are with 10,000 trials: the first paint, a sort, a filter, and what travels to the browser.

python -m pytest tests/benchmarks/test_dashboards_speed.py -s
"""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plotly.utils import PlotlyJSONEncoder

from dashboards import trial_table
from dashboards.address import read_address
from dashboards.pages import exams, frame, searching
from dashboards.source import Source
from dashboards.view import View
from siamray.sweeps import results
from tests.dashboards import generated_results, generated_search

TRIALS = 10_000
# With the objectives, options and costs about 42 columns.
METRICS = 9
EXAMS = 500

FIRST_PAINT_SECONDS = 2.0
INTERACTION_SECONDS = 0.3
INTERACTION_BYTES = 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    generated_search.write(folder / "method", TRIALS, further_metrics=METRICS)
    # What was written within two seconds is read again, and a search of this size has taken longer.
    time.sleep(2.5)
    results.collect(folder / "method")
    return folder


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds on the clock and of the processor, which other work on the machine does not lengthen; and the answer."""
    start, used = time.perf_counter(), time.process_time()
    made = call()
    return time.perf_counter() - start, time.process_time() - used, made


def size(made: Any) -> int:
    return len(json.dumps(made, cls=PlotlyJSONEncoder))


def test_pages_of_ten_thousand_trials(folder: Path) -> None:
    lines = []

    def measure(name: str, call: Callable[[], Any], limit: float, *, travels: bool = True) -> Any:
        clock, processor, made = timed(call)
        sent = size([block.part for block in made[0]] if isinstance(made, tuple) else made) if travels else 0
        lines.append((name, clock, processor, sent))
        assert processor < limit, (name, processor)
        assert sent < INTERACTION_BYTES, (name, sent)
        return made

    def page(source: Source, view: str) -> Callable[[], Any]:
        return lambda: frame.page(source, read_address("/experiment/method", f"view={view}"), dark=False)

    source = Source(str(folder))
    measure("overview, first", lambda: frame.page(source, read_address("/", ""), dark=False), FIRST_PAINT_SECONDS)
    measure("history, first", page(source, "history"), FIRST_PAINT_SECONDS)
    for view in ("parallel", "slices", "front", "failures", "importance"):
        measure(view, page(source, view), FIRST_PAINT_SECONDS)
    measure("nothing has changed", lambda: source.read("method"), INTERACTION_SECONDS, travels=False)
    shown = View(source.read("method"), read_address("/experiment/method", "view=parallel"))
    frame_ = searching.table_frame(shown)
    assert len(frame_) == TRIALS
    words = {"startRow": 0, "endRow": 100}
    sort = {"sortModel": [{"colId": generated_search.METRIC, "sort": "desc"}]}
    loss, wall = {"type": "contains", "filter": "hin"}, {"type": "lessThan", "filter": 44}
    kept = {"filterModel": {"pretraining.loss": loss, "wall_s": wall}}

    def rows(asked: dict[str, Any], among: Any = shown) -> Callable[[], Any]:
        return lambda: trial_table.rows(searching.brushed(among, frame_), asked)

    measure("rows", rows(words), INTERACTION_SECONDS)
    measure("rows, sorted", rows(words | sort), INTERACTION_SECONDS)
    answer = measure("rows, filtered and sorted", rows(words | sort | kept), INTERACTION_SECONDS)
    assert 0 < answer["rowCount"] < TRIALS
    brush = 'view=parallel&brush={"pretraining.learning_rate":[[-3.2,-2.8]]}'
    brushed = View(source.read("method"), read_address("/experiment/method", brush))
    answer = measure("rows, brushed", rows(words, brushed), INTERACTION_SECONDS)
    assert 0 < answer["rowCount"] < TRIALS
    print(f"\n{TRIALS:,} trials, {source.read('method').status.loaded.trials.shape[1]} columns")  # type: ignore[union-attr]
    for name, clock, processor, sent in lines:
        print(f"  {name:<28} {clock:6.3f} s, {processor:6.3f} s of the processor, {sent / 1000:8.1f} kB")


def test_an_exam_of_five_hundred_travels_alone(tmp_path: Path) -> None:
    folder = generated_results.write(tmp_path / "e", variants={"soft": []}, controls={}, seeds=(0,), epochs=2)
    examples = folder / "trials" / "soft-s0" / "examples"
    for number in range(EXAMS - 2):
        for side in ("left", "right"):
            shutil.copyfile(examples / f"w007_MLO_{side}.png", examples / f"x{number:04d}_MLO_{side}.png")
    source = Source(str(tmp_path))
    view = View(source.read("e"), read_address("/experiment/e/exams", "exam=x0400_MLO"))
    clock, processor, made = timed(lambda: frame.body(view))
    print(
        f"\none exam of {EXAMS}: {clock:.3f} s, {processor:.3f} s of the processor, {size(made) / 1000:.1f} kB and 2 "
        "pictures"
    )
    assert len(exams._kept(view, "soft-s0").images) == EXAMS
    assert processor < FIRST_PAINT_SECONDS
    assert size(made) < INTERACTION_BYTES
