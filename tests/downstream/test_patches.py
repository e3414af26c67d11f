"""Samples of the task abnormal-vs-normal patch, their scores and their metrics, on a small store made by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from siamray.config import Config, DataConfig, IntervalsConfig
from siamray.downstream import patches
from siamray.downstream.controls import brightness_difference
from siamray.downstream.label_fractions import draw_women
from siamray.downstream.patches import metrics, overlap_share, place_samples
from siamray.errors import UserError

HEIGHT, WIDTH, SIDE = 160, 120, 32
FINDING_COLUMNS = ["entry_id", "woman_id", "image_id", "side", "category", "row_min", "col_min", "row_max", "col_max"]


class FakeStore:
    """What the task uses of a store: tables and masks; tissue is everything left of column 100."""

    def __init__(self, women: int = 12, findings: list[tuple] | None = None) -> None:
        names = [f"w{number:02d}" for number in range(women)]
        self.entries = pd.DataFrame({"entry_id": [f"{name}e_MLO" for name in names], "woman_id": names, "view": "MLO"})
        self.entries["exam_id"] = [f"{name}e" for name in names]
        sides = [(f"{name}e", side) for name in names for side in "LR"]
        self.exams = pd.DataFrame(sides, columns=["exam_id", "laterality"])
        self.exams["birads"] = pd.array([pd.NA] * len(sides), dtype="Int64")
        self.exams["outcome"] = pd.Series([None] * len(sides), dtype="str")
        self.entries["density"] = ["ABCD"[number % 4] for number in range(women)]
        if findings is None:
            findings = [(number, ("left", "right")[number // 2 % 2], 60, 40, 80, 64) for number in range(0, women, 2)]
        rows = [(f"w{n:02d}e_MLO", f"w{n:02d}", f"image{n}", side, "mass", *box) for n, side, *box in findings]
        self.findings = pd.DataFrame(rows, columns=FINDING_COLUMNS)

    def mask(self, entry_id: str, side: str) -> np.ndarray:
        tissue = np.zeros((HEIGHT, WIDTH), dtype=bool)
        tissue[:, : 100 if side == "left" else 96] = True
        return tissue

    def split(self, config: DataConfig) -> pd.Series:
        names = ["training", "validation", "test"]
        women = self.entries.woman_id
        return pd.Series([names[number // 2 % 3] for number in range(len(women))], index=women)


def small_config(**options) -> Config:
    config = Config()
    config.pairs.patch_pixels = SIDE
    for name, value in options.items():
        setattr(config.downstream.patches, name, value)
    return config


def intersects(sample, box) -> bool:
    rows = min(sample.row + SIDE, box.row_max) - max(sample.row, box.row_min)
    cols = min(sample.col + SIDE, box.col_max) - max(sample.col, box.col_min)
    return rows > 0 and cols > 0


def test_lesion_patches_lie_in_the_image_near_their_lesion_and_cover_enough_of_it():
    store = FakeStore()
    samples = patches.sample_patches(store, small_config())
    lesions = samples[samples.label == 1]
    assert lesions.groupby("entry_id").size().tolist() == [4] * 6
    assert list(samples.columns) == patches.SAMPLE_COLUMNS
    for sample in lesions.itertuples():
        box = store.findings.set_index("entry_id").loc[sample.entry_id]
        assert sample.side == box.side
        assert sample.category == "mass"
        assert abs(sample.row + SIDE / 2 - 70) <= SIDE / 4
        assert abs(sample.col + SIDE / 2 - 52) <= SIDE / 4
        covered = (min(sample.row + SIDE, 80) - max(sample.row, 60)) * (
            min(sample.col + SIDE, 64) - max(sample.col, 40)
        )
        assert covered / (20 * 24) >= 0.5


def test_normal_patches_touch_no_lesion_of_either_side_and_lie_in_tissue_common_to_both():
    store = FakeStore()
    samples = patches.sample_patches(store, small_config(normal_per_image=40))
    normal = samples[samples.label == 0]
    assert normal.groupby(["entry_id", "side"]).size().eq(40).all()
    assert normal.entry_id.nunique() == 12
    boxes = {box.entry_id: box for box in store.findings.itertuples()}
    for sample in normal.itertuples():
        assert 0 <= sample.row <= HEIGHT - SIDE
        assert 0 <= sample.col <= WIDTH - SIDE
        assert not (sample.entry_id in boxes and intersects(sample, boxes[sample.entry_id]))
        assert store.mask("", "right")[sample.row : sample.row + SIDE, sample.col : sample.col + SIDE].mean() >= 0.8


def test_a_normal_patch_may_touch_the_border_of_a_box_but_not_its_inside():
    # Only the rows above and below this box are free: the box spans the whole width.
    store = FakeStore(findings=[(0, "left", SIDE, 0, HEIGHT - SIDE, WIDTH)])
    samples = place_samples(store, small_config(normal_per_image=10**6)).samples
    own = samples[(samples.entry_id == "w00e_MLO") & (samples.label == 0)]
    assert set(own.row) == {0, HEIGHT - SIDE}


def test_unknown_places_and_unmarked_cancers_give_no_normal_patches_and_are_listed():
    store = FakeStore(findings=[(1, "right", *[np.nan] * 4), (2, "left", 60, 40, 80, 64)])
    store.exams.loc[2 * 2, "outcome"] = "malignant"  # the marked breast
    store.exams.loc[2 * 3 + 1, "outcome"] = "interval_cancer"  # not marked
    store.exams.loc[2 * 4, "birads"] = 4
    store.exams.loc[2 * 5, "birads"] = 2
    store.exams.loc[2 * 6, "birads"] = 0
    samples, left_out = place_samples(store, small_config())
    without = {f"w{number:02d}e_MLO" for number in (1, 3, 4, 6)}
    assert set(store.entries.entry_id) - set(samples.entry_id[samples.label == 0]) == without
    assert set(left_out.entry_id) == without
    reasons = left_out.drop_duplicates(["entry_id", "category"]).set_index(["entry_id", "category"]).reason
    assert reasons["w01e_MLO", "mass"] == "place unknown"
    assert reasons["w01e_MLO", "normal"] == "right breast: it has a finding of unknown place"
    assert reasons["w03e_MLO", "normal"] == "right breast: nothing is marked in it, but outcome interval_cancer"
    assert reasons["w04e_MLO", "normal"] == "left breast: nothing is marked in it, but BI-RADS 4"


def test_what_counts_as_normal_is_an_option():
    store = FakeStore(findings=[(2, "left", 60, 40, 80, 64)])
    store.exams.loc[2 * 3, "birads"] = 3
    config = small_config()
    config.data.normal.birads = [1, 2, 3]
    config.data.normal.beside_findings = False
    left_out = place_samples(store, config).left_out
    assert left_out.drop_duplicates("entry_id")[["entry_id", "reason"]].to_numpy().tolist() == [
        ["w02e_MLO", "left breast: it has a finding, and data.normal.beside_findings=false"]
    ]


def test_a_lesion_marked_in_one_view_only_makes_the_other_view_not_normal():
    store = FakeStore(findings=[(2, "left", 60, 40, 80, 64)])
    other = store.entries[store.entries.entry_id == "w02e_MLO"].assign(entry_id="w02e_CC", view="CC")
    store.entries = pd.concat([store.entries, other], ignore_index=True)
    left_out = place_samples(store, small_config()).left_out
    assert left_out.reason.unique().tolist() == ["left breast: it has a finding in another view only"]
    assert set(left_out.entry_id) == {"w02e_CC"}


def test_air_does_not_tell_lesions_from_normal_tissue():
    # A lesion at the edge of the breast: shifted patches have the tissue that normal ones have, or there is no patch.
    store = FakeStore(findings=[(0, "left", 60, 80, 80, 96), (1, "left", 60, 100, 80, 118)])
    samples, left_out = place_samples(store, small_config())
    lesions = samples[samples.label == 1]
    assert set(lesions.entry_id) == {"w00e_MLO"}
    for sample in lesions.itertuples():
        assert store.mask("", "right")[:, sample.col : sample.col + SIDE].mean() >= 0.8
    assert left_out.entry_id.tolist() == ["w01e_MLO"]
    assert "too little tissue" in left_out.reason.iloc[0]


def test_lesions_beyond_the_image_or_larger_than_a_patch_are_handled():
    large, beyond = (0, "left", 10, 5, 150, 90), (1, "left", HEIGHT + 5, 10, HEIGHT + 30, 40)
    partly = (2, "left", HEIGHT - 20, 10, HEIGHT + 30, 40)
    samples, left_out = place_samples(FakeStore(findings=[large, beyond, partly]), small_config())
    assert samples[samples.label == 1].groupby("woman_id").size().to_dict() == {"w00": 4, "w02": 4}
    unplaced = left_out[left_out.category == "mass"]
    assert unplaced.set_index("entry_id").reason.to_dict() == {"w01e_MLO": "outside the image"}


def test_samples_do_not_depend_on_the_seed_of_the_run_nor_on_other_women():
    config = small_config()
    samples = patches.sample_patches(FakeStore(), config)
    config.seed = 5
    pd.testing.assert_frame_equal(patches.sample_patches(FakeStore(), config), samples)
    more = patches.sample_patches(FakeStore(women=18), config)
    pd.testing.assert_frame_equal(more[more.woman_id <= "w11"].reset_index(drop=True), samples)
    assert samples.sample_id.is_unique
    config.data.split_seed = 1
    assert not patches.sample_patches(FakeStore(), config).equals(samples)


def test_a_split_without_a_class_ends_in_one_line_that_names_split_women_and_remedy():
    with pytest.raises(UserError, match=r"the 4 test women give no lesion patch; take more women, another data.fold"):
        patches.sample_patches(
            FakeStore(findings=[(0, "left", 60, 40, 80, 64), (2, "left", 60, 40, 80, 64)]), small_config()
        )
    config = small_config()
    config.pairs.patch_pixels = 200
    with pytest.raises(UserError, match="training women give no lesion patch"):
        patches.sample_patches(FakeStore(), config)


@pytest.mark.parametrize("box", [(3, 4, 10, 9), (0, 0, 60, 50), (20, 20, 21, 21), (-5, 3, 20, 14)])
def test_overlap_share_equals_a_count_of_pixels(box):
    places = np.random.default_rng(0).integers(0, 30, (50, 2))
    shares = overlap_share(places, 16, np.array(box, dtype=float))
    in_box = {(row, col) for row in range(box[0], box[2]) for col in range(box[1], box[3])}
    for (row, col), share in zip(places, shares, strict=True):
        patch = {(row + i, col + j) for i in range(16) for j in range(16)}
        assert share == pytest.approx(max(len(patch & in_box) / len(in_box), len(patch & in_box) / 256))


def test_brightness_difference_is_symmetric_and_equals_smoothing_each_side():
    pairs = np.random.default_rng(0).normal(size=(5, 2, 32, 32)).astype(np.float32)
    found = brightness_difference(pairs)
    for pair, value in zip(pairs.astype(float), found, strict=True):
        left, right = (gaussian_filter(side, 4, mode="nearest")[8:24, 8:24].mean() for side in pair)
        assert value == pytest.approx(abs(left - right), abs=1e-9)
    np.testing.assert_allclose(brightness_difference(pairs[:, ::-1]), found)
    np.testing.assert_allclose(brightness_difference(np.stack([pairs[:, 0], pairs[:, 0] + 2], axis=1)), 2, rtol=1e-5)


class MeanEncoder(nn.Module):
    """Features and embedding are mean and deviation of the patch."""

    def __init__(self, embedding: str = "raw") -> None:
        super().__init__()
        self.metadata = {"embedding": embedding}

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.stack([x.mean(dim=(1, 2, 3)), x.std(dim=(1, 2, 3))], dim=1)
        return features, 2 * features


def bright_where_abnormal(samples: pd.DataFrame, context: int = 0) -> np.ndarray:
    """Pairs whose side with the lesion is brighter: the normal side of the other samples varies by its name only."""
    pairs = np.zeros((len(samples), 2, SIDE + 2 * context, SIDE + 2 * context), dtype=np.float32)
    for pair, sample in zip(pairs, samples.itertuples(), strict=True):
        generator = np.random.default_rng(list(sample.sample_id.encode()))
        pair += generator.normal(size=pair.shape) + generator.normal(size=(2, 1, 1))
        pair[("left", "right").index(sample.side)] += 3 * sample.label
    return pairs


def test_scores_are_those_of_the_samples_own_side_and_of_its_pair(monkeypatch):
    samples = patches.sample_patches(FakeStore(), small_config())
    config = small_config()
    predictions = patches.score(MeanEncoder(), samples, bright_where_abnormal, config)
    assert set(predictions.score) == {"linear", "knn20", "knn200", "distance", "brightness", "blob"}
    assert set(predictions.split) == {"validation", "test"}
    scored = samples[samples.split != "training"]
    assert predictions.groupby("score").sample_id.apply(set).map(lambda names: names == set(scored.sample_id)).all()
    pairs = bright_where_abnormal(scored)
    moments = np.stack([pairs.mean(axis=(2, 3)), pairs.std(axis=(2, 3), ddof=1)], axis=-1)
    expected = dict(zip(scored.sample_id, 2 * np.linalg.norm(moments[:, 0] - moments[:, 1], axis=1), strict=True))
    distance = predictions[predictions.score == "distance"]
    np.testing.assert_allclose(distance.value, distance.sample_id.map(expected), rtol=1e-4)
    test = predictions[(predictions.score == "linear") & (predictions.split == "test")]
    assert roc_auc_score(test.label, test.value) > 0.85  # it would be .5 with the other side's features
    assert predictions.note[predictions.score == "knn200"].iloc[0] == f"k={(samples.split == 'training').sum()}"
    monkeypatch.setattr(patches, "SAMPLES_AT_ONCE", 7)
    again = patches.score(MeanEncoder(), samples, bright_where_abnormal, config)
    np.testing.assert_allclose(again.value, predictions.value, rtol=1e-3, atol=1e-4)


def test_metrics_are_those_of_scikit_learn_with_intervals_around_them():
    samples = patches.sample_patches(FakeStore(women=24), small_config())
    predictions = patches.score(MeanEncoder(), samples, bright_where_abnormal, small_config())
    found = metrics(predictions, IntervalsConfig(replicates=200))
    for prefix, split in (("", "test"), ("validation_", "validation")):
        for score in ("linear", "knn20", "knn200", "distance", "brightness", "blob"):
            rows = predictions[(predictions.split == split) & (predictions.score == score)]
            for kind, reference in (("auc", roc_auc_score), ("ap", average_precision_score)):
                metric = found[f"{prefix}patches_{score}_{kind}"]
                assert metric["value"] == pytest.approx(reference(rows.label, rows.value))
                assert metric["low"] <= metric["value"] <= metric["high"]
        rows = samples[samples.split == split]
        assert found[f"{prefix}patches_prevalence"] == pytest.approx(rows.label.mean())
        assert found[f"{prefix}patches_women"] == rows.woman_id.nunique()
        assert found[f"{prefix}patches_lesions"] + found[f"{prefix}patches_normals"] == len(rows)
        assert 0 <= found[f"{prefix}patches_undefined_replicates"] < 200


def test_scores_of_label_fractions_are_those_of_a_probe_on_the_drawn_womens_samples_alone():
    config = small_config()
    config.downstream.label_fractions = [0.25]
    samples = patches.sample_patches(FakeStore(women=36), config)
    predictions = patches.score(MeanEncoder(), samples, bright_where_abnormal, config)
    assert set(predictions.score) == {"linear", "knn20", "knn200", "distance", "brightness", "blob"} | {
        f"{name}@25" for name in ("linear", "knn20", "knn200")
    }
    assert predictions.groupby("score").draw.nunique().to_dict()["linear@25"] == 3
    training = samples[samples.split == "training"]
    for drawn in draw_women(training, config):
        if drawn.suffix:
            alone = samples[(samples.split != "training") | samples.woman_id.isin(drawn.women)]
            expected = patches.score(MeanEncoder(), alone, bright_where_abnormal, small_config())
            for name in ("linear", "knn20"):
                found = predictions[(predictions.score == f"{name}@25") & (predictions.draw == drawn.draw)]
                np.testing.assert_allclose(found.value, expected.value[expected.score == name], rtol=1e-6)
                assert found.note.str.endswith(f"draw {drawn.draw}: 3 of 12 women").all()
    found = metrics(predictions, IntervalsConfig(replicates=100))
    rows = predictions[(predictions.score == "linear@25") & (predictions.split == "test")]
    means = [roc_auc_score(part.label, part.value) for _, part in rows.groupby("draw")]
    assert found["patches_linear@25_auc"]["value"] == pytest.approx(np.mean(means))
    assert found["patches_women"] == rows.woman_id.nunique()


def test_fine_tuning_is_one_score_more_where_it_is_asked_for():
    config = small_config()
    config.downstream.fine_tuning.epochs = 2
    samples = patches.sample_patches(FakeStore(), config)
    predictions = patches.score(MeanEncoder(), samples, bright_where_abnormal, config)
    tuned = predictions[predictions.score == "finetuned"]
    assert sorted(tuned.sample_id) == sorted(samples.sample_id[samples.split != "training"])
    assert tuned.note.str.fullmatch("epoch [12] of 2").all()
    again = patches.score(MeanEncoder(), samples, bright_where_abnormal, config)
    pd.testing.assert_frame_equal(again, predictions)


def test_an_encoder_that_forgives_shifts_is_scored_by_the_least_distance_over_nine_places():
    samples = patches.sample_patches(FakeStore(), small_config())
    encoder = MeanEncoder()
    encoder.metadata["shift_share"] = 0.1
    reach = int(np.ceil(0.1 * SIDE))

    def cut(wanted: pd.DataFrame, context: int = 0) -> np.ndarray:
        windows = bright_where_abnormal(wanted, reach)
        return windows if context == reach else windows[..., reach:-reach, reach:-reach]

    predictions = patches.score(encoder, samples, cut, small_config())
    distance = predictions[predictions.score == "distance"].set_index("sample_id").value
    for sample in samples[samples.split == "test"].head(5).itertuples():
        left, right = cut(samples[samples.sample_id == sample.sample_id], reach)[0]
        middle = left[reach:-reach, reach:-reach]
        least = min(
            np.hypot(middle.mean() - other.mean(), middle.std(ddof=1) - other.std(ddof=1))
            for row in (0, reach, 2 * reach)
            for col in (0, reach, 2 * reach)
            for other in [right[row : row + SIDE, col : col + SIDE]]
        )
        assert distance[sample.sample_id] == pytest.approx(2 * least, rel=1e-4)


class CornerEncoder(nn.Module):
    """The embedding is the patch's upper left pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.metadata = {"embedding": "raw"}

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean(dim=(2, 3)), x[:, :, 0, 0]


@pytest.mark.parametrize("mirrors", [False, True])
def test_a_distance_is_the_mean_over_the_pair_and_its_mirror_images(mirrors: bool):
    samples = patches.sample_patches(FakeStore(), small_config())
    config = small_config()
    config.downstream.patches.mirrors = mirrors
    predictions = patches.score(CornerEncoder(), samples, bright_where_abnormal, config)
    scored = samples[samples.split != "training"]
    pairs = bright_where_abnormal(scored)
    corners = np.abs(pairs[:, 0] - pairs[:, 1])[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    expected = dict(zip(scored.sample_id, corners.mean(axis=1) if mirrors else corners[:, 0], strict=True))
    distance = predictions[predictions.score == "distance"]
    np.testing.assert_allclose(distance.value, distance.sample_id.map(expected), rtol=1e-4)


@pytest.mark.parametrize("mirrors", [False, True])
def test_a_head_scores_each_side_by_itself_and_its_mirror_images(mirrors: bool):
    samples, config = patches.sample_patches(FakeStore(), small_config()), small_config()
    config.downstream.patches.mirrors = mirrors

    class WithHead(CornerEncoder):
        head = torch.nn.Identity()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x[:, :, 0, 0], x[:, :, 0, 0]

        def abnormality(self, features: torch.Tensor) -> torch.Tensor:
            return features[:, 0]

    predictions = patches.score(WithHead(), samples, bright_where_abnormal, config)
    scored = samples[samples.split != "training"]
    own = bright_where_abnormal(scored)[np.arange(len(scored)), scored.side.eq("right").to_numpy().astype(int)]
    corners = own[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    expected = dict(zip(scored.sample_id, corners.mean(axis=1) if mirrors else corners[:, 0], strict=True))
    abnormality = predictions[predictions.score == "abnormality"]
    np.testing.assert_allclose(abnormality.value, abnormality.sample_id.map(expected), rtol=1e-4, atol=1e-5)
