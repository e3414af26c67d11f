"""A block that takes too long ends, in Python at once, and a worker that hangs in C ends itself."""

import subprocess
import sys
import threading
import time

import pytest

from siamray.data.time_limit import TimeUp, time_limit

HANGING = """
import ctypes
from siamray.data.time_limit import hard_time_limit
with hard_time_limit(0.2, lambda: print("last words", flush=True)):
    ctypes.CDLL(None).sleep(20)
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


def test_a_process_that_hangs_in_c_ends_with_its_last_words() -> None:
    start = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=15, check=False)
    assert ended.returncode == 1
    assert ended.stdout == "last words\n"
    assert time.monotonic() - start < 15
