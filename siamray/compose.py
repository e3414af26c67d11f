"""The words of a command line go in, a complete, typed and checked Config comes out."""

import dataclasses
import functools
import json
import os
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, OverrideParseException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from siamray.config import Config
from siamray.errors import UserError, nearest

# What each command is for, and the options it reads; an option it would ignore is refused.
_EVERYWHERE = ("data", "preparation", "store", "experiments", "budget")
_LEARNING = ("pairs", "encoder", "pretraining", "cluster", "seed")
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "prepare": (
        "reads the exams, registers left and right, and writes the store",
        (*_EVERYWHERE, "cluster", "inspect", "page"),
    ),
    "pretrain": (
        "trains one encoder on the pairs of the store, or a recorded trial again with from=",
        (*_EVERYWHERE, *_LEARNING, "out", "from_trial"),
    ),
    "evaluate": ("tests an encoder on the tasks, beside the controls", (*_EVERYWHERE, *_LEARNING, "downstream", "out")),
    "detect": (
        "maps one exam and marks what may be lesions",
        (*_EVERYWHERE, "pairs", "encoder", "downstream", "seed", "exam", "out"),
    ),
    "sweep": (
        "runs an ablation or a search: trials, comparison, report; sweep status, sweep export, sweep verify and sweep "
        "across look at those that run or have ended (python -m siamray.sweep status --help)",
        (
            *(*_EVERYWHERE, *_LEARNING, "downstream", "ablation", "search", "results", "seeds", "progress", "dry_run"),
            *("tracking", "tracking_uri", "check"),
        ),
    ),
    "sweep status": (
        "tells how far results=DIR/EXPERIMENT is: trials, failures, driver, cost, what is left; writes nothing",
        ("results",),
    ),
    "sweep export": (
        "writes results=DIR/EXPERIMENT as a table of its trials and one of its comparison (out=FILE.parquet or "
        "FILE.csv), its methods section for a paper (out=FILE.md), or to MLflow (tracking=mlflow); also while it runs",
        ("results", "out", "tracking", "tracking_uri"),
    ),
    "sweep across": (
        "averages the variants of one experiment over its metrics, or of several experiments over their data sets too: "
        "interquartile means, performance profiles, and mean ranks where there are enough data sets (out=FILE.html, "
        "FILE.csv or FILE.parquet)",
        ("results", "metrics", "out"),
    ),
    "sweep verify": (
        "runs a finished trial of results=DIR/EXPERIMENT again, aside, and says whether metrics, predictions and "
        "epochs are the same; exit code 1 where they differ",
        ("results", "trial", "seed", "data", "preparation", "store", "pairs", "cluster"),
    ),
}
_EXAMPLES = {
    "prepare": "data=mias data.root=DIR",
    "pretrain": "data=phantom out=runs/first",
    "evaluate": "encoder=runs/first/encoder data=phantom",
    "detect": "encoder=runs/first/encoder data=phantom exam=phantom_00003 out=runs/found",
    "sweep": "ablation=soft_labels",
    "sweep status": "results=results/soft_labels",
    "sweep export": "results=results/soft_labels out=trials.csv",
    "sweep across": "results=[results/mias/components,results/vindr/components] out=across.html",
    "sweep verify": "results=results/soft_labels",
}
_PATHS = ("data.root", "encoder.folder", "store", "results", "out", "from_trial", "page", "experiments")
# Option -> how it is written on the command line, where Python keeps the plain word for itself.
_WRITTEN = {"from_trial": "from"}
_OPTIONS = {written: name for name, written in _WRITTEN.items()}


def experiments_folder() -> Path:
    """Finds the folder of configuration groups: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "experiments"
    return installed if installed.is_dir() else package.parent / "experiments"


def compose(command: str, words: list[str]) -> Config:
    """Composes the configuration of a command.

    Args:
        command: one of COMMANDS.
        words: its command line, each ``option=value`` or ``group=choice``; later ones win.

    Returns:
        The configuration, with absolute paths.

    Raises:
        UserError: an unknown, mistyped or forbidden option or choice, with the nearest valid name.
        SystemExit: after ``--help`` was printed.
    """
    if any(word in ("--help", "-h", "help") for word in words):
        print(help_text(command))
        raise SystemExit(0)
    pairs = words_by_option(words)
    own = pairs.get("experiments")
    folders = [experiments_folder(), *([_own_folder(own)] if own else [])]
    groups = _groups(folders)
    overrides = [_override(key, value, command, groups) for key, value in pairs.items()]
    return _checked(_hydra(*_expand(overrides), folders))


def compose_variant(command: str, words: list[str], variant: list[str]) -> Config:
    """Composes the configuration of one variant: the command's own words, then the variant's overrides.

    Args:
        command: one of COMMANDS.
        words: the command line, without the ablation or search itself.
        variant: the overrides that make the variant.

    Raises:
        UserError: as compose.
    """
    return compose(command, [*words, *variant])


def words_by_option(words: list[str]) -> dict[str, str]:
    """Divides the words of a command line into the names of options or groups, and what is said of each.

    Args:
        words: each ``option=value`` or ``group=choice``; later ones win.

    Raises:
        UserError: a word without an equals sign.
    """
    return dict(_split(word) for word in words)


def option_value(config: Config, name: str) -> Any:
    """Returns the value of an option named with dots."""
    owner, attribute = _owner(config, name)
    return getattr(owner, attribute)


def set_option(config: Config, name: str, value: Any) -> None:
    """Changes an option named with dots, unchecked."""
    owner, attribute = _owner(config, name)
    setattr(owner, attribute, value)


def to_dict(config: Config) -> dict[str, Any]:
    """Turns a configuration into plain dictionaries, lists, numbers and words."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """Makes the configuration that to_dict took apart.

    Raises:
        UserError: if it holds an option this version does not know.
    """
    try:
        merged = OmegaConf.merge(_options(), values)
    except OmegaConfBaseException as error:
        raise UserError(f"a stored configuration does not fit this version of siamray: {_first_line(error)}") from None
    return typing.cast(Config, OmegaConf.to_object(merged))


def options(kind: type = Config, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Yields every option as (dotted name, dataclass field, type), in the order of config.py."""
    hints = typing.get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        inner = _without_none(hints[entry.name])
        if dataclasses.is_dataclass(inner):
            yield from options(typing.cast(type, inner), f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, entry, hints[entry.name]


def help_text(command: str) -> str:
    """Writes the help of a command: usage, groups with their choices, options with meaning and default."""
    purpose, sections = COMMANDS[command]
    groups = {group: found for group, found in _groups([experiments_folder()]).items() if group in sections}
    words = " [group=choice ...]" if groups else ""
    lines = [f"python -m siamray.{command}{words} [option=value ...]", "", f"{command}: {purpose}.", ""]
    lines += ["Example:", f"    python -m siamray.{command} {_EXAMPLES[command]}", ""]
    lines += ["Groups:"] if groups else []
    for group, choices in groups.items():
        lines.append(f"  {group}=")
        lines += [f"      {choice:<22} {_headline(path)}" for choice, path in choices.items()]
    lines += ["", "Options:"] if groups else ["Options:"]
    for name, entry, kind in options():
        if name.split(".")[0] not in sections:
            continue
        default = _default(entry)
        shown = "" if default is MISSING else f" [{'null' if default is None else json.dumps(default)}]"
        lines += [
            f"  {_WRITTEN.get(name, name)} ({_type_name(kind)}){shown}",
            f"      {entry.metadata.get('meaning', '')}",
        ]
    return "\n".join(lines)


def _split(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise UserError(f"'{word}': options are written option=value; --help lists them")
    key = key.strip()
    return _OPTIONS.get(key, key), value.strip()


def _own_folder(folder: str) -> Path:
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise UserError(f"experiments={folder}: no such folder; name a folder with groups such as ablation/NAME.yaml")
    return path


def _groups(folders: list[Path]) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for path in sorted(folder.glob("*/*.yaml")):
            found.setdefault(path.parent.name, {})[path.stem] = path
    return dict(sorted(found.items()))


def _override(key: str, value: str, command: str, groups: dict[str, dict[str, Path]]) -> tuple[str, str]:
    """Checks one word against the groups and options that the command knows."""
    sections = COMMANDS[command][1]
    known = {name: kind for name, _, kind in options()}
    valid = [_WRITTEN.get(name, name) for name in [*groups, *known] if name.split(".")[0] in sections]
    root, written = key.split(".")[0], _WRITTEN.get(key, key)
    is_known = key in groups or key in known or _inside_dictionary(key, known)
    if is_known and root not in sections:
        raise UserError(f"{written}: siamray.{command} does not use this option; {command} --help lists those it uses")
    if key in groups:
        return key, _choice(key, value, groups)
    if not is_known:
        inside = [name for name in valid if name.startswith(f"{key}.")]
        if inside:
            raise UserError(f"{key}: a section, not an option; it has {', '.join(inside[:6])} ...")
        raise UserError(f"{key}: no such option of siamray.{command}{nearest(key, valid)}")
    return key, value


def _choice(group: str, value: str, groups: dict[str, dict[str, Path]]) -> str:
    if value in groups[group] or (value == "null" and group in ("ablation", "search")):
        return value
    if group == "encoder" and (os.sep in value or Path(value).expanduser().is_dir()):
        if not Path(value).expanduser().is_dir():
            raise UserError(f"encoder={value}: no such folder; name the folder of an exported encoder")
        return value
    raise UserError(f"{group}={value}: no such choice{nearest(value, list(groups[group]))}")


def _inside_dictionary(key: str, known: dict[str, Any]) -> bool:
    roots = [name for name, kind in known.items() if typing.get_origin(_without_none(kind)) is dict]
    return any(key.startswith(f"{root}.") for root in roots)


def _expand(overrides: list[tuple[str, str]]) -> tuple[list[str], dict[str, str]]:
    """Divides the checked words: those in Hydra's grammar, and texts, which are taken as they stand."""
    kinds = {name: _without_none(kind) for name, _, kind in options()}
    written: list[str] = []
    texts: dict[str, str] = {}
    for key, value in overrides:
        if key == "encoder" and (os.sep in value or Path(value).expanduser().is_dir()):
            written.append("encoder=folder")
            texts["encoder.folder"] = value
        elif kinds.get(key) is str and value != "null":
            texts[key] = value
        elif value == "":
            raise UserError(f"{key}=: no value given")
        else:
            written.append(f"{key}={value}")
    return written, texts


def _hydra(overrides: list[str], texts: dict[str, str], folders: list[Path]) -> Any:
    _register()
    search = ",".join(f"'file://{folder}'" for folder in folders[1:])
    if search:
        overrides = [f"hydra.searchpath=[{search}]", *overrides]
    try:
        with initialize_config_dir(str(folders[0]), version_base="1.3"):
            composed = hydra_compose("config", overrides=overrides)
        for name, text in texts.items():
            OmegaConf.update(composed, name, text)
        return composed
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(_explain(error)) from None


@functools.cache
def _register() -> None:
    """Makes the options known to Hydra, once in a process, as it takes as long as half a composition."""
    ConfigStore.instance().store(name="all_options", node=Config)


@functools.cache
def _options() -> Any:
    """All options with their types and defaults; merging with it leaves it as it is."""
    return OmegaConf.structured(Config)


def _explain(error: BaseException) -> str:
    """Finds the line of a Hydra error that says what is wrong."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        place = f"{error.problem_mark.name}, line {error.problem_mark.line + 1}"
        return f"{place}: {error.problem or _first_line(error)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not written as option=value ({_first_line(error)})"
    if (wrong := _wrong_in_file(error)) is not None:
        return wrong
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    key = getattr(cause, "full_key", None) or getattr(error, "full_key", None)
    text = _first_line(cause)
    return f"{key}: {text}" if key else f"{_first_line(error)}" + (f" ({text})" if cause is not error else "")


def _wrong_in_file(error: BaseException) -> str | None:
    """What is wrong in a file of a group: Hydra's first line names the file, the others hold reason and option."""
    file, *lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if not file.endswith("raised while composing config:") or not lines:
        return None
    key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    # YAML takes 0.6 or on for a number or a truth value.
    remedy = "; put such names in quotes" if lines[0].startswith("Key ") and " is incompatible " in lines[0] else ""
    return f"{file.partition(':')[0]}{f', {key}' if key else ''}: {lines[0]}{remedy}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _checked(composed: Any) -> Config:
    try:
        config = typing.cast(Config, OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise UserError(_explain(error)) from None
    _check_values(config, "")
    for name in _PATHS:
        value = option_value(config, name)
        if value is not None and "://" not in value:
            set_option(config, name, str(Path(value).expanduser().resolve()))
    if config.data.fold >= config.data.folds:
        raise UserError(f"data.fold={config.data.fold}: folds are counted from 0 and data.folds={config.data.folds}")
    return config


def _owner(config: Config, name: str) -> tuple[Any, str]:
    *sections, attribute = name.split(".")
    owner: Any = config
    for section in sections:
        owner = getattr(owner, section)
    return owner, attribute


def _check_values(section: Any, prefix: str) -> None:
    """Holds every value against the choices and limits declared with its option."""
    for entry in dataclasses.fields(section):
        value, name, rule = getattr(section, entry.name), prefix + entry.name, entry.metadata
        if dataclasses.is_dataclass(value):
            _check_values(value, f"{name}.")
        elif value is not None:
            for part in value if isinstance(value, list) else [value]:
                _check_value(name, part, rule)


def _check_value(name: str, value: Any, rule: typing.Mapping[str, Any]) -> None:
    if rule.get("choices") and value not in rule["choices"]:
        raise UserError(f"{name}={value}: not an allowed value{nearest(str(value), list(rule['choices']))}")
    if rule.get("low") is not None and value < rule["low"]:
        raise UserError(f"{name}={value}: must be at least {rule['low']}")
    if rule.get("high") is not None and value > rule["high"]:
        raise UserError(f"{name}={value}: must be at most {rule['high']}")


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def _type_name(kind: Any) -> str:
    inner = _without_none(kind)
    name = getattr(inner, "__name__", str(inner)) if typing.get_origin(inner) is None else str(inner)
    return name.replace("typing.", "") + (" or null" if inner is not kind else "")


def _default(entry: dataclasses.Field[Any]) -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return entry.default


def _headline(path: Path) -> str:
    comments = (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    return next((line.lstrip("# ").strip() for line in comments if "@package" not in line), "")
