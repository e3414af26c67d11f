"""The commands as a user gives them: what they leave, how they resume, and how they end on a mistake."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from siamray.errors import UserError
from siamray.prepare import main as siamray_prepare
from siamray.prepare import report
from siamray.pretrain import main as siamray_pretrain
from siamray.sweep import main as siamray_sweep
from siamray.sweeps import results
from tests.conftest import TINY_DATA, TINY_PREPARATION, TINY_TRAINING

TINY = [*TINY_DATA, *TINY_TRAINING]
# A label, another one, and a control.
VARIANTS = ["soft", "hard", "untrained"]
SWEEP = ["ablation=soft_labels", f"ablation.only=[{','.join(VARIANTS)}]", *TINY, "seeds=2"]


def siamray(command: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"siamray.{command}", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=600, cwd=cwd, check=False)


def refused(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    """Asserts that a command ended as a user's mistake must: exit code 2, one line that names what to mend."""
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert lines[-1].startswith("siamray: ")
    for text in expected:
        assert text in lines[-1]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished tiny ablation: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    done = siamray("sweep", *SWEEP, "results=mine", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "mine" / "soft_labels", done.stdout


@pytest.mark.slow
def test_an_ablation_leaves_a_row_per_trial_with_its_metrics_intervals_and_cost(swept: tuple[Path, str]) -> None:
    trials = pd.read_parquet(swept[0] / "trials.parquet")
    assert len(trials) == 3 * 2
    assert set(trials.state) == {"finished"}
    assert set(trials.variant) == set(VARIANTS)
    for metric in ("patches_linear_auc", "patches_distance_auc", "validation_patches_linear_auc"):
        assert trials[[f"{metric}_low", metric, f"{metric}_high"]].notna().all(axis=None)
        assert (trials[f"{metric}_low"] <= trials[f"{metric}_high"]).all()
    assert (trials.wall_s > 0).all()
    assert (trials.cpu_s > 0).all()


@pytest.mark.slow
def test_an_ablation_prints_its_comparison_and_where_the_report_is(swept: tuple[Path, str]) -> None:
    folder, printed = swept
    assert f"report: {folder / 'report.html'}" in printed
    for name in (*VARIANTS, "brightness difference"):
        assert name in printed
    comparison = pd.read_parquet(folder / "comparison.parquet")
    primary = comparison[comparison.metric == "patches_linear_auc"].set_index("variant")
    assert set(primary.index) == set(VARIANTS)
    assert primary.seeds.eq(2).all()
    values = pd.read_parquet(folder / "trials.parquet").groupby("variant").patches_linear_auc.mean()
    assert primary.value.to_dict() == pytest.approx(values.to_dict())
    assert primary.effect["hard"] == pytest.approx(values["hard"] - values["soft"])
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "Holm" in report
    assert 'src="http' not in report


@pytest.mark.slow
def test_every_trial_keeps_what_a_dashboard_needs(swept: tuple[Path, str]) -> None:
    loaded = results.load(swept[0])
    for trial in loaded.trials.itertuples():
        folder = swept[0] / "trials" / str(trial.trial_id)
        assert not (folder / "checkpoint.pt").exists()
        assert (folder / "encoder" / "model.safetensors").exists()
        epochs = loaded.epochs(str(trial.trial_id))
        assert epochs.epoch.max() == (0 if trial.variant == "untrained" else 2)
        assert len(loaded.distances(str(trial.trial_id))) == len(epochs)
        predictions = loaded.predictions(str(trial.trial_id))
        assert set(predictions.split) == {"validation", "test"}
        assert {"linear", "knn20", "knn200", "distance", "brightness", "blob"} == set(predictions.score)
        examples = loaded.examples(str(trial.trial_id))
        assert len(examples.images) > 0
        assert len(examples.maps) > 0
        record = loaded.trial(str(trial.trial_id))
        assert record["versions"]["torch"]
        assert record["config"]["seed"] == trial.seed


@pytest.mark.slow
def test_a_sweep_killed_in_the_middle_goes_on_and_ends_with_every_trial_once(
    swept: tuple[Path, str], tmp_path: Path
) -> None:
    words = [*SWEEP, f"results={tmp_path}"]
    line = [sys.executable, "-m", "siamray.sweep", *words]
    killed = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    trials = tmp_path / "soft_labels" / "trials"
    until = time.monotonic() + 300
    while len(list(trials.glob("*/trial.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = {path.parent.name: path.stat().st_mtime_ns for path in trials.glob("*/trial.json")}
    assert 2 <= len(before) < 6
    done = siamray("sweep", *words)
    assert done.returncode == 0, done.stderr
    after = {path.parent.name: path.stat().st_mtime_ns for path in trials.glob("*/trial.json")}
    assert len(after) == 6
    assert all(after[name] == written for name, written in before.items())
    compared = ["trial_id", "variant", "seed", "state", "patches_linear_auc", "patches_distance_auc"]
    tables = [
        pd.read_parquet(folder / "trials.parquet")[compared].sort_values("trial_id", ignore_index=True)
        for folder in (swept[0], tmp_path / "soft_labels")
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.mark.slow
def test_a_finished_sweep_given_again_runs_nothing_and_says_so(swept: tuple[Path, str]) -> None:
    words = [*SWEEP, f"results={swept[0].parent}"]
    before = {path: path.stat().st_mtime_ns for path in swept[0].glob("trials/*/trial.json")}
    done = siamray("sweep", *words)
    assert done.returncode == 0, done.stderr
    assert "6 of them done before" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in swept[0].glob("trials/*/trial.json")} == before


@pytest.mark.slow
def test_trials_that_another_ablation_finished_are_shared_and_compared_as_if_trained_anew(
    swept: tuple[Path, str], tmp_path: Path
) -> None:
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "again.yaml").write_text(
        "name: again\nquestion: again?\nbase: [pretraining=siamese]\ndesign: one_factor\n"
        "options: {pretraining.labels: [mixture, hard]}\ncontrols: {untrained: [pretraining.epochs=0]}\n"
    )
    words = [f"experiments={tmp_path}", "ablation=again", *TINY, "seeds=2", f"results={swept[0].parent}"]
    planned = siamray("sweep", *words, "dry_run=true")
    assert planned.returncode == 0, planned.stderr
    assert "6 trials, 0 of them done before, 6 shared with soft_labels" in planned.stdout
    assert not (swept[0].parent / "again").exists()
    done = siamray("sweep", *words)
    assert done.returncode == 0, done.stderr
    assert "6 trials, 0 of them done before, 6 shared with soft_labels" in done.stderr
    loaded = results.load(swept[0].parent / "again")
    assert loaded.experiment["settings"] == {"mixture": {"labels": "mixture"}, "hard": {"labels": "hard"}}
    assert loaded.experiment["differences"]["untrained"] == {"pretraining.epochs": 0}
    records = [loaded.trial(name) for name in loaded.trials.trial_id]
    assert {record["shared_from"].split("-seed")[0] for record in records} == {
        f"soft_labels/{variant}" for variant in ("soft", "hard", "untrained")
    }
    effects = [
        results.load(folder).comparison.query("metric == 'patches_linear_auc' and variant == 'hard'").effect.item()
        for folder in (swept[0], swept[0].parent / "again")
    ]
    assert effects[0] == effects[1]


@pytest.mark.slow
def test_a_search_tries_its_number_of_settings_and_ranks_them_by_validation_women(tmp_path: Path) -> None:
    words = ["search=method", *TINY, "search.trials=2", "search.confirm=1", f"results={tmp_path}"]
    done = siamray("sweep", *words, "pretraining.epochs=1")
    assert done.returncode == 0, done.stderr
    selection = pd.read_parquet(tmp_path / "method" / "selection.parquet")
    assert selection.state.tolist() == ["complete"] * 2
    assert selection[["validation_patches_linear_auc", "validation_patches_distance_auc"]].notna().all(axis=None)
    for text in ("pretraining.masses.weight=", "Pareto front", "a selection on validation women, not a result"):
        assert text in done.stdout
    trials = pd.read_parquet(tmp_path / "method" / "trials.parquet").set_index("variant")
    assert trials.index.value_counts().to_dict() == {"searched": 2, "base": 1, "winner": 1}
    assert trials.seed[["base", "winner"]].tolist() == [1, 1]
    comparison = pd.read_parquet(tmp_path / "method" / "comparison.parquet")
    primary = comparison[comparison.metric == "patches_linear_auc"].set_index("variant")
    assert primary.value["winner"] == trials.patches_linear_auc["winner"]
    assert primary.effect["winner"] == pytest.approx(primary.value["winner"] - primary.value["base"])
    again = siamray("sweep", *words, "pretraining.epochs=1")
    assert again.returncode == 0, again.stderr
    assert len(pd.read_parquet(tmp_path / "method" / "trials.parquet")) == 4
    refused(siamray("sweep", *words, "pretraining.epochs=2"), "pretraining.epochs was 1, is 2", "another results=DIR")


@pytest.mark.slow
def test_pretrain_leaves_an_encoder_that_evaluate_tests_beside_the_controls(tmp_path: Path) -> None:
    training = [word for word in TINY if not word.startswith("downstream.")]
    trained = siamray("pretrain", *training, "out=one", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    encoder = tmp_path / "one" / "encoder"
    assert f"encoder: {encoder}" in trained.stdout
    again = siamray("pretrain", *training, "out=one", cwd=tmp_path)
    assert again.returncode == 0
    assert "holds this run already" in again.stderr
    refused(siamray("pretrain", *training, "pretraining.margin=0.5", "out=one", cwd=tmp_path), "pretraining.margin")
    tested = siamray("evaluate", *TINY, f"encoder={encoder}", "out=two", cwd=tmp_path)
    assert tested.returncode == 0, tested.stderr
    record = json.loads((tmp_path / "two" / "evaluation.json").read_text())
    assert set(record["metrics"]) == {"encoder", "untrained"}
    assert 0 <= record["metrics"]["encoder"]["patches_linear_auc"]["value"] <= 1
    for text in ("untrained", "brightness", "test women"):
        assert text in tested.stdout
    tasks = ["downstream.tasks=[birads,outcome,density,detection]", "downstream.attention.epochs=3"]
    asked = siamray("evaluate", *TINY, *tasks, f"encoder={encoder}", "out=three", cwd=tmp_path)
    assert asked.returncode == 0, asked.stderr
    record = json.loads((tmp_path / "three" / "evaluation.json").read_text())
    for metric in ("birads_attention_macro_auc", "birads_exam_mean_kappa", "outcome_mean_auc", "density_mean_macro_f1"):
        assert set(record["metrics"]["untrained"][metric]) == {"value", "low", "high"}
    assert "patches_linear_auc" not in record["metrics"]["encoder"]
    assert any(note.startswith("outcome attention: epoch") for note in record["notes"]["encoder"])
    predictions = pd.read_parquet(tmp_path / "three" / "predictions.parquet")
    assert set(predictions.task) >= {"birads", "outcome", "density"}
    assert predictions.probabilities.dropna().map(sum).round(6).eq(1).all()
    for text in ("macro auc", "exam_attention", "outcome: 4 test women", "distance_froc_mean"):
        assert text in asked.stdout
    refused(
        siamray("evaluate", *TINY, f"encoder={encoder}", "preparation.spacing_mm=1.0", cwd=tmp_path),
        "preparation.spacing_mm=0.8",
    )


@pytest.mark.slow
def test_a_trial_may_use_all_processors_for_its_train_workers(tmp_path: Path) -> None:
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "one.yaml").write_text(
        "name: one\nquestion: one?\nreference: a\nvariants: {a: [pretraining.labels=rank]}\n"
    )
    workers = min(2, os.cpu_count() or 1)
    words = ["pretraining.pairs_per_epoch=128", "seeds=1", f"cluster.workers={workers}", f"results={tmp_path}"]
    done = siamray("sweep", f"experiments={tmp_path}", "ablation=one", *TINY, *words)
    assert done.returncode == 0, done.stderr
    trials = pd.read_parquet(tmp_path / "one" / "trials.parquet")
    assert trials.state.tolist() == ["finished"]
    (encoder,) = (tmp_path / "one" / "trials").glob("*/encoder/siamray.json")
    assert json.loads(encoder.read_text())["world_size"] == workers
    assert not list((tmp_path / "one" / "trials").glob("*/ray"))


@pytest.mark.slow
def test_an_ablation_may_be_of_another_task_and_compares_it_over_women(tmp_path: Path) -> None:
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "outcome.yaml").write_text(
        "name: outcome\nquestion: outcome?\nreference: a\nmetric: outcome_mean_auc\n"
        "variants: {a: [pretraining.epochs=1]}\ncontrols: {untrained: [pretraining.epochs=0]}\n"
    )
    words = ["downstream.tasks=[outcome,birads]", "downstream.attention.epochs=3", "pretraining.warmup_epochs=0"]
    done = siamray("sweep", f"experiments={tmp_path}", "ablation=outcome", *TINY, *words, "seeds=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(tmp_path / "results" / "outcome" / "comparison.parquet")
    assert set(rows.metric) == {
        "outcome_mean_auc",
        "outcome_attention_auc",
        *(f"birads_attention_{kind}" for kind in ("macro_auc", "kappa", "macro_f1")),
    }
    assert (rows.women == 4).all()
    assert rows.lesions.isna().all()
    assert "outcome_mean_auc" in done.stdout
    (record, *_) = (tmp_path / "results" / "outcome" / "trials").glob("*/trial.json")
    assert any(note.startswith("outcome mean: ") for note in json.loads(record.read_text())["notes"])


def test_a_dry_run_lists_the_trials_and_their_cost_and_runs_nothing(tmp_path: Path) -> None:
    done = siamray("sweep", "ablation=soft_labels", *TINY, "seeds=2", f"results={tmp_path / 'none'}", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "12 trials" in done.stdout
    assert "CPU hours" in done.stdout
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        ("sweep", [], "name one ablation=NAME or one search=NAME"),
        ("sweep", ["ablation=soft_lables"], "did you mean 'soft_labels'?"),
        ("sweep", ["ablation=soft_labels", "ablation.metric=patches_auc"], "patches_auc"),
        ("sweep", ["ablation=soft_labels", "ablation.metric=outcome_mean_auc"], "downstream.tasks=[patches,outcome]"),
        ("sweep", ["ablation=soft_labels", "ablation.metric=patches_linaer_auc"], "did you mean 'linear'?"),
        (
            "sweep",
            ["ablation=components", "ablation.metric=patches_abnormality_auc"],
            "the encoder of 'no_head' has no",
        ),
        ("sweep", ["ablation=soft_labels", "downstream.tasks=[patches,biards]"], "did you mean 'birads'?"),
        ("sweep", ["ablation=soft_labels", "ablation.metric=patches_linear@10_auc"], "downstream.label_fractions"),
        ("sweep", ["ablation=labels_fraction", "downstream.label_fractions=[0.1]"], "downstream.fine_tuning.epochs=15"),
        ("sweep", ["ablation=soft_labels", "downstream.label_fractions=[0.1,2]"], "must be at most 1"),
        ("sweep", ["ablation=soft_labels", *TINY, "encoder.backbone=resnet10x"], "resnet10t"),
        ("pretrain", ["pretraining.marjin=1"], "did you mean 'pretraining.margin'?"),
        ("pretrain", ["encoder.backbone=resnet10x", *TINY_DATA], "resnet10t"),
        ("evaluate", [*TINY_DATA], "encoder=DIR"),
        ("evaluate", ["encoder=."], "no exported encoder|config.json"),
        ("prepare", ["data=mias"], "data.root"),
        ("prepare", ["data=mias", "data.root=/nowhere"], "/nowhere"),
        ("prepare", ["pretraining.epochs=3"], "does not use this option"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_told_in_one_line(
    command: str, words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        importlib.import_module(f"siamray.{command}").main(words)
    assert "\n" not in str(raised.value)
    assert any(text in str(raised.value) for text in expected.split("|")), raised.value


def test_a_mistake_ends_a_command_with_exit_code_2_and_no_traceback(tmp_path: Path) -> None:
    refused(siamray("sweep", "ablation=soft_lables", cwd=tmp_path), "did you mean 'soft_labels'?")


def test_help_exits_well_and_lists_options_with_their_meaning() -> None:
    done = siamray("prepare", "--help")
    assert done.returncode == 0
    assert "Groups:" in done.stdout
    assert "data.root" in done.stdout


def test_eight_workers_on_this_machine_are_refused_before_training(tmp_path: Path) -> None:
    if (os.cpu_count() or 1) >= 64:
        pytest.skip("this machine has room for them")
    training = [word for word in TINY if not word.startswith("downstream.")]
    with pytest.raises(UserError, match=r"cluster\.workers=64.*ask for fewer"):
        siamray_pretrain([*training, "cluster.workers=64", f"out={tmp_path}"])


@pytest.mark.skipif(not Path("/proc/sys").exists(), reason="needs /proc, where no folder can be made")
def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        siamray_sweep(["ablation=soft_labels", *TINY, f"results={tmp_path / 'file'}"])
    with pytest.raises(UserError, match="/proc/siamray"):
        siamray_prepare([*TINY_PREPARATION, "store=/proc/siamray/store"])


def test_prepare_prints_paths_and_reasons_in_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    manifest = pd.DataFrame({"used": [False], "reason": ["odd [bold]reason[/odd]"]})
    entries = pd.DataFrame(columns=["woman_id", "exam_id", "registration_kind", "registration_dice"], dtype="str")
    entries = entries.astype({"registration_dice": "float64"})
    findings = pd.DataFrame({"row_min": [1.0]})
    store = SimpleNamespace(entries=entries, manifest=manifest, findings=findings, path=Path("stores/[mine]"))
    report(store, 1.0)  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert "odd [bold]reason[/odd]" in printed
    assert "store: stores/[mine]" in printed
