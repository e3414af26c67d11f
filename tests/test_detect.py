"""The command siamray.detect as a user gives it: its files, places in the original images, and mistakes."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from siamray.config import EncoderConfig
from siamray.data.geometry import Geometry
from siamray.data.pairs import SIDES
from siamray.data.store import Store
from siamray.detect import describe
from siamray.detect import main as siamray_detect
from siamray.downstream.candidates import Candidate
from siamray.errors import UserError
from siamray.pretraining import encoder
from tests.conftest import TINY_DATA

STEP = "downstream.detection.step_pixels=8"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detect") / "encoder"
    made = encoder.build(EncoderConfig(projector_hidden=16, projector_features=8), 0, 32)
    encoder.export(made, folder, {"spacing_mm": 0.8, "normalization": "image", "embedding": "unit"})
    return folder


@pytest.fixture(scope="module")
def detected(exported: Path, tiny_store: Store) -> Path:
    exam = str(tiny_store.findings.dropna(subset=["row_min"]).entry_id.iloc[0]).rsplit("_", 1)[0]
    siamray_detect([*TINY_DATA, STEP, f"encoder={exported}", f"exam={exam}", f"out={exported.parent / 'out'}"])
    return exported.parent / "out"


def test_every_view_has_a_map_a_picture_a_capture_and_its_candidates(detected: Path, tiny_store: Store) -> None:
    record = json.loads((detected / "detection.json").read_text())
    assert "NOT FOR DIAGNOSTIC USE" in record["notice"]
    assert record["way"] == "dense"
    entries = tiny_store.entries.set_index("entry_id")
    exam = record["exam"]
    assert {view["entry_id"] for view in record["views"]} == set(entries.index[entries.exam_id == exam])
    for view in record["views"]:
        values = np.load(detected / view["files"]["map"])
        height, width = entries.loc[view["entry_id"], ["height", "width"]]
        assert values.shape == (2, (height - 32) // 8 + 1, (width - 32) // 8 + 1)
        assert (np.isfinite(values).sum(axis=0) <= 1).all()
        assert np.isfinite(values).sum() == view["windows"] > 0
        assert view["candidates"][0]["score"] == pytest.approx(np.nanmax(values))
        picture = Image.open(detected / view["files"]["overlay"])
        assert picture.mode == "RGB"
        assert view["lesions"]
        colours = np.asarray(picture).reshape(-1, 3)
        assert (colours == (86, 180, 233)).all(axis=1).any()
        assert (colours == (0, 230, 118)).all(axis=1).any()


def test_the_capture_is_the_picture_names_no_one_and_opens_elsewhere(detected: Path) -> None:
    for view in json.loads((detected / "detection.json").read_text())["views"]:
        path = detected / view["files"]["dicom"]
        read = pydicom.dcmread(path)
        assert read.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
        assert read.PatientID == view["woman_id"]
        for name in ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate", "StudyID"):
            assert not read.get(name)
        assert "not for diagnostic use" in read.SeriesDescription
        assert "NOT FOR DIAGNOSTIC USE" in read.ImageComments
        np.testing.assert_array_equal(read.pixel_array, np.asarray(Image.open(detected / view["files"]["overlay"])))
        if shutil.which("dcm2pnm") is None:
            pytest.skip("needs dcm2pnm and dcmdump of Debian's dcmtk")
        shown = subprocess.run(["dcmdump", path], capture_output=True, text=True, check=True)
        assert "SecondaryCaptureImageStorage" in shown.stdout
        assert not shown.stderr
        pnm = path.with_suffix(".ppm")
        subprocess.run(["dcm2pnm", path, pnm], capture_output=True, check=True)
        np.testing.assert_array_equal(np.asarray(Image.open(pnm)), read.pixel_array)


def test_a_place_of_the_original_lies_in_the_box_carried_back_from_the_store(tiny_store: Store) -> None:
    for entry in tiny_store.entries.entry_id:
        record = tiny_store.record(str(entry))
        for side in SIDES:
            place = Geometry.from_dict(record[side]["geometry"])
            store_point = np.array([[record["shape"][0] * 0.5, record["shape"][1] * 0.4]])
            original = place.to_original(store_point)[0]
            row, col = np.floor(store_point[0]).astype(int) - 16
            found = describe(Candidate(side, int(row), int(col), 32, 1.0), place, record[side]["image_id"])
            row_min, col_min, row_max, col_max = found["box_original"]
            assert row_min < original[0] < row_max
            assert col_min < original[1] < col_max
            assert found["size_mm"] == [32 * 0.8, 32 * 0.8]
            assert row_max - row_min == pytest.approx(32 * 0.8 / place.spacing_mm, rel=0.2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["exam=phantom_0000"], "exam=phantom_0000: no such exam in the store; did you mean 'phantom_000"),
        ([], "exam=ID: name the exam to look at, such as exam=phantom_"),
        (["exam=phantom_00000", "downstream.detection.step_pixels=12"], "must be a power of two"),
        (["exam=phantom_00000", "downstream.detection.score=distence"], "did you mean 'distance'"),
        (["exam=phantom_00000", "preparation.spacing_mm=1.0"], "preparation.spacing_mm=0.8"),
    ],
    ids=["unknown", "none", "step", "score", "spacing"],
)
def test_a_mistake_is_told_in_one_line(words: list[str], expected: str, exported: Path, tiny_store: Store) -> None:
    with pytest.raises(UserError) as raised:
        siamray_detect([*TINY_DATA, f"encoder={exported}", *words, f"out={exported.parent / 'none'}"])
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_encoder_must_be_named() -> None:
    with pytest.raises(UserError, match="encoder=DIR"):
        siamray_detect([*TINY_DATA, "exam=phantom_00000"])
