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

ARITHMETIC_FILE = "arithmetic.json"


def fix_arithmetic(config: Config, experiment: Path, keep: bool = True) -> Config:
    """Replaces precision=auto by what is fastest here, measured once per experiment and encoder.

    Trials that measured for themselves could differ in it, and a resumed sweep could differ from its first part.

    Args:
        config: of one trial.
        experiment: ``<results>/<experiment>``; the choice is kept in its arithmetic.json.
        keep: whether to write a new choice down.
    """
    if config.pretraining.precision != "auto":
        return config
    path = experiment / ARITHMETIC_FILE
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    key = f"{config.encoder.backbone} {patch_side(config)} px"
    if key not in known:
        known[key] = _fastest(config)
        if keep:
            write_json(path, known)
    return dataclasses.replace(config, pretraining=dataclasses.replace(config.pretraining, precision=known[key]))


def _fastest(config: Config) -> str:
    """The arithmetic that trains this encoder fastest on the processors of one trial."""
    if config.cluster.gpus:
        return "bfloat16_channels_last"
    with threads(config.cluster.cpus):
        model = encoder.build(config.encoder, 0, patch_side(config))
        return choose("auto", model, patch_side(config), 2 * config.pretraining.batch_pairs).name
