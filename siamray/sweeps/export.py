"""An experiment's results go in; its trials and comparison come out as tables, or its methods as text."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from siamray.errors import UserError
from siamray.files import Location, write_atomically, write_parquet
from siamray.sweeps import results
from siamray.sweeps.methods import describe_methods, markdown

SUFFIXES = (".parquet", ".csv")
METHODS_SUFFIX = ".md"
# Options that have columns of their own.
_NAMED = ("seed", "data.fold")


def trials_with_options(loaded: results.Results) -> pd.DataFrame:
    """Tabulates the trials that have ended, with whatever they differ in.

    Args:
        loaded: an experiment.

    Returns:
        One row per trial: TRIAL_COLUMNS, costs, metrics with their intervals; then data_fingerprint, commit,
        uncommitted (changes), and the options that are not alike in all trials, by their dotted names.
    """
    readable = loaded.trials[loaded.trials["state"] != "broken"]
    records = [loaded.trial(str(trial_id)) for trial_id in readable["trial_id"]]
    options = pd.json_normalize([record["config"] for record in records])
    columns: dict[str, list[Any]] = {
        "data_fingerprint": [record["data_fingerprint"] for record in records],
        "commit": [(record["git"] or {}).get("commit") for record in records],
        "uncommitted": [(record["git"] or {}).get("dirty") for record in records],
    }
    for name in options:
        written = [json.dumps(value, sort_keys=True, default=str) for value in options[name]]
        if name not in _NAMED and len(set(written)) > 1:
            columns[str(name)] = _plain(list(options[name]), written)
    further = pd.DataFrame(columns, index=readable.index)
    return pd.concat([loaded.trials, further.reindex(loaded.trials.index)], axis=1)


def write_tables(experiment: Location, out: Path) -> list[Path]:
    """Writes an experiment, as far as it got: its trials and its comparison as tables, or what was done as text.

    Args:
        experiment: ``<results>/<experiment>``, here or at a URL.
        out: the file of the trials, its suffix one of SUFFIXES; the comparison's name ends in ``_comparison``. With
            METHODS_SUFFIX the file of the methods section instead.

    Returns:
        The files written; without a comparison where nothing is compared yet.

    Raises:
        UserError: no such experiment, another suffix, or the folder cannot be written to.
    """
    if out.suffix not in (*SUFFIXES, METHODS_SUFFIX):
        raise UserError(f"out={out}: name a file that ends in {' or '.join(SUFFIXES)}, or {METHODS_SUFFIX} for methods")
    loaded = results.load(experiment)
    if out.suffix == METHODS_SUFFIX:
        results.write_bytes(out, markdown(describe_methods(loaded)).encode("utf-8", "replace"))
        return [out]
    tables = {out: trials_with_options(loaded)}
    if len(loaded.comparison):
        tables[out.with_name(f"{out.stem}_comparison{out.suffix}")] = loaded.comparison
    for path, table in tables.items():
        if out.suffix == ".csv":
            write_atomically(path, partial(table.to_csv, index=False))
        else:
            write_parquet(path, table)
    return list(tables)


def _plain(values: list[Any], written: list[str]) -> list[Any]:
    """Numbers as numbers; words, and whatever a column could not hold beside others, as words; null as missing."""
    missing = [isinstance(value, float | None) and pd.isna(value) for value in values]
    kinds = {type(value) for value, gone in zip(values, missing, strict=True) if not gone}
    if kinds in ({bool}, {int}, {float}, {int, float}):
        return values
    words = [value if isinstance(value, str) else text for value, text in zip(values, written, strict=True)]
    return [None if gone else word for word, gone in zip(words, missing, strict=True)]
