"""The task lesion detection on a small prepared store: its rows, its metrics, and what it leaves alone."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from siamray.config import Config, EncoderConfig, IntervalsConfig
from siamray.data.normal import not_normal
from siamray.data.pairs import PairCutter
from siamray.data.store import Store
from siamray.downstream import detection
from siamray.downstream.candidates import Candidate
from siamray.downstream.detection import CANDIDATE, IMAGE, LESION, SIDE, Detection, PixelCounts, detect, metrics
from siamray.downstream.evaluation import evaluate, scores_of
from siamray.downstream.intervals import interval, women_weights
from siamray.downstream.metrics import measure, parse_metric, rows_of
from siamray.errors import UserError
from siamray.pretraining import encoder
from siamray.pretraining.encoder import PairEncoder
from tests.downstream.test_froc import slow_sensitivity


def network() -> PairEncoder:
    return encoder.build(EncoderConfig(projector_hidden=16, projector_features=8), 0, 32).eval()


def with_head() -> PairEncoder:
    made = network()
    made.add_head()
    torch.nn.init.normal_(made.head.weight, generator=torch.Generator().manual_seed(0))
    return made


@pytest.fixture(scope="module")
def detecting(tiny_config: Config) -> Config:
    rules = dataclasses.replace(tiny_config.downstream.detection, step_pixels=8)
    tasks = ["patches", "detection"]
    return dataclasses.replace(
        tiny_config, downstream=dataclasses.replace(tiny_config.downstream, detection=rules, tasks=tasks, examples=0)
    )


@pytest.fixture(scope="module")
def found(tiny_store: Store, detecting: Config) -> Detection:
    return detect(network(), tiny_store, PairCutter(tiny_store, detecting.pairs), detecting)


def test_every_score_has_rows_of_all_lesions_and_of_the_images_that_count(
    found: Detection, tiny_store: Store, detecting: Config
) -> None:
    rows = found.predictions
    assert set(rows.split) == {"validation", "test"}
    assert set(rows[rows.task != SIDE].score) == {"distance", "linear", "brightness"}
    split = tiny_store.split(detecting.data)
    entries = tiny_store.entries[tiny_store.entries.woman_id.map(split).isin(["validation", "test"])]
    located = tiny_store.findings.dropna(subset=["row_min"])
    located = located[located.entry_id.isin(entries.entry_id)]
    doubtful = not_normal(tiny_store.entries, tiny_store.exams, tiny_store.findings, detecting.data.normal)
    for _, of_score in rows[rows.task != SIDE].groupby("score"):
        assert len(of_score[of_score.task == LESION]) == len(located)
        assert set(of_score.entry_id[of_score.task == IMAGE]) == set(entries.entry_id) - set(doubtful)
        assert not of_score.duplicated(["task", "sample_id"]).any()
        candidates = of_score[of_score.task == CANDIDATE]
        assert candidates.groupby("entry_id").size().max() <= detecting.downstream.detection.candidates
        hit = candidates[candidates.label == 1].groupby(["entry_id", "side"]).value.max()
        best = of_score[of_score.task == LESION].groupby(["entry_id", "side"]).value.max().dropna()
        pd.testing.assert_series_equal(hit, best)


def test_metrics_follow_from_the_rows_alone(found: Detection, detecting: Config) -> None:
    answers = metrics(found, detecting.downstream.detection, IntervalsConfig(replicates=100))
    rows = found.predictions[(found.predictions.split == "test") & (found.predictions.score == "linear")]
    lesions = rows.value[rows.task == LESION].fillna(-np.inf)
    images = rows[rows.task == IMAGE]
    counted = set(images.entry_id + images.side)
    false = rows[(rows.task == CANDIDATE) & (rows.label == 0) & (rows.entry_id + rows.side).isin(counted)].value
    once = np.ones(len(rows))
    for rate in (0.25, 0.5, 1, 2):
        answer = answers[f"detection_linear_froc_{rate:g}"]
        assert isinstance(answer, dict)
        expected = slow_sensitivity(list(zip(lesions, once)), list(zip(false, once)), len(images), rate)  # noqa: B905
        assert answer["value"] == pytest.approx(expected)
        assert answer["low"] <= answer["value"] <= answer["high"]
    for name in ("detection_distance_pixel_auc", "validation_detection_linear_froc_mean", "detection_side_accuracy"):
        answer = answers[name]
        assert isinstance(answer, dict)
        assert 0 <= answer["value"] <= 1
    assert answers["detection_lesions"] == len(lesions)
    assert answers["detection_images"] == len(images)


def test_a_sweep_measures_detection_by_the_same_numbers(found: Detection, detecting: Config) -> None:
    answers = metrics(found, detecting.downstream.detection, IntervalsConfig(replicates=100))
    for kind in ("froc_mean", "froc_0.25", "froc_0.5", "froc_1", "froc_2"):
        name = parse_metric(f"detection_linear_{kind}")
        rows = rows_of(found.predictions.assign(draw=0), name)
        codes, women = pd.factorize(rows.woman_id, sort=True)
        measured = measure(rows, name.kind, codes, women_weights(len(women), 100, 0))
        answer = answers[str(name)]
        assert isinstance(answer, dict)
        assert measured.value == pytest.approx(answer["value"])
        assert interval(measured.replicates, 0.95) == pytest.approx((answer["low"], answer["high"]))


def test_false_positives_may_be_counted_on_normal_images_alone(detecting: Config) -> None:
    rules = dataclasses.replace(detecting.downstream.detection, counted_on="normal")
    lesions = pd.DataFrame(
        [("left", "mass", 0, 0, 9, 9, "one")], columns=["side", "category", *detection.BOX, "sample_id"]
    )
    found = [Candidate("left", 100, 100, 32, 2.0), Candidate("right", 100, 100, 32, 1.0)]
    rows = pd.DataFrame(detection._entry_rows(found, lesions, {"entry_id": "e"}, 1.0, True, rules))
    assert rows[rows.task == IMAGE].side.tolist() == ["right"]
    assert rows[rows.task == CANDIDATE].label.tolist() == [0, 0]
    doubtful = pd.DataFrame(detection._entry_rows(found, lesions, {"entry_id": "e"}, 1.0, False, rules))
    assert doubtful.task.tolist() == [LESION]


def test_the_side_is_scored_where_one_side_alone_has_a_lesion(found: Detection, tiny_store: Store) -> None:
    rows = found.predictions[found.predictions.task == SIDE].set_index("sample_id")
    one_sided = tiny_store.findings.dropna(subset=["row_min"]).groupby("entry_id").side.nunique().eq(1)
    assert set(rows.entry_id) <= set(one_sided[one_sided].index)
    assert (rows.label == (rows.side == "left")).all()
    assert rows.value.notna().all()


def test_a_score_that_marks_the_lesions_pixels_has_a_high_area() -> None:
    counts = {("test", "linear"): PixelCounts(["a", "b"], np.array([[0, 9], [0, 9]]), np.array([[90, 0], [90, 0]]))}
    rows = [
        {"task": task, "score": score, "split": "test", "woman_id": woman, "entry_id": woman, "side": "left",
         "sample_id": woman, "label": 1, "value": 1.0}
        for woman in "ab" for task in (LESION, IMAGE) for score in ("distance", "linear")
    ]  # fmt: skip
    predictions = pd.DataFrame(rows, columns=detection.COLUMNS)
    answers = metrics(Detection(predictions, counts), Config().downstream.detection, IntervalsConfig(replicates=100))
    assert answers["detection_linear_pixel_auc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert answers["detection_linear_froc_0.25"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_the_other_tasks_stay_as_they_are(
    found: Detection, tiny_store: Store, tiny_config: Config, detecting: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "detect", lambda *_: found)
    without = dataclasses.replace(tiny_config.downstream, examples=0)
    plain = evaluate(network(), tiny_store, dataclasses.replace(tiny_config, downstream=without))
    both = evaluate(network(), tiny_store, detecting)
    assert not any("detection" in name for name in plain.metrics)
    assert {name: value for name, value in both.metrics.items() if "detection" not in name} == plain.metrics
    patches = both.predictions[both.predictions.task == "patches"]
    pd.testing.assert_frame_equal(patches[plain.predictions.columns], plain.predictions)


def test_a_head_is_a_score_of_its_own_and_may_name_the_side(tiny_store: Store, detecting: Config) -> None:
    rules = dataclasses.replace(detecting.downstream.detection, side="abnormality")
    config = dataclasses.replace(detecting, downstream=dataclasses.replace(detecting.downstream, detection=rules))
    cutter = PairCutter(tiny_store, config.pairs)
    made = detect(with_head(), tiny_store, cutter, config)
    scores = {"distance", "linear", "brightness", "abnormality"}
    assert set(made.predictions[made.predictions.task != SIDE].score) == scores
    masses = dataclasses.replace(config.pretraining.masses, head_weight=4)
    trained = dataclasses.replace(config, pretraining=dataclasses.replace(config.pretraining, masses=masses))
    assert set(scores_of("detection", trained)) == scores
    answers = metrics(made, rules, config.downstream.intervals)
    assert all(0 <= answers[f"detection_{score}_pixel_auc"]["value"] <= 1 for score in scores)
    with pytest.raises(UserError, match="this encoder has no head"):
        detect(network(), tiny_store, cutter, config)
