"""Pieces of work go in; their results come out as they are done, by as many processes as shall share them."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from rich.progress import Progress

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def processors() -> int:
    """Counts the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_out(
    work: Callable[[Piece], Result], pieces: Sequence[Piece], processes: int, bar: Progress
) -> Iterator[tuple[int, Result]]:
    """Does pieces of work; after the first error no further piece is begun.

    Args:
        work: what is to be done with a piece; it and the pieces are sent to other processes.
        pieces: all of them.
        processes: how many share them at most; one is this process.
        bar: shown meanwhile, not yet started.

    Yields:
        The place of a piece and its result, as they are done.
    """
    processes = min(processes, len(pieces))
    if processes < 2:
        with bar:
            for place, piece in enumerate(pieces):
                yield place, work(piece)
        return
    # A fork starts at once, but copies no other thread: where there are any, processes are started anew.
    forks = "fork" in multiprocessing.get_all_start_methods() and threading.active_count() == 1
    context = multiprocessing.get_context("fork" if forks else "spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        # Given out before the bar's thread starts: processes are forked while there is only one thread.
        waiting = {pool.submit(work, piece): place for place, piece in enumerate(pieces)}
        with bar:
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
