"""The page and the terminal report of an inspection: the plain record in, all of it shown, as text, without network."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dashboards.inspection import LARGEST_PICTURE, inspection_page, picture, write_page
from dashboards.inspection_text import distribution, render
from siamray.errors import UserError

HOSTILE = '</style><img src=x onerror="alert(1)"><script>alert(1)</script>[red]&amp;"\''
SECTIONS = ["Trouble", "Contact sheet", "Pairs", "What the headers say", "Labels and splits", "Boxes of findings"]
SECTIONS += ["How it was read"]


def record(words: str = "plain", **changed: Any) -> dict[str, Any]:
    """A record as siamray.data.inspection.Inspection.to_dict gives it, with these words wherever a set has words."""
    spread = {"name": words, "of": "images", "counts": {words: 7, "b": 1}, "further": (3, 4), "unknown": 2}
    label = {
        "group": words,
        "name": words,
        "listed": 9,
        "usable": 8,
        "splits": {"training": 4, "validation": 2, "test": 2},
    }
    example = {"image_id": words, "file": "a/b.dcm", "detail": words}
    trouble = {"kind": words, "count": 1234, "of": "images", "remedy": words, "examples": [example] * 3}
    return {
        "source": words,
        "root": words,
        "overview": [("women", 4321, words)],
        "pairs": [{"view": "all", "left": 9, "right": 8, "pairs": 8, "usable": 7, "women": 5}],
        "headers": [spread | {"range": None}, spread | {"name": "spacing, mm", "range": (0.05, 0.07, 0.1)}],
        "labels": [label],
        "normal": words,
        "ages": [],
        "boxes": [{"category": words, "boxes": 5, "images": 4, "unplaced": 1, "long_mm": [1.0, 2.5, 9.75]}],
        "troubles": [trouble | {"severity": severity} for severity in ("left out", "to check", "to know")],
        "timing": {
            "headers": 5000, "seconds": 2.0, "per_second": 2500.0, "median_ms": 0.8, "high_ms": 1.5, "slowest_ms": 20.0,
            "slowest_file": words,
        },
    } | changed  # fmt: skip


def tile(words: str = "plain", **changed: Any) -> dict[str, Any]:
    box = {"side": "right", "category": words, "row_min": 10.0, "col_min": 20.0, "row_max": 40.0, "col_max": 60.0}
    return {
        "woman_id": words,
        "exam_id": words,
        "view": "CC",
        "image_ids": (words, words),
        "reason": "",
        "images": {side: np.full((120, 90), 80, dtype=np.uint8) for side in ("left", "right")},
        "boxes": [box],
        "unplaced": 2,
        "outline": [[(0.0, 0.0), (60.0, 80.0), (120.0, 0.0)]],
        "registration": {"kind": "affine", "dice": 0.95, "correlation": 0.9, "quality": 0.71},
    } | changed


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements[-1][0] != "style":
            self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(*arguments: Any) -> Page:
    return Page(inspection_page(*arguments))


def terminal(shown: dict[str, Any], width: int = 100, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(render(shown), highlight=False)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_page_shows_the_whole_record_with_its_sections_in_order() -> None:
    page = page_of(record("words"), [tile("words")], "python -m siamray.prepare data=x")
    assert [words for words in page.words if words in SECTIONS] == SECTIONS
    for words in (
        "7 of 8 pairs can be used, of 5 women.",
        "1 reason leaves images out, 1 thing to check",
        "4,321",
        "1,234 images: words",
        "What to do: words.",
        "3 other values",
        "0.05 to 0.1, median 0.07",
        "9.8",
        "5,000 in 2.0 s: 2,500 a second",
        "affine, overlap 0.95, correlation 0.90, quality 0.71",
        "2 without a place",
        "python -m siamray.prepare data=x",
        "not for diagnosis",
    ):
        assert words in page.text, words


def test_hostile_words_are_shown_as_text_everywhere() -> None:
    page = page_of(record(HOSTILE), [tile(HOSTILE), tile(HOSTILE, reason=HOSTILE)], HOSTILE)
    assert not page.named("script")
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert all((attributes["src"] or "").startswith("data:image/jpeg") for attributes in page.named("img"))
    assert page.text.count(HOSTILE) > 30


def test_the_page_asks_no_network_for_anything() -> None:
    html = inspection_page(record(), [tile()], "command")
    assert not re.findall(r"(?:https?:)?//[a-z]", html)
    page = Page(html)
    for attribute in ("src", "href", "action"):
        used = [attributes[attribute] or "" for _, attributes in page.elements if attribute in attributes]
        assert all(value.startswith("data:") for value in used)


def test_boxes_lie_in_their_own_sides_picture() -> None:
    page = page_of(record(), [tile()], "command")
    (box,) = page.named("rect")
    assert [box[name] for name in ("x", "y", "width", "height")] == ["20.0", "10.0", "40.0", "30.0"]
    assert [view["viewbox"] for view in page.named("svg")] == ["0 0 90 120"] * 2
    order = [name for name, _ in page.elements if name in ("img", "rect")]
    assert order == ["img", "img", "rect"]


def test_a_pair_that_cannot_be_prepared_shows_its_reason_in_the_pictures_place() -> None:
    page = page_of(record(), [tile(reason="no breast found", images={})], "command")
    assert "Not prepared: no breast found" in page.text
    assert not page.named("img")


@pytest.mark.parametrize("shape", [(480, 300), (480, 480), (3000, 2400), (1, 1), (480, 1)])
def test_no_picture_is_larger_than_it_may_be(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    uri = picture(noise)
    assert len(uri) <= LARGEST_PICTURE
    content = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(content)) as shown:
        assert shown.width / shown.height == pytest.approx(shape[1] / shape[0], rel=0.02)


def test_a_smooth_picture_keeps_its_size_and_its_grey_values() -> None:
    rows, cols = np.mgrid[:480, :300]
    pixels = (100 + 60 * np.sin(rows / 50) * np.cos(cols / 40)).astype(np.uint8)
    content = base64.b64decode(picture(pixels).removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(content)) as shown:
        np.testing.assert_allclose(np.asarray(shown, dtype=float), pixels, atol=12)


def test_a_set_without_trouble_findings_or_pairs_has_its_page_and_its_report() -> None:
    nothing = [{"view": "all", "left": 0, "right": 0, "pairs": 0, "usable": 0, "women": 0}]
    empty = record(troubles=[], boxes=[], labels=[], headers=[], pairs=nothing, root=None, timing={"headers": 0})
    page = page_of(empty, [], "command")
    assert "No pair can be used" in page.text
    assert "None was found." in page.text
    assert "No trouble found." in terminal(empty)


def test_the_terminal_shows_troubles_last_and_of_these_the_gravest_with_their_remedies() -> None:
    shown = terminal(record("words"))
    places = [
        shown.index(words) for words in ("Pairs", "Labels", "Boxes of findings", "To know", "To check", "Left out")
    ]
    assert places == sorted(places)
    assert shown.count("1,234 images: words") == 3
    assert shown.count("-> words") == 3
    assert "\x1b" not in shown


def test_the_terminal_shows_brackets_as_they_are_and_keeps_to_its_width() -> None:
    shown = terminal(record("[red]words[/red] [bold]"))
    assert shown.count("[red]words[/red]") > 20
    assert max(map(len, shown.splitlines())) <= 100


def test_colours_are_for_terminals() -> None:
    assert "\x1b[1;31mLeft out" in terminal(record(), force_terminal=True, color_system="standard")


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"counts": {"12": 9}, "range": (12.0, 12.0, 12.0)}, "12 (9)"),
        ({"counts": {"0.1": 5, "0.2": 1}, "range": (0.1, 0.1, 0.2)}, "0.1 to 0.2, median 0.1: 0.1 (5), 0.2 (1)"),
        ({"counts": {"a": 1000}, "unknown": 3}, "a (1,000), unknown (3)"),
        ({"counts": {"a": 4, "b": 3, "c": 2, "d": 1}, "further": (10, 20)}, "a (4), b (3), 12 other values (23)"),
    ],
)
def test_a_distribution_is_one_line(entry: dict[str, Any], line: str) -> None:
    whole = {"further": (0, 0), "unknown": 0, "range": None} | entry
    assert distribution(whole, shown=2 if "further" in entry else 6) == line


def test_the_page_is_written_whole_or_refused_in_one_line(tmp_path: Path) -> None:
    write_page(tmp_path / "a" / "page.html", record("ä \udcff"), [tile()], "command")
    assert (tmp_path / "a" / "page.html").read_text(encoding="utf-8").endswith("</html>\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        write_page(tmp_path / "file" / "page.html", record(), [], "command")
