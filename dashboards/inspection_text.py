"""The plain record of an inspection goes in; tables for a terminal come out, troubles last and of these the gravest."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# Values of a distribution that a terminal's line has room for.
SHOWN = 6
STYLES = {"left out": "bold red", "to check": "bold yellow", "to know": "bold cyan"}
_MEANINGS = {
    "left out": "these images will not be in the store",
    "to check": "nothing is left out, but something may be wrong",
    "to know": "nothing is wrong",
}


def render(record: Mapping[str, Any]) -> RenderableType:
    """Makes the report for a terminal.

    Args:
        record: siamray.data.inspection.Inspection.to_dict().
    """
    return Group(*_parts(record))


def _parts(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield _overview(record)
    yield _pairs(record)
    yield _headers(record)
    yield _labels(record)
    if record["boxes"]:
        yield _boxes(record)
    yield from _troubles(record)


def _table(title: str, *numbers: str, first: str = "") -> Table:
    # Text, not str: in a str rich takes what stands in brackets for a style.
    table = Table(title=Text(f"\n{title}", style="bold"), title_justify="left", box=None, pad_edge=False)
    table.show_header = bool(numbers or first)
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _overview(record: Mapping[str, Any]) -> Table:
    where = f", {record['root']}" if record["root"] else ""
    table = _table(f"data={record['source']}{where}")
    table.add_column(justify="right")
    table.add_column(overflow="fold", style="dim")
    for name, count, remark in record["overview"]:
        table.add_row(name, f"{count:,}", Text(remark))
    timing = record["timing"]
    if timing["headers"]:
        remark = (
            f"in {timing['seconds']:.1f} s, {timing['per_second']:,.0f} a second; one takes {timing['median_ms']:.1f} "
            f"ms (95 %: {timing['high_ms']:.1f}, slowest {timing['slowest_ms']:.0f} ms)"
        )
        table.add_row("headers read", f"{timing['headers']:,}", remark)
    return table


def _pairs(record: Mapping[str, Any]) -> Table:
    table = _table("Pairs", "left images", "right images", "pairs", "usable", "women with one", first="view")
    for row in record["pairs"]:
        table.add_row(row["view"], *(f"{row[name]:,}" for name in ("left", "right", "pairs", "usable", "women")))
    return table


def _headers(record: Mapping[str, Any]) -> Table:
    table = _table("What headers and tables say")
    table.add_column(overflow="fold")
    for entry in [*record["headers"], *record["ages"]]:
        if entry["counts"] or entry["unknown"]:
            table.add_row(entry["name"], Text(distribution(entry)))
    return table


def distribution(entry: Mapping[str, Any], shown: int = SHOWN) -> str:
    """Writes a distribution in one line: least, median, greatest where there are several numbers; values and counts."""
    counts = list(entry["counts"].items())
    few = [f"{value} ({count:,})" for value, count in counts[:shown]]
    values, having = entry["further"]
    rest = len(counts) - shown if len(counts) > shown else 0
    if rest + values:
        having += sum(count for _, count in counts[shown:])
        few.append(f"{rest + values:,} other values ({having:,})")
    if entry["unknown"]:
        few.append(f"unknown ({entry['unknown']:,})")
    spread = entry["range"]
    start = ""
    if spread and spread[0] != spread[2]:
        start = f"{spread[0]:g} to {spread[2]:g}, median {spread[1]:g}: "
    return start + ", ".join(few)


def _labels(record: Mapping[str, Any]) -> Table:
    splits = list(record["labels"][0]["splits"]) if record["labels"] else []
    table = _table("Labels", "listed", "usable", *splits)
    table.caption = Text(f"normal by {record['normal']}", style="dim")
    table.caption_justify = "left"
    group = ""
    for row in record["labels"]:
        if row["group"] != group:
            group = row["group"]
            table.add_row(Text(group, style="dim"))
        counts = [row["listed"], row["usable"], *row["splits"].values()]
        indent = "  " if group else ""
        table.add_row(Text(f"{indent}{row['name'].replace('_', ' ')}"), *(f"{count:,}" for count in counts))
    return table


def _boxes(record: Mapping[str, Any]) -> Table:
    table = _table(
        "Boxes of findings",
        "boxes",
        "images",
        "without place",
        "long side, mm: 5 %",
        "median",
        "95 %",
        first="category",
    )
    for row in record["boxes"]:
        lengths = [f"{length:.1f}" for length in row["long_mm"]] if row["long_mm"] else ["-"] * 3
        table.add_row(
            row["category"].replace("_", " "), *(f"{row[name]:,}" for name in ("boxes", "images", "unplaced")), *lengths
        )
    return table


def _troubles(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    if not record["troubles"]:
        yield Text("\nNo trouble found.", style="bold green")
        return
    severity = ""
    # The gravest last, next to where the next command is typed.
    for trouble in sorted(record["troubles"], key=lambda trouble: -list(STYLES).index(trouble["severity"])):
        if trouble["severity"] != severity:
            severity = trouble["severity"]
            yield Text.assemble("\n", (severity.capitalize(), STYLES[severity]), f": {_MEANINGS[severity]}")
        counted = f"{trouble['count']:,} {trouble['of']}"
        yield Text.assemble((f"{counted}: ", "bold"), trouble["kind"])
        for example in trouble["examples"]:
            yield Padding(Text(example_words(example), style="dim", overflow="fold"), (0, 0, 0, 4), expand=False)
        if trouble["remedy"]:
            yield Padding(Text(f"-> {trouble['remedy']}"), (0, 0, 0, 4), expand=False)


def example_words(example: Mapping[str, str]) -> str:
    """Names an image by its file, and by its id where the file's name does not hold it, and tells its particulars."""
    file, image = example["file"], example["image_id"]
    name = file if image in file else f"{image}  {file}"
    return f"{name}  ({example['detail']})" if example["detail"] else name
