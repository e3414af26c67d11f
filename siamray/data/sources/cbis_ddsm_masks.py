"""Files of CBIS-DDSM's folders go in; sizes of mammograms and boxes of masks, remembered in the cache, come out."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset
from rich.console import Console
from rich.progress import Progress

from siamray.data.dicom import MAXIMUM_PIXELS
from siamray.files import write_json

# Raised whenever files are measured in another way, so that what an older version remembers is not used.
FORMAT = 1
CACHE = "cbis_ddsm-boxes.json"
# Threads wait for the disk most of the time; each holds a mask of up to 30 MB a few times over.
_THREADS = 4
# Results after which what is known so far is written: a first reading takes minutes and may be interrupted.
_REMEMBER_EVERY = 1000
# Only these elements are ever parsed: names and identifiers of a header stay in their file.
_SIZE_TAGS: list[Any] = ["Rows", "Columns", "SamplesPerPixel", "NumberOfFrames"]
_PIXEL_TAGS: list[Any] = [
    *_SIZE_TAGS,
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "PixelData",
]


@dataclass(frozen=True)
class Mark:
    """What was measured.

    Attributes:
        rows: rows of the mammogram, or of the mask; 0 where they are not known.
        columns: columns.
        box: row_min, col_min, row_max, col_max of the mask in its own pixels, half open; None without a mask.
        fault: why there is no size or no box, or None.
    """

    rows: int
    columns: int
    box: tuple[int, int, int, int] | None = None
    fault: str | None = None


Measure = Callable[[Sequence[Path]], Mark]
Stamp = list[list[str | int]]


def measured(jobs: Mapping[str, tuple[Measure, Sequence[Path]]], root: Path, cache: Path) -> dict[str, Mark]:
    """Measures files that are new or have changed, and remembers the result for the next time.

    Args:
        jobs: by name, what measures it (size_of or mask_in) and its files.
        root: folder of the data set; files are known by their path below it, their size and their time of change.
        cache: folder of the memory.

    Returns:
        The result of every job.
    """
    stamps = {name: _stamp(files, root) for name, (_, files) in jobs.items()}
    known = _recall(cache / CACHE)
    marks = {name: known[name][1] for name in jobs if name in known and known[name][0] == stamps[name]}
    missing = [name for name in jobs if name not in marks]
    if not missing:
        return marks
    # Filters of warnings belong to the process, so that they are set here once and not in the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        warnings.simplefilter("ignore")
        waiting = {pool.submit(jobs[name][0], jobs[name][1]): name for name in missing}
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("measuring masks", total=len(waiting))
            try:
                for count, done in enumerate(as_completed(waiting), start=1):
                    marks[waiting[done]] = done.result()
                    progress.advance(task)
                    if count % _REMEMBER_EVERY == 0:
                        _remember(cache / CACHE, stamps, marks)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    _remember(cache / CACHE, stamps, marks)
    return marks


def size_of(files: Sequence[Path]) -> Mark:
    """Reads the size of a mammogram, the only one of the files, from its header."""
    try:
        return Mark(*_size(_header(files[0])))
    except Exception as error:
        return Mark(0, 0, fault=f"its header cannot be read ({type(error).__name__})")


def mask_in(files: Sequence[Path]) -> Mark:
    """Finds the mask among the files of an abnormality and its box.

    The mask and the crop lie in one folder or in two, in either order, under names that the tables confuse. So they
    are told apart by what they hold: the mask is as large as the mammogram and has two values, the crop is small and
    grey. The largest file is looked at first.
    """
    faults = []
    sizes = {}
    for path in files:
        try:
            sizes[path] = _size(_header(path))
        except Exception as error:
            faults.append(f"a file cannot be read ({type(error).__name__})")
    for path in sorted(sizes, key=lambda path: (-sizes[path][0] * sizes[path][1], path)):
        rows, columns = sizes[path]
        if rows * columns > MAXIMUM_PIXELS:
            faults.append("a file claims to be larger than any mammogram")
            continue
        try:
            values = np.asarray(pydicom.dcmread(path, specific_tags=_PIXEL_TAGS, force=True).pixel_array)
            box = _box(values)
        except ValueError as error:
            # Of pydicom's errors only the kind is told: their text may quote the file.
            own = str(error) if isinstance(error, _Unmarked) else f"its pixels are damaged ({type(error).__name__})"
            faults.append(own)
        except Exception as error:
            faults.append(f"its pixels are damaged ({type(error).__name__})")
        else:
            if box is not None:
                return Mark(rows, columns, box)
    return Mark(0, 0, fault=faults[0] if faults else "no file of two values is among them")


class _Unmarked(ValueError):
    """A mask that marks nothing."""


def _box(values: npt.NDArray[Any]) -> tuple[int, int, int, int] | None:
    """Returns the box of the higher of two values; None for a grey picture.

    Raises:
        _Unmarked: if there is one value only.
        ValueError: if this is no single picture.
    """
    if values.ndim != 2:
        raise ValueError("not one grey picture")
    low, high = values.min(), values.max()
    if low == high:
        raise _Unmarked("the mask marks nothing")
    marked = values == high
    if np.count_nonzero(marked) + np.count_nonzero(values == low) != values.size:
        return None
    rows, cols = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1


def _header(path: Path) -> Dataset:
    return pydicom.dcmread(path, specific_tags=_SIZE_TAGS, force=True, stop_before_pixels=True)


def _size(header: Dataset) -> tuple[int, int]:
    rows, columns = int(header.Rows), int(header.Columns)
    if rows <= 0 or columns <= 0:
        raise ValueError("no size")
    return rows, columns


def _stamp(files: Sequence[Path], root: Path) -> Stamp:
    """Returns path, size and time of change of each file; a file that is gone has none and is measured as damaged."""
    stamp: Stamp = []
    for path in files:
        try:
            state = path.stat()
        except OSError:
            stamp.append([path.relative_to(root).as_posix(), -1, -1])
        else:
            stamp.append([path.relative_to(root).as_posix(), state.st_size, state.st_mtime_ns])
    return stamp


def _recall(path: Path) -> dict[str, tuple[Stamp, Mark]]:
    """Reads the memory; one that is missing, damaged or of another version is as good as none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            return {}
        return {name: (entry["files"], _mark(entry["mark"])) for name, entry in record["marks"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _mark(record: Mapping[str, Any]) -> Mark:
    box = record["box"]
    whole = None if box is None else (int(box[0]), int(box[1]), int(box[2]), int(box[3]))
    return Mark(int(record["rows"]), int(record["columns"]), whole, record["fault"])


def _remember(path: Path, stamps: Mapping[str, Stamp], marks: Mapping[str, Mark]) -> None:
    entries = {name: {"files": stamps[name], "mark": asdict(mark)} for name, mark in sorted(marks.items())}
    write_json(path, {"format": FORMAT, "marks": entries})
