"""Paths of images go in; their rows and columns, read from the headers and remembered in the cache, come out."""

import json
import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from siamray.data.dicom import ImageError, read_header
from siamray.files import write_json

CACHE = "image-sizes.json"
# Raised whenever sizes are read in another way, so that what an older version remembers is not used.
FORMAT = 1
_THREADS = 8
# Kinds of image do not matter here: reading the image says later whether it may be used.
_ANY_KIND = frozenset({"secondary_capture", "implant"})

Size = tuple[int, int]


def image_sizes(paths: Iterable[str], cache: Path) -> dict[str, Size | None]:
    """Reads the sizes of images that are new or have changed, and remembers them for the next time.

    Args:
        paths: the files.
        cache: folder of the memory.

    Returns:
        Rows and columns by path; None where the header cannot be read, as reading the image will say.
    """
    wanted = sorted(set(paths))
    if not wanted:
        return {}
    with ThreadPoolExecutor(_THREADS) as pool:
        stamps = dict(zip(wanted, pool.map(_stamp, wanted), strict=True))
        memory = _recall(cache / CACHE)
        sizes = {path: _size(memory[path][1]) for path in wanted if memory.get(path, [None])[0] == stamps[path]}
        missing = [path for path in wanted if path not in sizes]
        # Filters of warnings belong to the process, so that they are set here once and not in the threads.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sizes |= dict(zip(missing, pool.map(_read, missing), strict=True))
    if missing:
        files = {**memory, **{path: [stamps[path], sizes[path]] for path in missing}}
        write_json(cache / CACHE, {"format": FORMAT, "files": files})
    return sizes


def _stamp(path: str) -> list[int]:
    """Returns size and time of change of a file; another stamp means another content."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _read(path: str) -> Size | None:
    try:
        header = read_header(Path(path), _ANY_KIND)
    except ImageError:
        return None
    return header.rows, header.columns


def _size(remembered: Any) -> Size | None:
    return (int(remembered[0]), int(remembered[1])) if remembered else None


def _recall(path: Path) -> dict[str, Any]:
    """Returns what is remembered; nothing where the memory is missing, damaged or of another version."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = isinstance(record, dict) and record.get("format") == FORMAT
    return dict(record["files"]) if known else {}
