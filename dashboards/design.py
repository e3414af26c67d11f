"""Results in, what makes the variants of an experiment different out, as HTML: options, factors, aliases, sharing."""

from typing import Any

from dashboards import page
from dashboards.figures import style
from siamray.sweeps.methods.recorded import shared_trials, variant_changes
from siamray.sweeps.results import Results

SHOWN = 24
"""Groups of aliases, and combinations left out, that are named one by one."""


def section(results: Results, looks: dict[str, style.Look]) -> str:
    """Shows what differs between the variants of an ablation; "" of a search, whose trials are listed with theirs.

    Args:
        results: an experiment.
        looks: variant -> look.
    """
    record = results.experiment
    if record["kind"] == "search" or len(record["variants"]) + len(record["controls"]) < 2:
        return ""
    notes = map(page.note, design_notes(results))
    return page.section("What differs", _table(results, looks), *notes, *_aliases(record["design"] or {}))


def _table(results: Results, looks: dict[str, style.Look]) -> str:
    """A row per variant: its level of every factor, and the options in which it is not as the reference."""
    record = results.experiment
    settings = record["settings"] or {}
    factors = list((record["design"] or {}).get("factors") or {}) if settings else []
    lines: list[list[str]] = []
    changes = variant_changes(results)
    for role, names in (("Variants", record["variants"]), ("Controls", record["controls"])):
        if names:
            lines.append([f"<em>{role}</em>"])
        for name in names:
            own = settings.get(name) or {}
            levels = [page.text(own.get(factor, style.NONE)) for factor in factors]
            key = page.key(style.look_of(name, looks).color)
            words = "the reference" if name == record["reference"] else _changes(changes[name])
            lines.append([key + page.text(name), *levels, words])
    head = ["", *factors, "differs from the reference in"]
    return page.table(head, lines, words=list(range(1, len(head))))


def _changes(own: dict[str, tuple[Any, Any]]) -> str:
    if not own:
        return "unknown"
    return "<br>".join(
        page.code(f"{option}={value}") + (f" instead of {page.code(before)}" if before is not None else "")
        for option, (value, before) in own.items()
    )


def design_notes(results: Results) -> list[str]:
    """Says what a design left out, and what it took over from other experiments, a sentence each."""
    design = results.experiment["design"] or {}
    notes = []
    for name, rule in (design.get("only_if") or {}).items():
        where = " and ".join(f"{other} is {' or '.join(map(str, levels))}" for other, levels in rule.items())
        notes.append(f"{name} is crossed only where {where}.")
    skipped = design.get("skipped") or []
    if skipped:
        named = "; ".join(", ".join(f"{factor} {level}" for factor, level in one.items()) for one in skipped[:SHOWN])
        more = f"; and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
        notes.append(f"Left out, as these combinations make no sense: {named}{more}.")
    for source, number in shared_trials(results).items():
        notes.append(f"{style.count(number, 'trial')} taken over from {source}, where the same was trained before.")
    return notes


def aliased(design: dict[str, Any]) -> tuple[str, list[str]]:
    """Of a fraction: what a reader must know, and groups of effects that it cannot tell apart, at most SHOWN."""
    groups = design.get("aliases") or []
    words = (
        f"One in {design.get('fraction')} of all combinations was run (resolution {design.get('resolution')}). Effects "
        "joined by = are estimated as one: what is told of the first may be the doing of another."
    )
    return words, [" = ".join(" x ".join(map(str, effect)) for effect in group) for group in groups[:SHOWN]]


def _aliases(design: dict[str, Any]) -> list[str]:
    groups = design.get("aliases") or []
    if not groups:
        return []
    words, shown = aliased(design)
    items = "".join(f"<li>{page.text(effects)}</li>" for effects in shown)
    more = [page.note(f"And {len(groups) - SHOWN} more groups.")] if len(groups) > SHOWN else []
    return ["<h3>Effects that are estimated as one</h3>", page.note(words), f'<ul class="plain">{items}</ul>', *more]
