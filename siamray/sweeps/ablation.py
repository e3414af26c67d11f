"""The question of an ablation goes in, the list of its comparable trials comes out."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from siamray.compose import compose_variant, option_value, options, to_dict
from siamray.config import AblationConfig, Config
from siamray.errors import UserError
from siamray.pretraining.checkpoint import identity_hash, training_identity


@dataclass(frozen=True)
class Trial:
    """One training with its evaluation: the unit of a sweep."""

    trial_id: str
    variant: str
    role: str
    """variant, control, or tuning: chooses a setting for one of them, and is not compared"""
    seed: int
    fold: int
    config: Config


def base_words(words: list[str]) -> list[str]:
    """The words of a sweep's command line that every variant shares: all but the ablation and the search themselves."""
    return [word for word in words if word.partition("=")[0].split(".")[0] not in ("ablation", "search")]


def shared_words(config: Config, words: list[str]) -> list[str]:
    """What all variants start from: the ablation's own base, then the base words of the command line, which win."""
    return [*(config.ablation.base if config.ablation is not None else []), *base_words(words)]


def trial_identity(config: Config, data_fingerprint: str) -> dict[str, Any]:
    """Picks what decides a trial's numbers: its training, and how it is evaluated."""
    return recorded_identity(to_dict(config), data_fingerprint)


def recorded_identity(values: Mapping[str, Any], data_fingerprint: str) -> dict[str, Any]:
    """As trial_identity, of a configuration taken apart, as trial.json holds it."""
    downstream = dict(values["downstream"])
    # Asked of the comparison and of the pictures alone: with others no trial has other numbers.
    intervals = {name: value for name, value in downstream["intervals"].items() if name != "equivalence_margin"}
    downstream.pop("example_epochs", None)
    values = {**values, "downstream": {**downstream, "intervals": intervals}}
    return {**training_identity(values, data_fingerprint), "downstream": values["downstream"]}


def make_trial(variant: str, role: str, config: Config, data_fingerprint: str) -> Trial:
    """Names one trial: readable, and different for whatever would give other numbers."""
    config = dataclasses.replace(config, ablation=None, search=None)
    code = identity_hash(trial_identity(config, data_fingerprint))[:8]
    name = f"{variant}-seed{config.seed}-fold{config.data.fold}-{code}"
    return Trial(name, variant, role, config.seed, config.data.fold, config)


def code_of(trial_id: str) -> str:
    """The end of a trial's name, which is the same for all trials with the same numbers."""
    return trial_id.rsplit("-", 1)[-1]


def compose_variants(config: Config, words: list[str]) -> dict[str, Config]:
    """Composes the configurations of an ablation; prepares and writes nothing.

    Args:
        config: of the sweep, with its ablation written out (see make_design).
        words: the sweep's command line.

    Returns:
        Variant or control -> its configuration, of the first seed and fold.

    Raises:
        UserError: a wrong override, one that changes nothing, variants that do not differ, seeds or folds twice or
            outside of what there is.
    """
    ablation = config.ablation
    assert ablation is not None
    seeds, folds = blocks(config)
    shared = shared_words(config, words)
    composed = {}
    for name, overrides in _all(ablation).items():
        chosen = compose_variant("sweep", shared, overrides)
        data = dataclasses.replace(chosen.data, fold=folds[0])
        composed[name] = dataclasses.replace(chosen, seed=seeds[0], data=data)
    _check_difference({name: identity_hash(trial_identity(chosen, "")) for name, chosen in composed.items()})
    _check_overrides(config, words, composed)
    return composed


def list_trials(
    config: Config,
    composed: Mapping[str, Config],
    settle: Callable[[Config], tuple[Config, str]],
    tuned: Mapping[tuple[str, int], Config] | None = None,
) -> list[Trial]:
    """Lists the trials of an ablation: every variant and control, with every seed, on every fold.

    Args:
        config: of the sweep, with its ablation written out.
        composed: what compose_variants returned.
        settle: gives a variant's configuration with nothing left to be measured, and the fingerprint of its store
            (variants may prepare differently).
        tuned: variant and fold -> configuration, for those that were tuned.

    Returns:
        The trials, seed by seed, so that a sweep stopped early has whole seeds.

    Raises:
        UserError: variants that do not differ once they are settled.
    """
    ablation = config.ablation
    assert ablation is not None
    seeds, folds = blocks(config)
    settled = {
        fold: {name: settle((tuned or {}).get((name, fold), chosen)) for name, chosen in composed.items()}
        for fold in folds
    }
    trials = [
        make_trial(
            name,
            "control" if name in ablation.controls else "variant",
            dataclasses.replace(chosen, seed=seed, data=dataclasses.replace(chosen.data, fold=fold)),
            fingerprint,
        )
        for seed in seeds
        for fold in folds
        for name, (chosen, fingerprint) in settled[fold].items()
    ]
    _check_difference({trial.variant: code_of(trial.trial_id) for trial in trials[: len(composed)]})
    return trials


def _all(ablation: AblationConfig) -> dict[str, list[str]]:
    """Variant or control -> its overrides."""
    return {**ablation.variants, **ablation.controls}


def blocks(config: Config) -> tuple[list[int], list[int]]:
    """Lists the seeds and folds of every variant.

    Args:
        config: of the sweep.

    Raises:
        UserError: one is there twice, or there is no such fold.
    """
    ablation = config.ablation
    assert ablation is not None
    seeds = ablation.seeds or list(range(config.seed, config.seed + config.seeds))
    folds = ablation.folds or [config.data.fold]
    for option, values in (("seeds", seeds), ("folds", folds)):
        twice = [value for value, number in Counter(values).items() if number > 1]
        if twice:
            raise UserError(f"ablation.{option}: {twice[0]} is there twice; remove one")
    outside = [fold for fold in folds if not 0 <= fold < config.data.folds]
    if outside:
        raise UserError(f"ablation.folds: {outside[0]} is none of the folds 0 to {config.data.folds - 1} (data.folds)")
    return seeds, folds


def _check_difference(codes: Mapping[str, str]) -> None:
    """Refuses variants that would give the same numbers: their comparison would be of a thing with itself."""
    seen: dict[str, str] = {}
    for name, code in codes.items():
        if code in seen:
            raise UserError(f"variants '{seen[code]}' and '{name}' do not differ in any option; remove one")
        seen[code] = name


def _check_overrides(config: Config, words: list[str], composed: Mapping[str, Config]) -> None:
    """Refuses an override of a variant that is as the ablation's base has it, and that no other variant changes.

    Such a word says that the variant differs in an option in which it does not. The command line is left out of
    the base here: what it sets may be what a variant asks for anyway.
    """
    ablation = config.ablation
    assert ablation is not None
    own_folder = [word for word in words if word.partition("=")[0] == "experiments"]
    base = compose_variant("sweep", own_folder, ablation.base)
    known = {name for name, _, _ in options()}
    for name, overrides in _all(ablation).items():
        for word in overrides:
            option = word.partition("=")[0]
            # A group sets many options, of which some may differ.
            if option in known and all(
                option_value(chosen, option) == option_value(base, option) for chosen in composed.values()
            ):
                raise UserError(
                    f"ablation={ablation.name}: '{word}' of '{name}' changes nothing, as {option} is that in the base "
                    "and in every variant; remove it"
                )
