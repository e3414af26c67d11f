"""The methods section says what the files of the results say, and of what they lack that it is not recorded."""

import json
from pathlib import Path

import pandas as pd
import pytest

from siamray.compose import compose, to_dict
from siamray.sweep import main as siamray_sweep
from siamray.sweeps import results
from siamray.sweeps.contract import EFFECT_COLUMNS
from siamray.sweeps.methods import describe_methods, markdown
from siamray.sweeps.methods.checklist import BY_THE_AUTHORS
from siamray.sweeps.methods.recorded import variant_changes
from tests.dashboards import generated_results


def with_configs(folder: Path, *words: str, **more: object) -> Path:
    """Gives all trials the configuration that a sweep records, and further keys."""
    config = to_dict(compose("sweep", ["data=mias", *words]))
    for path in folder.glob("trials/*/trial.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"config": config | {"seed": record["seed"]}} | more))
    return folder


def text(folder: Path) -> str:
    return markdown(describe_methods(results.load(folder)))


def paragraph(folder: Path, title: str) -> str:
    found = {one.title: one for one in describe_methods(results.load(folder)).paragraphs}[title]
    return " ".join([found.text, *found.items])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "soft_labels"
    generated_results.write(
        path, examples=False, epochs=2, failed=[("rank", 2, "loss is not finite")], folds=[1, 2],
        base_overrides=["pretraining=masses", "data.root=/home/me/exams"],
        data={"source": "mias", "store_fingerprint": "a1b2", "women": {"training": 54, "validation": 28, "test": 28}},
        differences={
            "soft": {"pretraining.labels": "mixture"}, "hard": {"pretraining.labels": "hard"},
            "untrained": {"pretraining.epochs": 0},
        },
    )  # fmt: skip
    machine = {"platform": "Linux", "cpu": "EPYC 9", "cpus": 64, "gpus": ["H100"], "threads": 4}
    state = {"commit": "c0ffee", "dirty": True, "diff_sha256": "d1ff"}
    return with_configs(
        path, "pretraining=masses", "pretraining.epochs=8", environment=machine, git=state, code="abc123"
    )


def test_every_fact_of_the_results_is_in_its_paragraph(folder: Path) -> None:
    loaded = results.load(folder)
    hours = loaded.trials["cpu_s"].sum() / 3600
    for title, words in {
        "Question and design": ["Do soft labels", "5 variants", "2 controls (untrained and brightness)", "was soft"],
        "Data and participants": [
            "mini-MIAS", "a1b2", "54 training, 28 validation and 28 test", "4 folds (split seed 0)",
            "Tested folds: 1, 2", "24 test women", "0.4 mm", "64 pixels (25.6 mm)",
        ],
        "Unit of analysis": ["woman is the unit", "48 lesion patches and 576 normal patches"],
        "Pretraining": ["resnet10t", "loss logistic", "anchors ends", "drawn mass 4", "8 epochs", "rate 0.002"],
        "Variants": [
            "hard: pretraining.labels = hard instead of mixture",
            "untrained (control): pretraining.epochs = 0 instead of 8",
        ],
        "Seeds and trials": ["3 seeds (0, 1, 2)", "2 folds (1, 2)", "Of 21 trials: 20 finished and 1 failed",
                             "rank-s2 failed: loss is not finite"],
        "Evaluation": ["abnormal or normal patch", "C (0.001, 0.01, 0.1, 1, 10)", "AUC of the linear probe on patches"],
        "Statistics": ["2,000 bootstrap replicates", "95 % intervals", "variance between seeds", "Satterthwaite"],
        "Compute": [f"{hours:.2f} CPU hours reserved by 21 trials", "EPYC 9, 64 processors, H100, 4 threads"],
        "Software and reproducibility": ["c0ffee", "with uncommitted changes", "d1ff", "abc123", "a1b2c3d4e5f6"],
        "Limits": ["2 of 4 folds", "3 seeds", "1 trial without a result"],
    }.items():  # fmt: skip
        found = paragraph(folder, title)
        for word in words:
            assert word in found, (title, word, found)


def test_paths_of_the_users_machine_are_no_options_of_the_method(folder: Path) -> None:
    assert "Options given for all: pretraining=masses" in paragraph(folder, "Pretraining")
    assert "/home/me" not in paragraph(folder, "Pretraining")


def test_one_seed_has_bca_intervals_and_no_correction(tmp_path: Path) -> None:
    path = with_configs(generated_results.write(tmp_path / "e", seeds=[0], epochs=1, examples=False))
    comparison = results.load(path).comparison.assign(p=float("nan"), p_holm=float("nan"))
    results.write_parquet(path / results.COMPARISON_FILE, comparison)
    found = paragraph(path, "Statistics")
    assert "(BCa)" in found
    assert "Holm" not in found
    assert "Satterthwaite" not in found


def test_what_only_the_authors_know_is_left_to_them(folder: Path) -> None:
    answers = {item.topic: item.answer for item in describe_methods(results.load(folder)).checklist}
    left = [topic for topic, answer in answers.items() if answer == BY_THE_AUTHORS]
    for word in ("Ethics", "Age, ethnicity", "Fairness", "Funding"):
        assert any(topic.startswith(word) for topic in left), word
    assert answers["Data source"] == "Data and participants"
    assert f"| {BY_THE_AUTHORS} |" in text(folder)


def test_results_that_lack_almost_everything_are_described_as_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "old"
    (path / "trials" / "a").mkdir(parents=True)
    (path / "experiment.json").write_text('{"name": "old"}')
    (path / "trials" / "a" / "trial.json").write_text(
        '{"trial_id": "a", "variant": "soft", "seed": 0, "state": "finished", "config": {"pretraining": null}}'
    )
    assert text(path).count("not recorded") > 20


def test_a_variant_of_older_results_is_told_by_its_overrides(tmp_path: Path) -> None:
    loaded = results.load(generated_results.write(tmp_path / "e", epochs=0, examples=False))
    assert variant_changes(loaded)["hard"] == {"pretraining.labels": ("hard", None)}
    assert variant_changes(loaded)["soft"] == {}


def test_a_search_tells_how_it_chose_and_whether_that_is_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "rate"
    place = {
        "kind": "float",
        "low": 0.001,
        "high": 0.1,
        "log": True,
        "choices": [],
        "only_if": {"pretraining.loss": "hinge"},
    }
    asked = {"sampler": "gp", "pruner": "asha", "reduction": 3, "grace_epochs": 2, "trials": 30, "hours": 2.5}
    record = {"name": "rate", "kind": "search", "question": "Which?", "metric": "validation_patches_linear_auc"}
    results.write_experiment(path, record | {"search": asked | {"parameters": {"pretraining.margin": place}}})
    states = pd.DataFrame({"state": ["complete", "complete", "pruned"]})
    results.write_parquet(path / results.SELECTION_FILE, states)
    found = paragraph(path, "Search")
    for words in (
        "maximize the AUC of the linear probe on patches (validation women)", "gp", "30 settings and 2.5 hours",
        "one in 3 goes on, from epoch 2", "2 complete and 1 pruned", "not confirmed",
        "pretraining.margin: float from 0.001 to 0.1 (log), only if pretraining.loss is hinge",
    ):  # fmt: skip
        assert words in found, words


def test_what_a_search_varied_has_no_value_of_its_own(tmp_path: Path) -> None:
    path = generated_results.write(
        tmp_path / "e", kind="search", variants={"searched": ["pretraining.learning_rate"]}, controls={}, epochs=0,
        examples=False,
    )  # fmt: skip
    found = paragraph(with_configs(path), "Pretraining")
    assert "greatest learning rate (searched)" in found
    assert "weight decay 0.0001" in found


def test_effects_that_could_not_be_told_are_said_with_their_reason(tmp_path: Path) -> None:
    path = generated_results.write(tmp_path / "e", epochs=0, examples=False)
    rows = pd.DataFrame([{"kind": "main", "note": "variant 'b' has no finished trial"}], columns=EFFECT_COLUMNS)
    results.write_parquet(path / results.EFFECTS_FILE, rows)
    assert "not estimated: variant 'b' has no finished trial" in paragraph(path, "Statistics")


def test_export_writes_it_as_one_line_of_markdown_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "one | two\n# three <b> *four*"
    path = generated_results.write(tmp_path / "e", epochs=0, examples=False, question=hostile)
    out = tmp_path / "methods.md"
    siamray_sweep(["export", f"results={path}", f"out={out}"])
    assert capsys.readouterr().out.split() == [str(out)]
    written = out.read_text()
    assert r"one \| two # three \<b> \*four\*" in written
    assert written.startswith("# Methods of e\n")
