"""Command: exams in, their store out, with a summary of what was used and what was left out.

``python -m siamray.prepare data=mias data.root=DIR``
``python -m siamray.prepare data=mias data.root=DIR inspect=true`` reads headers and tables only, and reports.
"""

import os
import shlex
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dashboards.inspection import write_page
from dashboards.inspection_text import render
from siamray.compose import compose
from siamray.config import Config
from siamray.data.contact_sheet import contact_sheet
from siamray.data.inspection import describe
from siamray.data.observation import observe
from siamray.data.preparation import prepare
from siamray.data.store import Store
from siamray.errors import UserError, run_command

# Columns of a report that goes into a file or a pipe, which have no width of their own.
PIPE_COLUMNS = 100


def main(words: list[str]) -> None:
    """Prepares the exams that the command line names, or inspects them, and prints what came of them."""
    config = compose("prepare", words)
    if config.inspect:
        inspect_exams(config, words)
        return
    start = time.monotonic()
    store = prepare(config)
    report(store, time.monotonic() - start)


def report(store: Store, seconds: float) -> None:
    """Prints what a store holds, and where it is.

    Args:
        store: the complete store.
        seconds: what preparing took.
    """
    console = Console()
    console.print(summary(store, seconds))
    # Not wrapped, so that the path can be copied.
    console.print(f"store: {store.path}", soft_wrap=True, highlight=False, markup=False)


def inspect_exams(config: Config, words: list[str]) -> None:
    """Prints what preparing would meet, and writes the page with the same and a contact sheet.

    Args:
        config: the configuration; data, preparation, page.
        words: the command line it comes from, for the page.

    Raises:
        UserError: the data set cannot be read, or the page cannot be written.
    """
    page = _writable(config.page)
    observed = observe(config)
    record = describe(observed, config).to_dict()
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=PIPE_COLUMNS)
    console.print(render(record), highlight=False)
    tiles = [tile.to_dict() for tile in contact_sheet(observed, config)]
    write_page(page, record, tiles, shlex.join(["python", "-m", "siamray.prepare", *words]))
    console.print(f"\npage: {page}", soft_wrap=True, highlight=False, markup=False)


def _writable(name: str) -> Path:
    """Makes the page's folder, so that a page that cannot be written is told before the headers are read.

    Raises:
        UserError: not a local file, a folder, or a folder that cannot be written to.
    """
    path = Path(name)
    if "://" in name or path.is_dir():
        raise UserError(f"page={name}: not a local file; name a file for the page, such as page=inspection.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        allowed = os.access(path.parent, os.W_OK)
    except OSError:
        allowed = False
    if not allowed:
        raise UserError(f"page={name}: its folder cannot be written to; name another file with page=")
    return path


def summary(store: Store, seconds: float) -> Table:
    """Makes the table of what a store holds.

    Args:
        store: the complete store.
        seconds: what preparing took.
    """
    entries, manifest, findings = store.entries, store.manifest, store.findings
    table = Table(title=f"prepared in {seconds:.0f} s", show_header=False, title_justify="left")
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    table.add_row("women", str(entries["woman_id"].nunique()))
    table.add_row("exams", str(entries["exam_id"].nunique()))
    table.add_row("views with both sides", str(len(entries)))
    table.add_row("findings with a place", f"{int(findings['row_min'].notna().sum())} of {len(findings)}")
    for kind, count in entries["registration_kind"].value_counts().items():
        table.add_row(f"registered by {kind}", str(count))
    table.add_row("mean overlap of the sides (Dice)", f"{entries['registration_dice'].mean():.3f}")
    table.add_row("images seen", str(len(manifest)))
    table.add_row("images left out", str(int((~manifest["used"]).sum())))
    for reason, count in manifest.loc[~manifest["used"], "reason"].value_counts().items():
        # As it is: what a reason names may stand in brackets.
        table.add_row(Text(f"  {reason}"), str(count))
    return table


if __name__ == "__main__":
    run_command(main)
