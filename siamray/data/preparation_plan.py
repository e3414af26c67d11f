"""A configuration goes in; the entries its store will hold, each with a hash of all it depends on, come out."""

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamray.config import Config
from siamray.data import store as stores
from siamray.data.entry import EntryJob, ImageRow
from siamray.data.exams import BOX_COLUMNS, ExamTables, exclude_incomplete_pairs
from siamray.data.sources import accepted, read_exams
from siamray.errors import UserError
from siamray.files import Location, cache_folder, location

# Bytes of every file that enter the fingerprint, beside its size.
SAMPLE_BYTES = 16384


@dataclass(frozen=True)
class Plan:
    """What a configuration asks for.

    Attributes:
        path: where the store lies.
        options: those that decide what a store holds, by their dotted names.
        fingerprint: hash of all that results depend on: options, images, labels, and what is left out; not sites.
        tables: the source's, without images that have no partner.
        jobs: the entries, in the order of exam and view.
    """

    path: Location
    options: dict[str, Any]
    fingerprint: str
    tables: ExamTables
    jobs: list[EntryJob]


def make_plan(config: Config) -> Plan:
    """Reads the source's tables and a sample of each file, and lays down what is to be prepared.

    Args:
        config: data, preparation, store.

    Raises:
        UserError: as siamray.data.sources.read_exams, or there is no pair of images.
    """
    tables = exclude_incomplete_pairs(read_exams(config.data, cache_folder()), config.data.duplicates)
    options = store_options(config)
    jobs = _jobs(tables, config, options)
    if not jobs:
        reasons = tables.excluded["reason"].value_counts()
        most = f"; most often: {reasons.index[0]} ({reasons.iloc[0]})" if len(reasons) else ""
        raise UserError(f"data={config.data.source}: no pair of a left and a right image of one exam and view{most}")
    excluded = sorted(f"{row.image_id}|{row.reason}" for row in tables.excluded.itertuples())
    # Labels too: a corrected table must not be answered by the store of the old one. But not sites, which nothing is
    # computed from: stores that were prepared before sites were read stay what they were.
    labels = tables.exams.drop(columns=["path", "site"]).to_json(orient="values")
    fingerprint = _hash([options, [job.key for job in jobs], excluded, labels])
    path: Location = (
        location(config.store) if config.store else cache_folder() / f"{config.data.source}-{fingerprint[:12]}"
    )
    return Plan(path, options, fingerprint, tables, jobs)


def store_options(config: Config) -> dict[str, Any]:
    """Picks the options that decide what a store holds, by their dotted names."""
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
