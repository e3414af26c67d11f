"""Tables that break the contract are refused, and women are dealt into splits the same way every time."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siamray.data.exams import ExamTables, assign_splits, check, exclude_incomplete_pairs, tables
from siamray.errors import UserError


def exam(woman: int, side: str = "L", view: str = "CC", **more: Any) -> dict[str, Any]:
    image = f"w{woman:03d}_{side}_{view}"
    row = {"source": "s", "woman_id": f"w{woman:03d}", "exam_id": f"e{woman:03d}", "image_id": image}
    return {**row, "laterality": side, "view": view, "path": f"/{image}.dcm", **more}


def sample(women: int = 3, affected: int = 1, **more: Any) -> ExamTables:
    exams = [exam(woman, side, **more) for woman in range(women) for side in "LR"]
    box = {"row_min": 1, "col_min": 2, "row_max": 3, "col_max": 4}
    return tables(exams, [{"image_id": f"w{w:03d}_L_CC", "category": "mass", **box} for w in range(affected)])


def test_a_good_table_passes_and_unknowns_are_null() -> None:
    found = sample()
    check(found)
    assert found.exams[["spacing_mm", "split", "birads", "density", "outcome"]].isna().all().all()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("laterality", "left"),
        ("view", "ML"),
        ("birads", 7),
        ("density", "E"),
        ("outcome", "cancer"),
        ("split", "train"),
        ("path", ""),
        ("spacing_mm", -0.1),
        ("image_id", "w001_L_CC"),
        ("woman_id", "w001"),
    ],
)
def test_a_wrong_value_of_an_exam_is_refused(column: str, value: Any) -> None:
    found = sample()
    found.exams.loc[0, column] = value
    with pytest.raises(ValueError, match="exams"):
        check(found)


@pytest.mark.parametrize(
    ("column", "value"),
    [("image_id", "nobody"), ("category", "Mass"), ("row_min", -1.0), ("row_max", 1.0), ("col_max", np.nan)],
)
def test_a_wrong_value_of_a_finding_is_refused(column: str, value: Any) -> None:
    found = sample()
    found.findings.loc[0, column] = value
    with pytest.raises(ValueError, match="findings"):
        check(found)


def test_a_finding_of_unknown_place_passes() -> None:
    found = tables([exam(1), exam(1, "R")], [{"image_id": "w001_L_CC", "category": "other"}])
    check(found)
    assert found.findings[["row_min", "col_max"]].isna().all().all()


def test_an_image_without_single_partner_is_left_out_with_its_findings_and_a_reason() -> None:
    box = {"row_min": 1, "col_min": 2, "row_max": 3, "col_max": 4, "category": "mass"}
    exams = [exam(1), exam(1, "R"), exam(2), exam(3), exam(3, "R"), exam(3, image_id="second", path="/second.dcm")]
    kept = exclude_incomplete_pairs(tables(exams, [{"image_id": "w002_L_CC", **box}, {"image_id": "w001_L_CC", **box}]))
    check(kept)
    assert set(kept.exams["woman_id"]) == {"w001"}
    assert kept.findings["image_id"].tolist() == ["w001_L_CC"]
    reasons = kept.excluded.set_index("image_id")["reason"]
    assert reasons["w002_L_CC"].startswith("no partner")
    assert reasons["w003_R_CC"].startswith("no single partner")
    assert reasons["second"] == reasons["w003_L_CC"] == "one of several images of this side and view in the exam"


@given(
    women=st.integers(6, 40),
    affected=st.integers(0, 6),
    folds=st.integers(3, 6),
    fold=st.integers(0, 2),
    seed=st.integers(0, 99),
    order=st.randoms(use_true_random=False),
)
def test_every_woman_has_one_split_whatever_the_order(
    women: int, affected: int, folds: int, fold: int, seed: int, order: Any
) -> None:
    found = sample(women, affected)
    split = assign_splits(found.exams, found.findings, folds, fold, seed)
    assert set(split.index) == set(found.exams["woman_id"])
    assert split.index.is_unique
    counts = split.value_counts()
    assert abs(counts["test"] - women / folds) < 1
    assert abs(counts["validation"] - women / folds) < 1
    touched = split[[f"w{w:03d}" for w in range(affected)]].value_counts()
    for word in ("test", "validation"):
        assert abs(touched.get(word, 0) - affected / folds) <= 1
    rows = list(range(len(found.exams)))
    order.shuffle(rows)
    again = assign_splits(found.exams.iloc[rows], found.findings, folds, fold, seed)
    pd.testing.assert_series_equal(split, again)


def test_folds_test_every_woman_once_and_validate_on_the_next_fold() -> None:
    found = sample(22, 6)
    splits = [assign_splits(found.exams, found.findings, 4, fold, 0) for fold in range(4)]
    tested = [set(split.index[split == "test"]) for split in splits]
    assert sum(len(women) for women in tested) == 22
    assert len(set.union(*tested)) == 22
    for fold, split in enumerate(splits):
        assert set(split.index[split == "validation"]) == tested[(fold + 1) % 4]
    assert not assign_splits(found.exams, found.findings, 4, 0, 1).equals(splits[0])


def test_the_sources_own_test_women_stay_test() -> None:
    found = sample(20, 5)
    official = found.exams["woman_id"].isin(["w003", "w004", "w017"])
    found.exams["split"] = pd.Series(np.where(official, "test", "training"), dtype="str")
    for fold in range(4):
        split = assign_splits(found.exams, found.findings, 4, fold, 0)
        assert set(split.index[split == "test"]) == {"w003", "w004", "w017"}
        assert 4 <= (split == "validation").sum() <= 5


def test_where_the_sources_words_do_not_count_all_women_are_dealt() -> None:
    found = sample(20, 5)
    named = found.exams.assign(split="test")
    for fold in range(4):
        dealt = assign_splits(found.exams, found.findings, 4, fold, 0)
        pd.testing.assert_series_equal(assign_splits(named, found.findings, 4, fold, 0, official=False), dealt)


def test_a_fold_that_is_not_there_and_too_few_women_are_user_errors() -> None:
    found = sample(3)
    with pytest.raises(UserError, match=r"data\.fold=4"):
        assign_splits(found.exams, found.findings, 4, 4, 0)
    with pytest.raises(UserError, match=r"data\.folds=4"):
        assign_splits(found.exams, found.findings, 4, 0, 0)
