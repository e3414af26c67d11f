"""A group's own tables are read as people write them; what cannot be understood is left out with row and reason."""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from siamray.config import DataConfig
from siamray.data.exams import BOX_COLUMNS, ExamTables
from siamray.data.sources import accepted, read_exams
from siamray.errors import UserError
from tests.data.sources import folder_copy
from tests.data.sources.conformance import check_source

Row = dict[str, Any]


def read(root: Path) -> ExamTables:
    return read_exams(DataConfig(source="folder", root=str(root)), root.parent / "cache")


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def exam_rows() -> list[Row]:
    """Two women with both views of both sides; rows 2 to 9 of the table."""
    return [
        {
            "woman_id": woman,
            "image_id": f"{woman}{side}{view}",
            "laterality": side,
            "view": view,
            "path": f"images/{woman}{side}{view}.png",
        }
        for woman in "ab"
        for view in ("CC", "MLO")
        for side in "LR"
    ]


def write(root: Path, exams: list[Row], findings: list[Row] | None = None) -> Path:
    """Writes tables and empty files for all rows as they were before a test changed them."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for row in exam_rows():
        (root / row["path"]).write_bytes(b"")
    folder_copy.write_table(root / "exams.csv", list(dict.fromkeys(key for row in exams for key in row)), exams)
    if findings is not None:
        folder_copy.write_table(root / "findings.csv", folder_copy.FINDINGS, findings)
    return root


def changed(root: Path, row: int, **cells: Any) -> ExamTables:
    """Reads tables of which one row, counted as a spreadsheet does, has other cells."""
    rows = exam_rows()
    for column in cells:
        for other in rows:
            other.setdefault(column, "")
    rows[row - 2].update(cells)
    return read(write(root / "own", rows))


def reasons(tables: ExamTables) -> dict[str, str]:
    return dict(zip(tables.excluded["image_id"], tables.excluded["reason"], strict=True))


# --- a copy with pixels


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder") / "own"
    folder_copy.write_copy(root)
    return root


def test_the_copy_conforms(copy: Path) -> None:
    seen = {f"w{n}_{side}{view}" for n in range(8) for side in "LR" for view in ("CC", "MLO")}
    tables = check_source(lambda: read(copy), seen, at_most=32)
    assert set(tables.exams["image_id"]) == seen - {"w7_RMLO"}
    assert reasons(tables) == {
        "w7_RMLO": "exams.csv row 33: there is no such file; paths start from data.root",
        "./images/w7/extra.pgm": "not listed in exams.csv: what it shows is not known",
    }


def test_words_as_people_write_them_are_understood(copy: Path) -> None:
    exams = read(copy).exams.set_index("image_id")
    with (copy / "exams.csv").open(newline="") as file:
        rows = {row["image_id"]: row for row in csv.DictReader(file)}
    for image, exam in exams.iterrows():
        row = rows[str(image)]
        woman, side, view = row["image_id"][:2], row["image_id"][3], row["image_id"][4:]
        assert (exam["woman_id"], exam["laterality"], exam["view"]) == (woman, side, view)
        assert exam["exam_id"] == (row["exam_id"] or woman)
        assert str(exam["birads"]) in row["BI-RADS"]
        assert exam["density"] == row["density"][-1].upper()
        assert exam["outcome"] == row["outcome"].lower()
        assert exam["age"] == float(row["age"])
    assert exams.groupby("woman_id")["split"].first().tolist() == ["training", "training", "validation", "test"] * 2
    assert exams.groupby("woman_id")["vendor"].first().dropna().tolist() == ["hologic", "siemens", "ge"] * 2
    assert exams.groupby("woman_id")["site"].first().dropna().tolist() == ["north", "2", "c-3"] * 2
    assert (exams["source"] == "folder").all()


def test_boxes_are_cut_to_their_image_and_placeless_findings_kept(copy: Path) -> None:
    found = read(copy).findings
    assert found["col_max"].max() == folder_copy.PHANTOMS.width_pixels
    placeless = found[found[BOX_COLUMNS].isna().all(axis=1)]
    assert placeless["category"].tolist() == ["calcification"]


def test_parquet_gives_the_tables_of_csv(copy: Path, tmp_path: Path) -> None:
    for name in ("exams", "findings"):
        table = pd.read_csv(copy / f"{name}.csv")
        if "path" in table.columns:
            table["path"] = [str(copy / path) for path in table["path"]]
        table.to_parquet(tmp_path / f"{name}.parquet")
    there, again = read(copy), read(tmp_path)
    pd.testing.assert_frame_equal(there.exams, again.exams)
    pd.testing.assert_frame_equal(there.findings, again.findings)


def test_sizes_are_remembered_until_the_file_changes(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read(copy)
    asked: list[Path] = []

    def ask(path: Path, accept: frozenset[str]) -> None:
        asked.append(path)
        raise AssertionError

    monkeypatch.setattr("siamray.data.sources.image_sizes.read_header", ask)
    pd.testing.assert_frame_equal(read(copy).findings, before.findings)
    os.utime(copy / "images" / "w1" / "LCC.png", ns=(1, 1))
    with pytest.raises(AssertionError):
        read(copy)
    assert asked == [copy / "images" / "w1" / "LCC.png"]


# --- rows


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"laterality": "LL"}, "laterality is not a known word; did you mean 'L'?"),
        ({"laterality": "Rihgt"}, "laterality is not a known word; did you mean 'R'?"),
        ({"laterality": "both"}, "laterality is not a known word; valid: L, R"),
        ({"laterality": ""}, "laterality is blank"),
        ({"view": "MOL"}, "view is not a known word; did you mean 'MLO'?"),
        ({"view": "xccl"}, "view XCCL is not compared; the standard views are CC and MLO"),
        ({"view": " "}, "view is blank"),
        ({"woman_id": ""}, "woman_id is blank"),
        ({"path": ""}, "path is blank"),
        ({"path": "../elsewhere/x.dcm"}, "there is no such file; paths start from data.root"),
        ({"path": "/nowhere/x.dcm"}, "there is no such file"),
        ({"path": "images"}, "there is no such file"),
        ({"birads": "7"}, "birads is not a known word"),
        ({"birads": "2.5"}, "birads is not a known word"),
        ({"density": "3"}, "density is not a known word; valid: A, B, C, D"),
        ({"outcome": "malignent"}, "outcome is not a known word; did you mean 'malignant'?"),
        ({"split": "trian"}, "split is not a known word; did you mean 'training'?"),
        ({"age": "530"}, "age is not between 1 and 120; it is in years at the exam"),
        ({"age": "young"}, "age is not a number"),
        ({"age": "nan(1)"}, "age is not a number"),
        ({"age": "5_3"}, "age is not a number"),
        ({"spacing_mm": "70"}, "spacing_mm is not between 0.01 and 2; it is in millimetres, such as 0.07"),
        ({"spacing_mm": "-0.1"}, "spacing_mm is not between 0.01 and 2"),
        ({"spacing_mm": "0,07"}, "spacing_mm is not a number; write it with a point"),
        ({"outcome_months": "-3"}, "outcome_months is not between 0 and 1200"),
        ({"site": "St Example"}, "site is not one word of at most 24 letters and digits; write a pseudonym"),
        ({"site": "a" * 25}, "site is not one word of at most 24 letters and digits"),
    ],
)
def test_a_cell_that_cannot_be_understood_costs_its_image_only(tmp_path: Path, cells: Row, reason: str) -> None:
    tables = changed(tmp_path, 4, **cells)
    assert len(tables.exams) == 7
    found = reasons(tables)["aLMLO"]
    assert found.startswith("exams.csv row 4: ")
    assert reason in found


def test_a_reason_never_repeats_a_cell(tmp_path: Path) -> None:
    planted = "Mary Example"
    columns = ("laterality", "view", "birads", "density", "outcome", "split", "age", "spacing_mm", "site")
    for place, column in enumerate(columns):
        assert planted not in " ".join(changed(tmp_path / str(place), 4, **{column: planted}).excluded["reason"])


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("laterality", "  Left ", "L"),
        ("laterality", "l", "L"),
        ("view", "Cranio-Caudal", "CC"),
        ("birads", "4c", 4),
        ("birads", "BIRADS 0", 0),
        ("birads", "2.0", 2),
        ("birads", "ACR BI-RADS 6", 6),
        ("density", "ACR density b", "B"),
        ("outcome", "Interval-cancer", "interval_cancer"),
        ("split", "Val", "validation"),
        ("age", "053Y", 53.0),
        ("spacing_mm", "7e-2", 0.07),
        ("vendor", "FUJIFILM Corporation", "fujifilm"),
        ("vendor", "Smith & Sons", "other"),
        ("site", " North_2 ", "North_2"),
        ("site", "3.0", "3"),
    ],
)
def test_common_spellings_mean_one_value(tmp_path: Path, column: str, text: str, value: Any) -> None:
    tables = changed(tmp_path, 2, **{column: text})
    assert tables.exams.set_index("image_id").loc["aLCC", column] == value
    assert tables.excluded.empty


def test_what_is_blank_is_null(tmp_path: Path) -> None:
    exams = changed(tmp_path, 2, birads="1", density="a", outcome="normal", age="50", vendor="GE").exams
    assert exams[["birads", "density", "outcome", "age", "vendor"]].notna().sum().tolist() == [1] * 5


def test_rows_that_repeat_contradict_or_share_are_named_together(tmp_path: Path) -> None:
    rows = exam_rows()
    rows.append(dict(rows[0]))
    rows.append({**rows[1], "laterality": "L"})
    rows[3]["path"] = rows[2]["path"]
    rows.append({**rows[5], "image_id": ""})
    found = reasons(read(write(tmp_path, rows)))
    assert found["exams.csv row 10"] == "the row repeats an earlier one"
    assert found["aRCC"] == "its image_id stands in exams.csv rows 3, 11, which differ"
    assert found["aLMLO"] == found["aRMLO"] == "its file is that of several images (exams.csv rows 4, 5)"
    assert found["exams.csv row 12"] == "the row names no image"
    assert found["./images/aRMLO.png"] == "not listed in exams.csv: what it shows is not known"
    assert len(found) == 6


def test_an_exam_of_two_women_and_a_woman_of_two_splits_are_left_out(tmp_path: Path) -> None:
    rows = [{**row, "exam_id": "1"} for row in exam_rows()]
    tables = read(write(tmp_path / "exams", rows))
    assert tables.exams.empty
    assert "several women (exams.csv rows 2, 3, 4, ...); make it unique" in reasons(tables)["bRMLO"]
    rows = [{**row, "split": "training"} for row in exam_rows()]
    rows[0]["split"], rows[5]["split"] = "test", ""
    tables = read(write(tmp_path / "splits", rows))
    assert set(tables.exams["woman_id"]) == {"b"}
    assert "its woman is in several splits" in reasons(tables)["aRMLO"]


def test_windows_and_absolute_paths_are_followed(tmp_path: Path) -> None:
    rows = exam_rows()
    rows[0]["path"] = "images\\aLCC.png"
    rows[1]["path"] = str(tmp_path / "own" / "images" / "aRCC.png")
    rows[2]["path"] = "../own/./images/aLMLO.png"
    tables = read(write(tmp_path / "own", rows))
    assert len(tables.exams) == 8
    assert tables.excluded.empty


def test_an_image_that_is_called_normal_and_marked_is_left_out(tmp_path: Path) -> None:
    rows = [{**row, "outcome": "normal"} for row in exam_rows()]
    tables = read(write(tmp_path, rows, [{"image_id": "aLCC", "category": "mass"}]))
    assert len(tables.exams) == 7
    assert "calls it normal, but findings mark it" in reasons(tables)["aLCC"]


# --- findings

BOX = {"row_min": "1", "col_min": "2", "row_max": "3", "col_max": "4"}


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"category": "tumour"}, "category is not a known word; valid: mass"),
        ({"category": "calcificaton"}, "did you mean 'calcification'?"),
        ({"category": ""}, "category is blank"),
        ({"row_max": ""}, "row_max is blank, but not the rest of its box"),
        ({"row_max": "low"}, "row_max is not a number"),
        ({"row_max": "1"}, "a box's maximum is not greater than its minimum"),
        ({"row_min": "-9", "row_max": "0"}, "a box lies outside its image"),
    ],
)
def test_a_finding_that_cannot_be_understood_costs_its_image(tmp_path: Path, cells: Row, reason: str) -> None:
    finding = {"image_id": "aLCC", "category": "mass", **BOX}
    tables = read(write(tmp_path, exam_rows(), [finding, {**finding, "image_id": "bLCC"} | cells]))
    assert tables.findings["image_id"].tolist() == ["aLCC"]
    assert "bLCC" not in set(tables.exams["image_id"]), "its tissue is neither normal nor a lesion"
    assert reasons(tables)["bLCC"].startswith("findings.csv row 3: ")
    assert reason in reasons(tables)["bLCC"]


def test_findings_of_no_image_or_twice_are_listed(tmp_path: Path) -> None:
    finding = {"image_id": "aLCC", "category": "Masses", **BOX}
    rows = [finding, {**finding, "category": "mass"}, {**finding, "image_id": "c"}, {**finding, "image_id": ""}]
    tables = read(write(tmp_path, exam_rows(), rows))
    assert tables.findings["category"].tolist() == ["mass"]
    assert reasons(tables) == {
        "findings.csv row 3": "the row repeats an earlier one",
        "findings.csv row 4": "a finding of an image that exams do not list",
        "findings.csv row 5": "the row names no image",
    }


def test_a_box_outside_its_image_costs_the_image(copy: Path, tmp_path: Path) -> None:
    rows = [
        {"woman_id": "w", "image_id": side, "laterality": side, "view": "CC", "path": copy / f"images/w1/{side}CC.png"}
        for side in "LR"
    ]
    folder_copy.write_table(tmp_path / "exams.csv", list(rows[0]), rows)
    box = {"row_min": 300, "col_min": 1, "row_max": 310, "col_max": 9}
    folder_copy.write_table(
        tmp_path / "findings.csv", folder_copy.FINDINGS, [{"image_id": "L", "category": "mass", **box}]
    )
    tables = read(tmp_path)
    assert tables.exams["image_id"].tolist() == ["R"]
    assert reasons(tables)["L"] == "a box lies outside the image"


# --- headings and files


@pytest.mark.parametrize("heading", ["birad", "BI RAD", "breast_birads", "birads_score", "bidrads"])
def test_a_misspelt_heading_is_one_line_with_the_nearest_column(tmp_path: Path, heading: str) -> None:
    with pytest.raises(UserError) as error:
        read(write(tmp_path, [{**row, heading: "1"} for row in exam_rows()]))
    assert f"has a column '{heading}', which is not read; rename it to 'birads' if it is that" in one_line(error)


@pytest.mark.parametrize(
    ("heading", "meant"), [("manufacturer", "vendor"), ("pathology", "outcome"), ("pixel_spacing", "spacing_mm")]
)
def test_a_heading_of_another_name_is_one_line_too(tmp_path: Path, heading: str, meant: str) -> None:
    with pytest.raises(UserError) as error:
        read(write(tmp_path, [{**row, heading: "x"} for row in exam_rows()]))
    assert f"rename it to '{meant}'" in one_line(error)


def test_other_columns_are_listed_and_those_with_an_underscore_left_alone(tmp_path: Path) -> None:
    rows = [{**row, "remark": "x", "_birads": "x", "source": "x", "birads": 1, "birads_left": 5} for row in exam_rows()]
    tables = read(write(tmp_path, rows))
    assert len(tables.exams) == 8
    assert list(reasons(tables)) == [f"exams.csv column {name}" for name in ("birads_left", "remark", "source")]
    assert set(tables.exams["source"]) == {"folder"}
    assert set(tables.exams["birads"]) == {1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("woman_id", "patient_id"), ["has a column 'patient_id'", "'woman_id'"]),
        (lambda text: text.replace("laterality,", "lat,"), ["has no column 'laterality'"]),
        (lambda text: text.replace("path\n", "path,View\n"), ["has two columns 'view'"]),
        (lambda text: text.replace("path\n", "path,view\n"), ["has two columns 'view'"]),
        (lambda text: text.replace(",", ";"), ["separated by semicolons", "save it with commas"]),
        (lambda text: text.replace(".png", ".png,1,2"), ["more cells than there are headings"]),
        (lambda text: text[:0], ["cannot be read as a table"]),
        (lambda text: text.replace("aLCC", "a\udcffLCC"), ["cannot be read as a table"]),
    ],
)
def test_a_table_of_another_form_is_one_line(tmp_path: Path, change: Callable[[str], str], words: list[str]) -> None:
    path = write(tmp_path, exam_rows()) / "exams.csv"
    path.write_text(change(path.read_text()), errors="surrogateescape")
    with pytest.raises(UserError) as error:
        read(tmp_path)
    for word in (str(path), *words):
        assert word in one_line(error)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root, ["does not exist"]),
        (lambda root: root.mkdir(), ["is empty", "exams.csv or exams.parquet"]),
        (lambda root: root.write_text(""), ["is not a folder"]),
        (
            lambda root: (root / "images").mkdir(parents=True),
            ["has no exams.csv or exams.parquet", "found 1", "images"],
        ),
        (lambda root: write(root / "mine", exam_rows()), ["data.root=", "mine has; use that"]),
        (lambda root: write(root.parent, exam_rows()) and (root / "dicom").mkdir(parents=True), ["has; use that"]),
        (
            lambda root: (write(root, exam_rows()) / "exams.parquet").touch(),
            ["exams.csv and exams.parquet", "keep one"],
        ),
        (
            lambda root: (write(root, exam_rows()) / "finding.csv").touch(),
            ["finding.csv is not read; rename it to find"],
        ),
        (lambda root: (write(root, exam_rows()) / "findings.xlsx").touch(), ["findings.xlsx is not read; save it as"]),
        (lambda root: (write(root, exam_rows()) / "exams.csv").rename(root / "exam.csv"), ["rename it to exams.csv"]),
        (lambda root: (write(root, exam_rows()) / "exams.csv").rename(root / "exams.xlsx"), ["save it as exams.csv"]),
    ],
)
def test_a_root_that_is_not_such_a_folder_is_one_line(
    tmp_path: Path, make: Callable[[Path], object], words: list[str]
) -> None:
    root = tmp_path / "group" / "own"
    root.parent.mkdir()
    make(root)
    with pytest.raises(UserError) as error:
        read(root)
    for word in (*words, str(root.parent)):
        assert word in one_line(error)


def test_digitised_films_in_secondary_captures_are_taken_where_that_is_asked_for() -> None:
    assert "secondary_capture" not in accepted(DataConfig(source="folder"))
    assert "secondary_capture" in accepted(DataConfig(source="folder", secondary_captures=True))
    assert "secondary_capture" in accepted(DataConfig(source="cbis_ddsm"))
