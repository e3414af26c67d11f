"""The folder of an experiment goes in; the right to be its one driver comes out, or who has it."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from siamray.errors import UserError
from siamray.files import writing_to

LOCK_FILE = ".lock"
# Whoever asks which driver runs holds the lock for as long as a system call takes.
_ASKING_SECONDS = 0.2


@dataclass(frozen=True)
class Driver:
    """A sweep that runs: its process, the machine it is on, and since when (ISO 8601); None where unknown."""

    process: int | None = None
    machine: str | None = None
    started: str | None = None


@contextmanager
def sole_driver(experiment: Path) -> Iterator[None]:
    """Holds an experiment for one driver; a killed one lets go of it.

    Raises:
        UserError: if another sweep of the same experiment runs.
    """
    with writing_to(experiment):
        experiment.mkdir(parents=True, exist_ok=True)
        handle = os.open(experiment / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        if not _taken(handle):
            time.sleep(_ASKING_SECONDS)
            if not _taken(handle):
                raise UserError(
                    f"{experiment}: another sweep runs this experiment; wait for it, or name another results=DIR"
                )
        here = Driver(os.getpid(), platform.node(), datetime.now(UTC).isoformat(timespec="seconds"))
        os.truncate(handle, 0)
        os.pwrite(handle, json.dumps(vars(here)).encode(), 0)
        yield
    finally:
        os.close(handle)


def running_driver(experiment: Path) -> Driver | None:
    """Finds the driver of an experiment without writing anything.

    Args:
        experiment: ``<results>/<experiment>``.

    Returns:
        None where no driver runs. On file systems that share no locks between machines, a driver of another machine
        is not seen.
    """
    try:
        handle = os.open(experiment / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        if _taken(handle):
            return None
        record = json.loads(os.pread(handle, 4096, 0) or b"{}")
        return Driver(**{name: record.get(name) for name in ("process", "machine", "started")})
    except ValueError:
        return Driver()
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    """Takes the lock if it is free, until the handle is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
