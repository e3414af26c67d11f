"""Plain records and tables go in, complete files come out: a reader never meets a half-written one."""

import errno
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from siamray.errors import UserError


def write_json(path: Path, record: Any) -> None:
    """Writes a record as JSON, atomically; NaN and infinities become null.

    Args:
        path: the file; its folder is made.
        record: dictionaries, lists, numbers, words.

    Raises:
        UserError: if the folder cannot be written.
    """
    text = json.dumps(_finite(record), indent=1, allow_nan=False, default=str)
    write_atomically(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Writes a table as Parquet, atomically.

    Raises:
        UserError: if the folder cannot be written.
    """
    write_atomically(path, lambda temporary: frame.to_parquet(temporary, index=False))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets a function write a temporary file and moves it to its place, so that it is whole or absent.

    Args:
        path: the file; its folder is made.
        write: writes the file it is given.

    Raises:
        UserError: if the folder cannot be written or the disk is full.
    """
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turns a refusal of the file system into one line that names the folder.

    Raises:
        UserError: read-only, forbidden, full, or not a folder.
    """
    reasons = {
        errno.EROFS: "is on a read-only file system; name another folder (store=, results= or out=)",
        errno.EACCES: "may not be written; name another folder (store=, results= or out=) or change its permissions",
        errno.EPERM: "may not be written; name another folder (store=, results= or out=) or change its permissions",
        errno.ENOSPC: "is on a full disk; free space or name another folder (store=, results= or out=)",
        errno.EDQUOT: "is over its quota; free space or name another folder (store=, results= or out=)",
        errno.ENOTDIR: "cannot be made, as part of its path is a file; name another folder (store=, results= or out=)",
        errno.ENOENT: "cannot be made; name another folder (store=, results= or out=)",
        errno.EEXIST: "cannot be made, as a file of that name exists; name another folder (store=, results= or out=)",
    }
    try:
        yield
    except OSError as error:
        if error.errno not in reasons:
            raise
        raise UserError(f"{folder} {reasons[error.errno]}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _finite(value: Any) -> Any:
    """Replaces what JSON cannot say by what it can: NaN by null, NumPy scalars by numbers."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
