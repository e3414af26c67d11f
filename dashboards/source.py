"""A folder or URL of results goes in; its experiments come out, read again only where their files have changed.

Nothing is ever written to the results. What is wrong with one experiment is told of that one, and hurts no other.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from siamray.errors import UserError
from siamray.files import Location, location, reaching
from siamray.sweeps.contract import EXPERIMENT_FILE, TRIAL_FILE, TRIALS_FOLDER
from siamray.sweeps.driver import running_driver
from siamray.sweeps.remote_results import fetched
from siamray.sweeps.state import Status, status

Made = TypeVar("Made")

REMOTE_SECONDS = 10.0
"""How often a place that is not of this machine is asked at most."""

MOST_MADE = 512
"""Computed things that are kept of an experiment."""

_SHARE_OF_READING = 0.2
# Ends the stamp of what was read before a place dropped.
_OLD = " old"
_LONGEST_WAIT = 30.0


@dataclass(frozen=True)
class Read:
    """An experiment as it was last read.

    Attributes:
        name: of its folder.
        stamp: changes whenever its files do.
        status: how far it is, with its results; None where it cannot be read.
        problem: why it cannot be read, or why what is shown is old; "" where all is well.
        at: seconds since 1970 at which it was read.
        took: seconds that reading took.
        made: what was computed from it, see memo().
    """

    name: str
    stamp: str
    status: Status | None
    problem: str
    at: float
    took: float = 0.0
    made: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def memo(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Computes something from these files once, as long as they do not change."""
        if key in self.made:
            known: Made = self.made[key]
            return known
        if len(self.made) > MOST_MADE:
            self.made.clear()
        made = make()
        self.made[key] = made
        return made


class Source:
    """The experiments of a folder or URL, kept in memory while their files stay the same."""

    def __init__(self, results: str) -> None:
        """Looks whether there is such a place.

        Args:
            results: folder or URL of results, or of one experiment in it.

        Raises:
            UserError: there is no such place, or it may not be read.
        """
        self.place: Location = location(results)
        self.remote = not isinstance(self.place, Path)
        if isinstance(self.place, Path):
            self.place = self.place.expanduser().resolve()
            if not self.place.is_dir():
                raise UserError(f"results={results}: no such folder; run a sweep first, or name its results=DIR")
            _listed(self.place)
        self.single = _is_experiment(self.place)
        self._known: dict[str, Read] = {}
        self._names: tuple[float, list[str]] = (-math.inf, [])
        self.problem = ""
        """Why the place cannot be looked at now, where it could be before; "" where all is well."""
        self._tried: dict[str, float] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        if self.remote:
            # A mistyped address is told where it was typed.
            self.names()

    def names(self) -> list[str]:
        """Names the experiments, in the order of their names; those of before while a URL cannot be reached.

        Raises:
            UserError: the place cannot be read any more.
        """
        if self.single:
            return [self.place.name]
        asked, names = self._names
        if self.remote and time.monotonic() - asked < REMOTE_SECONDS:
            return names
        try:
            found = sorted(name for name in _listed(self.place) if _is_experiment(self.place / name))
            self.problem = ""
        except UserError as error:
            if not self.remote or asked == -math.inf:
                raise
            found, self.problem = names, " ".join(str(error).split())
        self._names = (time.monotonic(), found)
        return found

    def read(self, name: str) -> Read:
        """Reads an experiment, or returns it as it was read before where nothing has changed.

        Args:
            name: one of names(); nothing else is looked up, so that no path leaves the results.

        Raises:
            UserError: there is no experiment of this name.
        """
        if name not in self.names():
            raise UserError(f"no experiment '{name}' in {self.place}")
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            known = self._known.get(name)
            if known is not None and not self._due(known):
                return known
            read = self._read(name, known)
            self._known[name] = read
            self._tried[name] = time.monotonic()
            return read

    def stamp(self) -> str:
        """Changes whenever an experiment was added, removed or changed."""
        try:
            return " ".join(f"{name}:{self.read(name).stamp}" for name in self.names())
        except UserError as error:
            return str(error)

    def folder(self, name: str) -> Location:
        """Where an experiment lies."""
        return self.place if self.single else self.place / name

    def _due(self, known: Read) -> bool:
        if self.remote:
            # Since the end of the last try: one that fails may take longer than that by itself.
            return time.monotonic() - self._tried[known.name] > REMOTE_SECONDS
        waited = time.time() - known.at
        # A large experiment that changes all the time is not read all the time.
        return waited > min(_LONGEST_WAIT, known.took / _SHARE_OF_READING) and (
            stamp_of(self.folder(known.name)) != known.stamp
        )

    def _read(self, name: str, known: Read | None) -> Read:
        start = time.perf_counter()
        now = time.time()
        folder = self.folder(name)
        try:
            copy = fetched(folder)
            stamp = stamp_of(copy) + (f" {running_driver(folder) is not None}" if self.remote else "")
            if known is not None and known.stamp == stamp and not known.problem:
                return Read(name, stamp, known.status, "", now, known.took, known.made)
            found = status(folder)
            return Read(name, stamp, found, "", now, time.perf_counter() - start)
        except UserError as error:
            problem = " ".join(str(error).split())
            if self.remote and known is not None and known.status is not None:
                # A place that drops for a while: what was read is still shown, with its age.
                stamp = f"{known.stamp.removesuffix(_OLD)}{_OLD}"
                return Read(name, stamp, known.status, problem, known.at, known.took, known.made)
            return Read(name, f"{stamp_of(folder)} {problem}", None, problem, now)


def stamp_of(folder: Location) -> str:
    """Sums up what the files of an experiment look like, without opening one; "" of a place on no disk of this machine.

    Args:
        folder: ``<results>/<experiment>``.
    """
    if not isinstance(folder, Path):
        return ""
    seen = 0
    count = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file() and entry.name != ".lock":
                    about = entry.stat()
                    seen ^= hash((entry.name, about.st_mtime_ns, about.st_size))
        with os.scandir(folder / TRIALS_FOLDER) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            # Of a trial that runs its name alone: what it writes before its end is shown nowhere.
            try:
                changed = os.stat(f"{folder}/{TRIALS_FOLDER}/{name}/{TRIAL_FILE}").st_mtime_ns
            except OSError:
                changed = 0
            seen ^= hash((name, changed))
            count += 1
    except OSError:
        pass
    return f"{count}-{seen & 0xFFFFFFFFFFFF:x}-{running_driver(folder) is not None}"


def trial_record(read: Read, trial_id: str) -> dict[str, Any]:
    """Reads a trial's record, once as long as its file does not change.

    Args:
        read: its experiment.
        trial_id: of a trial that the experiment lists.

    Raises:
        FileNotFoundError: it has not ended.
        siamray.sweeps.results.Unreadable: it is damaged.
    """
    assert read.status is not None
    loaded = read.status.loaded
    changed = (loaded.path / TRIALS_FOLDER / trial_id / TRIAL_FILE).stat().st_mtime_ns
    return read.memo(("record", trial_id, changed), lambda: loaded.trial(trial_id))


def known_trials(read: Read) -> pd.Index:
    """The ids of the trials that have ended: no other name is ever made a path of."""
    assert read.status is not None
    found: pd.Index = pd.Index(read.status.loaded.trials["trial_id"])
    return found


def _listed(place: Location) -> list[str]:
    try:
        if isinstance(place, Path):
            with os.scandir(place) as entries:
                return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
        with reaching(place):
            place.fs.invalidate_cache()
            return [str(path).rstrip("/").rpartition("/")[2] for path in place.fs.ls(place.path, detail=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"results={place}: {(error.strerror or str(error)).lower()}; see that you may read the folder"
        ) from None


def _is_experiment(place: Location) -> bool:
    try:
        if isinstance(place, Path):
            return (place / EXPERIMENT_FILE).is_file()
        with reaching(place):
            return bool(place.fs.isfile((place / EXPERIMENT_FILE).path))
    except (OSError, ValueError):
        # A folder that may not be read is listed, so that its owner sees that it is there.
        return isinstance(place, Path)
