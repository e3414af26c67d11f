"""Names of metrics, and statistics of predictions over draws, against scikit-learn and plain loops."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score

from siamray.config import IntervalsConfig
from siamray.downstream.intervals import women_weights
from siamray.downstream.metrics import TASKS, MetricName, measure, metrics_of_scores, parse_metric
from siamray.downstream.multiclass import bootstrap_classes
from siamray.errors import UserError

WOMEN = 14


def drawn(seed: int, n: int = 90, number: int = 4):
    """Classes, probabilities and women of a made-up test set that holds every class often."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, number, n)
    logits = generator.normal(size=(n, number)) + 1.2 * np.eye(number)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return truth, probabilities, generator.integers(0, WOMEN, n)


def reference(kind: str, truth: np.ndarray, probabilities: np.ndarray, labels: range) -> float:
    answers = probabilities.argmax(axis=1)
    if kind == "macro_auc":
        return roc_auc_score(truth, probabilities, multi_class="ovr", average="macro", labels=list(labels))
    if kind == "kappa":
        return cohen_kappa_score(truth, answers, weights="quadratic", labels=list(labels))
    return f1_score(truth, answers, average="macro", labels=list(labels))


@pytest.mark.parametrize("kind", ["macro_auc", "kappa", "macro_f1"])
def test_statistics_of_classes_equal_scikit_learn_in_every_replicate(kind):
    for seed in range(5):
        truth, probabilities, women = drawn(seed)
        weights = women_weights(WOMEN, 40, seed)
        values = bootstrap_classes(kind, truth, probabilities, women, weights)
        for counts, value in zip(weights, values, strict=True):
            rows = np.repeat(np.arange(len(truth)), counts[women])
            if len(set(truth[rows])) == 4:
                assert value == pytest.approx(reference(kind, truth[rows], probabilities[rows], range(4)), abs=1e-12)
        whole = bootstrap_classes(kind, truth, probabilities, women, np.ones((1, WOMEN)))
        assert whole[0] == pytest.approx(reference(kind, truth, probabilities, range(4)), abs=1e-12)


def test_of_two_classes_the_macro_auc_is_the_auc():
    truth, probabilities, women = drawn(0, number=2)
    value = bootstrap_classes("macro_auc", truth, probabilities, women, np.ones((1, WOMEN)))[0]
    assert value == pytest.approx(roc_auc_score(truth, probabilities[:, 1]))


def test_a_class_that_no_sample_holds_is_left_out_of_the_averages_and_its_answers_are_misses():
    truth, probabilities, women = drawn(1)
    kept = truth != 2
    given = truth[kept], probabilities[kept], women[kept]
    ones = np.ones((1, WOMEN))
    areas = [roc_auc_score(given[0] == one, given[1][:, one]) for one in (0, 1, 3)]
    assert bootstrap_classes("macro_auc", *given, ones)[0] == pytest.approx(np.mean(areas))
    answers = given[1].argmax(axis=1)
    assert (answers == 2).any()
    assert bootstrap_classes("macro_f1", *given, ones)[0] == pytest.approx(
        f1_score(given[0], answers, average="macro", labels=[0, 1, 3])
    )
    assert bootstrap_classes("kappa", *given, ones)[0] == pytest.approx(
        cohen_kappa_score(given[0], answers, weights="quadratic", labels=range(4))
    )


@pytest.mark.parametrize("kind", ["macro_auc", "macro_f1"])
def test_replicates_without_a_class_have_no_value_and_only_those(kind):
    truth, probabilities, women = np.array([0, 0, 1, 2]), drawn(2, n=4)[1], np.array([0, 1, 2, 2])
    weights = women_weights(3, 300, seed=1)
    values = bootstrap_classes(kind, truth, probabilities, women, weights)
    absent = (weights[:, :2].sum(axis=1) == 0) | (weights[:, 2] == 0)
    np.testing.assert_array_equal(np.isnan(values), absent)


def test_one_class_or_an_unknown_probability_has_no_value_and_bad_input_is_refused():
    truth, probabilities, women = drawn(3)
    ones = np.ones((1, WOMEN))
    for kind in ("macro_auc", "kappa", "macro_f1"):
        assert np.isnan(bootstrap_classes(kind, np.zeros(90), probabilities, women, ones)).all()
        assert np.isnan(bootstrap_classes(kind, truth, np.full((90, 4), np.nan), women, ones)).all()
    with pytest.raises(ValueError, match="unknown statistic 'f1'"):
        bootstrap_classes("f1", truth, probabilities, women, ones)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="classes must be 0 to 2"):
        bootstrap_classes("kappa", truth, probabilities[:, :3], women, ones)
    with pytest.raises(ValueError, match="90 classes"):
        bootstrap_classes("kappa", truth, probabilities[:5], women, ones)


def binary_rows(seed: int, draw: int, score: str = "linear@10") -> pd.DataFrame:
    generator = np.random.default_rng([seed, draw])
    label = np.tile([0, 1, 0], 20)
    rows = pd.DataFrame({"label": label, "value": generator.normal(label), "draw": draw})
    rows["sample_id"] = [f"s{number}" for number in range(60)]
    rows["woman_id"] = [f"w{number // 6}" for number in range(60)]
    return rows.assign(task="patches", split="test", score=score)


def test_a_metric_of_several_draws_is_their_mean_over_the_same_replicates():
    rows = pd.concat([binary_rows(0, draw) for draw in range(3)], ignore_index=True)
    codes, women = pd.factorize(rows.woman_id, sort=True)
    weights = women_weights(len(women), 50, 0)
    measured = measure(rows, "auc", codes, weights)
    alone = [measure(rows[rows.draw == d], "auc", codes[rows.draw == d], weights) for d in range(3)]
    expected = np.mean([roc_auc_score(part.label, part.value) for _, part in rows.groupby("draw")])
    assert measured.value == pytest.approx(expected)
    np.testing.assert_allclose(measured.replicates, np.mean([one.replicates for one in alone], axis=0))
    found = metrics_of_scores(rows, "patches", IntervalsConfig(replicates=200))["patches_linear@10_auc"]
    assert found["value"] == pytest.approx(expected)
    assert found["low"] < expected < found["high"]


def test_probabilities_are_read_in_the_order_of_the_classes():
    truth, probabilities, women = drawn(4, number=3)
    names = ["1", "3", "0"]
    rows = pd.DataFrame(
        {
            "category": [names[one] for one in truth],
            "classes": [names] * 90,
            "probabilities": [list(row) for row in probabilities],
        }
    )
    measured = measure(rows, "kappa", women, women_weights(WOMEN, 20, 0))
    assert measured.value == pytest.approx(reference("kappa", truth, probabilities, range(3)))


def test_metric_names_are_taken_apart_and_put_together_again():
    for name, parts in {
        "patches_linear_auc": ("test", "patches", "linear", "auc"),
        "validation_patches_linear_auc": ("validation", "patches", "linear", "auc"),
        "validation_patches_knn200_ap": ("validation", "patches", "knn200", "ap"),
        "patches_linear@10_auc": ("test", "patches", "linear@10", "auc"),
        "patches_finetuned@0.5_ap": ("test", "patches", "finetuned@0.5", "ap"),
        "birads_attention_macro_auc": ("test", "birads", "attention", "macro_auc"),
        "birads_exam_attention_kappa": ("test", "birads", "exam_attention", "kappa"),
        "outcome_attention_auc": ("test", "outcome", "attention", "auc"),
        "outcome_attention_macro_auc": ("test", "outcome", "attention", "macro_auc"),
        "validation_density_mean_macro_f1": ("validation", "density", "mean", "macro_f1"),
        "detection_distance_froc_mean": ("test", "detection", "distance", "froc_mean"),
        "validation_detection_linear_froc_0.25": ("validation", "detection", "linear", "froc_0.25"),
    }.items():
        assert parse_metric(name) == MetricName(*parts)
        assert str(parse_metric(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "patches_linear",
        "linear_auc",
        "patches_linear_f1",
        "test_patches_linear_auc",
        "birads_attention_auc",
        "patches_auc",
        "detection_linear_froc_0.3",
    ],
)
def test_a_name_that_is_no_metric_is_refused_with_the_way_to_write_one(name):
    with pytest.raises(UserError, match=f"metric '{name}' is unknown") as raised:
        parse_metric(name)
    assert any(task in str(raised.value) for task in TASKS)
    assert "\n" not in str(raised.value)
