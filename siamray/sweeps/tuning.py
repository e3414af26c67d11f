"""Variants go in; the setting that suits each best on validation women, found with one budget for all, comes out.

A variant that was tuned wins over one that was not, whatever it is worth. So each variant and control tries as many
settings of the same options, on every fold by itself: the validation women of one fold are test women of another. The
studies go in step, one setting of each at a time, and a setting is drawn from nothing but the seed and what the study
has seen. So all that must be remembered is on disk as trials, and a sweep given again draws what it drew before.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from siamray.compose import compose_variant, to_dict
from siamray.config import AblationConfig, Config, ParameterConfig, SearchConfig
from siamray.downstream.metrics import parse_metric
from siamray.errors import UserError
from siamray.seeds import named_seed
from siamray.sweeps import study as studies
from siamray.sweeps.ablation import Trial, blocks, make_trial, shared_words
from siamray.sweeps.contract import TUNING_COLUMNS, TUNING_SUFFIX
from siamray.sweeps.space import check_space, located, search_overrides, space_of, suggest

Chosen = dict[tuple[str, int], list[str]]
"""Variant and fold -> the words of the setting that it is compared with."""

# A space of a few settings has been tried whole when that many draws in a row gave no new one.
_DRAWS_IN_A_ROW = 50


@dataclasses.dataclass(frozen=True)
class Plan:
    """What will be tuned.

    Attributes:
        settings: that each study tries.
        metric: on validation women, which chooses.
        spaces: variant or control -> the options that may matter to it, and where they may lie.
        untuned: variant or control that is not tuned -> why.
        folds: every one has a study of each variant.
    """

    settings: int
    metric: str
    spaces: dict[str, dict[str, ParameterConfig]]
    untuned: dict[str, str]
    folds: list[int]

    @property
    def trials(self) -> int:
        """How many trials it takes at most."""
        return self.settings * len(self.spaces) * len(self.folds)

    def lines(self, ablation: AblationConfig) -> list[str]:
        """Says in words what will be tuned."""
        lines = [
            f"tuning first: {self.settings} settings for each of {len(self.spaces)} variants and controls on "
            f"{len(self.folds)} folds, {self.trials} trials at most, by {ablation.tune_sampler}, seed "
            f"{ablation.tune_seed}; the best by {self.metric} is compared"
        ]
        spaces: dict[str, list[str]] = {}
        for name, space in self.spaces.items():
            spaces.setdefault(", ".join(space), []).append(name)
        lines += [f"tuned in {options}: {', '.join(names)}" for options, names in spaces.items()]
        return [*lines, *(f"not tuned: {name}: {reason}" for name, reason in self.untuned.items())]


@dataclasses.dataclass
class _Study:
    """The settings that one variant tries on one fold."""

    variant: str
    fold: int
    space: dict[str, ParameterConfig]
    own: dict[str, Any] | None
    optuna: Any
    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def plan_tuning(config: Config, composed: Mapping[str, Config]) -> Plan | None:
    """Says what will be tuned, and makes sure that it can be.

    Args:
        config: of the sweep, with its ablation written out.
        composed: variant or control -> its configuration, see ablation.compose_variants.

    Returns:
        None where nothing is asked to be tuned.

    Raises:
        UserError: tuning without options or options without tuning, options that cannot be searched or that tell
            variants apart, a metric on test women, a seed that is compared too, a name that trials of tuning have, or
            more trials than ablation.limit.
    """
    ablation = config.ablation
    assert ablation is not None
    where = f"ablation={ablation.name}"
    if not ablation.tune:
        if ablation.tuned:
            raise UserError(f"{where}: ablation.tuned names options, and nothing is tuned; say ablation.tune=10")
        return None
    if not ablation.tuned:
        raise UserError(f"{where}: ablation.tune={ablation.tune} and no options to tune; list them under tuned")
    check_space(f"{where}, tuned", ablation.tuned, fixed=True)
    metric = ablation.tune_metric or f"validation_{ablation.metric}"
    if parse_metric(metric).split != "validation":
        raise UserError(
            f"ablation.tune_metric={metric} is of test women, who would be no test; say validation_{metric}"
        )
    seeds, folds = blocks(config)
    if ablation.tune_seed in seeds:
        raise UserError(f"ablation.tune_seed={ablation.tune_seed} is one of the seeds compared; name another")
    for name, overrides in {**ablation.variants, **ablation.controls}.items():
        if name.endswith(TUNING_SUFFIX):
            raise UserError(f"{where}: '{name}' is how trials of tuning are called; rename it")
        for word in overrides:
            if (option := word.partition("=")[0]) in ablation.tuned:
                raise UserError(f"{where}: '{name}' sets {option}, which tuning would change; take it out of tuned")
    spaces, untuned = {}, {}
    for name, chosen in composed.items():
        space = space_of(to_dict(chosen), ablation.tuned)
        if chosen.pretraining.epochs == 0:
            untuned[name] = "it trains nothing"
        elif not space:
            untuned[name] = "none of the tuned options matters to it"
        else:
            spaces[name] = space
    plan = Plan(ablation.tune, metric, spaces, untuned, folds)
    compared = len(composed) * len(seeds) * len(folds)
    if plan.trials + compared > ablation.limit:
        raise UserError(
            f"{where}: {plan.trials:,} trials that tune and {compared:,} that are compared are more than "
            f"ablation.limit={ablation.limit}; tune less, or raise the limit"
        )
    return plan


def tune(
    config: Config,
    words: list[str],
    plan: Plan,
    composed: Mapping[str, Config],
    settle: Callable[[Config], tuple[Config, str]],
    run: Callable[[list[Trial], list[str]], Mapping[str, Mapping[str, Any]]],
) -> tuple[Chosen, pd.DataFrame]:
    """Tunes every variant and control on every fold.

    Args:
        config: of the sweep, with its ablation written out.
        words: the sweep's command line.
        plan: see plan_tuning.
        composed: variant or control -> its configuration without tuning.
        settle: gives a configuration with nothing left to be measured, and the fingerprint of its store.
        run: given the trials of a round, and the ids of all trials so far, brings those to their end that have none,
            and returns trial_id -> record (see results.read_trial).

    Returns:
        What is chosen, and TUNING_COLUMNS: a row per setting.

    Raises:
        UserError: none of the settings of a variant could be trained.
    """
    ablation = config.ablation
    assert ablation is not None
    overrides = {**ablation.variants, **ablation.controls}
    all_studies = [
        _open(name, fold, space, composed[name]) for fold in plan.folds for name, space in plan.spaces.items()
    ]
    known: list[str] = []
    for number in range(plan.settings):
        asked: list[tuple[_Study, Any, dict[str, Any], Trial | str]] = []
        for study in all_studies:
            drawn = _ask(study, ablation, number)
            if drawn is None:
                continue
            handle, setting = drawn
            asked.append((study, handle, setting, _trial(config, words, study, overrides, setting, settle)))
        trials = [trial for _, _, _, trial in asked if isinstance(trial, Trial)]
        known += [trial.trial_id for trial in trials]
        records = run(trials, known) if trials else {}
        for study, handle, setting, trial in asked:
            if isinstance(trial, str):
                trial_id, ended = "", {"state": "failed", "reason": trial}
            else:
                trial_id, ended = trial.trial_id, dict(records[trial.trial_id])
            _tell(study, handle, number, trial_id, setting, ended, (plan.metric, ablation.metric))
    for study in all_studies:
        _choose(study, ablation)
    table = pd.DataFrame([row for study in all_studies for row in study.rows], columns=list(TUNING_COLUMNS))
    chosen = {(study.variant, study.fold): search_overrides(study.best) for study in all_studies}
    return chosen, table.astype(TUNING_COLUMNS)


def tuned_variants(config: Config, words: list[str], chosen: Chosen) -> dict[tuple[str, int], Config]:
    """Composes each variant with what was chosen for it.

    Args:
        config: of the sweep, with its ablation written out.
        words: the sweep's command line.
        chosen: see tune.

    Returns:
        Variant and fold -> configuration of the sweep's own seed and fold, of those that were tuned.
    """
    assert config.ablation is not None
    overrides = {**config.ablation.variants, **config.ablation.controls}
    shared = shared_words(config, words)
    return {
        (name, fold): compose_variant("sweep", shared, [*overrides[name], *setting])
        for (name, fold), setting in chosen.items()
    }


def record(ablation: AblationConfig, plan: Plan, chosen: Chosen) -> dict[str, Any]:
    """What experiment.json holds of it: TUNING_KEYS.

    Args:
        ablation: written out.
        plan: see plan_tuning.
        chosen: see tune; empty while it goes on.
    """
    by_variant: dict[str, dict[str, list[str]]] = {}
    for (name, fold), words in chosen.items():
        by_variant.setdefault(name, {})[str(fold)] = words
    return {
        "settings": plan.settings,
        "metric": plan.metric,
        "sampler": ablation.tune_sampler,
        "seed": ablation.tune_seed,
        "parameters": {name: dataclasses.asdict(place) for name, place in ablation.tuned.items()},
        "chosen": by_variant,
        "untuned": plan.untuned,
    }


def _open(name: str, fold: int, space: dict[str, ParameterConfig], config: Config) -> _Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    own = located(to_dict(config), space)
    study = optuna.create_study(direction="maximize")
    if own is not None:
        study.enqueue_trial(own)
    return _Study(name, fold, space, own, study)


def _ask(study: _Study, ablation: AblationConfig, number: int) -> tuple[Any, dict[str, Any]] | None:
    """Draws a setting that the study has not tried; None where it has tried them all."""
    search = SearchConfig(name=ablation.name, question="", sampler=ablation.tune_sampler, parameters=study.space)
    tried = [trial for trial in study.optuna.get_trials(deepcopy=False) if trial.state.is_finished()]
    for draw in range(_DRAWS_IN_A_ROW):
        # Neither variant nor what was drawn in vain before is in the seed: variants with the same options then begin
        # with the same settings, and differ by their own worth alone.
        seed = named_seed(ablation.tune_seed, "tuning", study.fold, draw)
        study.optuna.sampler = studies.make_sampler(search, seed, number)
        handle = study.optuna.ask()
        setting = suggest(handle, study.space)
        same = next((trial for trial in tried if trial.params == setting), None)
        if same is None:
            return handle, setting
        studies.tell_alike(study.optuna, handle, same)
    return None


def _trial(
    config: Config,
    words: list[str],
    study: _Study,
    overrides: Mapping[str, list[str]],
    setting: dict[str, Any],
    settle: Callable[[Config], tuple[Config, str]],
) -> Trial | str:
    """Makes the trial of a setting, or says why its options make it impossible."""
    assert config.ablation is not None
    chosen = [*overrides[study.variant], *search_overrides(setting)]
    try:
        made = compose_variant("sweep", shared_words(config, words), chosen)
        data = dataclasses.replace(made.data, fold=study.fold)
        settled, fingerprint = settle(dataclasses.replace(made, seed=config.ablation.tune_seed, data=data))
    except UserError as error:
        return " ".join(str(error).split())
    return make_trial(f"{study.variant}{TUNING_SUFFIX}", "tuning", settled, fingerprint)


def _tell(
    study: _Study,
    handle: Any,
    number: int,
    trial_id: str,
    setting: dict[str, Any],
    ended: Mapping[str, Any],
    metrics: tuple[str, str],
) -> None:
    """Tells Optuna how a setting ended, and notes it."""
    state = studies.tell(study.optuna, handle, ended, {metrics[0]: "maximize"})
    value, test = (studies.value_of(ended, metric) if state == "complete" else math.nan for metric in metrics)
    study.rows.append(
        {
            "variant": study.variant,
            "fold": study.fold,
            "number": number,
            "trial_id": trial_id,
            "state": "finished" if state == "complete" else "failed",
            "settings": " ".join(search_overrides(setting)),
            "own": setting == study.own,
            "chosen": False,
            "value": value,
            "test": test,
            "reason": ended["reason"] or ("" if state == "complete" else f"{metrics[0]} is not a number"),
        }
    )


def _choose(study: _Study, ablation: AblationConfig) -> None:
    """Marks the best setting, of equal ones the first."""
    complete = study.optuna.get_trials(deepcopy=False, states=(_state("COMPLETE"),))
    if not complete:
        raise UserError(
            f"ablation={ablation.name}: none of the {len(study.rows)} settings of '{study.variant}' on fold "
            f"{study.fold} was trained to its end; the first: {study.rows[0]['reason']}"
        )
    best = max(complete, key=lambda trial: (trial.value, -trial.number))
    study.best = best.params
    words = " ".join(search_overrides(best.params))
    next(row for row in study.rows if row["settings"] == words)["chosen"] = True


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]
