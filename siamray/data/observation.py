"""A configuration goes in; all listed images come out, each with what its table, header and partner say of it."""

import time
from dataclasses import dataclass
from typing import Any

import pandas as pd

from siamray.config import Config
from siamray.data.exams import exclude_incomplete_pairs
from siamray.data.header_reading import Reading, read_headers
from siamray.data.sources import accepted, read_exams
from siamray.files import cache_folder

# What a header tells, under the names that do not clash with those of the exam table.
HEADER_COLUMNS = {
    "kind": "kind",
    "syntax": "syntax",
    "rows": "rows",
    "columns": "columns",
    "bits": "bits",
    "photometric": "photometric",
    "grey": "grey",
    "padding": "padding",
    "spacing_mm": "header_spacing",
    "spacing_from": "spacing_from",
    "laterality": "header_laterality",
    "view": "header_view",
    "vendor": "header_vendor",
}
_NUMBERS = ("rows", "columns", "bits", "header_spacing")
ASSUMED = "data.assumed_spacing_mm"
TABLE = "the source's table"


@dataclass(frozen=True)
class Observed:
    """What inspection works on.

    Attributes:
        images: a row per listed image with a standard view and known side: EXAM_COLUMNS; HEADER_COLUMNS; seconds that
            its header took; left_out, why it is not paired, or None; fault, why its header keeps it out, or None;
            used_spacing and spacing_origin; usable: whether preparing will read its pixels, as neither it nor its
            partner is left out; unreadable: whether there is no header.
        findings: FINDING_COLUMNS of these images.
        excluded: EXCLUDED_COLUMNS, all that is left out before any header is read.
        reading_seconds: what reading the headers took.
    """

    images: pd.DataFrame
    findings: pd.DataFrame
    excluded: pd.DataFrame
    reading_seconds: float


def observe(config: Config, *, progress: bool = True) -> Observed:
    """Reads the tables of a source and the headers of all images they list.

    Args:
        config: data; preparation.cpus and preparation.maximum_megapixels.
        progress: whether to show a progress bar on stderr.

    Raises:
        UserError: as siamray.data.sources.read_exams.
    """
    listed = read_exams(config.data, cache_folder())
    paired = exclude_incomplete_pairs(listed, config.data.duplicates)
    start = time.perf_counter()
    paths = [str(path) for path in listed.exams["path"]]
    readings = read_headers(paths, accepted(config.data), config.preparation.cpus, progress=progress)
    seconds = time.perf_counter() - start
    images = pd.concat([listed.exams, _headers(readings)], axis=1)
    reasons = paired.excluded.drop_duplicates("image_id").set_index("image_id")["reason"]
    gone = ~images["image_id"].isin(paired.exams["image_id"])
    images["left_out"] = images["image_id"].map(reasons).where(gone).astype("object")
    _add_spacing(images, config)
    images["fault"] = _faults(images, config)
    works = images["left_out"].isna() & images["fault"].isna()
    sides = images.assign(works=works).groupby(["exam_id", "view"])["works"].transform("sum")
    images["usable"] = works & (sides == 2)
    return Observed(images, listed.findings, paired.excluded, seconds)


def _headers(readings: list[Reading]) -> pd.DataFrame:
    records: list[dict[str, Any]] = []
    for reading in readings:
        header = reading.header
        record: dict[str, Any] = {new: getattr(header, old, None) for old, new in HEADER_COLUMNS.items()}
        record |= {"refused": reading.fault or getattr(header, "reason", None), "unreadable": header is None}
        records.append(record | {"seconds": reading.seconds})
    names = [*HEADER_COLUMNS.values(), "refused", "unreadable", "seconds"]
    frame = pd.DataFrame(records, columns=names, dtype="object")
    kinds = {**dict.fromkeys(_NUMBERS, "float64"), "unreadable": "bool", "seconds": "float64"}
    return frame.astype(kinds)


def _add_spacing(images: pd.DataFrame, config: Config) -> None:
    """Adds the spacing that preparation will use (table, else header, else what is assumed) and where it comes from."""
    assumed = config.data.assumed_spacing_mm
    table, header = images["spacing_mm"], images["header_spacing"]
    images["used_spacing"] = table.fillna(header)
    images["spacing_origin"] = images["spacing_from"].where(header.notna()).mask(table.notna(), TABLE)
    if assumed is not None:
        # What cannot be used needs no spacing.
        lacking = images["used_spacing"].isna() & images["refused"].isna()
        images.loc[lacking, "spacing_origin"] = ASSUMED
        images.loc[lacking, "used_spacing"] = assumed


def _faults(images: pd.DataFrame, config: Config) -> "pd.Series[Any]":
    """Says why preparation will leave an image out, as far as header and options tell."""
    faults = images.pop("refused")
    limit = config.preparation.maximum_megapixels
    large = images["rows"] * images["columns"] > limit * 1e6
    faults = faults.mask(faults.isna() & large, f"larger than preparation.maximum_megapixels={limit:g}")
    return faults.mask(faults.isna() & images["used_spacing"].isna(), "its pixel spacing is unknown")
