"""Work that may hang in C or crash goes in; its result comes out, or the news of its end, and this process lives on."""

import faulthandler
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

# Signals by which a process ends through its own fault, not for want of memory or by somebody's wish.
FAULTS = {
    getattr(signal, name) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE") if hasattr(signal, name)
}


class Ended(Exception):
    """A piece of work has ended the process that did it.

    Attributes:
        hung: it took too long.
        crashed: it broke down by its own fault.
    """

    def __init__(self, hung: bool, crashed: bool) -> None:
        super().__init__("hung" if hung else "crashed" if crashed else "was ended")
        self.hung = hung
        self.crashed = crashed


class Apart(Generic[Piece, Result]):
    """Does pieces of work one after the other in another process, made anew after one has ended it.

    A context: with its end the other process ends. Where there are forks, the other process starts within
    milliseconds and knows all that this one knows; it must not wait for another thread's locks, and so does work that
    needs none, and no terminal.
    """

    def __init__(self, work: Callable[[Piece], Result], seconds: float) -> None:
        """Starts nothing yet.

        Args:
            work: what is to be done with a piece. It returns what can be pickled, and raises nothing.
            seconds: the time a piece may take.
        """
        self._work = work
        self._seconds = seconds
        self._process: BaseProcess | None = None
        self._pipe: Connection[Any, Any] | None = None

    def __enter__(self) -> "Apart[Piece, Result]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def __call__(self, piece: Piece) -> Result:
        """Does a piece of work.

        Args:
            piece: can be pickled.

        Raises:
            Ended: without a result.
        """
        process, pipe = self._running()
        try:
            pipe.send(piece)
            ready = wait([pipe, process.sentinel], self._seconds)
            if pipe in ready:
                result: Result = pipe.recv()
                return result
        except (EOFError, OSError):
            ready = [pipe]
        code = self._end(at_once=not ready)
        raise Ended(hung=not ready, crashed=bool(ready) and (code >= 0 or -code in FAULTS))

    def _running(self) -> tuple[BaseProcess, "Connection[Any, Any]"]:
        """Returns the other process and the way to it; starts it if there is none."""
        if self._process is not None and not self._process.is_alive():
            self._end()
        if self._process is None or self._pipe is None:
            forks = "fork" in multiprocessing.get_all_start_methods()
            make = (
                multiprocessing.get_context("fork").Process if forks else multiprocessing.get_context("spawn").Process
            )
            self._pipe, others = multiprocessing.Pipe()
            ways = (others, self._pipe if forks else None)
            self._process = make(target=_serve, args=(self._work, self._seconds, *ways), daemon=True)
            self._process.start()
            others.close()
        return self._process, self._pipe

    def _end(self, at_once: bool = True) -> int:
        """Ends the other process, or waits for an end that has come; returns its exit code."""
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if process is None or pipe is None:
            return 0
        pipe.close()
        if not at_once:
            # It is ending, or has closed the way to it: either way not long.
            process.join(10)
        process.kill()
        process.join()
        code = process.exitcode or 0
        process.close()
        return code


def _serve(
    work: Callable[[Any], Any], seconds: float, pipe: "Connection[Any, Any]", others: "Connection[Any, Any] | None"
) -> None:
    """Does pieces of work until nobody asks any more."""
    if others is not None:
        # A copy of the other end of the way, which would keep it open after the asking process is gone.
        others.close()
    # A stop at the keyboard is for the asking process, which then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a progress bar has put there waits for its thread, which is not in this process.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    faulthandler.disable()
    with open(os.devnull, "wb") as nowhere:
        while True:
            try:
                piece = pipe.recv()
            except (EOFError, OSError):
                return
            # If the asking process is gone, nobody else ends what hangs.
            faulthandler.dump_traceback_later(2 * seconds, exit=True, file=nowhere)
            result = work(piece)
            faulthandler.cancel_dump_traceback_later()
            pipe.send(result)
