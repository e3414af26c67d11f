"""INbreast is read as it is published, and its faults end in one clear line or a row with a reason."""

import builtins
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xlrd

from siamray.config import DataConfig
from siamray.data.exams import BOX_COLUMNS, ExamTables, exclude_incomplete_pairs
from siamray.data.sources import inbreast, read_exams
from siamray.errors import UserError
from tests.data.sources.conformance import check_source
from tests.data.sources.inbreast_copy import HEADER, IMAGES, WOMEN, annotation, write_copy


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inbreast") / "INbreast Release 1.0"
    write_copy(root)
    return root


@pytest.fixture(scope="module")
def found(copy: Path) -> ExamTables:
    return read(copy)


@pytest.fixture
def own(copy: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(copy, tmp_path / "root")


def read(root: Path | None) -> ExamTables:
    return read_exams(DataConfig(source="inbreast", root=None if root is None else str(root)), Path("unused"))


def reasons(tables: ExamTables) -> dict[str, str]:
    return dict(zip(tables.excluded["image_id"], tables.excluded["reason"], strict=True))


def boxes(tables: ExamTables, image: str) -> list[list[float]]:
    rows = tables.findings[tables.findings["image_id"] == image]
    return rows[BOX_COLUMNS].to_numpy(dtype=float).tolist()


def change_row(root: Path, image: str, **cells: str) -> None:
    path = root / "INbreast.csv"
    lines = [line.split(";") for line in path.read_text().splitlines()]
    for line in lines:
        if line[5] == image:
            for column, value in cells.items():
                line[lines[0].index(column.replace("_", " "))] = value
    path.write_text("\n".join(";".join(line) for line in lines))


# --- the copy


def test_inbreast_conforms(copy: Path) -> None:
    tables = check_source(lambda: read(copy), {image for image, *_ in IMAGES}, at_most=20)
    assert set(tables.exams["image_id"]) == {image for image, _, _, view, *_ in IMAGES if view != "FB"}
    assert tables.exams[["outcome", "age", "vendor", "split"]].isna().all().all(), "the set does not tell these"


def test_women_are_told_apart_by_the_file_name_and_exams_by_their_order(found: ExamTables) -> None:
    exams = found.exams.set_index("image_id")
    assert set(found.exams["woman_id"]) == set(WOMEN)
    assert exams.loc["20586908", "exam_id"] == f"{WOMEN[0]}_1"
    assert exams.loc["20586100", "exam_id"] == f"{WOMEN[0]}_2"
    text = found.exams.drop(columns="path").to_csv() + found.excluded.to_csv()
    assert not any(date in text for date in ("200901", "200902", "201001")), "a date was kept"


def test_mlo_files_are_named_ml_and_fb_is_left_out(found: ExamTables) -> None:
    mlo = found.exams[found.exams["view"] == "MLO"]
    assert len(mlo) == 7
    assert all("_ML_ANON" in path for path in mlo["path"])
    assert reasons(found) == {"50994300": "neither CC nor MLO: its view is FB"}


def test_two_images_of_a_side_and_view_are_both_listed(found: ExamTables) -> None:
    assert {"50994273", "50994408"} <= set(found.exams["image_id"])
    used = set(exclude_incomplete_pairs(found, "first").exams["image_id"])
    assert "50994273" in used
    assert "50994408" not in used


def test_birads_is_the_breasts_worst_without_its_letter(found: ExamTables) -> None:
    birads = found.exams.set_index("image_id")["birads"]
    assert birads["20586934"] == birads["20586986"] == 5, "5 and 4b"
    assert birads["20586126"] == 6
    assert birads["22670094"] == birads["22670147"] == 4, "4a and 3"
    assert birads["50994408"] == 4, "her other image of this breast says 4a"
    assert birads["20586908"] == 2


def test_density_is_the_breasts_where_an_image_has_none(found: ExamTables) -> None:
    density = found.exams.set_index("image_id")["density"]
    assert density["53582540"] == density["53582567"] == "B"
    assert density["22670094"] == "D"


def test_regions_are_findings_by_their_names_however_spelt(found: ExamTables) -> None:
    words = found.findings.groupby("image_id")["category"].agg(list)
    assert words["20586934"] == ["mass", "mass", "calcification"]
    assert words["20586986"] == ["mass", "calcification", "calcification"]
    assert words["20586126"] == ["calcification", "architectural_distortion"]
    assert words["22670094"] == ["asymmetry", "calcification", "calcification"]
    assert words["22670147"] == ["asymmetry", "mass", "other", "other"]
    assert "50994273" not in words, "an empty list marks nothing"


def test_boxes_hold_the_pixels_of_the_points_and_points_get_the_least_side(found: ExamTables) -> None:
    mass, _, point = boxes(found, "20586934")
    assert mass == [60, 30, 101, 71], "y is the row"
    assert point == [80 - 6.5, 50 - 6.5, 81 + 6.5, 51 + 6.5]
    assert point[2] - point[0] == inbreast.LEAST_SIDE_PIXELS


def test_boxes_are_clipped_to_the_image(found: ExamTables) -> None:
    assert boxes(found, "20586986")[1] == [0, 40 - 6.5, 9.5, 41 + 6.5]
    assert boxes(found, "20586986")[2] == [80 - 6.5, 0, 81 + 6.5, 8.5]
    assert boxes(found, "20586126")[1] == [50, 0, 81, 21]


# --- the table


def test_a_comma_and_a_byte_order_mark_are_read_too(own: Path, found: ExamTables) -> None:
    path = own / "INbreast.csv"
    path.write_text(path.read_text().replace(";", ","), encoding="utf-8-sig")
    pd.testing.assert_frame_equal(read(own).exams.drop(columns="path"), found.exams.drop(columns="path"))


def test_the_excel_table_tells_the_same(own: Path, found: ExamTables, monkeypatch: pytest.MonkeyPatch) -> None:
    # No maintained package writes Excel's old format, so that what xlrd gives of the real table is put in its place:
    # numbers as floats, columns that the csv lacks, and a footer of counts.
    header = [*HEADER.split(";"), "Mass ", "Micros", "Distortion", "Asymmetry", "Findings Notes (in Portuguese)"]
    lines: list[list[Any]] = [header]
    for image, _, side, view, date, density, birads in IMAGES:
        level = float(birads) if birads.isdecimal() else birads
        acr = float(density) if density.strip() else density
        lines.append(["removed", "removed", side, view, float(date), float(image), acr, level, "X", "", "", "", ""])
    lines += [[""] * 13, [""] * 8 + [108.0, 301.0, 6.0, 13.0, ""]]
    sheet = SimpleNamespace(nrows=len(lines), row_values=lambda number: lines[number])
    monkeypatch.setattr(xlrd, "open_workbook", lambda _: SimpleNamespace(sheet_by_index=lambda _: sheet))
    (own / "INbreast.csv").rename(own / "INbreast.xls")
    tables = read(own)
    pd.testing.assert_frame_equal(tables.exams.drop(columns="path"), found.exams.drop(columns="path"))
    assert list(reasons(tables)) == ["50994300"], "the footer is passed over"


def test_a_damaged_excel_table_is_one_line(own: Path) -> None:
    (own / "INbreast.csv").unlink()
    (own / "INbreast.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)
    with pytest.raises(UserError, match="cannot be read as an Excel file") as error:
        read(own)
    assert "\n" not in str(error.value)


def test_without_a_reader_of_excel_files_the_remedy_is_named(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "INbreast.csv").rename(own / "INbreast.xls")
    genuine = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "xlrd":
            raise ImportError(name)
        return genuine(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install siamray\[inbreast\]"):
        read(own)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"Laterality": "B"}, "Laterality is neither L nor R"),
        ({"Laterality": "L"}, "contradict each other on its side: L and R"),
        ({"View": "MLO"}, "contradict each other on its view: MLO and CC"),
        ({"View": ""}, "has no View"),
        ({"Acquisition_date": ""}, "its exam is not known"),
        ({"Bi-Rads": "7"}, "Bi-Rads is not a number"),
        ({"ACR": "5"}, "ACR is not a number"),
        ({"File_Name": "20586934"}, "there is no"),
    ],
)
def test_a_row_that_cannot_be_understood_is_left_out_with_its_reason(
    own: Path, cells: dict[str, str], reason: str
) -> None:
    change_row(own, "20586908", **cells)
    tables = read(own)
    if "File_Name" in cells:
        assert "several rows" in reasons(tables)["20586934"]
        assert "not listed" in reasons(tables)["20586908"]
    else:
        assert reason in reasons(tables)["20586908"]
    assert "20586960" in set(tables.exams["image_id"]), "the others are read"


def test_a_row_that_names_no_image_is_told(own: Path) -> None:
    change_row(own, "20586908", File_Name="x")
    assert "names no image" in reasons(read(own))["INbreast.csv:1"]


def test_blank_birads_is_null(own: Path) -> None:
    change_row(own, "20586908", **{"Bi-Rads": ""})
    change_row(own, "20586960", **{"Bi-Rads": ""})
    birads = read(own).exams.set_index("image_id")["birads"]
    assert birads[["20586908", "20586960"]].isna().all()


# --- files


def test_files_without_row_and_rows_without_file_are_left_out(own: Path) -> None:
    folder = own / "AllDICOMs"
    first = next(folder.glob("20586908_*"))
    first.rename(folder / "99999999_6c613a14b80a8591_MG_R_CC_ANON.dcm")
    (folder / "20586934.dcm").write_bytes(b"")
    (folder / f"22670094_{WOMEN[1]}_MG_R_CC_anon.DCM").write_bytes(b"")
    (own / "AllXML" / "12345678.xml").write_bytes(b"")
    told = reasons(read(own))
    assert "no file of it in AllDICOMs" in told["20586908"]
    assert "not listed in INbreast.csv" in told["99999999"]
    assert "its name is not" in told["20586934.dcm"]
    assert any("the same image is read from" in reason for reason in told.values())
    assert "not listed in INbreast.csv" in told["12345678.xml"]


def test_a_lost_file_renumbers_no_exam(own: Path) -> None:
    for image in ("20586908", "20586934", "20586986", "20586960"):
        change_row(own, image, View="FB")
    exams = read(own).exams.set_index("image_id")
    assert exams.loc["20586100", "exam_id"] == f"{WOMEN[0]}_2"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no xml",
        annotation([("Mass", ((1.0, 2.0),))])[:300],
        b'<?xml version="1.0"?><plist version="1.0"><array/></plist>',
        b'<?xml version="1.0"?><plist version="1.0"><dict><key>Images</key><string>x</string></dict></plist>',
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><plist><dict><key>Images</key><array/></dict></plist>',
    ],
)
def test_an_image_with_a_damaged_annotation_is_left_out(own: Path, content: bytes) -> None:
    (own / "AllXML" / "20586934.xml").write_bytes(content)
    tables = read(own)
    assert "its annotation 20586934.xml cannot be understood" in reasons(tables)["20586934"]
    assert "20586986" in set(tables.exams["image_id"])


def test_a_region_whose_points_are_damaged_has_no_place(own: Path) -> None:
    path = own / "AllXML" / "20586934.xml"
    path.write_bytes(path.read_bytes().replace(b"(50.500000, 80.250000)", b"(50.500000; )"))
    place = boxes(read(own), "20586934")
    assert np.isnan(place[2]).all()
    assert place[0] == [60, 30, 101, 71]


def test_a_region_outside_the_image_has_no_place(own: Path) -> None:
    (own / "AllXML" / "20586934.xml").write_bytes(annotation([("Mass", ((900.0, 900.0), (950.0, 950.0)))]))
    assert np.isnan(boxes(read(own), "20586934")).all()


def test_points_with_a_third_coordinate_and_exponents_are_read() -> None:
    content = annotation([("Mass", ((1.0, 2.0), (30.0, 40.0)))])
    content = content.replace(b"(1.000000, 2.000000)", b"( 1e0,2.0 , 5.0)")
    assert inbreast.parse_regions(content)[0].box == (2, 1, 41, 31)


def test_an_image_whose_header_is_damaged_keeps_its_findings_without_place(own: Path) -> None:
    next((own / "AllDICOMs").glob("20586934_*")).write_bytes(b"no image")
    assert np.isnan(boxes(read(own), "20586934")).all()


# --- the folder


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: shutil.rmtree(root), "does not exist"),
        (lambda root: shutil.rmtree(root / "AllXML"), "has no AllDICOMs, AllXML and INbreast.csv"),
        (lambda root: (root / "INbreast.csv").unlink(), "has no INbreast.csv or INbreast.xls"),
        (lambda root: (root / "INbreast.csv").write_bytes(b""), "cannot be read as a table"),
        (
            lambda root: (root / "INbreast.csv").write_text(HEADER.replace("Bi-Rads", "BiRads") + "\n"),
            "has no column 'Bi-Rads'; did you mean 'BiRads'?",
        ),
    ],
)
def test_a_folder_that_is_not_the_set_is_one_line(own: Path, make: Callable[[Path], object], words: str) -> None:
    make(own)
    with pytest.raises(UserError) as error:
        read(own)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert str(own) in str(error.value)


@pytest.mark.parametrize("away", ["..", "AllDICOMs"])
def test_a_root_one_level_off_names_the_right_one(copy: Path, away: str) -> None:
    with pytest.raises(UserError) as error:
        read(copy / away)
    assert f"data.root={copy} has; use that" in str(error.value)


def test_inbreast_without_root_asks_for_it() -> None:
    with pytest.raises(UserError, match=r"data\.root=DIR"):
        read(None)
