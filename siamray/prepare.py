"""Command: exams in, their store out, with a summary of what was used and what was left out.

``python -m siamray.prepare data=mias data.root=DIR``
"""

import time

from rich.console import Console
from rich.table import Table

from siamray.compose import compose
from siamray.data.preparation import prepare
from siamray.data.store import Store
from siamray.errors import run_command


def main(words: list[str]) -> None:
    """Prepares the exams that the command line names, and prints what came of them."""
    config = compose("prepare", words)
    start = time.monotonic()
    store = prepare(config)
    console = Console()
    console.print(summary(store, time.monotonic() - start))
    # Not wrapped, so that the path can be copied.
    console.print(f"store: {store.path}", soft_wrap=True, highlight=False)


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
        table.add_row(f"  {reason}", str(count))
    return table


if __name__ == "__main__":
    run_command(main)
