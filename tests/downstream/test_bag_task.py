"""Tasks on breasts, exams and women: predictions and metrics of them, and all tasks on small phantoms."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, cohen_kappa_score, f1_score, roc_auc_score

from siamray.config import Config, IntervalsConfig
from siamray.data.store import Store
from siamray.downstream import birads, density, outcome
from siamray.downstream.bag_task import metrics, score
from siamray.downstream.bags import ImageFeatures, make_bags, place_patches
from siamray.downstream.evaluation import check_tasks, evaluate, scores_of
from siamray.downstream.metrics import TASKS
from siamray.errors import UserError
from siamray.pretraining import encoder
from tests.downstream.test_bags import FakeStore, config

QUICK = IntervalsConfig(replicates=200)


def labelled_store(women: int = 36) -> FakeStore:
    """Every third woman of each split: BI-RADS 4 on the left and malignant, or BI-RADS 3 on the right, or nothing."""
    store = FakeStore(women)
    for number in range(women):
        kind = number // 3 % 3
        if kind == 1:
            store.set("birads", 4, woman_id=f"w{number}", laterality="L")
            store.set("outcome", "malignant", woman_id=f"w{number}", laterality="L")
        if kind == 2:
            store.set("birads", 3, woman_id=f"w{number}", laterality="R")
        store.set("density", "ABCD"[number // 3 % 4], woman_id=f"w{number}")
    return store


def telling_features(store: FakeStore, noise: float = 1.0) -> ImageFeatures:
    """Features in which every patch of a breast tells a little of its BI-RADS."""
    placed = place_patches(store, config())
    ranks = store.exams.groupby(["exam_id", "laterality"]).birads.max()
    own = ranks.reindex(pd.MultiIndex.from_frame(placed[["exam_id", "laterality"]])).to_numpy(dtype=float)
    generator = np.random.default_rng(0)
    features = generator.normal(size=(len(placed), 5)) * noise
    features[:, 0] += own == 3
    features[:, 1] += own == 4
    return ImageFeatures(placed, features.astype(np.float32))


def wide(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    names = list(rows.classes.iloc[0])
    return rows.category.map(names.index).to_numpy(), np.stack(rows.probabilities.tolist())


def test_birads_is_told_of_breasts_and_of_exams_by_features_that_tell_it():
    store = labelled_store()
    predictions = score(birads.TASK, telling_features(store), store, config())
    assert set(predictions.score) == {"attention", "mean", "exam_attention", "exam_mean"}
    assert set(predictions.split) == {"validation", "test"}
    test = predictions[predictions.split == "test"].groupby("score")
    assert test.size().to_dict() == {"attention": 26, "mean": 26, "exam_attention": 13, "exam_mean": 13}
    found = metrics(birads.TASK, predictions, QUICK)
    for name, rows in test:
        truth, probabilities = wide(rows)
        answers = probabilities.argmax(axis=1)
        for kind, expected in {
            "macro_auc": roc_auc_score(truth, probabilities, multi_class="ovr", average="macro"),
            "kappa": cohen_kappa_score(truth, answers, weights="quadratic"),
            "macro_f1": f1_score(truth, answers, average="macro"),
        }.items():
            metric = found[f"birads_{name}_{kind}"]
            assert metric["value"] == pytest.approx(expected)
            assert metric["low"] <= metric["value"] <= metric["high"]
        assert found[f"birads_{name}_macro_auc"]["value"] > 0.8
        np.testing.assert_allclose(rows.value, probabilities @ [0, 1, 2])
        assert rows.label.tolist() == truth.tolist()
    assert (found["birads_women"], found["birads_breasts"], found["birads_exams"]) == (12, 26, 13)
    assert (found["birads_breasts_4"], found["birads_exams_4"], found["validation_birads_exams_3"]) == (4, 4, 4)
    assert 0 <= found["birads_exams_undefined_replicates"] < 200


def test_the_outcome_of_a_woman_is_told_from_all_others_and_among_them():
    store = labelled_store()
    store.set("outcome", "benign", woman_id="w6")
    store.set("outcome", "benign", woman_id="w8")
    store.set("outcome", "interval_cancer", woman_id="w5")
    task = outcome.task(config().downstream.outcome)
    predictions = score(task, telling_features(store, noise=0.3), store, config())
    rows = predictions[(predictions.split == "test") & (predictions.score == "mean")]
    assert sorted(rows.sample_id) == sorted({f"w{n}" for n in range(36) if n % 3 == 2})
    assert list(rows.classes.iloc[0]) == ["normal", "benign", "malignant", "interval_cancer"]
    assert rows.label.tolist() == rows.category.isin(["malignant", "interval_cancer"]).astype(int).tolist()
    _, probabilities = wide(rows)
    np.testing.assert_allclose(rows.value, probabilities[:, 2:].sum(axis=1))
    found = metrics(task, predictions, QUICK)
    assert found["outcome_mean_auc"]["value"] == pytest.approx(roc_auc_score(rows.label, rows.value))
    assert found["outcome_mean_ap"]["value"] == pytest.approx(average_precision_score(rows.label, rows.value))
    assert found["outcome_mean_auc"]["value"] > 0.8
    assert {f"outcome_attention_{kind}" for kind in TASKS["outcome"]} <= set(found)
    assert rows.note.str.contains("no training woman of outcome interval_cancer").all()
    assert rows.note.str.contains("no validation woman of outcome benign, interval_cancer").all()


def test_outcomes_that_count_as_positive_are_an_option():
    store = labelled_store()
    store.set("outcome", "benign", woman_id="w8")
    chosen = config()
    chosen.downstream.outcome.positive = ["benign", "malignant"]
    task = outcome.task(chosen.downstream.outcome)
    rows = score(task, telling_features(store), store, chosen)
    assert rows[rows.category == "benign"].label.eq(1).all()


def test_predictions_are_the_same_for_a_seed_and_others_for_another():
    store, images = labelled_store(), telling_features(labelled_store())
    first, again = (score(birads.TASK, images, store, config()) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    other = config()
    other.seed = 1
    changed = score(birads.TASK, images, store, other)
    attention = first.score == "attention"
    assert (changed.value[attention] != first.value[attention]).any()
    pd.testing.assert_frame_equal(changed[first.score == "mean"], first[first.score == "mean"])


def test_a_class_absent_from_training_or_from_the_test_women_is_recorded_and_does_not_end_the_evaluation():
    store = labelled_store()
    for number in range(36):
        if number % 3 == 0:
            store.set("birads", 1, woman_id=f"w{number}")  # training women: BI-RADS 1 only
    predictions = score(birads.TASK, telling_features(store), store, config())
    assert predictions.value.isna().all()
    assert predictions.note.str.startswith("not trained: training has not two classes").all()
    assert np.isnan(metrics(birads.TASK, predictions, QUICK)["birads_attention_kappa"]["value"])
    store = labelled_store()
    for number in range(36):
        if number % 3 == 2:
            store.set("birads", 1, woman_id=f"w{number}")  # test women: BI-RADS 1 only
    predictions = score(birads.TASK, telling_features(store), store, config())
    assert predictions.note.str.contains("no test breast of birads 3, 4|no test exam of birads 3, 4").all()
    found = metrics(birads.TASK, predictions, QUICK)
    assert np.isnan(found["birads_attention_macro_auc"]["value"])
    assert found["birads_breasts_undefined_replicates"] == 200
    assert found["validation_birads_attention_macro_auc"]["value"] > 0.5


def test_density_is_told_of_breasts():
    store = labelled_store()
    bags = make_bags(telling_features(store), store, "density", "breast", config())
    assert bags.classes == ["A", "B", "C", "D"]
    assert density.TASK.units == {"": "breast"}


ALL_TASKS = ["patches", "birads", "outcome", "density"]


def on_phantoms(given: Config, *tasks: str) -> Config:
    from siamray.compose import from_dict, to_dict

    chosen = from_dict(to_dict(given))
    chosen.downstream.tasks = list(tasks)
    chosen.downstream.attention.epochs = 20
    return chosen


def test_all_tasks_give_their_metrics_on_small_phantoms(tiny_store: Store, tiny_config: Config):
    asked = on_phantoms(tiny_config, *ALL_TASKS)
    asked.downstream.label_fractions = [0.5]
    asked.downstream.fine_tuning.epochs = 1
    network = encoder.build(asked.encoder, 0, 32)
    found = evaluate(network, tiny_store, asked)
    for task, score_name in {
        "patches": "linear@50", "birads": "exam_attention", "outcome": "attention", "density": "mean"
    }.items():  # fmt: skip
        for kind in TASKS[task]:
            assert {"value", "low", "high"} == set(found.metrics[f"{task}_{score_name}_{kind}"])
    assert "patches_finetuned@50_auc" in found.metrics
    assert set(found.predictions.task) == set(ALL_TASKS)
    # What a sweep is told before it trains. This encoder was built without the head that pretraining would add.
    asked.pretraining.masses.head_weight = 0
    for task in ALL_TASKS:
        assert sorted(scores_of(task, asked)) == sorted(
            found.predictions.score[found.predictions.task == task].unique()
        )
    assert any(note.startswith("birads attention: epoch") for note in found.notes)
    again = evaluate(encoder.build(asked.encoder, 0, 32), tiny_store, on_phantoms(tiny_config, "outcome"))
    rows = found.predictions[found.predictions.task == "outcome"].reset_index(drop=True)
    np.testing.assert_allclose(again.predictions.value, rows.value.astype(float), rtol=1e-5)


def test_no_task_and_one_that_cannot_be_asked_are_refused(tiny_store: Store, tiny_config: Config):
    with pytest.raises(UserError, match=r"downstream.tasks=\[\]: name a task"):
        check_tasks(tiny_store, on_phantoms(tiny_config))
    store = FakeStore()
    with pytest.raises(UserError, match=r"downstream.tasks=outcome: the data set knows outcome normal only"):
        check_tasks(store, on_phantoms(tiny_config, "patches", "outcome"))  # type: ignore[arg-type]
