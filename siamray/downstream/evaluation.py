"""An encoder and a store go in; predictions, metrics and example maps of every task come out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from siamray.config import Config
from siamray.data.pairs import PairCutter, patch_side
from siamray.data.store import Store
from siamray.downstream import detection, patches
from siamray.downstream.examples import write_examples
from siamray.errors import UserError
from siamray.pretraining.encoder import PairEncoder


@dataclass(frozen=True)
class Evaluation:
    """What an encoder achieved."""

    predictions: pd.DataFrame
    """One row per task, score and sample of validation and test women."""
    metrics: dict[str, Any]
    """Name -> {"value", "low", "high"}."""


def evaluate(encoder: PairEncoder, store: Store, config: Config, examples: Path | None = None) -> Evaluation:
    """Tests an encoder on every task.

    Args:
        encoder: its features stay frozen.
        store: the prepared exams.
        config: tasks, probes and intervals are in its downstream section.
        examples: folder for the distance maps of a few test exams; None writes none.

    Raises:
        UserError: if a split lacks lesions or normal tissue.
    """
    cutter = PairCutter(store, config.pairs)
    side = patch_side(config)

    def cut(samples: pd.DataFrame) -> NDArray[np.float32]:
        return cutter(samples, side)

    samples = patches.sample_patches(store, config)
    predictions = patches.score(encoder, samples, cut, config)
    if examples is not None and config.downstream.examples > 0:
        write_examples(encoder, store, config, cutter, examples)
    metrics = patches.metrics(predictions, config.downstream.intervals)
    if config.downstream.detection.enabled:
        found = detection.detect(encoder, store, cutter, config)
        metrics |= detection.metrics(found, config.downstream.detection, config.downstream.intervals)
        predictions = pd.concat([predictions, found.predictions], ignore_index=True)
    return Evaluation(predictions, metrics)


def check_patches(config: Config, tested: PairEncoder) -> None:
    """Refuses patches of another scale than the encoder was trained on, where it says so.

    Raises:
        UserError: naming the option to set.
    """
    facts = tested.metadata
    wanted = {
        "preparation.spacing_mm": (facts.get("spacing_mm"), config.preparation.spacing_mm),
        "pairs.normalization": (facts.get("normalization"), config.pairs.normalization),
    }
    for name, (trained, asked) in wanted.items():
        if trained is not None and trained != asked:
            raise UserError(f"{name}={asked}: the encoder was trained with {trained}; say {name}={trained}")
