"""OPTIMAM is read without a silent loss, and no exam before, at or after a cancer passes as normal."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from siamray.config import DataConfig, OptimamConfig
from siamray.data.exams import BOX_COLUMNS, ExamTables, exclude_incomplete_pairs
from siamray.data.sources import read_exams
from siamray.data.sources.optimam_image import Facts, box_of, category_of, facts_of
from siamray.errors import UserError
from tests.data.sources import optimam_copy
from tests.data.sources.conformance import check_source
from tests.data.sources.optimam_copy import Client, screened

pytest.importorskip("omidb", reason="needs the extra optimam: pip install 'siamray[optimam]'")
PARTS = ("data", "images")
FACTS = Facts(None, "L", "CC", rows=100, columns=80)


def read(root: Path, **options: Any) -> ExamTables:
    return read_exams(DataConfig(source="optimam", root=str(root), **options), Path("unused"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Client]]:
    root = tmp_path_factory.mktemp("optimam") / "omi-db"
    return root, optimam_copy.write_copy(root)


@pytest.fixture(scope="module")
def tables(written: tuple[Path, dict[str, Client]]) -> ExamTables:
    return read(written[0])


def breast(tables: ExamTables, client: Client, number: int, side: str) -> tuple[Any, Any, list[tuple[str, bool]]]:
    """Outcome and months of a breast in one of a client's studies, and category and whether placed of its findings."""
    exam = f"{client.name}_{list(client.studies)[number]}"
    rows = tables.exams[(tables.exams["exam_id"] == exam) & (tables.exams["laterality"] == side)]
    assert len(rows) == 2
    found = tables.findings[tables.findings["image_id"].isin(rows["image_id"])]
    values = [None if pd.isna(rows[name].iloc[0]) else rows[name].iloc[0] for name in ("outcome", "outcome_months")]
    return values[0], values[1], list(zip(found["category"], found["row_min"].notna(), strict=True))


OPEN = [("other", False)] * 2


# --- the copy


def test_the_copy_conforms(written: tuple[Path, dict[str, Client]]) -> None:
    root = written[0]
    seen = {path.stem for path in root.rglob("*.dcm")}
    tables = check_source(lambda: read(root), seen, at_most=40)
    listed = {image for client in written[1].values() for study in client.studies for image, _ in client.images(study)}
    assert listed - {"null"} <= set(tables.exams["image_id"]) | set(tables.excluded["image_id"])
    assert set(tables.exams["vendor"]) == {"hologic"}
    assert set(tables.exams["age"].dropna()) == {53}
    assert set(tables.exams["site"]) == {"adde"}


def test_no_name_date_or_number_of_nbss_reaches_the_tables(tables: ExamTables) -> None:
    text = "".join(frame.drop(columns="path", errors="ignore").to_csv() for frame in vars(tables).values())
    for secret in (
        optimam_copy.SECRET,
        "Mary",
        "9434765919",
        "2012-05-30",
        "20120530",
        "2010-03-01",
        "2000,",
        "spring",
    ):
        assert secret not in text


@pytest.mark.parametrize(
    ("name", "study", "cancer_side", "other_side"),
    [
        ("demd1", 0, ("normal", 36.0, []), ("normal", 36.0, [])),
        ("demd1", 1, (None, None, []), (None, None, [])),
        ("demd2", 0, (None, None, []), (None, None, [])),
        ("optm3", 0, ("benign", 0.7, [("architectural_distortion", True)] * 2), (None, None, [])),
        ("optm4", 0, ("normal", 36.0, []), ("normal", 36.0, [])),
        ("optm5", 0, (None, None, OPEN), (None, None, OPEN)),
        ("demd11", 0, ("malignant", 0.7, [("mass", False)] * 2), (None, None, [])),
        ("optm12", 0, (None, None, OPEN), ("normal", 72.0, [])),
        ("optm12", 1, ("malignant", 1.0, [("calcification", True)] * 2), ("normal", 36.0, [])),
        ("optm12", 2, (None, None, OPEN), (None, None, [])),
        ("optm20", 0, ("interval_cancer", 18.0, []), (None, None, [])),
        ("optm21", 0, (None, None, OPEN), (None, None, [])),
        ("optm21", 1, ("interval_cancer", 0.1, [("mass", False)] * 2), (None, None, OPEN)),
        ("optm22", 0, (None, None, OPEN), (None, None, OPEN)),
        ("demd30", 0, (None, None, OPEN), (None, None, OPEN)),
        ("demd34", 0, (None, None, OPEN), (None, None, OPEN)),
        ("demd35", 0, (None, None, OPEN), (None, None, OPEN)),
    ],
)
def test_what_became_of_each_breast(
    written: tuple[Path, dict[str, Client]],
    tables: ExamTables,
    name: str,
    study: int,
    cancer_side: tuple[Any, ...],
    other_side: tuple[Any, ...],
) -> None:
    client = written[1][name]
    assert breast(tables, client, study, client.side) == cancer_side
    assert breast(tables, client, study, optimam_copy.OTHER[client.side]) == other_side


def test_an_exam_before_a_cancer_of_the_next_screen_is_normal_only_by_option(
    written: tuple[Path, dict[str, Client]],
) -> None:
    client = written[1]["optm12"]
    asked = read(written[0], optimam=OptimamConfig(later_cancer="normal"))
    assert breast(asked, client, 0, client.side) == ("normal", None, [])


def test_the_windows_are_options(written: tuple[Path, dict[str, Client]]) -> None:
    clients = written[1]
    short = read(written[0], optimam=OptimamConfig(interval_months=12, follow_up_months=40))
    assert breast(short, clients["optm20"], 0, "L") == (None, None, OPEN)
    assert breast(short, clients["demd1"], 0, "L") == (None, None, [])
    long = read(written[0], optimam=OptimamConfig(interval_months=48))
    assert breast(long, clients["optm21"], 0, clients["optm21"].side) == ("interval_cancer", 40.1, [])


def test_marks_are_the_boxes_that_were_drawn(written: tuple[Path, dict[str, Client]], tables: ExamTables) -> None:
    client = written[1]["demd10"]
    for image, boxes in client.boxes.items():
        found = tables.findings[tables.findings["image_id"] == image]
        assert found["category"].tolist() == [box["category"] for box in boxes]
        for row, box in zip(found[BOX_COLUMNS].to_numpy(), boxes, strict=True):
            assert row.tolist() == pytest.approx([box[name] for name in BOX_COLUMNS], abs=0.5)


def test_a_raw_twin_is_left_out_and_its_processed_image_used(
    written: tuple[Path, dict[str, Client]], tables: ExamTables
) -> None:
    raw = tables.excluded[tables.excluded["reason"] == "for processing, not for presentation"]
    assert len(raw) == 4
    paired = exclude_incomplete_pairs(tables, "leave_out").exams
    assert (paired["woman_id"] == "demd1").sum() == 8


def test_what_is_missing_or_damaged_costs_only_itself(
    written: tuple[Path, dict[str, Client]], tables: ExamTables
) -> None:
    reasons = dict(zip(tables.excluded["image_id"], tables.excluded["reason"], strict=True))
    kept = tables.exams.set_index("image_id")
    client = written[1]["demd32"]
    study = next(iter(client.studies))
    one, two, three = (image for image, _ in client.images(study))
    assert kept.loc[[one, two], "laterality"].tolist() == ["L", "L"], "the images' own headers say it"
    assert reasons[three] == "listed in the client's imagedb JSON, but there is no such file"
    assert str(client.path(study, three)) in set(tables.excluded["path"])
    (unlisted,) = {path.stem for path in client.path(study, "x").parent.iterdir()} - {one, two}
    assert "not listed in the client's imagedb JSON" in reasons[unlisted]
    client = written[1]["demd33"]
    magnified, implant, *_ = (image for image, _ in client.images(next(iter(client.studies))))
    assert (reasons[magnified], reasons[implant]) == ("magnification view", "breast with an implant")
    assert "nbss JSON is missing" in reasons["demd30 nbss"]
    assert "nbss JSON is damaged" in reasons["demd35 nbss"]
    assert reasons["demd34 nbss 1"] == "episode 3 of 3 cannot be read (ValueError)"
    assert sum("imagedb JSON is missing" in reason for reason in reasons.values()) == 4
    assert len(reasons) == 4 + 4 + 2 + 2 + 3


def test_nothing_that_omidb_reads_is_missing_and_its_classification_agrees(
    written: tuple[Path, dict[str, Client]], tables: ExamTables
) -> None:
    import omidb
    from omidb.classificationtools import episode_outcome

    words = {"CI": {"interval_cancer"}, "M": {"malignant"}, "CIP": {"interval_cancer"}, "B": {"benign"}}
    # omidb judges episodes: whether the breast is known, or its lesions agree with its opinions, does not matter there.
    open_here = ("optm5", "optm22")
    images: set[str] = set()
    compared: set[str] = set()
    for client in omidb.DB(written[0] / "data", written[0] / "images"):
        for part in client.episodes:
            outcome, _ = episode_outcome(part, client.episodes, num_months_ci_prior=36, num_months_cancer_prior=39)
            for study in part.studies:
                images |= {image.id for series in study.series for image in series.images}
                rows = tables.exams[tables.exams["exam_id"] == f"{client.id}_{study.id}"]
                ours = set(rows["outcome"].dropna())
                compared.add(outcome.name)
                if client.id in open_here:
                    assert not ours
                elif outcome.name in words:
                    assert words[outcome.name] <= ours, f"{client.id}: {outcome.name}, but {ours}"
                else:
                    assert ours <= {"normal", "benign"}, f"{client.id}: {outcome.name}, but {ours}"
    assert compared >= {"CI", "CIP", "M", "MP", "B", "N"}
    ours = set(tables.exams["image_id"]) | set(tables.excluded["image_id"])
    assert images <= ours
    kept_by_omidb = tables.exams["image_id"].isin(images)
    assert set(tables.exams.loc[~kept_by_omidb, "woman_id"]) == {"demd30", "demd34", "demd35"}, "whom omidb skips"


# --- marks and headers

CORNERS = {"X1": "10", "Y1": "20", "X2": "30", "Y2": "50"}


@pytest.mark.parametrize(
    ("corners", "origin", "box"),
    [
        ({}, "top", [20, 10, 50, 30]),
        ({}, "bottom", [50, 10, 80, 30]),
        ({"X1": "30", "X2": "10", "Y1": "50", "Y2": "20"}, "top", [20, 10, 50, 30]),
        ({"X1": "-4", "Y2": "130.0"}, "top", [20, 0, 100, 30]),
        ({"X2": 95}, "bottom", [50, 10, 80, 80]),
    ],
)
def test_marks_become_boxes_inside_the_image(corners: dict[str, Any], origin: str, box: list[float]) -> None:
    assert list(box_of({**CORNERS, **corners}, FACTS, origin).values()) == box


@pytest.mark.parametrize(
    ("corners", "reason"),
    [
        ({"X1": "wide"}, "its corners are not four numbers"),
        ({"X1": None}, "its corners are not four numbers"),
        ({"X1": "inf"}, "its corners are not four numbers"),
        ({"X2": "10"}, "it is empty"),
        ({"X1": "90", "X2": "95"}, "it lies outside the image"),
    ],
)
def test_a_mark_without_a_place_says_why(corners: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        box_of({**CORNERS, **corners}, FACTS, "top")


def test_a_mark_whose_place_cannot_be_read_is_still_a_finding(tmp_path: Path) -> None:
    client = Client(tmp_path, "demd1", 5, lesions=True)
    study = client.study("1", "2012-05-30", marks=True)
    for _, series in client.images(study):
        for found in series.values():
            for each in (found or {}).values():
                each["X1"] = "?"
    client.finish({"1": screened("2012-05-30")})
    tables = read(tmp_path)
    assert tables.findings["category"].tolist() == ["calcification", "mass"] * 2
    assert tables.findings[BOX_COLUMNS].isna().all().all()
    assert tables.excluded["reason"].str.contains("the finding is kept without it").sum() == 4


@pytest.mark.parametrize(
    ("told", "site"),
    [("stge", "stge"), (7, "7"), (None, None), ({"name": "adde"}, None), ("Example Hospital, 1 High Street", None)],
)
def test_a_site_is_the_sets_code_and_nothing_longer(tmp_path: Path, told: Any, site: str | None) -> None:
    client = Client(tmp_path, "demd00001", 1)
    client.study("1", "2012-05-30")
    client.finish({"1": screened("2012-05-30")})
    path = tmp_path / "data" / client.name / f"imagedb_{client.name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "Site": told}))
    sites = read(tmp_path).exams["site"]
    assert len(sites) == 4
    assert {None if pd.isna(value) else value for value in sites} == {site}


def test_a_mark_in_a_breast_that_is_called_normal_leaves_its_outcome_open(tmp_path: Path) -> None:
    client = Client(tmp_path, "demd1", 5, lesions=True)
    client.study("1", "2012-05-30", marks=True)
    client.finish({"1": screened("2012-05-30"), "2": screened("2015-05-30")})
    outcomes = read(tmp_path).exams.groupby("laterality")["outcome"].first()
    assert pd.isna(outcomes[client.side])
    assert outcomes[optimam_copy.OTHER[client.side]] == "normal"


@pytest.mark.parametrize(
    ("mark", "category"),
    [
        ({"MassClassification": "spiculated", "WithCalcification": "1"}, "mass"),
        ({"SuspiciousCalcifications": "1"}, "calcification"),
        ({"FocalAsymmetry": True}, "focal_asymmetry"),
        ({"Mass": "0", "WithCalcification": "N", "LinkedNBSSLesionNumber": "02"}, "lymph_node"),
        ({"LinkedNBSSLesionNumber": "1,2"}, "other"),
        ({"LinkedNBSSLesionNumber": "7"}, "other"),
        ({}, "other"),
    ],
)
def test_a_mark_is_what_it_says_else_what_its_lesion_is(mark: dict[str, Any], category: str) -> None:
    assert category_of(mark, {"1": "mass", "2": "lymph_node"}) == category


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"00080060": "US"}, "not a mammogram: its Modality is not MG"),
        ({"00200062": ""}, "its header does not say which breast it shows"),
        ({"00185101": "Mary Example"}, "its header names no view that is known"),
        ({"00185101": "ML"}, "view ML; CC and MLO are compared"),
        ({"00280008": "many"}, "its JSON cannot be understood (ValueError)"),
        ({"00181114": "1.8"}, "magnification view (factor 1.80)"),
    ],
)
def test_headers_of_no_use_say_why(elements: dict[str, str], reason: str) -> None:
    values = {"00080060": "MG", "00200062": "L", "00185101": "CC", **elements}
    facts = facts_of({tag: {"vr": "CS", "Value": [value]} for tag, value in values.items()}, frozenset())
    assert facts.reason == reason


# --- roots and packages


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root, ["does not exist"]),
        (lambda root: root.mkdir(), ["is empty", "data/CLIENT/imagedb_CLIENT.json"]),
        (lambda root: (root / "images" / "demd1").mkdir(parents=True), ["has no folder data"]),
        (lambda root: (root / "data" / "demd1").mkdir(parents=True), ["has no folder images"]),
        (lambda root: [(root / part / "x").mkdir(parents=True) for part in PARTS], ["has no client folder"]),
        (lambda root: [(root / "omi-db" / part / "demd1").mkdir(parents=True) for part in PARTS], ["omi-db is"]),
    ],
)
def test_a_root_that_is_not_the_set_is_one_line(
    tmp_path: Path, make: Callable[[Path], object], words: list[str]
) -> None:
    make(tmp_path / "root")
    with pytest.raises(UserError) as error:
        read(tmp_path / "root")
    for word in (*words, str(tmp_path / "root")):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("below", ["data", "images", "data/demd1"])
def test_a_root_one_level_too_low_is_told_the_right_folder(written: tuple[Path, dict[str, Client]], below: str) -> None:
    with pytest.raises(UserError, match=r"but data\.root=") as error:
        read(written[0] / below)
    assert f"data.root={written[0]} is; use that" in str(error.value)


def test_without_omidb_one_line_names_the_extra(
    written: tuple[Path, dict[str, Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "omidb"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "omidb", None)
    with pytest.raises(UserError, match=r"pip install 'siamray\[optimam\]'"):
        read(written[0])


def test_folders_and_files_of_no_client_or_study_are_listed(tmp_path: Path) -> None:
    client = Client(tmp_path, "demd1", 0)
    study = client.study("1", "2012-05-30")
    client.studies["1.2.3"] = None
    client.finish({"1": screened("2012-05-30")})
    (tmp_path / "data" / "notes").mkdir()
    (tmp_path / "data" / "demd1" / "more.json").write_text("{}")
    (tmp_path / "images" / "demd2" / "9.9").mkdir(parents=True)
    shutil.copy(
        next((tmp_path / "images" / "demd1" / study).iterdir()), tmp_path / "images" / "demd2" / "9.9" / "9.1.dcm"
    )
    tables = read(tmp_path)
    reasons = dict(zip(tables.excluded["image_id"], tables.excluded["reason"], strict=True))
    assert len(tables.exams) == 4
    assert set(reasons) == {"notes", "demd1/more.json", "9.1", "demd2 nbss"}
    assert "imagedb JSON is missing" in reasons["9.1"]


def test_an_image_that_two_studies_list_counts_once(tmp_path: Path) -> None:
    client = Client(tmp_path, "demd1", 0)
    study = client.study("1", "2012-05-30")
    client.studies["1.2.3"] = json.loads(json.dumps(client.studies[study]))
    for part in ("data", "images"):
        shutil.copytree(tmp_path / part / "demd1" / study, tmp_path / part / "demd1" / "1.2.3")
    client.finish({"1": screened("2012-05-30")})
    tables = read(tmp_path)
    assert len(tables.exams) == 4
    assert (tables.excluded["reason"] == "an image of this id is in another study too").sum() == 4
