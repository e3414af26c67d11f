"""Records of entries go in, one by one; the store's tables of entries, findings, exams and images come out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from siamray.data.entry import REGISTRATION, EntryJob
from siamray.data.exams import BIRADS, BOX_COLUMNS, DENSITIES, OUTCOMES, ExamTables
from siamray.data.store import SIDES, Store
from siamray.errors import UserError
from siamray.files import Location, write_parquet

_FIT_COLUMNS = [f"registration_{name}" for name in REGISTRATION]
_LABELS: dict[str, tuple[Any, ...]] = {"birads": BIRADS, "density": DENSITIES, "outcome": OUTCOMES}
_ENTRY_COLUMNS = [
    *("entry_id", "woman_id", "exam_id", "view", "height", "width", "spacing_mm", *_LABELS),
    *(f"{side}_image_id" for side in SIDES),
    *(f"{side}_{name}" for side in SIDES for name in ("mean", "deviation")),
    *_FIT_COLUMNS,
]
_FINDING_WORDS = ["entry_id", "woman_id", "image_id", "side", "category"]
_IMAGE_COLUMNS = ["image_id", "used", "reason", "entry_id", "spacing_mm", "note", *_FIT_COLUMNS]
_SOURCE_COLUMNS = ["woman_id", "exam_id", "laterality", "view", "path", "spacing_mm", *_LABELS]
_SOURCE_COLUMNS += ["outcome_months", "age", "vendor", "site"]


@dataclass(frozen=True, slots=True)
class EntryRows:
    """What the tables say of one entry: a small part of its record, so that those of a whole archive fit in memory.

    Attributes:
        size: height, width and spacing_mm of its images in the store; None where it was left out.
        tissue: mean and deviation of the left side, mean and deviation of the right side; none where it was left out.
        fit: REGISTRATION of it, with None for what is not known.
        reasons: why the left and the right image are not used; "" where they are.
        spacings: of the original images in mm; None where it was left out.
        notes: what is odd about the left and the right image.
        findings: image_id, side, category and BOX_COLUMNS of each.
        seconds: the time limit that an image exceeded, or None.
    """

    size: tuple[int, int, float] | None
    tissue: tuple[float, ...]
    fit: tuple[Any, ...]
    reasons: tuple[str, str]
    spacings: tuple[float | None, float | None]
    notes: tuple[str, str]
    findings: tuple[tuple[Any, ...], ...]
    seconds: float | None


def rows_of(job: EntryJob, record: Mapping[str, Any]) -> EntryRows:
    """Takes what the tables say of an entry from its record.

    Args:
        job: the entry.
        record: as siamray.data.store.write_entry or write_exclusion was given it.
    """
    fit = tuple((record.get("registration") or {}).get(name) for name in REGISTRATION)
    if "reasons" in record:
        left, right = (str(record["reasons"].get(row.image_id, "")) for row in (job.left, job.right))
        return _left_out((left, right), fit, record.get("seconds"))
    left, right = (record[side] for side in SIDES)
    height, width = record["shape"]
    return EntryRows(
        size=(height, width, record["spacing_mm"]),
        tissue=tuple(side[name] for side in (left, right) for name in ("mean", "deviation")),
        fit=fit,
        reasons=("", ""),
        spacings=(left["geometry"]["spacing_mm"], right["geometry"]["spacing_mm"]),
        notes=(left["note"], right["note"]),
        findings=tuple(_finding(finding) for finding in record["findings"]),
        seconds=None,
    )


def rows_of_failure(reason: str) -> EntryRows:
    """Makes what the tables say of an entry that left no record.

    Args:
        reason: why neither of its images is used.
    """
    return _left_out((reason, reason), (None,) * len(REGISTRATION), None)


def write_tables(path: Location, tables: ExamTables, jobs: Iterable[EntryJob], rows: Mapping[str, EntryRows]) -> None:
    """Writes manifest.parquet, exams.parquet, entries.parquet and findings.parquet of a store.

    Args:
        path: folder of the store.
        tables: what the source says, also of the images it left out.
        jobs: all entries, in their order.
        rows: by entry_id, of every job.

    Raises:
        UserError: no entry can be used, or the folder cannot be written.
    """
    both = [(job, rows[job.entry_id]) for job in jobs]
    manifest = _manifest(tables, both)
    write_parquet(path / "manifest.parquet", manifest)
    used = [(job, found) for job, found in both if found.size is not None]
    if not used:
        reasons = manifest["reason"].value_counts()
        raise UserError(
            f"none of the {len(manifest)} images can be used; most often: {reasons.index[0]} "
            f"({reasons.iloc[0]} images); {path / 'manifest.parquet'} lists all"
        )
    write_parquet(path / "exams.parquet", tables.exams)
    write_parquet(path / "entries.parquet", _entries(tables.exams, used))
    write_parquet(path / "findings.parquet", _findings(used))


def write_sites(store: Store, exams: pd.DataFrame) -> bool:
    """Brings the sites of a complete store up to date, which its fingerprint tells nothing of.

    Args:
        store: the store; one that was prepared before sites were read has no column of them.
        exams: what the source says now of the same images.

    Returns:
        Whether exams.parquet and manifest.parquet were written, as the store had other sites.

    Raises:
        UserError: the folder cannot be written.
    """
    sites = exams.set_index("image_id")["site"]
    known = store.exams.set_index("image_id").reindex(columns=["site"])["site"].reindex(sites.index)
    if known.astype("object").fillna("").tolist() == sites.astype("object").fillna("").tolist():
        return False
    # The exams last: what is cut off between the two is done again.
    for name, table in (("manifest", store.manifest), ("exams", store.exams)):
        write_parquet(store.path / f"{name}.parquet", table.assign(site=table["image_id"].map(sites)))
    return True


def _left_out(reasons: tuple[str, str], fit: tuple[Any, ...], seconds: float | None) -> EntryRows:
    return EntryRows(None, (), fit, reasons, (None, None), ("", ""), (), seconds)


def _finding(finding: Mapping[str, Any]) -> tuple[Any, ...]:
    box = finding["box"] or [float("nan")] * len(BOX_COLUMNS)
    return (finding["image_id"], finding["side"], finding["category"], *box)


def _entries(exams: pd.DataFrame, used: list[tuple[EntryJob, EntryRows]]) -> pd.DataFrame:
    # By dictionaries: looking images up in the table takes most of a millisecond each.
    labels = {name: dict(zip(exams["image_id"], exams[name], strict=True)) for name in _LABELS}
    table = []
    for job, rows in used:
        images = job.left.image_id, job.right.image_id
        worst = (_worst([labels[name][image] for image in images], order) for name, order in _LABELS.items())
        names = job.entry_id, job.woman_id, job.exam_id, job.view
        table.append((*names, *(rows.size or ()), *worst, *images, *rows.tissue, *rows.fit))
    return pd.DataFrame(table, columns=_ENTRY_COLUMNS)


def _worst(values: list[Any], order: tuple[Any, ...]) -> Any:
    """The last of the words in a vocabulary's order; None where none is known."""
    return max((value for value in values if not pd.isna(value)), key=order.index, default=None)


def _findings(used: list[tuple[EntryJob, EntryRows]]) -> pd.DataFrame:
    table = [(job.entry_id, job.woman_id, *finding) for job, rows in used for finding in rows.findings]
    frame = pd.DataFrame(table, columns=[*_FINDING_WORDS, *BOX_COLUMNS])
    return frame.astype({**dict.fromkeys(_FINDING_WORDS, "str"), **dict.fromkeys(BOX_COLUMNS, "float64")})


def _manifest(tables: ExamTables, both: list[tuple[EntryJob, EntryRows]]) -> pd.DataFrame:
    """Joins what became of every image with what the source says about it, the images left out by the source too."""
    images = []
    for job, rows in both:
        used = rows.size is not None
        entry_id = job.entry_id if used else None
        for place, row in enumerate((job.left, job.right)):
            images.append(
                (row.image_id, used, rows.reasons[place], entry_id, rows.spacings[place], rows.notes[place], *rows.fit)
            )
    seen = pd.DataFrame(images, columns=_IMAGE_COLUMNS)
    known = tables.exams[["image_id", *_SOURCE_COLUMNS]]
    seen = seen.merge(known, on="image_id", how="left", suffixes=("", "_source"))
    seen["spacing_mm"] = seen["spacing_mm"].astype("float64").fillna(seen.pop("spacing_mm_source"))
    left_out = tables.excluded.assign(used=False)
    manifest = pd.concat([seen, left_out], ignore_index=True) if len(left_out) else seen
    order = ["image_id", "woman_id", "exam_id", "laterality", "view", "used", "reason", "note", "entry_id", "path"]
    return manifest[[*order, *(name for name in manifest.columns if name not in order)]]
