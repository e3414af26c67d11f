"""A block of work and a number of seconds go in; the block ends in time, or TimeUp is raised in it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
def hard_time_limit(seconds: float, last_words: Callable[[], None]) -> Iterator[None]:
    """Ends this process when the time is up, whatever it is at: a decoder that hangs in C hears no signal.

    Only for processes that are there for this work alone, such as Ray's workers.

    Args:
        seconds: the time the block may take.
        last_words: called before the end, in another thread.
    """

    def end() -> None:
        try:
            last_words()
        finally:
            os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
