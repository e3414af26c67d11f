"""A configuration goes in; the store of its exams, complete, comes out: only what is missing is prepared."""

import dataclasses
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from siamray.cluster import RayEnded, connected, ended
from siamray.config import Config
from siamray.data import store as stores
from siamray.data.apart import Apart, Ended
from siamray.data.entry import EntryJob, LeftOut, Pair, exclude, prepare_entry, registered_pair, time_out
from siamray.data.preparation_plan import Plan, make_plan, store_options
from siamray.data.sources import is_there
from siamray.data.store import Store
from siamray.data.store_tables import EntryRows, rows_of, rows_of_failure, write_sites, write_tables
from siamray.data.time_limit import hard_time_limit, how_ended
from siamray.errors import UserError
from siamray.files import Location, cache_folder, location, write_json, writing_to

_Stored = TypeVar("_Stored", Store, Store | None)

# Fewer entries than this are prepared sooner than Ray starts.
WITHOUT_RAY = 16
# Tasks waiting or running per processor: enough that none idles, few enough that a stop loses little.
IN_FLIGHT = 2
RETRIES = 2
# Time limits of an image within which its whole entry must be done: two images, their registration, and writing.
LIMITS_PER_ENTRY = 4
# Temporary folders older than this were left by a preparation that was killed.
STALE_SECONDS = 6 * 3600


class _Failed(Exception):
    """Another attempt may succeed; the message is a reason for the manifest."""


def store_path(config: Config) -> Location:
    """Names the folder of a configuration's store; reads the source's tables where store= does not say.

    Raises:
        UserError: as read_exams.
    """
    return location(config.store) if config.store else make_plan(config).path


def prepare(config: Config, *, progress: bool = True) -> Store:
    """Prepares the exams of a configuration and opens their store; what is there already is not done again.

    Every entry (exam and view) is written whole or not at all, so a killed preparation goes on where it stopped, and
    two at a time do no harm. Many entries are prepared as Ray tasks on preparation.cpus processors, few in one other
    process. Images whose decoder hangs or crashes are left out like all others that cannot be used.

    Args:
        config: data, preparation, store; cluster.address for a running Ray cluster.
        progress: whether to show a progress bar on stderr.

    Returns:
        The complete store.

    Raises:
        UserError: no data, nothing usable, a store of other options at store=, or a folder that cannot be written.
    """
    if config.store and config.data.root is None:
        # Generated data follow from the options, and a store may have been brought here without its images.
        existing = stores.read_store_record(location(config.store))
        if existing.get("complete") and existing.get("options") == store_options(config):
            return Store.open(config.store, config.cluster.chunk_cache_gb)
    plan = make_plan(config)
    record = stores.read_store_record(plan.path)
    _check_existing(plan, record)
    if record.get("complete") and record.get("fingerprint") == plan.fingerprint and not record.get("failed"):
        return _with_sites(Store.open(plan.path, config.cluster.chunk_cache_gb), plan, config)
    if isinstance(plan.path, Path):
        with writing_to(plan.path):
            plan.path.mkdir(parents=True, exist_ok=True)
            _clear_stale(plan.path / "temporary")
    if not record:
        write_json(plan.path / "store.json", _store_record(plan, config, complete=False, failed=0))
    rows = dict(_known(plan.path, plan.jobs))
    missing = [job for job in plan.jobs if job.entry_id not in rows]
    failed = _run(missing, plan.path, config, progress)
    rows |= _known(plan.path, missing)
    rows |= {job.entry_id: rows_of_failure(failed.get(job.entry_id, "")) for job in missing if job.entry_id not in rows}
    write_tables(plan.path, plan.tables, plan.jobs, rows)
    timed_out = sum(bool(found.seconds) for found in rows.values())
    write_json(plan.path / "store.json", _store_record(plan, config, complete=True, failed=len(failed) + timed_out))
    return Store.open(plan.path, config.cluster.chunk_cache_gb)


def existing_store(config: Config) -> Store | None:
    """Opens the store of a configuration if it is there and complete; generates and prepares nothing.

    Raises:
        UserError: as read_exams, where the data set is not what data.source says.
    """
    if not config.store and not is_there(config.data, cache_folder()):
        return None
    try:
        return Store.open(store_path(config), config.cluster.chunk_cache_gb)
    except UserError:
        return None


def _with_sites(store: Store, plan: Plan, config: Config) -> Store:
    try:
        written = write_sites(store, plan.tables.exams)
    except UserError:
        # A store that may only be read serves as well as before; maps of features are not coloured by what it lacks.
        return store
    return Store.open(plan.path, config.cluster.chunk_cache_gb) if written else store


def _check_existing(plan: Plan, record: dict[str, Any]) -> None:
    """Raises UserError where the store's folder holds something else: another store, or no store at all."""
    if not record:
        names = {entry.name for entry in plan.path.iterdir()} if plan.path.is_dir() else set()
        # Another preparation may be making the same store just now: it has written its record, or is about to.
        if names and "store.json" not in names and not all(name.startswith(".store.json") for name in names):
            raise UserError(f"store={plan.path}: the folder is not empty and no store; name another folder with store=")
        return
    if record.get("format") != stores.FORMAT:
        raise UserError(
            f"store={plan.path} has format {record.get('format')}, this siamray writes {stores.FORMAT}; "
            "name another folder with store="
        )
    there = record.get("options", {})
    for name in sorted({*there, *plan.options}):
        if there.get(name) != plan.options.get(name):
            raise UserError(
                f"store={plan.path} was prepared with {name}={_shown(there.get(name))}, "
                f"not {name}={_shown(plan.options.get(name))}; set {name} back, or name another folder with store="
            )


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _store_record(plan: Plan, config: Config, complete: bool, failed: int) -> dict[str, Any]:
    """What store.json says; entries that failed without lasting cause are tried again by the next preparation."""
    return {
        "format": stores.FORMAT,
        "complete": complete,
        "fingerprint": plan.fingerprint,
        "options": plan.options,
        "root": config.data.root,
        "failed": failed,
    }


def _clear_stale(folder: Path) -> None:
    """Removes what killed preparations left half-written, and nothing of one that may be running."""
    for left in folder.glob("*"):
        try:
            if time.time() - left.stat().st_mtime <= STALE_SECONDS:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()
        except FileNotFoundError:
            continue  # another preparation has cleared it away


def _known(store: Location, jobs: list[EntryJob]) -> Iterator[tuple[str, EntryRows]]:
    """Finds what the tables say of the jobs that were done before with the same options and inputs."""
    by_name = {job.entry_id: job for job in jobs}
    for entry_id, record in stores.known_entries(store, {job.entry_id: job.key for job in jobs}):
        job = by_name[entry_id]
        # What took too long is tried again where it is given more time.
        if (record.get("seconds") or math.inf) >= job.config.image_seconds:
            yield entry_id, rows_of(job, record)


def _run(jobs: list[EntryJob], store: Location, config: Config, progress: bool) -> dict[str, str]:
    """Does the jobs, with a progress bar; returns entry_id -> reason for those that failed without lasting cause."""
    failed: dict[str, str] = {}
    if not jobs:
        return failed
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True) as bar:
        task = bar.add_task(f"preparing {config.data.source}", total=len(jobs))
        for entry_id, failure in _outcomes(jobs, store, config):
            if failure is not None:
                failed[entry_id] = failure
            bar.advance(task)
    return failed


def _outcomes(jobs: list[EntryJob], store: Location, config: Config) -> Iterator[tuple[str, str | None]]:
    cpus = config.preparation.cpus or None
    if cpus == 1 or (len(jobs) < WITHOUT_RAY and config.cluster.address is None):
        with Apart(_pair_or_reason, LIMITS_PER_ENTRY * config.preparation.image_seconds) as apart:
            for job in jobs:
                yield job.entry_id, _attempt(job, store, lambda job: _pair_apart(job, apart))
        return
    with connected(config.cluster, cpus):
        yield from _ray_outcomes(jobs, store, cpus)


def _ray_outcomes(jobs: list[EntryJob], store: Location, cpus: int | None) -> Iterator[tuple[str, str | None]]:
    """Does the jobs as Ray tasks of one processor each, a bounded number at a time."""
    import ray

    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_attempt_as_task)
    waiting = iter(jobs)
    running: dict[Any, EntryJob] = {}
    try:
        while True:
            # Looked at again and again: a cluster may start nodes as they are wanted.
            limit = IN_FLIGHT * max(1, min(int(ray.cluster_resources().get("CPU", 1)), cpus or 10**6))
            while len(running) < limit and (job := next(waiting, None)) is not None:
                running[task.remote(job, store)] = job
            if not running:
                return
            for done in ray.wait(list(running), num_returns=1)[0]:
                job = running.pop(done)
                try:
                    yield job.entry_id, ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except _worker_losses() as error:
                    if reason := ended(dying=True):
                        raise RayEnded(reason) from None
                    yield job.entry_id, f"its preparation ended unexpectedly: {type(error).__name__}"
    finally:
        for reference in running:
            ray.cancel(reference)


def _worker_losses() -> tuple[type[Exception], ...]:
    """Names the errors by which Ray says that a task's worker was lost, time and again."""
    from ray import exceptions as errors

    return errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError, errors.RaySystemError


def _attempt_as_task(job: EntryJob, store: Location) -> str | None:
    """Prepares one entry in a worker of Ray's; one that hangs is ended, and one whose decoder does so is left out.

    Ray then tries the task again, which finds the trace of the end.
    """
    seconds = job.config.image_seconds
    # In a local store all machines find it; the key is known to nobody else.
    folder = store / "temporary" if isinstance(store, Path) else Path(tempfile.gettempdir())
    trace = folder / f"siamray-{job.key}-{seconds:g}.trace"
    crash = trace.with_suffix(".crash")
    end = how_ended(trace)
    if end == "hung" or (end == "crashed" and crash.exists()):
        exclude(job, store, _ended(job, end))
        for left in (trace, crash):
            left.unlink(missing_ok=True)
        return None
    with writing_to(folder), hard_time_limit(LIMITS_PER_ENTRY * seconds, trace):
        # An image before may have broken the worker that crashed: only what crashes twice is left out.
        if end == "crashed":
            crash.touch()
        failure = _attempt(job, store)
        crash.unlink(missing_ok=True)
        return failure


def _ended(job: EntryJob, end: str) -> LeftOut:
    """Says that an entry's preparation hung or crashed; which of its images was to blame is not known."""
    seconds = job.config.image_seconds
    reason = f"its preparation hung: it {time_out(seconds)}" if end == "hung" else "its preparation crashed"
    return LeftOut(dict.fromkeys((job.left.image_id, job.right.image_id), reason), seconds=seconds)


def _pair_apart(job: EntryJob, apart: Apart[EntryJob, Pair | LeftOut | str]) -> Pair:
    """Does what registered_pair does, in another process.

    Raises:
        LeftOut: also where that process hung or crashed.
        _Failed: another attempt may succeed.
    """
    try:
        try:
            found = apart(job)
        except Ended as end:
            if not end.crashed:
                raise
            # An image before may have broken the process: only what crashes a new one is left out.
            found = apart(job)
    except Ended as end:
        if end.hung or end.crashed:
            raise _ended(job, str(end)) from None
        raise _Failed("its preparation ended unexpectedly: its process was ended") from None
    if isinstance(found, LeftOut):
        raise found
    if isinstance(found, str):
        raise _Failed(found)
    return found


def _pair_or_reason(job: EntryJob) -> Pair | LeftOut | str:
    """Returns what registered_pair returns or raises, of an odd failure the reason."""
    try:
        return registered_pair(job)
    except LeftOut as error:
        return error
    except Exception as error:
        return _odd(error)


def _attempt(job: EntryJob, store: Location, pair: Callable[[EntryJob], Pair] | None = None) -> str | None:
    """Prepares one entry; returns the reason of a failure that another attempt may not have.

    Raises:
        UserError: the store cannot be written: no other entry could be either.
    """
    try:
        prepare_entry(job, store, pair)
    except UserError:
        raise
    except _Failed as error:
        return str(error)
    except Exception as error:  # one odd image must not stop ten thousand others; its reason goes to the manifest
        return _odd(error)
    return None


def _odd(error: Exception) -> str:
    # Not the error's text, which may hold a value of the file that identifies a person.
    return f"its preparation failed: {type(error).__name__}"


def once_per_preparation(of: Callable[[Config], _Stored]) -> Callable[[Config], _Stored]:
    """Makes a function of a configuration's store remember: naming a store reads and hashes the whole data set."""
    known: dict[str, _Stored] = {}

    def remembered(chosen: Config) -> _Stored:
        key = repr((chosen.store, dataclasses.replace(chosen.data, fold=0), chosen.preparation))
        if key not in known:
            known[key] = of(chosen)
        return known[key]

    return remembered
