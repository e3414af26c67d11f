"""A search configuration goes in; the table of what its Optuna study found comes out; Ray Tune runs the trials."""

import dataclasses
import json
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from siamray.cluster import connected
from siamray.compose import compose_variant
from siamray.config import Config, ParameterConfig, SearchConfig
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.pretraining.loop import DivergedError
from siamray.sweeps import results
from siamray.sweeps.ablation import base_words, make_trial
from siamray.sweeps.fixed_arithmetic import fix_arithmetic
from siamray.sweeps.runner import concurrency, trial_resources
from siamray.sweeps.trial import run_trial

VARIANT = "searched"


def check_parameters(search: SearchConfig) -> None:
    """Makes sure that every searched option says where it may lie.

    Raises:
        UserError: naming the option and what it lacks.
    """
    if not search.parameters:
        raise UserError(f"search={search.name}: has no parameters")
    for name, parameter in search.parameters.items():
        if parameter.kind == "categorical":
            if not parameter.choices:
                raise UserError(f"search={search.name}: {name} is categorical and has no choices")
        elif parameter.low is None or parameter.high is None or parameter.low > parameter.high:
            raise UserError(f"search={search.name}: {name} needs low and high, low first")
        unknown = set(parameter.only_if) - set(search.parameters)
        if unknown:
            raise UserError(f"search={search.name}: {name} depends on {min(unknown)}, which is not searched")


def suggest(trial: Any, parameters: dict[str, ParameterConfig]) -> dict[str, Any]:
    """Draws one setting from Optuna, parameter by parameter; one that cannot matter is not drawn.

    Args:
        trial: an Optuna trial, or what suggests like one.
        parameters: option -> where it may lie; conditions refer to options listed before.

    Returns:
        Option -> value.
    """
    drawn: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if not all(_among(drawn.get(other), value) for other, value in parameter.only_if.items()):
            continue
        if parameter.kind == "categorical":
            drawn[name] = trial.suggest_categorical(name, parameter.choices)
        elif parameter.kind == "int":
            drawn[name] = trial.suggest_int(name, int(parameter.low or 0), int(parameter.high or 0), log=parameter.log)
        else:
            drawn[name] = trial.suggest_float(
                name, float(parameter.low or 0), float(parameter.high or 0), log=parameter.log
            )
    return drawn


def _among(value: Any, allowed: Any) -> bool:
    return value in allowed if isinstance(allowed, list) else bool(value == allowed)


def run_search(config: Config, words: list[str], store: Store, experiment: Path, console: Console) -> pd.DataFrame:
    """Runs a search until it has its number of trials, going on where an earlier run of it stopped.

    Args:
        config: of the sweep, with its search.
        words: the sweep's command line.
        store: the prepared exams.
        experiment: ``<results>/<experiment>``.
        console: progress is printed there.

    Returns:
        One row per completed trial, the best first: value of the objective and the searched options.

    Raises:
        UserError: a parameter that is no option, or workers that can never be placed.
    """
    search = config.search
    assert search is not None
    study = _open_study(search, experiment)
    remaining = search.trials - len(_completed(study))
    if remaining > 0:
        with connected(config.cluster) as resources:
            _tune(config, words, store, experiment, remaining, concurrency(config.cluster, resources), console)
    rows = [{"trial": trial.number, search.metric: trial.value, **trial.params} for trial in _completed(study)]
    table = pd.DataFrame(rows)
    return table.sort_values(search.metric, ascending=False, ignore_index=True) if rows else table


def search_overrides(settings: dict[str, Any]) -> list[str]:
    """Writes drawn settings as words of the command line."""
    return [f"{name}={json.dumps(value) if not isinstance(value, str) else value}" for name, value in settings.items()]


def _storage(experiment: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(experiment / "study.log")))


def _open_study(search: SearchConfig, experiment: Path) -> Any:
    """Opens the study; trials that a killed driver left running are told as failed, lest they be suggested again."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=_storage(experiment), study_name=search.name, direction="maximize", load_if_exists=True
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _completed(study: Any) -> list[Any]:
    import optuna

    return list(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))


def _sampler(search: SearchConfig, seed: int) -> Any:
    import optuna

    kinds: dict[str, Callable[..., Any]] = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    return kinds[search.sampler](seed=seed)


@dataclasses.dataclass(frozen=True)
class _Space:
    """The define-by-run space that Ray calls with an Optuna trial; a class, as Ray pickles it."""

    parameters: dict[str, ParameterConfig]
    fixed: dict[str, Any]

    def __call__(self, trial: Any) -> dict[str, Any]:
        # Ray unflattens names at slashes only, so options keep their dots; it records itself what is drawn.
        suggest(trial, self.parameters)
        return {"fixed": self.fixed}


def _tune(
    config: Config, words: list[str], store: Store, experiment: Path, trials: int, at_a_time: int, console: Console
) -> None:
    from ray import tune
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    from siamray.sweeps.trial_events import TrialEvents

    search = config.search
    assert search is not None
    fixed = {
        "words": base_words(words),
        "metric": search.metric,
        "store": str(store.path),
        "experiment": str(experiment),
    }

    searcher = OptunaSearch(
        _Space(search.parameters, fixed),
        metric="objective",
        mode="max",
        sampler=_sampler(search, config.seed),
        study_name=search.name,
        storage=_storage(experiment),
    )
    scratch = tempfile.mkdtemp(prefix="siamray-tune-")
    shown = _Line(console, trials, search.metric)
    try:
        tune.Tuner(
            tune.with_resources(_work, trial_resources(config.cluster)),
            tune_config=tune.TuneConfig(
                search_alg=ConcurrencyLimiter(searcher, at_a_time),
                metric="objective",
                mode="max",
                num_samples=trials,
                reuse_actors=config.cluster.workers == 0,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=config.cluster.failures),
                callbacks=[TrialEvents(shown.end)],
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _work(parameters: dict[str, Any]) -> None:
    """What the process of a trial does: composes its configuration, runs it or reads what an earlier run left."""
    from ray import tune

    fixed = parameters["fixed"]
    settings = {name: value for name, value in parameters.items() if name != "fixed"}
    store = Store.open(fixed["store"])
    experiment = Path(fixed["experiment"])
    config = fix_arithmetic(compose_variant("sweep", fixed["words"], search_overrides(settings)), experiment)
    trial = make_trial(VARIANT, "variant", config, store.fingerprint)
    folder = experiment / results.TRIALS_FOLDER / trial.trial_id
    record = results.finished_trial(folder) or run_trial(trial, store, folder)
    metric = record["metrics"].get(fixed["metric"], math.nan)
    value = float(metric["value"] if isinstance(metric, dict) else metric)
    if not math.isfinite(value):
        # Raised, so that Optuna is told of a failure; NaN would leave its trial running for ever.
        raise DivergedError(record["reason"] or f"{fixed['metric']} is not a number")
    tune.report({"objective": value})


@dataclasses.dataclass
class _Line:
    """One line on the console per trial that ends."""

    console: Console
    trials: int
    metric: str
    done: int = 0

    def end(self, trial: Any, failed: bool) -> None:
        """Prints what a trial drew and what came of it."""
        self.done += 1
        word = "failed" if failed else f"{self.metric} {trial.last_result.get('objective', math.nan):.3f}"
        drawn = " ".join(search_overrides({k: v for k, v in trial.config.items() if k != "fixed"}))
        self.console.print(f"  {self.done}/{self.trials} {word}  {drawn}", style="dim", highlight=False)
