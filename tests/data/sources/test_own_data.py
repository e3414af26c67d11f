"""What docs/own_data.md shows is read, inspected and prepared as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from siamray.config import DataConfig
from siamray.data.exams import ExamTables
from siamray.data.sources import read_exams
from siamray.data.sources.phantom_anatomy import View, imagine, render
from siamray.prepare import main
from tests.data.sources import folder_copy

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "own_data.md"


def read(root: Path) -> ExamTables:
    return read_exams(DataConfig(source="folder", root=str(root)), root.parent / "cache")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def draw(path: Path, number: int) -> None:
    """Draws the image that a path of the document names."""
    side, view = path.stem[0].upper(), path.stem[1:].upper()
    folder_copy.write_image(
        path, render(View(imagine(folder_copy.PHANTOMS, number), view), side)[0], number, side, view
    )


def test_the_documented_example_is_read_and_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIAMRAY_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "own"
    root.mkdir()
    for name in ("exams.csv", "findings.csv"):
        (text,) = blocks(f"csv {name}")
        (root / name).write_text(text)
    for number, row in enumerate(pd.read_csv(root / "exams.csv").itertuples()):
        draw(root / row.path, number // 2)
    tables = read(root)
    assert (len(tables.exams), len(tables.findings), len(tables.excluded)) == (4, 2, 0)
    (commands,) = blocks("console")
    for command in commands.splitlines():
        words = command.split()
        assert words[:3] == ["python", "-m", "siamray.prepare"]
        main(words[3:])
        assert "2" in capsys.readouterr().out
    assert (tmp_path / "inspection.html").is_file()


def test_the_documented_script_writes_a_table_that_is_read(tmp_path: Path) -> None:
    for number in range(2):
        for name in ("lcc", "rcc", "lmlo", "rmlo"):
            draw(tmp_path / "own" / f"w{number}" / f"{name}.dcm", number)
    (script,) = blocks("python")
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=60)
    tables = read(tmp_path / "own")
    assert len(tables.exams) == 8
    assert tables.excluded.empty
    assert tables.exams["woman_id"].nunique() == 2
    assert "phantom" not in " ".join(tables.exams["woman_id"] + tables.exams["image_id"])
