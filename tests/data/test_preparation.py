"""preparation.py: exams become a complete store, once, whatever is wrong with some of them."""

import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from siamray.config import Config
from siamray.data import entry as entries
from siamray.data import preparation, preparation_plan
from siamray.data.exams import ExamTables, tables
from siamray.data.geometry import Geometry, polygon_box
from siamray.data.preparation import prepare, store_path
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.files import cache_folder
from tests.data.dicom_files import mammogram, write

BOX = {"row_min": 110.0, "col_min": 40.0, "row_max": 140.0, "col_max": 76.0}


def film(seed: int, mirrored: bool) -> npt.NDArray[np.uint8]:
    """A half ellipse of tissue with a bright square at BOX, its chest wall at the left or, mirrored, at the right."""
    rows, cols = np.mgrid[:256, :200]
    generator = np.random.default_rng(seed)
    low, high, far = generator.uniform(0.95, 1.05, 3)
    inside = ((rows - 125) / (100 * low)) ** 2 + (cols / (120 * high)) ** 2 < 1
    pixels = np.where(inside, 0.5 + 0.1 * np.sin(rows / 20 * far) * np.cos(cols / 25), 0.03)
    pixels[110:140, 40:76] = 0.95
    pixels = pixels[:, ::-1] if mirrored else pixels
    return np.asarray(pixels * 255, dtype=np.uint8)


def write_exams(folder: Path, women: int, spacing_mm: float | None = 0.8) -> ExamTables:
    """Women w00, w01, ... with a left and a right image; the square of the first one's right image is a finding."""
    folder.mkdir(exist_ok=True)
    exams: list[dict[str, Any]] = []
    for number in range(women):
        for side in ("L", "R"):
            image = f"w{number:02d}_{side}"
            Image.fromarray(film(2 * number + (side == "R"), side == "R")).save(folder / f"{image}.png")
            known = {"laterality": side, "view": "MLO", "path": str(folder / f"{image}.png"), "birads": 1 + number % 5}
            names = {"source": "mias", "woman_id": f"w{number:02d}", "exam_id": f"w{number:02d}", "image_id": image}
            exams.append(
                {**names, **known, "spacing_mm": spacing_mm, "density": "ABCD"[number % 4], "outcome": "normal"}
            )
    mirrored = {"col_min": 200 - BOX["col_max"], "col_max": 200 - BOX["col_min"]}
    findings = [
        {"image_id": "w00_R", "category": "mass", **BOX, **mirrored},
        {"image_id": "w00_L", "category": "other"},
    ]
    return tables(exams, findings)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config(store=str(tmp_path / "store"))
    made.data.source = "mias"
    made.data.root = str(tmp_path / "films")
    made.preparation.spacing_mm = 1.0
    made.preparation.cpus = 1
    return made


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the tables that the source will yield."""

    def give(given: ExamTables) -> ExamTables:
        monkeypatch.setattr(preparation_plan, "read_exams", lambda *_: given)
        return given

    return give


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The entries that are really prepared, in order."""
    done: list[str] = []

    def note(job: entries.EntryJob, *rest: Any) -> None:
        entries.prepare_entry(job, *rest)
        done.append(job.entry_id)

    monkeypatch.setattr(preparation, "prepare_entry", note)
    return done


def test_every_pair_becomes_an_entry_of_equal_shapes_and_every_image_a_row(
    config: Config, source: Any, tmp_path: Path
) -> None:
    source(write_exams(tmp_path / "films", 3))
    store = prepare(config, progress=False)
    assert list(store.entries["entry_id"]) == ["w00_MLO", "w01_MLO", "w02_MLO"]
    assert store.manifest["used"].all()
    assert len(store.manifest) == 6
    assert list(store.entries["birads"]) == [1, 2, 3]
    for row in store.entries.itertuples():
        shapes = {store.image(row.entry_id, side).shape for side in ("left", "right")}
        shapes |= {store.mask(row.entry_id, side).shape for side in ("left", "right")}
        assert shapes == {(row.height, row.width)}
        assert row.registration_dice > 0.9
        left, right = (store.mask(row.entry_id, side) for side in ("left", "right"))
        # Both chest walls lie at the left, whichever side they had on film.
        assert np.flatnonzero(left.any(axis=0))[0] <= 8
        assert np.flatnonzero(right.any(axis=0))[0] <= 8


def test_tissue_scales_are_those_of_the_stored_pixels(config: Config, source: Any, tmp_path: Path) -> None:
    source(write_exams(tmp_path / "films", 1))
    store = prepare(config, progress=False)
    for side, (mean, deviation) in store.normalization("w00_MLO").items():
        tissue = store.image("w00_MLO", side)[store.mask("w00_MLO", side)] / 65535
        assert tissue.mean() == pytest.approx(mean, abs=1e-4)
        assert tissue.std() == pytest.approx(deviation, abs=1e-4)


@pytest.mark.parametrize("kind", ["none", "centroid", "affine", "bspline"])
def test_a_finding_lies_on_its_lesion_in_the_store_and_leads_back(
    config: Config, source: Any, tmp_path: Path, kind: str
) -> None:
    config.preparation.registration.kind = kind
    source(write_exams(tmp_path / "films", 1))
    store = prepare(config, progress=False)
    findings = store.findings.set_index("category")
    assert np.isnan(findings.loc["other", "row_min"])
    mass = findings.loc["mass"]
    assert mass["side"] == "right"
    box = [round(mass[name]) for name in ("row_min", "col_min", "row_max", "col_max")]
    bright = store.image("w00_MLO", "right") > 0.75 * 65535
    assert bright[box[0] : box[2], box[1] : box[3]].mean() > 0.8
    outside = bright.copy()
    outside[box[0] - 1 : box[2] + 1, box[1] - 1 : box[3] + 1] = False
    assert not outside.any()
    record = store.record("w00_MLO")
    geometry = Geometry.from_dict(record["right"]["geometry"])
    polygon = next(finding["polygon"] for finding in record["findings"] if finding["category"] == "mass")
    assert np.allclose(polygon_box(geometry.polygon_to_original(np.asarray(polygon))), (110, 124, 140, 160), atol=0.5)


def test_what_cannot_be_used_is_listed_with_its_reason_and_the_rest_goes_on(
    config: Config, source: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "films"
    given = write_exams(folder, 7)
    (folder / "w01_L.png").unlink()
    (folder / "w02_R.png").write_bytes(b"no image")
    Image.fromarray(np.full((256, 200), 7, dtype=np.uint8)).save(folder / "w03_L.png")
    exams = given.exams[given.exams["image_id"] != "w04_R"].reset_index(drop=True)
    exams.loc[exams["image_id"] == "w05_L", "spacing_mm"] = np.nan
    tiny = np.full((256, 200), 8, dtype=np.uint8)
    tiny[100:112, :12] = 200
    Image.fromarray(tiny).save(folder / "w06_R.png")
    excluded = pd.DataFrame([{"image_id": "w99_L", "path": "nowhere", "reason": "no file"}])
    source(ExamTables(exams, given.findings, excluded))
    store = prepare(config, progress=False)
    reasons = store.manifest.set_index("image_id")["reason"].to_dict()
    assert list(store.entries["entry_id"]) == ["w00_MLO"]
    assert "does not exist" in reasons["w01_L"]
    assert "partner" in reasons["w01_R"]
    assert "neither DICOM nor" in reasons["w02_R"]
    assert "blank" in reasons["w03_L"]
    assert "no partner" in reasons["w04_L"]
    assert "spacing is unknown" in reasons["w05_L"]
    assert "minimum_breast_share" in reasons["w06_R"]
    assert reasons["w99_L"] == "no file"
    assert reasons["w00_L"] == ""
    assert len(store.manifest) == 14
    assert not store.manifest["reason"][~store.manifest["used"]].eq("").any()


def test_pairs_that_do_not_overlap_enough_are_left_out(config: Config, source: Any, tmp_path: Path) -> None:
    given = write_exams(tmp_path / "films", 2)
    Image.fromarray(film(0, True)[60:120, 150:]).save(tmp_path / "films" / "w01_R.png")
    source(given)
    config.preparation.registration.kind = "centroid"
    config.preparation.registration.minimum_overlap = 0.8
    store = prepare(config, progress=False)
    assert list(store.entries["entry_id"]) == ["w00_MLO"]
    left_out = store.manifest[~store.manifest["used"]]
    assert list(left_out["image_id"]) == ["w01_L", "w01_R"]
    assert left_out["reason"].str.contains("minimum_overlap=0.8").all()


def test_pairs_that_fit_badly_are_left_out_with_their_quality(config: Config, source: Any, tmp_path: Path) -> None:
    source(write_exams(tmp_path / "films", 2))
    # The right image upside down in its grey values: the outlines fit, the tissue does not.
    pixels = film(3, True)
    Image.fromarray(np.where(pixels > 60, 300 - pixels.astype(int), pixels).astype(np.uint8)).save(
        tmp_path / "films" / "w01_R.png"
    )
    config.preparation.registration.minimum_quality = 0.5
    store = prepare(config, progress=False)
    assert list(store.entries["entry_id"]) == ["w00_MLO"]
    assert store.entries["registration_quality"].iloc[0] > 0.5
    manifest = store.manifest.set_index("image_id")
    for image in ("w01_L", "w01_R"):
        assert "preparation.registration.minimum_quality=0.5" in manifest.loc[image, "reason"]
        assert manifest.loc[image, "registration_quality"] < 0.5


def test_an_image_that_takes_too_long_is_left_out_until_it_is_given_more_time(
    config: Config, source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: list[str]
) -> None:
    source(write_exams(tmp_path / "films", 2))
    ordinary = entries.read_image

    def slow(path: Path, *rest: Any) -> Any:
        if path.stem == "w01_L":
            time.sleep(2)
        return ordinary(path, *rest)

    monkeypatch.setattr(entries, "read_image", slow)
    config.preparation.image_seconds = 1
    store = prepare(config, progress=False)
    assert list(store.entries["entry_id"]) == ["w00_MLO"]
    assert store.manifest.set_index("image_id").loc["w01_L", "reason"] == "took longer than preparation.image_seconds=1"
    prepared.clear()
    prepare(config, progress=False)
    assert prepared == []
    config.preparation.image_seconds = 60
    again = prepare(config, progress=False)
    assert prepared == ["w01_MLO"]
    assert len(again.entries) == 2


@pytest.fixture
def read_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[str]]:
    """Images whose decoder hangs, crashes and so on; tells which were read, in order, and forgets them."""
    ordinary, log = entries.read_image, tmp_path / "read"

    def odd(path: Path, *rest: Any) -> Any:
        # Read by another process, which can tell no other way.
        with log.open("a") as file:
            file.write(f"{path.stem}\n")
        if path.stem == "w01_L":
            sum(itertools.repeat(0))
        if path.stem == "w02_R":
            os.kill(os.getpid(), signal.SIGSEGV)
        if path.stem == "w03_L":
            os.kill(os.getpid(), signal.SIGKILL)
        if path.stem == "w04_R":
            raise ValueError("Mrs Miller")
        return ordinary(path, *rest)

    def read() -> list[str]:
        words = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return words

    monkeypatch.setattr(entries, "read_image", odd)
    return read


def test_images_whose_decoder_hangs_or_crashes_are_left_out_until_they_are_given_more_time(
    config: Config, source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_apart: Callable[[], list[str]]
) -> None:
    source(write_exams(tmp_path / "films", 6))
    monkeypatch.setattr(preparation, "LIMITS_PER_ENTRY", 1)
    config.preparation.image_seconds = 2
    store = prepare(config, progress=False)
    assert list(store.entries["entry_id"]) == ["w00_MLO", "w05_MLO"]
    reasons = store.manifest.set_index("image_id")["reason"]
    for side in "LR":
        assert reasons[f"w01_{side}"] == "its preparation hung: it took longer than preparation.image_seconds=2"
        assert reasons[f"w02_{side}"] == "its preparation crashed"
        assert reasons[f"w03_{side}"] == "its preparation ended unexpectedly: its process was ended"
        assert reasons[f"w04_{side}"] == "its preparation failed: ValueError"
    read = read_apart()
    assert [read.count(image) for image in ("w01_L", "w01_R", "w02_L", "w02_R", "w03_L")] == [1, 0, 2, 2, 1]
    # Memory may have been short, and an odd failure may pass; what hung and what crashed would do so again.
    prepare(config, progress=False)
    assert read_apart() == ["w03_L", "w04_L", "w04_R"]
    config.preparation.image_seconds = 2.5
    store = prepare(config, progress=False)
    assert {"w01_L", "w02_R"} < set(read_apart())
    reasons = store.manifest.set_index("image_id")["reason"]
    assert reasons["w01_L"] == "its preparation hung: it took longer than preparation.image_seconds=2.5"
    # Another file is another image.
    given = write_exams(tmp_path / "films", 6)
    shutil.copy(tmp_path / "films" / "w00_R.png", tmp_path / "films" / "w02_R.png")
    source(given)
    prepare(config, progress=False)
    read = read_apart()
    assert "w02_R" in read
    assert "w01_L" not in read


def test_headers_that_contradict_source_or_image_are_noted(config: Config, source: Any, tmp_path: Path) -> None:
    given = write_exams(tmp_path / "films", 1)
    for side in ("L", "R"):
        # Both headers say R: of the left breast the source contradicts, and both chest walls are where they belong.
        dataset = mammogram(film(2 + (side == "R"), side == "R").astype(np.uint16) * 16, ImageLaterality="R")
        write(tmp_path / "films", dataset, f"w00_{side}.png")
    source(given)
    notes = prepare(config, progress=False).manifest.set_index("image_id")["note"]
    assert notes["w00_L"] == "its header says laterality R, the source L"
    assert notes["w00_R"] == ""
    for side in ("L", "R"):
        dataset = mammogram(film(2, side == "L").astype(np.uint16) * 16, ImageLaterality=side)
        write(tmp_path / "films", dataset, f"w00_{side}.png")
    notes = prepare(config, progress=False).manifest.set_index("image_id")["note"]
    assert notes["w00_L"] == "its chest wall lies at the right, laterality L says left"
    assert notes["w00_R"] == "its chest wall lies at the left, laterality R says right"


def test_a_spacing_is_assumed_only_where_nothing_says_one(config: Config, source: Any, tmp_path: Path) -> None:
    source(write_exams(tmp_path / "films", 1, spacing_mm=None))
    config.data.assumed_spacing_mm = 0.8
    first = prepare(config, progress=False)
    assert first.manifest["spacing_mm"].tolist() == [0.8, 0.8]
    config.data.assumed_spacing_mm = 0.9
    assert prepare(config, progress=False).manifest["spacing_mm"].tolist() == [0.9, 0.9]


def test_corrected_labels_reach_the_store_and_no_image_is_prepared_again(
    config: Config, source: Any, tmp_path: Path, prepared: list[str]
) -> None:
    given = source(write_exams(tmp_path / "films", 1))
    first = prepare(config, progress=False)
    prepared.clear()
    given.exams["birads"] = 4
    corrected = prepare(config, progress=False)
    assert corrected.entries["birads"].tolist() == [4]
    assert corrected.fingerprint != first.fingerprint
    assert prepared == []


def test_sites_reach_a_store_that_has_none_or_others_and_change_nothing_else(
    config: Config, source: Any, tmp_path: Path, prepared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = source(write_exams(tmp_path / "films", 2))
    first = prepare(config, progress=False)
    assert first.exams["site"].isna().all()
    # As stores were written before sites were read.
    for name in ("exams", "manifest"):
        path = Path(str(config.store)) / f"{name}.parquet"
        pd.read_parquet(path).drop(columns="site").to_parquet(path)
    assert "site" not in prepare(config, progress=False).exams
    prepared.clear()
    for sites in (["north", "north", "2", "2"], ["north", "north", None, None], [None] * 4):
        given.exams["site"] = pd.Series(sites, dtype="str")
        store = prepare(config, progress=False)
        for table in (store.exams, store.manifest):
            found = table.set_index("image_id")["site"][["w00_L", "w00_R", "w01_L", "w01_R"]]
            assert [None if pd.isna(site) else site for site in found] == sites
        assert store.fingerprint == first.fingerprint
    pd.testing.assert_frame_equal(store.entries, first.entries)
    pd.testing.assert_frame_equal(store.manifest.drop(columns="site"), first.manifest.drop(columns="site"))
    assert prepared == []

    def refused(*_: Any) -> None:
        raise UserError("the folder may not be written")

    monkeypatch.setattr("siamray.data.store_tables.write_parquet", refused)
    given.exams["site"] = "south"
    assert prepare(config, progress=False).exams["site"].isna().all(), "a store that may only be read opens as before"


def test_preparing_again_does_nothing(config: Config, source: Any, tmp_path: Path, prepared: list[str]) -> None:
    source(write_exams(tmp_path / "films", 2))
    first = prepare(config, progress=False)
    again = prepare(config, progress=False)
    assert prepared == ["w00_MLO", "w01_MLO"]
    assert again.fingerprint == first.fingerprint


def test_an_interrupted_preparation_is_no_store_and_goes_on_where_it_stopped(
    config: Config, source: Any, tmp_path: Path, prepared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source(write_exams(tmp_path / "films", 4))
    ordinary = preparation.prepare_entry

    def interrupted(job: entries.EntryJob, *rest: Any) -> None:
        if len(prepared) == 2:
            raise KeyboardInterrupt
        ordinary(job, *rest)

    monkeypatch.setattr(preparation, "prepare_entry", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(config, progress=False)
    with pytest.raises(UserError, match="not complete"):
        Store.open(str(config.store))
    monkeypatch.setattr(preparation, "prepare_entry", ordinary)
    store = prepare(config, progress=False)
    assert prepared == ["w00_MLO", "w01_MLO", "w02_MLO", "w03_MLO"]
    assert len(store.entries) == 4


def test_new_and_changed_images_alone_are_prepared(
    config: Config, source: Any, tmp_path: Path, prepared: list[str]
) -> None:
    source(write_exams(tmp_path / "films", 2))
    first = prepare(config, progress=False).fingerprint
    source(write_exams(tmp_path / "films", 3))
    Image.fromarray(film(77, False)).save(tmp_path / "films" / "w01_L.png")
    store = prepare(config, progress=False)
    assert prepared == ["w00_MLO", "w01_MLO", "w01_MLO", "w02_MLO"]
    assert len(store.entries) == 3
    assert store.fingerprint != first


def test_an_odd_failure_is_listed_and_tried_again_next_time(
    config: Config, source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source(write_exams(tmp_path / "films", 2))
    ordinary = preparation.prepare_entry

    def odd(job: entries.EntryJob, *rest: Any) -> None:
        if job.entry_id == "w01_MLO":
            raise MemoryError("too large")
        ordinary(job, *rest)

    monkeypatch.setattr(preparation, "prepare_entry", odd)
    store = prepare(config, progress=False)
    assert list(store.entries["entry_id"]) == ["w00_MLO"]
    assert store.manifest.set_index("image_id").loc["w01_L", "reason"] == "its preparation failed: MemoryError"
    monkeypatch.setattr(preparation, "prepare_entry", ordinary)
    assert len(prepare(config, progress=False).entries) == 2


def test_a_store_of_another_option_is_refused_by_the_options_name(config: Config, source: Any, tmp_path: Path) -> None:
    source(write_exams(tmp_path / "films", 1))
    prepare(config, progress=False)
    config.preparation.registration.kind = "centroid"
    with pytest.raises(UserError, match=r"preparation\.registration\.kind=affine, not .*=centroid") as caught:
        prepare(config, progress=False)
    assert "store=" in str(caught.value)


def test_a_folder_with_other_things_is_not_taken_for_a_store(config: Config, source: Any, tmp_path: Path) -> None:
    source(write_exams(tmp_path / "films", 1))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="not empty and no store"):
        prepare(config, progress=False)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["letter.txt"]


def test_what_killed_preparations_left_is_removed_and_nothing_of_one_that_may_be_running(
    config: Config, source: Any, tmp_path: Path
) -> None:
    source(write_exams(tmp_path / "films", 1))
    prepare(config, progress=False)
    temporary = tmp_path / "store" / "temporary"
    for name in ("old", "new"):
        (temporary / f"{name} entry" / "left").mkdir(parents=True)
        (temporary / f"{name}.trace").touch()
    for left in temporary.glob("old*"):
        os.utime(left, (time.time() - preparation.STALE_SECONDS - 60,) * 2)
    source(write_exams(tmp_path / "films", 2))
    prepare(config, progress=False)
    assert sorted(left.name for left in temporary.iterdir()) == ["new entry", "new.trace"]


def test_where_nothing_can_be_used_the_most_frequent_reason_is_told(
    config: Config, source: Any, tmp_path: Path
) -> None:
    source(write_exams(tmp_path / "films", 2, spacing_mm=None))
    with pytest.raises(UserError, match="spacing is unknown") as caught:
        prepare(config, progress=False)
    assert "manifest.parquet" in str(caught.value)
    source(tables([]))
    with pytest.raises(UserError, match="no pair of a left and a right image"):
        prepare(config, progress=False)


def test_a_store_in_a_place_that_cannot_be_written_is_one_line(config: Config, source: Any, tmp_path: Path) -> None:
    source(write_exams(tmp_path / "films", 1))
    (tmp_path / "file").write_text("")
    config.store = str(tmp_path / "file" / "store")
    with pytest.raises(UserError, match="store=") as caught:
        prepare(config, progress=False)
    assert "\n" not in str(caught.value)


def test_two_preparations_at_a_time_give_one_whole_store(config: Config, source: Any, tmp_path: Path) -> None:
    source(write_exams(tmp_path / "films", 4))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            prepare(config, progress=False)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    store = Store.open(str(config.store))
    assert len(store.entries) == 4
    assert all(store.image(entry, side).any() for entry in store.entries["entry_id"] for side in ("left", "right"))


def test_the_store_in_the_cache_depends_on_data_and_options_not_on_place_or_processors(
    config: Config, source: Any, tmp_path: Path
) -> None:
    config.store = None
    source(write_exams(tmp_path / "films", 1))
    path = store_path(config)
    assert path.parent == cache_folder()
    assert path.name.startswith("mias-")
    config.preparation.cpus = 2
    assert store_path(config) == path
    shutil.copytree(tmp_path / "films", tmp_path / "elsewhere")
    given = write_exams(tmp_path / "elsewhere", 1)
    source(given)
    config.data.root = str(tmp_path / "elsewhere")
    assert store_path(config) == path
    config.preparation.margin_mm = 5
    assert store_path(config) != path


def test_a_store_brought_along_without_its_images_is_opened(config: Config, source: Any, tmp_path: Path) -> None:
    source(write_exams(tmp_path / "films", 1))
    prepare(config, progress=False)
    shutil.rmtree(tmp_path / "films")
    config.data.root = None
    assert len(prepare(config, progress=False).entries) == 1


def test_a_store_elsewhere_holds_what_a_local_one_holds_and_goes_on_too(
    config: Config, source: Any, tmp_path: Path, prepared: list[str]
) -> None:
    source(write_exams(tmp_path / "films", 2))
    local = prepare(config, progress=False)
    config.store = f"memory://{tmp_path.name}/store"
    remote = prepare(config, progress=False)
    assert remote.fingerprint == local.fingerprint
    pd.testing.assert_frame_equal(remote.entries, local.entries)
    pd.testing.assert_frame_equal(remote.manifest, local.manifest)
    np.testing.assert_array_equal(remote.image("w01_MLO", "right"), local.image("w01_MLO", "right"))
    prepared.clear()
    prepare(config, progress=False)
    assert prepared == []
    (remote.path / "entries" / "w01_MLO" / "entry.json").unlink()
    (remote.path / "store.json").write_text(
        (remote.path / "store.json").read_text().replace('"complete": true', '"complete": false')
    )
    prepare(config, progress=False)
    assert prepared == ["w01_MLO"]


@pytest.mark.slow
def test_ray_tasks_prepare_the_same_as_one_process(
    config: Config, source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = source(write_exams(tmp_path / "films", 4))
    (tmp_path / "films" / "w02_L.png").write_bytes(b"no image")
    alone = prepare(config, progress=False)
    monkeypatch.setattr(preparation, "WITHOUT_RAY", 0)
    config.store = str(tmp_path / "other")
    config.preparation.cpus = 2
    together = prepare(config, progress=False)
    assert len(given.exams) == 8
    assert together.fingerprint == alone.fingerprint
    pd.testing.assert_frame_equal(together.entries, alone.entries)
    pd.testing.assert_frame_equal(together.manifest, alone.manifest)
    for entry in alone.entries["entry_id"]:
        assert np.array_equal(together.image(entry, "right"), alone.image(entry, "right"))


def test_real_women_are_prepared_with_their_lesions(config: Config, mias: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mias"
    folder.mkdir()
    names = ["mdb005", "mdb006", "mdb151", "mdb152", "mdb245", "mdb246"]
    for name in names:
        (folder / f"{name}.png").symlink_to(mias / f"{name}.png")
    rows = (mias / "Info.txt").read_text(encoding="latin-1").splitlines()
    (folder / "Info.txt").write_text("\n".join(row for row in rows if row[:6] in names), encoding="latin-1")
    config.data.root = str(folder)
    store = prepare(config, progress=False)
    assert list(store.entries["entry_id"]) == ["mias_003_MLO", "mias_076_MLO", "mias_123_MLO"]
    assert store.entries["registration_dice"].min() > 0.85
    findings = store.findings.set_index("image_id")
    assert np.isnan(findings.loc["mdb245", "row_min"])
    for finding in store.findings.dropna(subset=["row_min"]).itertuples():
        row, col = int((finding.row_min + finding.row_max) / 2), int((finding.col_min + finding.col_max) / 2)
        assert store.mask(finding.entry_id, finding.side)[row, col]
