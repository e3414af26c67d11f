"""A search in, a table of its trials with the options that each drew out, from its selection or, before, its trials."""

import json
import shlex
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from dashboards.search import SEARCHED
from siamray.sweeps.contract import TRIAL_FILE, TRIALS_FOLDER
from siamray.sweeps.reading import Unreadable, read_json
from siamray.sweeps.results import Results

FIRST = ["trial_id", "number", "state"]


def options(results: Results) -> list[str]:
    """Names the options that a search varies; one that was set with a value was not searched."""
    return [str(name) for name in results.experiment["variants"].get(SEARCHED, []) if "=" not in str(name)]


def searched(results: Results) -> pd.DataFrame:
    """Tabulates the trials of a search that have ended.

    Args:
        results: as read from disk.

    Returns:
        FIRST, the objectives, the searched options (numbers where all are), wall_s, front, winner and reason where
        recorded, a row per trial, by its number. Trials that confirm the winner are none of the search.
    """
    record = results.experiment
    confirming = [name for name in record["variants"] if name != SEARCHED]
    own = results.trials[~results.trials["variant"].isin(confirming)]
    objectives = [name for name in record["objectives"] or {} if name in own]
    frame = own[["trial_id", "state", "reason", *objectives, "started"]].copy()
    if "wall_s" not in objectives:
        frame["wall_s"] = own["wall_s"]
    selection = results.selection
    if len(selection):
        known = selection.drop_duplicates("trial_id").set_index("trial_id").reindex(frame["trial_id"])
        frame["number"] = known["number"].to_numpy()
        for name in ("front", "winner", "epoch"):
            if known[name].notna().any():
                frame[name] = known[name].to_numpy()
        for name in objectives:
            frame[name] = frame[name].fillna(pd.Series(known[name].to_numpy(), index=frame.index).astype("float64"))
        drawn = [_words(words) for words in known["settings"]]
    else:
        frame["number"] = frame["started"].rank(method="first") - 1
        drawn = [_recorded(results, str(trial_id)) for trial_id in frame["trial_id"]]
    for name in options(results):
        frame[name] = _typed([one.get(name) for one in drawn], frame.index)
    frame["number"] = frame["number"].astype("float64")
    frame["reason"] = frame["reason"].fillna("")
    rest = [name for name in frame if name not in (*FIRST, *objectives, "started", "reason")]
    return frame.sort_values("number")[[*FIRST, *objectives, *rest, "reason"]].reset_index(drop=True)


def _words(settings: Any) -> dict[str, str]:
    """Reads what was drawn, words of a command line."""
    if not isinstance(settings, str):
        return {}
    try:
        words = shlex.split(settings)
    except ValueError:
        words = settings.split()
    return dict(word.partition("=")[::2] for word in words if "=" in word)


def _recorded(results: Results, trial_id: str) -> dict[str, Any]:
    file = results.path / TRIALS_FOLDER / trial_id / TRIAL_FILE
    try:
        return json.loads(_options_of(str(file), file.stat().st_mtime_ns, tuple(options(results))))  # type: ignore[no-any-return]
    except (OSError, Unreadable):
        return {}


@lru_cache(maxsize=50_000)
def _options_of(file: str, _changed: int, names: tuple[str, ...]) -> str:
    """Reads the options of a trial's record, once per time of change; as JSON, which takes little room."""
    config = read_json(Path(file)).get("config") or {}
    found: dict[str, Any] = {}
    for name in names:
        value: Any = config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        found[name] = value
    return json.dumps(found, default=str)


def _typed(values: list[Any], index: pd.Index) -> pd.Series:
    plain = [json.dumps(value) if isinstance(value, list | dict | bool) else value for value in values]
    column = pd.Series(plain, index=index, dtype="object")
    numbers = pd.to_numeric(column, errors="coerce")
    return (
        numbers.astype("float64")
        if (numbers.notna() == column.notna()).all()
        else column.astype("str").where(column.notna())
    )
