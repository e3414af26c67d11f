"""A block that takes too long ends, in Python at once, and a worker that hangs in C ends itself."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from siamray.data.time_limit import TimeUp, hard_time_limit, how_ended, time_limit

# Both hang in C and hear no signal; the second lets no other thread of Python run either, as gdcm and openjpeg do.
HANGING = {
    "alone": "ctypes.CDLL(None).sleep(20)",
    "with Python's lock": "sum(itertools.repeat(0))",
}
PROGRAM = """
import ctypes, itertools, pathlib, sys
from siamray.data.time_limit import hard_time_limit
with hard_time_limit(0.2, pathlib.Path(sys.argv[1])):
    {hanging}
print("went on", flush=True)
"""


def busy() -> None:
    while True:
        try:
            time.sleep(0.02)
        except Exception:  # as decoders' wrappers do
            raise AssertionError("taken for damage") from None


def test_what_takes_too_long_is_ended_whatever_it_catches() -> None:
    start = time.monotonic()
    with pytest.raises(TimeUp), time_limit(0.1):
        busy()
    assert time.monotonic() - start < 5


def test_what_is_done_in_time_is_not_ended_afterwards() -> None:
    with time_limit(0.05):
        done = True
    time.sleep(0.1)
    assert done


def test_another_thread_than_the_main_one_runs_on() -> None:
    done: list[bool] = []

    def work() -> None:
        with time_limit(0.01):
            time.sleep(0.05)
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.parametrize("hanging", HANGING.values(), ids=HANGING.keys())
def test_a_process_that_hangs_in_c_is_ended_and_leaves_a_trace(hanging: str, tmp_path: Path) -> None:
    trace = tmp_path / "new folder" / "trace"
    start = time.monotonic()
    line = [sys.executable, "-c", PROGRAM.format(hanging=hanging), str(trace)]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=15, check=False)
    assert ended.returncode == 1
    assert ended.stdout + ended.stderr == ""
    assert time.monotonic() - start < 15
    assert how_ended(trace) == "hung"


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGSEGV, "crashed"), (signal.SIGABRT, "crashed"), (signal.SIGKILL, None)]
)
def test_a_process_that_crashes_leaves_a_trace_and_one_that_is_killed_leaves_none(
    number: int, end: str | None, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    line = [sys.executable, "-c", PROGRAM.format(hanging=f"import os; os.kill(os.getpid(), {int(number)})"), str(trace)]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=15, check=False)
    assert ended.returncode == -number
    assert ended.stdout + ended.stderr == ""
    assert how_ended(trace) == end


def test_what_reports_crashes_elsewhere_does_so_afterwards(tmp_path: Path) -> None:
    program = """
import faulthandler, pathlib, sys
from siamray.data.time_limit import hard_time_limit
for word in ("off", "on"):
    if word == "on":
        faulthandler.enable()
    with hard_time_limit(5, pathlib.Path(sys.argv[1])):
        pass
    print(faulthandler.is_enabled())
"""
    line = [sys.executable, "-c", program, str(tmp_path / "trace")]
    assert subprocess.run(line, capture_output=True, text=True, timeout=60, check=True).stdout == "False\nTrue\n"


def test_a_process_that_is_done_in_time_goes_on_and_leaves_no_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with hard_time_limit(0.1, trace):
        assert how_ended(trace) is None
    time.sleep(0.2)
    assert not trace.exists()
    assert how_ended(trace) is None
