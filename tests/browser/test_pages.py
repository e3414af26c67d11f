"""Every page in a real browser: drawn without an error, for anyone, at any width, and the same for whoever has its "
"link."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from siamray.sweeps import results
from tests.browser.conftest import keep
from tests.dashboards import generated_results

E, S = "/experiment/soft_labels", "/experiment/method"
TRIAL = f"{E}/trial/soft-s0"
PAGES = {
    "overview": "/",
    **{f"ablation-{view}": f"{E}?view={view}" for view in (
        "answer", "tasks", "subgroups", "cost", "differences", "training", "trials", "setup",
    )},
    **{f"search-{view}": f"{S}?view={view}" for view in (
        "history", "parallel", "importance", "slices", "front", "confirmation", "failures",
    )},
    **{f"trial-{view}": f"{TRIAL}?view={view}" for view in (
        "training", "distances", "curves", "labels", "features", "options", "machine",
    )},
    "exams": f"{E}/exams", "pairs": f"{E}/exams?view=pairs", "data": f"{E}/data", "search-data": f"{S}/data",
}  # fmt: skip
FIGURES = {
    "ablation-answer": 3, "ablation-tasks": 1, "ablation-subgroups": 8, "ablation-cost": 1, "ablation-training": 10,
    "search-history": 2, "search-parallel": 1, "search-importance": 1, "search-slices": 5, "search-front": 1,
    "search-confirmation": 1, "trial-training": 9, "trial-distances": 1, "trial-curves": 2, "trial-labels": 1,
    "trial-features": 1, "exams": 3, "data": 3,
}  # fmt: skip
SERIOUS = ("serious", "critical")
UNMENDED = (
    ".dash-dropdown-focus-target[tabindex='0'], .choice.slider [role=slider]:not([aria-label]), "
    ".modebar-btn:not([aria-label])"
)
"""Controls of libraries that assets/pages.js still has to name."""


def violations(page: Any) -> list[dict[str, Any]]:
    """The serious rules that a page breaks; the thousands of shapes in a figure are no text, and take axe long."""
    base = pytest.importorskip("axe_playwright_python.base")
    # What libraries made is mended a moment after it appears.
    page.wait_for_function(f"!document.querySelector({json.dumps(UNMENDED)})")
    # Once a document, as half a megabyte for every page of the app takes as long as the rules.
    if not page.evaluate("!!window.axe"):
        page.evaluate(base.AXE_SCRIPT)
    told = page.evaluate("axe.run({exclude: [['.main-svg']]}, {resultTypes: ['violations']})")["violations"]
    return [rule for rule in told if rule["impact"] in SERIOUS]


def visit(page: Any, path: str) -> None:
    """Goes to another page as a link of the app does, without loading all anew, and waits for what the server says."""
    if page.evaluate("location.pathname + location.search") == path:
        return
    with page.expect_response(lambda answer: "page.children" in (answer.request.post_data or "")):
        page.evaluate(
            "url => { history.pushState({}, '', url); dispatchEvent(new CustomEvent('_dashprivate_pushstate')); }", path
        )
    page.wait_for_selector("#page:not([data-dash-is-loading=true])")


def settled(page: Any, figures: int) -> None:
    page.wait_for_selector("#page:not([data-dash-is-loading=true]) h1", timeout=20_000)
    if figures:
        drawn = "'#page .js-plotly-plot .main-svg, #page .js-plotly-plot .parcoords'"
        count = f"n => document.querySelectorAll({drawn}).length >= n"
        page.wait_for_function(count, arg=figures, timeout=30_000)


def test_every_page_draws_its_figures_and_breaks_no_serious_rule_of_accessibility(
    address: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(address + "/")
    found: dict[str, list[Any]] = {}
    for name, path in PAGES.items():
        visit(page, path)
        settled(page, FIGURES.get(name, 0))
        assert not page.locator("text=could not be drawn").count(), name
        keep(page, name)
        for rule in violations(page):
            found.setdefault(rule["id"], []).append((name, rule["nodes"][0]["html"][:160]))
    assert not found, json.dumps(found, indent=1)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_are_readable_on_a_telephone(address: str, open_page: Callable[..., Any], dark: bool) -> None:
    page = open_page(address + "/", width=390, dark=dark)
    for name in ("overview", "ablation-answer", "ablation-tasks", "trial-training", "exams", "search-parallel"):
        visit(page, PAGES[name])
        settled(page, FIGURES.get(name, 0))
        keep(page, f"{name}-390-{'dark' if dark else 'light'}")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
        assert not [rule["id"] for rule in violations(page)], name


def test_the_switch_changes_page_and_figures_and_is_remembered(address: str, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{address}{E}")
    settled(page, 3)
    ink = "document.querySelector('#figure-forest .js-plotly-plot')._fullLayout.font.color"
    before = page.evaluate(ink)
    page.click("#theme")
    page.wait_for_function(f"{ink} !== '{before}'")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    settled(page, 3)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_what_is_chosen_stands_in_the_link_and_the_link_shows_it_again(
    address: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(f"{address}{E}")
    settled(page, 3)
    page.click("#page .dash-dropdown")
    page.get_by_role("option", name="average precision of the linear probe on patches", exact=True).click()
    page.wait_for_url("**metric=patches_linear_ap*")
    page.wait_for_function(
        "document.querySelector('#page').innerText.includes('By the average precision of the linear')"
    )
    again = open_page(page.url)
    settled(again, 3)
    assert "By the average precision of the linear probe on patches of test women, against soft" in again.inner_text(
        "#page"
    )
    # And back: the choice before.
    page.go_back()
    page.wait_for_function("document.querySelector('#page').innerText.includes('By the AUC of the linear')")


def test_the_slider_goes_through_the_epochs_by_keyboard(address: str, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{address}{TRIAL}?view=distances")
    settled(page, 1)
    assert "Epoch 4." in page.inner_text("#page")
    page.locator("#page [role=slider]").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**epoch=3*")
    page.wait_for_function("document.querySelector('#page').innerText.includes('Epoch 3.')")
    # The control keeps the focus, or the next key would go nowhere.
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**epoch=2*")


def test_a_table_is_filtered_and_sorted_and_leads_to_the_trial(address: str, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{address}{E}?view=trials")
    page.wait_for_selector(".ag-row >> text=soft-s0")
    page.locator(".ag-floating-filter input").nth(1).fill("hard")
    page.wait_for_url("**filter=*")
    page.wait_for_function("document.querySelectorAll('.ag-center-cols-container .ag-row').length === 3")
    page.locator(".ag-header-cell-text", has_text="seed").first.click()
    page.wait_for_url("**sort=seed*")
    again = open_page(page.url)
    again.wait_for_selector(".ag-row >> text=hard-s0")
    again.wait_for_function("document.querySelectorAll('.ag-center-cols-container .ag-row').length === 3")
    page.click(".ag-row >> text=hard-s1")
    page.wait_for_url("**/trial/hard-s1")
    page.wait_for_selector("h1 >> text=hard-s1")


def test_brushing_the_parallel_coordinates_filters_the_table(address: str, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{address}{S}?view=parallel")
    settled(page, 1)
    page.wait_for_selector(".ag-row >> text=searched-seed0-fold0-00000000")
    box = page.locator("#figure-parallel .axis-brush").first.bounding_box()
    x, top, height = box["x"] + box["width"] / 2, box["y"], box["height"]
    page.mouse.move(x, top + 0.35 * height)
    page.mouse.down()
    page.mouse.move(x, top + 0.5 * height, steps=5)
    page.mouse.move(x, top + 0.65 * height, steps=5)
    page.mouse.up()
    page.wait_for_url("**brush=*")
    page.wait_for_selector("#brushed")
    told = re.search(r"(\d+) of (\d+) trials lie", page.inner_text("#brushed"))
    assert told is not None
    assert 0 < int(told[1]) < int(told[2])
    page.wait_for_function(
        "n => document.querySelector('#trials .ag-root').getAttribute('aria-rowcount') == n + 2", arg=int(told[1])
    )
    assert "pretraining.learning_rate" in parse_qs(urlparse(page.url).query)["brush"][0]


def test_a_click_on_a_point_opens_its_trial(address: str, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{address}{E}")
    settled(page, 3)
    page.wait_for_function("document.querySelector('#figure-seeds .js-plotly-plot').dataset.listened")
    point = page.locator("#figure-seeds .scatterlayer .point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(100)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url("**/trial/*")


def test_the_viewer_shows_maps_side_by_side_zooms_and_windows(address: str, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{address}{E}/exams?beside=hard-s0&overlay=soft&opacity=80&exam=w021_CC")
    settled(page, 6)
    words = page.inner_text("#page")
    assert "w021_CC by hard-s0" in words.replace("\n", " ")
    assert "soft label of" in words
    pictures = "Array.from(document.querySelectorAll('.viewer .imagelayer image'))"
    loaded = f"{pictures}.every(one => one.getAttribute('href').startsWith('/picture/'))"
    assert page.evaluate(loaded)
    opacity = "document.querySelectorAll('.viewer .js-plotly-plot')[2].data[0].opacity"
    assert page.evaluate(opacity) == pytest.approx(0.8)
    page.locator("#gray-window").fill("40")
    slope = "document.querySelector('#siamray-window feFuncR').getAttribute('slope')"
    assert float(page.evaluate(slope)) == pytest.approx(2.5)
    page.locator(".viewer .js-plotly-plot").first.scroll_into_view_if_needed()
    panel = page.locator(".viewer .js-plotly-plot").first.bounding_box()
    page.keyboard.down("Shift")
    page.mouse.move(panel["x"] + 60, panel["y"] + 80)
    page.mouse.down()
    page.mouse.move(panel["x"] + 160, panel["y"] + 80, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    assert float(page.evaluate(slope)) < 2.4
    page.evaluate(
        "Plotly.relayout(document.querySelectorAll('.viewer .js-plotly-plot')[0], "
        "{'xaxis.range[0]': 20, 'xaxis.range[1]': 120})"
    )
    page.wait_for_function(
        "Math.round(document.querySelectorAll('.viewer .js-plotly-plot')[5]._fullLayout.xaxis.range[0]) === 20"
    )


def test_two_epochs_and_what_is_seen_of_them_stand_in_the_link(address: str, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{address}{E}/exams?beside=epoch:0")
    settled(page, 6)
    assert "epoch 0 (before)" in page.inner_text("#page")
    plots = "Array.from(document.querySelectorAll('.viewer .js-plotly-plot'))"
    part = f"({plots}.map(one => one._fullLayout && one._fullLayout.xaxis.range.map(Math.round).join()))"
    slope = "Number(document.querySelector('#siamray-window feFuncR').getAttribute('slope'))"
    box = page.locator(".viewer .js-plotly-plot .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 120)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 300, steps=5)
    page.mouse.up()
    page.locator("#gray-window").fill("40")
    page.locator("#gray-level").fill("30")
    page.wait_for_url("**level=30*")
    query = parse_qs(urlparse(page.url).query)
    assert query["window"] == ["40"]
    left, right, *_ = map(int, query["zoom"][0].split(","))
    assert 0 < left < right < 300
    page.wait_for_function(f"{part}.every(one => one === '{left},{right}')")
    # Whoever gets the link sees the same part, as bright.
    again = open_page(page.url)
    settled(again, 6)
    again.wait_for_function(f"{part}.length === 6 && {part}.every(one => one === '{left},{right}')")
    assert again.evaluate(slope) == pytest.approx(2.5)
    # A choice leaves it as it is, also where panels are drawn anew; another exam is seen whole, as bright.
    again.locator(".choice", has_text="overlay").locator(".dash-dropdown").click()
    again.get_by_role("option", name="nothing", exact=True).click()
    again.wait_for_url("**overlay=none*")
    assert parse_qs(urlparse(again.url).query)["zoom"] == query["zoom"]
    again.wait_for_function(f"{plots}.length === 6 && {plots}.every(one => one.data[0].type !== 'heatmap')")
    again.wait_for_function(f"{part}.every(one => one === '{left},{right}')")
    again.get_by_text("next exam").click()
    again.wait_for_url("**exam=w021_CC*window=40*")
    assert "zoom" not in again.url
    again.wait_for_function(f"{plots}.length === 6 && {part}.every(one => one === '0,300')")
    again.go_back()
    again.wait_for_function(f"{plots}.length === 6 && {part}.every(one => one === '{left},{right}')")
    assert again.evaluate(slope) == pytest.approx(2.5)
    again.click("#gray-reset")
    again.wait_for_function("!location.search.includes('window')")
    assert again.evaluate(slope) == 1


def test_a_trial_that_is_added_appears_without_a_reload(
    tmp_path: Path, served: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    folder = generated_results.write(tmp_path / "soft_labels", seeds=(0, 1), epochs=2, compared=False)
    kept = folder / "trials" / "hard-s1"
    shutil.move(kept, tmp_path / "kept")
    address = served(f"results={tmp_path}")
    page = open_page(f"{address}experiment/soft_labels?view=trials")
    page.wait_for_selector(".ag-row >> text=soft-s0")
    assert "13 of 13 trials finished" in page.inner_text("#page")
    page.evaluate("window.untouched = true")
    shutil.move(tmp_path / "kept", kept)
    page.wait_for_selector(".ag-row >> text=hard-s1", timeout=8000)
    page.wait_for_function("document.querySelector('#page').innerText.includes('14 of 14 trials finished')")
    assert page.evaluate("window.untouched")
    # And a new experiment on the page of all.
    page.click(".brand")
    page.wait_for_selector("h2 >> text=soft_labels")
    results.write_experiment(tmp_path / "another", {"name": "another", "question": "And this?"})
    page.wait_for_selector("h2 >> text=another", timeout=8000)


def test_hostile_texts_are_shown_as_text_and_broken_trials_as_broken(
    tmp_path: Path, served: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    hostile = "</script><img src=x onerror=\"document.title='taken'\">&amp;%{x}"
    folder = generated_results.write(
        tmp_path / "e", variants={"soft": [f"x={hostile}"], hostile: []}, controls={}, epochs=2, seeds=(0,),
        failed=[(hostile, 0, hostile)], question=hostile, command=hostile,
    )  # fmt: skip
    (folder / "trials" / "soft-s0" / "predictions.parquet").write_bytes(b"PAR1 cut off")
    address = served(f"results={tmp_path}")
    page = open_page(address)
    for path in ("/", "/experiment/e?view=answer", "/experiment/e?view=differences", "/experiment/e?view=trials",
                 "/experiment/e?view=setup", "/experiment/e/trial/soft-s0",
                 "/experiment/e/trial/..%2F..%2Fsecret", f"/experiment/{'%2e%2e'}"):  # fmt: skip
        visit(page, path)
        # Long enough for a picture that is nowhere to fail.
        page.wait_for_timeout(100)
        assert page.title() != "taken", path
        assert not page.locator("img[src=x]").count(), path
    visit(page, "/experiment/e?view=trials")
    page.wait_for_selector("td >> text=broken")
    assert hostile in page.inner_text("#page")
    visit(page, "/experiment/e/trial/soft-s0")
    page.wait_for_selector(".problem >> text=cannot be read")


def test_elsewhere_only_the_link_with_its_token_opens_the_pages(
    results_folder: Path, served: Callable[..., str], browser: Any
) -> None:
    address = served(f"results={results_folder}", "host=0.0.0.0")
    context = browser.new_context()
    page = context.new_page()
    bare = address.split("?")[0]
    assert page.goto(bare).status == 403
    assert "siamray" not in page.title()
    page.goto(address)
    page.wait_for_selector("#page h1 >> text=Experiments")
    assert "token" not in page.url
    page.goto(f"{bare}experiment/method")
    page.wait_for_selector("#page h1 >> text=method")
    context.close()
