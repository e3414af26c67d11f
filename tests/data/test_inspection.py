"""Inspection: everything that preparing would meet is counted and shown, from tables and headers alone."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest

from siamray.compose import compose
from siamray.config import Config, NormalConfig
from siamray.data import contact_sheet, header_reading, observation
from siamray.data.dicom import Header
from siamray.data.exams import ExamTables, tables
from siamray.data.header_reading import Reading, read_headers
from siamray.data.inspection import KEPT, Inspection, breast_states, describe, distribution, inspect
from siamray.data.observation import Observed, observe
from siamray.data.store import Store
from siamray.data.troubles import LEFT_OUT, SEVERITIES, TO_CHECK, TO_KNOW
from siamray.errors import UserError
from siamray.prepare import main
from tests.conftest import TINY_PREPARATION

ROOT = Path("/root-of-the-set")
HEADER = Header(
    kind="DICOM",
    syntax="Explicit VR Little Endian",
    rows=400,
    columns=300,
    bits=12,
    photometric="MONOCHROME2",
    grey="window",
    padding=None,
    spacing_mm=0.1,
    spacing_from="ImagerPixelSpacing",
    laterality=None,
    view=None,
    vendor="hologic",
    reason=None,
)
BOX = {"row_min": 100.0, "col_min": 50.0, "row_max": 150.0, "col_max": 90.0}


def women(count: int = 8) -> list[dict[str, Any]]:
    """Rows of women w00, w01, ... with a CC image of each side; their files are in folders of their own."""
    return [
        {
            "source": "folder",
            "woman_id": f"w{number:02d}",
            "exam_id": f"w{number:02d}",
            "image_id": f"w{number:02d}_{side}",
            "laterality": side,
            "view": "CC",
            "path": str(ROOT / f"w{number:02d}" / f"w{number:02d}_{side}.dcm"),
        }
        for number in range(count)
        for side in ("L", "R")
    ]


def finding(image: str, **changed: Any) -> dict[str, Any]:
    return {"image_id": image, "category": "mass"} | BOX | changed


@cache
def composed(words: tuple[str, ...]) -> Config:
    return compose("prepare", ["data=mias", f"data.root={ROOT}", "preparation.cpus=1", *words])


class Set:
    """A data set as its source and its files tell it, to be changed by a test and then inspected."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exams = women()
        self.findings = [finding(f"w{number:02d}_L") for number in range(8)]
        self.excluded: list[dict[str, Any]] = []
        self.headers: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, str] = {}
        self.words: list[str] = []
        monkeypatch.setattr(observation, "read_exams", lambda *_: self.tables())
        monkeypatch.setattr(observation, "read_headers", lambda paths, *_, **__: [self.reading(path) for path in paths])

    def tables(self) -> ExamTables:
        return tables(self.exams, self.findings, self.excluded)

    def reading(self, path: str) -> Reading:
        image = Path(path).stem
        if image in self.faults:
            return Reading(None, self.faults[image], 0.001)
        return Reading(Header(**vars(HEADER) | self.headers.get(image, {})), None, 0.001)

    def row(self, image: str) -> dict[str, Any]:
        return next(row for row in self.exams if row["image_id"] == image)

    @property
    def config(self) -> Config:
        return composed(tuple(self.words))

    def observed(self) -> Observed:
        return observe(self.config, progress=False)

    def inspected(self) -> Inspection:
        return describe(self.observed(), self.config)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Set:
    return Set(monkeypatch)


def labels(record: Inspection, group: str) -> dict[str, int]:
    return {row.name: row.usable for row in record.labels if row.group == group}


def test_a_sound_set_has_no_trouble_and_all_its_pairs(data: Set) -> None:
    record = data.inspected()
    assert record.troubles == []
    assert record.pairs[-1] == {"view": "all", "left": 8, "right": 8, "pairs": 8, "usable": 8, "women": 8}
    assert labels(record, "") == {"women": 8, "exams": 8, "breasts": 16, "images": 16}
    json.dumps(record.to_dict(), allow_nan=False)


def reject(image: str, **header: Any) -> Any:
    return lambda data: data.headers.update({image: header})


def table(image: str, **cells: Any) -> Any:
    return lambda data: data.row(image).update(cells)


def mark(**changed: Any) -> Any:
    return lambda data: data.findings.append(finding("w03_L", **changed))


NOWHERE = dict.fromkeys(BOX, float("nan"))


@pytest.mark.parametrize(
    ("change", "severity", "kind", "count"),
    [
        (reject("w03_L", reason="for processing, not for presentation"), LEFT_OUT, "for processing", 1),
        (reject("w03_L", reason="for processing, not for presentation"), LEFT_OUT, "its partner", 1),
        (reject("w03_L", reason="breast with an implant"), LEFT_OUT, "implant", 1),
        (reject("w03_L", rows=20_000, columns=20_000), LEFT_OUT, "preparation.maximum_megapixels=64", 1),
        (reject("w03_L", spacing_mm=None, spacing_from=None), LEFT_OUT, "its pixel spacing is unknown", 1),
        (lambda data: data.faults.update(w03_L="the file is empty"), LEFT_OUT, "the file is empty", 1),
        (lambda data: data.exams.pop(0), LEFT_OUT, "no partner", 1),
        (reject("w03_L", laterality="R"), TO_CHECK, "laterality: table and header differ", 1),
        (reject("w03_L", view="MLO"), TO_CHECK, "view: table and header differ", 1),
        (table("w03_L", vendor="siemens"), TO_CHECK, "vendor: table and header differ", 1),
        (table("w03_L", spacing_mm=0.2), TO_CHECK, "spacing: table and header differ", 1),
        (reject("w03_L", spacing_mm=0.2), TO_CHECK, "the two sides differ in spacing", 1),
        (reject("w03_L", vendor="ge"), TO_CHECK, "the two sides differ in vendor", 1),
        (reject("w03_L", photometric="MONOCHROME1"), TO_CHECK, "the two sides differ in photometric", 1),
        (reject("w03_L", photometric="MONOCHROME1"), TO_KNOW, "MONOCHROME1 beside MONOCHROME2", 1),
        (reject("w03_L", grey="no window"), TO_KNOW, "neither window nor VOI LUT", 1),
        (reject("w03_L", grey="window, 2 alternatives"), TO_KNOW, "several windows", 1),
        (reject("w03_L", syntax="JPEG Baseline (Process 1)"), TO_KNOW, "compressed with loss", 1),
        (mark(row_max=400.0), TO_KNOW, "ending at the image's edge", 1),
        (mark(row_max=401.0), TO_CHECK, "reaching beyond the image", 1),
        (mark(row_min=500.0, row_max=550.0), TO_CHECK, "wholly outside the image", 1),
        (mark(**NOWHERE), TO_KNOW, "place unknown", 1),
        (table("w03_R", birads=5), TO_KNOW, "nothing marked, but BI-RADS 5", 1),
        (table("w03_R", outcome="interval_cancer"), TO_KNOW, "nothing marked, but outcome interval_cancer", 1),
        (lambda data: data.findings.clear(), TO_CHECK, "no finding has a place", 8),
        (lambda data: data.words.append("data.folds=9"), TO_CHECK, "no splits: data.folds=9", 8),
    ],
)
def test_each_kind_of_trouble_is_told_with_its_count_and_where(
    data: Set, change: Any, severity: str, kind: str, count: int
) -> None:
    change(data)
    found = [trouble for trouble in data.inspected().troubles if kind in trouble.kind]
    assert len(found) == 1, [trouble.kind for trouble in data.inspected().troubles]
    assert (found[0].severity, found[0].count) == (severity, count)
    if found[0].of not in ("women", "woman"):
        assert [example.image_id[:3] for example in found[0].examples] == ["w00" if kind == "no partner" else "w03"]


@pytest.mark.parametrize(
    ("change", "kind", "option"),
    [
        (reject("w03_L", reason="breast with an implant"), "implant", "data.implants=true"),
        (reject("w03_L", spacing_mm=None), "spacing is unknown", "data.assumed_spacing_mm"),
        (lambda data: data.exams.append(women(1)[0] | {"image_id": "x", "path": "/x"}), "another", "data.duplicates"),
    ],
)
def test_the_remedy_names_the_option(data: Set, change: Any, kind: str, option: str) -> None:
    change(data)
    assert option in next(trouble.remedy for trouble in data.inspected().troubles if kind in trouble.kind)


def test_what_an_option_settles_is_no_longer_left_out(data: Set) -> None:
    data.headers = {row["image_id"]: {"spacing_mm": None, "spacing_from": None} for row in data.exams}
    assert data.inspected().pairs[-1]["usable"] == 0
    data.words = ["data.assumed_spacing_mm=0.05"]
    record = data.inspected()
    assert record.pairs[-1]["usable"] == 8
    assert [(trouble.severity, trouble.count) for trouble in record.troubles] == [(TO_KNOW, 16)]
    assert record.boxes[0]["long_mm"] == pytest.approx([2.5, 2.5, 2.5])


def test_the_tables_spacing_wins_and_all_are_counted_by_where_they_come_from(data: Set) -> None:
    for image in ("w00_L", "w00_R"):
        data.row(image)["spacing_mm"] = 0.1
    shown = {entry.name: entry for entry in data.inspected().headers}
    assert shown["spacing from"].counts == {"ImagerPixelSpacing": 14, "the source's table": 2}
    assert shown["spacing, mm"].range == (0.1, 0.1, 0.1)
    assert shown["long side, cm"].counts == {"4": 16}


def test_examples_are_spread_and_named_relative_to_the_root(data: Set) -> None:
    for row in data.exams:
        data.headers[row["image_id"]] = {"laterality": "R" if row["laterality"] == "L" else "L"}
    trouble = data.inspected().troubles[0]
    assert trouble.count == 16
    assert [example.file for example in trouble.examples] == ["w00/w00_L.dcm", "w04/w04_L.dcm", "w07/w07_R.dcm"]
    assert trouble.examples[0].detail == "table L, header R"
    assert str(ROOT) not in json.dumps(data.inspected().to_dict()["troubles"])


def test_reasons_that_differ_in_numbers_and_files_only_are_one_kind(data: Set) -> None:
    data.excluded = [
        {
            "image_id": f"i{i}",
            "path": str(ROOT / f"i{i}.dcm"),
            "reason": f"listed in a.csv, but there is no file i{i}.dcm",
        }
        for i in range(5)
    ]
    data.excluded += [{"image_id": "a.csv:7", "path": str(ROOT / "a.csv"), "reason": "line 7 cannot be understood"}]
    data.headers = {f"w0{i}_L": {"reason": f"magnification view (factor 1.{i})"} for i in (6, 7)}
    found = {trouble.kind: trouble for trouble in data.inspected().troubles}
    listed = found["listed in a.csv, but there is no file ..."]
    assert (listed.count, listed.of, listed.severity) == (5, "images", LEFT_OUT)
    assert listed.examples[0].detail == "listed in a.csv, but there is no file i0.dcm"
    assert found["magnification view (factor ...)"].count == 2
    # A row of a table is no image.
    row = found["line 7 cannot be understood"]
    assert (row.count, row.of, row.severity) == (1, "row", TO_CHECK)


def test_a_breast_that_is_normal_only_without_an_image_that_is_left_out_is_told(data: Set) -> None:
    row = data.row("w03_R")
    data.exams.append(row | {"image_id": "w03_R_MLO", "view": "MLO", "path": str(ROOT / "w03_R_MLO.dcm")})
    data.findings.append(finding("w03_R_MLO"))
    record = data.inspected()
    found = [trouble for trouble in record.troubles if "for want of what a view" in trouble.kind]
    assert [(example.image_id, example.detail) for example in found[0].examples] == [
        ("w03_R", "marked: a lesion, and normal beside its boxes")
    ]
    states = {row.name: (row.listed, row.usable) for row in record.labels if "what counts" in row.group}
    assert states == {
        "normal: nothing marked": (7, 8),
        "marked: a lesion, and normal beside its boxes": (9, 8),
    }


def test_a_set_none_of_whose_images_can_be_used_is_reported_all_the_same(data: Set) -> None:
    data.faults = {row["image_id"]: "the file is empty" for row in data.exams}
    record = data.inspected()
    assert record.pairs[-1]["usable"] == 0
    assert ("the file is empty", 16) in [(trouble.kind, trouble.count) for trouble in record.troubles]
    assert contact_sheet.contact_sheet(data.observed(), data.config, progress=False) == []
    json.dumps(record.to_dict(), allow_nan=False)


def test_a_duplicate_that_would_do_is_told_where_the_one_used_will_not(data: Set) -> None:
    data.exams.append(data.row("w03_L") | {"image_id": "w03_L_again", "path": str(ROOT / "w03_L_again.dcm")})
    data.headers["w03_L"] = {"reason": "for processing, not for presentation"}
    found = [trouble for trouble in data.inspected().troubles if "not used, though" in trouble.kind]
    assert [example.image_id for example in found[0].examples] == ["w03_L_again"]
    assert "for processing" in found[0].examples[0].detail


def test_troubles_come_by_gravity_and_then_by_number(data: Set) -> None:
    data.headers = {"w00_L": {"laterality": "R"}, "w01_L": {"grey": "no window"}, "w02_R": {"reason": "for processing"}}
    data.headers |= {f"w0{i}_L": {"view": "ML"} for i in (4, 5)}
    told = [(SEVERITIES.index(trouble.severity), -trouble.count) for trouble in data.inspected().troubles]
    assert told == sorted(told)
    assert len(told) >= 5


@pytest.mark.parametrize(
    ("birads", "outcome", "findings", "normal", "state"),
    [
        (None, None, [], NormalConfig(), "normal: nothing marked"),
        (2, "benign", [], NormalConfig(), "normal: nothing marked"),
        (3, None, [], NormalConfig(), "neither: nothing marked, but BI-RADS 3"),
        (3, None, [], NormalConfig(birads=[1, 2, 3]), "normal: nothing marked"),
        (1, "malignant", [], NormalConfig(), "neither: nothing marked, but outcome malignant"),
        (5, "malignant", [BOX], NormalConfig(), "marked: a lesion, and normal beside its boxes"),
        (5, None, [BOX], NormalConfig(beside_findings=False), "marked: a lesion, and beside its boxes neither"),
        (1, None, [BOX, NOWHERE], NormalConfig(), "neither: a finding of unknown place"),
    ],
)
def test_what_counts_as_normal_is_what_the_options_say(
    birads: int | None, outcome: str | None, findings: list[dict[str, float]], normal: NormalConfig, state: str
) -> None:
    row = women(1)[0] | {"birads": birads, "outcome": outcome}
    # The other view of the breast says nothing of its own: one breast, one state.
    other = row | {"image_id": "other", "path": "/other", "view": "MLO", "birads": None, "outcome": None}
    made = tables([row, other], [finding("w00_L") | box for box in findings])
    states = breast_states(made.exams, made.findings, normal)
    assert list(states["state"]) == [state]
    assert (states["birads"].iloc[0], states["outcome"].iloc[0]) == (birads, outcome)


def test_distributions_keep_the_most_frequent_and_count_the_rest() -> None:
    values = pd.Series([0.07] * 5 + [0.085] * 3 + [float("nan")] * 2 + [1 + i / 100 for i in range(KEPT)])
    found = distribution("spacing", values)
    assert list(found.counts.items())[:2] == [("0.07", 5), ("0.085", 3)]
    assert len(found.counts) == KEPT
    assert found.further == (2, 2)
    assert found.unknown == 2
    assert found.range == pytest.approx((0.07, float(np.median(values.dropna())), 1 + (KEPT - 1) / 100))


def test_splits_and_labels_are_those_that_training_will_deal(tiny_config: Config, tiny_store: Store) -> None:
    record = inspect(tiny_config, progress=False)
    dealt = tiny_store.split(tiny_config.data).value_counts().to_dict()
    assert record.labels[0].splits == dealt
    assert record.labels[0].usable == tiny_store.entries["woman_id"].nunique()
    assert record.pairs[-1]["usable"] == len(tiny_store.entries)
    assert sum(labels(record, "findings").values()) == len(tiny_store.findings)


def test_images_are_counted_by_the_sites_that_the_source_tells(data: Set) -> None:
    for row in data.exams:
        row["site"] = {"w00": "north", "w01": "2"}.get(row["woman_id"])
    assert labels(data.inspected(), "images by site") == {"2": 2, "north": 2, "unknown": 12}


def test_the_official_split_counts_only_if_it_shall(data: Set) -> None:
    for row in data.exams:
        row["split"] = "test" if row["woman_id"] in ("w00", "w01", "w02") else "training"
    assert data.inspected().labels[0].splits["test"] == 3
    data.words = ["data.official_split=false"]
    assert data.inspected().labels[0].splits["test"] == 2


def test_headers_come_in_the_order_of_their_paths_from_one_process_and_from_several(
    tiny_config: Config, tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(path) for path in tiny_store.exams["path"]][:10]
    paths.insert(3, "/nowhere/a.dcm")
    alone = read_headers(paths, frozenset(), 1, progress=False)
    monkeypatch.setattr(header_reading, "IN_THIS_PROCESS", 0)
    monkeypatch.setattr(header_reading, "CHUNK", 3)
    several = read_headers(paths, frozenset(), 2, progress=False)
    assert [(r.header, r.fault) for r in alone] == [(r.header, r.fault) for r in several]
    assert [r.fault for r in alone if r.header is None] == ["the file does not exist"]
    sides = [f"{r.header.laterality}_{r.header.view}" for r in alone if r.header]
    assert sides == [Path(path).stem[-len(side) :] for path, side in zip(paths[:3] + paths[4:], sides, strict=True)]


def test_a_header_that_breaks_the_reader_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Header:
        raise RuntimeError("Doe^Jane")

    monkeypatch.setattr(header_reading, "read_header", broken)
    (reading,) = read_headers(["/a.dcm"], frozenset(), 1, progress=False)
    assert reading.fault == "its header cannot be read (RuntimeError)"


def test_pairs_are_drawn_by_the_seed_half_of_them_with_a_lesion_of_many_women(data: Set) -> None:
    data.exams = women(40)
    data.findings = [finding(f"w{number:02d}_R") for number in range(20)]
    observed = data.observed()
    drawn = contact_sheet.draw_pairs(observed, 12, 7)
    assert drawn == contact_sheet.draw_pairs(observed, 12, 7)
    assert drawn != contact_sheet.draw_pairs(observed, 12, 8)
    assert [int(exam[1:]) < 20 for exam, _ in drawn] == [True] * 6 + [False] * 6
    assert len({exam for exam, _ in drawn}) == 12


@pytest.mark.parametrize(("marked", "wanted"), [(0, 0), (2, 2), (8, 8), (5, 5)])
def test_where_lesions_are_rare_or_frequent_the_sheet_is_full_all_the_same(data: Set, marked: int, wanted: int) -> None:
    data.findings = [finding(f"w{number:02d}_R") for number in range(marked)]
    drawn = contact_sheet.draw_pairs(data.observed(), 12, 0)
    assert len(drawn) == 8
    assert sum(int(exam[1:]) < marked for exam, _ in drawn) == wanted


def test_pairs_whose_headers_are_refused_are_not_drawn(data: Set) -> None:
    data.headers = {f"w0{i}_L": {"reason": "for processing"} for i in range(5)}
    assert sorted(exam for exam, _ in contact_sheet.draw_pairs(data.observed(), 12, 0)) == ["w05", "w06", "w07"]


def test_tiles_show_what_the_store_holds(tiny_config: Config, tiny_store: Store) -> None:
    observed = observe(tiny_config, progress=False)
    tiles = contact_sheet.contact_sheet(observed, tiny_config, 4, progress=False)
    assert [bool(tile.boxes) for tile in tiles] == [True, True, False, False]
    for tile in tiles:
        stored = tiny_store.image(f"{tile.exam_id}_{tile.view}", "right")
        scale = min(1.0, contact_sheet.LONGEST_SIDE / max(stored.shape))
        assert tile.images["right"].shape == tile.images["left"].shape
        assert tile.images["right"].shape == pytest.approx([side * scale for side in stored.shape], abs=1)
        if scale == 1:
            np.testing.assert_array_equal(tile.images["right"], stored >> 8)
        kept = tiny_store.findings[tiny_store.findings["entry_id"] == f"{tile.exam_id}_{tile.view}"]
        boxes = [[box[name] for name in BOX] for box in tile.boxes]
        np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), kept[list(BOX)].dropna().to_numpy() * scale)
        assert tile.outline
        fit = tiny_store.record(f"{tile.exam_id}_{tile.view}")["registration"]
        assert tile.registration == {name: fit[name] for name in ("kind", "dice", "correlation", "quality")}


def test_a_pair_that_cannot_be_prepared_is_shown_with_its_reason(data: Set) -> None:
    tiles = contact_sheet.contact_sheet(data.observed(), data.config, 2, progress=False)
    assert [tile.reason for tile in tiles] == ["the file does not exist"] * 2
    assert not any(tile.images for tile in tiles)


def test_the_command_prints_the_report_writes_the_page_and_prepares_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siamray.prepare.prepare", lambda _: pytest.fail("a store was prepared"))
    page = tmp_path / "deep" / "page.html"
    main([*TINY_PREPARATION, "data.phantom.women=8", "inspect=true", f"page={page}"])
    shown = capsys.readouterr().out
    assert shown.rstrip().splitlines()[-1] == f"page: {page}"
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines()[:-1])) <= 100
    for words in ("women", "transfer syntax", "MONOCHROME2", "breasts by BI-RADS", "breasts by what counts as normal"):
        assert words in shown, words
    assert page.read_text(encoding="utf-8").count("<img src=") == 24


def test_no_identifying_value_of_a_header_is_shown(
    tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = women(4)
    source = tiny_store.exams.loc[tiny_store.exams["view"] == "CC", "path"][:8]
    for number, (row, path) in enumerate(zip(rows, source, strict=True)):
        dataset = pydicom.dcmread(path)
        dataset.PatientName, dataset.PatientID, dataset.InstitutionName = "Secret^Jane", "SECRET-ID", "Secret Hospital"
        dataset.StudyDate, dataset.Manufacturer, dataset.ViewPosition = "19870605", "Secret Hospital Ltd", "CC"
        if number == 3:
            dataset.PresentationIntentType = "FOR PROCESSING"
        row["path"] = str(tmp_path / f"{row['image_id']}.dcm")
        dataset.save_as(row["path"])
    monkeypatch.setattr(observation, "read_exams", lambda *_: tables(rows))
    main(["data=mias", f"data.root={tmp_path}", "inspect=true", f"page={tmp_path / 'page.html'}", "preparation.cpus=1"])
    text = capsys.readouterr().out + (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?i)secret|19870605", text)
    assert "for processing" in text


@pytest.mark.parametrize("name", ["folder", "folder/file/page.html", "s3://bucket/page.html"])
def test_a_page_that_cannot_be_written_is_told_before_any_header_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("")
    monkeypatch.setattr("siamray.prepare.observe", lambda _: pytest.fail("headers were read"))
    with pytest.raises(UserError, match="page="):
        main(["data=phantom", "inspect=true", f"page={name if '://' in name else tmp_path / name}"])
