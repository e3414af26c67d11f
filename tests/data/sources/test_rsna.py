import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pydicom
import pytest

from siamray.compose import compose
from siamray.config import DataConfig
from siamray.data.exams import BOX_COLUMNS, ExamTables, exclude_incomplete_pairs
from siamray.data.sources import read_exams
from siamray.errors import UserError
from tests.data.sources import rsna_copy
from tests.data.sources.conformance import check_source

Rows = list[dict[str, Any]]


def read(root: Path, **options: Any) -> ExamTables:
    return read_exams(DataConfig(source="rsna", root=str(root), **options), Path("unused"))


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- a copy with pixels


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rsna")
    rsna_copy.write_copy(root, 8)
    return root


def test_the_copy_conforms(copy: Path) -> None:
    seen = {path.stem for path in copy.rglob("*.dcm")}
    assert len(seen) == 34
    tables = check_source(lambda: exclude_incomplete_pairs(read(copy), "first"), seen, at_most=20)
    assert len(tables.exams) == 28, "without a second L-MLO, an LMO and the four images with implants"
    assert (tables.exams["exam_id"] == tables.exams["woman_id"]).all()
    assert tables.exams[["split", "vendor", "spacing_mm", "outcome_months"]].isna().all().all()


def test_the_copy_is_the_same_each_time(copy: Path, tmp_path: Path) -> None:
    rsna_copy.write_copy(tmp_path, 2)
    for path in sorted(tmp_path.rglob("*.dcm")):
        assert path.read_bytes() == (copy / path.relative_to(tmp_path)).read_bytes()
    syntaxes = {pydicom.dcmread(path).file_meta.TransferSyntaxUID.name for path in tmp_path.rglob("*.dcm")}
    assert len(syntaxes) == 2


def test_labels_are_those_of_the_table(copy: Path) -> None:
    tables = read(copy)
    exams = tables.exams.set_index("image_id")
    with (copy / "train.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["image_id"]: row for row in csv.DictReader(file)}
    assert set(exams.index) | set(tables.excluded["image_id"]) == set(rows)
    for image, exam in exams.iterrows():
        row = rows[str(image)]
        words = [row[name] for name in ("patient_id", "laterality", "view")]
        assert [exam["woman_id"], exam["laterality"], exam["view"]] == words
        assert exam["path"] == str(copy / "train_images" / row["patient_id"] / f"{image}.dcm")
        assert row["BIRADS"] == ("" if pd.isna(exam["birads"]) else str(exam["birads"]))
        assert row["density"] == ("" if pd.isna(exam["density"]) else exam["density"])
        assert pd.isna(exam["age"]) if not row["age"] else exam["age"] == float(row["age"])
        outcome = {("1", "1"): "malignant", ("0", "1"): "benign", ("0", "0"): "normal"}
        assert exam["outcome"] == outcome[row["cancer"], row["biopsy"]]
        assert exam["site"] == row["site_id"]
    assert set(exams["outcome"]) == {"malignant", "benign", "normal"}
    assert exams["age"].isna().any()
    assert set(exams["site"]) == {"1", "2"}


def test_every_image_of_a_breast_with_cancer_has_a_finding_of_unknown_place(copy: Path) -> None:
    tables = read(copy)
    cancers = tables.exams[tables.exams["outcome"] == "malignant"]
    assert sorted(tables.findings["image_id"]) == sorted(cancers["image_id"])
    assert set(tables.findings["category"]) == {"other"}
    assert tables.findings[BOX_COLUMNS].isna().all().all()
    assert set(cancers.groupby("woman_id")["laterality"].nunique()) == {1, 2}, "a cancer is its breast's"


def test_views_and_implants_that_are_not_compared_are_left_out(copy: Path) -> None:
    reasons = read(copy).excluded["reason"].value_counts().to_dict()
    assert reasons == {
        "view LMO: CC and MLO are compared": 1,
        "implant=1 in train.csv; data.implants=true takes it": 4,
    }


def test_implants_are_taken_on_demand(copy: Path) -> None:
    woman = str(rsna_copy.patient(rsna_copy.IMPLANT))
    assert woman not in set(read(copy).exams["woman_id"])
    assert (read(copy, implants=True).exams["woman_id"] == woman).sum() == 4


def test_several_images_of_one_view_are_left_for_preparation_to_choose_from(copy: Path) -> None:
    tables = read(copy)
    images = tables.exams[tables.exams["woman_id"] == str(rsna_copy.patient(rsna_copy.SEVERAL))]
    assert sorted(images["laterality"] + images["view"]) == ["LCC", "LMLO", "LMLO", "RCC", "RMLO"]


def test_women_of_the_test_table_are_no_concern(copy: Path) -> None:
    tables = read(copy)
    assert "10008" not in set(tables.exams["woman_id"])
    assert not tables.excluded["path"].str.contains("test_images").any()


def test_tissue_of_biopsied_breasts_is_not_normal() -> None:
    normal = compose("prepare", ["data=rsna"]).data.normal
    assert list(normal.outcomes) == ["normal"]
    assert list(normal.birads) == [1, 2]
    assert normal.beside_findings is False


# --- tables with faults, and empty files


def write_set(root: Path, change: Callable[[Rows], object] | None = None, suffix: str = ".dcm") -> Path:
    """Writes train.csv of two women and empty files; images are 1, 2 (left), 3, 4 (right) and 5 to 8."""
    rows: Rows = []
    for woman in (10, 20):
        for side in "LR":
            for view in ("CC", "MLO"):
                row = {"site_id": 1, "patient_id": woman, "image_id": len(rows) + 1, "laterality": side, "view": view}
                row |= {"age": 50, "cancer": 0, "biopsy": 0, "invasive": 0, "BIRADS": 1, "implant": 0, "density": "B"}
                rows.append({**row, "machine_id": 49, "difficult_negative_case": False})
                path = root / "train_images" / str(woman) / f"{len(rows)}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
    if change:
        change(rows)
    rsna_copy._write(root / "train.csv", rsna_copy.TRAIN, rows)
    return root


def test_a_set_without_faults_leaves_nothing_out(tmp_path: Path) -> None:
    tables = read(write_set(tmp_path))
    assert len(tables.exams) == 8
    assert tables.excluded.empty
    assert tables.findings.empty


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"patient_id": ""}, "patient_id is blank"),
        ({"laterality": "left"}, "laterality is neither L nor R"),
        ({"view": "XCCL"}, "view is none of CC, MLO, ML, LM, AT, LMO"),
        ({"view": ""}, "view is none of"),
        ({"view": "AT"}, "view AT: CC and MLO are compared"),
        ({"view": "ML", "implant": 1}, "view ML: CC and MLO are compared"),
        ({"cancer": ""}, "cancer is neither 0 nor 1"),
        ({"cancer": "maybe"}, "cancer is neither 0 nor 1"),
        ({"biopsy": 2}, "biopsy is neither 0 nor 1"),
        ({"implant": ""}, "implant is neither 0 nor 1"),
        ({"BIRADS": 7}, "BIRADS is none of 1, 2, 3, 0, 4, 5, 6"),
        ({"density": "E"}, "density is none of A, B, C, D"),
        ({"age": "old"}, "age is no number"),
        ({"age": -1}, "age is not between 0 and 120 years"),
        ({"patient_id": 30}, "listed in train.csv, but there is no folder train_images/30 with images"),
        ({"patient_id": 20}, "listed in train.csv, but there is no file train_images/20/1.dcm"),
        ({"patient_id": "../train_images/10"}, "there is no folder"),
    ],
)
def test_a_row_that_cannot_be_used_costs_its_image_only(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    tables = read(write_set(tmp_path, lambda rows: rows[0].update(changed)))
    assert len(tables.exams) == 7
    assert reason in tables.excluded.set_index("image_id")["reason"]["1"]


def test_a_site_costs_no_image(tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        for row, site in zip(rows, ("2.0", "", "St Mary's Hospital, London", "x" * 25), strict=False):
            row["site_id"] = site
        rows.append({**rows[4], "site_id": 2})

    tables = read(write_set(tmp_path, change))
    sites = tables.exams.set_index("image_id")["site"]
    assert sites.notna().sum() == 5
    assert sites[["1", "5"]].tolist() == ["2", "1"]
    assert tables.excluded["reason"].tolist() == ["the row repeats an earlier one"]


def test_a_table_without_sites_is_read(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    table = pd.read_csv(root / "train.csv", dtype="str").drop(columns="site_id")
    table.to_csv(root / "train.csv", index=False)
    tables = read(root)
    assert len(tables.exams) == 8
    assert tables.exams["site"].isna().all()


def test_numbers_as_pandas_writes_them_and_blank_labels_are_understood(tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        rows[0] |= {"BIRADS": "0.0", "cancer": "1.0", "biopsy": "1.0", "age": "61.0", "implant": "0.0"}
        rows[1] |= {"BIRADS": "", "cancer": "1", "biopsy": "1", "age": "", "density": ""}

    exams = read(write_set(tmp_path, change)).exams.set_index("image_id")
    assert exams.loc["1", ["birads", "outcome", "age"]].tolist() == [0, "malignant", 61]
    assert exams.loc["2", ["birads", "density", "age"]].isna().all()


def test_a_breast_of_two_outcomes_is_left_out_and_the_other_one_is_not(tmp_path: Path) -> None:
    tables = read(write_set(tmp_path, lambda rows: rows[0].update({"cancer": 1, "biopsy": 1})))
    reasons = tables.excluded.set_index("image_id")["reason"].to_dict()
    assert reasons == dict.fromkeys(("1", "2"), "train.csv says of its breast both cancer=0 and cancer=1")
    assert tables.findings.empty
    assert set(tables.exams["image_id"]) == {"3", "4", "5", "6", "7", "8"}


def test_a_biopsy_is_its_breasts(tmp_path: Path) -> None:
    outcomes = read(write_set(tmp_path, lambda rows: rows[0].update({"biopsy": 1}))).exams
    assert outcomes.set_index("image_id")["outcome"].tolist() == ["benign"] * 2 + ["normal"] * 6


def test_repeated_rows_count_once_and_contradicting_ones_cost_the_image(tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        rows.append(dict(rows[0]))
        rows.append({**rows[1], "density": "C"})
        rows.append({**rows[2], "image_id": ""})

    tables = read(write_set(tmp_path, change))
    assert set(tables.exams["image_id"]) == {"1", "3", "4", "5", "6", "7", "8"}
    assert tables.excluded.set_index("image_id")["reason"].to_dict() == {
        "2": "train.csv has several rows of it that contradict each other",
        "train.csv:10": "the row repeats an earlier one",
        "train.csv:12": "the row names no image",
    }


def test_files_of_no_row_are_left_out(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "train_images" / "30").mkdir()
    for name in ("10/99.dcm", "30/98.dcm", "20/1.dcm", "10/1.png", "10/readme.txt"):
        (tmp_path / "train_images" / name).write_bytes(b"")
    tables = read(tmp_path)
    assert len(tables.exams) == 8
    assert tables.excluded.set_index("image_id")["reason"].to_dict() == {
        "10/1.png": "the same image is read from 1.dcm",
        "20/1.dcm": "listed in train.csv, but not for this folder",
        "98": "not listed in train.csv: what it shows is not known",
        "99": "not listed in train.csv: what it shows is not known",
    }


@pytest.mark.parametrize("folder", ["train_images", "train_images_png"])
def test_copies_converted_to_png_are_taken(tmp_path: Path, folder: str) -> None:
    write_set(tmp_path, suffix=".png")
    (tmp_path / "train_images").rename(tmp_path / folder)
    tables = read(tmp_path)
    assert len(tables.exams) == 8
    assert tables.exams["path"].str.contains(f"/{folder}/").all()
    assert tables.exams["path"].str.endswith(".png").all()


# --- roots


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root, ["does not exist"]),
        (lambda root: root.mkdir(), ["is empty", "train.csv"]),
        (lambda root: root.write_text(""), ["is not a folder"]),
        (lambda root: (root / "images").mkdir(parents=True), ["has no train.csv", "found 1", "images"]),
        (lambda root: shutil.rmtree(write_set(root) / "train_images"), ["has no train_images/WOMAN/IMAGE.dcm"]),
        (lambda root: write_set(root / "rsna"), ["but data.root=", "rsna has; use that"]),
    ],
)
def test_a_root_that_is_not_the_set_is_one_line(
    tmp_path: Path, make: Callable[[Path], object], words: list[str]
) -> None:
    root = tmp_path / "set" / "root"
    root.parent.mkdir()
    make(root)
    with pytest.raises(UserError) as error:
        read(root)
    for word in (*words, str(root)):
        assert word in one_line(error)


@pytest.mark.parametrize("below", ["train_images", "train_images/10"])
def test_a_root_one_level_too_low_is_told_the_right_folder(tmp_path: Path, below: str) -> None:
    write_set(tmp_path)
    with pytest.raises(UserError) as error:
        read(tmp_path / below)
    assert f"but data.root={tmp_path} has; use that" in one_line(error)


def test_another_challenges_table_nearby_is_not_taken_for_this_one(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("id,label\n1,0\n")
    write_set(tmp_path / "rsna").joinpath("train.csv").unlink()
    with pytest.raises(UserError) as error:
        read(tmp_path / "rsna")
    assert "has no train.csv, which data=rsna looks for; found 1 others: train_images" in one_line(error)


def test_a_renamed_column_is_one_line_that_names_both(tmp_path: Path) -> None:
    path = write_set(tmp_path) / "train.csv"
    path.write_text(path.read_text().replace("laterality", "laterality_L", 1))
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert "has no column 'laterality'; did you mean 'laterality_L'?" in one_line(error)


def test_a_table_without_rows_yields_no_exam(tmp_path: Path) -> None:
    tables = read(write_set(tmp_path, lambda rows: rows.clear()))
    assert tables.exams.empty
    assert len(tables.excluded) == 8
