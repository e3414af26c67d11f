"""An ablation's design goes in (factors, components, a list); its variants, with their settings, come out by name."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from siamray.config import AblationConfig, Config
from siamray.errors import UserError, nearest
from siamray.sweeps.fractions import Effect, Fraction, best_fraction

Levels = dict[str, str]
"""Factor -> its level: a combination, or the part of one that a rule names."""

_WHOLE, _BARE = "whole", "bare"
# What each kind of design is made from; other fields would go unused.
_MADE_FROM: dict[str, tuple[str, ...]] = {
    "list": (),
    "one_factor": ("factors", "options"),
    "leave_one_out": ("components",),
    "add_one_in": ("components",),
    "factorial": ("factors", "options", "only_if", "skip", "fraction"),
}
# Levels that say nothing without the name of their factor.
_BARE_WORDS = {"on", "off", "yes", "no", "true", "false", "none", "null"}
# A trial's folder is named for its variant, with seed, fold and code behind it; file systems allow 255 bytes.
_LONGEST_NAME = 200
# Combinations of the factors that rules name, up to which they are counted one by one.
_COUNTED = 100_000
_SHOWN = 12


@dataclass(frozen=True)
class Design:
    """What an ablation compares, written out.

    Attributes:
        ablation: the same question as a list: all variants with their overrides, and the name of the reference.
        kind: of the design that made them.
        factors: factor -> its levels, the reference's first; a component has the levels on and off.
        settings: variant -> {factor: level}; factors that do not matter to a variant are left out, and so are variants
            that were written beside the design.
        only_if: factor -> {another factor: levels} without which it is not crossed.
        skipped: combinations that were left out.
        fraction: of all combinations; None where all are there.
    """

    ablation: AblationConfig
    kind: str = "list"
    factors: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    settings: dict[str, Levels] = dataclasses.field(default_factory=dict)
    only_if: dict[str, dict[str, list[str]]] = dataclasses.field(default_factory=dict)
    skipped: list[Levels] = dataclasses.field(default_factory=list)
    fraction: Fraction | None = None

    def record(self) -> dict[str, Any]:
        """What experiment.json holds of it: DESIGN_KEYS."""
        fraction = self.fraction
        return {
            "kind": self.kind,
            "factors": self.factors,
            "only_if": self.only_if,
            "skipped": self.skipped,
            "fraction": 1 if fraction is None else 1 << len(fraction.generators),
            "resolution": None if fraction is None else fraction.resolution,
            "generators": {} if fraction is None else {name: list(of) for name, of in fraction.generators.items()},
            "aliases": [] if fraction is None else [list(map(list, group)) for group in fraction.aliases()],
        }

    def lines(self) -> list[str]:
        """Says in words what is compared, what is left out, and what a fraction cannot tell apart."""
        factors = " x ".join(f"{name} ({', '.join(levels)})" for name, levels in self.factors.items())
        if self.kind in ("leave_one_out", "add_one_in"):
            factors = ", ".join(self.factors)
        beside = len(self.ablation.variants) - len(self.settings)
        number = f"{len(self.settings)} variants" + (f", and {beside} written beside" if beside else "")
        if self.kind == "list":
            number = f"{beside} variants"
        lines = [f"design: {self.kind.replace('_', ' ')}{f' of {factors}' if factors else ''}: {number}"]
        lines += [f"{name} only if {_rule(rule)}" for name, rule in self.only_if.items()]
        if self.skipped:
            shown = "; ".join(_rule({name: [level] for name, level in one.items()}) for one in self.skipped[:_SHOWN])
            more = f"; and {len(self.skipped) - _SHOWN} more" if len(self.skipped) > _SHOWN else ""
            lines.append(f"left out ({len(self.skipped)}): {shown}{more}")
        if self.fraction is not None:
            lines += _fraction_lines(self.fraction)
        return lines


def make_design(config: Config) -> Design:
    """Writes the design of an ablation out.

    Args:
        config: of the sweep, with its ablation.

    Returns:
        The design; that of its own ablation is the same list again.

    Raises:
        UserError: an empty or contradictory design, an unknown factor, level or reference, more trials than
            ablation.limit (told without making them), names that are no folder's or given twice, or unknown to only.
    """
    ablation = config.ablation
    assert ablation is not None
    _check_fields(ablation)
    factors = _factors(ablation)
    rules = _rules(ablation, factors)
    _check_limit(config, ablation, factors, rules)
    made = _make(ablation, factors, rules)
    for name in ablation.variants:
        if name in made.ablation.variants:
            raise UserError(f"ablation={ablation.name}: the design makes a variant '{name}' of its own; rename yours")
    variants = {**made.ablation.variants, **ablation.variants}
    first = next(iter(made.ablation.variants), "")
    written_out = dataclasses.replace(
        ablation,
        variants=variants,
        reference=ablation.reference or first,
        design="list",
        factors={},
        options={},
        components={},
        only_if={},
        skip=[],
        fraction=1,
    )
    _check_names(written_out)
    if not ablation.only:
        return dataclasses.replace(made, ablation=written_out)
    chosen = _only(written_out)
    settings = {name: levels for name, levels in made.settings.items() if name in chosen.variants}
    return dataclasses.replace(made, ablation=chosen, settings=settings)


def _only(ablation: AblationConfig) -> AblationConfig:
    """Takes the variants and controls that ablation.only names.

    Raises:
        UserError: it names none of them, or leaves the reference out.
    """
    known = [*ablation.variants, *ablation.controls]
    for name in ablation.only:
        if name not in known:
            raise UserError(f"ablation.only: '{name}' is neither a variant nor a control{nearest(name, known)}")
    if ablation.reference not in ablation.only:
        raise UserError(f"ablation.only: it lacks the reference '{ablation.reference}'; add it")
    variants, controls = (
        {name: overrides for name, overrides in group.items() if name in ablation.only}
        for group in (ablation.variants, ablation.controls)
    )
    return dataclasses.replace(ablation, variants=variants, controls=controls, only=[])


@dataclass(frozen=True)
class _Rules:
    """What restricts a factorial, with every level spelt out."""

    only_if: dict[str, dict[str, list[str]]]
    skip: list[dict[str, list[str]]]

    def skips(self, combination: Levels) -> bool:
        """Whether a combination is one of those that make no sense."""
        return any(_fits(combination, rule) for rule in self.skip)

    def named(self) -> set[str]:
        """All factors that a rule depends on."""
        conditions = [{factor, *others} for factor, others in self.only_if.items()]
        return set().union(*conditions, *map(set, self.skip))


def _check_fields(ablation: AblationConfig) -> None:
    made_from = _MADE_FROM[ablation.design]
    for field in ("factors", "options", "components", "only_if", "skip", "fraction"):
        if field not in made_from and getattr(ablation, field) not in ({}, [], 1):
            kinds = " or ".join(f"design: {kind}" for kind, fields in _MADE_FROM.items() if field in fields)
            raise UserError(
                f"ablation={ablation.name}: design={ablation.design} does not use {field}; say {kinds}, or remove it"
            )
    if ablation.design in ("leave_one_out", "add_one_in") and not ablation.components:
        raise UserError(f"ablation={ablation.name}: design={ablation.design} has no components")
    if ablation.design == "list" and not ablation.variants:
        raise UserError(f"ablation={ablation.name}: has no variants")
    if ablation.design == "list" and not ablation.reference:
        raise UserError(
            f"ablation={ablation.name}: has no reference; name the variant that the others are compared with"
        )


def _factors(ablation: AblationConfig) -> dict[str, dict[str, list[str]]]:
    """Factor -> level -> overrides, of both ways of writing them.

    Raises:
        UserError: a factor or level twice, a factor of one level, or too few or too many factors.
    """
    factors = {name: dict(levels) for name, levels in ablation.factors.items()}
    short = {option: option.split(".") for option in ablation.options}
    ends = Counter(parts[-1] for parts in short.values())
    for option, values in ablation.options.items():
        parts = short[option]
        name = parts[-1] if ends[parts[-1]] == 1 else "_".join(parts[-2:])
        if name in factors:
            raise UserError(f"ablation.options.{option}: there is a factor '{name}' already; write it under factors")
        levels = [_text(value, f"ablation.options.{option}") for value in values]
        twice = [level for level, number in Counter(levels).items() if number > 1]
        if twice:
            raise UserError(f"ablation.options.{option}: {twice[0]} is there twice; remove one")
        factors[name] = {level: [f"{option}={level}"] for level in levels}
    few = next((name for name, levels in factors.items() if len(levels) < 2), None)
    if few is not None:
        raise UserError(f"ablation={ablation.name}: factor '{few}' has {len(factors[few])} levels; it needs two")
    if ablation.design == "one_factor" and len(factors) != 1:
        raise UserError(
            f"ablation={ablation.name}: design=one_factor has one factor, not {len(factors)}; for several say "
            "design: factorial, or make an ablation of each"
        )
    if ablation.design == "factorial" and len(factors) < 2:
        raise UserError(
            f"ablation={ablation.name}: design=factorial combines two factors at least, and there are {len(factors)}; "
            "for one say design: one_factor"
        )
    _check_same_option(ablation, factors)
    return factors


def _check_same_option(ablation: AblationConfig, factors: Mapping[str, Mapping[str, list[str]]]) -> None:
    """Refuses two factors that set the same option: the later would silently undo the earlier."""
    owner: dict[str, str] = {}
    for name, levels in factors.items():
        for option in {word.partition("=")[0] for overrides in levels.values() for word in overrides}:
            if owner.setdefault(option, name) != name:
                raise UserError(
                    f"ablation={ablation.name}: factors '{owner[option]}' and '{name}' both set {option}; make them one"
                )


def _rules(ablation: AblationConfig, factors: Mapping[str, Mapping[str, list[str]]]) -> _Rules:
    """Spells the rules of a factorial out.

    Raises:
        UserError: a rule names an unknown factor or level, or a factor that is listed later.
    """
    order = list(factors)
    only_if = {}
    for name, condition in ablation.only_if.items():
        place = f"ablation.only_if.{name}"
        if name not in factors:
            raise UserError(f"{place}: no such factor{nearest(name, order)}")
        only_if[name] = _spelt_out(condition, factors, place)
        late = [other for other in only_if[name] if order.index(other) >= order.index(name)]
        if late:
            raise UserError(f"{place}: depends on '{late[0]}', which must be listed before it")
    skip = [_spelt_out(rule, factors, f"ablation.skip[{i}]") for i, rule in enumerate(ablation.skip)]
    if (only_if or skip) and ablation.fraction != 1:
        raise UserError(
            f"ablation.fraction={ablation.fraction}: a fraction needs all of its combinations; remove skip and "
            "only_if, or run all (1)"
        )
    return _Rules(only_if, skip)


def _spelt_out(
    rule: Mapping[str, Any], factors: Mapping[str, Mapping[str, list[str]]], place: str
) -> dict[str, list[str]]:
    """Factor -> its levels, of a rule that may name a single level."""
    if not rule:
        raise UserError(f"{place}: names no factor")
    spelt = {}
    for name, levels in rule.items():
        if name not in factors:
            raise UserError(f"{place}: no such factor{nearest(name, list(factors))}")
        spelt[name] = [_text(level, place) for level in (levels if isinstance(levels, list) else [levels])]
        for level in spelt[name]:
            if level not in factors[name]:
                raise UserError(f"{place}: factor '{name}' has no level '{level}'{nearest(level, list(factors[name]))}")
    return spelt


def _text(value: Any, place: str) -> str:
    """A value as one writes it behind an option."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (str, int, float)):
        return str(value)
    raise UserError(f"{place}: {value} is not a word or a number; write it under factors, with names for its levels")


def _check_limit(config: Config, ablation: AblationConfig, factors: Mapping[str, Any], rules: _Rules) -> None:
    """Refuses more trials than the limit, before any of them is made.

    Raises:
        UserError: with their number.
    """
    made, up_to = _number_made(ablation, factors, rules)
    variants, controls = made + len(ablation.variants), len(ablation.controls)
    seeds, folds = len(ablation.seeds) or config.seeds, len(ablation.folds) or 1
    trials = (variants + controls) * seeds * folds
    if trials > ablation.limit:
        raise UserError(
            f"ablation={ablation.name}: {'up to ' if up_to else ''}{trials:,} trials ({variants:,} variants and "
            f"{controls} controls, {seeds:,} seeds, {folds} folds) are more than ablation.limit={ablation.limit}; take "
            "fewer levels, a fraction or fewer seeds, or raise the limit"
        )


def _number_made(ablation: AblationConfig, factors: Mapping[str, Any], rules: _Rules) -> tuple[int, bool]:
    """How many variants a design makes, and whether that is only the most that it may be."""
    if ablation.design in ("list", "leave_one_out", "add_one_in"):
        return (len(ablation.components) + 1 if ablation.components else 0), False
    sizes = {name: len(levels) for name, levels in factors.items()}
    named = {name: list(factors[name]) for name in factors if name in rules.named()}
    total = math.prod(sizes.values())
    if not named:
        return max(1, total // ablation.fraction), False
    restricted = math.prod(map(len, named.values()))
    if restricted > _COUNTED:
        return total, True
    left = sum(not rules.skips(combination) for combination in _combinations(named, rules.only_if))
    return left * (total // restricted), False


def _combinations(factors: Mapping[str, list[str]], only_if: Mapping[str, dict[str, list[str]]]) -> Iterator[Levels]:
    """Yields all combinations of levels, the last factor's changing fastest; without factors that cannot matter."""
    names = list(factors)

    def extend(place: int, chosen: Levels) -> Iterator[Levels]:
        if place == len(names):
            yield chosen
            return
        name = names[place]
        if not _fits(chosen, only_if.get(name, {})):
            yield from extend(place + 1, chosen)
            return
        for level in factors[name]:
            yield from extend(place + 1, {**chosen, name: level})

    return extend(0, {})


def _fits(combination: Levels, rule: Mapping[str, list[str]]) -> bool:
    return all(combination.get(name) in levels for name, levels in rule.items())


def _make(ablation: AblationConfig, factors: dict[str, dict[str, list[str]]], rules: _Rules) -> Design:
    """Makes the variants of a design, the reference first."""
    if ablation.design in ("leave_one_out", "add_one_in"):
        return _of_components(ablation)
    levels = {name: list(of) for name, of in factors.items()}
    fraction, skipped = None, []
    if ablation.design == "list":
        chosen: list[Levels] = []
    elif ablation.fraction != 1:
        fraction = _fraction(ablation, levels)
        chosen = [{name: levels[name][i] for name, i in zip(levels, run, strict=True)} for run in fraction.runs()]
    else:
        combinations = list(_combinations(levels, rules.only_if))
        chosen = [combination for combination in combinations if not rules.skips(combination)]
        skipped = [combination for combination in combinations if rules.skips(combination)]
        idle = [rule for rule in rules.skip if not any(_fits(combination, rule) for combination in combinations)]
        if idle:
            raise UserError(
                f"ablation={ablation.name}: there is no combination {_rule(idle[0])} to skip; remove the rule"
            )
        if not chosen:
            raise UserError(f"ablation={ablation.name}: skip leaves no combination; remove a rule")
    words = _level_words(levels)
    variants: dict[str, list[str]] = {}
    settings: dict[str, Levels] = {}
    for combination in chosen:
        variant = "-".join(words[name, level] for name, level in combination.items())
        if variant in variants:
            raise UserError(f"ablation={ablation.name}: two combinations are called '{variant}'; rename a level")
        variants[variant] = [word for name, level in combination.items() for word in factors[name][level]]
        settings[variant] = combination
    made = dataclasses.replace(ablation, variants=variants)
    return Design(made, ablation.design, levels, settings, rules.only_if, skipped, fraction)


def _of_components(ablation: AblationConfig) -> Design:
    """Makes the reference, and a variant per component that lacks it, or has it alone."""
    leaves_out = ablation.design == "leave_one_out"
    reference, prefix, usual, changed = (_WHOLE, "no", "on", "off") if leaves_out else (_BARE, "with", "off", "on")
    unchanged = dict.fromkeys(ablation.components, usual)
    names = {f"{prefix}_{component}": component for component in ablation.components}
    variants = {reference: [], **{name: ablation.components[component] for name, component in names.items()}}
    settings = {reference: unchanged, **{name: {**unchanged, component: changed} for name, component in names.items()}}
    made = dataclasses.replace(ablation, variants=variants)
    return Design(made, ablation.design, {name: [usual, changed] for name in ablation.components}, settings)


def _fraction(ablation: AblationConfig, levels: Mapping[str, list[str]]) -> Fraction:
    for name, of in levels.items():
        if len(of) != 2:
            raise UserError(
                f"ablation.fraction={ablation.fraction}: factor '{name}' has {len(of)} levels, and a fraction is of "
                "two-level factors; take two of them, or run all combinations (1)"
            )
    return best_fraction(list(levels), ablation.fraction)


def _level_words(factors: Mapping[str, list[str]]) -> dict[tuple[str, str], str]:
    """How each level is called in the name of a variant: by itself where that says enough, else behind its factor."""
    times = Counter(level for levels in factors.values() for level in levels)

    def says_enough(level: str) -> bool:
        return times[level] == 1 and level[:1].isalpha() and level.lower() not in _BARE_WORDS

    return {
        (name, level): level if says_enough(level) else f"{name}_{level}"
        for name, levels in factors.items()
        for level in levels
    }


def _check_names(ablation: AblationConfig) -> None:
    """Refuses an unknown reference, and names that cannot name folders or are given twice."""
    if ablation.reference not in ablation.variants:
        known = nearest(ablation.reference, list(ablation.variants))
        raise UserError(f"ablation.reference={ablation.reference}: no such variant{known}")
    for name in (*ablation.variants, *ablation.controls):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name):
            raise UserError(f"ablation={ablation.name}: '{name}' names folders, so letters, digits and _.+- only")
        if len(name) > _LONGEST_NAME:
            raise UserError(
                f"ablation={ablation.name}: '{name[:40]}...' names folders and has {len(name)} letters, at most "
                f"{_LONGEST_NAME}; take shorter names of levels"
            )
    both = set(ablation.variants) & set(ablation.controls)
    if both:
        raise UserError(f"ablation={ablation.name}: '{min(both)}' is a variant and a control; rename one")


def _fraction_lines(fraction: Fraction) -> list[str]:
    numeral = {3: "III", 4: "IV", 5: "V", 6: "VI", 7: "VII", 8: "VIII", 9: "IX", 10: "X", 11: "XI"}
    follows = "; ".join(f"{name} = {_effect(of)}" for name, of in fraction.generators.items())
    lines = [f"fraction: 1/{1 << len(fraction.generators)}, resolution {numeral[fraction.resolution]}: {follows}"]
    groups = "; ".join(" = ".join(map(_effect, group)) for group in fraction.aliases())
    if fraction.resolution >= 5:
        lines.append("main effects and two-way interactions are all told apart")
    elif fraction.resolution == 4:
        lines.append(f"main effects are told apart from two-way interactions; these are estimated as one: {groups}")
    else:
        lines.append(f"these are estimated as one, main effects among them: {groups}")
    return lines


def _effect(effect: Effect) -> str:
    return " x ".join(effect)


def _rule(rule: Mapping[str, list[str]]) -> str:
    return ", ".join(f"{name}={'|'.join(levels)}" for name, levels in rule.items())
