"""An MLflow server holds what the results folder holds, a run per trial, however often it is exported."""

import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pandas as pd
import pytest

from siamray.errors import UserError
from siamray.pretraining.checkpoint import training_identity
from siamray.sweep import main as siamray_sweep
from siamray.sweeps import mlflow_export, results
from siamray.sweeps.mlflow_export import export_runs, trial_run
from tests.dashboards import generated_results
from tests.sweeps.test_results import experiment, trial
from tests.test_commands import TINY, refused, siamray

needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="needs MLflow: pip install 'siamray[mlflow]'"
)


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server with a database and artifacts of its own."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    # Its queue of jobs needs a further package, and no run asks for it.
    settings |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=os.environ | settings, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert server.poll() is None, (folder / "log").read_text()
            try:
                with urlopen(f"{address}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def runs(address: str, name: str) -> dict[str, Any]:
    """What a reader of the server finds: name of a run -> run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(address)
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    names = [run.info.run_name for run in found]
    assert len(names) == len(set(names))
    return dict(zip(names, found, strict=True))


@needs_mlflow
@pytest.mark.slow
def test_a_server_holds_every_trial_once_and_as_it_is_now(
    mlflow_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient

    folder = generated_results.write(tmp_path / "e", seeds=(0, 1), failed=[("rank", 1, "no memory")], examples=False)
    results.write_bytes(folder / results.REPORT_FILE, b"<p>report</p>")
    words = ["export", f"results={folder}", "tracking=mlflow", f"tracking_uri={mlflow_server}"]
    siamray_sweep(words)
    loaded = results.load(folder)
    assert f"MLflow at {mlflow_server}: {len(loaded.trials)} runs new" in capsys.readouterr().out
    found = runs(mlflow_server, "e")
    parent = found.pop("e")
    assert set(found) == set(loaded.trials["trial_id"])
    for row in loaded.trials.to_dict("records"):
        run = found[row["trial_id"]]
        tags, metrics = run.data.tags, run.data.metrics
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert (tags["siamray.variant"], tags["siamray.role"]) == (row["variant"], row["role"])
        assert (tags["siamray.seed"], tags["siamray.state"]) == (str(row["seed"]), row["state"])
        assert run.info.status == ("FAILED" if row["state"] == "failed" else "FINISHED")
        assert tags.get("siamray.reason", "") == row["reason"]
        for name in ("patches_linear_auc", "patches_linear_auc_low", "patches_linear_auc_high", "wall_s"):
            assert metrics.get(name, math.nan) == pytest.approx(row[name], nan_ok=True)
    client = MlflowClient(mlflow_server)
    some = str(loaded.trials["trial_id"].iloc[0])
    epochs = loaded.epochs(some)
    for network in "AB":
        curve = sorted(client.get_metric_history(found[some].info.run_id, f"{network}/loss"), key=lambda m: m.step)
        own = epochs[epochs["network"] == network].sort_values("epoch")
        assert [point.step for point in curve] == own["epoch"].tolist()
        assert [point.value for point in curve] == pytest.approx(own["loss"].tolist())
    kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"experiment.json", "trials.parquet", "comparison.parquet", "report.html"} == kept
    record = json.loads(Path(client.download_artifacts(parent.info.run_id, "experiment.json")).read_text())
    assert record["question"] == loaded.experiment["question"]

    # Again: nothing is doubled; trials that were tried again, left half done, or are new are brought in.
    before = {name: run.info.run_id for name, run in runs(mlflow_server, "e").items()}
    failed = loaded.trials.set_index("state").loc["failed", "trial_id"]
    again = results.read_trial(folder / "trials" / failed) | {"state": "finished", "reason": ""}
    results.write_trial(folder / "trials" / failed, again)
    client.delete_tag(before[some], "siamray.digest")
    trial(folder, "another", variant="soft", seed=7)
    done = export_runs(folder, mlflow_server)
    assert (done.new, done.renewed, done.unchanged) == (1, 2, len(loaded.trials) - 2)
    after = runs(mlflow_server, "e")
    assert set(after) == {*before, "another"}
    assert {name for name in before if after[name].info.run_id != before[name]} == {failed, some}
    assert after[failed].info.status == "FINISHED"
    assert after[some].data.metrics == found[some].data.metrics


@needs_mlflow
@pytest.mark.slow
def test_long_words_many_options_and_odd_names_are_no_reason_to_fail(mlflow_server: str, tmp_path: Path) -> None:
    folder = experiment(tmp_path / "odd", name="what we ask: ½?", question="")
    config = {
        "pretraining": {f"option_{i}": i for i in range(250)} | {"text": "x" * 9000, "none": None, "list": [1, 2]}
    }
    metrics = {"patches_linear@10_auc": {"value": 0.5, "low": None, "high": 0.6}, "nothing": None}
    epochs = pd.DataFrame(
        [{"epoch": i, "network": "A", "loss": 1 / (i + 1), "bic_gain": math.nan, "seconds": 1.0} for i in range(1500)]
    )
    results.write_trial(
        folder / "trials" / "t",
        {"trial_id": "t", "variant": "soft", "seed": 0, "state": "finished", "config": config, "metrics": metrics},
        epochs=epochs,
    )
    assert export_runs(folder, mlflow_server).new == 1
    run = runs(mlflow_server, "what we ask: ½?")["t"]
    assert run.data.params["pretraining.option_249"] == "249"
    assert run.data.params["pretraining.list"] == "[1, 2]"
    assert run.data.params["pretraining.none"] == "null"
    assert len(run.data.params["pretraining.text"]) == 6000
    assert run.data.metrics["patches_linear_10_auc"] == 0.5
    assert not {"patches_linear_10_auc_low", "nothing", "A/bic_gain"} & set(run.data.metrics)
    assert run.data.metrics["A/loss"] == pytest.approx(1 / 1500)
    assert export_runs(folder, mlflow_server).unchanged == 1


@needs_mlflow
@pytest.mark.slow
def test_a_sweep_whose_server_was_away_has_its_results_and_brings_them_in_when_given_again(
    mlflow_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "ends.yaml").write_text(
        "name: ends\nquestion: does it end?\nreference: a\nvariants: {a: [pretraining.labels=rank]}\n"
        "controls: {untrained: [pretraining.epochs=0]}\n"
    )
    words = [f"experiments={tmp_path}", "ablation=ends", *TINY, "seeds=1", f"results={tmp_path}", "tracking=mlflow"]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = siamray("sweep", *words, f"tracking_uri=http://127.0.0.1:{free_port()}")
    refused(done, "cannot be reached", f"results are safe in {tmp_path / 'ends'}")
    assert (tmp_path / "ends" / "report.html").exists()
    done = siamray("sweep", *words, f"tracking_uri={mlflow_server}")
    assert done.returncode == 0, done.stderr
    assert "2 of them done before" in done.stderr
    assert "2 runs new, 0 made anew, 0 there before" in done.stdout
    found = runs(mlflow_server, "ends")
    trials = pd.read_parquet(tmp_path / "ends" / "trials.parquet").set_index("trial_id")
    assert set(found) == {"ends", *trials.index}
    for trial_id, row in trials.iterrows():
        assert found[str(trial_id)].data.metrics["patches_linear_auc"] == pytest.approx(row["patches_linear_auc"])
        assert found[str(trial_id)].data.params["pretraining.batch_pairs"] == "16"


@needs_mlflow
def test_a_server_that_is_not_there_is_said_in_one_line_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = experiment(tmp_path / "e")
    trial(folder, "t")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:a-secret@127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match="cannot be reached") as caught:
        siamray_sweep(["export", f"results={folder}", "tracking=mlflow", f"out={tmp_path / 't.csv'}"])
    message = str(caught.value)
    assert f"sweep export results={folder} tracking=mlflow" in message
    assert "a-secret" not in message
    assert "\n" not in message
    assert (tmp_path / "t.csv").exists()


@needs_mlflow
def test_nothing_is_told_to_the_makers_of_mlflow(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    trial(folder, "t")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from siamray.sweeps.mlflow_export import export_runs\n"
        "export_runs(Path(sys.argv[1]), f'sqlite:///{sys.argv[1]}/mlflow.db')\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "print('telemetry:', get_telemetry_client())\n"
    )
    hidden = {"MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI", "PYTEST_CURRENT_TEST", "GITHUB_ACTIONS"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["telemetry: None"], done.stderr


def test_a_missing_package_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_export.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'siamray\[mlflow\]'"):
        siamray_sweep(["ablation=soft_labels", f"results={tmp_path / 'r'}", "tracking=mlflow"])
    assert not (tmp_path / "r").exists()


def test_an_address_with_a_password_is_refused_as_results_would_keep_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        siamray_sweep(["ablation=soft_labels", f"results={tmp_path}", "tracking_uri=http://me:a-secret@host"])
    assert "a-secret" not in str(caught.value)


def test_the_same_trial_makes_the_same_run_and_another_one_another(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "e")
    trial(folder, "t", started="2026-01-02T03:04:05+00:00")
    first = trial_run(results.load(folder), "t")
    assert first.started == 1767323045000
    assert trial_run(results.load(folder), "t").digest == first.digest
    trial(folder, "t", started="2026-01-02T03:04:05+00:00", metrics={"auc": 0.71})
    assert trial_run(results.load(folder), "t").digest != first.digest


def test_where_results_go_besides_changes_no_trial() -> None:
    here = {"seed": 0, "tracking": "none", "tracking_uri": None}
    there = here | {"tracking": "mlflow", "tracking_uri": "http://host"}
    assert training_identity(here, "f") == training_identity(there, "f")
