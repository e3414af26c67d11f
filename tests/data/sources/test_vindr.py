import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pydicom
import pytest

from siamray.config import DataConfig
from siamray.data.dicom import read_image
from siamray.data.exams import BOX_COLUMNS, CATEGORIES, ExamTables, assign_splits, exclude_incomplete_pairs
from siamray.data.sources import read_exams, vindr
from siamray.errors import UserError
from tests.data.sources import vindr_copy
from tests.data.sources.conformance import check_source
from tests.data.sources.vindr_copy import Rows, Tables, write_set


def read(root: Path, **options: Any) -> ExamTables:
    return read_exams(DataConfig(source="vindr", root=str(root), **options), Path("unused"))


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def table(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- a copy with pixels


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vindr")
    vindr_copy.write_copy(root, 10)
    return root


def test_the_copy_conforms(copy: Path) -> None:
    seen = {path.stem for path in copy.rglob("*.dicom")}
    assert len(seen) == 40
    tables = check_source(lambda: exclude_incomplete_pairs(read(copy), "first"), seen, at_most=24)
    assert len(tables.exams) == 38, "one study has a right image without partner, and a second L-CC"
    assert (tables.exams["exam_id"] == tables.exams["woman_id"]).all()
    assert tables.exams["outcome"].isna().all(), "the set knows no pathology"


def test_the_copy_is_the_same_each_time(copy: Path, tmp_path: Path) -> None:
    vindr_copy.write_copy(tmp_path, 2)
    for path in sorted(tmp_path.rglob("*.dicom")):
        assert path.read_bytes() == (copy / path.relative_to(tmp_path)).read_bytes()


def test_labels_are_those_of_the_tables(copy: Path) -> None:
    exams = read(copy).exams.set_index("image_id")
    ages = {row["SOP Instance UID"]: row["Patient's Age"] for row in table(copy / "metadata.csv")}
    rows = table(copy / "breast-level_annotations.csv")
    assert len(rows) == len(exams)
    for row in rows:
        exam = exams.loc[row["image_id"]]
        assert (exam["woman_id"], exam["laterality"], exam["view"], exam["split"]) == tuple(
            row[name] for name in ("study_id", "laterality", "view_position", "split")
        )
        assert row["breast_birads"] == f"BI-RADS {exam['birads']}"
        assert row["breast_density"] == f"DENSITY {exam['density']}"
        assert Path(exam["path"]).name == f"{row['image_id']}.dicom"
        age = ages[row["image_id"]]
        assert pd.isna(exam["age"]) if not age else exam["age"] == int(age[:3])
    assert set(exams["vendor"]) == {"siemens", "planmed", "ims"}
    assert set(exams["spacing_mm"]) == {0.9}
    densities = exams.groupby("woman_id")["density"].nunique()
    assert set(densities) == {1, 2}, "density is the breast's"


def test_the_study_with_two_images_of_one_view_keeps_all_of_them_for_preparation_to_choose(copy: Path) -> None:
    study = vindr_copy.name_of("study", 1)
    tables = read(copy)
    images = tables.exams[tables.exams["woman_id"] == study]
    assert sorted(images["laterality"] + images["view"]) == ["LCC", "LCC", "RCC", "RMLO"]
    left = exclude_incomplete_pairs(tables, "first").exams
    assert sorted(left.loc[left["woman_id"] == study, "view"]) == ["CC", "CC"]
    assert study not in set(exclude_incomplete_pairs(tables, "leave_out").exams["woman_id"])


def test_padding_of_inverted_images_is_black(copy: Path) -> None:
    exams = read(copy).exams
    planmed = exams[exams["vendor"] == "planmed"]
    assert len(planmed) == 8
    for path in planmed["path"]:
        assert pydicom.dcmread(path).PhotometricInterpretation == "MONOCHROME1"
        image = read_image(Path(path))
        assert image.padding is not None
        assert image.padding[:4].all()
        assert not image.padding[4:].any()
        assert image.pixels[:4].max() == 0


def test_test_women_are_the_official_ones(copy: Path) -> None:
    tables = read(copy)
    splits = assign_splits(tables.exams, tables.findings, 3, 0, 0)
    official = {row["study_id"] for row in table(copy / "breast-level_annotations.csv") if row["split"] == "test"}
    assert set(splits.index[splits == "test"]) == official


def test_boxes_are_rows_and_columns_clipped_to_the_image(copy: Path) -> None:
    findings = read(copy).findings
    boxes = {(f.image_id, f.row_min, f.col_min, f.row_max, f.col_max) for f in findings.itertuples()}
    left_the_image = 0
    for row in table(copy / "finding_annotations.csv"):
        if row["xmin"]:
            corners = [float(row[name]) for name in ("ymin", "xmin", "ymax", "xmax")]
            limits = [int(row["height"]), int(row["width"])] * 2
            clipped = [min(max(0.0, corner), limit) for corner, limit in zip(corners, limits, strict=True)]
            left_the_image += clipped != corners
            boxes.remove((row["image_id"], *clipped))
    assert not boxes, "a box without a row"
    assert left_the_image >= 2


def test_a_box_of_several_categories_is_one_finding_and_the_others_are_named(copy: Path) -> None:
    several = [r for r in table(copy / "finding_annotations.csv") if "," in r["finding_categories"]]
    tables = read(copy)
    assert len(several) >= 2
    for row in several:
        found = tables.findings[tables.findings["image_id"] == row["image_id"]]
        assert found["category"].tolist() == ["mass"]
        note = tables.excluded.set_index("image_id").loc[f"{row['image_id']}:box 1"]
        assert note["reason"] == "a box of several categories: kept as mass, not as calcification"


def test_suspicious_breasts_without_a_box_are_not_normal_by_their_birads(copy: Path) -> None:
    tables = read(copy)
    unmarked = tables.exams[~tables.exams["image_id"].isin(tables.findings["image_id"])]
    assert (unmarked["birads"] >= 3).any()


def test_metadata_are_not_needed(copy: Path, tmp_path: Path) -> None:
    shutil.copytree(copy, tmp_path / "root")
    (tmp_path / "root" / "metadata.csv").unlink()
    with_it, without = read(copy), read(tmp_path / "root")
    known = ["age", "vendor", "spacing_mm"]
    assert without.exams[known].isna().all().all()
    pd.testing.assert_frame_equal(
        without.exams.drop(columns=[*known, "path"]), with_it.exams.drop(columns=[*known, "path"])
    )
    pd.testing.assert_frame_equal(without.findings, with_it.findings)


# --- tables with faults, and empty files


def test_a_set_without_faults_leaves_nothing_out(tmp_path: Path) -> None:
    tables = read(write_set(tmp_path))
    assert len(tables.exams) == 8
    assert tables.excluded.empty
    assert tables.findings.to_dict("records") == [
        {"image_id": "aLCC", "category": "mass", "row_min": 20.5, "col_min": 10.5, "row_max": 220.5, "col_max": 110.5}
    ]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"laterality": "B"}, "laterality is neither L nor R"),
        ({"laterality": ""}, "laterality is neither L nor R"),
        ({"view_position": "ML"}, "view_position is neither CC nor MLO"),
        ({"study_id": ""}, "study_id is blank"),
        ({"study_id": "../a"}, "there is no folder images/../a"),
        ({"breast_birads": "4"}, "breast_birads is none of"),
        ({"breast_density": "DENSITY E"}, "breast_density is none of"),
        ({"split": "dev"}, "split is none of training, test"),
        ({"height": "tall"}, "height and width are not two positive whole numbers"),
        ({"width": "0"}, "height and width are not two positive whole numbers"),
        ({"image_id": "c"}, "listed in breast-level_annotations.csv, but there is no file images/a/c.dicom"),
    ],
)
def test_a_breast_row_that_cannot_be_used_costs_its_image_only(
    tmp_path: Path, changed: dict[str, str], reason: str
) -> None:
    tables = read(write_set(tmp_path, lambda rows: rows.breasts[0].update(changed)))
    assert len(tables.exams) == 7
    reasons = tables.excluded.set_index("image_id")["reason"]
    assert reason in reasons[changed.get("image_id", "aLCC")]
    assert "aLCC" in reasons, "the file that no longer has a row"
    assert tables.findings.empty


def test_blank_labels_are_null(tmp_path: Path) -> None:
    blank = {"breast_birads": "", "breast_density": "", "split": ""}
    tables = read(write_set(tmp_path, lambda rows: rows.breasts[0].update(blank)))
    assert len(tables.exams) == 8
    exam = tables.exams.set_index("image_id").loc["aLCC"]
    assert exam[["birads", "density", "split"]].isna().all()


BOX = {"xmin": "1", "ymin": "2", "xmax": "3", "ymax": "4"}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"finding_categories": "Mass"}, "finding_categories is not a list of words"),
        ({"finding_categories": "['Mass'"}, "finding_categories is not a list of words"),
        ({"finding_categories": "[]"}, "finding_categories is not a list of words"),
        ({"finding_categories": ""}, "finding_categories is not a list of words"),
        ({"finding_categories": "[1]"}, "finding_categories is not a list of words"),
        ({"finding_categories": "[" * 50000}, "finding_categories is not a list of words"),
        ({"finding_categories": "__import__('os').getcwd()"}, "finding_categories is not a list of words"),
        ({"finding_categories": "['Cyst']"}, "names one that VinDr-Mammo does not have"),
        ({"finding_categories": "['Mass', 'No Finding']"}, "'No Finding' stands beside a finding"),
        ({"finding_categories": "['No Finding']", **BOX}, "'No Finding' has a box"),
        ({"finding_categories": "['Mass']", **BOX, "xmin": ""}, "a box is not four numbers"),
        ({"finding_categories": "['Mass']", **BOX, "ymax": "low"}, "a box is not four numbers"),
        ({"finding_categories": "['Mass']", **BOX, "ymax": "inf"}, "a box is not four numbers"),
        ({"finding_categories": "['Mass']", **BOX, "xmin": "5"}, "the corners of a box are swapped"),
        ({"finding_categories": "['Mass']", **BOX, "ymin": "4"}, "a box is empty"),
        ({"finding_categories": "['Mass']", **BOX, "xmin": "2800", "xmax": "2827"}, "a box lies outside the image"),
        ({"finding_categories": "['Mass']", **BOX, "ymin": "-27", "ymax": "0"}, "a box lies outside the image"),
    ],
)
def test_a_finding_that_cannot_be_understood_costs_its_image(
    tmp_path: Path, changed: dict[str, str], reason: str
) -> None:
    tables = read(write_set(tmp_path, lambda rows: rows.findings[1].update(changed)))
    assert len(tables.exams) == 7, "its tissue is neither normal nor a lesion"
    assert reason in tables.excluded.set_index("image_id")["reason"]["aLMLO"]


def test_a_finding_without_box_is_a_finding_of_unknown_place(tmp_path: Path) -> None:
    changed = {"finding_categories": "['Skin Thickening']"}
    tables = read(write_set(tmp_path, lambda rows: rows.findings[1].update(changed)))
    found = tables.findings[tables.findings["image_id"] == "aLMLO"]
    assert found["category"].tolist() == ["skin_thickening"]
    assert found[BOX_COLUMNS].isna().all().all()


def test_no_finding_beside_a_finding_of_the_same_image_is_a_contradiction(tmp_path: Path) -> None:
    def change(rows: Tables) -> None:
        rows.findings.append({**rows.findings[1], "image_id": "aLCC"})

    tables = read(write_set(tmp_path, change))
    assert "'No Finding' of it and marks" in tables.excluded.set_index("image_id")["reason"]["aLCC"]
    assert tables.findings.empty


def test_an_image_of_one_table_only_is_left_out(tmp_path: Path) -> None:
    def change(rows: Tables) -> None:
        del rows.breasts[3], rows.findings[5]

    reasons = read(write_set(tmp_path, change)).excluded.set_index("image_id")["reason"]
    assert len(reasons) == 2
    assert "not in breast-level_annotations.csv: its side and view are not known" in reasons["aRMLO"]
    assert "not listed in finding_annotations.csv: whether it shows a finding is not known" in reasons["bLMLO"]


def test_repeated_rows_count_once_and_are_named_by_their_line(tmp_path: Path) -> None:
    def change(rows: Tables) -> None:
        rows.breasts.append(dict(rows.breasts[2]))
        rows.findings.insert(1, dict(rows.findings[0]))
        rows.findings.append({**rows.findings[3], "image_id": ""})

    tables = read(write_set(tmp_path, change))
    assert len(tables.exams) == 8
    assert len(tables.findings) == 1
    assert tables.excluded.set_index("image_id")["reason"].to_dict() == {
        "breast-level_annotations.csv:10": "the row repeats an earlier one",
        "finding_annotations.csv:3": "the row repeats an earlier one",
        "finding_annotations.csv:11": "the row names no image",
    }


def test_rows_of_one_image_that_contradict_each_other_cost_the_image(tmp_path: Path) -> None:
    def change(rows: Tables) -> None:
        rows.breasts.append({**rows.breasts[0], "breast_birads": "BI-RADS 5"})

    tables = read(write_set(tmp_path, change))
    assert len(tables.exams) == 7
    assert "contradict each other" in tables.excluded.set_index("image_id")["reason"]["aLCC"]


def test_the_same_box_in_several_rows_is_one_finding(tmp_path: Path) -> None:
    def change(rows: Tables) -> None:
        rows.findings.append({**rows.findings[0], "finding_categories": "['Suspicious Calcification']"})
        rows.findings.append({**rows.findings[0], "finding_categories": "['Asymmetry']", "xmin": "11"})

    tables = read(write_set(tmp_path, change))
    assert tables.findings["category"].tolist() == ["mass", "asymmetry"]
    assert tables.excluded["image_id"].tolist() == ["aLCC:box 1"]


def test_files_of_no_row_are_left_out_and_other_files_ignored(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "images" / "c").mkdir()
    for name in ("a/new.dicom", "c/other.dicom", "b/aLCC.dicom", "a/aLCC.dcm", "loose.dicom", "a/index.html"):
        (tmp_path / "images" / name).write_bytes(b"")
    tables = read(tmp_path)
    assert len(tables.exams) == 8
    reasons = tables.excluded.set_index("image_id")["reason"].to_dict()
    assert set(reasons) == {"new", "other", "loose", "b/aLCC.dicom", "a/aLCC.dcm"}
    assert reasons["new"] == "not listed in breast-level_annotations.csv: what it shows is not known"
    assert "not for this folder" in reasons["b/aLCC.dicom"]
    assert reasons["a/aLCC.dcm"] == "the same image is read from aLCC.dicom"


def test_a_study_without_folder_is_left_out(tmp_path: Path) -> None:
    shutil.rmtree(write_set(tmp_path) / "images" / "b")
    tables = read(tmp_path)
    assert set(tables.exams["woman_id"]) == {"a"}
    assert tables.excluded["reason"].str.contains("there is no folder images/b with images").sum() == 4


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("053Y", 53),
        ("036M", 3),
        ("100Y", 100),
        ("", None),
        ("000Y", None),
        ("999Y", None),
        ("53", None),
        ("05Y3", None),
    ],
)
def test_ages_are_read_as_dicom_writes_them(text: str, age: float | None) -> None:
    assert vindr.years(text) == (pytest.approx(age) if age else None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[0.085, 0.085]", 0.085),
        ("['0.07', '0.07']", 0.07),
        ("0.094\\0.094", 0.094),
        ("", None),
        ("0.085", None),
        ("[0.085, 0.17]", None),
        ("[0, 0]", None),
    ],
)
def test_spacings_are_read_in_any_notation(text: str, value: float | None) -> None:
    assert vindr.spacing(text) == (pytest.approx(value) if value else None)


def test_metadata_that_cannot_be_understood_are_null(tmp_path: Path) -> None:
    def change(rows: Tables) -> None:
        rows.metadata[0] |= {"Patient's Age": "old", "Imager Pixel Spacing": "fine", "Manufacturer": ""}
        rows.metadata[1] |= {"Imager Pixel Spacing": "", "Pixel Spacing": "[0.1, 0.1]"}
        rows.metadata.append({**rows.metadata[2], "Patient's Age": "054Y"})
        del rows.metadata[3]

    exams = read(write_set(tmp_path, change)).exams.set_index("image_id")[["age", "spacing_mm", "vendor"]]
    assert exams.loc["aLCC"].isna().all()
    assert exams.loc["aLMLO"].tolist() == [53, pytest.approx(0.1), "siemens"]
    assert exams.loc["aRCC"].isna().all(), "two rows say different things of it"
    assert exams.loc["aRMLO"].isna().all()
    assert exams.loc["bLCC"].tolist() == [53, pytest.approx(0.085), "siemens"]


def test_every_category_has_its_word() -> None:
    assert set(vindr.CATEGORIES.values()) == set(CATEGORIES) - {"other"}


# --- roots


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root, ["does not exist"]),
        (lambda root: root.mkdir(), ["is empty", "breast-level_annotations.csv"]),
        (lambda root: root.write_text(""), ["is not a folder"]),
        (lambda root: (root / "train_images").mkdir(parents=True), ["has no breast-level", "found 1", "train_images"]),
        (lambda root: (write_set(root) / "finding_annotations.csv").unlink(), ["has no finding_annotations.csv"]),
        (lambda root: shutil.rmtree(write_set(root) / "images"), ["has no images/STUDY/IMAGE.dicom"]),
        (lambda root: write_set(root / "files" / "vindr-mammo" / "1.0.0"), ["data.root=", "1.0.0 has; use that"]),
        (lambda root: write_set(root.parent) and root.mkdir(), ["is empty"]),
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


@pytest.mark.parametrize("below", ["images", "images/a"])
def test_a_root_one_level_too_low_is_told_the_right_folder(tmp_path: Path, below: str) -> None:
    write_set(tmp_path)
    with pytest.raises(UserError) as error:
        read(tmp_path / below)
    assert f"but data.root={tmp_path} has; use that" in one_line(error)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("breast-level_annotations.csv", "view_position"),
        ("finding_annotations.csv", "finding_categories"),
        ("metadata.csv", "Imager Pixel Spacing"),
    ],
)
def test_a_renamed_column_is_one_line_that_names_both(tmp_path: Path, name: str, column: str) -> None:
    path = write_set(tmp_path) / name
    path.write_text(path.read_text().replace(column, f"{column}s", 1))
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert f"has no column '{column}'; did you mean '{column}s'?" in one_line(error)
    assert name in one_line(error)


def test_an_empty_table_is_one_line(tmp_path: Path) -> None:
    (write_set(tmp_path) / "finding_annotations.csv").write_text("")
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert "finding_annotations.csv: cannot be read as a table" in one_line(error)
