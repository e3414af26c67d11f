"""An experiment, an address and a way of showing in, what every page asks for first out."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from dashboards import report, tables, tuning
from dashboards.address import Address
from dashboards.figures import style
from dashboards.source import Read
from siamray.sweeps.results import Results
from siamray.sweeps.state import Status


@dataclass(frozen=True)
class View:
    """What a page is made of.

    Attributes:
        read: the experiment, which could be read.
        address: what is shown of it.
        dark: whether figures are drawn for a dark page.
        live: whether the page asks a server for more; else it stands in a file by itself.
    """

    read: Read
    address: Address
    dark: bool = False
    live: bool = True

    def at(self, page: str | None = None, trial: str = "", **state: str) -> str:
        """The URL of another page of the same experiment, or of the same one with another choice.

        Args:
            page: another page; None stays and keeps what was chosen.
            trial: of the page trial.
            state: what is chosen there.
        """
        if page is None:
            return replace(self.address, state={**self.address.state, **state}).url
        return Address(page, self.read.name, trial, state).url

    def chosen(self, name: str, known: list[str]) -> str:
        """What was chosen, if it is one of those known; else the first of them; "" where there is none."""
        value = self.address.state.get(name, "")
        return value if value in known else (known[0] if known else "")

    @property
    def status(self) -> Status:
        """How far the experiment is."""
        assert self.read.status is not None
        return self.read.status

    @property
    def recorded(self) -> Results:
        """The results as they were read."""
        return self.status.loaded

    @property
    def record(self) -> dict[str, Any]:
        """experiment.json."""
        return self.recorded.experiment

    @cached_property
    def results(self) -> Results:
        """The results without trials that only chose settings."""
        return self.read.memo("results", lambda: tuning.compared(self.recorded))

    @property
    def is_search(self) -> bool:
        """Whether the experiment is a search."""
        return bool(self.record["kind"] == "search")

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that can be shown, the primary one first."""
        primary = tables.primary_metric(self.results)
        compared = list(dict.fromkeys(self.results.comparison["metric"]))
        columns = [str(name).removesuffix("_low") for name in self.results.trials if str(name).endswith("_low")]
        known = dict.fromkeys([*compared, *columns])
        first = [primary] if primary else []
        return list(dict.fromkeys([*first, *(name for name in known if not name.startswith("validation_")), *known]))

    @property
    def metric(self) -> str:
        """The metric that is shown."""
        if self.is_search:
            tested = list(dict.fromkeys(self.results.comparison["metric"]))
            return self.chosen("metric", tested)
        return self.chosen("metric", self.metrics)

    @cached_property
    def looks(self) -> dict[str, style.Look]:
        """Variant -> how it is drawn."""
        record = self.results.experiment
        return style.looks(record["variants"], record["controls"])

    @property
    def interval(self) -> str:
        """What the intervals are, in words."""
        return self.read.memo("interval", lambda: report.interval_words(self.results))

    def finished(self) -> pd.DataFrame:
        """The rows of finished trials."""
        return self.results.trials[self.results.trials["state"] == "finished"]
