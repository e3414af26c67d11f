"""Every source passes the conformance suite, and a bad root or row ends in one clear line or an excluded row."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image as PillowImage

from siamray.config import DataConfig, PhantomConfig
from siamray.data.dicom import read_image
from siamray.data.exams import BOX_COLUMNS, VIEWS
from siamray.data.sources import mias, phantom, read_exams
from siamray.data.sources.phantom import assessment
from siamray.data.sources.phantom_anatomy import View, has_lesion, imagine, render
from siamray.errors import UserError
from tests.data.sources.conformance import check_source

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "mini-mias"
SMALL = PhantomConfig(women=4, height_pixels=192, width_pixels=160, spacing_mm=0.9)


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- dispatch


def test_a_misspelt_source_is_named_with_the_nearest_valid_one(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read_exams(DataConfig(source="phantoms"), tmp_path)
    assert "did you mean 'phantom'" in one_line(error)


# --- phantom


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms") / "root"
    phantom.read(DataConfig(source="phantom", root=str(root), phantom=SMALL), root)
    return root


def read_phantoms(root: Path, **changed: object) -> object:
    config = DataConfig(source="phantom", root=str(root), phantom=replace(SMALL, **changed))
    return read_exams(config, root.parent)


def test_phantoms_conform(phantoms: Path) -> None:
    seen = {f"phantom_{n:05d}_{side}_{view}" for n in range(4) for side in "LR" for view in VIEWS}
    tables = check_source(lambda: read_phantoms(phantoms), seen, at_most=16)
    assert set(tables.exams["image_id"]) == seen
    assert tables.exams[["birads", "density", "outcome"]].notna().all().all()


def test_phantom_lesions_lie_in_one_breast_in_both_its_views(phantoms: Path) -> None:
    tables = read_phantoms(phantoms)
    found = tables.findings.merge(tables.exams, on="image_id")
    assert 1 <= found["woman_id"].nunique() <= 3
    for _, rows in found.groupby("woman_id"):
        assert rows["laterality"].nunique() == 1
        assert set(rows["view"]) == set(VIEWS)
        assert rows.groupby("view")["category"].agg(sorted).map(tuple).nunique() == 1
        assert set(rows["outcome"]) <= {"benign", "malignant"}
        assert (rows["birads"] >= 3).all()
    clean = tables.exams[~tables.exams["image_id"].isin(found["image_id"])]
    assert set(clean["outcome"]) == {"normal"}


def test_phantom_labels_follow_from_what_is_drawn() -> None:
    seen = set()
    for number in range(60):
        woman = imagine(SMALL, number)
        assert woman.density in "ABCD"
        for side in "LR":
            birads, outcome = assessment(woman, side)
            malignant = any(lesion.malignant for lesion in woman.lesions)
            expected = ("malignant" if malignant else "benign") if side == woman.affected else "normal"
            assert outcome == expected
            assert birads in {"malignant": (4, 5), "benign": (3, 4), "normal": (1, 2)}[outcome]
            assert assessment(woman, side) == (birads, outcome), "the same in both views"
            seen.add((birads, outcome))
    assert len(seen) == 6


def test_phantom_headers_name_no_person_and_are_valid_mammography(phantoms: Path) -> None:
    headers = [pydicom.dcmread(path) for path in sorted(phantoms.rglob("*.dcm"))]
    assert len({header.SOPInstanceUID for header in headers}) == len(headers)
    for header in headers:
        assert header.SOPClassUID.name == "Digital Mammography X-Ray Image Storage - For Presentation"
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
        assert all(header[name].value.is_valid for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"))
        assert header.PatientID.startswith("phantom_")
        assert not header.PatientName
        assert not header.PatientBirthDate
        assert not header.StudyDate
        assert int(header.pixel_array.max()) <= 4095
        assert (header.BitsAllocated, header.BitsStored) == (16, 12)


def test_phantom_right_breast_lies_at_the_right_edge(phantoms: Path) -> None:
    for row in read_phantoms(phantoms).exams.itertuples():
        pixels = read_image(Path(row.path)).pixels
        band = pixels[pixels.shape[0] // 2 - 20 : pixels.shape[0] // 2 + 20]
        left, right = band[:, :12].mean(), band[:, -12:].mean()
        assert (left > right + 0.2) == (row.laterality == "L")
        assert 0 < np.median(pixels[-6:, 5:-5]) < 0.1, "the background is dark, but not zero"


def test_phantom_woman_is_the_same_whatever_their_number(tmp_path: Path, phantoms: Path) -> None:
    more = tmp_path / "more"
    phantom.generate_woman(more, replace(SMALL, women=500), 2)
    for path in sorted((more / "women" / "phantom_00002").glob("*.dcm")):
        one, other = pydicom.dcmread(path), pydicom.dcmread(phantoms / path.relative_to(more))
        assert np.array_equal(one.pixel_array, other.pixel_array)
    rows = [json.loads((root / "women" / "phantom_00002" / "rows.json").read_text()) for root in (more, phantoms)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 10), (0.5, 20), (1.0, 40)])
def test_phantom_lesion_share_holds_exactly(share: float, count: int) -> None:
    assert sum(has_lesion(PhantomConfig(lesion_share=share), number) for number in range(40)) == count


def test_phantom_sides_differ_by_asymmetry_only(tmp_path: Path) -> None:
    def difference(asymmetry: float) -> float:
        options = replace(SMALL, asymmetry=asymmetry, lesion_share=0.0)
        view = View(imagine(options, 0), "CC")
        left, right = render(view, "L")[0], render(view, "R")[0][:, ::-1]
        return float(np.abs(left - right).mean())

    assert difference(0.0) < 0.5 * difference(1.0) < difference(2.0)


def test_phantom_contrast_changes_lesions_only() -> None:
    options = replace(SMALL, lesion_share=1.0)
    woman = imagine(options, 0)
    strong, boxes = render(View(woman, "CC"), str(woman.affected))
    none, same_boxes = render(View(imagine(replace(options, contrast=0.0), 0), "CC"), str(woman.affected))
    assert boxes == same_boxes
    assert len(boxes) >= 1
    rows, cols = np.nonzero(np.abs(strong - none) > 1e-3)
    assert len(rows) > 0
    reach = 1.2 * max(box["row_max"] - box["row_min"] for box in boxes)
    near = [
        np.hypot(rows - (b["row_min"] + b["row_max"]) / 2, cols - (b["col_min"] + b["col_max"]) / 2) < reach
        for b in boxes
    ]
    assert np.any(near, axis=0).all()


def test_interrupted_phantoms_go_on_where_they_stopped(tmp_path: Path, phantoms: Path) -> None:
    root = tmp_path / "root"
    phantom.generate_woman(root, SMALL, 1)
    (root / phantom.MARKER).write_text(
        json.dumps({"format": phantom.FORMAT, "options": phantom._plain(SMALL), "finished": False})
    )
    half = root / "women" / "phantom_00000"
    half.mkdir()
    (half / "phantom_00000_L_CC.dcm").write_bytes(b"half written")
    kept = {path: path.stat().st_mtime_ns for path in (root / "women" / "phantom_00001").iterdir()}
    tables = read_phantoms(root)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    there = read_phantoms(phantoms)
    pd.testing.assert_frame_equal(tables.exams.drop(columns="path"), there.exams.drop(columns="path"))
    assert json.loads((root / phantom.MARKER).read_text())["finished"] is True
    assert read_image(half / "phantom_00000_L_CC.dcm").laterality == "L"
    assert not list(root.rglob(".*")), "a temporary file was left behind"


def test_phantoms_of_other_options_are_refused_by_the_option(phantoms: Path) -> None:
    with pytest.raises(UserError) as error:
        read_phantoms(phantoms, contrast=2.0)
    assert "data.phantom.contrast=1.0, not 2.0" in one_line(error)


def test_a_folder_of_something_else_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError) as error:
        read_phantoms(tmp_path)
    assert str(tmp_path) in one_line(error)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_unwritable_phantom_folder_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError) as error:
        read_phantoms(blocked / "root")
    assert "data.root" in one_line(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every folder")
def test_a_read_only_phantom_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError) as error:
        read_phantoms(tmp_path / "root")
    assert "cannot be written" in one_line(error)


@pytest.mark.parametrize(
    "changed",
    [
        {"height_pixels": 128, "width_pixels": 131, "spacing_mm": 0.05},
        {"height_pixels": 129, "width_pixels": 128, "spacing_mm": 2.0},
        {"asymmetry": 6.0, "contrast": 10.0},
        {"asymmetry": 0.0, "contrast": 0.0},
    ],
)
def test_extreme_phantoms_are_drawn_with_boxes_in_the_image(changed: dict[str, float]) -> None:
    options = replace(SMALL, lesion_share=1.0, **changed)
    for number in range(4):
        woman = imagine(options, number)
        pixels, findings = render(View(woman, "MLO"), str(woman.affected))
        assert np.isfinite(pixels).all()
        assert 0 < pixels.min() < pixels.max() <= 1
        assert len(findings) == len(woman.lesions) >= 1
        for box in findings:
            assert 0 <= box["row_min"] < box["row_max"] <= options.height_pixels
            assert 0 <= box["col_min"] < box["col_max"] <= options.width_pixels


# --- mini-MIAS

INFO = """\
INFORMATION
1st column: MIAS database reference number.
CALC Calcification
F Fatty
mdb001 G CIRC B 535 425 197
mdb002 G CIRC M 522 280 69
mdb002 G CALC B 20 1010 40
mdb003 D NORM
mdb004 D NORM
mdb005 F CALC M *NOTE 3*
mdb006 F NORM
mdb007 G NORM
mdb009 F ARCH B 500 five 30
mdb010 F NORM
mdb011 F NORM
mdb012 F CIRC
mdx013 G SPIC M 100 200 30
mdb015 G NORM
mdb016 G NORM
"""


@pytest.fixture(scope="module")
def mias_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy true to format: PGM and PNG mixed, and faults of every kind."""
    root = tmp_path_factory.mktemp("mias")
    (root / "Info.txt").write_text(INFO)
    ramp = np.tile(np.linspace(0, 255, 1024).astype(np.uint8), (1024, 1))
    for number in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14):
        PillowImage.fromarray(ramp).save(root / f"mdb{number:03d}.{'pgm' if number % 2 else 'png'}")
    PillowImage.fromarray(ramp).save(root / "mdb001.png")
    PillowImage.fromarray(ramp[:512, :512]).save(root / "mdb015.pgm")
    PillowImage.fromarray(ramp).save(root / "mdb016.pgm")
    return root


def read_mias(root: Path | None) -> object:
    return read_exams(DataConfig(source="mias", root=None if root is None else str(root)), Path("unused"))


def test_mias_conforms(mias_root: Path) -> None:
    seen = {f"mdb{n:03d}" for n in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16)}
    tables = check_source(lambda: read_mias(mias_root), seen)
    assert list(tables.exams["image_id"]) == [f"mdb{n:03d}" for n in (1, 2, 3, 4, 5, 6, 11, 12)]
    assert tables.exams[["birads", "density"]].isna().all().all(), "tissue words are not BI-RADS letters"


def test_mias_circles_count_rows_from_the_bottom_and_are_clipped(mias_root: Path) -> None:
    tables = read_mias(mias_root)
    boxes = tables.findings[tables.findings["image_id"] == "mdb002"][BOX_COLUMNS].to_numpy()
    assert boxes.tolist() == [[675, 453, 813, 591], [0, 0, 54, 60]]


def test_mias_finding_without_place_makes_the_image_not_normal(mias_root: Path) -> None:
    tables = read_mias(mias_root)
    rows = tables.findings[tables.findings["image_id"] == "mdb005"]
    assert rows["category"].tolist() == ["calcification"]
    assert rows[BOX_COLUMNS].isna().all().all()
    outcomes = tables.exams.set_index("image_id")["outcome"]
    assert outcomes["mdb005"] == "malignant"
    assert outcomes["mdb006"] == "normal"
    assert outcomes["mdb001"] == "benign"
    assert outcomes["mdb002"] == "malignant"
    assert pd.isna(outcomes["mdb012"]), "a finding without severity has no outcome"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("mdb007", "no partner"),
        ("mdb009", "line 13 cannot be understood"),
        ("mdb010", "no partner"),
        ("mdb014", "not listed"),
        ("mdb015", "512 by 512"),
        ("mdb016", "no partner"),
        ("mdb001.png", "read from mdb001.pgm"),
        ("Info.txt:17", "names no image"),
    ],
)
def test_mias_faults_are_left_out_with_their_reason(mias_root: Path, image: str, reason: str) -> None:
    excluded = read_mias(mias_root).excluded
    assert excluded["image_id"].is_unique
    assert reason in excluded.set_index("image_id")["reason"][image]


def test_mias_listed_image_without_file_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "Info.txt").write_text("mdb001 G NORM\nmdb002 G NORM\n")
    PillowImage.new("L", (1024, 1024)).save(tmp_path / "MDB001.PGM")
    tables = read_mias(tmp_path)
    assert tables.exams.empty
    reasons = tables.excluded.set_index("image_id")["reason"]
    assert "no file mdb002" in reasons["mdb002"]
    assert "no partner" in reasons["mdb001"]


def test_mias_rows_survive_any_text() -> None:
    rows, faults, notes = mias.parse_info("mdb001 G\nmdb002 X NORM\nmdb003 F WHAT B\nmdb004 F CIRC Q\nmdb4 F NORM\n\n")
    assert rows == {}
    assert set(faults) == {"mdb001", "mdb002", "mdb003", "mdb004"}
    assert [line for line, _ in notes] == [5]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "does not exist"),
        (lambda root: root.mkdir(), "is empty"),
        (lambda root: root.write_text(""), "is not a folder"),
        (lambda root: (root.mkdir(), (root / "a.jpg").write_text("")), "has no Info.txt"),
        (lambda root: (root.mkdir(), (root / "in").mkdir(), (root / "in" / "Info.txt").write_text("")), "data.root="),
        (lambda root: (root.mkdir(), (root / "Info.txt").write_text("mdb001 G NORM")), "no image mdbNNN"),
    ],
)
def test_a_bad_mias_root_is_one_line_that_says_what_was_looked_for(tmp_path: Path, make: object, words: str) -> None:
    make(tmp_path / "root")
    with pytest.raises(UserError) as error:
        read_mias(tmp_path / "root")
    assert words in one_line(error)
    assert str(tmp_path / "root") in one_line(error)


def test_mias_without_root_asks_for_it() -> None:
    with pytest.raises(UserError, match=r"data\.root=DIR"):
        read_mias(None)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real mini-MIAS images are not at {REAL}")
def test_real_mini_mias_conforms() -> None:
    seen = {path.stem for path in REAL.glob("mdb*.png")}
    tables = check_source(lambda: read_mias(REAL), seen)
    assert set(tables.exams["image_id"]) == seen
    masses = tables.findings[tables.findings["category"] == "mass"].dropna().merge(tables.exams, on="image_id").head(20)
    brighter = 0
    for row in masses.itertuples():
        pixels = read_image(Path(row.path)).pixels
        inner = pixels[int(row.row_min) : int(row.row_max), int(row.col_min) : int(row.col_max)]
        reach = int(row.row_max - row.row_min) // 2
        top, left = max(0, int(row.row_min) - reach), max(0, int(row.col_min) - reach)
        outer = pixels[top : int(row.row_max) + reach, left : int(row.col_max) + reach]
        brighter += inner.mean() > outer.mean()
    assert brighter >= 18, "masses are brighter than what surrounds them if rows count from the bottom"
