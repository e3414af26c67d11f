"""The command ``python -m siamray.pretrain``: one training on the pairs of a data set; leaves an encoder in out=DIR."""

import json
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
from siamray.provenance import git_state, versions

RUN_FILE = "run.json"


def main(words: list[str]) -> None:
    """Prepares where needed, trains, and exports the encoder.

    Args:
        words: the command line.

    Raises:
        UserError: whatever the user can mend.
    """
    config = compose("pretrain", words)
    console = Console(stderr=True)
    store = prepare(config)
    folder = Path(config.out)
    identity = checkpoint.training_identity(to_dict(config), store.fingerprint)
    if _is_done(folder, identity):
        console.print(f"{folder} holds this run already; nothing to do", soft_wrap=True, markup=False)
        return
    with _progress(config.pretraining.epochs, console) as report:
        try:
            if config.cluster.workers:
                _train_on_ray(config, store, folder)
            else:
                trainer.pretrain(config, store, folder, report)
        except DivergedError as error:
            raise UserError(
                f"{folder}: training ended, as {error}; try a smaller pretraining.learning_rate or precision=float32"
            ) from None
    write_json(
        folder / RUN_FILE,
        {
            "identity": identity,
            "config": to_dict(config),
            "data_fingerprint": store.fingerprint,
            "git": git_state(),
            "versions": versions(),
        },
    )
    trainer.finish(folder)
    print(f"encoder: {folder / 'encoder'}")
    print(f"test it: python -m siamray.evaluate encoder={folder / 'encoder'} {' '.join(_data_words(words))}".rstrip())


def _train_on_ray(config: Config, store: Store, folder: Path) -> None:
    with connected(config.cluster) as resources:
        trainer.check_placement(config.cluster, resources)
        trainer.pretrain(config, store, folder)


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
