"""Features of all images and what a task asks of them go in; predictions and metrics of that task come out."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from siamray.config import Config, IntervalsConfig
from siamray.data.store import Store
from siamray.downstream import intervals
from siamray.downstream.bags import PLURALS, Bags, ImageFeatures, Label, Unit, check_label, make_bags
from siamray.downstream.metrics import SPLITS, Metric, metrics_of_scores, prefix
from siamray.downstream.multiclass import bootstrap_classes
from siamray.downstream.pooling import LabelledBags, Pooled, SplitBags, attention_pooling, mean_pooling
from siamray.seeds import named_seed

SPLIT_NAMES = ("training", "validation", "test")
POOLINGS = ("attention", "mean")
"""By which the patches of a bag answer together; the names of a task's scores end with them."""
PREDICTION_COLUMNS = [
    *("task", "score", "split", "woman_id", "sample_id", "entry_id", "side", "label", "value"),
    *("category", "density", "view", "draw", "note", "classes", "probabilities"),
]


@dataclass(frozen=True)
class BagTask:
    """A label that is told from all patches of a breast, an exam or a woman.

    Attributes:
        label: the column of the exam table, and the task's name.
        units: what is told apart: the first word of its scores' names ("" for none) -> the unit.
        positive: the classes whose probabilities add up to the value of a prediction, and whose label is 1; none where
            classes are ranks, so that the label is the class's rank and the value the expected one.
    """

    label: Label
    units: dict[str, Unit]
    positive: tuple[str, ...] = ()


def check(task: BagTask, store: Store, config: Config) -> None:
    """Makes sure, before anything is trained, that the data set can answer the task.

    Raises:
        UserError: see `bags.check_label`.
    """
    for unit in task.units.values():
        check_label(store, task.label, unit, config)


def score(task: BagTask, images: ImageFeatures, store: Store, config: Config) -> pd.DataFrame:
    """Scores the validation and test bags of a task.

    Scores: ``attention``, gated attention pooling, and ``mean``, a logistic regression on the mean features, both
    learnt from training women and chosen on validation women; of a further unit with its word before it, such as
    ``exam_attention``.

    Args:
        task: what is asked.
        images: features of all images.
        store: the prepared exams.
        config: its downstream section.

    Returns:
        One row per score and bag: PREDICTION_COLUMNS. ``classes`` are the task's classes in their order,
        ``probabilities`` those of each; ``note`` says what was chosen, what was left out, and which classes a split
        lacks.
    """
    tables = []
    for word, unit in task.units.items():
        bags = make_bags(images, store, task.label, unit, config)
        training, validation, test = (_part(bags, split) for split in SPLIT_NAMES)
        given = SplitBags(training, validation, test, len(bags.classes))
        class_weights = config.downstream.bags.class_weights
        seed = named_seed(config.seed, "pooling", task.label, unit)
        attention, mean = POOLINGS
        pooled = {
            attention: attention_pooling(given, class_weights, config.downstream.attention, seed),
            mean: mean_pooling(given, class_weights, config.downstream.probe),
        }
        notes = [*bags.notes, *_absent(bags, unit, task.label)]
        for name, found in pooled.items():
            tables.append(_predictions(task, f"{word}{name}", bags, found, notes))
    return pd.concat(tables, ignore_index=True)


def metrics(task: BagTask, predictions: pd.DataFrame, config: IntervalsConfig) -> dict[str, Metric | float]:
    """Computes the task's statistics with intervals by a bootstrap over women.

    Args:
        task: what was asked.
        predictions: from `score`.
        config: replicates, confidence, seed.

    Returns:
        ``<task>_<score>_<statistic>`` on test women (see siamray.downstream.metrics), each {value, low, high}; the
        numbers ``<task>_women``, ``<task>_<units>``, ``<task>_<units>_<class>`` and ``<task>_<units>_undefined_
        replicates`` (those that lack a class, left out of the intervals of macro averages); the same on validation
        women with ``validation_`` before it.
    """
    found = metrics_of_scores(predictions, task.label, config)
    for split in SPLITS:
        rows = predictions[(predictions.task == task.label) & (predictions.split == split)]
        if rows.empty:
            continue
        begin = f"{prefix(split)}{task.label}"
        codes, women = pd.factorize(rows.woman_id, sort=True)
        weights = intervals.women_weights(len(women), config.replicates, config.seed)
        found[f"{begin}_women"] = float(len(women))
        for word, unit in task.units.items():
            chosen = rows.score.eq(f"{word}mean").to_numpy()
            own, plural = rows[chosen], PLURALS[unit]
            names = [str(name) for name in own.classes.iloc[0]]
            numbers = own.category.map({name: place for place, name in enumerate(names)}).to_numpy()
            # Whether a replicate has all classes does not depend on the answers.
            any_answer = np.full((len(own), len(names)), 1 / len(names))
            defined = bootstrap_classes("macro_f1", numbers, any_answer, codes[chosen], weights)
            found[f"{begin}_{plural}"] = float(len(own))
            found |= {f"{begin}_{plural}_{name}": float((own.category == name).sum()) for name in names}
            found[f"{begin}_{plural}_undefined_replicates"] = float(np.isnan(defined).sum())
    return found


def _part(bags: Bags, split: str) -> LabelledBags:
    numbers = _numbers(bags)
    chosen = np.flatnonzero(bags.table.split == split)
    return LabelledBags([bags.features[bags.members[bag]] for bag in chosen], numbers[chosen])


def _numbers(bags: Bags) -> NDArray[np.int64]:
    places = {name: place for place, name in enumerate(bags.classes)}
    return np.asarray(bags.table.category.map(places), dtype=np.int64)


def _absent(bags: Bags, unit: Unit, label: Label) -> list[str]:
    """Says which classes no bag of a split has."""
    notes = []
    for split in SPLIT_NAMES:
        there = set(bags.table.category[bags.table.split == split])
        absent = [name for name in bags.classes if name not in there]
        if absent:
            notes.append(f"no {split} {unit} of {label} {', '.join(absent)}")
    return notes


def _predictions(task: BagTask, name: str, bags: Bags, pooled: Pooled, notes: list[str]) -> pd.DataFrame:
    tables = []
    for split, probabilities in (("validation", pooled.validation), ("test", pooled.test)):
        chosen = (bags.table.split == split).to_numpy()
        if task.positive:
            is_positive = np.array([one in task.positive for one in bags.classes])
            label, value = (
                is_positive[_numbers(bags)[chosen]].astype(np.int64),
                probabilities[:, is_positive].sum(axis=1),
            )
        else:
            label, value = _numbers(bags)[chosen], probabilities @ np.arange(len(bags.classes))
        tables.append(
            bags.table[chosen].assign(
                task=task.label,
                score=name,
                label=label,
                value=value,
                entry_id=None,
                view=None,
                draw=0,
                note="; ".join([pooled.note, *notes]),
                classes=pd.Series([bags.classes] * len(label), index=bags.table.index[chosen], dtype="object"),
                probabilities=pd.Series(list(probabilities), index=bags.table.index[chosen], dtype="object"),
            )[PREDICTION_COLUMNS]
        )
    return pd.concat([table for table in tables if len(table)], ignore_index=True)
