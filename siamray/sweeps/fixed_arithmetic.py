"""A configuration with precision=auto goes in, one with the arithmetic that the whole experiment uses comes out."""

import dataclasses
import json
from pathlib import Path

from siamray.config import Config
from siamray.data.pairs import patch_side
from siamray.files import write_json
from siamray.pretraining import encoder
from siamray.pretraining.arithmetic import choose
from siamray.pretraining.threads import threads
from siamray.sweeps.reading import Unreadable, read_json

ARITHMETIC_FILE = "arithmetic.json"
# What this process measured: a dry run asks for every variant and writes nothing down.
_measured: dict[str, str] = {}


def fix_arithmetic(config: Config, experiment: Path, keep: bool = True) -> Config:
    """Replaces precision=auto by what is fastest here, measured once per encoder for all experiments of a folder.

    Trials that measured for themselves could differ in it, and a resumed sweep could differ from its first part;
    experiments that did could not share a trial.

    Args:
        config: of one trial.
        experiment: ``<results>/<experiment>``; the choice is kept in its arithmetic.json. A new experiment takes that
            of one beside it.
        keep: whether to write a new choice down.
    """
    if config.pretraining.precision != "auto":
        return config
    path = experiment / ARITHMETIC_FILE
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    key = f"{config.encoder.backbone} {patch_side(config)} px"
    if key not in known:
        known[key] = _chosen_beside(config, experiment, key) or _fastest(config)
        if keep:
            write_json(path, known)
    return dataclasses.replace(config, pretraining=dataclasses.replace(config.pretraining, precision=known[key]))


def _chosen_beside(config: Config, experiment: Path, key: str) -> str | None:
    """What the first other experiment of the folder chose; on a GPU there is no choice."""
    if config.cluster.gpus:
        return None
    for path in sorted(experiment.parent.glob(f"*/{ARITHMETIC_FILE}")):
        try:
            chosen = read_json(path).get(key)
        except (FileNotFoundError, Unreadable):
            continue
        if chosen is not None:
            return str(chosen)
    return None


def _fastest(config: Config) -> str:
    """The arithmetic that trains this encoder fastest on the processors of one trial."""
    if config.cluster.gpus:
        return "bfloat16_channels_last"
    key = repr((config.encoder, patch_side(config), config.pretraining.batch_pairs, config.cluster.cpus))
    if key not in _measured:
        _measured[key] = _measure(config)
    return _measured[key]


def _measure(config: Config) -> str:
    with threads(config.cluster.cpus):
        model = encoder.build(config.encoder, 0, patch_side(config))
        return choose("auto", model, patch_side(config), 2 * config.pretraining.batch_pairs).name
