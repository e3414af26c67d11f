"""What variants are worth over several tasks and data sets goes in; tables for a terminal and for files come out."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from siamray.errors import UserError
from siamray.files import write_atomically
from siamray.sweeps.ranks import Ranking
from siamray.sweeps.results import write_parquet
from siamray.sweeps.tables import interval

PAGE_SUFFIX = ".html"
SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Across:
    """What variants are worth over all tasks, a task being a metric on a data set.

    Attributes:
        experiments: names of the experiments, one of each data set.
        reference: the variant that the others are compared with.
        controls: those of the variants that are controls.
        tasks: experiment, metric, women, seeds, folds: a row per task.
        means: MEAN_COLUMNS of siamray.sweeps.aggregate, the reference first.
        profiles: PROFILE_COLUMNS of siamray.sweeps.aggregate.
        ranked_by: the metric by which variants are ranked on every data set.
        ranking: mean ranks over the data sets; None where they do not justify any.
        unranked: why not; "" where they are ranked.
        confidence: coverage of the intervals; 1 - confidence is the level of the ranks' test.
        notes: what a reader must know, one line each.
    """

    experiments: list[str]
    reference: str
    controls: list[str]
    tasks: pd.DataFrame
    means: pd.DataFrame
    profiles: pd.DataFrame
    ranked_by: str
    ranking: Ranking | None
    unranked: str
    confidence: float
    notes: list[str]


def render(found: Across) -> Iterator[Table | Text]:
    """Makes the report for a terminal.

    Args:
        found: over some experiments.

    Yields:
        Its parts, the most general first.
    """
    tasks = f"{len(found.tasks)} task{'s' * (len(found.tasks) != 1)}"
    share = f"{100 * found.confidence:g} %"
    table = Table(
        title=Text(f"interquartile mean over {tasks} of {', '.join(found.experiments)}", style="bold"),
        caption=Text(
            "of scores above chance: 0 = chance, 1 = all; the mean of the middle half of all runs\n"
            f"[..]: {share} intervals, bootstrap over women and seeds, stratified by data set; no test\n"
            f"difference: from {found.reference}, over the same women and seeds"
        ),
        title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for name in ("", "value", "difference", "tasks", "seeds"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=bool(name))
    for row in found.means.to_dict("records"):
        reference = row["variant"] == found.reference
        table.add_row(
            Text(str(row["variant"]) + (" (control)" if row["variant"] in found.controls else "")),
            Text(interval(row["value"], row["low"], row["high"])),
            Text(
                "reference"
                if reference
                else interval(row["effect"], row["effect_low"], row["effect_high"], signed=True)
            ),
            str(row["tasks"]),
            str(row["seeds"]),
        )
    yield table
    listed = Table("data set", "metric", "women", "seeds", "folds", box=box.SIMPLE_HEAD)
    for row in found.tasks.to_dict("records"):
        listed.add_row(Text(str(row["experiment"])), *(str(row[key]) for key in ("metric", "women", "seeds", "folds")))
    yield listed
    yield from _ranks(found)
    for note in [*dict.fromkeys(note for note in found.means["note"] if note), *found.notes]:
        yield Text(f"note: {note}")


def ranks_table(found: Across) -> pd.DataFrame:
    """Tabulates the mean ranks.

    Args:
        found: over some experiments.

    Returns:
        variant, rank (mean over the data sets, 1 = best), groups (numbers of those not told apart that it is in).
    """
    if found.ranking is None:
        return pd.DataFrame(columns=["variant", "rank", "groups"])
    rows = [
        {"variant": name, "rank": rank, "groups": " ".join(_groups_of(str(name), found.ranking))}
        for name, rank in found.ranking.average_ranks.items()
    ]
    return pd.DataFrame(rows)


def write_tables(found: Across, out: Path) -> list[Path]:
    """Writes means, profiles and, where there are any, ranks as tables.

    Args:
        found: over some experiments.
        out: the file of the means, its suffix one of SUFFIXES; the others' names end in _profiles and _ranks.

    Returns:
        The files written.

    Raises:
        UserError: another suffix, or the folder cannot be written to.
    """
    if out.suffix not in SUFFIXES:
        raise UserError(f"out={out}: name a file that ends in {PAGE_SUFFIX}, {' or '.join(SUFFIXES)}")
    named = {"": found.means, "_profiles": found.profiles, "_ranks": ranks_table(found)}
    written = []
    for end, table in named.items():
        if len(table):
            path = out.with_name(f"{out.stem}{end}{out.suffix}")
            if out.suffix == ".csv":
                write_atomically(path, partial(table.to_csv, index=False))
            else:
                write_parquet(path, table)
            written.append(path)
    return written


def _ranks(found: Across) -> Iterator[Table | Text]:
    ranking = found.ranking
    if ranking is None:
        yield Text(f"no ranks: {found.unranked}")
        return
    # Lines of their own, as a title would be as narrow as the table.
    yield Text(f"mean ranks by {found.ranked_by} over {ranking.blocks} data sets", style="bold")
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "mean rank", "groups"):
        table.add_column(name, justify="left" if not name else "right")
    for row in ranks_table(found).to_dict("records"):
        table.add_row(Text(str(row["variant"])), f"{row['rank']:.2f}", str(row["groups"]))
    yield table
    yield Text(
        f"Friedman p {ranking.p:.3g}; told apart: ranks that differ by {ranking.critical_difference:.2f} or more "
        "(Nemenyi); variants of one group are not"
    )


def _groups_of(variant: str, ranking: Ranking) -> list[str]:
    return [str(number) for number, group in enumerate(ranking.groups, 1) if variant in group and len(group) > 1]
