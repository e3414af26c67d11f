"""The folder of an experiment goes in, while it runs or after; how far it is, and what is left, comes out as a record.

The dashboards read this too, so that it imports no torch, ray or hydra.
"""

import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from siamray.files import Location
from siamray.sweeps import results
from siamray.sweeps.driver import Driver, running_driver


@dataclass(frozen=True)
class Begun:
    """A trial that has begun and not ended."""

    trial_id: str
    variant: str
    epochs: int  # complete
    planned: int | None  # epochs that trials of its variant have; None where none has ended yet
    running: bool  # whether the driver that runs now has worked on it


@dataclass(frozen=True)
class Status:
    """How far an experiment is.

    Attributes:
        loaded: the experiment as read.
        driver: who runs it now, if anyone.
        begun: trials that have begun and not ended.
        waiting: variant -> trials that have not begun, "" of a search.
        seconds_left: estimated seconds of all trials still to be run; None where no trial has finished.
    """

    loaded: results.Results
    driver: Driver | None
    begun: list[Begun]
    waiting: dict[str, int]
    seconds_left: float | None

    @property
    def finished(self) -> pd.DataFrame:
        """The rows of finished trials."""
        return self.loaded.trials[self.loaded.trials["state"] == "finished"]

    @property
    def failed(self) -> pd.DataFrame:
        """The rows of trials that failed or cannot be read; the same command tries them again."""
        return self.loaded.trials[self.loaded.trials["state"] != "finished"]

    @property
    def planned(self) -> int:
        """Number of trials that the experiment shall have."""
        return len(self.loaded.trials) + len(self.begun) + sum(self.waiting.values())


def status(experiment: Location) -> Status:
    """Reads how far an experiment is; writes nothing.

    Args:
        experiment: ``<results>/<experiment>``, here or at a URL.

    Raises:
        UserError: no such experiment, unreadable, or written by a newer siamray.
    """
    loaded = results.load(experiment)
    driver = running_driver(experiment)
    finished = loaded.trials[loaded.trials["state"] == "finished"]
    means = finished.groupby("variant")["wall_s"].mean()
    epochs = _planned_epochs(loaded, finished)
    begun = [_begun(loaded.path, trial_id, epochs, driver) for trial_id in loaded.unfinished]
    waiting = _waiting(loaded, finished)
    left = None
    if len(finished):
        share = {trial.trial_id: 1 - min(1.0, trial.epochs / max(1, trial.planned or 0)) for trial in begun}
        failed = loaded.trials.loc[loaded.trials["state"] != "finished", "variant"].tolist()
        jobs = [(trial.variant, share[trial.trial_id]) for trial in begun]
        jobs += [(variant, 1.0) for variant in failed]
        jobs += [(variant, float(number)) for variant, number in waiting.items()]
        overall = float(finished["wall_s"].mean())
        left = sum(float(means.get(variant, overall)) * part for variant, part in jobs)
        left = None if math.isnan(left) else left
    return Status(loaded, driver, begun, waiting, left)


def _planned_epochs(loaded: results.Results, finished: pd.DataFrame) -> dict[str, int]:
    """Epochs per variant, from the configuration of one finished trial of each."""
    found = {}
    for row in finished.drop_duplicates("variant").itertuples():
        planned = (loaded.trial(str(row.trial_id))["config"].get("pretraining") or {}).get("epochs")
        if isinstance(planned, int):
            found[str(row.variant)] = planned
    return found


def _begun(experiment: Path, trial_id: str, planned: dict[str, int], driver: Driver | None) -> Begun:
    folder = experiment / results.TRIALS_FOLDER / trial_id
    try:
        done = pd.read_parquet(folder / "epochs.parquet", columns=["epoch"])["epoch"].max()
    except (OSError, ValueError, KeyError):
        done = math.nan
    variant = _variant(trial_id)
    return Begun(trial_id, variant, 0 if pd.isna(done) else int(done), planned.get(variant), _worked_on(folder, driver))


def _worked_on(folder: Path, driver: Driver | None) -> bool:
    """Whether a driver has written to a trial: what an earlier one left begun may still wait for its turn."""
    if driver is None:
        return False
    if driver.started is None:
        return True
    try:
        latest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return True
    return latest >= datetime.fromisoformat(driver.started).timestamp()


def _waiting(loaded: results.Results, finished: pd.DataFrame) -> dict[str, int]:
    known = {*loaded.trials["trial_id"], *loaded.unfinished}
    if loaded.experiment["trials"] is not None:
        counted: dict[str, int] = {}
        for trial_id in loaded.experiment["trials"]:
            if trial_id not in known:
                counted[_variant(trial_id)] = counted.get(_variant(trial_id), 0) + 1
        # While it tunes, an ablation knows its later trials by their number alone.
        unnamed = (loaded.experiment["planned"] or 0) - len(loaded.experiment["trials"])
        return counted | ({"": unnamed} if unnamed > 0 and loaded.experiment["kind"] == "ablation" else {})
    # A search goes on until so many have finished; those that failed are no part of them.
    missing = (loaded.experiment["planned"] or 0) - len(finished) - len(loaded.unfinished)
    return {"": missing} if missing > 0 else {}


def _variant(trial_id: str) -> str:
    """The variant that a trial's id begins with."""
    return re.sub(r"-seed\d+-fold\d+(-[0-9a-f]+)?$", "", trial_id)
