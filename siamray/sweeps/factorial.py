"""Settings of variants and their outcomes go in; main effects and two-way interactions of the factors come out."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from siamray.config import IntervalsConfig
from siamray.errors import UserError
from siamray.sweeps.comparison import Trial
from siamray.sweeps.contract import EFFECT_COLUMNS
from siamray.sweeps.estimates import Outcome, counts, estimate, holm, weighted_sum

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Term:
    """A main effect (one factor) or an interaction (two), with its contrasts on the columns of the design."""

    factors: tuple[str, ...]
    columns: Floats
    contrasts: dict[str, Floats]


def factorial_effects(
    settings: Mapping[str, Mapping[str, str]],
    outcomes: Mapping[Trial, Outcome],
    config: IntervalsConfig,
    *,
    interactions: bool = True,
) -> pd.DataFrame:
    """Estimates what each factor of a factorial design does, and what two of them do together.

    Factors are effect coded (levels sum to 0), so that a main effect is the difference of two levels averaged over the
    levels of all other factors, each alike, and not one at some reference level of theirs. An interaction is a
    difference of differences: by how much a change of one factor's level changes what a change of the other's does.
    With least squares every such effect is a weighted sum of the variants' values (Montgomery 2017, chapters 5 and 6);
    interactions of three and more factors are taken for 0, which in a full design changes nothing.

    The sum is taken in every block (seed, fold) and in every replicate of the bootstrap over women, so that its error
    is that of `estimate`: paired over women and seeds, with the variance between seeds. Holm corrects the main effects
    as one family and the interactions as another.

    Args:
        settings: variant -> factor -> level; the first level met is the one that others are compared with.
        outcomes: (variant, seed, fold) -> outcome, all with the same draw of women (`comparison.measured`).
        config: confidence; 1 - confidence is the level of ``detectable``.
        interactions: whether two-way interactions are estimated; they need their own variants.

    Returns:
        EFFECT_COLUMNS, main effects first. p is NaN with one seed.

    Raises:
        UserError: factors or levels are lacking, a variant has no trial, no block has all variants, or the variants do
            not tell the effects apart.
    """
    levels = _levels(settings)
    terms = _terms(settings, levels, interactions)
    design = np.hstack([np.ones((len(settings), 1)), *(term.columns for term in terms)])
    _check_rank(design, terms, levels, settings)
    solved = np.linalg.pinv(design)
    blocks = _blocks(list(settings), outcomes)
    rows = []
    place = 1
    for term in terms:
        own = solved[place : place + term.columns.shape[1]]
        place += term.columns.shape[1]
        for words, contrast in term.contrasts.items():
            weights = contrast @ own
            found = estimate({block: weighted_sum(each, weights.tolist()) for block, each in blocks.items()})
            counted = counts({block: each[0] for block, each in blocks.items()})
            low, high = found.interval(config.confidence)
            rows.append(
                {
                    "kind": "main" if len(term.factors) == 1 else "interaction",
                    "term": " x ".join(term.factors),
                    "contrast": words,
                    "effect": found.mean,
                    "effect_low": low,
                    "effect_high": high,
                    "p": found.p_value() if counted["seeds"] > 1 else float("nan"),
                    "effect_size": found.effect_size(),
                    "estimate": found,
                    **counted,
                    "note": _note(counted["seeds"], len(blocks), outcomes, settings),
                }
            )
    return _judged(pd.DataFrame(rows), 1 - config.confidence)[EFFECT_COLUMNS]


def effects_or_reasons(
    settings: Mapping[str, Mapping[str, str]],
    outcomes: Callable[[], Mapping[Trial, Outcome]],
    config: IntervalsConfig,
) -> pd.DataFrame:
    """Estimates as much as the trials tell, and says why where they do not.

    Args:
        settings: as in `factorial_effects`.
        outcomes: measures the trials; may raise UserError.
        config: as in `factorial_effects`.

    Returns:
        EFFECT_COLUMNS. Where interactions are not told, or not even main effects, a row of that kind without numbers
        holds the reason in its note.
    """
    reasons: dict[str, str] = {}
    try:
        known = outcomes()
        for interactions, kind in ((True, "interaction"), (False, "main")):
            try:
                found = factorial_effects(settings, known, config, interactions=interactions)
            except UserError as error:
                reasons[kind] = str(error)
            else:
                break
    except UserError as error:
        reasons["main"] = str(error)
    rows = [] if "main" in reasons else found.to_dict("records")
    # Without main effects there is nothing that could interact.
    kind = "main" if "main" in reasons else "interaction"
    rows += [{"kind": kind, "term": "", "contrast": "", "note": reasons[kind]}] if reasons else []
    return pd.DataFrame(rows, columns=EFFECT_COLUMNS)


def _levels(settings: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Factor -> its levels in the order met.

    Raises:
        UserError: variants have other factors than the first, or a factor has one level only.
    """
    if not settings:
        raise UserError("a factorial design needs variants with their settings")
    first = next(iter(settings))
    factors = list(settings[first])
    for variant, setting in settings.items():
        if set(setting) != set(factors):
            odd = min(set(setting) ^ set(factors))
            raise UserError(
                f"factor '{odd}' is set in '{variant}' or '{first}' alone; every variant needs every factor"
            )
    levels = {factor: list(dict.fromkeys(setting[factor] for setting in settings.values())) for factor in factors}
    constant = [factor for factor, known in levels.items() if len(known) < 2]
    if constant:
        raise UserError(f"factor '{constant[0]}' has one level only, so that it has no effect; vary it or leave it out")
    return levels


def _terms(
    settings: Mapping[str, Mapping[str, str]], levels: Mapping[str, Sequence[str]], interactions: bool
) -> list[_Term]:
    coded = {factor: _effect_coding(known) for factor, known in levels.items()}
    columns = {factor: np.array([coded[factor][setting[factor]] for setting in settings.values()]) for factor in levels}
    changes = {
        factor: {f"{level} - {known[0]}": coded[factor][level] - coded[factor][known[0]] for level in known[1:]}
        for factor, known in levels.items()
    }
    terms = [_Term((factor,), columns[factor], changes[factor]) for factor in levels]
    if not interactions:
        return terms
    for a, b in itertools.combinations(levels, 2):
        products = np.einsum("vi,vj->vij", columns[a], columns[b]).reshape(len(settings), -1)
        contrasts = {
            f"({of_a}) x ({of_b})": np.outer(change_a, change_b).ravel()
            for (of_a, change_a), (of_b, change_b) in itertools.product(changes[a].items(), changes[b].items())
        }
        terms.append(_Term((a, b), products, contrasts))
    return terms


def _effect_coding(levels: Sequence[str]) -> dict[str, Floats]:
    """Level -> its row: a column for each level but the last, which has -1 in all of them."""
    rows = np.vstack([np.eye(len(levels) - 1), -np.ones(len(levels) - 1)])
    return dict(zip(levels, rows, strict=True))


def _check_rank(
    design: Floats,
    terms: Sequence[_Term],
    levels: Mapping[str, Sequence[str]],
    settings: Mapping[str, Mapping[str, str]],
) -> None:
    """Refuses a design in which effects are aliased.

    Raises:
        UserError: naming the first term that those before it, and the mean, already tell, and combinations not run.
    """
    if np.linalg.matrix_rank(design) == design.shape[1]:
        return
    place = 1
    for term in terms:
        place += term.columns.shape[1]
        if np.linalg.matrix_rank(design[:, :place]) < place:
            break
    run = {tuple(setting[factor] for factor in levels) for setting in settings.values()}
    lacking = [combination for combination in itertools.product(*levels.values()) if combination not in run]
    named = "; ".join(", ".join(f"{f}={v}" for f, v in zip(levels, one, strict=True)) for one in lacking[:3])
    raise UserError(
        f"the variants do not tell {' x '.join(term.factors)} from the other effects; "
        f"{len(lacking)} combinations were not run, such as {named}: run them, or ask for main effects alone"
    )


def _blocks(variants: Sequence[str], outcomes: Mapping[Trial, Outcome]) -> dict[tuple[int, int], list[Outcome]]:
    """Block -> the outcomes of all variants in their order, of the blocks that all of them have.

    Raises:
        UserError: a variant has no trial, or they have no block in common.
    """
    of_variant = {name: {trial[1:] for trial in outcomes if trial[0] == name} for name in variants}
    lacking = [name for name, blocks in of_variant.items() if not blocks]
    if lacking:
        raise UserError(f"variant '{lacking[0]}' has no finished trial, so that the design is not whole; run it again")
    common = set.intersection(*of_variant.values())
    if not common:
        raise UserError("no seed and fold was finished by all variants; the same command tries the failed trials again")
    return {(seed, fold): [outcomes[name, seed, fold] for name in variants] for seed, fold in sorted(common)}


def _note(seeds: int, blocks: int, outcomes: Mapping[Trial, Outcome], settings: Iterable[str]) -> str:
    names = set(settings)
    known = {trial[1:] for trial in outcomes if trial[0] in names}
    notes = []
    if blocks < len(known):
        notes.append(f"estimated on the {blocks} of {len(known)} (seed, fold) that all variants finished")
    if seeds == 1:
        notes.append("one seed: the interval covers other women, not other seeds")
    return "; ".join(notes)


def _judged(rows: pd.DataFrame, level: float) -> pd.DataFrame:
    """Adds what depends on the family: Holm's p, and the effect that could have been seen."""
    rows["p_holm"], rows["detectable"] = np.nan, np.nan
    for kind in ("main", "interaction"):
        family = rows.index[rows.kind.eq(kind) & rows.p.notna()]
        rows.loc[family, "p_holm"] = holm(rows.p[family])
        rows.loc[family, "detectable"] = [found.detectable(level / len(family)) for found in rows.estimate[family]]
    return rows
