"""Results on disk: records and tables of an experiment in, plain JSON and Parquet files out, and back again.

The files, keys and columns are listed in contract.py and are importable from here.
The dashboards import this module and nothing else of siamray, so it imports no torch, ray or hydra.
"""

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from siamray.errors import UserError, nearest
from siamray.files import Location, write_atomically, write_json, writing_to
from siamray.sweeps.contract import (
    BOX_COLUMNS,
    COMPARISON_COLUMNS,
    COMPARISON_FILE,
    COST_COLUMNS,
    DISTANCE_COLUMNS,
    EFFECT_COLUMNS,
    EFFECTS_FILE,
    EPOCH_COLUMNS,
    EPOCH_MAPS,
    EXAMPLES_FOLDER,
    EXPERIMENT_FILE,
    EXPERIMENT_KEYS,
    FEATURE_COLUMNS,
    FEATURES_FILE,
    IMAGE_COLUMNS,
    IMAGES_FILE,
    IMPORTANCE_COLUMNS,
    IMPORTANCE_FILE,
    MAP_COLUMNS,
    PAIR_COLUMNS,
    PREDICTION_COLUMNS,
    REPORT_FILE,
    SCHEMA,
    SELECTION_COLUMNS,
    SELECTION_FILE,
    TRIAL_COLUMNS,
    TRIAL_FILE,
    TRIAL_KEYS,
    TRIALS_FILE,
    TRIALS_FOLDER,
    TUNING_COLUMNS,
    TUNING_FILE,
    TUNING_SUFFIX,
    VALIDATION_COLUMNS,
    VALIDATION_FILE,
)
from siamray.sweeps.known_rows import TABLES, FileStates, file_states, read_known, with_states
from siamray.sweeps.reading import Unreadable, check_parquet, read_json, read_parquet
from siamray.sweeps.remote_results import fetched, send_file

__all__ = [
    "COMPARISON_COLUMNS",
    "COMPARISON_FILE",
    "EFFECTS_FILE",
    "EXAMPLES_FOLDER",
    "EXPERIMENT_FILE",
    "IMAGES_FILE",
    "IMAGE_COLUMNS",
    "IMPORTANCE_FILE",
    "REPORT_FILE",
    "SCHEMA",
    "SELECTION_COLUMNS",
    "SELECTION_FILE",
    "TRIALS_FILE",
    "TRIALS_FOLDER",
    "TRIAL_FILE",
    "TUNING_COLUMNS",
    "TUNING_FILE",
    "VALIDATION_FILE",
    "Examples",
    "Results",
    "Unreadable",
    "collect",
    "fetched",
    "finished_trial",
    "finished_trials",
    "load",
    "metric_numbers",
    "read_experiment",
    "read_trial",
    "send_file",
    "trials_table",
    "write_bytes",
    "write_diff",
    "write_experiment",
    "write_json",
    "write_parquet",
    "write_trial",
]

DIFF_BYTES = 256 * 1024
"""A longer text of uncommitted changes is not kept."""

LIST_TYPES = {
    "edges": pa.float64(),
    "counts": pa.int64(),
    "weights": pa.float64(),
    "means": pa.float64(),
    "deviations": pa.float64(),
}
"""Columns that hold a list per row, and the type of its items: Parquet cannot tell it where all lists are empty."""


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, atomically.

    Args:
        path: the file; its folder is made.
        content: what it shall hold.

    Raises:
        UserError: the folder cannot be written to.
    """
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Writes a table as Parquet, atomically.

    Args:
        path: the file.
        frame: the table; columns named in LIST_TYPES hold a list per row.

    Raises:
        UserError: the folder cannot be written to.
    """
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for name, kind in LIST_TYPES.items():
        if name in table.column_names:
            lists = pa.array([list(cell) for cell in frame[name]], type=pa.list_(kind))
            table = table.set_column(table.column_names.index(name), name, lists)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))


def write_experiment(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes experiment.json.

    Args:
        folder: ``<results>/<experiment>``.
        record: keys of EXPERIMENT_KEYS; ``schema`` is added.

    Raises:
        ValueError: a key is not one of EXPERIMENT_KEYS.
        UserError: the folder cannot be written to.
    """
    _refuse_unknown(record, EXPERIMENT_KEYS)
    write_json(folder / EXPERIMENT_FILE, {"schema": SCHEMA, **EXPERIMENT_KEYS, **record})


def write_diff(folder: Path, diff: str) -> Path | None:
    """Keeps uncommitted changes of the code with the experiment that ran with them, once for all of its trials.

    Args:
        folder: ``<results>/<experiment>``.
        diff: see siamray.provenance.uncommitted_diff.

    Returns:
        The file; None where nothing differs or the text is larger than DIFF_BYTES: its hash alone is recorded then.

    Raises:
        UserError: the folder cannot be written to.
    """
    content = diff.encode()
    if not content or len(content) > DIFF_BYTES:
        return None
    path = folder / f"uncommitted-{hashlib.sha256(content).hexdigest()[:12]}.diff"
    if not path.exists():
        write_bytes(path, content)
    return path


def write_trial(
    folder: Path,
    record: Mapping[str, Any],
    *,
    epochs: pd.DataFrame | None = None,
    distances: pd.DataFrame | None = None,
    predictions: pd.DataFrame | None = None,
) -> None:
    """Writes what a trial leaves, trial.json last, so that a trial is there entirely or not at all.

    Args:
        folder: ``<results>/<experiment>/trials/<trial_id>``.
        record: keys of TRIAL_KEYS; ``schema`` is added.
        epochs: EPOCH_COLUMNS.
        distances: DISTANCE_COLUMNS.
        predictions: PREDICTION_COLUMNS.

    Raises:
        ValueError: a key of the record is unknown or missing, or trial_id is not the folder's name.
        UserError: the folder cannot be written to.
    """
    _refuse_unknown(record, TRIAL_KEYS)
    if reason := _what_is_wrong(record, folder.name):
        raise ValueError(reason)
    # A trial that is run again must not be taken for the old one while its tables are being replaced.
    with writing_to(folder):
        (folder / TRIAL_FILE).unlink(missing_ok=True)
    for name, frame in (("epochs", epochs), ("distances", distances), ("predictions", predictions)):
        if frame is not None:
            write_parquet(folder / f"{name}.parquet", frame)
    write_json(folder / TRIAL_FILE, {"schema": SCHEMA, **TRIAL_KEYS, **record})


def read_trial(folder: Path) -> dict[str, Any]:
    """Reads a trial's record.

    Args:
        folder: ``<results>/<experiment>/trials/<trial_id>``.

    Returns:
        The keys of TRIAL_KEYS; every metric as ``{"value", "low", "high"}`` and every cost as floats, NaN for null.

    Raises:
        FileNotFoundError: there is no trial.json: the trial runs, or died.
        Unreadable: trial.json or a table beside it cannot be read.
    """
    record = read_json(folder / TRIAL_FILE)
    if _schema(record) > SCHEMA:
        raise Unreadable(f"written by a newer siamray (schema {record['schema']}, this one reads up to {SCHEMA})")
    if reason := _what_is_wrong(record, folder.name):
        raise Unreadable(reason)
    for name in TABLES:
        check_parquet(folder / f"{name}.parquet")
    filled = {**TRIAL_KEYS, **record}
    try:
        filled["metrics"] = metric_numbers(filled["metrics"] or {})
        filled["cost"] = {name: _number(value) for name, value in (filled["cost"] or {}).items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise Unreadable(f"{TRIAL_FILE}: metrics or cost are not numbers ({error})") from error
    return filled


def metric_numbers(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Gives every metric of a record the same form, ``{"value", "low", "high"}``; NaN for null and what is lacking.

    Raises:
        TypeError, ValueError: one is neither a number nor a dictionary of numbers.
    """
    return {name: _metric(value) for name, value in metrics.items()}


def finished_trials(experiment: Path) -> dict[str, dict[str, Any]]:
    """Reads the trials that need not be run again.

    Args:
        experiment: ``<results>/<experiment>``; need not exist.

    Returns:
        trial_id -> record (see read_trial) of the trials whose state is finished, whole and readable.
    """
    found = {name: finished_trial(experiment / TRIALS_FOLDER / name) for name in _trial_names(experiment)}
    return {trial_id: record for trial_id, record in found.items() if record is not None}


def finished_trial(folder: Path) -> dict[str, Any] | None:
    """Reads a trial's record if it need not be run again; None if it does.

    Args:
        folder: ``<results>/<experiment>/trials/<trial_id>``; need not exist.
    """
    try:
        record = read_trial(folder)
    except (FileNotFoundError, Unreadable):
        return None
    return record if record["state"] == "finished" else None


def collect(experiment: Path) -> pd.DataFrame:
    """Builds trials.parquet from the trial.json files; rows of trials that have not changed since are kept.

    Args:
        experiment: ``<results>/<experiment>``.

    Returns:
        What it wrote: one row per trial (TRIAL_COLUMNS, costs, metrics); none for trials that have no trial.json yet.

    Raises:
        UserError: no such experiment, written by a newer siamray, or the folder cannot be written to.
    """
    trials, states, names = _tabulate(experiment, read_experiment(experiment))
    written = with_states(trials, states, names)
    write_atomically(experiment / TRIALS_FILE, lambda temporary: pq.write_table(written, temporary))
    return trials


def read_experiment(path: Path) -> dict[str, Any]:
    """Reads experiment.json.

    Args:
        path: ``<results>/<experiment>``.

    Returns:
        The keys of EXPERIMENT_KEYS.

    Raises:
        UserError: no such experiment, unreadable, or written by a newer siamray.
    """
    try:
        record = read_json(path / EXPERIMENT_FILE)
    except FileNotFoundError:
        root = path if any(path.glob(f"*/{EXPERIMENT_FILE}")) else path.parent
        known = sorted(file.parent.name for file in root.glob(f"*/{EXPERIMENT_FILE}"))
        hint = nearest(path.name, known) if known else "; run a sweep first, or name its folder: results=DIR/EXPERIMENT"
        raise UserError(f"no experiment '{path.name}' in {root} (results={path}){hint}") from None
    except Unreadable as error:
        raise UserError(f"results={path}: {error}; run the sweep again, it goes on where it stopped") from error
    if _schema(record) > SCHEMA:
        raise UserError(
            f"results={path}: written by a newer siamray (schema {record['schema']}, this one reads up to {SCHEMA}); "
            "update siamray"
        )
    return {**EXPERIMENT_KEYS, **{key: value for key, value in record.items() if value is not None}}


def trials_table(experiment: Path, record: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulates the trials of an experiment without writing anything.

    Rows of trials.parquet whose trials have not changed since are taken from there: reading the files of thousands of
    trials takes minutes.

    Args:
        experiment: ``<results>/<experiment>``.
        record: its experiment.json, for the roles and the ids that belong to it.

    Returns:
        One row per trial, in the order variants, controls, seed, fold; see TRIAL_COLUMNS.
    """
    return _tabulate(experiment, record)[0]


def _tabulate(
    experiment: Path, record: Mapping[str, Any]
) -> tuple[pd.DataFrame, dict[str, FileStates], dict[str, tuple[tuple[str, ...], tuple[str, ...]]]]:
    """Returns the table of the trials, and per trial what its files looked like and which numbers it has."""
    wanted = None if record["trials"] is None else set(record["trials"])
    known = read_known(experiment / TRIALS_FILE)
    kept: list[str] = []
    rows: list[dict[str, Any]] = []
    states: dict[str, FileStates] = {}
    names: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    trials = str(experiment / TRIALS_FOLDER)
    for name in _trial_names(experiment):
        if wanted is not None and name not in wanted:
            continue
        folder = f"{trials}/{name}"
        # Looked at before they are read: what changes in between is read again the next time.
        seen = file_states(folder)
        if seen is None:
            continue
        if known.states.get(name) == seen:
            kept.append(name)
            names[name] = known.names[name]
        else:
            try:
                trial = read_trial(Path(folder))
            except FileNotFoundError:
                continue
            except Unreadable as error:
                rows.append({"trial_id": name, "variant": "", "state": "broken", "reason": str(error)})
                names[name] = (), ()
            else:
                rows.append(_row(trial))
                names[name] = tuple(trial["metrics"]), tuple(trial["cost"])
        states[name] = seen
    return _ordered(known.table.loc[kept].reset_index(), rows, names, record), states, names


def _row(trial: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {key: trial[key] for key in TRIAL_COLUMNS if key != "role"} | {
        "reason": trial["reason"] or ""
    }
    for name, metric in trial["metrics"].items():
        row |= {name: metric["value"], f"{name}_low": metric["low"], f"{name}_high": metric["high"]}
    row |= trial["cost"]
    return row


def _ordered(
    kept: pd.DataFrame,
    rows: list[dict[str, Any]],
    names: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]],
    record: Mapping[str, Any],
) -> pd.DataFrame:
    """Puts rows that were known and rows that were read into one table, with the columns that the trials name."""
    roles = dict.fromkeys(record["variants"], "variant") | dict.fromkeys(record["controls"], "control")
    distinct = dict.fromkeys(names.values())
    metrics = dict.fromkeys(name for pair in distinct for name in pair[0])
    costs = dict.fromkeys([*COST_COLUMNS, *(name for pair in distinct for name in pair[1])])
    numbers = [*costs, *(f"{name}{end}" for name in metrics for end in ("", "_low", "_high"))]
    parts = [part.reindex(columns=[*TRIAL_COLUMNS, *numbers]) for part in (kept, pd.DataFrame(rows)) if len(part)]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*TRIAL_COLUMNS, *numbers])
    table["role"] = table["variant"].map(
        lambda name: roles.get(name, "tuning" if str(name).endswith(TUNING_SUFFIX) else "")
    )
    rank = {name: position for position, name in enumerate(roles)}
    order = pd.DataFrame({name: table[name] for name in ("variant", "seed", "fold", "trial_id")}).astype(
        {"seed": "Int64", "fold": "Int64"}
    )
    order.insert(0, "rank", order["variant"].map(lambda name: rank.get(name, len(rank))))
    table = table.loc[order.sort_values(list(order.columns)).index].reset_index(drop=True)
    types = dict.fromkeys(TRIAL_COLUMNS, "str") | {"seed": "Int64", "fold": "Int64"}
    # Apart, as one type at a time for each of hundreds of columns would be slow.
    return pd.concat([table[TRIAL_COLUMNS].astype(types), table[numbers].astype("float64")], axis=1)


@dataclass(frozen=True)
class Examples:
    """A trial's example exams (pictures, places and distances of the patches, findings) and its extreme pairs."""

    images: dict[str, tuple[Path, Path]] = field(default_factory=dict)  # entry_id -> (left, right) PNG
    maps: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=MAP_COLUMNS))
    earlier: dict[int, pd.DataFrame] = field(default_factory=dict)  # number of epochs done -> the maps then, in order
    boxes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=BOX_COLUMNS))
    pairs: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=PAIR_COLUMNS))
    pairs_sheet: Path | None = None  # pairs.png, a pair for every row of pairs, left beside right


@dataclass(frozen=True)
class Results:
    """An experiment as read from disk; the tables of single trials are read when asked for.

    Attributes:
        path: ``<results>/<experiment>``.
        experiment: see EXPERIMENT_KEYS.
        trials: see TRIAL_COLUMNS; read from the trial folders, so current while a sweep runs.
        comparison: see COMPARISON_COLUMNS; no rows where nothing is compared yet.
        selection: see SELECTION_COLUMNS; no rows but of a search.
        tuning: see TUNING_COLUMNS; no rows but of an ablation that tunes.
        unfinished: ids of trials that have a folder but no trial.json: they run, or died.
    """

    path: Path
    experiment: dict[str, Any]
    trials: pd.DataFrame
    comparison: pd.DataFrame
    selection: pd.DataFrame
    unfinished: list[str]
    tuning: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(TUNING_COLUMNS)))

    def trial(self, trial_id: str) -> dict[str, Any]:
        """Returns a trial's record; see read_trial for what it holds and raises."""
        return read_trial(self.path / TRIALS_FOLDER / trial_id)

    def epochs(self, trial_id: str) -> pd.DataFrame:
        """Returns EPOCH_COLUMNS of a trial; no rows where it trained nothing."""
        return self._table(trial_id, "epochs.parquet", EPOCH_COLUMNS)

    def distances(self, trial_id: str) -> pd.DataFrame:
        """Returns DISTANCE_COLUMNS of a trial; no rows where it trained nothing."""
        return self._table(trial_id, "distances.parquet", DISTANCE_COLUMNS)

    def validation(self, trial_id: str) -> pd.DataFrame:
        """Returns VALIDATION_COLUMNS of a trial; no rows where no pruner looked at it."""
        return self._table(trial_id, VALIDATION_FILE, VALIDATION_COLUMNS)

    def predictions(self, trial_id: str) -> pd.DataFrame:
        """Returns PREDICTION_COLUMNS of a trial; no rows where it predicted nothing."""
        return self._table(trial_id, "predictions.parquet", PREDICTION_COLUMNS)

    def effects(self) -> pd.DataFrame:
        """Returns EFFECT_COLUMNS; no rows but of a factorial that is compared."""
        return read_parquet(self.path / EFFECTS_FILE, EFFECT_COLUMNS)

    def importance(self) -> pd.DataFrame:
        """Returns IMPORTANCE_COLUMNS; no rows but of a search with enough trials."""
        return read_parquet(self.path / IMPORTANCE_FILE, IMPORTANCE_COLUMNS)

    def images(self) -> pd.DataFrame:
        """Returns IMAGE_COLUMNS; no rows of an experiment that an older siamray wrote."""
        return read_parquet(self.path / IMAGES_FILE, IMAGE_COLUMNS)

    def features(self, trial_id: str) -> pd.DataFrame:
        """Returns FEATURE_COLUMNS of a trial; no rows where it kept no examples, or was written by an older siamray."""
        return self._table(trial_id, f"{EXAMPLES_FOLDER}/{FEATURES_FILE}", FEATURE_COLUMNS)

    def examples(self, trial_id: str) -> Examples:
        """Returns the example exams of a trial; empty where it kept none."""
        folder = self.path / TRIALS_FOLDER / trial_id / EXAMPLES_FOLDER
        entries = sorted(file.name.removesuffix("_left.png") for file in folder.glob("*_left.png"))
        pairs = {entry: (folder / f"{entry}_left.png", folder / f"{entry}_right.png") for entry in entries}
        numbers = [file.stem.removeprefix(EPOCH_MAPS) for file in folder.glob(f"{EPOCH_MAPS}*.parquet")]
        earlier = {
            epoch: self._table(trial_id, f"{EXAMPLES_FOLDER}/{EPOCH_MAPS}{epoch}.parquet", MAP_COLUMNS)
            for epoch in sorted(int(number) for number in numbers if number.isdecimal())
        }
        return Examples(
            images={entry: pair for entry, pair in pairs.items() if pair[1].is_file()},
            maps=self._table(trial_id, f"{EXAMPLES_FOLDER}/maps.parquet", MAP_COLUMNS),
            earlier=earlier,
            boxes=self._table(trial_id, f"{EXAMPLES_FOLDER}/boxes.parquet", BOX_COLUMNS),
            pairs=self._table(trial_id, f"{EXAMPLES_FOLDER}/pairs.parquet", PAIR_COLUMNS),
            pairs_sheet=sheet if (sheet := folder / "pairs.png").is_file() else None,
        )

    def _table(self, trial_id: str, name: str, columns: list[str]) -> pd.DataFrame:
        return read_parquet(self.path / TRIALS_FOLDER / trial_id / name, columns)


def load(path: str | Location) -> Results:
    """Reads an experiment.

    Args:
        path: ``<results>/<experiment>``, here or at a URL.

    Returns:
        The experiment; a sweep that still runs, failed in part or is not compared yet loads as far as it got. Of one
        at a URL its path is that of a copy, see siamray.sweeps.remote_results.

    Raises:
        UserError: no such experiment, unreadable, or written by a newer siamray.
    """
    path = fetched(path)
    experiment = read_experiment(path)
    if (path / TRIALS_FOLDER).is_dir():
        trials = trials_table(path, experiment)
    else:
        trials = read_parquet(path / TRIALS_FILE, [*TRIAL_COLUMNS, *COST_COLUMNS])
    comparison = read_parquet(path / COMPARISON_FILE, list(COMPARISON_COLUMNS))
    selection = read_parquet(path / SELECTION_FILE, list(SELECTION_COLUMNS))
    wanted = experiment["trials"]
    unfinished = [
        name
        for name in _trial_names(path)
        if (wanted is None or name in wanted) and not os.path.isfile(f"{path}/{TRIALS_FOLDER}/{name}/{TRIAL_FILE}")
    ]
    tuning = read_parquet(path / TUNING_FILE, list(TUNING_COLUMNS))
    return Results(path, experiment, trials, comparison.astype(COMPARISON_COLUMNS), selection, unfinished, tuning)


def _trial_names(experiment: Path) -> list[str]:
    # Names and not paths: making a Path takes longer than looking at the file.
    try:
        with os.scandir(experiment / TRIALS_FOLDER) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _schema(record: Mapping[str, Any]) -> int:
    schema = record.get("schema", 0)
    return schema if isinstance(schema, int) else 0


def _refuse_unknown(record: Mapping[str, Any], keys: Mapping[str, Any]) -> None:
    for key in record:
        if key != "schema" and key not in keys:
            raise ValueError(f"unknown key '{key}'{nearest(key, list(keys))}")


def _what_is_wrong(record: Mapping[str, Any], trial_id: str) -> str:
    missing = [key for key in ("trial_id", "variant", "seed", "state") if record.get(key) is None]
    if missing:
        return f"{TRIAL_FILE} lacks {', '.join(missing)}"
    if record["trial_id"] != trial_id:
        return f"{TRIAL_FILE} is of trial {record['trial_id']}, but its folder is named {trial_id}"
    if record["state"] not in ("finished", "failed", "pruned"):
        return f"{TRIAL_FILE}: state is '{record['state']}', not finished, failed or pruned"
    if not all(isinstance(record.get(key, 0), int) for key in ("seed", "fold")):
        return f"{TRIAL_FILE}: seed or fold is not a whole number"
    return ""


def _metric(value: Any) -> dict[str, float]:
    if isinstance(value, dict):
        return {end: _number(value.get(end)) for end in ("value", "low", "high")}
    return {"value": _number(value), "low": math.nan, "high": math.nan}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
