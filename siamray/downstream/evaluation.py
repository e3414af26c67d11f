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
from siamray.downstream import patches
from siamray.downstream.examples import write_examples
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

    def cut(samples: pd.DataFrame, context: int = 0) -> NDArray[np.float32]:
        return cutter(samples, side, context)

    samples = patches.sample_patches(store, config)
    predictions = patches.score(encoder, samples, cut, config)
    if examples is not None and config.downstream.examples > 0:
        write_examples(encoder, store, config, cutter, examples)
    return Evaluation(predictions, patches.metrics(predictions, config.downstream.intervals))
