"""Work done apart gives its results, and whatever ends its process leaves this one alive and the next piece done."""

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from siamray.data.apart import Apart, Ended


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and was not asked for its code yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end(process: int) -> None:
    until = time.monotonic() + 20
    while alive(process) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(process)


def do(piece: str) -> object:
    if piece == "hang":
        sum(itertools.repeat(0))
    if piece == "hang and let others run":
        ctypes.CDLL(None).sleep(100)
    if piece == "segfault":
        ctypes.string_at(0)
    if piece.startswith("kill "):
        os.kill(os.getpid(), int(piece[5:]))
    if piece.startswith("exit "):
        os._exit(int(piece[5:]))
    if piece == "raise":
        raise ValueError
    return os.getpid() if piece == "process" else piece


def test_pieces_are_done_by_one_other_process_that_ends_with_the_context() -> None:
    with Apart(do, 20) as apart:
        assert [apart(word) for word in ("a", "b", "x" * 3_000_000)] == ["a", "b", "x" * 3_000_000]
        process = apart("process")
        assert apart("process") == process
        assert process != os.getpid()
    wait_for_end(int(str(process)))


@pytest.mark.parametrize("piece", ["hang", "hang and let others run"])
def test_what_hangs_is_ended_in_time_and_the_next_piece_is_done(piece: str) -> None:
    start = time.monotonic()
    with Apart(do, 0.5) as apart:
        before = apart("process")
        with pytest.raises(Ended) as ended:
            apart(piece)
        assert (ended.value.hung, ended.value.crashed) == (True, False)
        assert apart("process") != before
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("piece", "crashed"),
    [
        ("segfault", True),
        (f"kill {int(signal.SIGABRT)}", True),
        (f"kill {int(signal.SIGKILL)}", False),
        (f"kill {int(signal.SIGTERM)}", False),
        ("exit 0", True),
        ("exit 3", True),
    ],
)
def test_what_ends_its_process_is_told_from_what_was_ended(
    piece: str, crashed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with Apart(do, 20) as apart:
        for _ in range(2):
            with pytest.raises(Ended) as ended:
                apart(piece)
            assert (ended.value.hung, ended.value.crashed) == (False, crashed)
        assert apart("a") == "a"
    assert capfd.readouterr() == ("", "")


def test_a_process_that_was_ended_between_two_pieces_is_made_anew() -> None:
    with Apart(do, 20) as apart:
        process = int(str(apart("process")))
        os.kill(process, signal.SIGKILL)
        # Its first thread may have ended before the last one has, and only then has it.
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        assert apart("a") == "a"


def test_each_thread_has_its_own() -> None:
    found: list[object] = []

    def work(word: str) -> None:
        with Apart(do, 20) as apart:
            found.extend(apart(word) for _ in range(5))

    threads = [threading.Thread(target=work, args=(word,)) for word in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted("abcd" * 5)


PROGRAM = """
import os, time
from rich.progress import Progress
from siamray.data.apart import Apart
def work(piece):
    if piece == "process":
        return os.getpid()
    time.sleep(100)
with Progress() as bar, Apart(work, 2) as apart:
    bar.add_task("work", total=1)
    print("process", apart("process"), flush=True)
    apart("sleep")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind_by_a_stop(number: int) -> None:
    line = [sys.executable, "-c", PROGRAM]
    running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stdout is not None
    process = int(next(line for line in running.stdout if line.startswith("process")).split()[1])
    time.sleep(0.3)
    if number == signal.SIGINT:
        # From the keyboard it comes to all processes of a command.
        os.killpg(running.pid, number)
        assert running.communicate(timeout=20)[1].count("Traceback") == 1
        assert not alive(process)
    else:
        os.kill(running.pid, number)
        running.communicate(timeout=20)
        wait_for_end(process)
