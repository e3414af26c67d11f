"""An encoder and a store go in; predictions, metrics and example maps of every task come out."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from siamray.config import Config
from siamray.data.pairs import PairCutter, patch_side
from siamray.data.store import Store
from siamray.downstream import bag_task, birads, controls, density, detection, outcome, patches
from siamray.downstream.bags import encode_images
from siamray.downstream.candidates import ABNORMALITY, BRIGHTNESS, DISTANCE, LINEAR
from siamray.downstream.examples import write_examples
from siamray.downstream.feature_map import write_feature_map
from siamray.downstream.features import Cut
from siamray.downstream.metrics import measure, parse_metric, rows_of
from siamray.downstream.shown_pairs import write_pairs
from siamray.errors import UserError
from siamray.pretraining.encoder import PairEncoder


@dataclass(frozen=True)
class Evaluation:
    """What an encoder achieved."""

    predictions: pd.DataFrame
    """One row per task, score, draw and sample of validation and test women."""
    metrics: dict[str, Any]
    """Name -> {"value", "low", "high"}."""
    notes: list[str] = field(default_factory=list)
    """What was chosen, left out or replaced by a fallback, per task and score."""


def check_tasks(store: Store, config: Config) -> None:
    """Makes sure that the data set can answer the tasks: before hours of training, not after them.

    Raises:
        UserError: no task is named, or the data set does not know what a task asks for.
    """
    if not config.downstream.tasks:
        raise UserError("downstream.tasks=[]: name a task, such as downstream.tasks=[patches]")
    for task in _bag_tasks(config):
        bag_task.check(task, store, config)


def scores_of(task: str, config: Config) -> list[str]:
    """Names the scores that `evaluate` gives of a task, before anything is trained.

    Args:
        task: patches, detection, or one that is answered of bags of patches.
        config: what is trained, and its downstream section.

    Returns:
        Names as in metrics; that of the head on drawn masses (abnormality) where the encoder has one, or may have.
    """
    method = config.pretraining
    trained = method.epochs > 0 or config.encoder.folder is None
    head = not trained or (method.method == "siamese" and method.masses.head_weight > 0)
    heads = [ABNORMALITY] if head else []
    if task == detection.NAME:
        return [DISTANCE, BRIGHTNESS, LINEAR, *heads]
    if task == patches.TASK:
        asked = config.downstream
        learnt = ["linear", *(f"knn{k}" for k in asked.probe.neighbours)]
        learnt += ["finetuned"] if asked.fine_tuning.epochs > 0 else []
        suffixes = ["", *(f"@{100 * share:g}" for share in asked.label_fractions if share < 1)]
        return [*(name + suffix for name in learnt for suffix in suffixes), DISTANCE, *heads, *controls.UNLEARNT]
    (known,) = (own for own in _known_bag_tasks(config) if own.label == task)
    return [word + name for word in known.units for name in bag_task.POOLINGS]


def evaluate(encoder: PairEncoder, store: Store, config: Config, examples: Path | None = None) -> Evaluation:
    """Tests an encoder on every task of downstream.tasks.

    Args:
        encoder: its features stay frozen, but for the score finetuned, which trains a copy.
        store: the prepared exams.
        config: tasks, probes and intervals are in its downstream section.
        examples: folder for the distance maps of a few test exams, the best and worst pairs and a map of the features;
            None writes none.

    Raises:
        UserError: if a split lacks lesions or normal tissue, or `check_tasks` does.
    """
    check_tasks(store, config)
    cutter = PairCutter(store, config.pairs)
    cut = _patches_of(cutter, config)
    intervals = config.downstream.intervals
    predictions: list[pd.DataFrame] = []
    metrics: dict[str, Any] = {}
    if patches.TASK in config.downstream.tasks:
        samples = patches.sample_patches(store, config)
        predictions.append(patches.score(encoder, samples, cut, config))
        metrics |= patches.metrics(predictions[-1], intervals)
        if examples is not None and config.downstream.examples > 0:
            write_pairs(samples, predictions[-1], cut, examples)
            write_feature_map(encoder, samples, cut, store, examples / "features.parquet")
    of_bags = _bag_tasks(config)
    if of_bags:
        images = encode_images(encoder, store, cut, config)
        for task in of_bags:
            predictions.append(bag_task.score(task, images, store, config))
            metrics |= bag_task.metrics(task, predictions[-1], intervals)
    if examples is not None and config.downstream.examples > 0:
        write_examples(encoder, store, config, cutter, examples)
    if detection.NAME in config.downstream.tasks:
        found = detection.detect(encoder, store, cutter, config)
        predictions.append(found.predictions.assign(draw=0))
        metrics |= detection.metrics(found, config.downstream.detection, intervals)
    together = pd.concat(predictions, ignore_index=True)
    return Evaluation(together, metrics, _notes(together))


def validation_value(encoder: PairEncoder, store: Store, config: Config, metric: str) -> float:
    """Measures one metric on validation women, at the least cost, and the same number as `evaluate`.

    Of patches only what the metric needs is computed, and test women's patches are not even cut.

    Args:
        encoder: its features stay frozen.
        store: the prepared exams.
        config: as for `evaluate`.
        metric: such as validation_patches_linear_auc; of any task but detection.

    Returns:
        The statistic; NaN where it has none.

    Raises:
        UserError: the metric is unknown or of test women, or as `evaluate`.
        ValueError: the encoder gives features that are not finite.
    """
    name = parse_metric(metric)
    if name.split != "validation":
        raise UserError(f"metric {metric}: of test women; say validation_{metric}")
    cut = _patches_of(PairCutter(store, config.pairs), config)
    if name.task == patches.TASK:
        samples = patches.sample_patches(store, config)
        seen = samples[samples.split != "test"].reset_index(drop=True)
        predictions = patches.score(encoder, seen, cut, _least(config, name.score))
    else:
        (task,) = (task for task in _known_bag_tasks(config) if task.label == name.task)
        predictions = bag_task.score(task, encode_images(encoder, store, cut, config), store, config)
    rows = rows_of(predictions, name)
    if rows.empty:
        raise UserError(f"metric {metric}: this encoder has no score '{name.score}'; name another metric")
    codes, women = pd.factorize(rows.woman_id, sort=True)
    return measure(rows, name.kind, codes, np.empty((0, len(women)), dtype=np.int64)).value


def _least(config: Config, score: str) -> Config:
    """Switches off what a score of patches does without."""
    asked = config.downstream
    return replace(
        config,
        downstream=replace(
            asked,
            patches=replace(asked.patches, mirrors=asked.patches.mirrors and score in patches.MIRRORED_SCORES),
            label_fractions=asked.label_fractions if "@" in score else [1.0],
            fine_tuning=asked.fine_tuning if score.startswith("finetuned") else replace(asked.fine_tuning, epochs=0),
        ),
    )


def _patches_of(cutter: PairCutter, config: Config) -> Cut:
    """Cuts patches of the configured side."""
    side = patch_side(config)

    def cut(samples: pd.DataFrame, context: int = 0) -> NDArray[np.float32]:
        return cutter(samples, side, context)

    return cut


def _known_bag_tasks(config: Config) -> list[bag_task.BagTask]:
    return [birads.TASK, outcome.task(config.downstream.outcome), density.TASK]


def _bag_tasks(config: Config) -> list[bag_task.BagTask]:
    return [task for task in _known_bag_tasks(config) if task.label in config.downstream.tasks]


def _notes(predictions: pd.DataFrame) -> list[str]:
    told = predictions[predictions.note != ""].drop_duplicates(["task", "score", "note"])
    return [f"{row.task} {row.score}: {row.note}" for row in told.itertuples()]


def check_patches(config: Config, tested: PairEncoder) -> None:
    """Refuses patches of another scale than the encoder was trained on, where it says so.

    Raises:
        UserError: naming the option to set.
    """
    facts = tested.metadata
    wanted = {
        "preparation.spacing_mm": (facts.get("spacing_mm"), config.preparation.spacing_mm),
        "pairs.normalization": (facts.get("normalization"), config.pairs.normalization),
        "pairs.background": (facts.get("background"), config.pairs.background),
    }
    for name, (trained, asked) in wanted.items():
        if trained is not None and trained != asked:
            raise UserError(f"{name}={asked}: the encoder was trained with {trained}; say {name}={trained}")
