"""The folder of an experiment goes in; the right to be its one driver comes out, or who has it.

A folder of this machine is held by a lock of its file system, which a killed driver lets go of. At a URL there are
none: an object says who drives and is written again every BEAT_SECONDS; a driver that has not done so for STALE_SECONDS
counts as dead. That holds as far as the clocks of the machines agree within a minute, and as two drivers do not take
over from the same dead one within a second, of which the store would let both pass.
"""

import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from upath import UPath

from siamray.errors import UserError
from siamray.files import Location, read_bytes, write_json, writing_to

LOCK_FILE = ".lock"
# Whoever asks which driver runs holds the lock for as long as a system call takes.
_ASKING_SECONDS = 0.2
BEAT_SECONDS = 20
STALE_SECONDS = 180


@dataclass(frozen=True)
class Driver:
    """A sweep that runs: its process, the machine it is on, and since when (ISO 8601); None where unknown."""

    process: int | None = None
    machine: str | None = None
    started: str | None = None


class TakenOver(UserError):
    """Another driver runs the experiment at a URL, since this one was away from it for too long."""


@contextmanager
def sole_driver(experiment: Location, own: str = "") -> Iterator[Callable[[], None]]:
    """Holds an experiment for one driver; a killed one lets go of it.

    Args:
        experiment: ``<results>/<experiment>``.
        own: at a URL, a name of the copy that is worked in, which this process alone holds: a driver that is noted
            with the same name is dead.

    Yields:
        What raises TakenOver where another driver has done so, as this one was away for too long.

    Raises:
        UserError: if another sweep of the same experiment runs, or it cannot be written to.
    """
    if not isinstance(experiment, Path):
        with _sole_driver_at(experiment, own) as still_held:
            yield still_held
        return
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
        with writing_to(experiment):
            os.truncate(handle, 0)
            os.pwrite(handle, json.dumps(vars(here)).encode(), 0)
        yield lambda: None
    finally:
        os.close(handle)


def running_driver(experiment: Location) -> Driver | None:
    """Finds the driver of an experiment without writing anything.

    Args:
        experiment: ``<results>/<experiment>``.

    Returns:
        None where no driver runs. On file systems that share no locks between machines, a driver of another machine
        is not seen.
    """
    if not isinstance(experiment, Path):
        record = _read(experiment)
        return Driver(**{name: record.get(name) for name in vars(Driver())}) if _beats(record) else None
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


@contextmanager
def _sole_driver_at(url: UPath, own: str) -> Iterator[Callable[[], None]]:
    here = Driver(os.getpid(), platform.node(), datetime.now(UTC).isoformat(timespec="seconds"))
    mine = {**vars(here), "copy": own, "token": uuid.uuid4().hex}

    def taken_over() -> TakenOver:
        return TakenOver(
            f"{url}: another sweep runs this experiment since this one could not reach it; what this one did is in its "
            "cache, and is sent when the same command is given again after the other has ended"
        )

    def still_held() -> None:
        if _read(url).get("token") != mine["token"]:
            raise taken_over()

    with writing_to(url):
        _take(url, mine)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            # The next beat comes soon; whether another driver took over meanwhile is asked at the end.
            with suppress(UserError, OSError):
                if _read(url).get("token") != mine["token"]:
                    return
                write_json(url / LOCK_FILE, mine | {"beat": time.time()})

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield still_held
    finally:
        over.set()
        thread.join()
        with suppress(UserError, OSError):
            still_held()
            url.fs.rm_file((url / LOCK_FILE).path)


def _take(url: UPath, mine: dict[str, Any]) -> None:
    """Writes the object that says who drives, if no one drives.

    Raises:
        UserError: someone does.
    """
    record = {**mine, "beat": time.time()}
    try:
        url.fs.pipe_file((url / LOCK_FILE).path, json.dumps(record).encode(), mode="create")
        return
    except Exception:  # The services refuse what is there in ways of their own.
        there = _read(url)
        if not there:
            raise
    if _beats(there) and there.get("copy") != mine["copy"]:
        raise UserError(
            f"{url}: another sweep runs this experiment (process {there.get('process')} on {there.get('machine')}); "
            f"wait for it, or name another results=; one that was killed counts as dead after {STALE_SECONDS} s"
        )
    write_json(url / LOCK_FILE, record)
    # Of several that take over at once the last one wins.
    time.sleep(1)
    if _read(url).get("token") != mine["token"]:
        raise UserError(f"{url}: another sweep took over this experiment; wait for it, or name another results=")


def _read(url: UPath) -> dict[str, Any]:
    """Who drives, or drove; nothing where no one does."""
    for wait in (0.05, 0.2, 1.0, 0.0):
        try:
            record = json.loads(read_bytes(url / LOCK_FILE))
        except FileNotFoundError:
            return {}
        except ValueError:
            # Being written: not every file system behind a URL shows the old one until the new one is whole.
            time.sleep(wait)
        else:
            return record if isinstance(record, dict) else {}
    return {}


def _beats(record: dict[str, Any]) -> bool:
    beat = record.get("beat")
    return isinstance(beat, int | float) and time.time() - beat < STALE_SECONDS
