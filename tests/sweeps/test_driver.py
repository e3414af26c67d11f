"""One driver at a time holds an experiment, and everybody can see which."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from siamray.errors import UserError
from siamray.sweeps.driver import LOCK_FILE, Driver, running_driver, sole_driver


def test_a_second_driver_of_an_experiment_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with sole_driver(tmp_path / "x"):
        with pytest.raises(UserError, match="another sweep runs this experiment"), sole_driver(tmp_path / "x"):
            pass
        with sole_driver(tmp_path / "y"):
            pass
    with sole_driver(tmp_path / "x"):
        assert (tmp_path / "x").is_dir()


def test_a_killed_driver_lets_go_of_its_experiment(tmp_path: Path) -> None:
    code = (
        "import os, signal, pathlib; from siamray.sweeps.driver import sole_driver\n"
        f"with sole_driver(pathlib.Path({str(tmp_path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with sole_driver(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_the_driver_that_holds_an_experiment_is_known_until_it_ends(tmp_path: Path) -> None:
    assert running_driver(tmp_path / "x") is None
    with sole_driver(tmp_path / "x"):
        found = running_driver(tmp_path / "x")
        assert found is not None
        assert (found.process, found.machine) == (os.getpid(), platform.node())
        assert str(found.started).endswith("+00:00")
    assert running_driver(tmp_path / "x") is None
    with sole_driver(tmp_path / "x"):
        pass


def test_a_lock_without_a_name_is_still_a_driver(tmp_path: Path) -> None:
    with sole_driver(tmp_path):
        (tmp_path / LOCK_FILE).write_text("")
        assert running_driver(tmp_path) == Driver()
        (tmp_path / LOCK_FILE).write_text("{")
        assert running_driver(tmp_path) == Driver()
