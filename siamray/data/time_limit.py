"""A block of work and a number of seconds go in; the block ends in time, or TimeUp is raised in it."""

import faulthandler
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class TimeUp(BaseException):
    """The time is up; not an Exception, so that no handler of damaged input takes it for damage."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Ends a block by TimeUp when the time is up, at the next step of Python.

    Only a process's main thread can be interrupted so; in another thread the block runs on.

    Args:
        seconds: the time it may take.

    Raises:
        TimeUp: in the block.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def hard_time_limit(seconds: float, trace: Path) -> Iterator[None]:
    """Ends this process when the time is up, whatever it is at, and leaves a trace of that end or of a crash.

    A decoder that hangs in C hears no signal, and gdcm and openjpeg let no other thread of Python run meanwhile: only a
    thread that needs no Python can end it. Only for processes that are there for this work alone, such as Ray's
    workers, and once at a time.

    Args:
        seconds: the time the block may take.
        trace: file that says, after such an end and no other, where the process was; see how_ended.

    Raises:
        OSError: the file cannot be written.
    """
    trace.parent.mkdir(parents=True, exist_ok=True)
    enabled = faulthandler.is_enabled()
    with trace.open("wb") as file:
        faulthandler.enable(file)
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()
            if enabled:
                # To stderr, where Ray and pytest put it as well.
                faulthandler.enable()
            trace.unlink(missing_ok=True)


def how_ended(trace: Path) -> str | None:
    """Says what ended a process within a hard_time_limit with this file.

    Returns:
        "hung" or "crashed"; None where there was no such end.
    """
    try:
        with trace.open("rb") as file:
            start = file.read(7)
    except OSError:
        return None
    return None if not start else "hung" if start == b"Timeout" else "crashed"
