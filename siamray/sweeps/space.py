"""The searched options go in; a setting drawn from them, or found in a stored configuration, comes out."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from siamray.compose import options
from siamray.config import ParameterConfig, SearchConfig
from siamray.errors import UserError, nearest

# What a trial learns from; all else changes the women, the evaluation or where it runs, and with it what is compared.
SEARCHED_SECTIONS = ("encoder", "pairs", "pretraining")


def check_parameters(search: SearchConfig) -> None:
    """Makes sure that every searched option exists and says where it may lie.

    Raises:
        UserError: naming the option and what it lacks.
    """
    if not search.parameters:
        raise UserError(f"search={search.name}: has no parameters")
    check_space(f"search={search.name}", search.parameters)


def check_space(where: str, parameters: Mapping[str, ParameterConfig], fixed: bool = False) -> None:
    """Makes sure that options can be searched, and say where they may lie.

    Args:
        where: what names them, for messages.
        parameters: option -> where it may lie.
        fixed: whether an option may depend on one that is not searched.

    Raises:
        UserError: naming the option and what it lacks.
    """
    known = [name for name, _, _ in options() if name.split(".")[0] in SEARCHED_SECTIONS]
    before: set[str] = set()
    for name, parameter in parameters.items():
        place = f"{where}: {name}"
        if name not in known:
            sections = ", ".join(SEARCHED_SECTIONS)
            raise UserError(f"{place} is no option that can be searched, of {sections}{nearest(name, known)}")
        _check_place(place, parameter)
        for other, value in parameter.only_if.items():
            if other not in parameters:
                if not fixed:
                    raise UserError(f"{place} depends on {other}, which is not searched")
                if other not in known:
                    raise UserError(f"{place} depends on {other}, which is no option{nearest(other, known)}")
                continue
            if other not in before:
                raise UserError(f"{place} depends on {other}, which must be listed before it")
            _check_condition(place, other, value, parameters[other])
        before.add(name)


def space_of(config: Mapping[str, Any], parameters: Mapping[str, ParameterConfig]) -> dict[str, ParameterConfig]:
    """Leaves out of a space what cannot matter to a configuration, by the options that are not searched.

    Args:
        config: a configuration as nested dictionaries.
        parameters: option -> where it may lie; see check_space with ``fixed``.

    Returns:
        The options that may matter, depending on one another alone.
    """
    kept: dict[str, ParameterConfig] = {}
    for name, parameter in parameters.items():
        fixed = {other: value for other, value in parameter.only_if.items() if other not in parameters}
        searched = {other: value for other, value in parameter.only_if.items() if other in parameters}
        if (
            all(_among(looked_up(config, other), value) for other, value in fixed.items())
            and searched.keys() <= kept.keys()
        ):
            kept[name] = replace(parameter, only_if=searched)
    return kept


def _check_place(where: str, parameter: ParameterConfig) -> None:
    if parameter.kind == "categorical":
        if not parameter.choices:
            raise UserError(f"{where} is categorical and has no choices")
        return
    low, high = parameter.low, parameter.high
    if low is None or high is None or low > high:
        raise UserError(f"{where} needs low and high, low first")
    if parameter.kind == "int" and not (float(low).is_integer() and float(high).is_integer()):
        raise UserError(f"{where} is int, so low and high must be whole numbers, not {low:g} and {high:g}")
    if parameter.log and low <= 0:
        raise UserError(f"{where} has log: true, so low must be above 0, not {low:g}")


def _check_condition(where: str, other: str, value: Any, parameter: ParameterConfig) -> None:
    if parameter.kind != "categorical":
        return
    impossible = [word for word in (value if isinstance(value, list) else [value]) if word not in parameter.choices]
    if impossible:
        raise UserError(
            f"{where} depends on {other}={impossible[0]}, which is none of its choices"
            f"{nearest(str(impossible[0]), [str(choice) for choice in parameter.choices])}"
        )


def suggest(trial: Any, parameters: Mapping[str, ParameterConfig]) -> dict[str, Any]:
    """Draws one setting from Optuna, parameter by parameter; one that cannot matter is not drawn.

    Args:
        trial: an Optuna trial, or what suggests like one.
        parameters: option -> where it may lie; conditions refer to options listed before.

    Returns:
        Option -> value.
    """
    drawn: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if not _matters(parameter, drawn):
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


def located(config: Mapping[str, Any], parameters: Mapping[str, ParameterConfig]) -> dict[str, Any] | None:
    """Finds the setting that a stored configuration is, as `suggest` would have drawn it.

    Args:
        config: a configuration as nested dictionaries.
        parameters: option -> where it may lie.

    Returns:
        Option -> value, without the options that cannot matter; None where a value lies outside of the space.
    """
    setting: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if not _matters(parameter, setting):
            continue
        value = looked_up(config, name)
        if parameter.kind == "categorical":
            if value not in parameter.choices:
                return None
            # 1, 1.0 and true are equal, and Optuna tells choices apart by their place.
            setting[name] = parameter.choices[parameter.choices.index(value)]
        elif not _within(value, parameter):
            return None
        else:
            setting[name] = int(value) if parameter.kind == "int" else float(value)
    return setting


def _within(value: Any, parameter: ParameterConfig) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    whole = parameter.kind != "int" or float(value).is_integer()
    return whole and float(parameter.low or 0) <= value <= float(parameter.high or 0)


def distributions(setting: Mapping[str, Any], parameters: Mapping[str, ParameterConfig]) -> dict[str, Any]:
    """Names Optuna's distributions that a setting was drawn from.

    Args:
        setting: option -> value.
        parameters: option -> where it may lie.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name in setting:
        parameter = parameters[name]
        if parameter.kind == "categorical":
            found[name] = CategoricalDistribution(parameter.choices)
        elif parameter.kind == "int":
            found[name] = IntDistribution(int(parameter.low or 0), int(parameter.high or 0), log=parameter.log)
        else:
            found[name] = FloatDistribution(float(parameter.low or 0), float(parameter.high or 0), log=parameter.log)
    return found


def search_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Writes drawn settings as words of the command line."""
    return [f"{name}={json.dumps(value) if not isinstance(value, str) else value}" for name, value in settings.items()]


def looked_up(config: Mapping[str, Any], name: str) -> Any:
    """Reads an option of a configuration of nested dictionaries by its dotted name; None where there is none."""
    value: Any = config
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _matters(parameter: ParameterConfig, drawn: Mapping[str, Any]) -> bool:
    return all(other in drawn and _among(drawn[other], value) for other, value in parameter.only_if.items())


def _among(value: Any, allowed: Any) -> bool:
    return value in allowed if isinstance(allowed, list) else bool(value == allowed)
