"""What a check of a launch file finds: one record a fact, good, in trouble, or honestly not checked."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What came of one check."""

    GOOD = "good"
    TROUBLE = "trouble"
    UNCHECKED = "not checked"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        subject: what it was: the file, a host, a bucket.
        outcome: what came of it.
        said: one line: the facts; of a trouble the remedy too; of what was not checked the reason.
    """

    subject: str
    outcome: Outcome
    said: str


def good(subject: str, said: str) -> Check:
    """A check that found all as it should be."""
    return Check(subject, Outcome.GOOD, said)


def trouble(subject: str, said: str) -> Check:
    """A check that found what would make the start fail; says the remedy."""
    return Check(subject, Outcome.TROUBLE, said)


def unchecked(subject: str, said: str) -> Check:
    """What could not be looked at from here; says why."""
    return Check(subject, Outcome.UNCHECKED, said)


def troubled(checks: list[Check]) -> bool:
    """Tells whether any of the checks found trouble."""
    return any(check.outcome is Outcome.TROUBLE for check in checks)


@dataclass(frozen=True)
class Asked:
    """What the user wants to know of.

    Attributes:
        name: of the launch file, as the user wrote it.
        config: what the file says, as far as it is valid.
        lines: path of keys -> line of the file.
        places: option (store, results) -> the folder or URL that the sweeps will be given.
    """

    name: str
    config: dict[str, Any]
    lines: dict[tuple[str | int, ...], int]
    places: dict[str, str]

    def at(self, *path: str | int) -> str:
        """Names the file with the line of a key, or of the nearest one above it that has a line."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path in self.lines else self.name
