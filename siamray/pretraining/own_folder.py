"""A run's folder that not all of its workers see: its files go to those workers, and what the leading one makes back.

On a cluster without a common disk every worker then trains in a temporary folder of its own.
"""

import os
import uuid
from contextlib import suppress
from pathlib import Path

from siamray.files import write_atomically, writing_to

Files = dict[str, bytes]
"""Name below the folder -> content."""

_MARK_FILE = ".process"


def mark(folder: Path) -> str:
    """Leaves a word in a folder by which others know that they see the same one.

    Args:
        folder: of the run; made where there is none.

    Returns:
        The word, another one each time.

    Raises:
        UserError: the folder cannot be written to.
    """
    word = uuid.uuid4().hex
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK_FILE).write_text(word, encoding="utf-8")
    return word


def sees(folder: Path, word: str) -> bool:
    """Says whether a folder is the one that was marked with a word."""
    try:
        return (folder / _MARK_FILE).read_text(encoding="utf-8") == word
    except OSError:
        return False


def unmark(folder: Path) -> None:
    """Removes the word."""
    (folder / _MARK_FILE).unlink(missing_ok=True)


def unpack(folder: Path, files: Files) -> None:
    """Writes files into a folder.

    Args:
        folder: made where there is none.
        files: each is there whole or as before.

    Raises:
        UserError: the folder cannot be written to.
    """
    for name, content in files.items():
        path = folder / name

        def write(temporary: Path, content: bytes = content) -> None:
            temporary.write_bytes(content)

        write_atomically(path, write)


class Changes:
    """Files of a folder that have changed since it was looked at last."""

    def __init__(self, folder: Path, leave_out: str = "") -> None:
        """Knows of no file yet.

        Args:
            folder: of the run.
            leave_out: a folder in it whose files are nobody else's; neither are those whose names begin with a dot.
        """
        self._folder, self._leave_out = folder, leave_out
        self._known: dict[str, tuple[int, int]] = {}

    def take(self) -> Files:
        """Reads what is new or has changed; what has gone is not told."""
        seen = self._look()
        new = [name for name, about in seen.items() if self._known.get(name) != about]
        self._known = seen
        return {name: (self._folder / name).read_bytes() for name in new}

    def _look(self) -> dict[str, tuple[int, int]]:
        found = {}
        for below, folders, names in os.walk(self._folder):
            folders[:] = [name for name in folders if name[0] != "." and name != self._leave_out]
            for name in (name for name in names if name[0] != "."):
                path = Path(below, name)
                with suppress(FileNotFoundError):
                    about = path.stat()
                    found[path.relative_to(self._folder).as_posix()] = (about.st_size, about.st_mtime_ns)
        return found
