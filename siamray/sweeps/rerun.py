"""The folder of a recorded trial goes in; the same trial, run again elsewhere on the same data, comes out."""

import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamray.cluster import connected
from siamray.compose import from_dict, option_value, options, set_option, to_dict, words_by_option
from siamray.config import Config
from siamray.data.preparation import prepare
from siamray.data.preparation_plan import make_plan
from siamray.data.store import Store
from siamray.errors import UserError, nearest
from siamray.files import location
from siamray.pretraining import trainer
from siamray.pretraining.checkpoint import training_identity
from siamray.pretraining.loop import Report
from siamray.sweeps import results
from siamray.sweeps.trial import train_and_evaluate


@dataclass(frozen=True)
class Recorded:
    """A trial as it was recorded.

    Attributes:
        folder: ``<results>/<experiment>/trials/<trial_id>``.
        record: see siamray.sweeps.results.read_trial.
        config: the configuration it ran with.
    """

    folder: Path
    record: dict[str, Any]
    config: Config


def recorded_trial(place: str | Path) -> Recorded:
    """Reads what is needed to run a trial again.

    Args:
        place: ``<results>/<experiment>/trials/<trial_id>``, a path or a URL.

    Raises:
        UserError: no ended trial there, unreadable, or with an option that this version does not know.
    """
    where = location(place)
    if isinstance(where, Path):
        folder = where
    else:
        folder = results.fetched(where.parent.parent) / results.TRIALS_FOLDER / where.name
    try:
        record = results.read_trial(folder)
    except FileNotFoundError:
        known = sorted(path.parent.name for path in folder.parent.glob(f"*/{results.TRIAL_FILE}"))
        hint = nearest(folder.name, known) if known else "; name results/EXPERIMENT/trials/TRIAL"
        raise UserError(f"{folder}: no ended trial there{hint}") from None
    except results.Unreadable as error:
        raise UserError(f"{folder}: {error}; run its sweep again, it replaces what is broken") from None
    if not record["config"]:
        raise UserError(f"{folder}: its {results.TRIAL_FILE} holds no configuration, so it cannot be run again")
    return Recorded(folder, record, from_dict(record["config"]))


def with_words(recorded: Recorded, words: list[str], said: Config) -> Config:
    """Puts the words of a command line into a recorded configuration, as far as they change no numbers.

    Args:
        recorded: the trial.
        words: the command line.
        said: the configuration that the words make by themselves.

    Returns:
        The recorded configuration with the data, the store and the processors that the words name.

    Raises:
        UserError: a word contradicts what was recorded, or replaces a whole section of it.
    """
    config = from_dict(to_dict(recorded.config))
    decisive = training_identity(to_dict(config), "")
    known = {name for name, _, _ in options()}
    for name, written in words_by_option(words).items():
        if name not in known:
            raise UserError(f"{name}={written}: all choices come from the recorded trial; leave it out")
        value, was = option_value(said, name), option_value(config, name)
        if name in decisive and value != was:
            raise UserError(
                f"{name}={written}: {recorded.folder.name} was recorded with {json.dumps(was)}; leave it out, or train "
                "anew without from="
            )
        set_option(config, name, value)
    return config


def store_as_recorded(recorded: Recorded, config: Config) -> Store:
    """Opens or prepares the exams of a recorded trial, and makes sure that they are the same.

    Args:
        recorded: the trial.
        config: its configuration as with_words makes it.

    Raises:
        UserError: images, labels or preparation are others than recorded, or as prepare.
    """
    # Before anything is prepared, which may take hours; a store brought here without its images has no plan.
    if not (config.store and config.data.root is None):
        _check_fingerprint(recorded, make_plan(config).fingerprint)
    store = prepare(config)
    _check_fingerprint(recorded, store.fingerprint)
    return store


def run_again(
    recorded: Recorded, config: Config, store: Store, folder: Path, report: Report | None = None
) -> dict[str, Any]:
    """Trains and evaluates a recorded trial once more, going on from a checkpoint that an earlier attempt left.

    Args:
        recorded: the trial.
        config: its configuration as with_words makes it.
        store: its prepared exams.
        folder: to write to, another than the trial's own.
        report: told one record per epoch.

    Returns:
        What trial.json holds of the outcome; see siamray.sweeps.trial.train_and_evaluate.

    Raises:
        UserError: the folder is the trial's own, or its workers can never be placed.
    """
    if folder.resolve() == recorded.folder.resolve():
        raise UserError(f"out={folder}: is the recorded trial itself; name another folder")
    with connected(config.cluster) if config.cluster.workers else nullcontext(None) as resources:
        if resources is not None:
            trainer.make_room(config.cluster, resources, lambda line: print(line, file=sys.stderr))
        return train_and_evaluate(config, store, folder, report)


def _check_fingerprint(recorded: Recorded, found: str) -> None:
    wanted = recorded.record["data_fingerprint"]
    if found != wanted:
        raise UserError(
            f"{recorded.folder.name} was recorded on data of fingerprint {str(wanted)[:12]}, those here have "
            f"{found[:12]}: other images, labels or preparation; name the recorded ones with data.root=DIR or store=DIR"
        )
