"""The export: one file with all pages that asks no network, every text shown as text, and figures as files."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from dashboards import export, parts
from dashboards.source import Source
from dashboards.static_page import render
from siamray.errors import UserError
from tests.dashboards import generated_results, generated_search
from tests.dashboards.test_report import HOSTILE, Page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    generated_results.write(
        folder / "soft_labels", epochs=2, seeds=(0, 1), failed=[("rank", 1, HOSTILE)], question=HOSTILE
    )
    generated_search.write(folder / "method", 12)
    return folder


@pytest.fixture(scope="module")
def file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "review.html"
    export.main([f"results={folder}", f"out={out}"])
    return out


def test_the_file_has_every_page_and_its_links_stay_in_it(file: Path) -> None:
    page = Page(file)
    for words in (
        "Experiments", "Difference from soft", "All metrics side by side", "Within subgroups",
        "What differs between the",
        "Parallel coordinates", "Slices", "Pareto front", "The winner on fresh seeds", "Operating curves",
        "Calibration of the soft labels", "Map of the features", "Environment", "Test exams", "Worst pairs first",
        "Images left out", "Contact sheet", "not a medical device",
    ):  # fmt: skip
        assert words in page.text, words
    # What only the app can do is not asked for.
    assert "Pull along" not in page.text
    names = {attributes.get("id") for _, attributes in page.elements}
    links = [str(attributes.get("href")) for tag, attributes in page.elements if tag == "a"]
    assert len(links) > 20
    assert all(link.startswith("#") and link[1:] in names for link in links)


def test_the_file_asks_no_network_and_runs_no_name_as_code(file: Path) -> None:
    page = Page(file)
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data"):
            assert not (attributes.get(name) or "").startswith(("http", "//", "/")), (tag, attributes)
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert page.text.count(HOSTILE) >= 3
    assert get_plotlyjs() in file.read_text(encoding="utf-8")


def test_every_place_of_a_figure_has_its_own_json(file: Path) -> None:
    page = Page(file)
    places = [attributes["data-figure"] for _, attributes in page.elements if attributes.get("class") == "plot"]
    records = {attributes.get("id") for attributes, _ in page.scripts}
    assert len(places) == len(set(places)) > 60
    assert set(places) <= records


def test_what_only_a_server_can_do_is_left_out(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    body = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    assert "live-only" not in body
    assert "/picture/" not in text


def test_a_table_that_is_cut_says_so_before_it_is_opened_and_where_the_rest_is() -> None:
    frame = pd.DataFrame({f"c{i}": range(450) for i in range(20)})
    text = render(parts.file_table(frame, "trials.parquet"), lambda _: "", "x")
    assert "<summary>450 trials: the first 200 of 450 rows</summary>" in text
    assert "Here are the first 200 of 450 rows; trials.parquet has all." in text
    assert "Of 20 columns the first 12 are here; trials.parquet in the results" in text
    assert text.count("<tr") == 201
    whole = render(parts.file_table(frame.iloc[:200, :12], "trials.parquet"), lambda _: "", "x")
    assert "<summary>200 trials</summary>" in whole
    assert "the first" not in whole


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to write: name out=FILE.html or figures=FOLDER"),
        (["out=review.pdf"], "name a file that ends in .html"),
        (["outt=x"], "did you mean 'out'"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        export.main(words)


def test_no_results_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no experiment in it; run a sweep first"):
        export.main([f"results={tmp_path}", "out=x.html"])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the browser chromium")
def test_figures_are_written_as_files_with_their_captions(tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    generated_results.write(tmp_path / "results" / "e", epochs=0, seeds=(0,), examples=False)
    made = list(export.pages([Source(str(tmp_path / "results")).read("e")], "results"))[:2]
    written = export.write_figures(made, tmp_path / "figures", "svg")
    forest = tmp_path / "figures" / "experiment-e-forest.svg"
    assert forest in written
    assert "difference in AUC from soft" in forest.read_text(encoding="utf-8")
    captions = (tmp_path / "figures" / "captions.txt").read_text(encoding="utf-8")
    assert "experiment-e-forest.svg: Difference from soft." in captions
    assert "n = 24 test women" in captions
