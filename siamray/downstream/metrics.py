"""Predictions of any task go in; its statistics, by the name of a metric, and their bootstrap over women come out."""

import re
from typing import NamedTuple, cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from siamray.config import IntervalsConfig
from siamray.downstream import froc, intervals
from siamray.downstream.multiclass import MulticlassStatistic, bootstrap_classes
from siamray.errors import UserError, nearest

Floats = NDArray[np.float64]
Kind = intervals.Statistic | MulticlassStatistic | froc.FrocStatistic
Metric = dict[str, float]

BINARY: tuple[Kind, ...] = get_args(intervals.Statistic)
MULTICLASS: tuple[Kind, ...] = get_args(MulticlassStatistic)
FROC: tuple[Kind, ...] = get_args(froc.FrocStatistic)
# Which statistics a task's predictions have, and a score that its metrics may be of, as an example.
TASKS: dict[str, tuple[Kind, ...]] = {
    "patches": BINARY,
    "birads": MULTICLASS,
    "outcome": (*BINARY, "macro_auc", "macro_f1"),
    "density": MULTICLASS,
    "detection": FROC,
}
EXAMPLE_SCORES = {
    "patches": "linear, linear@10, knn20, finetuned, distance, abnormality, brightness or blob",
    "birads": "attention, mean, exam_attention or exam_mean",
    "outcome": "attention or mean",
    "density": "attention or mean",
    "detection": "distance, linear, abnormality or brightness",
}
SPLITS = ("test", "validation")
# Where a task's predictions are not of the task's own name.
_TABLES = {"detection": (froc.CANDIDATE, froc.LESION, froc.IMAGE)}
# A kappa below 0 is agreement worse than chance; all else lies between 0 and 1.
LEAST: dict[Kind, float] = {"kappa": -1.0}


class MetricName(NamedTuple):
    """The parts of a metric's name, such as validation_patches_linear_auc."""

    split: str
    task: str
    score: str
    kind: Kind

    def __str__(self) -> str:
        """The name, as parse_metric takes it apart."""
        return f"{'validation_' * (self.split == 'validation')}{self.task}_{self.score}_{self.kind}"


class Measured(NamedTuple):
    """A statistic and its replicates [R] over women."""

    value: float
    replicates: Floats


def parse_metric(name: str) -> MetricName:
    """Takes a metric's name apart.

    Args:
        name: such as ``patches_linear_auc``, ``validation_patches_knn20_ap``, ``patches_linear@10_auc`` (10 % of the
            labelled women) or ``birads_attention_macro_auc``.

    Raises:
        UserError: the name is none of a metric of any task.
    """
    split = "validation" if name.startswith("validation_") else "test"
    task, _, rest = name.removeprefix("validation_").partition("_")
    kinds = TASKS.get(task, ())
    # The longest first: macro_auc ends with auc.
    for kind in sorted(kinds, key=len, reverse=True):
        parts = re.fullmatch(rf"([\w@.]+)_{re.escape(kind)}", rest)
        if parts is not None:
            return MetricName(split, task, parts[1], kind)
    if not kinds:
        raise UserError(
            f"metric '{name}' is unknown: it must begin with a task{nearest(task, list(TASKS))}; "
            "on validation women with validation_ before it"
        )
    raise UserError(
        f"metric '{name}' is unknown; a metric is {task}_SCORE_KIND with SCORE {EXAMPLE_SCORES[task]} and "
        f"KIND {' or '.join(kinds)}, on validation women with validation_ before it"
    )


def rows_of(predictions: pd.DataFrame, name: MetricName) -> pd.DataFrame:
    """Takes the rows that a metric is computed of, in the order of draw and sample.

    Args:
        predictions: of a trial, all tasks.
        name: of the metric.
    """
    of_task = predictions.task.isin(_TABLES.get(name.task, (name.task,)))
    rows = predictions[of_task & (predictions.split == name.split) & (predictions.score == name.score)]
    return rows.sort_values([*rows.columns.intersection(["draw"]), "sample_id"], ignore_index=True)


def measure(rows: pd.DataFrame, kind: Kind, women: NDArray[np.intp], weights: NDArray[np.int64]) -> Measured:
    """Computes a statistic of one score and its replicates; of several draws of the training women, their means.

    Binary statistics are of ``label`` and ``value``, those of several classes of ``category`` and ``probabilities`` in
    the order of ``classes``, FROC statistics of candidates, lesions and images together.

    Args:
        rows: from `rows_of`.
        kind: the statistic.
        women: [rows] code of the woman: her column in ``weights``.
        weights: [replicates, women] from `intervals.women_weights`, common to all that is compared.
    """
    draws = rows["draw"].fillna(0).to_numpy() if "draw" in rows else np.zeros(len(rows))
    # The sample itself is one replicate more, in which every woman is once.
    all_weights = np.vstack([np.ones((1, weights.shape[1]), dtype=np.int64), weights])
    found = [_replicates(rows[draws == draw], kind, women[draws == draw], all_weights) for draw in np.unique(draws)]
    mean = np.mean(found, axis=0) if found else np.full(len(all_weights), np.nan)
    return Measured(float(mean[0]), np.asarray(mean[1:]))


def metrics_of_scores(predictions: pd.DataFrame, task: str, config: IntervalsConfig) -> dict[str, Metric | float]:
    """Computes all statistics of all scores of a task with intervals by a bootstrap over women.

    Args:
        predictions: from the task.
        task: its name.
        config: replicates, confidence, seed.

    Returns:
        name -> {value, low, high}, see parse_metric.
    """
    found: dict[str, Metric | float] = {}
    for split in SPLITS:
        of_split = predictions[(predictions.task == task) & (predictions.split == split)]
        # Scores of the same women share one draw; those of a task's units may be of different ones.
        codes, women = pd.factorize(of_split.woman_id, sort=True)
        if not len(women):
            continue
        weights = intervals.women_weights(len(women), config.replicates, config.seed)
        for score in of_split.score.unique():
            chosen = of_split.score.eq(score).to_numpy()
            for kind in TASKS[task]:
                measured = measure(of_split[chosen], kind, codes[chosen], weights)
                low, high = intervals.interval(measured.replicates, config.confidence)
                name = str(MetricName(split, task, str(score), kind))
                found[name] = {"value": measured.value, "low": low, "high": high}
    return found


def prefix(split: str) -> str:
    """What stands before the names of a split's numbers: nothing for test women."""
    return "validation_" if split == "validation" else ""


def _replicates(rows: pd.DataFrame, kind: Kind, women: NDArray[np.intp], weights: NDArray[np.int64]) -> Floats:
    if kind in BINARY:
        binary = cast(intervals.Statistic, kind)
        return intervals.bootstrap(binary, rows.label.to_numpy(), rows.value.to_numpy(), women, weights)
    if kind in FROC:
        return froc.froc_statistic(cast(froc.FrocStatistic, kind), rows, women, weights)
    order = {str(name): place for place, name in enumerate(rows.classes.iloc[0])}
    truth = rows.category.astype("str").map(order).to_numpy()
    probabilities = np.stack([np.asarray(row, dtype=np.float64) for row in rows.probabilities])
    return bootstrap_classes(cast(MulticlassStatistic, kind), truth, probabilities, women, weights)
