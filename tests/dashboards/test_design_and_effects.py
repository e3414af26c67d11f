"""The report shows what made the variants, what the factors do, and what mattered in a search."""

import json
from pathlib import Path

import pandas as pd
import pytest

from dashboards import report
from dashboards.figures import effects, importance
from siamray.sweeps import results
from siamray.sweeps.contract import EFFECT_COLUMNS, IMPORTANCE_COLUMNS
from tests.dashboards import generated_results
from tests.dashboards.test_report import Page

VARIANTS = {"a-x": ["o=a"], "b-x": ["o=b"], "a-y": ["p=y"], "b-y": ["o=b", "p=y"]}
SETTINGS = {name: dict(zip(("first", "second"), name.split("-"), strict=True)) for name in VARIANTS}


def effect_rows(**note: str) -> pd.DataFrame:
    numbers = {"effect": 0.1, "effect_low": -0.1, "effect_high": 0.3, "p": 0.2, "p_holm": 0.4, "seeds": 3, "women": 24}
    rows = [
        {"kind": "main", "term": "first", "contrast": "b - a", **numbers},
        {"kind": "main", "term": "second", "contrast": "y - x", **numbers},
    ]
    crossed = {"kind": "interaction", "term": "first x second", "contrast": "(b - a) x (y - x)", **numbers}
    rows.append({"kind": "interaction", "term": "", **note} if note else crossed)
    return pd.DataFrame(rows, columns=EFFECT_COLUMNS)


def write(folder: Path, rows: pd.DataFrame, **design: object) -> Path:
    generated_results.write(
        folder, variants=VARIANTS, controls={}, epochs=0, examples=False, settings=SETTINGS,
        differences={"a-x": {"o": "a", "p": "x"}, "b-x": {"o": "b", "p": "x"}, "a-y": {"o": "a", "p": "y"},
                     "b-y": {"o": "b", "p": "y"}},
        design={"kind": "factorial", "factors": {"first": ["a", "b"], "second": ["x", "y"]}, **design},
    )  # fmt: skip
    results.write_parquet(folder / results.EFFECTS_FILE, rows)
    return folder


def test_a_factorial_shows_settings_differences_effects_and_interaction_plots(tmp_path: Path) -> None:
    page = Page(report.write_report(write(tmp_path / "e", effect_rows())))
    shown = page.text[page.text.index("What differs") : page.text.index("Set-up")]
    assert "b-y b y o=b instead of a p=y instead of x" in shown
    figures = {attributes["id"]: json.loads(script) for attributes, script in page.scripts if attributes.get("id")}
    assert len(figures["effects"]["data"]) == 3
    lines = figures["interaction-0"]["data"]
    assert [line["name"] for line in lines] == ["second: x", "second: y"]
    values = results.load(tmp_path / "e").comparison.query("metric == 'patches_linear_auc'").set_index("variant").value
    assert lines[1]["y"] == pytest.approx([values["a-y"], values["b-y"]])


def test_means_of_two_factors_are_over_the_variants_at_each_pair_of_levels() -> None:
    settings = {f"{a}{b}{c}": {"f": a, "g": b, "h": c} for a in "12" for b in "12" for c in "12"}
    comparison = pd.DataFrame({"metric": "auc", "variant": list(settings), "value": range(8)})
    told = pd.DataFrame({"kind": ["interaction"], "term": ["f x h"]})
    found = effects.means(settings, comparison, "auc", told).set_index(["first_level", "second_level"])
    assert found.value.to_dict() == {("1", "1"): 1, ("1", "2"): 2, ("2", "1"): 5, ("2", "2"): 6}
    assert set(found["first"] + found["second"]) == {"fh"}


def test_interactions_that_are_not_told_are_said_with_the_reason(tmp_path: Path) -> None:
    page = Page(report.write_report(write(tmp_path / "e", effect_rows(note="3 combinations were not run"))))
    assert "Interactions are not told: 3 combinations were not run." in page.text
    assert "Two factors together" not in page.text


def test_a_factorial_without_any_effect_says_why(tmp_path: Path) -> None:
    rows = pd.DataFrame([{"kind": "main", "term": "", "note": "no seed was finished by all"}], columns=EFFECT_COLUMNS)
    page = Page(report.write_report(write(tmp_path / "e", rows)))
    assert "Effects of the factors are not told: no seed was finished by all." in page.text


def test_aliases_skipped_combinations_and_shared_trials_are_told(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "e", effect_rows(), fraction=2, resolution=3, aliases=[[["first"], ["second", "third"]]],
        skipped=[{"first": "b", "second": "y"}], only_if={"second": {"first": ["a"]}},
    )  # fmt: skip
    path = next(iter(sorted(folder.glob("trials/*/trial.json"))))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shared_from": "earlier/t1"}))
    page = Page(report.write_report(folder))
    for words in (
        "first = second x third",
        "One in 2 of all combinations was run (resolution 3)",
        "Left out, as these combinations make no sense: first b, second y.",
        "second is crossed only where first is a.",
        "1 trial taken over from earlier",
    ):
        assert words in page.text, words


def test_the_importance_of_searched_options_is_drawn_with_intervals(tmp_path: Path) -> None:
    folder = tmp_path / "method"
    record = {
        "name": "method",
        "kind": "search",
        "question": "Which?",
        "metric": "auc",
        "variants": {"searched": ["o.a"]},
    }
    results.write_experiment(folder, record)
    numbers = {"objective": "auc", "trials": 25, "note": ""}
    rows = [
        {"method": "fANOVA", "option": "o.a", "importance": 0.6, "low": 0.3, "high": 0.8, **numbers},
        {"method": "PED-ANOVA", "option": "o.a", "importance": 0.7, "low": 0.2, "high": 0.9, **numbers},
        {"method": "fANOVA", "option": "o.b", **numbers, "note": "only some trials have it"},
    ]
    results.write_parquet(folder / results.IMPORTANCE_FILE, pd.DataFrame(rows, columns=IMPORTANCE_COLUMNS))
    page = Page(report.write_report(folder))
    figures = {attributes["id"]: json.loads(script) for attributes, script in page.scripts if attributes.get("id")}
    bars = figures["importance-0"]["data"][0]
    assert bars["x"] == [0.6]
    assert bars["error_x"]["array"] == pytest.approx([0.2])
    assert bars["error_x"]["arrayminus"] == pytest.approx([0.3])
    assert "fANOVA tells nothing of o.b: only some trials have it." in page.text
    assert importance.data(pd.DataFrame(columns=IMPORTANCE_COLUMNS)).empty
