"""Values and lists go in; what a methods section writes for them comes out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NOT_RECORDED = "not recorded"


def in_words(value: Any) -> str:
    """Writes an option's value as one reads it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {in_words(inner)}" for name, inner in value.items()) or "none"
    return str(value)


def listed(words: Sequence[Any]) -> str:
    """Writes words as a list in a sentence."""
    named = [str(word) for word in words]
    return f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else "".join(named)


def numbered(number: int, one: str, many: str | None = None) -> str:
    """Writes a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def distinct(values: Iterable[Any]) -> list[str]:
    """Every value once, as a word, in their order."""
    return list(dict.fromkeys(str(value) for value in values if value))
