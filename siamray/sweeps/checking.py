"""A configuration goes in; whether its cluster can run the sweep comes out, as a table, or a line per trouble."""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from siamray.cluster import connected
from siamray.config import Config
from siamray.errors import EXIT_USER_ERROR, UserError
from siamray.files import cache_folder
from siamray.nodes import Seen, examine
from siamray.pretraining.trainer import make_room
from siamray.sweeps.runner import concurrency


def check_cluster(config: Config, console: Console) -> None:
    """Tests every node of the cluster, and prints what was found.

    Args:
        config: of the sweep.
        console: the table is printed there; troubles go to standard error.

    Raises:
        UserError: there is no cluster, or it has no room for a trial, or the driver cannot write store or results.
        SystemExit: with exit code 2, after a line for every trouble.
    """
    places = {"store": config.store or str(cache_folder()), "results": config.results}
    with connected(config.cluster, same_software=False) as resources:
        if config.cluster.trials is not None:
            make_room(config.cluster, resources, console.print)
        found = examine(config.cluster, places)
        troubles = [trouble for seen in found for trouble in seen.troubles]
        try:
            at_a_time = concurrency(config.cluster, resources)
        except UserError as error:
            troubles.append(str(error))
    for trouble in troubles:
        print(f"siamray: {trouble}", file=sys.stderr)
    if troubles:
        raise SystemExit(EXIT_USER_ERROR)
    console.print(as_table(found, places))
    console.print(f"all is well: {len(found)} nodes, {at_a_time} trials at a time; nothing was run")


def as_table(found: list[Seen], places: dict[str, str]) -> Table:
    """One row per node."""
    speeds = [f"{option} MB/s" for option in places]
    table = Table(
        "node", "CPUs", "GPUs", "free GB", *speeds, "clock s", caption="MB/s: written, read; all nodes at once"
    )
    for seen in found:
        table.add_row(
            f"{seen.node}{' head' if seen.node.head else ''}",
            f"{seen.node.cpus:g}",
            f"{seen.node.gpus:g}",
            ", ".join(f"{Path(folder)} {free:.0f}" for folder, free in seen.free_gb.items()),
            *(f"{speed.write:.0f}, {speed.read:.0f}" for speed in seen.speeds.values()),
            f"{seen.clock:+.1f}",
        )
    return table
