"""An experiment's folder goes in; an MLflow experiment comes out, with a run per trial that has ended.

Everything is taken from the results contract, so that it can be exported while a sweep runs, at its end, or years
later. A run carries a digest of all it was made from: exported again, it is left alone, or made anew where its trial
changed (MLflow's parameters cannot be changed).
"""

import hashlib
import importlib.util
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from siamray.config import Config
from siamray.errors import UserError
from siamray.files import Location, read_bytes
from siamray.sweeps import results
from siamray.sweeps.remote_results import url_of

# Limits of MLflow's server.
_PARAMETERS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000
_VALUE_LENGTH = 6000
_NOT_IN_NAMES = re.compile(r"[^\w\-. /]", re.ASCII)

_TRIAL, _DIGEST, _PARENT = "siamray.trial", "siamray.digest", "mlflow.parentRunId"
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
_ARTIFACTS = (
    results.EXPERIMENT_FILE,
    results.TRIALS_FILE,
    results.COMPARISON_FILE,
    results.EFFECTS_FILE,
    results.SELECTION_FILE,
    results.IMPORTANCE_FILE,
    results.TUNING_FILE,
    results.REPORT_FILE,
)
_SETTINGS = {
    # siamray tells no one of itself, and neither do the packages that it uses.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# MLflow's own would wait four minutes for a server that is not there; whoever sets them is heard.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}

# Name, value, time in ms since 1970, step.
Metric = tuple[str, float, int, int]


@dataclass(frozen=True)
class Run:
    """What an MLflow run is made from; times in ms since 1970, None where unknown."""

    name: str
    status: str
    started: int | None
    ended: int | None
    tags: dict[str, str]
    parameters: dict[str, str]
    metrics: list[Metric]

    @property
    def digest(self) -> str:
        """Of all of it."""
        return hashlib.sha256(json.dumps(astuple(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Exported:
    """How many runs were made, made anew and left as they are, and the address of the server."""

    address: str
    new: int = 0
    renewed: int = 0
    unchanged: int = 0


def check_tracking(config: Config) -> None:
    """Makes sure, before anything starts, that results can be exported as asked.

    Raises:
        UserError: MLflow's package is missing, or the address holds a password, which would be noted in the results.
    """
    if config.tracking_uri is not None and _without_secrets(config.tracking_uri) != config.tracking_uri:
        raise UserError(
            "tracking_uri: an address with a user or password would be noted in the results; give them by "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the whole address by MLFLOW_TRACKING_URI"
        )
    if config.tracking == "mlflow" and importlib.util.find_spec("mlflow") is None:
        raise UserError("tracking=mlflow needs the package mlflow; pip install 'siamray[mlflow]', or tracking=none")


def export_runs(experiment: Location, address: str | None = None) -> Exported:
    """Brings an MLflow experiment to the state of an experiment's folder.

    The experiment is named as the folder's, and has a parent run with the files of the experiment, and a run below it
    for every trial that has ended and is readable.

    Args:
        experiment: ``<results>/<experiment>``, here or at a URL.
        address: of the tracking server; None: MLFLOW_TRACKING_URI, or MLflow's default, a database in the working
            folder.

    Raises:
        UserError: no such experiment, or the server cannot be reached or refuses.
    """
    loaded = results.load(experiment)
    os.environ.update(_SETTINGS)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    place = url_of(loaded.path) or experiment
    with _talking_to(address or os.environ.get("MLFLOW_TRACKING_URI"), place):
        client = MlflowClient(tracking_uri=address)
        shown = _without_secrets(client.tracking_uri)
        name = str(loaded.experiment["name"] or experiment.name)
        known = client.get_experiment_by_name(name)
        number = known.experiment_id if known is not None else client.create_experiment(name)
        there = _runs(client, number)
        parent = _export_experiment(client, number, loaded, there.get(name))
        counts = {"new": 0, "renewed": 0, "unchanged": 0}
        for row in loaded.trials.itertuples():
            if row.state in _STATUS:
                run = trial_run(loaded, str(row.trial_id), str(row.role))
                counts[_export_trial(client, number, run, parent, there.get(run.tags[_TRIAL]))] += 1
    return Exported(shown, **counts)


def trial_run(loaded: results.Results, trial_id: str, role: str = "") -> Run:
    """Makes the run of a trial.

    Args:
        loaded: the experiment.
        trial_id: of a trial that is readable.
        role: variant or control.

    Returns:
        As tags what it was, as parameters every option by its dotted name, as metrics those of the trial with the ends
        of their intervals and its cost in seconds at step 0, and the columns of epochs.parquet as A/COLUMN and
        B/COLUMN with the epoch as step. What is not a number is left out; characters that MLflow allows in no name
        become "_" (patches_linear@10_auc: patches_linear_10_auc).
    """
    record = loaded.trial(trial_id)
    git = record["git"] or {}
    tags = {
        _TRIAL: f"{loaded.experiment['name'] or loaded.path.name}/{trial_id}",
        **{f"siamray.{key}": record[key] for key in ("variant", "seed", "fold", "state", "reason")},
        **{f"siamray.{key}": record[key] for key in ("data_fingerprint", "code", "shared_from")},
        "siamray.role": role,
        "siamray.commit": git.get("commit"),
        "siamray.uncommitted": git.get("dirty"),
        "mlflow.source.git.commit": git.get("commit"),
    }
    options = pd.json_normalize(record["config"] or {}).to_dict("records")
    started, ended = _milliseconds(record["started"]), _milliseconds(record["ended"])
    numbers = {
        f"{name}{end}": metric[part]
        for name, metric in record["metrics"].items()
        for part, end in (("value", ""), ("low", "_low"), ("high", "_high"))
    }
    finals = [(name, value, ended or 0, 0) for name, value in {**numbers, **record["cost"]}.items()]
    measured = [*finals, *_curves(loaded.epochs(trial_id), started or 0)]
    return Run(
        name=trial_id,
        status=_STATUS[record["state"]],
        started=started,
        ended=ended,
        tags={name: _cut(value) for name, value in tags.items() if value not in (None, "")},
        parameters={_name(str(key)): _cut(value) for key, value in (options[0] if options else {}).items()},
        metrics=[(_name(name), value, *rest) for name, value, *rest in measured if math.isfinite(value)],
    )


def _curves(epochs: pd.DataFrame, started: int) -> Iterator[Metric]:
    """The columns of epochs.parquet, network by network; an epoch's time is the start plus the seconds trained."""
    for network, rows in epochs.sort_values("epoch").groupby("network"):
        numbers = rows.drop(columns=["network"]).apply(pd.to_numeric, errors="coerce").astype(float)
        times = started + 1000 * numbers["seconds"].fillna(0).cumsum()
        for column in numbers.columns.drop("epoch"):
            for epoch, time, value in zip(numbers["epoch"], times, numbers[column], strict=True):
                yield f"{network}/{column}", float(value), int(time), int(epoch)


def _runs(client: Any, number: str) -> dict[str, Any]:
    """The runs that an export made: tag siamray.trial -> run; the experiment's own is there under its name."""
    found: dict[str, Any] = {}
    page = None
    while True:
        answer = client.search_runs([number], max_results=500, page_token=page)
        found |= {run.data.tags[_TRIAL]: run for run in answer if _TRIAL in run.data.tags}
        page = answer.token
        if not page:
            return found


def _export_trial(client: Any, number: str, run: Run, parent: str, there: Any) -> str:
    """Makes a run what it shall be; says whether it is new, renewed or unchanged."""
    if there is not None and there.data.tags.get(_DIGEST) == run.digest:
        # The parent may have been deleted by hand.
        if there.data.tags.get(_PARENT) != parent:
            client.set_tag(there.info.run_id, _PARENT, parent)
        return "unchanged"
    if there is not None:
        client.delete_run(there.info.run_id)
    tags = {**run.tags, _PARENT: parent}
    made = client.create_run(number, start_time=run.started, tags=tags, run_name=run.name).info.run_id
    _log(client, made, run)
    client.set_terminated(made, run.status, run.ended)
    # Last: a run without it was left half done, and is made anew.
    client.set_tag(made, _DIGEST, run.digest)
    return "new" if there is None else "renewed"


def _log(client: Any, run_id: str, run: Run) -> None:
    from mlflow import entities

    parameters = [entities.Param(name, value) for name, value in run.parameters.items()]
    metrics = [entities.Metric(*metric) for metric in run.metrics]
    for i in range(0, len(parameters), _PARAMETERS_AT_ONCE):
        client.log_batch(run_id, params=parameters[i : i + _PARAMETERS_AT_ONCE])
    for i in range(0, len(metrics), _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[i : i + _METRICS_AT_ONCE])


def _export_experiment(client: Any, number: str, loaded: results.Results, there: Any) -> str:
    """Brings the experiment's own run and its files up to date; returns its id."""
    record = loaded.experiment
    name = str(record["name"] or loaded.path.name)
    files = dict(_files(loaded.path))
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
    tags = {"mlflow.note.content": _cut(record["question"]), "siamray.kind": _cut(record["kind"]), _TRIAL: name}
    if there is None:
        there = client.create_run(number, start_time=_milliseconds(record["created"]), tags=tags, run_name=name)
    run_id = str(there.info.run_id)
    if there.data.tags.get(_DIGEST) != digest:
        with tempfile.TemporaryDirectory(prefix="siamray-mlflow-") as folder:
            for file, content in files.items():
                (Path(folder) / file).write_bytes(content)
            client.log_artifacts(run_id, folder)
        client.set_terminated(run_id, "FINISHED")
        client.set_tag(run_id, _DIGEST, digest)
    return run_id


def _files(experiment: Path) -> Iterator[tuple[str, bytes]]:
    for name in _ARTIFACTS:
        try:
            yield name, read_bytes(experiment / name)
        except FileNotFoundError:
            continue


@contextmanager
def _talking_to(address: str | None, experiment: Location) -> Iterator[None]:
    """Turns what a server refuses into one line.

    Raises:
        UserError: it cannot be reached, or refuses; the results are there all the same.
    """
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    # Artifacts are sent by requests (an OSError), by packages of object stores, or written to a folder of this machine.
    except (MlflowException, ImportError, OSError) as error:
        away = any(isinstance(cause, requests.ConnectionError | requests.Timeout) for cause in _causes(error))
        lines = str(error).splitlines() or [type(error).__name__]
        reason = "cannot be reached" if away else f"refused ({_without_secrets(lines[0])[:300]})"
        place = "MLflow" if address is None else f"MLflow at {_without_secrets(address)}"
        raise UserError(
            f"{place} {reason}; the results are safe in {experiment}: correct tracking_uri= or the server, and say "
            f"python -m siamray.sweep export results={experiment} tracking=mlflow"
        ) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _without_secrets(text: str) -> str:
    return re.sub(r"://[^/\s@]*@", "://", text)


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text)[:250]


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _VALUE_LENGTH else text[: _VALUE_LENGTH - 3] + "..."


def _milliseconds(written: str | None) -> int | None:
    """An ISO 8601 time as ms since 1970; one without a zone is taken as UTC."""
    try:
        time = datetime.fromisoformat(str(written))
    except ValueError:
        return None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
