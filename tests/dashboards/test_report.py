"""The report: one file that needs no network, tells the answer first, and is written however far the sweep got."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from dashboards import report
from siamray.errors import UserError
from siamray.sweeps import results
from tests.dashboards import generated_results

HOSTILE = "</script><img src=x onerror=\"document.title='taken'\">&amp;%{x}"
ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, visible text, JSON of the figures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._open: list[str] = []
        # The 5 MB of plotly.js are taken out before the rest is read, for speed.
        before, self.after = path.read_text(encoding="utf-8").split(get_plotlyjs())
        self.feed(before + self.after)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append((self.elements[-1][1], data))
        elif not self._open or self._open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "soft_labels"
    return generated_results.write(path, failed=[("rank", 2, "loss is not finite in epoch 3")])


@pytest.fixture(scope="module")
def whole(folder: Path) -> Page:
    return Page(report.write_report(folder))


def headings(page: Page) -> list[str]:
    return [words for words in page.words if words in (*SECTIONS, "The selection")]


SECTIONS = [
    "The answer",
    "Comparison",
    "Difference from soft",
    "Every seed",
    "Training",
    "Distances and the fitted mixture",
    "Cost",
    "Examples",
    "What differs",
    "Trials",
    "Set-up",
    "Methods",
]


def test_the_report_has_all_sections_with_the_answer_first(whole: Page) -> None:
    assert headings(whole) == SECTIONS
    for words in (
        "Do soft labels from a mixture beat hard, ranked and no labels?",
        "no evidence that hard differs from soft: effect",
        "untrained is below soft: effect",
        "48 training, 24 validation, 24 test",
        "python -m siamray.sweep ablation=soft_labels",
        "pretraining.labels=hard",
        "with uncommitted changes",
        "loss is not finite in epoch 3",
        "95 % intervals, bootstrap over women, with the variance between seeds (t), 2,000 replicates",
        "20 finished trials, 1 failed.",
        "no diagnosis",
    ):
        assert words in whole.text, words


def test_every_metric_of_the_comparison_has_its_table(folder: Path, whole: Page) -> None:
    for metric in results.load(folder).comparison["metric"].unique():
        assert metric in whole.text


def test_the_report_asks_no_network_for_anything(whole: Page) -> None:
    for tag, attributes in whole.elements:
        for name in ("src", "href", "action", "data"):
            assert not (attributes.get(name) or "").startswith(("http", "//")), (tag, attributes)
    assert not [attributes for tag, attributes in whole.elements if tag == "script" and "src" in attributes]
    assert whole.after.startswith("</script>")


def test_every_place_of_a_figure_has_its_json(whole: Page) -> None:
    figures = {attributes["id"]: json.loads(script) for attributes, script in whole.scripts if attributes.get("id")}
    places = [attributes["data-figure"] for _, attributes in whole.elements if attributes.get("class") == "plot"]
    assert len(places) == len(set(places)) > 15
    assert all(figures[place]["data"] for place in places)
    assert figures["distances"]["frames"]


def test_hostile_texts_are_shown_as_text(tmp_path: Path) -> None:
    folder = generated_results.write(
        tmp_path / "e",
        variants={"soft": [f"x={HOSTILE}"], HOSTILE: []},
        controls={},
        epochs=2,
        examples=False,
        failed=[(HOSTILE, 1, HOSTILE)],
        name=HOSTILE,
        question=HOSTILE,
        command=HOSTILE,
        base_overrides=[HOSTILE],
        versions={HOSTILE: HOSTILE},
        git={"commit": HOSTILE},
        data={"source": HOSTILE, "store_fingerprint": HOSTILE, "women": {HOSTILE: 3}},
    )
    page = Page(report.write_report(folder))
    assert not [element for element in page.elements if element[0] == "img" or "onerror" in element[1]]
    # Name, question, failure, command, overrides twice, versions twice, commit, data twice, women, tables.
    assert page.text.count(HOSTILE) >= 12


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"compared": False}, {"Comparison", "Difference from soft"}),
        ({"examples": False}, {"Examples"}),
        ({"epochs": 0}, {"Training", "Distances and the fitted mixture"}),
        ({"controls": {}}, set()),
        ({"seeds": [0]}, set()),
    ],
)
def test_a_report_is_written_of_what_there_is(tmp_path: Path, options: dict[str, object], missing: set[str]) -> None:
    folder = generated_results.write(tmp_path / "e", **{"epochs": 2} | options)  # type: ignore[arg-type]
    page = Page(report.write_report(folder))
    assert headings(page) == [name for name in SECTIONS if name not in missing]
    assert ("Nothing is compared yet" in page.text) == ("compared" in options)
    assert ("1 seeds: the interval may be too narrow (all)" in page.text) == ("seeds" in options)


def test_a_report_of_an_experiment_without_any_trial_is_written(tmp_path: Path) -> None:
    results.write_experiment(tmp_path / "e", {"name": "e", "question": "What?", "variants": {"soft": []}})
    page = Page(report.write_report(tmp_path / "e"))
    assert headings(page) == ["The answer", "Set-up", "Methods"]


def test_a_report_where_every_trial_failed_tells_the_reasons(tmp_path: Path) -> None:
    failed = [(name, seed, f"out of memory {seed}") for name in ("soft", "hard") for seed in (0, 1)]
    variants = {"soft": [], "hard": []}
    folder = generated_results.write(
        tmp_path / "e", variants=variants, controls={}, seeds=(0, 1), compared=False, failed=failed
    )
    page = Page(report.write_report(folder))
    assert "out of memory 1" in page.text
    assert headings(page) == ["The answer", "What differs", "Trials", "Set-up", "Methods"]


def test_broken_and_unfinished_trials_are_told(tmp_path: Path) -> None:
    folder = generated_results.write(tmp_path / "e", epochs=2, examples=False)
    (folder / "trials" / "hard-s0" / "trial.json").write_text("{")
    (folder / "trials" / "hard-s1" / "trial.json").unlink()
    page = Page(report.write_report(folder))
    assert "19 finished trials, 1 broken, 1 not ended." in page.text
    assert "trial.json is not JSON" in page.text


def test_a_search_is_reported_best_trial_first_with_what_it_drew(tmp_path: Path) -> None:
    folder = tmp_path / "method"
    record = {"name": "method", "kind": "search", "question": "Which margin?", "metric": "auc"}
    results.write_experiment(folder, record | {"variants": {"searched": ["pretraining.margin"]}, "seeds": [0]})
    for i, auc in enumerate((0.6, 0.8, None, 0.7)):
        trial = {
            "trial_id": f"t{i}",
            "variant": "searched",
            "seed": 0,
            "state": "failed" if auc is None else "finished",
        }
        trial |= {"metrics": {} if auc is None else {"auc": auc}, "config": {"pretraining": {"margin": 0.5 + i}}}
        epochs = pd.DataFrame({"epoch": [0, 1], "network": ["A", "A"], "loss": [1.0, 0.5]})
        cost = {"wall_s": 10.0 + i}
        results.write_trial(folder / "trials" / f"t{i}", trial | {"cost": cost, "reason": "boom"}, epochs=epochs)
    page = Page(report.write_report(folder))
    assert "Best of 3 finished trials by the auc: 0.800 with pretraining.margin=1.5." in page.text
    shown = page.text[page.text.index("overrides") : page.text.index("Training")]
    assert re.findall(r"pretraining\.margin=([\d.]+)", shown) == ["1.5", "3.5", "0.5", "2.5"]
    assert headings(page) == ["The selection", "Training", "Cost", "Trials", "Set-up", "Methods"]


def test_a_search_reports_the_winner_on_fresh_seeds_first_and_what_was_pruned_as_such(tmp_path: Path) -> None:
    folder = generated_results.write(
        tmp_path / "method",
        kind="search",
        metric="validation_patches_linear_auc",
        objectives={"validation_patches_linear_auc": "maximize", "cpu_s": "minimize"},
        variants={"base": [], "winner": ["pretraining.margin=0.7"]},
        controls={},
        reference="base",
    )
    record = results.read_experiment(folder)
    record["variants"] = {"searched": ["pretraining.margin"], **record["variants"]}
    results.write_experiment(folder, {key: value for key, value in record.items() if key != "schema"})
    rows = []
    for i, (auc, state) in enumerate([(0.6, "finished"), (0.8, "finished"), (None, "pruned")]):
        trial = {
            "trial_id": f"t{i}",
            "variant": "searched",
            "seed": 0,
            "state": state,
            "reason": "stopped after epoch 2",
        }
        trial |= {"metrics": {} if auc is None else {"validation_patches_linear_auc": auc}, "cost": {"cpu_s": 9.0 + i}}
        results.write_trial(folder / "trials" / f"t{i}", trial | {"config": {"pretraining": {"margin": 0.5 + i}}})
        rows.append([i, f"t{i}", "complete" if auc else "pruned", f"pretraining.margin={0.5 + i}", bool(auc), i == 1])
    selection = pd.DataFrame(rows, columns=["number", "trial_id", "state", "settings", "front", "winner"])
    selection = selection.assign(epoch=2, source="", reason="", validation_patches_linear_auc=[0.6, 0.8, None])
    results.write_parquet(folder / results.SELECTION_FILE, selection.assign(cpu_s=[9.0, 10.0, None]))
    page = Page(report.write_report(folder))
    assert headings(page)[:3] == ["The answer", "The selection", "Comparison"]
    assert page.text.index("against base:") < page.text.index(
        "no. 1 is the winner of 2 finished trials by 2 objectives"
    )
    assert "no. 1 (winner)" in page.text
    assert "1 pruned" in page.text
    assert "stopped after epoch 2" in page.text[page.text.index("Not finished") :]


def test_the_command_writes_the_report_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "report.html").unlink(missing_ok=True)
    report.main([f"results={folder}"])
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage"),
        (["result=x"], "did you mean 'results'"),
        (["results="], "usage"),
        (["results=nowhere/x"], "no exper"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        report.main(arguments)


def test_a_misspelt_experiment_ends_without_a_traceback(folder: Path) -> None:
    command = [sys.executable, "-m", "dashboards.report", f"results={folder.parent / 'soft_lables'}"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 2
    assert "did you mean 'soft_labels'" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the browser chromium")
def test_a_browser_draws_every_figure_and_runs_no_name_as_code(tmp_path: Path) -> None:
    folder = generated_results.write(tmp_path / "e", variants={"soft": [], HOSTILE: []}, epochs=3, seeds=(0,))
    path = report.write_report(folder)
    quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-sync", *quiet]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000", "--dump-dom", path.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    places = ran.stdout.count('data-figure="')
    assert places > 15
    assert len(re.findall(r'class="plot js-plotly-plot', ran.stdout)) == places
    assert "<title>e, siamray</title>" in ran.stdout


def test_trials_of_different_batches_are_warned_of_where_the_answer_is(tmp_path: Path) -> None:
    folder = generated_results.write(tmp_path / "batches", seeds=(0,), epochs=1, examples=False)
    loaded = results.load(folder)
    trained = [name for name in loaded.trials.trial_id if loaded.trial(name)["variant"] in generated_results.VARIANTS]

    def set_batches(sizes: dict[str, int]) -> str:
        for name, size in sizes.items():
            path = folder / "trials" / name / "trial.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "batch_pairs": size}))
        return Page(report.write_report(folder)).text

    assert "number of pairs per step" not in set_batches(dict.fromkeys(trained, 64))
    text = set_batches({trained[0]: 63})
    assert "Not all trials had the same number of pairs per step (63 pairs: " in text
    assert text.index("number of pairs per step") < text.index("Comparison")
