"""All experiments in, what each asks, answers, costs and lacks out: the page that opens first."""

from typing import Any

import pandas as pd
from dash import dcc, html
from dash.development.base_component import Component

from dashboards import parts
from dashboards.address import Address
from dashboards.figures import style
from dashboards.source import Read
from siamray.sweeps.state import Status

MOST_FAILURES = 5
"""Reasons of failures that are listed of an experiment."""

MOST_NAMED = 4
_NAMED = ("above", "below", "equivalent")
_KINDS = (
    *_NAMED,
    "with no evidence of a difference",
    "with the very predictions of the reference",
    "with one seed: not told apart from its luck",
)

_STATES = {
    "running": ("▶", "running", "a driver runs it now"),
    "done": ("✓", "done", "nothing is left to run"),
    "stopped": ("‖", "stopped", "no driver runs it; its own command goes on where it stopped"),
    "failed": ("✕", "failures", "some trials failed; the same command tries them again"),
    "unreadable": ("!", "cannot be read", "its files are damaged, forbidden, or of a newer siamray"),
}


def overview(reads: list[Read], place: str, trouble: str = "") -> parts.Parts:
    """Makes the page.

    Args:
        reads: all experiments.
        place: where they lie.
        trouble: why the place cannot be looked at now, so that the experiments are those of before; "" = it can.
    """
    head = html.Header(
        [
            html.P("siamray, results", className="eyebrow"),
            html.H1("Experiments"),
            html.P([f"{style.count(len(reads), 'experiment')} in ", html.Code(place)], className="disclaimer"),
        ]
    )
    if trouble:
        head.children.append(parts.problem(f"What is shown is old: {trouble}"))
    if not reads and not trouble:
        words = (
            "No experiment here yet. Start one, for example: python -m siamray.sweep ablation=soft_labels "
            f"results={place}; it appears here within seconds."
        )
        return [head, parts.empty(words)]
    order = {"running": 0, "failed": 1, "unreadable": 1, "stopped": 2, "done": 3}
    newest = sorted(reads, key=_created, reverse=True)
    ordered = sorted(newest, key=lambda read: order[state_of(read)])
    return [head, html.Ul([_card(read) for read in ordered], className="cards")]


def state_of(read: Read) -> str:
    """Says in which state an experiment is: one of running, done, stopped, failed, unreadable."""
    if read.status is None:
        return "unreadable"
    if read.status.driver is not None:
        return "running"
    if _failed(read.status):
        return "failed"
    return "done" if _ended(read.status) else "stopped"


def badge(state: str) -> Component:
    """Shows a state by a sign, a word and a colour."""
    sign, word, meaning = _STATES[state]
    return html.Span([html.Span(sign, **parts.HIDDEN), f" {word}"], className=f"badge {state}", title=meaning)


def progress(status: Status) -> Component:
    """Shows how many of the trials have ended, in words and as a bar."""
    states = status.loaded.trials["state"]
    finished, failed = int((states == "finished").sum()), _failed(status)
    pruned, running = int((states == "pruned").sum()), sum(trial.running for trial in status.begun)
    planned = len(states) if _ended(status) else max(1, status.planned)
    words = [f"{finished:,} of {planned:,} trials finished"]
    words += [f"{number:,} {word}" for number, word in ((running, "running"), (pruned, "pruned"), (failed, "failed"))
              if number]  # fmt: skip
    widths = (("finished", finished), ("pruned", pruned), ("failed", failed), ("running", running))
    bar = [html.Span(className=f"part {kind}", style={"width": f"{100 * n / planned:.2f}%"}) for kind, n in widths if n]
    return html.Div([html.Span(", ".join(words)), html.Div(bar, className="bar", **parts.HIDDEN)], className="progress")


def cost_words(status: Status) -> str:
    """Says what the trials have cost so far."""
    sums = status.loaded.trials[["wall_s", "cpu_s", "gpu_s"]].sum()
    told = [f"{style.seconds(float(sums['wall_s']))} of trials", f"{style.seconds(float(sums['cpu_s']))} of processors"]
    told += [f"{style.seconds(float(sums['gpu_s']))} of GPUs"] if sums["gpu_s"] else []
    return ", ".join(told)


def left_words(status: Status) -> str:
    """Says how long the rest will take, or that nothing is left."""
    if _ended(status) and not _failed(status):
        return "nothing"
    if status.seconds_left is None:
        return "unknown until the first trial has finished"
    running = sum(trial.running for trial in status.begun)
    share = status.seconds_left / max(1, running)
    return f"about {style.seconds(share)}" + (f" with {running} trials at a time" if running > 1 else "")


def answer_words(status: Status) -> str:
    """Sums up the comparison by the primary metric in one sentence."""
    loaded = status.loaded
    record = loaded.experiment
    metric = record["metric"]
    if record["kind"] == "search" and len(loaded.comparison):
        metric = loaded.comparison["metric"].iloc[0]
    return tally_words(loaded.comparison[loaded.comparison["metric"] == metric])


def tally_words(rows: pd.DataFrame) -> str:
    """Counts the verdicts on the variants.

    Args:
        rows: of a comparison, by one metric.
    """
    told: dict[str, list[str]] = {}
    for row in style.records(rows[rows["role"] == "variant"]):
        if row["variant"] != row["reference"]:
            told.setdefault(_kind(row), []).append(str(row["variant"]))
    if not told:
        return "Nothing is compared yet."
    words = [
        f"{len(names)} {kind}" + (f" ({', '.join(names)})" if kind in _NAMED and len(names) <= MOST_NAMED else "")
        for kind in _KINDS
        if (names := told.get(kind))
    ]
    return f"Variants against {rows['reference'].iloc[0]}: {'; '.join(words)}."


def failures(status: Status) -> list[tuple[str, int]]:
    """Lists the reasons of failed and broken trials with how often each occurs, the most frequent first."""
    rows = status.loaded.trials[status.loaded.trials["state"].isin(["failed", "broken"])]
    counted = rows["reason"].fillna("unknown").value_counts()
    return [(str(reason) or "unknown", int(number)) for reason, number in counted.items()]


def _kind(row: dict[str, Any]) -> str:
    words = str(row["verdict"])
    for sign, kind in (
        ("one seed:", _KINDS[-1]),
        (f"{row['variant']} is above ", "above"),
        (f"{row['variant']} is below ", "below"),
        (f"{row['variant']} and ", "equivalent"),
        (f"{row['variant']} gives the predictions of ", _KINDS[4]),
    ):
        if words.startswith(sign):
            return kind
    return _KINDS[3]


def _ended(status: Status) -> bool:
    """Whether no trial is left to run but those that failed; a search that has selected has ended."""
    loaded = status.loaded
    if loaded.experiment["kind"] == "search" and len(loaded.selection) and status.driver is None:
        return not status.begun
    return not status.begun and not sum(status.waiting.values()) and bool(len(loaded.trials))


def _failed(status: Status) -> int:
    return int(status.loaded.trials["state"].isin(["failed", "broken"]).sum())


def _created(read: Read) -> str:
    return str(read.status.loaded.experiment["created"] or "") if read.status else ""


def _card(read: Read) -> Component:
    state = state_of(read)
    link = dcc.Link(read.name, href=Address("experiment", read.name).url, className="name")
    if read.status is None:
        return html.Li(
            [html.Div([html.H2(link), badge(state)], className="title"), parts.problem(read.problem)], className="card"
        )
    record = read.status.loaded.experiment
    facts = [
        *(
            [("cost", cost_words(read.status))]
            if state == "done"
            else [("cost so far", cost_words(read.status)), ("time left", left_words(read.status))]
        ),
        ("data", _data_words(record)),
        ("started", str(record["created"] or "unknown").replace("T", " ")),
    ]
    listed = failures(read.status)
    reasons = [html.Li([html.B(f"{number} × "), reason]) for reason, number in listed[:MOST_FAILURES]]
    if len(listed) > MOST_FAILURES:
        reasons.append(html.Li(f"and {len(listed) - MOST_FAILURES} more reasons"))
    return html.Li(
        [
            html.Div(
                [html.H2(link), html.Span(str(record["kind"]), className="kind"), badge(state)], className="title"
            ),
            html.P(str(record["question"]), className="asked"),
            html.P(answer_words(read.status), className="answer"),
            progress(read.status),
            parts.definitions(facts),
            html.Div([html.H3("Failures"), html.Ul(reasons, className="plain")]) if reasons else None,
            parts.problem(f"What is shown is old: {read.problem}") if read.problem else None,
        ],
        className="card",
    )


def _data_words(record: dict[str, Any]) -> str:
    data = record["data"] or {}
    women = data.get("women") or {}
    counts = ", ".join(f"{number} {split}" for split, number in women.items())
    return f"{data.get('source', 'unknown')}" + (f": women {counts}" if counts else "")
