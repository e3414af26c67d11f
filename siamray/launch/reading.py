"""A YAML file goes in; its documents come out, with the line of every key, and a line for what is no YAML."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from siamray.errors import UserError
from siamray.launch.checks import Check, trouble

Lines = dict[tuple[str | int, ...], int]


@dataclass(frozen=True)
class Document:
    """One document of a file.

    Attributes:
        content: what it says.
        lines: path of keys -> line in the file; the empty path is where the document begins.
    """

    content: Any
    lines: Lines


def read(path: Path, name: str) -> tuple[list[Document], list[Check]]:
    """Reads a file.

    Args:
        path: the file.
        name: how the user wrote it.

    Returns:
        Its documents, none where it is no YAML; and what is wrong with it, keys that are given twice among it.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{name}: there is no such file; name a file that starts a cluster, as cluster.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"{name} cannot be read ({reason}); name a file that starts a cluster") from None
    try:
        nodes = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
        contents = [content for content in yaml.safe_load_all(text) if content is not None]
    except yaml.MarkedYAMLError as error:
        return [], [_no_yaml(error, text, name)]
    except yaml.YAMLError as error:
        return [], [trouble(name, f"{name}: no YAML ({' '.join(str(error).split())}); mend it there")]
    found: list[Document] = []
    twice: list[Check] = []
    for node, content in zip(nodes, contents, strict=True):
        lines: Lines = {}
        for key_path, key in _walk(node, (), lines):
            where = ".".join(map(str, key_path))
            line = key.start_mark.line + 1
            twice.append(trouble(name, f"{name}:{line}: {where} is given twice, and only the last counts; keep one"))
        found.append(Document(content, lines))
    return found, twice


def _no_yaml(error: yaml.MarkedYAMLError, text: str, name: str) -> Check:
    """Says where a file stops being YAML."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    lines = text.splitlines()
    shown = lines[line - 1].strip()[:60] if line <= len(lines) else ""
    problem = " ".join((error.problem or "").split())
    if "tab" in problem or "\\t" in problem:
        remedy = "indent by spaces, not tabs"
    elif "undefined alias" in problem:
        remedy = "define it by & above, or write the value out"
    elif "constructor" in problem:
        problem = "a tag that no file of a cluster has"
        remedy = "take it away; a template of CloudFormation starts no cluster: name cluster.yaml"
    else:
        remedy = "look at its indentation, and at colons and quotes in this line and the one above"
    return trouble(name, f"{name}:{line}: no YAML here ({problem}): '{shown}'; {remedy}")


def _walk(node: yaml.Node, path: tuple[str | int, ...], lines: Lines) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Notes the lines below a node; yields the keys that are given twice."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _walk(item, (*path, number), lines)
    elif isinstance(node, yaml.MappingNode):
        own = set()
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = str(key.value)
            if name in own:
                yield (*path, name), key
            own.add(name)
            lines[(*path, name)] = key.start_mark.line + 1
            yield from _walk(value, (*path, name), lines)
        for key, value in node.value:
            # What a merge brings lies where it was written, unless a key of one's own stands above it.
            if key.tag == "tag:yaml.org,2002:merge":
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    brought: Lines = {}
                    list(_walk(merged, path, brought))
                    for where, line in brought.items():
                        lines.setdefault(where, line)
