"""The state of a training run goes in, a file that resumes it exactly comes out, and back."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from siamray.errors import UserError
from siamray.files import write_atomically

CHECKPOINT_FILE = "checkpoint.pt"
# Options that change nothing in the numbers of a training run, and so may differ when it is resumed.
_WITHOUT_EFFECT = (
    "store", "results", "out", "from_trial", "trial", "page", "inspect", "dry_run", "check", "progress", "seeds",
    "experiments", "ablation", "search", "downstream", "data.root", "preparation.cpus", "preparation.image_seconds",
    "pairs.cache_mb", "cluster.address", "cluster.cpus", "cluster.gpus", "cluster.failures", "cluster.trials",
    "cluster.start_minutes", "cluster.disk_gb", "cluster.chunk_cache_gb", "tracking", "tracking_uri", "metrics",
)  # fmt: skip
# Options that came later, with the values that do what was done before: runs of before are known by the same identity.
_CAME_LATER = {"pretraining.accumulate": 1, "pretraining.rate_scaling": "none", "pretraining.rate_batch_pairs": 64}


def training_identity(config: Mapping[str, Any], data_fingerprint: str) -> dict[str, Any]:
    """Picks what decides the numbers of a training run.

    Args:
        config: the configuration as plain dictionaries.
        data_fingerprint: of the store.

    Returns:
        Dotted option name -> value, and the data fingerprint.
    """
    flat = {
        name: value
        for name, value in _flatten(config).items()
        if not any(name == left or name.startswith(f"{left}.") for left in _WITHOUT_EFFECT)
        and not (name in _CAME_LATER and value == _CAME_LATER[name])
    }
    return {**flat, "data_fingerprint": data_fingerprint}


def identity_hash(identity: Mapping[str, Any]) -> str:
    """Hashes an identity to twelve hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:12]


def check_same_run(stored: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Makes sure that a stored run is the one that is wanted.

    Raises:
        UserError: naming the first options that differ.
    """
    differing = [name for name in sorted({*stored, *wanted}) if stored.get(name) != wanted.get(name)]
    if differing:
        shown = ", ".join(f"{name} was {stored.get(name)}, is {wanted.get(name)}" for name in differing[:3])
        raise UserError(f"{folder} holds another run ({shown}); name another out=DIR or remove that folder")


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint, atomically: a run killed while writing keeps the one before.

    Args:
        folder: of the run.
        state: tensors, numbers, words, and lists and dictionaries of them.

    Raises:
        UserError: if the folder cannot be written.
    """

    def write(temporary: Path) -> None:
        # Given a path, torch hides why it cannot write.
        with temporary.open("wb") as file:
            torch.save(state, file)

    write_atomically(folder / CHECKPOINT_FILE, write)


def load(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reads the checkpoint of a run, if there is one.

    Args:
        folder: of the run.
        identity: of the run that wants to go on.

    Raises:
        UserError: if the checkpoint belongs to another run or cannot be read.
    """
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); remove it to start anew"
        ) from None
    check_same_run(state["identity"], identity, folder)
    return state


def remove(folder: Path) -> None:
    """Removes the checkpoint of a finished run."""
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
