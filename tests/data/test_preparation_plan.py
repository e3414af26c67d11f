"""The plan of a preparation: the entries, and keys that change with all that an entry depends on, and nothing else."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamray.compose import compose
from siamray.config import Config
from siamray.data import preparation_plan
from siamray.data import store as stores
from siamray.data.exams import BOX_COLUMNS, ExamTables, exclude_incomplete_pairs, tables
from siamray.data.sources import accepted, read_exams
from siamray.files import cache_folder
from tests.conftest import TINY_PREPARATION


def keys_by_looking_up(found: ExamTables, config: Config, options: dict[str, Any]) -> dict[str, str]:
    """The key of every entry, slowly: each pair's rows are looked up in the tables."""
    root = Path(config.data.root) if config.data.root else cache_folder()
    keys = {}
    for (exam, view), rows in found.exams.groupby(["exam_id", "view"], sort=True):
        inputs = []
        for _, row in rows.sort_values("laterality").iterrows():
            own = found.findings[found.findings["image_id"] == row["image_id"]]
            boxes = [None if np.isnan(box).any() else list(box) for box in own[BOX_COLUMNS].to_numpy(dtype=float)]
            findings = [[category, box] for category, box in zip(own["category"], boxes, strict=True)]
            path = Path(row["path"])
            content = path.read_bytes()
            start = max(0, len(content) // 2 - preparation_plan.SAMPLE_BYTES // 2)
            sample = hashlib.sha256(content[start : start + preparation_plan.SAMPLE_BYTES]).hexdigest()
            name = str(path.resolve().relative_to(root.resolve()))
            spacing = None if np.isnan(row["spacing_mm"]) else row["spacing_mm"]
            inputs.append([row["laterality"], row["image_id"], name, [len(content), sample], spacing, findings])
        woman, accept = rows["woman_id"].iloc[0], sorted(accepted(config.data))
        value = [stores.FORMAT, options, woman, inputs, config.data.assumed_spacing_mm, accept]
        keys[f"{exam}_{view}"] = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    return keys


@pytest.mark.parametrize("source", ["phantom", "mias"])
def test_an_entrys_key_is_the_hash_of_all_it_depends_on(source: str, request: pytest.FixtureRequest) -> None:
    words = TINY_PREPARATION if source == "phantom" else ["data=mias", f"data.root={request.getfixturevalue('mias')}"]
    config = compose("prepare", words)
    plan = preparation_plan.make_plan(config)
    found = exclude_incomplete_pairs(read_exams(config.data, cache_folder()), config.data.duplicates)
    expected = keys_by_looking_up(found, config, plan.options)
    assert {job.entry_id: job.key for job in plan.jobs} == expected
    assert [job.entry_id for job in plan.jobs] == list(expected)
    assert any(row.findings for job in plan.jobs for row in (job.left, job.right))


@pytest.mark.parametrize("sites", [(None, None), ("north", None), ("north", "2")])
def test_a_fingerprint_is_that_of_stores_from_before_sites_were_read(
    sites: tuple[str | None, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for woman, site, vendor in zip(("w1", "w2"), sites, ("ge", None), strict=True):
        for side in "LR":
            path = tmp_path / f"{woman}{side}.png"
            path.write_bytes(f"{woman}{side}".encode() * 50)
            ids = {"source": "folder", "woman_id": woman, "exam_id": woman, "image_id": woman + side, "path": str(path)}
            known = {"laterality": side, "view": "CC", "spacing_mm": 0.07, "birads": 2, "density": "B", "age": 51.0}
            rows.append({**ids, **known, "outcome": "normal", "vendor": vendor, "site": site})
    left_out = [{"image_id": "x", "path": "x.png", "reason": "no file"}]
    found = tables(rows, [{"image_id": "w1R", "category": "mass"}], left_out)
    monkeypatch.setattr(preparation_plan, "read_exams", lambda *_: found)
    # Not the options of the day, whose number grows.
    monkeypatch.setattr(preparation_plan, "store_options", lambda _: {"data.source": "folder"})
    config = Config()
    config.data.source, config.data.root = "folder", str(tmp_path)
    expected = "e1534e71fa3dd20cf503970afc5cbf473d10a22293dc220094a25a013c9cc40d"
    assert preparation_plan.make_plan(config).fingerprint == expected
