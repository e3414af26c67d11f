"""Every option of the dashboards' commands, once; the words of a command line go in, checked options come out."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from siamray.errors import UserError, nearest

Options = TypeVar("Options")


def option(default: Any, meaning: str, *, choices: tuple[str, ...] = (), low: int = 0, high: int = 0) -> Any:
    """Declares one option.

    Args:
        default: the default value; its type is that of the field.
        meaning: one line for ``--help``.
        choices: the allowed words, where it is a word out of a list.
        low: the least allowed number.
        high: the greatest allowed number; where it is not above ``low`` there are no limits.
    """
    return dataclasses.field(
        default=default, metadata={"meaning": meaning, "choices": choices, "low": low, "high": high}
    )


@dataclass(frozen=True)
class AppOptions:
    """What ``python -m dashboards`` takes."""

    results: str = option("results", "folder or URL of results, or of one experiment in it; it is only read")
    port: int = option(8050, "TCP port to listen on; 0 takes a free one", low=0, high=65535)
    host: str = option(
        "127.0.0.1",
        "address to listen on; of this machine alone unless it says otherwise, and then only the link that is printed, "
        "with its token, opens the pages",
    )


@dataclass(frozen=True)
class ExportOptions:
    """What ``python -m dashboards.export`` takes."""

    results: str = option("results", "folder or URL of results, or of one experiment in it; it is only read")
    out: str = option("", "the HTML file to write (out=FILE.html), with all pages and figures in it")
    figures: str = option("", "folder for every figure as a file of its own, for a paper; needs siamray[figures]")
    format: str = option("svg", "kind of the files of figures=", choices=("svg", "pdf", "png"))


def parse(kind: type[Options], words: list[str], command: str) -> Options:
    """Reads a command line.

    Args:
        kind: a dataclass whose fields are declared by option().
        words: each ``option=value``; later ones win.
        command: how the command is called, for messages.

    Raises:
        UserError: an unknown, mistyped or forbidden option, with the nearest valid name.
        SystemExit: after ``--help`` was printed.
    """
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    types = typing.get_type_hints(kind)
    if any(word in ("--help", "-h", "help") for word in words):
        print(help_text(kind, command))
        raise SystemExit(0)
    given: dict[str, Any] = {}
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals:
            raise UserError(f"'{word}': options are written option=value; {command} --help lists them")
        if name not in fields:
            raise UserError(f"{name}: no such option of {command}{nearest(name, list(fields))}")
        given[name] = _value(name, value, types[name], fields[name].metadata)
    return kind(**given)


def help_text(kind: type[Any], command: str) -> str:
    """Writes the help of a command: its options with meaning and default."""
    lines = [f"{command} [option=value ...]", "", "Options:"]
    for entry in dataclasses.fields(kind):
        lines += [f"  {entry.name} [{entry.default}]", f"      {entry.metadata['meaning']}"]
    return "\n".join(lines)


def _value(name: str, text: str, kind: type[Any], rule: typing.Mapping[str, Any]) -> Any:
    if not text:
        raise UserError(f"{name}=: no value given")
    if kind is not int:
        if rule["choices"] and text not in rule["choices"]:
            raise UserError(f"{name}={text}: not an allowed value{nearest(text, list(rule['choices']))}")
        return text
    try:
        number = int(text)
    except ValueError:
        raise UserError(f"{name}={text}: not a whole number") from None
    if rule["low"] < rule["high"] and not rule["low"] <= number <= rule["high"]:
        raise UserError(f"{name}={text}: must be from {rule['low']} to {rule['high']}")
    return number
