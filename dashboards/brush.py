"""What is pulled along the axes of parallel coordinates in, a word of an address out, and back."""

import json
from typing import Any

from dashboards.figures.parallel_coordinates import Ranges


def brush_words(figure: dict[str, Any], changed: Any, state: dict[str, str]) -> str:
    """Writes what is brushed for the address.

    Args:
        figure: the parallel coordinates as they are in the browser.
        changed: what plotly tells of the change: [{"dimensions[2].constraintrange": ...}, ...].
        state: of the address.
    """
    ranges: dict[str, Any] = dict(brush_ranges(state.get("brush", "")))
    dimensions = ((figure.get("data") or [{}])[0]).get("dimensions") or []
    for name, value in (changed[0] if isinstance(changed, list) and changed else {}).items():
        place = name.removeprefix("dimensions[").partition("]")[0]
        if not name.endswith("constraintrange") or not place.isdigit() or int(place) >= len(dimensions):
            continue
        pairs = value[0] if isinstance(value, list) and value and isinstance(value[0], list) else value
        pairs = [pairs] if isinstance(pairs, list) and pairs and not isinstance(pairs[0], list) else pairs
        axis = str(dimensions[int(place)].get("name"))
        ranges.pop(axis, None)
        if pairs:
            ranges[axis] = [[round(float(low), 6), round(float(high), 6)] for low, high in pairs]
    return json.dumps(ranges, separators=(",", ":")) if ranges else ""


def brush_ranges(text: str) -> dict[str, Ranges]:
    """Reads what is brushed: axis -> its ranges; nothing of a text that is none."""
    try:
        found = json.loads(text) if text else {}
        return {str(name): [(float(low), float(high)) for low, high in pairs] for name, pairs in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
