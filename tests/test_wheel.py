"""An installed wheel works like a checkout: the experiments and the report's style travel with it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's content, as pip would lay it out."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_all_experiments_and_the_style_of_the_report(installed: Path) -> None:
    ours = {path.relative_to(CHECKOUT / "experiments") for path in (CHECKOUT / "experiments").rglob("*.yaml")}
    theirs = {path.relative_to(installed / "siamray/experiments") for path in installed.rglob("experiments/**/*.yaml")}
    assert ours == theirs
    assert len(ours) > 10
    for path in (CHECKOUT / "dashboards").rglob("*.css"):
        assert (installed / path.relative_to(CHECKOUT)).exists()
    assert not (installed / "tests").exists()


def test_a_command_of_the_wheel_finds_its_experiments_from_any_folder(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    code = (
        "import siamray.compose as c; print(c.experiments_folder()); "
        "print(c.compose('sweep', ['ablation=soft_labels']).ablation.reference)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(installed / "siamray" / "experiments"), "soft"]
