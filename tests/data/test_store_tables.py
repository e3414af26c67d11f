"""store_tables.py: what became of every entry and image, as tables, from records that need not stay in memory."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from siamray.config import PreparationConfig
from siamray.data.entry import REGISTRATION, EntryJob, ImageRow
from siamray.data.exams import BOX_COLUMNS, ExamTables, tables
from siamray.data.store_tables import rows_of, rows_of_failure, write_tables
from siamray.errors import UserError

FIT = {"kind": "bspline", "dice": 0.9, "correlation": 0.8, "fell_back": False, "outline_mm": 2.5, "quality": 0.7}


def job(name: str) -> EntryJob:
    left, right = (ImageRow(f"{name}_{side}", f"/films/{name}_{side}.png", 0.1, ()) for side in "LR")
    return EntryJob(f"{name}_CC", f"woman {name}", name, "CC", left, right, "k", PreparationConfig())


def record(name: str, findings: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """As preparing writes it, with a field of displacements as large as those of real women."""
    geometry = {"spacing_mm": 0.1, "transform": {"coefficients": np.linspace(0, 1, 2000).tolist()}}
    sides = {
        side: {
            "image_id": f"{name}_{side[0].upper()}",
            "geometry": geometry,
            "mean": mean,
            "deviation": 0.1,
            "note": "",
        }
        for side, mean in (("left", 0.4), ("right", 0.5))
    }
    return {"key": "k", "shape": [30, 20], "spacing_mm": 1.0, "findings": list(findings), "registration": FIT, **sides}


def exclusion(name: str, fit: dict[str, Any] | None, seconds: float | None = None) -> dict[str, Any]:
    return {
        "key": "k",
        "reasons": {f"{name}_L": "blank", f"{name}_R": "partner"},
        "seconds": seconds,
        "registration": fit,
    }


def source(names: str, left_out: tuple[str, ...] = ()) -> ExamTables:
    rows = [
        {"source": "folder", "woman_id": f"woman {name}", "exam_id": name, "image_id": f"{name}_{side}", "view": "CC"}
        | {"laterality": side, "path": f"/films/{name}_{side}.png", "spacing_mm": 0.2 if name != "a" else None}
        | {"birads": birads, "density": density, "outcome": outcome, "site": "north" if name == "a" else None}
        for name in names
        for side, birads, density, outcome in (("L", 0, None, "benign"), ("R", 3, "B", "malignant"))
    ]
    excluded = [{"image_id": name, "path": f"/films/{name}.png", "reason": "no file"} for name in left_out]
    return tables(rows, excluded=excluded)


def written(folder: Path, found: ExamTables, records: dict[str, dict[str, Any]]) -> dict[str, pd.DataFrame]:
    jobs = [job(name) for name in dict.fromkeys(found.exams["exam_id"])]
    rows = {
        job.entry_id: rows_of(job, records[job.exam_id]) if job.exam_id in records else rows_of_failure("it failed")
        for job in jobs
    }
    write_tables(folder, found, jobs, rows)
    return {path.stem: pd.read_parquet(path) for path in folder.glob("*.parquet")}


def test_an_entry_has_a_row_with_the_worse_label_of_its_sides(tmp_path: Path) -> None:
    entries = written(tmp_path, source("ab"), {"a": record("a"), "b": exclusion("b", None)})["entries"]
    assert len(entries) == 1
    row = entries.iloc[0]
    assert (row["entry_id"], row["woman_id"], row["exam_id"], row["view"]) == ("a_CC", "woman a", "a", "CC")
    assert (row["height"], row["width"], row["spacing_mm"]) == (30, 20, 1.0)
    assert (row["birads"], row["density"], row["outcome"]) == (0, "B", "malignant")
    assert (row["left_image_id"], row["right_image_id"]) == ("a_L", "a_R")
    assert (row["left_mean"], row["left_deviation"], row["right_mean"], row["right_deviation"]) == (0.4, 0.1, 0.5, 0.1)
    assert {name: row[f"registration_{name}"] for name in REGISTRATION} == FIT


def test_every_image_has_a_row_with_what_became_of_it(tmp_path: Path) -> None:
    records = {"a": record("a"), "b": exclusion("b", None), "c": exclusion("c", FIT)}
    manifest = written(tmp_path, source("abcd", ("x",)), records)["manifest"].set_index("image_id")
    assert list(manifest.index) == ["a_L", "a_R", "b_L", "b_R", "c_L", "c_R", "d_L", "d_R", "x"]
    assert manifest["used"].tolist() == [True, True, *[False] * 7]
    assert manifest["reason"].tolist() == ["", "", *["blank", "partner"] * 2, "it failed", "it failed", "no file"]
    assert manifest["entry_id"].dropna().tolist() == ["a_CC", "a_CC"]
    # Known from the file where the image is used, else as far as the source knows it.
    assert manifest["spacing_mm"].tolist()[:8] == [0.1, 0.1, *[0.2] * 6]
    assert manifest["registration_quality"].dropna().index.tolist() == ["a_L", "a_R", "c_L", "c_R"]
    assert manifest.loc["x", "path"] == "/films/x.png"
    assert manifest["site"].dropna().to_dict() == {"a_L": "north", "a_R": "north"}


def test_findings_keep_their_order_and_their_unknown_places(tmp_path: Path) -> None:
    mass = {"image_id": "a_R", "side": "right", "category": "mass", "box": [1.0, 2.0, 3.0, 4.0], "polygon": [[0, 0]]}
    other = {"image_id": "a_L", "side": "left", "category": "other", "box": None, "polygon": None}
    findings = written(tmp_path, source("a"), {"a": record("a", (other, mass))})["findings"]
    assert findings["category"].tolist() == ["other", "mass"]
    assert findings["woman_id"].tolist() == ["woman a"] * 2
    assert findings[BOX_COLUMNS].iloc[1].tolist() == [1, 2, 3, 4]
    assert findings[BOX_COLUMNS].iloc[0].isna().all()


def test_without_findings_their_table_has_its_columns_and_types(tmp_path: Path) -> None:
    findings = written(tmp_path, source("a"), {"a": record("a")})["findings"]
    assert findings.empty
    assert findings[BOX_COLUMNS].dtypes.eq("float64").all()


def test_where_no_entry_can_be_used_the_manifest_alone_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 4 images can be used; most often: blank"):
        written(tmp_path, source("ab"), {"a": exclusion("a", None), "b": exclusion("b", None)})
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.parquet"]


def test_rows_are_small_however_large_the_record_is() -> None:
    assert len(pickle.dumps(rows_of(job("a"), record("a")))) < 400


def test_a_time_limit_that_was_exceeded_is_kept() -> None:
    assert rows_of(job("a"), exclusion("a", None, 60.0)).seconds == 60.0
    assert rows_of(job("a"), record("a")).seconds is None
