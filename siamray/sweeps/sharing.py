"""Trials to run go in; those that another experiment has finished are taken from it, so that none is trained twice."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from siamray.files import writing_to
from siamray.pretraining import trainer
from siamray.pretraining.checkpoint import CHECKPOINT_FILE
from siamray.provenance import code_fingerprint, versions
from siamray.sweeps import results
from siamray.sweeps.ablation import Trial, code_of, recorded_identity, trial_identity
from siamray.sweeps.reading import read_json


def shareable(trials: Sequence[Trial], fingerprints: Mapping[str, str], experiment: Path) -> dict[str, Path]:
    """Finds finished trials that are these under another name: in the experiments beside theirs, or in their own.

    Folders of trials end with the code of what decides their numbers, so that only those of the same code are opened.
    They are the same if configuration and data are, as far as they decide the numbers, and the code of siamray and the
    versions of its packages.

    Args:
        trials: those to run.
        fingerprints: trial_id -> fingerprint of its store.
        experiment: ``<results>/<experiment>``.

    Returns:
        trial_id -> folder of the finished trial, for those that have one.
    """
    wanted = {code_of(trial.trial_id): trial for trial in trials}
    found: dict[str, Path] = {}
    for folder in _trial_folders(experiment.parent):
        trial = wanted.get(code_of(folder.name))
        if trial is None or trial.trial_id in found or folder.name.startswith("."):
            continue
        if folder != experiment / results.TRIALS_FOLDER / trial.trial_id and _is_same(
            folder, trial, fingerprints[trial.trial_id]
        ):
            found[trial.trial_id] = folder
    return found


def share(trial: Trial, finished: Path, experiment: Path) -> str:
    """Puts a finished trial into an experiment, whole: its files are linked where the file system can, else copied.

    Files of results are only ever replaced, never written into, so that links are as good as copies.

    Args:
        trial: whose place it takes.
        finished: folder of the finished trial.
        experiment: ``<results>/<experiment>``.

    Returns:
        ``<experiment>/<trial_id>`` that the numbers come from, which trial.json holds as ``shared_from``.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = experiment / results.TRIALS_FOLDER / trial.trial_id
    record = read_json(finished / results.TRIAL_FILE)
    source = record.get("shared_from") or f"{finished.parent.parent.name}/{finished.name}"
    record = {key: value for key, value in record.items() if key != "schema"}
    record |= {"trial_id": trial.trial_id, "variant": trial.variant, "shared_from": source}
    with writing_to(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".shared-", dir=folder.parent))
        try:
            copy = aside / folder.name
            ignored = shutil.ignore_patterns(".*", results.TRIAL_FILE, CHECKPOINT_FILE)
            shutil.copytree(finished, copy, copy_function=_link_or_copy, ignore=ignored)
            trainer.finish(copy)
            results.write_trial(copy, record)
            # An interrupted or failed attempt may be in the way.
            if folder.exists():
                shutil.rmtree(folder)
            copy.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return str(source)


def _link_or_copy(source: str, target: str) -> None:
    """Links a file; copies it where the file system has no links, or the folders lie on two."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _trial_folders(root: Path) -> Iterator[Path]:
    """The folders of all trials under a folder of results, in the order of their names."""
    for experiment in sorted(path for path in root.glob(f"*/{results.TRIALS_FOLDER}") if path.is_dir()):
        with os.scandir(experiment) as entries:
            names = sorted(entry.name for entry in entries)
        yield from (experiment / name for name in names)


def _is_same(folder: Path, trial: Trial, data_fingerprint: str) -> bool:
    """Whether a folder holds a finished trial that would come out as this one."""
    try:
        results.read_trial(folder)
        # As it is written: read_trial fills in what a file of an older siamray lacks.
        record = read_json(folder / results.TRIAL_FILE)
    except (FileNotFoundError, results.Unreadable):
        return False
    if record["state"] != "finished" or "downstream" not in (record.get("config") or {}):
        return False
    if record.get("code") != code_fingerprint() or record.get("versions") != versions():
        return False
    recorded = recorded_identity(record["config"], str(record.get("data_fingerprint")))
    return recorded == trial_identity(trial.config, data_fingerprint)
