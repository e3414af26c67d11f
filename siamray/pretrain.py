"""The command ``python -m siamray.pretrain``: one training on the pairs of a data set; leaves an encoder in out=DIR.

With from=results/EXPERIMENT/trials/TRIAL it trains and evaluates a recorded trial again and compares the numbers.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from siamray.cluster import connected
from siamray.compose import compose, to_dict
from siamray.config import Config
from siamray.data.preparation import prepare
from siamray.data.store import Store
from siamray.errors import UserError, run_command
from siamray.files import write_json
from siamray.pretraining import checkpoint, trainer
from siamray.pretraining.loop import DivergedError, Report
from siamray.provenance import environment, git_state, versions
from siamray.sweeps.ablation import trial_identity
from siamray.sweeps.rerun import Recorded, recorded_trial, run_again, store_as_recorded, with_words
from siamray.sweeps.verification import changes, counts, first_difference, outcome

RUN_FILE = "run.json"


def main(words: list[str]) -> None:
    """Prepares where needed, trains, and exports the encoder; with from=TRIAL, runs a recorded trial again.

    Args:
        words: the command line.

    Raises:
        UserError: whatever the user can mend.
    """
    config = compose("pretrain", words)
    console = Console(stderr=True)
    if config.from_trial:
        _repeat(recorded_trial(config.from_trial), words, config, console)
        return
    store = prepare(config)
    folder = Path(config.out)
    identity = checkpoint.training_identity(to_dict(config), store.fingerprint)
    if _is_done(folder, identity):
        console.print(f"{folder} holds this run already; nothing to do", soft_wrap=True, markup=False)
        return
    with _progress(config.pretraining.epochs, console) as report:
        try:
            if config.cluster.workers:
                _train_on_ray(config, store, folder, report)
            else:
                trainer.pretrain(config, store, folder, report)
        except DivergedError as error:
            raise UserError(
                f"{folder}: training ended, as {error}; try a smaller pretraining.learning_rate or precision=float32"
            ) from None
    _write_record(folder, identity, config, store)
    trainer.finish(folder)
    print(f"encoder: {folder / 'encoder'}")
    print(f"test it: python -m siamray.evaluate encoder={folder / 'encoder'} {' '.join(_data_words(words))}".rstrip())


def _repeat(recorded: Recorded, words: list[str], said: Config, console: Console) -> None:
    """Trains and evaluates a recorded trial again, and says whether the numbers are the recorded ones."""
    config = with_words(recorded, words, said)
    store = store_as_recorded(recorded, config)
    for change in changes(recorded, config):
        console.print(f"mind: {change}", soft_wrap=True, markup=False, highlight=False)
    folder = Path(config.out)
    identity = trial_identity(config, store.fingerprint)
    if not _is_done(folder, identity):
        with _progress(config.pretraining.epochs, console) as report:
            found = run_again(recorded, config, store, folder, report)
        _write_record(folder, identity, config, store, found)
        trainer.finish(folder)
    stored = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    was, now = outcome(recorded.folder, recorded.record), outcome(folder, stored)
    difference = first_difference(was, now)
    if difference is None:
        print(f"the same numbers as {recorded.folder.name}: {counts(was)}")
    else:
        print(f"other numbers than {recorded.folder.name}, first: {difference}")
    print(f"encoder, predictions and metrics: {folder}")


def _write_record(
    folder: Path, identity: dict[str, Any], config: Config, store: Store, found: dict[str, Any] | None = None
) -> None:
    """Writes run.json; what a run found beside the encoder goes into it too."""
    write_json(
        folder / RUN_FILE,
        {
            "identity": identity,
            "config": to_dict(config),
            "data_fingerprint": store.fingerprint,
            "git": git_state(),
            "versions": versions(),
            "environment": environment(),
            **(found or {}),
        },
    )


def _train_on_ray(config: Config, store: Store, folder: Path, report: Report) -> None:
    with connected(config.cluster) as resources:
        trainer.make_room(config.cluster, resources, lambda line: print(line, file=sys.stderr))
        trainer.pretrain(config, store, folder, report)


def _is_done(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether the run is finished; refuses a folder of another run."""
    path = folder / RUN_FILE
    if not path.exists():
        return False
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["identity"]
    except (ValueError, KeyError):
        raise UserError(f"{path}: not readable; remove {folder} or name another out=DIR") from None
    checkpoint.check_same_run(stored, json.loads(json.dumps(identity)), folder)
    return True


def _data_words(words: list[str]) -> list[str]:
    return [word for word in words if word.split("=")[0].split(".")[0] in ("data", "preparation", "pairs", "store")]


@contextmanager
def _progress(epochs: int, console: Console) -> Iterator[Report]:
    """Draws a progress bar over epochs with the last epoch's loss; yields what is to be called after each."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("epochs", total=max(1, epochs))

        def report(record: dict[str, Any]) -> None:
            text = f"epochs (loss {record['loss']:.3f}, mean label {record['label_mean']:.2f})"
            bar.update(task, completed=record["epoch"], description=text)

        yield report


if __name__ == "__main__":
    run_command(main)
