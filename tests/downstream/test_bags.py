"""Bags of patch features and their classes, on a small store made by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from siamray.config import Config
from siamray.downstream.bags import check_label, encode_images, known_classes, make_bags, place_patches
from siamray.errors import UserError

HEIGHT, WIDTH, SIDE = 130, 100, 32


class FakeStore:
    """What bags use of a store: women of one exam with two views each, but the last one, who has a second exam."""

    def __init__(self, women: int = 9) -> None:
        exams = [(f"w{n}", f"w{n}e1") for n in range(women)] + [(f"w{women - 1}", f"w{women - 1}e2")]
        entries = [(woman, exam, view, f"{exam}_{view}") for woman, exam in exams for view in ("CC", "MLO")]
        self.entries = pd.DataFrame(entries, columns=["woman_id", "exam_id", "view", "entry_id"])
        images = [(*entry[:3], side) for entry in entries for side in "LR"]
        self.exams = pd.DataFrame(images, columns=["woman_id", "exam_id", "view", "laterality"])
        self.exams["birads"] = pd.array([1] * len(images), dtype="Int64")
        self.exams["density"] = pd.Series(["B"] * len(images), dtype="str")
        self.exams["outcome"] = pd.Series(["normal"] * len(images), dtype="str")
        self.findings = pd.DataFrame(columns=["entry_id"])
        self.small: set[str] = set()

    def mask(self, entry_id: str, side: str) -> np.ndarray:
        if entry_id in self.small:
            return np.ones((SIDE - 1, SIDE - 1), dtype=bool)
        tissue = np.zeros((HEIGHT, WIDTH), dtype=bool)
        tissue[:, : 96 if side == "left" else 64] = True
        return tissue

    def split(self, _config) -> pd.Series:
        women = self.entries.woman_id.unique()
        names = ["training", "validation", "test"]
        return pd.Series([names[n % 3] for n in range(len(women))], index=women)

    def set(self, column: str, value, **where: str) -> None:
        chosen = np.ones(len(self.exams), dtype=bool)
        for name, wanted in where.items():
            chosen &= (self.exams[name] == wanted).to_numpy()
        self.exams.loc[chosen, column] = value


class PlaceEncoder(nn.Module):
    """The feature of a patch is its mean."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = x.mean(dim=(2, 3))
        return features, features


def config(**bags) -> Config:
    chosen = Config()
    chosen.pairs.patch_pixels = SIDE
    for name, value in bags.items():
        setattr(chosen.downstream.bags, name, value)
    return chosen


def code(row) -> float:
    """A number that tells a patch's image and place."""
    return int(row.exam_id[1]) * 1000 + (row.side == "right") * 500 + row.row + row.col / 1000


def cut(samples: pd.DataFrame, context: int = 0) -> np.ndarray:
    """Pairs whose own side says which patch it is, and whose other side is wrong."""
    pairs = np.full((len(samples), 2, SIDE, SIDE), -1.0, dtype=np.float32)
    for pair, row in zip(pairs, samples.itertuples(), strict=True):
        pair[("left", "right").index(row.side)] = code(row)
    return pairs


def test_patches_lie_on_a_grid_over_the_tissue_of_their_own_side():
    placed = place_patches(FakeStore(), config())
    own = placed[placed.entry_id == "w0e1_CC"]
    assert own.groupby("side").size().to_dict() == {"left": 4 * 3, "right": 4 * 2}
    assert set(own[own.side == "left"].itertuples(index=False, name=None)) == {
        ("w0e1_CC", "w0", "w0e1", "L", "left", row, col) for row in (0, 32, 64, 96) for col in (0, 32, 64)
    }
    half = place_patches(FakeStore(), config(stride_share=0.5))
    assert set(half.row) == set(range(0, HEIGHT - SIDE + 1, 16))


def test_at_most_so_many_patches_per_image_the_same_for_every_seed_of_the_run():
    few = config(patches_per_image=5)
    placed = place_patches(FakeStore(), few)
    assert (placed.groupby(["entry_id", "side"]).size() == 5).all()
    few.seed = 9
    pd.testing.assert_frame_equal(place_patches(FakeStore(), few), placed)
    everywhere = place_patches(FakeStore(), config())
    assert len(placed.merge(everywhere)) == len(placed)


def test_an_image_without_enough_tissue_gives_the_patch_with_the_most_and_a_smaller_one_none():
    store = FakeStore()
    store.small = {"w1e1_CC"}
    thin = config()
    thin.pairs.patch_pixels = 80  # the right breast is 64 pixels wide: 0.8 of it
    thin.pairs.minimum_tissue = 0.9
    placed = place_patches(store, thin)
    assert placed[(placed.entry_id == "w0e1_CC") & (placed.side == "right")][["row", "col"]].to_numpy().tolist() == [
        [0, 0]
    ]
    assert "w1e1_CC" not in set(placed.entry_id)
    thin.pairs.patch_pixels = 500
    with pytest.raises(UserError, match=r"pairs.patch_pixels=500: all images"):
        place_patches(store, thin)


@pytest.mark.parametrize("unit", ["breast", "exam", "woman"])
def test_a_bag_holds_the_features_of_all_its_patches_and_of_no_others(unit, monkeypatch):
    monkeypatch.setattr("siamray.downstream.features.SAMPLES_AT_ONCE", 37)
    store = FakeStore()
    store.set("birads", 4, exam_id="w2e1", laterality="L")
    images = encode_images(PlaceEncoder(), store, cut, config())
    bags = make_bags(images, store, "birads", unit, config())
    assert len(bags.table) == {"breast": 20, "exam": 10, "woman": 9}[unit]
    for row, members in zip(bags.table.itertuples(), bags.members, strict=True):
        wanted = images.patches[images.patches.woman_id == row.woman_id]
        if unit != "woman":
            exam = row.sample_id.split("_")[0]
            wanted = wanted[wanted.exam_id == exam]
        if unit == "breast":
            wanted = wanted[wanted.side == row.side]
            assert row.sample_id.endswith({"left": "_L", "right": "_R"}[row.side])
        expected = sorted(np.float32(code(patch)) for patch in wanted.itertuples())
        np.testing.assert_allclose(sorted(bags.features[members, 0]), expected, rtol=1e-6)
        assert row.split == store.split(None)[row.woman_id]


def test_a_unit_has_the_most_suspicious_class_of_its_images():
    store = FakeStore()
    store.set("birads", 0, exam_id="w2e1", laterality="L", view="CC")
    store.set("birads", 3, exam_id="w2e1", laterality="L", view="MLO")
    store.set("birads", 2, exam_id="w3e1", laterality="R")
    store.set("birads", pd.NA, exam_id="w4e1", laterality="R", view="CC")
    store.set("birads", pd.NA, exam_id="w5e1")
    breasts = known_classes(store, "birads", "breast").set_index(["exam_id", "laterality"]).category
    assert breasts["w2e1", "L"] == "0"  # a recall is more suspicious than BI-RADS 3
    assert breasts["w2e1", "R"] == "1"
    assert breasts["w4e1", "R"] == "1"
    assert pd.isna(breasts["w5e1", "L"])
    exams = known_classes(store, "birads", "exam").set_index("exam_id").category
    assert (exams["w2e1"], exams["w3e1"], exams["w4e1"]) == ("0", "2", "1")
    store.set("outcome", "interval_cancer", exam_id="w8e2")
    women = known_classes(store, "outcome", "woman").set_index("woman_id").category
    assert women["w8"] == "interval_cancer"
    assert (women.drop("w8") == "normal").all()


def test_units_of_unknown_class_or_without_a_patch_are_left_out_and_counted():
    store = FakeStore()
    store.set("birads", pd.NA, exam_id="w5e1")
    store.set("birads", pd.NA, exam_id="w6e1", laterality="L")
    store.set("birads", 5, exam_id="w1e1")
    store.small = {"w2e1_CC", "w2e1_MLO"}
    bags = make_bags(encode_images(PlaceEncoder(), store, cut, config()), store, "birads", "breast", config())
    assert not {"w5e1_L", "w5e1_R", "w6e1_L", "w2e1_L", "w2e1_R"} & set(bags.table.sample_id)
    assert len(bags.table) == 15
    assert bags.classes == ["1", "5"]
    assert bags.notes == [
        "3 breasts of unknown birads left out",
        "2 breasts whose images are smaller than a patch left out",
    ]


def test_of_a_woman_only_exams_whose_outcome_is_known_are_in_the_bag():
    store = FakeStore()
    store.set("outcome", None, exam_id="w8e1")
    store.set("outcome", "malignant", exam_id="w8e2", laterality="L")
    images = encode_images(PlaceEncoder(), store, cut, config())
    bags = make_bags(images, store, "outcome", "woman", config())
    place = bags.table.sample_id.tolist().index("w8")
    assert bags.table.category[place] == "malignant"
    assert set(images.patches.exam_id[bags.members[place]]) == {"w8e2"}


def test_features_that_are_not_finite_are_refused():
    class Broken(nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3)) / 0, x

    with pytest.raises(ValueError, match=r"features are not finite"):
        encode_images(Broken(), FakeStore(), cut, config())


def test_a_task_that_the_data_set_cannot_answer_is_refused_in_one_line():
    store = FakeStore()
    with pytest.raises(UserError, match=r"downstream.tasks=birads: the data set knows birads 1 only"):
        check_label(store, "birads", "breast", config())
    store.exams["birads"] = pd.NA
    with pytest.raises(UserError, match=r"the data set knows no birads of any breast; leave birads out"):
        check_label(store, "birads", "breast", config())
    store.set("birads", 1, woman_id="w0")
    store.set("birads", 4, woman_id="w1")
    with pytest.raises(UserError, match=r"of no test woman the birads is known; take another data.fold"):
        check_label(store, "birads", "breast", config())
    store.set("birads", 1, woman_id="w2")
    check_label(store, "birads", "breast", config())
