"""The plain record of an inspection and its contact sheet go in; one self-contained HTML page comes out, no script."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dashboards.page import code, definitions, folded, note, section, table, text
from siamray.files import write_atomically

Record = Mapping[str, Any]

# A sheet of a dozen pairs stays under a megabyte, so that the page can be sent.
LARGEST_PICTURE = 40_000
_QUALITIES = (88, 80, 70, 55, 40)
# Values of a distribution that are shown before the others are folded away.
SHOWN = 6
_HERE = Path(__file__).parent
_MEANINGS = {
    "left out": "Left out: these images will not be in the store",
    "to check": "To check: nothing is left out, but something may be wrong",
    "to know": "To know: nothing is wrong",
}


def write_page(path: Path, record: Record, tiles: Sequence[Record], command: str) -> None:
    """Writes the page of an inspection.

    Args:
        path: the file.
        record: siamray.data.inspection.Inspection.to_dict().
        tiles: siamray.data.contact_sheet.Tile.to_dict() of each pair.
        command: the command line, so that the page can be made again.

    Raises:
        UserError: the folder cannot be written to.
    """
    content = inspection_page(record, tiles, command).encode("utf-8", "replace")
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def inspection_page(record: Record, tiles: Sequence[Record], command: str) -> str:
    """Makes the page; see write_page."""
    where = f"<p>{code(record['root'])}</p>" if record["root"] else ""
    head = (
        f'<header><p class="eyebrow">siamray, inspection</p><h1>{text(record["source"])}</h1>{where}'
        f'<p class="question">{text(_verdict(record))}</p>{_figures(record)}</header>'
    )
    parts = [
        head,
        _troubles(record["troubles"]),
        _sheet(tiles),
        _pairs(record),
        _spreads("What the headers say", record["headers"]),
        _labels(record),
        _spreads("Ages and times", [entry for entry in record["ages"] if entry["counts"]]),
        _boxes(record["boxes"]),
        _made(record, command),
        "<footer>Made by siamray, research software: not a medical device, not for diagnosis.</footer>",
    ]
    styles = "".join((_HERE / name).read_text(encoding="utf-8") for name in ("report.css", "inspection.css"))
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{text(record['source'])}, siamray inspection</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{styles}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _verdict(record: Record) -> str:
    total = record["pairs"][-1]
    if not total["usable"]:
        return "No pair can be used: what is left out, and why, is listed below."
    women = f"{total['usable']:,} of {total['pairs']:,} pairs can be used, of {total['women']:,} women."
    severities = [trouble["severity"] for trouble in record["troubles"]]
    reasons, checks = severities.count("left out"), severities.count("to check")
    lost = f"{reasons} reason{'s leave' if reasons != 1 else ' leaves'} images out" if reasons else ""
    doubts = f"{checks} thing{'s' if checks != 1 else ''} to check" if checks else ""
    return f"{women} {', '.join(filter(None, (lost, doubts))) or 'Nothing is left out or contradictory'}."


def _figures(record: Record) -> str:
    items = [f"<li><b>{count:,}</b><span>{text(name)}</span></li>" for name, count, _ in record["overview"]]
    return f'<ul class="figures">{"".join(items)}</ul>'


def _troubles(troubles: Sequence[Record]) -> str:
    if not troubles:
        return section("Trouble", "<p>None was found.</p>")
    parts: list[str] = []
    severity = ""
    for trouble in troubles:
        if trouble["severity"] != severity:
            severity = trouble["severity"]
            parts.append(f"<h3>{text(_MEANINGS[severity])}</h3>")
        examples = "".join(f"<li>{_example(example)}</li>" for example in trouble["examples"])
        remedy = f"<p>What to do: {text(trouble['remedy'])}.</p>" if trouble["remedy"] else ""
        heading = f"<h4>{trouble['count']:,} {text(trouble['of'])}: {text(trouble['kind'])}</h4>"
        look = text(severity.replace(" ", "-"))
        parts.append(f'<div class="trouble {look}">{heading}{remedy}<ul>{examples}</ul></div>')
    return section("Trouble", note("Of every kind up to three examples, spread over all that have it."), *parts)


def _example(example: Record) -> str:
    file, image = example["file"], example["image_id"]
    name = code(file) if image in file else f"{code(image)} in {code(file)}"
    return f"{name}: {text(example['detail'])}" if example["detail"] else name


def _pairs(record: Record) -> str:
    names = ("left", "right", "pairs", "usable", "women")
    rows = [[text(row["view"]), *(f"{row[name]:,}" for name in names)] for row in record["pairs"]]
    head = ["view", "left images", "right images", "complete pairs", "usable pairs", "women with one"]
    words = "Usable as far as tables and headers tell: pixels may still turn out damaged, or a pair not registered."
    return section("Pairs", table(head, rows), note(words))


def _spreads(title: str, entries: Iterable[Record]) -> str:
    blocks = [_spread(entry) for entry in entries if entry["counts"] or entry["unknown"]]
    return section(title, f'<div class="spreads">{"".join(blocks)}</div>') if blocks else ""


def _spread(entry: Record) -> str:
    further, having = entry["further"]
    total = max(1, sum(entry["counts"].values()) + having + entry["unknown"])
    rows = [_value(value, count, total) for value, count in entry["counts"].items()]
    if further:
        rows.append(_value(f"{further:,} other values", having, total))
    unknown = [_value("unknown", entry["unknown"], total)] if entry["unknown"] else []
    spread = entry["range"]
    low, high = (f"{spread[0]:g}", f"{spread[2]:g}") if spread else ("", "")
    words = f"<p>{text(f'{low} to {high}, median {spread[1]:g}')}</p>" if spread and low != high else ""
    rest = folded(f"{len(rows) - SHOWN} more", *rows[SHOWN:]) if len(rows) > SHOWN else ""
    return f'<div class="spread"><h3>{text(entry["name"])}</h3>{words}{"".join([*rows[:SHOWN], *unknown])}{rest}</div>'


def _value(name: str, count: int, total: int) -> str:
    share = 100 * count / total
    words = f"{count:,}" if count == total else f"{count:,} ({share:.0f} %)" if share >= 1 else f"{count:,} (<1 %)"
    bar = f'<i style="--share:{share:.2f}%"></i>'
    return f'<div class="value"><span>{text(name)}</span><b>{text(words)}</b>{bar}</div>'


def _labels(record: Record) -> str:
    if not record["labels"]:
        return ""
    head = ["", "listed", "usable", *record["labels"][0]["splits"]]
    rows: list[list[str]] = []
    group = ""
    for row in record["labels"]:
        if row["group"] != group:
            group = row["group"]
            rows.append([text(group)])
        counts = [row["listed"], row["usable"], *row["splits"].values()]
        rows.append([text(row["name"].replace("_", " ")), *(f"{count:,}" for count in counts)])
    words = (
        "Listed: all images with a known side in CC or MLO view. Usable: those of usable pairs; training, validation "
        "and test deal their women as training will. A breast is a side of an exam; the most suspicious label of its "
        "images counts. What counts as normal: "
    )
    return section(
        "Labels and splits", table(head, rows), f'<p class="note">{text(words)} {code(record["normal"])}</p>'
    )


def _boxes(boxes: Sequence[Record]) -> str:
    if not boxes:
        return ""
    rows = []
    for row in boxes:
        lengths = [f"{length:.1f}" for length in row["long_mm"]] if row["long_mm"] else ["-"] * 3
        counts = [f"{row[name]:,}" for name in ("boxes", "images", "unplaced")]
        rows.append([text(row["category"].replace("_", " ")), *counts, *lengths])
    head = ["category", "boxes", "images", "without place", "long side in mm, 5 %", "median", "95 %"]
    return section("Boxes of findings", table(head, rows))


def _made(record: Record, command: str) -> str:
    timing = record["timing"]
    entries = [("command", code(command))]
    if timing["headers"]:
        entries += [
            (
                "headers",
                text(f"{timing['headers']:,} in {timing['seconds']:.1f} s: {timing['per_second']:,.0f} a second"),
            ),
            (
                "one header",
                f"median {timing['median_ms']:.1f} ms, 95 % {timing['high_ms']:.1f} ms, "
                f"slowest {timing['slowest_ms']:.0f} ms: {code(timing['slowest_file'])}",
            ),
        ]
    return section(
        "How it was read", definitions(entries), note("Tables and headers only; pixels of the contact sheet.")
    )


def _sheet(tiles: Sequence[Record]) -> str:
    if not tiles:
        return ""
    words = (
        f"{len(tiles)} pairs drawn at random by data.split_seed, those with a marked lesion first, about half of all, "
        "prepared as preparation will do it: left, and right mirrored and registered onto left. Boxes: solid in the "
        "left image, dashed in the right one. Dotted: the left breast's outline in both images; the right breast "
        "should fit it. Pairs whose quality is below preparation.registration.minimum_quality are left out."
    )
    return section(
        "Contact sheet",
        note(words),
        f'<div class="tiles">{"".join(_tile(tile) for tile in tiles)}</div>',
    )


def _tile(tile: Record) -> str:
    left, right = tile["image_ids"]
    title = f"<b>{text(tile['woman_id'])}, {text(tile['view'])}</b>"
    names = f"{code(left)} {code(right)}"
    if tile["reason"]:
        shown = f'<div class="refused"><span>Not prepared: {text(tile["reason"])}</span></div>'
        return f"<figure>{shown}<figcaption>{title}<br>{names}</figcaption></figure>"
    registration = tile["registration"]
    found = [f"{box['category']} {box['side']}" for box in tile["boxes"]]
    found += [f"{tile['unplaced']} without a place"] if tile["unplaced"] else []
    figures = {"overlap": "dice", "correlation": "correlation", "quality": "quality"}
    words = ", ".join([registration["kind"], *(f"{word} {registration[name]:.2f}" for word, name in figures.items())])
    sides = "".join(_side(tile, side) for side in ("left", "right"))
    lesions = text(", ".join(found) or "nothing marked").replace("_", " ")
    caption = f"<figcaption>{title}: {lesions}<br>{text(words)}<br>{names}</figcaption>"
    return f'<figure><div class="sides">{sides}</div>{caption}</figure>'


def _side(tile: Record, side: str) -> str:
    pixels = tile["images"][side]
    height, width = pixels.shape
    line = 'fill="none" vector-effect="non-scaling-stroke"'
    marks = [
        f'<polyline points="{" ".join(f"{col:.1f},{row:.1f}" for row, col in points)}" {line} '
        'stroke="#ffffff" stroke-opacity="0.6" stroke-width="1" stroke-dasharray="1 4"/>'
        for points in tile["outline"]
    ]
    color, dash = ("#56b4e9", "none") if side == "left" else ("#e69f00", "6 4")
    marks += [
        f'<rect x="{box["col_min"]:.1f}" y="{box["row_min"]:.1f}" width="{box["col_max"] - box["col_min"]:.1f}" '
        f'height="{box["row_max"] - box["row_min"]:.1f}" {line} stroke="{color}" stroke-width="2" '
        f'stroke-dasharray="{dash}"><title>{text(box["category"])}</title></rect>'
        for box in tile["boxes"]
        if box["side"] == side
    ]
    name = text(f"{tile['woman_id']}, {tile['view']}, {side}")
    return (
        f'<div class="side"><img src="{picture(pixels)}" width="{width}" height="{height}" alt="{name}">'
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(marks)}</svg><span>{text(side)}</span></div>'
    )


def picture(pixels: npt.NDArray[np.uint8]) -> str:
    """Makes a data URI of at most LARGEST_PICTURE bytes of a grey image: by coarser compression, then by fewer pixels.

    Args:
        pixels: grey values, [rows, cols].
    """
    image = Image.fromarray(pixels)
    while True:
        for quality in _QUALITIES:
            buffer = BytesIO()
            image.save(buffer, "JPEG", quality=quality, optimize=True)
            words = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
            if len(words) <= LARGEST_PICTURE:
                return words
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))
