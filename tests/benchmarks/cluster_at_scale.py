"""A number of trials goes in; what a sweep of so many costs beside them, on a simulated cluster, comes out as a table.

Run: python -m tests.benchmarks.cluster_at_scale 1000 --nodes 64. Every node is a raylet of its own with processors
that are none; the trials do nothing but report an epoch and write their result, so that what is measured is what Ray
Tune and siamray's driver do about each of them.
"""

import argparse
import atexit
import dataclasses
import json
import os
import resource
import secrets
import shutil
import sys
import tempfile
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from siamray.compose import compose
from siamray.config import ClusterConfig
from siamray.provenance import software
from siamray.sweeps import results, runner
from siamray.sweeps.ablation import Trial, make_trial
from siamray.sweeps.contract import SCHEMA, TRIAL_KEYS
from siamray.sweeps.interruption import Interruption
from siamray.sweeps.progress import UNKNOWN, Progress, Shown
from siamray.sweeps.trial import trial_to_dict

MEGABYTE = 2**20
OBJECT_STORE_MB = 75


def leave_out_dashboards() -> None:
    """Lets Ray think that it was installed without its dashboard: the agents of nodes then have a third to do."""
    folder = Path(tempfile.mkdtemp(prefix="siamray-minimal-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "aiohttp_cors.py").write_text("raise ModuleNotFoundError('left out, for nodes without a dashboard')\n")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    sys.path.insert(0, str(folder))


def start(nodes: int, processors: int) -> Any:
    """Starts a head without processors, and nodes of so many each; connects to it."""
    # Read by Ray when it is imported. The token is of this simulation alone. Every node would start a process for
    # each of its processors before there is anything to do, and look at its machine every few seconds.
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ |= {"RAY_prestart_worker_first_driver": "0", "RAY_enable_worker_prestart": "0"}
    os.environ["REPORTER_UPDATE_INTERVAL_MS"] = str(3600 * 1000)
    leave_out_dashboards()
    import ray
    from ray.cluster_utils import Cluster

    small: dict[str, Any] = {"object_store_memory": OBJECT_STORE_MB * MEGABYTE, "include_log_monitor": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    try:
        for _ in range(nodes):
            # One after the other: all at once they would find no processor to start on.
            cluster.add_node(wait=True, num_cpus=processors, **small)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    except BaseException:
        cluster.shutdown()
        raise
    return cluster


def work_of(template: str) -> Any:
    """Makes a trial that does nothing: a function in a function goes to other processes as it is, without siamray."""

    def work(parameters: dict[str, Any]) -> None:
        import json
        from pathlib import Path

        from ray import tune

        specification = json.loads(parameters["specification"])
        folder = Path(specification["folder"])
        folder.mkdir(parents=True)
        trial = specification["trial"]
        record = {**json.loads(template), **{key: trial[key] for key in ("trial_id", "variant", "seed", "fold")}}
        (folder / "trial.json").write_text(json.dumps({**record, "config": trial["config"]}))
        tune.report({"epoch": 1})

    return work


def trials_of(number: int) -> list[Trial]:
    """Trials as an ablation has them, one a seed."""
    config = compose("sweep", ["ablation=soft_labels"])
    return [make_trial("soft", "variant", dataclasses.replace(config, seed=seed), "no data") for seed in range(number)]


class Memory:
    """Looks now and then how much memory this process has."""

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._process = import_module("psutil").Process()

    def __enter__(self) -> "Memory":
        threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *given: object) -> None:
        self._over.set()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            self.peak = max(self.peak, self._process.memory_info().rss)


def sweep(number: int, at_once: int, folder: Path) -> None:
    """Runs so many trials through the driver's own code, and prints what it cost."""
    experiment = folder / "many"
    trials = trials_of(number)
    record = {"name": "many", "variants": {"soft": []}, "trials": [trial.trial_id for trial in trials]}
    results.write_experiment(experiment, record)
    metrics = {f"patches_score{n}_auc": {"value": 0.7, "low": 0.6, "high": 0.8} for n in range(9)}
    template = json.dumps(
        {"schema": SCHEMA, **TRIAL_KEYS, "state": "finished", "metrics": metrics, "cost": {"wall_s": 1.0}}
    )
    specifications = {
        trial.trial_id: {
            "trial": trial_to_dict(trial),
            "store": "none",
            "folder": str(experiment / "trials" / trial.trial_id),
            "software": software(),
            "url": None,
        }
        for trial in trials
    }
    shown = Shown(
        Progress({trial.trial_id: trial for trial in trials}, set()), "quiet", Console(quiet=True), "none",
        lambda _: UNKNOWN,
    )  # fmt: skip
    before = import_module("psutil").Process().memory_info().rss
    own_work, runner._work = runner._work, work_of(template)
    begun, used = time.perf_counter(), time.process_time()
    try:
        with Memory() as memory, Interruption(lambda _: None) as interruption:
            failures = runner._in_rounds(
                specifications, ClusterConfig(failures=0), at_once, runner._Events(shown, experiment, interruption)
            )
    finally:
        runner._work = own_work
    wall, processor = time.perf_counter() - begun, time.process_time() - used
    begun = time.perf_counter()
    table = results.collect(experiment)
    collected = time.perf_counter() - begun
    size = (experiment / results.TRIALS_FILE).stat().st_size
    assert not failures, next(iter(failures.values()))
    assert table.state.eq("finished").sum() == number
    print(
        f"{number:>7,} {wall:>8.0f} {1000 * wall / number:>9.0f} {1000 * processor / number:>12.1f} "
        f"{before / 1e6:>9.0f} {memory.peak / 1e6:>9.0f} {collected:>9.1f} {size / 1e6:>8.2f}",
        flush=True,
    )


def main() -> None:
    """Simulates sweeps of the numbers given, one after the other, on one cluster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", type=int, nargs="+")
    parser.add_argument("--nodes", type=int, default=64, help="raylets; each has three processes of Python beside it")
    parser.add_argument("--processors", type=int, default=1, help="of each node")
    parser.add_argument("--at-once", type=int, default=8, help="trials at a time: as many processes on this machine")
    asked = parser.parse_args()
    begun = time.perf_counter()
    cluster = start(asked.nodes, asked.processors)
    took = time.perf_counter() - begun
    print(f"{asked.nodes} nodes of {asked.processors} processors in {took:.0f} s; {asked.at_once} trials at a time")
    print(" trials   wall s  ms/trial  driver's ms  MB at 0  MB peak  collect s  table MB")
    try:
        for number in asked.trials:
            folder = Path(tempfile.mkdtemp(prefix="siamray-many-"))
            try:
                sweep(number, asked.at_once, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        print(f"greatest memory of the driver: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    finally:
        import_module("ray").shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
