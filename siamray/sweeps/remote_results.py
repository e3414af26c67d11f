"""Results at a URL come in as a copy on this machine, and what a sweep makes of the copy goes back to the URL.

All of a sweep reads and writes files of a folder, so that results=s3://... gives it one: a copy in siamray's cache,
brought up to date before, and sent while the sweep runs and at its end. What is at the URL counts.

- A trial is sent by the process that ran it, when it ends, trial.json last: it is at the URL whole or not at all. Once
  a minute at most, at the end of an epoch, its checkpoint is sent too: a trial whose machine is lost goes on elsewhere.
- The files of the experiment are sent by its driver, now and then and at the end; a search's study each time that it
  asked or was told something.
- A file is sent or fetched only if it is not the one that was sent or fetched before, by its size and time here, and
  by its ETag (or time and size) there.
- For reading, all but encoders and checkpoints are fetched.
- Trials are shared with experiments at the same URL that this machine worked on, and with no others.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from upath import UPath

from siamray.errors import UserError
from siamray.files import Location, cache_folder, location, reaching, send, write_json, writing_to
from siamray.sweeps.contract import EXPERIMENT_FILE, TRIAL_FILE, TRIALS_FOLDER
from siamray.sweeps.driver import LOCK_FILE, TakenOver, sole_driver

KEEP_SECONDS = 60
"""Seconds at least between two times that a running trial, or the experiment's table, is sent."""

_FILES_AT_ONCE = 200
# Ray's own state of a training run, of no use elsewhere.
_NOT_SENT = re.compile(r"(^|/)(\.|ray(/|$))")
_NOT_READ = re.compile(r"(^|/)(encoder/|checkpoint\.pt$)")
_ADDRESS_FILE = "address.json"

# The copies that this process drives, and what raises where another driver has taken over.
_still_held: dict[Path, Callable[[], None]] = {}

# Of every file that was sent or fetched: what it looks like there, and its bytes and time of change in ns here.
Notes = dict[str, tuple[str, int, int]]


@dataclass(frozen=True)
class Copy:
    """An experiment at a URL and its copy on this machine; beside the copy lies what is noted about it."""

    url: UPath
    folder: Path

    @property
    def notes(self) -> Path:
        """The folder beside the copy; no experiment's name begins with a dot."""
        return self.folder.with_name(f".{self.folder.name}")


def fetched(place: str | Location) -> Path:
    """Gives an experiment as a folder of this machine, for reading.

    Args:
        place: ``<results>/<experiment>``, a path or a URL.

    Returns:
        The path itself; of a URL a copy in the cache, brought up to date, without encoders and checkpoints.

    Raises:
        UserError: there is no experiment at the URL, or it cannot be reached.
    """
    url = location(place)
    if isinstance(url, Path):
        return url
    copy = _copy(url, "read")
    with _held(copy, wait=True):
        there = _listing(url)
        if EXPERIMENT_FILE not in there:
            raise UserError(f"no experiment at {url}; name its folder: results=URL/EXPERIMENT")
        _fetch_to_read(copy, there)
    return copy.folder


def send_file(place: str | Location, path: Path) -> str:
    """Sends one file that was written into a fetched experiment.

    Args:
        place: ``<results>/<experiment>``, a path or a URL.
        path: the file, in the folder that fetched gave.

    Returns:
        Where it lies now; the path itself where the experiment is no URL.

    Raises:
        UserError: the URL cannot be written to.
    """
    url = location(place)
    if isinstance(url, Path):
        return str(path)
    with writing_to(url):
        send([(path, url / path.name)])
    return str(url / path.name)


@contextmanager
def worked_on(results: str, name: str, look: bool = False) -> Iterator[Path]:
    """Gives a folder of results to work in; what is at a URL is held for this driver, and sent at the end.

    Args:
        results: a path or a URL.
        name: of the experiment.
        look: whether nothing shall be changed: what is at a URL is fetched for reading, and neither held nor sent.

    Yields:
        The folder of results: the path itself, or the one in which the copy of the experiment lies.

    Raises:
        UserError: another sweep runs this experiment, or the URL cannot be reached.
    """
    place = location(results)
    if isinstance(place, Path):
        yield place
        return
    if look:
        copy = _copy(place / name, "read")
        with _held(copy, wait=True):
            _fetch_to_read(copy, _listing(copy.url))
            yield copy.folder.parent
        return
    copy = _copy(place / name, "work")
    with _held(copy), sole_driver(copy.url, _own_name(copy)) as still_held:
        _fetch(copy, _listing(copy.url))
        _still_held[copy.folder] = still_held
        try:
            yield copy.folder.parent
        finally:
            try:
                send_experiment(copy.folder)
            finally:
                del _still_held[copy.folder]


def url_of(experiment: Path) -> UPath | None:
    """The URL that an experiment is a copy of; None where it lies in its folder itself."""
    copy = _copy_of(experiment)
    return None if copy is None else copy.url


def send_experiment(experiment: Path, trials: bool = True) -> None:
    """Sends what has changed in an experiment that is a copy: its trials, then its own files.

    Args:
        experiment: ``<results>/<experiment>``; nothing is done about one that is no copy.
        trials: whether to look at the trials too; not while they run.

    Raises:
        TakenOver: another driver runs the experiment, as this one was away for too long; nothing is sent.
        UserError: the URL cannot be written to.
    """
    copy = _copy_of(experiment)
    if copy is None:
        return
    if experiment in _still_held:
        _still_held[experiment]()
    folders = (experiment / TRIALS_FOLDER).glob("*")
    for trial_id in sorted(path.name for path in folders if trials and path.is_dir() and path.name[0] != "."):
        _send(copy, trial_id)
    _send(copy, "")


def send_meanwhile(experiment: Path) -> None:
    """Sends an experiment's own files while its trials run; what cannot be reached for a while gets them later.

    Args:
        experiment: ``<results>/<experiment>``; nothing is done about one that is no copy.

    Raises:
        TakenOver: another driver runs the experiment: what this one goes on to compute would be told to no one.
    """
    try:
        send_experiment(experiment, trials=False)
    except TakenOver:
        raise
    except UserError:
        pass


def fetch_trial(experiment: Path, trial_id: str) -> None:
    """Brings a trial that has ended, perhaps on another machine, into an experiment that is a copy."""
    copy = _copy_of(experiment)
    if copy is not None:
        _fetch(copy, _listing(copy.url, f"{TRIALS_FOLDER}/{trial_id}"), [trial_id])


@contextmanager
def attempt(folder: str, url: str | None) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Gives the process of a trial the folder to work in, and sends it where it shall lie.

    Args:
        folder: of the trial, as its driver sees it.
        url: where it shall lie; None: it lies in the folder itself.

    Yields:
        The folder on this machine, with what an earlier attempt sent; and what to call when an epoch has ended.

    Raises:
        UserError: the URL cannot be reached.
    """
    if url is None:
        yield Path(folder), lambda: None
        return
    trial = location(url)
    assert not isinstance(trial, Path)
    copy, trial_id = _copy(trial.parent.parent, "work"), trial.name
    driven_here = (copy.notes / _ADDRESS_FILE).exists()
    _fetch(copy, _listing(copy.url, f"{TRIALS_FOLDER}/{trial_id}"), [trial_id])
    sent = time.monotonic()

    def keep() -> None:
        nonlocal sent
        if time.monotonic() - sent > KEEP_SECONDS:
            sent = time.monotonic()
            # A store that is away for a while is no reason to stop training.
            with suppress(UserError):
                _send(copy, trial_id)

    here = copy.folder / TRIALS_FOLDER / trial_id
    yield here, keep
    try:
        _send(copy, trial_id)
    except UserError:
        # Its driver finds it here, and sends it at the end.
        if not driven_here:
            raise
    if not driven_here:
        shutil.rmtree(here, ignore_errors=True)
        _notes_file(copy, trial_id).unlink(missing_ok=True)


@contextmanager
def _held(copy: Copy, wait: bool = False) -> Iterator[None]:
    """Holds a copy for one process of this machine, or waits until it may.

    Raises:
        UserError: another one holds it.
    """
    with writing_to(copy.notes):
        copy.notes.mkdir(parents=True, exist_ok=True)
        handle = os.open(copy.notes / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(
                f"{copy.url}: another sweep on this machine runs this experiment; wait for it, or name another results="
            ) from None
        write_json(copy.notes / _ADDRESS_FILE, {"url": str(copy.url)})
        yield
    finally:
        os.close(handle)


def _copy(url: UPath, kind: str) -> Copy:
    beside = hashlib.sha256(str(url.parent).encode()).hexdigest()[:12]
    return Copy(url, cache_folder() / "results" / kind / beside / url.name)


def _copy_of(experiment: Path) -> Copy | None:
    """The copy that an experiment's folder is."""
    file = experiment.with_name(f".{experiment.name}") / _ADDRESS_FILE
    if not file.is_file():
        return None
    url = location(json.loads(file.read_text(encoding="utf-8"))["url"])
    assert not isinstance(url, Path)
    return Copy(url, experiment)


def _own_name(copy: Copy) -> str:
    """A name of this very copy, so that its next driver knows the lock of a killed one as its own."""
    file = copy.notes / "name"
    if not file.exists():
        file.write_text(uuid.uuid4().hex, encoding="utf-8")
    return file.read_text(encoding="utf-8")


def _listing(url: UPath, below: str = "") -> dict[str, tuple[str, float | None]]:
    """The files at a URL: name below it -> what the file looks like, and its time in s since 1970 where known."""
    base = url.path.strip("/")
    with reaching(url):
        # Listings are cached per process, while other processes write.
        url.fs.invalidate_cache()
        found = url.fs.find((url / below).path if below else url.path, detail=True)
    listed = {str(name).strip("/")[len(base) + 1 :]: _seen(about) for name, about in found.items()}
    return {name: seen for name, seen in listed.items() if name and not _NOT_SENT.search(name)}


def _seen(about: dict[str, Any]) -> tuple[str, float | None]:
    when: Any = None
    for key in ("LastModified", "mtime", "created", "updated"):
        when = when or about.get(key)
    changed = when.timestamp() if isinstance(when, datetime) else when
    return f"{about.get('ETag') or when} {about.get('size')}", changed if isinstance(changed, int | float) else None


def _unit(name: str) -> str:
    """The trial that a file is of; "" of the experiment itself."""
    parts = name.split("/")
    return parts[1] if parts[0] == TRIALS_FOLDER and len(parts) > 2 else ""


def _notes_file(copy: Copy, unit: str) -> Path:
    return copy.notes / "files" / f"{unit or 'experiment'}.json"


def _read_notes(copy: Copy, unit: str) -> Notes:
    try:
        stored = json.loads(_notes_file(copy, unit).read_text(encoding="utf-8"))
        return {name: (str(seen), int(size), int(changed)) for name, (seen, size, changed) in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _fetch(copy: Copy, there: dict[str, tuple[str, float | None]], units: Iterable[str] | None = None) -> None:
    """Brings the copy to the state of what is there; what is here alone, and was never sent, stays.

    Args:
        copy: the copy.
        there: see _listing.
        units: trials to look at, and "" for the experiment itself; None = all of them.
    """
    if units is None:
        noted = {path.name.removesuffix(".json") for path in (copy.notes / "files").glob("*.json")}
        units = {*(name if name != "experiment" else "" for name in noted), *map(_unit, there)}
    by_unit: dict[str, dict[str, tuple[str, float | None]]] = {unit: {} for unit in units}
    for name, seen in there.items():
        by_unit.get(_unit(name), {})[name] = seen
    notes = {unit: _read_notes(copy, unit) for unit in by_unit}
    wanted = []
    for unit, files in by_unit.items():
        for name in set(notes[unit]) - set(files):
            (copy.folder / name).unlink(missing_ok=True)
            del notes[unit][name]
        changed = [
            name
            for name, (seen, _) in files.items()
            if notes[unit].get(name, ("",))[0] != seen or not (copy.folder / name).is_file()
        ]
        # As everywhere, a trial is there once its trial.json is.
        if changed:
            for name in changed:
                if name.endswith(f"/{TRIAL_FILE}"):
                    (copy.folder / name).unlink(missing_ok=True)
        wanted += sorted(changed, key=lambda name: name.endswith(f"/{TRIAL_FILE}"))
    with writing_to(copy.folder):
        copy.folder.mkdir(parents=True, exist_ok=True)
        copy.notes.mkdir(parents=True, exist_ok=True)
    for i in range(0, len(wanted), _FILES_AT_ONCE):
        _download(copy, wanted[i : i + _FILES_AT_ONCE], there, notes)
    for unit, known in notes.items():
        if known or _notes_file(copy, unit).exists():
            write_json(_notes_file(copy, unit), known)
        folder = copy.folder / TRIALS_FOLDER / unit
        times = [there[name][1] for name in by_unit[unit]]
        if unit and folder.is_dir() and times and None not in times:
            # Whoever asks when a trial was last worked on looks at its files' times, and at its folder's.
            os.utime(folder, (max(filter(None, times)),) * 2)


def _fetch_to_read(copy: Copy, there: dict[str, tuple[str, float | None]]) -> None:
    _fetch(copy, {name: seen for name, seen in there.items() if not _NOT_READ.search(name)})


def _download(
    copy: Copy, names: list[str], there: dict[str, tuple[str, float | None]], notes: dict[str, Notes]
) -> None:
    with writing_to(copy.notes), tempfile.TemporaryDirectory(dir=copy.notes, prefix="arriving-") as aside:
        arrived = {name: Path(aside) / str(i) for i, name in enumerate(names)}
        with reaching(copy.url):
            # Names in lists are taken as they are, while fsspec looks for patterns in a single one.
            copy.url.fs.get([(copy.url / name).path for name in names], list(map(str, arrived.values())))
        for name, file in arrived.items():
            seen, changed = there[name]
            if changed is not None:
                os.utime(file, (changed, changed))
            target = copy.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
            about = target.stat()
            notes[_unit(name)][name] = (seen, about.st_size, about.st_mtime_ns)


def _send(copy: Copy, unit: str) -> None:
    """Sends what has changed in a trial, or in the files of the experiment itself; a trial's trial.json last."""
    notes = _read_notes(copy, unit)
    folder = copy.folder / TRIALS_FOLDER / unit if unit else copy.folder
    paths = [path for path in (folder.rglob("*") if unit else folder.glob("*")) if path.is_file()]
    here: dict[str, tuple[int, int]] = {}
    for path in paths:
        name = path.relative_to(copy.folder).as_posix()
        if not _NOT_SENT.search(name):
            with suppress(FileNotFoundError):
                about = path.stat()
                here[name] = (about.st_size, about.st_mtime_ns)
    changed = sorted(name for name, about in here.items() if notes.get(name, ("", -1, -1))[1:] != about)
    gone = sorted(set(notes) - set(here))
    if not changed and not gone:
        return
    last = [name for name in changed if name.endswith(f"/{TRIAL_FILE}")]
    first = [name for name in changed if name not in last]
    with writing_to(copy.url):
        for name in [*(name for name in last if name in notes), *gone]:
            with suppress(FileNotFoundError):
                copy.url.fs.rm_file((copy.url / name).path)
        for names in (first, last):
            if names:
                send([(copy.folder / name, copy.url / name) for name in names])
    there = _listing(copy.url, f"{TRIALS_FOLDER}/{unit}") if unit else _top(copy.url)
    known = {name: notes[name] for name in notes if name in here and name not in changed}
    known |= {name: (there[name][0], *here[name]) for name in changed if name in there}
    write_json(_notes_file(copy, unit), known)


def _top(url: UPath) -> dict[str, tuple[str, float | None]]:
    """As _listing, of the experiment's own files."""
    with reaching(url):
        url.fs.invalidate_cache()
        found = url.fs.ls(url.path, detail=True)
    return {str(about["name"]).rstrip("/").rpartition("/")[2]: _seen(about) for about in found}
