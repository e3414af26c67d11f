"""A document and a JSON schema go in; a line per mistake comes out, with the key and the nearest valid one."""

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft7Validator, ValidationError

from siamray.errors import nearest
from siamray.launch.checks import Asked, Check, trouble

_TYPES = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "keys with values",
    "null": "null",
}


def mistakes(asked: Asked, schema: Mapping[str, Any], content: Any, above: tuple[str | int, ...] = ()) -> list[Check]:
    """Holds a part of a file against a schema.

    Args:
        asked: the file.
        schema: of draft 7.
        content: the part.
        above: the path to it in the file.

    Returns:
        A trouble per mistake, in the order of the file.
    """
    found: dict[str, None] = {}
    for error in sorted(Draft7Validator(schema).iter_errors(content), key=lambda error: [str(p) for p in error.path]):
        found |= dict.fromkeys(said(asked, error, above))
    return [trouble(asked.name, line) for line in found]


def said(asked: Asked, error: ValidationError, above: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Says a mistake in one line, naming file, line, key and remedy."""
    path = (*above, *error.absolute_path)
    where = ".".join(map(str, path)) or "the file"
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(error.schema.get("properties", {}))
        for key in error.instance:
            if key not in known:
                inside = f" in {where}" if path else ""
                yield f"{asked.at(*path, key)}: no option '{key}'{inside}{nearest(str(key), known)}"
    elif error.validator == "required":
        for key in error.validator_value:
            if isinstance(error.instance, dict) and key not in error.instance:
                yield f"{asked.at(*path)}: {where} lacks {key}; add it"
    elif error.validator == "type":
        kinds = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        wanted = " or ".join(_TYPES.get(str(kind), str(kind)) for kind in kinds)
        yield f"{asked.at(*path)}: {where} is {shown(error.instance)} and must be {wanted}"
    elif error.validator == "enum":
        words = [str(word) for word in error.validator_value]
        yield f"{asked.at(*path)}: {where} is {shown(error.instance)}{nearest(str(error.instance), words)}"
    elif error.validator == "minimum":
        yield f"{asked.at(*path)}: {where} is {shown(error.instance)} and must be at least {error.validator_value}"
    else:
        yield f"{asked.at(*path)}: {where}: {' '.join(error.message.split())[:200]}; correct it"


def shown(value: Any) -> str:
    """A value as it can stand in a line."""
    if isinstance(value, dict):
        return "keys with values"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "empty"
    return f"'{str(value)[:60]}'" if isinstance(value, str) else str(value).lower()
