"""Paths of images go in; what their headers say, or why they cannot be read, comes out: on all processors, in order."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from siamray.data.dicom import Header, ImageError, read_header
from siamray.data.processes import processors, shared_out

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
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    processes = 1 if len(paths) < IN_THIS_PROCESS else cpus or processors()
    for place, found in shared_out(partial(_read_chunk, accept=accept), chunks, processes, bar):
        readings[place * CHUNK : place * CHUNK + len(found)] = found
        bar.advance(task, len(found))
    return readings


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
