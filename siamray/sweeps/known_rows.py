"""trials.parquet goes in; those of its rows whose trials have not changed since come out, and need not be read again.

What the files of a trial looked like when they were read is kept in the Parquet file's own metadata: the rows and what
they were read from can never come apart.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from siamray.sweeps.contract import TRIAL_FILE

# A row depends on trial.json, and on whether the tables beside it are whole.
TABLES = ("epochs", "distances", "predictions")
_FILES = (TRIAL_FILE, *(f"{name}.parquet" for name in TABLES))
_KEY = b"siamray_rows"
# Raise it whenever a row would be read differently from the same files.
_FORMAT = 1
# A file may change once more within the resolution of the file system's clock: younger ones are read again.
_SETTLED_NS = 2_000_000_000

# Inode, time of the last change in ns, and bytes of every file; zeros for a file that is not there.
FileStates = tuple[int, ...]


@dataclass(frozen=True)
class KnownRows:
    """Rows that were read before.

    Attributes:
        table: trials.parquet, by trial_id.
        states: trial_id -> what its files looked like just before they were read.
        names: trial_id -> the names of its metrics and of its costs: a column also exists where all values are null.
    """

    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    states: dict[str, FileStates] = field(default_factory=dict)
    names: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)


def file_states(folder: str | Path) -> FileStates | None:
    """Looks at the files that a trial's row depends on, without opening them.

    Args:
        folder: ``<results>/<experiment>/trials/<trial_id>``.

    Returns:
        None where there is no trial.json.
    """
    found: list[int] = []
    for name in _FILES:
        try:
            seen = os.stat(f"{folder}/{name}")
        except OSError:
            if name == TRIAL_FILE:
                return None
            found += (0, 0, 0)
        else:
            found += (seen.st_ino, seen.st_mtime_ns, seen.st_size)
    return tuple(found)


def read_known(path: Path) -> KnownRows:
    """Reads trials.parquet; where it is missing, damaged or of another origin, nothing is known.

    Args:
        path: of trials.parquet.
    """
    try:
        stored = pq.read_table(path)
        record = json.loads((stored.schema.metadata or {})[_KEY])
        if record["format"] != _FORMAT:
            return KnownRows()
        names = [(tuple(metrics), tuple(costs)) for metrics, costs in record["names"]]
        return KnownRows(
            stored.to_pandas().set_index("trial_id"),
            {trial_id: tuple(states) for trial_id, (_, states) in record["trials"].items()},
            {trial_id: names[number] for trial_id, (number, _) in record["trials"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return KnownRows()


def with_states(
    table: pd.DataFrame,
    states: Mapping[str, FileStates],
    names: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]],
) -> pa.Table:
    """Makes what is written as trials.parquet.

    Args:
        table: the rows; of a broken trial too, whose reason may pass without its files changing.
        states: trial_id -> what its files looked like just before they were read.
        names: trial_id -> the names of its metrics and of its costs.
    """
    settled = time.time_ns() - _SETTLED_NS
    distinct = {pair: number for number, pair in enumerate(dict.fromkeys(names.values()))}
    unbroken: Iterable[str] = table.loc[table["state"] != "broken", "trial_id"]
    trials: dict[str, Any] = {
        trial_id: (distinct[names[trial_id]], states[trial_id])
        for trial_id in unbroken
        if max(states[trial_id][1::3]) < settled
    }
    record = {"format": _FORMAT, "names": list(distinct), "trials": trials}
    written = pa.Table.from_pandas(table, preserve_index=False)
    return written.replace_schema_metadata({**(written.schema.metadata or {}), _KEY: json.dumps(record).encode()})
