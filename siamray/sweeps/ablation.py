"""The question of an ablation goes in, the list of its comparable trials comes out."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from siamray.compose import compose_variant, to_dict
from siamray.config import AblationConfig, Config
from siamray.errors import UserError, nearest
from siamray.pretraining.checkpoint import identity_hash, training_identity


@dataclass(frozen=True)
class Trial:
    """One training with its evaluation: the unit of a sweep."""

    trial_id: str
    variant: str
    role: str
    """variant or control"""
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
    values = to_dict(config)
    return {**training_identity(values, data_fingerprint), "downstream": values["downstream"]}


def make_trial(variant: str, role: str, config: Config, data_fingerprint: str) -> Trial:
    """Names one trial: readable, and different for whatever would give other numbers."""
    config = dataclasses.replace(config, ablation=None, search=None)
    code = identity_hash(trial_identity(config, data_fingerprint))[:8]
    name = f"{variant}-seed{config.seed}-fold{config.data.fold}-{code}"
    return Trial(name, variant, role, config.seed, config.data.fold, config)


def design(config: Config, words: list[str], settle: Callable[[Config], tuple[Config, str]]) -> list[Trial]:
    """Lists the trials of an ablation: every variant and control, with every seed, on every fold.

    Args:
        config: of the sweep, with its ablation.
        words: the sweep's command line.
        settle: gives a variant's configuration with nothing left to be measured, and the fingerprint of its store
            (variants may prepare differently).

    Returns:
        The trials, seed by seed, so that a sweep stopped early has whole seeds.

    Raises:
        UserError: no variants, an unknown reference, a wrong override, variants that do not differ.
    """
    ablation = config.ablation
    assert ablation is not None
    _check(ablation)
    configs = {
        (name, role): compose_variant("sweep", shared_words(config, words), overrides)
        for role, group in (("variant", ablation.variants), ("control", ablation.controls))
        for name, overrides in group.items()
    }
    settled = {key: settle(chosen) for key, chosen in configs.items()}
    folds = ablation.folds or [config.data.fold]
    outside = [fold for fold in folds if not 0 <= fold < config.data.folds]
    if outside:
        raise UserError(f"ablation.folds: {outside[0]} is none of the folds 0 to {config.data.folds - 1} (data.folds)")
    trials = [
        make_trial(
            name,
            role,
            dataclasses.replace(chosen, seed=seed, data=dataclasses.replace(chosen.data, fold=fold)),
            fingerprint,
        )
        for seed in range(config.seed, config.seed + config.seeds)
        for fold in folds
        for (name, role), (chosen, fingerprint) in settled.items()
    ]
    _check_difference(trials)
    return trials


def _check(ablation: AblationConfig) -> None:
    if not ablation.variants:
        raise UserError(f"ablation={ablation.name}: has no variants")
    if ablation.reference not in ablation.variants:
        known = nearest(ablation.reference, list(ablation.variants))
        raise UserError(f"ablation.reference={ablation.reference}: no such variant{known}")
    for name in (*ablation.variants, *ablation.controls):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name):
            raise UserError(f"ablation={ablation.name}: '{name}' names folders, so letters, digits and _.+- only")
    both = set(ablation.variants) & set(ablation.controls)
    if both:
        raise UserError(f"ablation={ablation.name}: '{min(both)}' is a variant and a control; rename one")


def _check_difference(trials: list[Trial]) -> None:
    """Refuses variants that would give the same numbers: their comparison would be of a thing with itself."""
    first = trials[0]
    seen: dict[str, str] = {}
    for trial in trials:
        if (trial.seed, trial.fold) != (first.seed, first.fold):
            continue
        code = trial.trial_id.rsplit("-", 1)[-1]
        if code in seen:
            raise UserError(f"variants '{seen[code]}' and '{trial.variant}' do not differ in any option; remove one")
        seen[code] = trial.variant
