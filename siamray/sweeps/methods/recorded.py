"""The folder of an experiment goes in; what it records, option by option and in words, comes out."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from siamray.errors import UserError
from siamray.sweeps.contract import TRIAL_FILE, TRIALS_FOLDER
from siamray.sweeps.methods.wording import NOT_RECORDED, in_words
from siamray.sweeps.reading import Unreadable, read_json
from siamray.sweeps.results import Results

SEARCHED = "(searched)"


@dataclass(frozen=True)
class Paragraph:
    """A heading, its text, and what is listed below it."""

    title: str
    text: str
    items: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Known:
    """An experiment with the records of its trials, each read once."""

    results: Results
    record: dict[str, Any]
    trials: list[dict[str, Any]]
    config: dict[str, Any]  # of a trial of the reference, or of any trial
    compared: pd.DataFrame  # rows of the primary metric, of variants and controls
    metric: str | None

    @classmethod
    def read(cls, results: Results) -> "Known":
        """Reads the records of all trials."""
        metrics = list(dict.fromkeys(results.comparison["metric"]))
        named = results.experiment["metric"]
        # Of a search the metric that ranks is on validation women; what is compared is not.
        metric = named if named in metrics or not metrics else metrics[0]
        return cls(
            results,
            results.experiment,
            _trial_records(results),
            _unsearched(_reference_record(results).get("config") or {}, results.experiment),
            results.comparison[results.comparison["metric"] == metric],
            metric,
        )

    def option(self, name: str) -> Any:
        """The value of an option of the reference."""
        return option_of(self.config, name)

    def said(self, name: str) -> str:
        """The value of an option in words."""
        return in_words(option_of(self.config, name, NOT_RECORDED))

    @property
    def is_search(self) -> bool:
        """Whether it is a search."""
        return bool(self.record["kind"] == "search")

    @property
    def seeds(self) -> int:
        """Seeds of the comparison, or those that were asked."""
        counted = self.compared["seeds"].dropna()
        return int(counted.max()) if len(counted) else len(self.record["seeds"] or [])


def variant_changes(results: Results) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Says what makes each variant and control another than the reference.

    Args:
        results: an experiment.

    Returns:
        Variant or control -> {dotted option: (its value, the reference's, None where that is not recorded)}; of an
        older experiment, which did not record what differs, by its overrides. Nothing of the reference itself.
    """
    record = results.experiment
    reference = record["reference"]
    differences = record["differences"] or {}
    of_reference = differences.get(reference) or {}
    config = _reference_record(results).get("config") or {}
    changes: dict[str, dict[str, tuple[Any, Any]]] = {}
    for name, overrides in {**(record["variants"] or {}), **(record["controls"] or {})}.items():
        own = differences.get(name)
        if own is None:
            own = dict(_as_option(word) for word in overrides or [] if "=" in word)
        changes[name] = {
            option: (value, of_reference[option] if option in of_reference else option_of(config, option))
            for option, value in own.items()
            if name != reference and (option not in of_reference or of_reference[option] != value)
        }
    return changes


def shared_trials(results: Results) -> dict[str, int]:
    """Counts the trials that another experiment has trained: experiment -> number."""
    counted: dict[str, int] = {}
    for record in _trial_records(results):
        if record.get("shared_from"):
            source = str(record["shared_from"]).partition("/")[0]
            counted[source] = counted.get(source, 0) + 1
    return counted


def _trial_records(results: Results) -> list[dict[str, Any]]:
    """The records of all readable trials, as they are written: old ones lack keys."""
    found = []
    for row in results.trials[results.trials["state"] != "broken"].to_dict("records"):
        try:
            found.append(read_json(results.path / TRIALS_FOLDER / str(row["trial_id"]) / TRIAL_FILE))
        except (FileNotFoundError, Unreadable, UserError):
            continue
    return found


def _reference_record(results: Results) -> dict[str, Any]:
    """The record of a finished trial of the reference, else of any trial."""
    trials = results.trials[results.trials["state"] != "broken"]
    reference = trials["variant"].eq(str(results.experiment["reference"]))
    finished = trials["state"].eq("finished")
    for rows in (trials[reference & finished], trials[reference], trials[finished], trials):
        for trial_id in rows["trial_id"].head(1):
            try:
                return read_json(results.path / TRIALS_FOLDER / str(trial_id) / TRIAL_FILE)
            except (FileNotFoundError, Unreadable):
                continue
    return {}


def option_of(config: Any, name: str, missing: Any = None) -> Any:
    """The value of an option named with dots in a recorded configuration."""
    value = config
    for key in name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return missing
        value = value[key]
    return value


def _unsearched(config: dict[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration, where what a search varied has no value of its own."""
    if record["kind"] != "search":
        return config
    varied = (record["search"] or {}).get("parameters") or (record["variants"] or {}).get("searched") or []
    whole = copy.deepcopy(config)
    for name in varied:
        *sections, last = str(name).split(".")
        place = option_of(whole, ".".join(sections)) if sections else whole
        if isinstance(place, dict) and last in place:
            place[last] = SEARCHED
    return whole


def _as_option(word: str) -> tuple[str, str]:
    name, _, value = str(word).partition("=")
    return name, value
