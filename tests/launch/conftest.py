"""What tests of the check share: copies of the shipped files, a user whose machine is ready for them, the command."""

import os
import re
from pathlib import Path

import pytest

from siamray.errors import UserError
from siamray.launch.__main__ import main
from tests.cluster.test_launch_files import CHECKOUT, MANIFESTS, RAY_UP

FILES = {**RAY_UP, **{f"kubernetes_{name}": path for name, path in MANIFESTS.items()}}


class User:
    """Somebody who starts a cluster.

    Attributes:
        home: with a token and a key of ssh.
        programs: a folder on PATH for programs of the tests' own, before all others.
    """

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home, self.programs = folder / "home", folder / "programs"
        self.programs.mkdir(parents=True)
        self._folder, self._capture = folder, capture
        for kind, name, text in ((".ray", "auth_token", "a-token"), (".ssh", "id_ed25519", "a-key")):
            (self.home / kind).mkdir(parents=True)
            (self.home / kind).chmod(0o700)
            (self.home / kind / name).write_text(text)
            (self.home / kind / name).chmod(0o600)

    def program(self, name: str, script: str) -> None:
        """Puts a program on PATH."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def file(self, name: str, *changes: tuple[str, str]) -> Path:
        """A copy of a shipped file with words exchanged: (what is there, what is there instead), once each."""
        text = FILES[name].read_text()
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        path = self._folder / FILES[name].name
        path.write_text(text)
        return path

    def check(self, path: Path, *words: str) -> tuple[int, str, list[str]]:
        """Gives the command: its exit code, its table and last line, and its lines of trouble."""
        self._capture.readouterr()
        code = 0
        try:
            main([str(path), *words])
        except UserError as error:
            return 2, "", [str(error)]
        except SystemExit as ended:
            code = int(str(ended.code))
        printed = self._capture.readouterr()
        return code, printed.out, printed.err.splitlines()

    def refused(self, path: Path, *words: str, only: bool = True) -> str:
        """Asserts that the command ends with trouble, in one line where nothing else is wrong; returns the first."""
        code, out, troubles = self.check(path, *words)
        assert code == 2, out
        assert "ready:" not in out
        if only:
            assert len(troubles) == 1, troubles
        assert "Traceback" not in " ".join(troubles)
        return troubles[0].replace(f"{path}:", "FILE:", 1)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> User:
    """A user in the root of the checkout, known to no cloud."""
    made = User(tmp_path, capsys)
    for name in list(os.environ):
        if re.match("AWS_|GOOGLE_|CLOUDSDK_|AZURE_|RAY_", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(made.home))
    monkeypatch.setenv("PATH", f"{made.programs}:{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.chdir(CHECKOUT)
    # No test comes to another machine.
    made.program("ssh", "echo 'no ssh in tests' >&2; exit 255")
    return made
