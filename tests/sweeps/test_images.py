"""What became of every image is kept with the results, without where the images lay."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from siamray.sweeps import results
from siamray.sweeps.experiment_record import write_images


def test_the_manifest_is_kept_without_paths_and_read_back(tmp_path: Path) -> None:
    manifest = pd.DataFrame(
        {
            "image_id": ["i1", "i2"], "woman_id": ["w1", "w1"], "used": [True, False], "reason": ["", "no partner"],
            "path": ["/data/DOE^JANE/1.dcm", "/data/DOE^JANE/2.dcm"], "vendor": ["GE", None], "age": [51, 51],
        }
    )  # fmt: skip
    folder = tmp_path / "e"
    results.write_experiment(folder, {"name": "e"})
    write_images(folder, SimpleNamespace(manifest=manifest))  # type: ignore[arg-type]
    found = results.load(folder).images()
    assert list(found) == results.IMAGE_COLUMNS
    assert found["reason"].tolist() == ["", "no partner"]
    assert b"DOE" not in (folder / results.IMAGES_FILE).read_bytes()


def test_results_of_an_older_version_have_none(tmp_path: Path) -> None:
    results.write_experiment(tmp_path / "e", {"name": "e"})
    assert results.load(tmp_path / "e").images().empty
    assert results.load(tmp_path / "e").features("t").empty
