"""An experiment in, what is told of it in tables and words out: comparison, differences, trials, set-up, methods."""

from typing import Any

import pandas as pd
from dash import dcc, html
from dash.development.base_component import Component

from dashboards import parts, tables, trial_table
from dashboards.design import aliased, design_notes
from dashboards.figures import style
from dashboards.pages import overview
from dashboards.view import View
from siamray.sweeps.methods import describe_methods
from siamray.sweeps.methods.recorded import variant_changes
from siamray.sweeps.metric_words import metric_name
from siamray.sweeps.results import TRIALS_FILE
from siamray.sweeps.setting_words import shown
from siamray.sweeps.tuning_changes import tuning_changes

SHOWN = 24
"""Groups of aliases, combinations and failures that are named one by one."""


def missing(_: View) -> Component | None:
    """Nothing is missing of an experiment that could be read."""
    return None


def intro(view: View) -> parts.Parts:
    """Says what is asked, how far it is, and what it costs."""
    record = view.record
    state = overview.state_of(view.read)
    cost = overview.cost_words(view.status)
    return [
        html.Header(
            [
                html.P([f"siamray, {record['kind']} ", overview.badge(state)], className="eyebrow"),
                html.H1(str(record["name"] or view.read.name)),
                html.P(str(record["question"]), className="question"),
                overview.progress(view.status),
                html.P(
                    f"Cost: {cost}."
                    if state == "done"
                    else f"Cost so far: {cost}. Time left: {overview.left_words(view.status)}.",
                    className="disclaimer",
                ),
            ]
        )
    ]


def comparison(view: View, metric: str) -> parts.Parts:
    """Tabulates one metric: a row per variant, the controls below."""
    rows = view.results.comparison[view.results.comparison["metric"] == metric]
    lines: list[list[Any]] = []
    for role, group in rows.groupby(rows["role"].eq("control"), sort=True):
        lines.append(["Controls" if role else "Variants"])
        for row in style.records(group):
            effect = style.interval(row["effect"], row["effect_low"], row["effect_high"], sign=True)
            name = str(row["variant"])
            lines.append(
                [
                    html.Span([parts.key(style.look_of(name, view.looks).color), name]),
                    style.interval(row["value"], row["value_low"], row["value_high"]),
                    "reference" if name == row["reference"] else effect,
                    style.probability(row["p"]), style.probability(row["p_holm"]),
                    style.number(row["detectable"]),
                    style.whole(row["seeds"]), style.whole(row["women"]), style.seconds(row["cost_wall_s"]),
                ]
            )  # fmt: skip
    head = ["", "value [interval]", "difference [interval]", "p", parts.term("Holm p"), "detectable", "seeds", "women",
            "time per trial"]  # fmt: skip
    first = rows.iloc[0]
    counts = [style.count(first["lesions"], "lesion patch", "lesion patches"),
              style.count(first["normals"], "normal patch", "normal patches")]  # fmt: skip
    words = (
        f"{', '.join(filter(None, counts))}. In brackets: {view.interval}. Higher is better. Differences are paired, "
        f"on the same women, from {first['reference']}; detectable: the true difference that would be found with a "
        "chance of 0.8; the controls are a family of their own."
    )
    return [parts.table(head, lines, label=f"comparison by {metric_name(metric)}"), parts.note(words)]


def differences(view: View) -> parts.Parts:
    """Says what makes the variants different, and which effects a fraction cannot tell apart."""

    def make() -> parts.Parts:
        record = view.record
        settings = record["settings"] or {}
        factors = list((record["design"] or {}).get("factors") or {}) if settings else []
        changes = variant_changes(view.recorded)
        lines: list[list[Any]] = []
        for role, names in (("Variants", record["variants"]), ("Controls", record["controls"])):
            lines += [[role]] if names else []
            for name in names:
                own = settings.get(name) or {}
                swatch = html.Span([parts.key(style.look_of(name, view.looks).color), name])
                told: Any = "the reference" if name == record["reference"] else _changes(changes[name])
                lines.append([swatch, *(str(own.get(factor, style.NONE)) for factor in factors), told])
        head = ["", *factors, "differs from the reference in"]
        words = list(range(1, len(head)))
        return [parts.table(head, lines, words, "what differs between the variants"), *_design_notes(view)]

    made = parts.attempted("What differs between the variants", make)
    return [made] if made is not None else []


def _changes(own: dict[str, tuple[Any, Any]]) -> Any:
    if not own:
        return "unknown"
    lines: list[Any] = []
    for option, (value, before) in own.items():
        instead: list[Any] = [" instead of ", html.Code(str(before))] if before is not None else []
        lines.append(html.Div([html.Code(f"{option}={value}"), *instead]))
    return lines


def _design_notes(view: View) -> parts.Parts:
    made = list(map(parts.note, design_notes(view.recorded)))
    words, groups = aliased(view.record["design"] or {})
    if groups:
        items = list(map(html.Li, groups))
        made += [html.H3("Effects that are estimated as one"), parts.note(words), html.Ul(items, className="plain")]
    return made


def tuned(view: View) -> parts.Parts:
    """Says what tuning changed."""

    def make() -> parts.Parts | None:
        if view.recorded.tuning.empty:
            return None
        record = view.record["tuning"]
        lines = [
            [
                html.Span([parts.key(style.look_of(str(row["variant"]), view.looks).color), str(row["variant"])]),
                style.whole(row["fold"]),
                style.whole(row["tried"]) + (f", {row['failed']} failed" if row["failed"] else ""),
                style.number(row["own_value"]), style.number(row["value"]), style.number(row["own_test"]),
                style.number(row["test"]), "its own" if row["own"] else html.Code(shown(str(row["settings"]))),
            ]
            for row in style.records(tuning_changes(view.recorded.tuning))
        ]  # fmt: skip
        head = ["", parts.term("fold"), "settings tried", "validation: own", "chosen", "test: own", "chosen", "setting"]
        words = (
            f"Every variant and control tried {record.get('settings')} settings on each fold, drawn by "
            f"{record.get('sampler')} with seed {record.get('seed')}, its own first; the best by the "
            f"{metric_name(str(record.get('metric')))} is compared, with other seeds. Validation: the best of several "
            f"is flattered by the choice. Test: the {metric_name(str(view.record['metric']))} of the same trials, "
            "which chose nothing; one seed each, so no evidence of its own."
        )
        untuned = [f"Not tuned: {name}: {reason}." for name, reason in (record.get("untuned") or {}).items()]
        return [parts.table(head, lines, [7], "what tuning changed"), parts.note(words), *map(parts.note, untuned)]

    made = parts.attempted("What tuning changed", make)
    return [made] if made is not None else []


def unfinished(view: View) -> parts.Parts | None:
    """Tabulates the trials that failed, cannot be read, were stopped or have not ended, with the reason."""
    rows = view.recorded.trials[view.recorded.trials["state"] != "finished"]
    shown = rows.sort_values("state", key=lambda states: states.eq("pruned"), kind="stable").head(SHOWN)
    lines: list[list[Any]] = [
        [
            trial_link(view, str(row["trial_id"])), style.whole(row["seed"]), str(row["state"]),
            str(row["reason"] or "unknown"),
        ]
        for row in style.records(shown)
    ]  # fmt: skip
    for trial in view.status.begun[:SHOWN]:
        of = f" of {trial.planned}" if trial.planned is not None else ""
        state = "running" if trial.running else "begun"
        lines.append([trial.trial_id, style.NONE, state, f"{trial.epochs}{of} epochs done"])
    if not lines:
        return None
    more = len(rows) - len(shown)
    notes = [parts.note(f"And {more:,} more, in the table below.")] if more else []
    return [parts.table(["trial", "seed", "state", "reason"], lines, [0, 2, 3], "trials not finished"), *notes]


def trial_link(view: View, trial_id: str) -> Any:
    """Links to a trial's own page."""
    return dcc.Link(trial_id, href=view.at("trial", trial_id))


def trial_frame(view: View) -> pd.DataFrame:
    """The table of all trials: words first, the metric that is shown, then all others, empty columns left out."""

    def make() -> pd.DataFrame:
        frame = view.recorded.trials.drop(columns=["started"])
        names = {**(view.record["variants"] or {}), **(view.record["controls"] or {})}
        overrides = {name: " ".join(map(str, words or [])) for name, words in names.items()}
        frame.insert(7, "overrides", frame["variant"].map(overrides).fillna(""))
        frame["reason"] = frame["reason"].fillna("")
        return frame.dropna(axis=1, how="all")

    frame = view.read.memo("trial frame", make)
    primary = tables.primary_metric(view.results)
    metric = [name for name in (view.metric or primary, primary) if name in frame]
    first = ["trial_id", "variant", "seed", "fold", "state", *dict.fromkeys(metric), "wall_s"]
    first = [name for name in first if name in frame]
    return frame[[*first, *(name for name in frame if name not in first)]]


def trials(view: View) -> parts.Parts:
    """Shows every trial in a table that asks for its rows as they come into sight."""
    frame = trial_frame(view)
    if frame.empty:
        return [parts.empty("No trial has ended yet; each appears here as it ends.")]
    if not view.live:
        return [parts.file_table(frame, TRIALS_FILE)]
    words = (
        "Click a heading to sort, write below it to filter; a trial's name leads to its page. Sorted and filtered "
        "where the results lie: few rows travel at a time."
    )
    return [parts.note(words), trial_table.component(frame, view.read.name, "trials", view.address.state)]


def setup(view: View) -> parts.Parts:
    """Lists how the experiment was set up, and its methods section."""

    def facts() -> parts.Parts:
        record = view.record
        women, git = (record["data"] or {}).get("women") or {}, record["git"] or {}
        told: list[tuple[str, Any]] = [
            ("command", html.Code(str(record["command"] or "unknown"))),
            ("data", str((record["data"] or {}).get("source", "unknown"))),
            ("prepared exams", html.Code(str((record["data"] or {}).get("store_fingerprint", "unknown")))),
            ("women", ", ".join(f"{number} {split}" for split, number in women.items()) or "unknown"),
            ("seeds", ", ".join(map(str, record["seeds"]))),
            ("test folds", ", ".join(map(str, record["folds"])) or "as configured"),
            ("common overrides", html.Code(" ".join(map(str, record["base_overrides"])) or "none")),
            ("commit", html.Code(str(git.get("commit") or "unknown") + (" + changes" if git.get("dirty") else ""))),
            ("versions", ", ".join(f"{name} {number}" for name, number in (record["versions"] or {}).items())),
            ("machine", ", ".join(f"{name}: {value}" for name, value in (record["environment"] or {}).items())),
            ("created", str(record["created"] or "unknown")),
        ]
        return [parts.definitions(told)]

    def methods() -> parts.Parts:
        found = view.read.memo("methods", lambda: describe_methods(view.recorded))
        words = (
            "Written from the files of the results alone, for a paper to take over. The checklist has the topics of "
            f"CLAIM 2024 and TRIPOD+AI; {sum(item.open for item in found.checklist)} of {len(found.checklist)} are "
            "left to the authors."
        )
        made: parts.Parts = [parts.note(words)]
        for paragraph in found.paragraphs:
            made += [html.H3(paragraph.title), html.P(paragraph.text, className="prose")]
            if paragraph.items:
                made.append(html.Ul([html.Li(item) for item in paragraph.items], className="plain"))
        lines = [[item.topic, html.Em(item.answer) if item.open else item.answer] for item in found.checklist]
        listed = parts.table(["topic", "where it is answered"], lines, [1], "reporting checklist")
        return [*made, parts.folded("Checklist", listed)]

    made = [parts.attempted("Set-up", facts), parts.attempted("Methods", methods)]
    return [part for part in made if part is not None]
