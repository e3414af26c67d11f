"""A trial in, its options, in which they differ from another trial's, and the machine that it ran on out."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
from dash import dcc, html

from dashboards import parts
from dashboards.figures import style
from dashboards.source import known_trials, trial_record
from dashboards.view import View

MOST_OFFERED = 200
"""Trials that a list offers; any other one is reached by its link in the table of all trials."""


def config(view: View) -> parts.Parts:
    """What the trial's options are, and in which it differs from another trial."""

    def make() -> parts.Parts:
        own = flat(trial_record(view.read, view.address.trial)["config"] or {})
        other = other_trial(view)
        made: parts.Parts = []
        if other:
            theirs = flat(trial_record(view.read, other)["config"] or {})
            lines = [
                [html.Code(name), _shown(own.get(name)), _shown(theirs.get(name))]
                for name in sorted({*own, *theirs})
                if own.get(name) != theirs.get(name)
            ]
            heading = html.H3(["Differs from ", dcc.Link(other, href=view.at("trial", other, view="options"))])
            told = parts.table(["option", "this trial", "the other"], lines, [0, 1, 2], "options that differ")
            made = [heading, told if lines else parts.note("In no option.")]
        listed = parts.table(
            ["option", "value"], [[html.Code(n), _shown(v)] for n, v in own.items()], [0, 1], "options"
        )
        return [*made, parts.folded(f"All {len(own)} options", listed)]

    made = parts.attempted("Options", make)
    return [made] if made is not None else []


def machine(view: View) -> parts.Parts:
    """Where and with what the trial ran."""

    def make() -> parts.Parts:
        record = trial_record(view.read, view.address.trial)
        told: list[tuple[str, Any]] = [
            *((str(name), _shown(value)) for name, value in (record["environment"] or {}).items()),
            *((str(name), _shown(value)) for name, value in (record["versions"] or {}).items()),
            ("commit", html.Code(str((record["git"] or {}).get("commit") or "unknown"))),
            ("uncommitted changes", _shown((record["git"] or {}).get("dirty"))),
            ("code", html.Code(str(record["code"]))),
            ("prepared exams", html.Code(str(record["data_fingerprint"]))),
            ("shared from", _shown(record["shared_from"])),
            ("started, ended", f"{record['started']}, {record['ended']}"),
            *((f"cost {name}", style.seconds(value)) for name, value in record["cost"].items()),
        ]
        return [parts.definitions(told)]

    made = parts.attempted("Environment", make)
    return [made] if made is not None else []


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Writes options by their dotted names."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + str(name)] = json.dumps(value, default=str)
    return found


def _shown(value: Any) -> str:
    return style.NONE if value is None else str(value)


def offered(view: View) -> dict[str, str]:
    """Trials to compare with: the first of every variant, then others."""
    rows = view.recorded.trials[view.recorded.trials["state"] != "broken"]
    rows = rows[rows["trial_id"] != view.address.trial]
    first = rows.drop_duplicates("variant")
    ordered = pd.concat([first, rows.drop(first.index)]).head(MOST_OFFERED)
    return {str(name): str(name) for name in ordered["trial_id"]}


def other_trial(view: View) -> str:
    """The trial that it is compared with; "" where there is no other."""
    asked = view.address.state.get("other", "")
    if asked in set(known_trials(view.read)) and asked != view.address.trial:
        return asked
    return next(iter(offered(view)), "")
