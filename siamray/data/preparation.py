"""A configuration goes in; the store of its exams, complete, comes out: only what is missing is prepared."""

import dataclasses
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from siamray.cluster import connected
from siamray.config import Config
from siamray.data import store as stores
from siamray.data.entry import EntryJob, ImageRow, LeftOut, exclude, prepare_entry, time_out
from siamray.data.exams import BOX_COLUMNS, ExamTables, exclude_incomplete_pairs
from siamray.data.sources import accepted, is_there, read_exams
from siamray.data.store import Store
from siamray.data.store_tables import EntryRows, rows_of, rows_of_failure, write_tables
from siamray.data.time_limit import hard_time_limit
from siamray.errors import UserError
from siamray.files import Location, location, write_json, writing_to

# Fewer entries than this are prepared sooner than Ray starts.
WITHOUT_RAY = 16
# Tasks waiting or running per processor: enough that none idles, few enough that a stop loses little.
IN_FLIGHT = 2
RETRIES = 2
# Time limits of an image within which its whole entry must be done: two images, their registration, and writing.
LIMITS_PER_ENTRY = 4
# Bytes of every file that enter the fingerprint, beside its size.
SAMPLE_BYTES = 16384
# Temporary folders older than this were left by a preparation that was killed.
STALE_SECONDS = 6 * 3600


@dataclass(frozen=True)
class _Plan:
    """What a configuration asks for: where the store lies, what its entries are, and from what they are made."""

    path: Location
    options: dict[str, Any]
    fingerprint: str
    tables: ExamTables
    jobs: list[EntryJob]


def cache_folder() -> Path:
    """Names the folder for what can be made again: $SIAMRAY_CACHE, else siamray in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("SIAMRAY_CACHE")
    if own:
        return Path(own).expanduser().resolve()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser().resolve() if shared else Path.home() / ".cache") / "siamray"


def store_path(config: Config) -> Location:
    """Names the folder of a configuration's store; reads the source's tables where store= does not say.

    Raises:
        UserError: as read_exams.
    """
    return location(config.store) if config.store else _plan(config).path


def prepare(config: Config, *, progress: bool = True) -> Store:
    """Prepares the exams of a configuration and opens their store; what is there already is not done again.

    Every entry (exam and view) is written whole or not at all, so a killed preparation goes on where it stopped, and
    two at a time do no harm. Many entries are prepared as Ray tasks on preparation.cpus processors, few in this
    process.

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
        if existing.get("complete") and existing.get("options") == _options(config):
            return Store.open(config.store)
    plan = _plan(config)
    record = stores.read_store_record(plan.path)
    _check_existing(plan, record)
    if record.get("complete") and record.get("fingerprint") == plan.fingerprint and not record.get("failed"):
        return Store.open(plan.path)
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
    return Store.open(plan.path)


def existing_store(config: Config) -> Store | None:
    """Opens the store of a configuration if it is there and complete; generates and prepares nothing.

    Raises:
        UserError: as read_exams, where the data set is not what data.source says.
    """
    if not config.store and not is_there(config.data, cache_folder()):
        return None
    try:
        return Store.open(store_path(config))
    except UserError:
        return None


def _plan(config: Config) -> _Plan:
    tables = exclude_incomplete_pairs(read_exams(config.data, cache_folder()), config.data.duplicates)
    options = _options(config)
    jobs = _jobs(tables, config, options)
    if not jobs:
        reasons = tables.excluded["reason"].value_counts()
        most = f"; most often: {reasons.index[0]} ({reasons.iloc[0]})" if len(reasons) else ""
        raise UserError(f"data={config.data.source}: no pair of a left and a right image of one exam and view{most}")
    excluded = sorted(f"{row.image_id}|{row.reason}" for row in tables.excluded.itertuples())
    # Labels too: a corrected table must not be answered by the store of the old one.
    labels = tables.exams.drop(columns="path").to_json(orient="values")
    fingerprint = _hash([options, [job.key for job in jobs], excluded, labels])
    path: Location = (
        location(config.store) if config.store else cache_folder() / f"{config.data.source}-{fingerprint[:12]}"
    )
    return _Plan(path, options, fingerprint, tables, jobs)


def _options(config: Config) -> dict[str, Any]:
    """The options that decide what a store holds, by their dotted names."""
    options: dict[str, Any] = {"data.source": config.data.source}
    if config.data.source == "phantom":
        options |= _flat("data.phantom", dataclasses.asdict(config.data.phantom))
    options |= _flat("preparation", dataclasses.asdict(config.preparation))
    for name in ("cpus", "image_seconds"):
        del options[f"preparation.{name}"]
    return options


def _flat(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}.{name}"
        flat |= _flat(key, value) if isinstance(value, dict) else {key: value}
    return flat


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _jobs(tables: ExamTables, config: Config, options: dict[str, Any]) -> list[EntryJob]:
    """Makes one job per exam and view; its key changes with whatever its entry depends on."""
    findings: dict[str, list[tuple[str, tuple[float, float, float, float] | None]]] = {}
    for finding in tables.findings.itertuples():
        findings.setdefault(str(finding.image_id), []).append((str(finding.category), _box(finding)))
    # Once, and not for every image.
    root = (Path(config.data.root) if config.data.root else cache_folder()).resolve()
    accept, assumed = accepted(config.data), config.data.assumed_spacing_mm
    women: dict[tuple[str, str], str] = {}
    pairs: dict[tuple[str, str], dict[str, ImageRow]] = {}
    # One walk over the table: looking an entry's rows up in it would take a millisecond each.
    for row in tables.exams.itertuples():
        pair = str(row.exam_id), str(row.view)
        women.setdefault(pair, str(row.woman_id))
        spacing = float(str(row.spacing_mm))
        pairs.setdefault(pair, {})[str(row.laterality)] = ImageRow(
            image_id=str(row.image_id),
            path=str(row.path),
            spacing_mm=None if math.isnan(spacing) else spacing,
            findings=tuple(findings.get(str(row.image_id), [])),
            laterality=str(row.laterality),
            assumed_spacing_mm=assumed,
            accept=accept,
        )
    jobs = []
    for (exam, view), sides in sorted(pairs.items(), key=lambda item: item[0]):
        woman = women[exam, view]
        inputs = [
            (side, row.image_id, _relative(row.path, root), _sample(row.path), row.spacing_mm, row.findings)
            for side, row in sorted(sides.items())
        ]
        key = _hash([stores.FORMAT, options, woman, inputs, assumed, sorted(accept)])
        jobs.append(EntryJob(f"{exam}_{view}", woman, exam, view, sides["L"], sides["R"], key, config.preparation))
    return jobs


def _box(row: Any) -> tuple[float, float, float, float] | None:
    values = tuple(float(getattr(row, name)) for name in BOX_COLUMNS)
    return None if any(math.isnan(value) for value in values) else (values[0], values[1], values[2], values[3])


def _relative(path: str, root: Path) -> str:
    """The file's name within its data set, so that the same data elsewhere have the same store.

    Args:
        path: the file.
        root: folder of the data set, without links.
    """
    resolved = Path(path).resolve()
    return str(resolved.relative_to(root)) if resolved.is_relative_to(root) else resolved.name


def _sample(path: str) -> tuple[int, str]:
    """A file's size and a hash of its middle: other pixels show, and reading all of every file would take hours."""
    try:
        size = os.stat(path).st_size
        with open(path, "rb") as file:
            file.seek(max(0, size // 2 - SAMPLE_BYTES // 2))
            return size, hashlib.sha256(file.read(SAMPLE_BYTES)).hexdigest()
    except OSError:
        return -1, ""


def _check_existing(plan: _Plan, record: dict[str, Any]) -> None:
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


def _store_record(plan: _Plan, config: Config, complete: bool, failed: int) -> dict[str, Any]:
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
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
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
        for job in jobs:
            yield job.entry_id, _attempt(job, store)
        return
    with connected(config.cluster, cpus):
        yield from _ray_outcomes(jobs, store, cpus)


def _ray_outcomes(jobs: list[EntryJob], store: Location, cpus: int | None) -> Iterator[tuple[str, str | None]]:
    """Does the jobs as Ray tasks of one processor each, a bounded number at a time."""
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_attempt_as_task)
    limit = IN_FLIGHT * max(1, min(int(ray.cluster_resources().get("CPU", 1)), cpus or 10**6))
    waiting = iter(jobs)
    running: dict[Any, EntryJob] = {}
    try:
        while True:
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
                except ray.exceptions.RaySystemError as error:
                    yield job.entry_id, f"its preparation ended unexpectedly: {type(error).__name__}"
    finally:
        for reference in running:
            ray.cancel(reference)


def _attempt_as_task(job: EntryJob, store: Location) -> str | None:
    """Prepares one entry in a worker of Ray's; a worker that hangs ends itself, and the entry is left out.

    Ray then tries the task again, which finds the exclusion.
    """
    seconds = job.config.image_seconds
    known = dict(stores.known_entries(store, {job.entry_id: job.key}))
    if (known.get(job.entry_id, {}).get("seconds") or 0) >= seconds:
        return None

    def give_up() -> None:
        reasons = dict.fromkeys(
            (job.left.image_id, job.right.image_id), "its preparation hung: it " + time_out(seconds)
        )
        exclude(job, store, LeftOut(reasons, seconds=seconds))

    with hard_time_limit(LIMITS_PER_ENTRY * seconds, give_up):
        return _attempt(job, store)


def _attempt(job: EntryJob, store: Location) -> str | None:
    """Prepares one entry; returns the reason of a failure that another attempt may not have.

    Raises:
        UserError: the store cannot be written: no other entry could be either.
    """
    try:
        prepare_entry(job, store)
    except UserError:
        raise
    except Exception as error:  # one odd image must not stop ten thousand others; its reason goes to the manifest
        # Not the error's text, which may hold a value of the file that identifies a person.
        return f"its preparation failed: {type(error).__name__}"
    return None
