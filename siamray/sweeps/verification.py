"""A trial and its repetition go in; whether their numbers are the same comes out, and where they first differ.

python -m siamray.sweep verify results=DIR/EXPERIMENT
"""

import math
import random
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from siamray.compose import compose, words_by_option
from siamray.config import Config
from siamray.errors import UserError, nearest
from siamray.provenance import environment, git_state, versions
from siamray.sweeps import results
from siamray.sweeps.contract import DISTANCE_COLUMNS, EPOCH_COLUMNS, PREDICTION_COLUMNS
from siamray.sweeps.reading import read_parquet
from siamray.sweeps.rerun import Recorded, recorded_trial, run_again, store_as_recorded, with_words

EXIT_DIFFERENT = 1
# The tables of a trial in the order in which one follows from the other, their columns, and what names a row.
_TABLES = {
    "epochs": (EPOCH_COLUMNS, ("epoch", "network")),
    "distances": (DISTANCE_COLUMNS, ("epoch", "network")),
    "predictions": (PREDICTION_COLUMNS, ("task", "score", "split", "draw", "sample_id")),
}
# A machine is never twice as fast to the last digit.
_TIMES = {"seconds"}


@dataclass(frozen=True)
class Outcome:
    """The numbers of a trial that a repetition must give again: all but times.

    Attributes:
        state: finished or failed, with the reason.
        metrics: name -> {value, low, high}.
        tables: epochs, distances and predictions.
    """

    state: str
    metrics: dict[str, dict[str, float]]
    tables: dict[str, pd.DataFrame]


def outcome(folder: Path, record: Mapping[str, Any]) -> Outcome:
    """Reads the numbers of a trial, or of its repetition.

    Args:
        folder: that holds its tables.
        record: state, reason and metrics.

    Raises:
        UserError: a table is damaged.
    """
    state = record["state"] if record["state"] == "finished" else f"{record['state']} ({record['reason']})"
    # A failed attempt leaves the tables of the epochs it got to, as does the one that it repeats.
    tables = {name: read_parquet(folder / f"{name}.parquet", columns) for name, (columns, _) in _TABLES.items()}
    return Outcome(state, results.metric_numbers(record["metrics"]), tables)


def first_difference(recorded: Outcome, again: Outcome) -> str | None:
    """Finds the first number of a repetition that is not the recorded one, in the order in which they arise.

    Returns:
        Where, and both values, in one line; None where all are the same to the last digit.
    """
    if recorded.state != again.state:
        return f"the trial was {recorded.state}, is {again.state}"
    for name, (_, keys) in _TABLES.items():
        found = _in_table(recorded.tables[name], again.tables[name], keys)
        if found:
            return f"{name}.parquet, {found}"
    for name in [*recorded.metrics, *(name for name in again.metrics if name not in recorded.metrics)]:
        for end in ("value", "low", "high"):
            was, now = (numbers.get(name, {}).get(end) for numbers in (recorded.metrics, again.metrics))
            if not _same(was, now):
                return f"metric {name}, {end}: was {was}, is {now}"
    return None


def greatest_metric_difference(recorded: Outcome, again: Outcome) -> tuple[str, float]:
    """Returns the metric whose value moved most, and by how much; ("", 0.0) where none moved."""
    moved = {
        name: abs(again.metrics[name]["value"] - numbers["value"])
        for name, numbers in recorded.metrics.items()
        if name in again.metrics
    }
    known = {name: by for name, by in moved.items() if by > 0}
    return max(known.items(), key=lambda item: item[1]) if known else ("", 0.0)


def counts(found: Outcome) -> str:
    """Says how many numbers were held against one another."""
    epochs = found.tables["epochs"]["epoch"].max()
    trained = 0 if pd.isna(epochs) else int(epochs)
    return f"{trained} epochs, {len(found.tables['predictions']):,} predictions, {len(found.metrics)} metrics"


def changes(trial: Recorded, config: Config) -> list[str]:
    """Lists what differs here from where a trial was recorded, each in one line: its numbers may then differ too.

    Args:
        trial: as it was recorded.
        config: that it runs with again.
    """
    record, found = trial.record, []
    for name in ("cpus", "gpus"):
        asked, had = getattr(config.cluster, name), getattr(trial.config.cluster, name)
        if asked != had:
            found.append(f"runs with cluster.{name}={asked:g}, recorded with {had:g}: the last digits will differ")
    was, now = record["versions"] or {}, versions()
    moved = [f"{name} {was[name]} (now {now.get(name)})" for name in was if now.get(name) != was[name]]
    if moved:
        found.append(f"recorded with {', '.join(moved)}")
    recorded, here = record["git"] or {}, git_state()
    if recorded.get("commit") != here.get("commit"):
        found.append(f"recorded at commit {_short(recorded)}, this is {_short(here)}")
    if recorded.get("diff_sha256") != here.get("diff_sha256") or "diff_sha256" not in recorded:
        found += ["recorded with uncommitted changes"] if recorded.get("dirty") else []
        found += ["siamray has uncommitted changes here"] if here.get("dirty") else []
    machine, this = record["environment"] or {}, environment()
    other = [
        f"{name} {machine[name]} (now {this[name]})" for name in this if machine.get(name, this[name]) != this[name]
    ]
    if other:
        found.append(f"recorded on another machine: {', '.join(other)}")
    return found


def main(words: list[str]) -> None:
    """Runs a finished trial of ``results=DIR/EXPERIMENT`` again, aside, and says whether the numbers are the same.

    Args:
        words: the command line after ``verify``.

    Raises:
        UserError: no such experiment or trial, other data, or a word that contradicts what was recorded.
        SystemExit: with code 1, the numbers differ; what the repetition wrote is kept then.
    """
    said = compose("sweep verify", words)
    experiment = results.fetched(said.results)
    trial = recorded_trial(_chosen(results.load(experiment), said))
    own = [word for word in words if next(iter(words_by_option([word]))) not in ("results", "trial", "seed")]
    config = with_words(trial, own, said)
    store = store_as_recorded(trial, config)
    print(f"running again: {trial.folder.name} ({_seconds_of(trial.record)} when recorded)", flush=True)
    for change in changes(trial, config):
        print(f"mind: {change}", flush=True)
    # The workers of a cluster reach the experiment's folder, and perhaps no temporary one of this machine.
    folder = Path(tempfile.mkdtemp(prefix=".verify-", dir=experiment if config.cluster.address else None))
    same = False
    try:
        again = outcome(folder, run_again(trial, config, store, folder))
        was = outcome(trial.folder, trial.record)
        difference = first_difference(was, again)
        same = difference is None
    finally:
        if same:
            shutil.rmtree(folder, ignore_errors=True)
    if same:
        print(f"same: {counts(was)}")
        return
    metric, by = greatest_metric_difference(was, again)
    print(f"different, first: {difference}")
    print(f"metrics differ by at most {by:.3g} ({metric})" if metric else "the metrics' values are the same")
    print(f"the repetition: {folder}")
    raise SystemExit(EXIT_DIFFERENT)


def _chosen(loaded: results.Results, said: Config) -> Path:
    """The folder of the trial that the user named, or of one drawn from the finished ones."""
    finished: list[str] = sorted(loaded.trials.loc[loaded.trials["state"] == "finished", "trial_id"])
    if not finished:
        raise UserError(f"results={loaded.path}: no trial has finished yet; run its sweep first")
    if said.trial is None:
        return loaded.path / results.TRIALS_FOLDER / random.Random(said.seed).choice(finished)
    if said.trial not in finished:
        raise UserError(f"trial={said.trial}: no finished trial of {loaded.path}{nearest(said.trial, finished)}")
    return loaded.path / results.TRIALS_FOLDER / said.trial


def _seconds_of(record: Mapping[str, Any]) -> str:
    seconds = record["cost"].get("wall_s", math.nan)
    return "unknown time" if math.isnan(seconds) else f"{seconds:.0f} s"


def _short(git: Mapping[str, Any]) -> str:
    return str(git.get("commit") or "unknown")[:12]


def _in_table(was: pd.DataFrame, now: pd.DataFrame, keys: tuple[str, ...]) -> str:
    """Says where two tables first differ, column by column; "" where they do not."""
    if list(was.columns) != list(now.columns):
        other = sorted(set(was.columns) ^ set(now.columns))
        return f"columns differ: {', '.join(other) or 'their order'}"
    if len(was) != len(now):
        return f"there were {len(was):,} rows, there are {len(now):,}"
    # By rows: what happened first stands first.
    firsts = {}
    for column in was.columns:
        if column not in _TIMES:
            row = _first_row(was[column], now[column])
            if row is not None:
                firsts[column] = row
    if not firsts:
        return ""
    column = min(firsts, key=lambda name: firsts[name])
    row = firsts[column]
    place = ", ".join(f"{key} {was[key].iloc[row]}" for key in keys if not _missing(was[key].iloc[row]))
    return f"{place}: {column} was {was[column].iloc[row]}, is {now[column].iloc[row]}"


def _first_row(was: pd.Series, now: pd.Series) -> int | None:
    if pd.api.types.is_numeric_dtype(was) and pd.api.types.is_numeric_dtype(now):
        different = ((was != now) & ~(was.isna() & now.isna())).to_numpy()
        return int(different.argmax()) if different.any() else None
    pairs = enumerate(zip(was, now, strict=True))
    return next((row for row, (one, other) in pairs if not _same(one, other)), None)


def _same(one: Any, other: Any) -> bool:
    if _missing(one) or _missing(other):
        return _missing(one) and _missing(other)
    if hasattr(one, "tolist") or hasattr(other, "tolist"):
        one, other = (value.tolist() if hasattr(value, "tolist") else value for value in (one, other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(left, right) for left, right in zip(one, other, strict=True))
    return bool(one == other)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
