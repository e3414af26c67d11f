"""Starts, epochs and ends of a sweep's trials come in; how far it is, what it costs and what is best so far is shown.

Four ways: ``live`` is a table that is drawn anew, ``lines`` a line per trial that ends, ``json`` an object a line per
event, ``quiet`` nothing. All go to standard error, so that standard output holds the results alone.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from siamray.sweeps.ablation import Trial

# A metric's mean over trials and the ends of its interval; NaN where there is none.
Standing = tuple[float, float, float]
UNKNOWN: Standing = (math.nan, math.nan, math.nan)
# A table longer than a terminal would flicker.
GREATEST_ROWS = 24


@dataclass
class Progress:
    """How far a sweep is.

    Attributes:
        trials: all of them, by id.
        earlier: ids of those that need not run any more.
        clock: gives seconds.
    """

    trials: dict[str, Trial]
    earlier: set[str]
    clock: Callable[[], float] = time.monotonic
    finished: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    _running: dict[str, float] = field(default_factory=dict)
    _reached: dict[str, int] = field(default_factory=dict)
    _steps_now: int = 0
    _reserved: float = 0.0

    def __post_init__(self) -> None:
        self._begun = self.clock()

    def start(self, trial_id: str) -> None:
        """A trial starts."""
        self._running.setdefault(trial_id, self.clock())

    def epoch(self, trial_id: str, epoch: int) -> None:
        """A trial has reached an epoch; one that is resumed starts in the middle, and tells no epoch twice."""
        self.start(trial_id)
        if epoch > self._reached.get(trial_id, -1):
            self._steps_now += 1
            self._reached[trial_id] = epoch

    def end(self, trial_id: str, failed: bool) -> None:
        """A trial has ended."""
        if trial_id in self._running:
            self._reserved += self._processor_seconds(trial_id)
            del self._running[trial_id]
        (self.failed if failed else self.finished).add(trial_id)

    @property
    def done(self) -> int:
        """Trials that are finished, now or before, or failed."""
        return len(self.earlier) + len(self.finished) + len(self.failed)

    @property
    def running(self) -> dict[str, tuple[int, int]]:
        """The trials that run: the epoch each has reached, and how many it has."""
        return {
            name: (self._reached.get(name, 0), self.trials[name].config.pretraining.epochs) for name in self._running
        }

    @property
    def elapsed(self) -> float:
        """Seconds since this run began."""
        return self.clock() - self._begun

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes if it goes on as so far; None before anything is known.

        Counted in epochs with the evaluation as one more, as variants may train for different times.
        """
        if not self._steps_now:
            return None
        over = self.earlier | self.finished | self.failed
        rest = sum(
            max(0, steps(trial) - self._reached.get(name, 0)) for name, trial in self.trials.items() if name not in over
        )
        return self.elapsed / self._steps_now * rest

    @property
    def processor_hours(self) -> float:
        """Hours of the processors that trials have reserved in this run, which is what a cluster bills."""
        return (self._reserved + sum(map(self._processor_seconds, self._running))) / 3600

    def of_variant(self, variant: str) -> tuple[int, int, int]:
        """Trials of a variant that are finished, that failed, and all of them."""
        own = {name for name, trial in self.trials.items() if trial.variant == variant}
        return len(own & (self.finished | self.earlier)), len(own & self.failed), len(own)

    def _processor_seconds(self, trial_id: str) -> float:
        asked = self.trials[trial_id].config.cluster
        return (self.clock() - self._running[trial_id]) * asked.cpus * max(1, asked.workers)


def steps(trial: Trial) -> int:
    """Counts what a trial reports: its epochs, and its evaluation."""
    return trial.config.pretraining.epochs + 1


class Shown:
    """Takes the events of a sweep and shows them in one of the four ways.

    Attributes:
        progress: what the events add up to.
    """

    def __init__(
        self, progress: Progress, how: str, console: Console, metric: str, standing: Callable[[str], Standing]
    ) -> None:
        """Shows nothing yet.

        Args:
            progress: of the sweep.
            how: live, lines, json or quiet.
            console: standard error.
            metric: the primary metric.
            standing: gives a variant's metric over its trials finished so far; asked after each end of one of them.
        """
        self.progress = progress
        self._how, self._console, self._metric, self._standing = how, console, metric, standing
        self._standings: dict[str, Standing] = {}
        for name in sorted(progress.earlier):
            self._standings.setdefault(progress.trials[name].variant, UNKNOWN)
        for variant in self._standings:
            self._standings[variant] = standing(variant)
        self._live: Live | None = None

    def say(self, line: str) -> None:
        """Tells the user something beside the events; a log for machines holds events alone."""
        if self._how in ("live", "lines"):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator["Shown"]:
        """Draws the table for the time of a block, where there is one."""
        if self._how != "live":
            yield self
            return
        with Live(get_renderable=self.table, console=self._console, refresh_per_second=1, transient=True) as live:
            self._live = live
            yield self
        self._console.print(self.table())

    def start(self, trial_id: str) -> None:
        """A trial starts."""
        self.progress.start(trial_id)
        self._record("started", trial_id)

    def epoch(self, trial_id: str, epoch: int) -> None:
        """A trial has reached an epoch."""
        self.progress.epoch(trial_id, epoch)
        if epoch <= self.progress.trials[trial_id].config.pretraining.epochs:
            self._record("epoch", trial_id, epoch=epoch)

    def end(self, trial_id: str, failed: bool, reason: str = "") -> None:
        """A trial has ended.

        Args:
            trial_id: which.
            failed: whether it has no result.
            reason: why not.
        """
        self.progress.end(trial_id, failed)
        variant = self.progress.trials[trial_id].variant
        if not failed:
            self._standings[variant] = self._standing(variant)
        self._record("failed" if failed else "finished", trial_id, **({"reason": reason} if failed else {}))
        if self._how in ("lines", "live"):
            word = f"failed: {reason or 'see its trial.json'}  " if failed else ""
            line = f"{self.progress.done}/{len(self.progress.trials)}  {word}{trial_id}"
            if self._how == "lines":
                value = "" if failed else f"  {variant} {_interval(self._standings[variant])}"
                line += f"{value}  {self._times()}"
            if failed or self._how == "lines":
                style = "red" if failed else "dim"
                self._console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    def table(self) -> Table:
        """Draws one row per variant, the best first, and a caption with progress, cost and time left."""
        table = Table(box=None, pad_edge=False, caption=self._caption(), caption_justify="left", title_justify="left")
        for name, justify in (("variant", "left"), ("trials", "right"), (self._metric, "left"), ("running", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        running = self.progress.running
        variants = list(dict.fromkeys(trial.variant for trial in self.progress.trials.values()))
        variants.sort(key=lambda name: -_finite(self._standings.get(name, UNKNOWN)[0], -math.inf))
        for variant in variants[:GREATEST_ROWS]:
            finished, failed, total = self.progress.of_variant(variant)
            of_failed = f" ({failed} failed)" if failed else ""
            own = [
                f"seed {trial.seed} fold {trial.fold}: {reached}/{epochs}"
                for name, (reached, epochs) in running.items()
                if (trial := self.progress.trials[name]).variant == variant
            ]
            value = _interval(self._standings.get(variant, UNKNOWN))
            table.add_row(variant, f"{finished}/{total}{of_failed}", value, ", ".join(own[:3]))
        if len(variants) > GREATEST_ROWS:
            table.add_row(f"and {len(variants) - GREATEST_ROWS} more", "", "", "")
        return table

    def _caption(self) -> Text:
        progress = self.progress
        failed = f", {len(progress.failed)} failed" if progress.failed else ""
        return Text(f"{progress.done} of {len(progress.trials)} trials{failed}; {self._times()}; unpaired, no test yet")

    def _times(self) -> str:
        left = self.progress.left
        rest = "" if left is None else f", about {duration(left)} left"
        return f"{duration(self.progress.elapsed)}{rest}, {self.progress.processor_hours:.2f} CPU hours"

    def _record(self, event: str, trial_id: str, **more: Any) -> None:
        if self._how != "json":
            return
        trial, left = self.progress.trials[trial_id], self.progress.left
        record: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "event": event,
            "trial_id": trial_id,
            "variant": trial.variant,
            "seed": trial.seed,
            "fold": trial.fold,
            **more,
            "done": self.progress.done,
            "failed": len(self.progress.failed),
            "trials": len(self.progress.trials),
            "seconds": round(self.progress.elapsed, 1),
            "seconds_left": None if left is None else round(left),
            "cpu_hours": round(self.progress.processor_hours, 4),
        }
        if event == "finished":
            found = self._standings[trial.variant]
            names = (self._metric, f"{self._metric}_low", f"{self._metric}_high")
            record |= {name: None if math.isnan(x) else x for name, x in zip(names, found, strict=True)}
        self._console.print(json.dumps(record), markup=False, highlight=False, soft_wrap=True)


def way(asked: str, console: Console) -> str:
    """Says how to show: ``auto`` is live on a terminal and lines where the output is kept."""
    if asked != "auto":
        return asked
    return "live" if console.is_terminal else "lines"


def duration(seconds: float) -> str:
    """Writes seconds as one reads them: 40 s, 12 min, 3 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _interval(standing: Standing) -> str:
    value, low, high = standing
    if math.isnan(value):
        return ""
    return f"{value:.3f}" + ("" if math.isnan(low) or math.isnan(high) else f" [{low:.3f}, {high:.3f}]")


def _finite(value: float, otherwise: float) -> float:
    return value if math.isfinite(value) else otherwise
