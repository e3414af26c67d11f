"""A search's configuration goes in; its Optuna study, told the truth of every trial, and what it selects come out."""

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from siamray.compose import from_dict, to_dict
from siamray.config import Config, SearchConfig
from siamray.downstream.metrics import parse_metric
from siamray.errors import UserError, nearest
from siamray.files import location
from siamray.seeds import named_seed
from siamray.sweeps import results
from siamray.sweeps.ablation import trial_identity
from siamray.sweeps.contract import COST_COLUMNS
from siamray.sweeps.space import check_parameters, distributions, located

STUDY_FILE = "study.log"
DIRECTIONS = ("maximize", "minimize")
# User attributes of Optuna's trials.
TRIAL_ID = "trial_id"
REASON = "reason"
SAME_AS = "same_as"  # number of an earlier trial that drew the same setting: it was run once
GIVEN_UP = "given_up"  # its driver was killed: its setting is asked again
SOURCE = "source"  # the experiment and trial that lent it
SEED = "seed"
_QUESTION = "question"


def objectives(search: SearchConfig) -> dict[str, str]:
    """Names what a search looks for: metric or cost -> maximize or minimize, the first one first."""
    return dict(search.objectives) or {search.metric: "maximize"}


def metrics_sought(search: SearchConfig) -> list[str]:
    """Names the objectives that are metrics on validation women, not costs."""
    return [name for name in objectives(search) if name not in COST_COLUMNS]


def check_search(search: SearchConfig) -> None:
    """Makes sure that a search can be run, and that test women have no part in it.

    Raises:
        UserError: an objective on test women or unknown, a space that is not defined, or a sampler or pruner that
            cannot do what is asked.
    """
    check_parameters(search)
    where, sought = f"search={search.name}", objectives(search)
    if search.objectives and search.metric not in (SearchConfig.metric, *sought):
        raise UserError(f"{where}: search.metric={search.metric} is none of its objectives; give one or the other")
    for name, direction in sought.items():
        if direction not in DIRECTIONS:
            raise UserError(f"{where}: objective {name}: {direction}{nearest(direction, list(DIRECTIONS))}")
        if name in COST_COLUMNS:
            continue
        if parse_metric(name).split != "validation":
            raise UserError(
                f"{where}: objective {name} is of test women, who would be no test afterwards; say validation_{name}"
            )
    if search.trials is None and search.hours is None and search.cpu_hours is None and search.gpu_hours is None:
        raise UserError(f"{where}: has no budget; give search.trials, hours, cpu_hours or gpu_hours")
    if not metrics_sought(search):
        raise UserError(f"{where}: costs alone are least where nothing is learnt; add a metric on validation women")
    if search.pruner != "none":
        if len(sought) > 1:
            raise UserError(f"{where}: search.pruner={search.pruner} judges one objective only; say search.pruner=none")
        looked_at = parse_metric(next(iter(sought)))
        dear = "fine-tune" if looked_at.score.startswith("finetuned") else ""
        dear = "map whole images" if looked_at.task == "detection" else dear
        if dear:
            raise UserError(
                f"{where}: search.pruner={search.pruner} would {dear} after every look; take another metric or none"
            )
    if search.sampler == "cmaes":
        _check_cmaes(search, where)


def _check_cmaes(search: SearchConfig, where: str) -> None:
    if find_spec("cmaes") is None:
        raise UserError(f"{where}: search.sampler=cmaes needs a package; pip install 'siamray[cmaes]' or take gp")
    if len(objectives(search)) > 1:
        raise UserError(f"{where}: search.sampler=cmaes takes one objective only; take nsga2, tpe or gp")
    numbers = [name for name, entry in search.parameters.items() if entry.kind != "categorical" and not entry.only_if]
    if len(numbers) < 2:
        raise UserError(f"{where}: search.sampler=cmaes needs two float or int options without only_if; take tpe or gp")


def sampler_limits(search: SearchConfig) -> str:
    """Says in one line which options the sampler draws at random, as it cannot learn them; "" where it learns all."""
    conditional = [name for name, entry in search.parameters.items() if entry.only_if]
    categorical = [name for name, entry in search.parameters.items() if entry.kind == "categorical"]
    random = {
        "nsga2": conditional,
        "nsga3": conditional,
        "gp": conditional,
        "quasi_random": conditional,
        "cmaes": list(dict.fromkeys([*categorical, *conditional])),
    }.get(search.sampler, [])
    if not random:
        return ""
    kinds = "categorical options and options with only_if" if search.sampler == "cmaes" else "options with only_if"
    return f"search.sampler={search.sampler} draws {kinds} at random: {', '.join(random)}"


def make_sampler(search: SearchConfig, seed: int, asked_before: int) -> Any:
    """Makes Optuna's sampler.

    Args:
        search: names the sampler and the population.
        seed: of the search.
        asked_before: trials of the study so far: a resumed search must not draw its first settings again.
    """
    from optuna import samplers

    fresh = named_seed(seed, "sampler", asked_before) % 2**32
    with warnings.catch_warnings():
        # Optuna calls parts of its interface experimental, which is nothing that a user of siamray could mend.
        warnings.simplefilter("ignore")
        match search.sampler:
            case "tpe":
                return samplers.TPESampler(seed=fresh)
            case "multivariate_tpe":
                return samplers.TPESampler(seed=fresh, multivariate=True, group=True)
            case "nsga2":
                return samplers.NSGAIISampler(seed=fresh, population_size=search.population)
            case "nsga3":
                return samplers.NSGAIIISampler(seed=fresh, population_size=search.population)
            case "gp":
                return samplers.GPSampler(seed=fresh, warn_independent_sampling=False)
            case "cmaes":
                return samplers.CmaEsSampler(seed=fresh, warn_independent_sampling=False)
            case "quasi_random":
                # The study counts the points of one sequence, so that its seed stays.
                return samplers.QMCSampler(
                    seed=named_seed(seed, "sequence") % 2**32,
                    scramble=True,
                    independent_sampler=samplers.RandomSampler(seed=fresh),
                    warn_independent_sampling=False,
                )
            case _:
                return samplers.RandomSampler(seed=fresh)


def goes_on(study: Any, trial: Any, search: SearchConfig) -> bool:
    """Lets Optuna's pruner judge a trial by what was reported of it last; its steps are epochs.

    Args:
        study: the study.
        trial: Optuna's trial.
        search: names the pruner and its settings.
    """
    from optuna import pruners

    reported = study.get_trials(deepcopy=False)[trial.number]
    if search.pruner == "asha":
        pruner: Any = pruners.SuccessiveHalvingPruner(
            min_resource=search.grace_epochs, reduction_factor=search.reduction
        )
    else:
        pruner = pruners.MedianPruner(n_startup_trials=search.startup_trials, n_warmup_steps=search.grace_epochs)
    return not pruner.prune(_Counted(study), reported)


class _Counted:
    """A study in which every setting counts once: without trials given up and those that drew what another did."""

    def __init__(self, study: Any) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(self, *arguments: Any, **named: Any) -> list[Any]:
        """Lists the trials that a pruner compares."""
        trials = self._study.get_trials(*arguments, **named)
        return [trial for trial in trials if not trial.user_attrs.keys() & {GIVEN_UP, SAME_AS}]


def question(config: Config, data_fingerprint: str) -> dict[str, Any]:
    """Lists what must stay the same for the trials of a study to be comparable.

    Args:
        config: of the search, nothing drawn yet.
        data_fingerprint: of the store.

    Returns:
        Name -> value: objectives, the place of every searched option, and every other option that changes numbers.
    """
    search = config.search
    assert search is not None
    fixed = trial_identity(config, data_fingerprint)
    asked = {
        "objectives": objectives(search),
        **{f"parameters.{name}": asdict(parameter) for name, parameter in search.parameters.items()},
        **{name: value for name, value in fixed.items() if name not in search.parameters},
    }
    return dict(json.loads(json.dumps(asked, default=str)))


def open_study(folder: Path, search: SearchConfig, seed: int, asked: Mapping[str, Any]) -> Any:
    """Opens the study of a search, or makes it; what a killed driver left running is told as failed and asked again.

    Args:
        folder: of the experiment, held by this driver alone.
        search: its configuration.
        seed: of the search.
        asked: see `question`.

    Returns:
        An optuna.Study in journal storage.

    Raises:
        UserError: the folder holds the study of another question.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder / STUDY_FILE
    _mend(path)
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(
        storage=storage,
        study_name=search.name,
        directions=[StudyDirection[direction.upper()] for direction in objectives(search).values()],
        load_if_exists=True,
    )
    stored = study.user_attrs.get(_QUESTION)
    if stored is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(_QUESTION, dict(asked))
    else:
        _check_same_question(folder, stored or {}, asked)
    _give_up(study)
    study.sampler = make_sampler(search, seed, len(study.get_trials(deepcopy=False)))
    return study


def _mend(path: Path) -> None:
    """Takes away what a driver killed while writing left: its lock, and the beginning of a line."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("rb+") as journal:
            journal.truncate(whole)


def _check_same_question(folder: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    differing = [name for name in dict.fromkeys([*stored, *asked]) if stored.get(name) != asked.get(name)]
    if not stored or differing:
        shown = ", ".join(f"{name} was {stored.get(name)}, is {asked.get(name)}" for name in differing[:2])
        raise UserError(
            f"{folder} holds a search of another space, objective or configuration ({shown if stored else 'unknown'}); "
            "name another results=DIR"
        )


def _give_up(study: Any) -> None:
    import optuna

    states = optuna.trial.TrialState
    waiting = [
        trial.system_attrs.get("fixed_params") for trial in study.get_trials(deepcopy=False, states=(states.WAITING,))
    ]
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        # Asked again before it is given up: killed in between, a setting is asked twice and run once.
        setting = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if setting and setting not in waiting:
            study.enqueue_trial(setting)
        handle = optuna.trial.Trial(study, trial._trial_id)
        handle.set_user_attr(GIVEN_UP, True)
        handle.set_user_attr(REASON, "its driver was killed; the setting was asked again")
        study.tell(trial.number, state=states.FAIL)


def own_trials(study: Any) -> list[Any]:
    """Lists the ended trials that were run for the study, every setting once: what its budget of trials counts."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and not trial.user_attrs.keys() & {SAME_AS, GIVEN_UP, SOURCE}
    ]


def tell(study: Any, trial: Any, record: Mapping[str, Any], sought: Mapping[str, str]) -> str:
    """Tells Optuna the truth of an ended trial.

    Args:
        study: the study.
        trial: Optuna's trial, its intermediate values reported.
        record: of siamray's trial, see results.read_trial.
        sought: from `objectives`.

    Returns:
        complete, pruned or failed: a finished trial without a number for an objective is failed.
    """
    from optuna.trial import TrialState

    if record["state"] == "pruned":
        trial.set_user_attr(REASON, record["reason"])
        study.tell(trial, state=TrialState.PRUNED)
        return "pruned"
    reason = record["reason"]
    if record["state"] == "finished":
        values = [value_of(record, name) for name in sought]
        if all(map(math.isfinite, values)):
            study.tell(trial, values)
            return "complete"
        missing = next(name for name, value in zip(sought, values, strict=True) if not math.isfinite(value))
        reason = f"{missing} is not a number"
    trial.set_user_attr(REASON, reason or "failed")
    study.tell(trial, state=TrialState.FAIL)
    return "failed"


def tell_alike(study: Any, trial: Any, first: Any) -> None:
    """Tells Optuna of a trial that drew the setting of an earlier one what became of that one.

    Args:
        study: the study.
        trial: Optuna's trial.
        first: the frozen trial that was run.
    """
    from optuna.trial import TrialState

    trial.set_user_attr(SAME_AS, first.number)
    if first.state == TrialState.COMPLETE:
        study.tell(trial, list(first.values))
        return
    if first.state == TrialState.PRUNED and first.last_step is not None:
        trial.report(first.intermediate_values[first.last_step], first.last_step)
    study.tell(trial, state=first.state)


def value_of(record: Mapping[str, Any], name: str) -> float:
    """Reads an objective from a trial's record; NaN where it has none."""
    if name in COST_COLUMNS:
        return float(record["cost"].get(name, math.nan))
    metric = record["metrics"].get(name, math.nan)
    return float(metric["value"] if isinstance(metric, Mapping) else metric)


def dominated(values: Sequence[Sequence[float]], directions: Sequence[str]) -> list[bool]:
    """Says of every point whether another is at least as good in all objectives and better in one.

    Args:
        values: [points, objectives].
        directions: maximize or minimize, of every objective.
    """
    if not len(values):
        return []
    signs = np.array([1.0 if direction == "maximize" else -1.0 for direction in directions])
    points = np.asarray(values, dtype=np.float64) * signs
    return [bool(((points >= point).all(axis=1) & (points > point).any(axis=1)).any()) for point in points]


def compromise(values: Sequence[Sequence[float]], directions: Sequence[str]) -> int:
    """Chooses one point of a Pareto front: the nearest to the ideal point.

    The ideal point has the best value of every objective on the front; each objective is scaled to 0..1 over the front
    and distances are Euclidean (compromise programming; Yu 1973, Zeleny 1973). With one objective it is the best point.
    On a tie the one better in the first objective is taken, then the first.

    Args:
        values: [points, objectives], at least one point.
        directions: maximize or minimize, of every objective.

    Returns:
        Position of the point.
    """
    signs = np.array([1.0 if direction == "maximize" else -1.0 for direction in directions])
    points = np.asarray(values, dtype=np.float64) * signs
    best, worst = points.max(axis=0), points.min(axis=0)
    span = np.where(best > worst, best - worst, 1.0)
    distances = np.sqrt((((best - points) / span) ** 2).sum(axis=1))
    # Rounded, so that points equally near are a tie whatever the order of the sums.
    return min(range(len(points)), key=lambda i: (round(float(distances[i]), 12), -points[i, 0], i))


@dataclass(frozen=True)
class Lent:
    """What a warm start found: trials taken, and how many were left for which reason."""

    taken: int
    known: int
    left: Counter[str]

    def __str__(self) -> str:
        """Says it in one line."""
        left = "; ".join(f"{count} left: {reason}" for reason, count in self.left.most_common())
        again = f" ({self.known} of them taken before)" if self.known else ""
        return f"warm start: {self.taken} finished trials taken{again}" + (f"; {left}" if left else "")


def warm_start(study: Any, config: Config, data_fingerprint: str) -> Lent:
    """Adds the finished trials of another experiment to a study, where they answer its question.

    A trial is taken if its data, women, evaluation and every option that is not searched are those of the search, and
    the searched ones lie in the space; options that cannot matter there (only_if) may differ, and so may its seed,
    which `confirm` then avoids, and the arithmetic where the search leaves it to be measured. Where a cost is an
    objective, its trial must have reserved as many processors and GPUs.

    Args:
        study: where they are added; once, however often it is called.
        config: of the search; search.warm_start names the experiment's folder.
        data_fingerprint: of the search's store.

    Raises:
        UserError: no experiment there.
    """
    from optuna.trial import create_trial

    search = config.search
    assert search is not None
    assert search.warm_start is not None
    place = location(search.warm_start)
    # What it lent is known again wherever the command is given.
    place = place.expanduser().resolve() if isinstance(place, Path) else place
    folder = results.fetched(place)
    results.read_experiment(folder)
    wanted = trial_identity(config, data_fingerprint)
    before = {trial.user_attrs.get(SOURCE) for trial in study.get_trials(deepcopy=False)}
    taken, known, left = 0, 0, Counter[str]()
    for trial_id, record in results.finished_trials(folder).items():
        source = f"{place}/{trial_id}"
        found = _lent(record, wanted, search, {"cpus": config.cluster.cpus, "gpus": config.cluster.gpus})
        if isinstance(found, str):
            left[found] += 1
            continue
        taken += 1
        if source in before:
            known += 1
            continue
        setting, values = found
        places = distributions(setting, search.parameters)
        attributes = {SOURCE: source, SEED: record["seed"]}
        study.add_trial(create_trial(params=setting, distributions=places, values=values, user_attrs=attributes))
    return Lent(taken, known, left)


def _lent(
    record: Mapping[str, Any], wanted: Mapping[str, Any], search: SearchConfig, asked: Mapping[str, float]
) -> tuple[dict[str, Any], list[float]] | str:
    """Setting and values of another experiment's trial, or why it is no trial of this search."""
    try:
        config = from_dict(record["config"])
    except UserError:
        return "their configuration is of another version"
    if record["data_fingerprint"] != wanted["data_fingerprint"]:
        return "other data"
    has = trial_identity(config, record["data_fingerprint"])
    if has["downstream"] != wanted["downstream"]:
        return "another evaluation"
    free = {"seed", *search.parameters}
    if wanted["pretraining.precision"] == "auto":
        free.add("pretraining.precision")
    differing = [name for name in wanted if name not in free and has.get(name) != wanted[name]]
    if differing:
        return f"another {differing[0]}"
    if set(objectives(search)) & set(COST_COLUMNS) and any(
        getattr(config.cluster, name) != asked[name] for name in asked
    ):
        return "other processors, so another cost"
    setting = located(to_dict(config), search.parameters)
    if setting is None:
        return "outside of the space"
    values = [value_of(record, name) for name in objectives(search)]
    if not all(map(math.isfinite, values)):
        return "an objective is missing"
    return setting, values


def seeds_seen(study: Any, seed: int) -> set[int]:
    """Lists the seeds that any trial of the study was trained with."""
    attributes = [trial.user_attrs for trial in study.get_trials(deepcopy=False)]
    return {seed} | {int(known[SEED]) for known in attributes if SEED in known}


def complete(study: Any) -> list[Any]:
    """Lists the complete trials, every one once, lent ones too."""
    from optuna.trial import TrialState

    trials: Iterable[Any] = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if SAME_AS not in trial.user_attrs]
