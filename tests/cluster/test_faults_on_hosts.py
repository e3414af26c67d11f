"""A sweep on three hosts of which one is lost, cut off or slow ends with the numbers of an undisturbed one.

Takes a quarter of an hour: SIAMRAY_HOST_FAULTS=1 asks for it. Prints the seconds that each fault cost.
"""

import os
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from siamray.sweeps import results
from tests.cluster.hosts import CHECKOUT, run
from tests.cluster.ray_up import RAY, Cluster
from tests.cluster.sweeps import command
from tests.sweeps.found import assert_same

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "SIAMRAY_HOST_FAULTS" not in os.environ, reason="takes a quarter of an hour; SIAMRAY_HOST_FAULTS=1 asks for it"
    ),
]
# Long enough that a fault comes in the middle.
LONG = ("pretraining.epochs=8", "pretraining.pairs_per_epoch=256")
CUT_OFF_SECONDS = 60


class Sweep:
    """A sweep by ``ray exec`` that is going on."""

    def __init__(self, cluster: Cluster, name: str, *words: str) -> None:
        self.cluster, self.folder = cluster, cluster.shared / name
        self.begun = time.monotonic()
        line = [RAY, "exec", str(cluster.file), "--no-config-cache", command(cluster.shared, name, *LONG, *words)]
        self.log = cluster.file.parent / f"{name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                line, cwd=CHECKOUT, env=cluster.environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def wait_for_epoch(self) -> None:
        """Waits until a trial has a checkpoint, and so is in the middle of its next epoch."""
        until = time.monotonic() + 400
        while not list(self.folder.rglob("checkpoint.pt")):
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)

    def end(self, seconds: float = 1800) -> int:
        """Waits for the end; returns its exit code."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return -1000

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun


@pytest.fixture(scope="module")
def calm(cluster: Cluster) -> Callable[[int], tuple[Path, float]]:
    """Gives an undisturbed sweep of trials in their own processes (0), or on two workers: where, and its seconds."""
    # The first one also prepares the store.
    assert Sweep(cluster, "first", "pretraining.epochs=1").end() == 0

    @cache
    def sweep_of(workers: int) -> tuple[Path, float]:
        sweep = Sweep(cluster, f"calm{workers}", f"cluster.workers={workers}")
        assert sweep.end() == 0, sweep.log.read_text()
        took = sweep.seconds
        print(f"\nundisturbed, cluster.workers={workers}: {took:.0f} s", flush=True)
        return sweep.folder, took

    return sweep_of


def host_of_rank_0(cluster: Cluster) -> str:
    """The host whose Ray Train worker writes the checkpoint."""
    for name in cluster.hosts.names[1:]:
        for number, line in cluster.hosts.running(name).items():
            if "RayTrainWorker" in line:
                environment = cluster.hosts.inside(name, "cat", f"/proc/{number}/environ", check=False).stdout
                if "RANK=0" in environment.split("\0"):
                    return name
    # Ray sets it in the process, which /proc does not always show: the first host of two is as good.
    return "h1"


def lose(name: str, back: bool) -> Callable[[Cluster], None]:
    def fault(cluster: Cluster) -> None:
        cluster.hosts.kill(name)
        if back:
            time.sleep(5)
            cluster.hosts.start(name)

    return fault


def lose_rank_0(cluster: Cluster) -> None:
    lose(host_of_rank_0(cluster), back=True)(cluster)


def cut_off(cluster: Cluster) -> None:
    run("ip", "link", "set", cluster.hosts.link("h2"), "down")
    time.sleep(CUT_OFF_SECONDS)
    run("ip", "link", "set", cluster.hosts.link("h2"), "up")


def slow_down(cluster: Cluster) -> None:
    """Delay and loss, or where the kernel has no netem a third of an ordinary network's bandwidth."""
    link = cluster.hosts.link("h2")
    netem = ("tc", "qdisc", "add", "dev", link, "root", "netem", "delay", "50ms", "20ms", "loss", "1%")
    if run(*netem, check=False).returncode == 0:
        print("  slow by netem: 50 ms +- 20 ms, 1 % lost")
        return
    run("tc", "qdisc", "add", "dev", link, "root", "tbf", "rate", "300mbit", "burst", "1mb", "latency", "200ms")
    print("  slow by tbf, as this kernel has no netem: 300 Mbit/s")


def make_fast(cluster: Cluster) -> None:
    run("tc", "qdisc", "delete", "dev", cluster.hosts.link("h2"), "root")


@pytest.mark.parametrize(
    ("name", "workers", "fault"),
    [
        ("worker host lost and back", 0, lose("h2", back=True)),
        ("host of rank 0 lost and back", 2, lose_rank_0),
        ("host cut off for 60 s", 0, cut_off),
        ("slow host", 2, slow_down),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_a_fault_of_a_host_costs_time_and_changes_no_number(
    name: str,
    workers: int,
    fault: Callable[[Cluster], None],
    cluster: Cluster,
    calm: Callable[[int], tuple[Path, float]],
) -> None:
    cluster.wait_for_workers(2)
    expected, undisturbed = calm(workers)
    sweep = Sweep(cluster, name.replace(" ", "_"), f"cluster.workers={workers}")
    sweep.wait_for_epoch()
    fault(cluster)
    code = sweep.end()
    took = sweep.seconds
    if fault is slow_down:
        make_fast(cluster)
    print(f"{name}: exit code {code}, {took:.0f} s, lost {took - undisturbed:.0f} s", flush=True)
    assert code == 0, sweep.log.read_text()
    assert_same(sweep.folder, expected)
    assert not results.load(sweep.folder / "survivors").unfinished
    # No worker is left over.
    until = time.monotonic() + 120
    while any("RayTrainWorker" in line for host in ("h1", "h2") for line in cluster.hosts.running(host).values()):
        assert time.monotonic() < until
        time.sleep(1)


def test_a_driver_that_is_killed_goes_on_when_the_command_is_given_again(
    cluster: Cluster, calm: Callable[[int], tuple[Path, float]]
) -> None:
    cluster.wait_for_workers(2)
    expected, undisturbed = calm(0)
    sweep = Sweep(cluster, "driver_killed", "cluster.workers=0")
    sweep.wait_for_epoch()
    drivers = [number for number, line in cluster.hosts.running("h0").items() if "-m siamray.sweep" in line]
    cluster.hosts.inside("h0", "kill", "-KILL", *map(str, drivers))
    assert sweep.end() != 0
    again = Sweep(cluster, "driver_killed", "cluster.workers=0")
    assert again.end() == 0, again.log.read_text()
    print(f"driver killed: lost {sweep.seconds - undisturbed:.0f} s", flush=True)
    assert_same(sweep.folder, expected)
