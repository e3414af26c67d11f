"""Paths of images go in; what their headers say, or why they cannot be read, comes out: on all processors, in order."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from siamray.data.dicom import Header, ImageError, read_header

# Fewer headers than this are read sooner than processes start.
IN_THIS_PROCESS = 200
# Headers of one task: enough that handing over costs nothing, few enough that the bar moves and all processors end
# together.
CHUNK = 64


@dataclass(frozen=True)
class Reading:
    """What became of one header.

    Attributes:
        header: what the file says, or None.
        fault: why there is no header; None where there is one.
        seconds: what reading it took.
    """

    header: Header | None
    fault: str | None
    seconds: float


def read_headers(paths: list[str], accept: frozenset[str], cpus: int = 0, *, progress: bool = True) -> list[Reading]:
    """Reads the headers of many images.

    Args:
        paths: the files.
        accept: kinds of image taken beside ordinary mammograms (siamray.data.sources.accepted).
        cpus: number of processes; 0 = one for every processor.
        progress: whether to show a progress bar on stderr.

    Returns:
        One reading per path, in their order.
    """
    readings: list[Reading] = [Reading(None, None, 0.0)] * len(paths)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True)
    task = bar.add_task("reading headers", total=len(paths))
    for start, found in _chunks(paths, accept, cpus or processors(), bar):
        readings[start : start + len(found)] = found
        bar.advance(task, len(found))
    return readings


def processors() -> int:
    """Counts the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pool(processes: int) -> ProcessPoolExecutor:
    """Makes a pool of processes: forked, as they start at once, unless there are threads, which no fork copies."""
    forks = "fork" in multiprocessing.get_all_start_methods() and threading.active_count() == 1
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork" if forks else "spawn"))


def _chunks(paths: list[str], accept: frozenset[str], cpus: int, bar: Progress) -> Iterator[tuple[int, list[Reading]]]:
    """Yields the readings of chunks with the place of their first, as they are done."""
    starts = range(0, len(paths), CHUNK)
    if cpus == 1 or len(paths) < IN_THIS_PROCESS:
        with bar:
            for start in starts:
                yield start, _read_chunk(paths[start : start + CHUNK], accept)
        return
    with pool(min(cpus, len(starts))) as workers:
        # Given out before the bar's thread starts: processes are forked while there is only one thread.
        waiting: dict[Future[list[Reading]], int] = {
            workers.submit(_read_chunk, paths[start : start + CHUNK], accept): start for start in starts
        }
        with bar:
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
            except BaseException:
                workers.shutdown(wait=False, cancel_futures=True)
                raise


def _read_chunk(paths: list[str], accept: frozenset[str]) -> list[Reading]:
    return [_read(path, accept) for path in paths]


def _read(path: str, accept: frozenset[str]) -> Reading:
    start = time.perf_counter()
    header, fault = None, None
    try:
        header = read_header(Path(path), accept)
    except ImageError as error:
        fault = str(error)
    except Exception as error:  # one odd file must not hide fifty thousand others; its text may hold what identifies
        fault = f"its header cannot be read ({type(error).__name__})"
    return Reading(header, fault, time.perf_counter() - start)
