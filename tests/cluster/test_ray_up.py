"""``ray up`` of the on-premise file on three hosts: sweeps run across them, strangers are refused, nothing is left.

The tests are parts of one story, in order: they share a cluster, as bringing it up takes longest. They take ten minutes
on two cores that test something else meanwhile: SIAMRAY_HOSTS=1 asks for them.
"""

import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from siamray.pretraining import encoder
from siamray.sweeps import results
from tests.cluster.conftest import written
from tests.cluster.ray_up import PYTHON, S3_PORT, Cluster
from tests.cluster.sweeps import command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("SIAMRAY_HOSTS" not in os.environ, reason="takes ten minutes; SIAMRAY_HOSTS=1 asks for it"),
]


class Watcher:
    """Notes meanwhile on which hosts Ray Train's workers run."""

    def __init__(self, cluster: Cluster) -> None:
        self.seen: set[str] = set()
        self._cluster, self._over = cluster, threading.Event()

    def __enter__(self) -> "Watcher":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *given: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            for name in self._cluster.hosts.names:
                if any("RayTrainWorker" in line for line in self._cluster.hosts.running(name).values()):
                    self.seen.add(name)


def test_check_true_finds_three_nodes_well(cluster: Cluster) -> None:
    done = cluster.exec(command(cluster.shared, "checked", "check=true", "cluster.disk_gb=0.1"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all is well: 3 nodes, 2 trials at a time; nothing was run" in re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert not list((cluster.shared / "checked").iterdir())


def test_a_submitted_sweep_trains_on_both_worker_hosts_at_once(cluster: Cluster) -> None:
    with Watcher(cluster) as watcher:
        done = cluster.submit(command(cluster.shared, "submitted", "ablation=alone", "cluster.workers=2"))
    assert done.returncode == 0, done.stdout + done.stderr
    loaded = results.load(cluster.shared / "submitted" / "alone")
    assert loaded.trials.state.tolist() == ["finished"]
    assert watcher.seen == {"h1", "h2"}
    for name in loaded.trials.trial_id:
        facts = encoder.load(loaded.path / "trials" / name / "encoder").metadata
        assert (facts["world_size"], facts["batch_pairs"]) == (2, 16)
    assert (loaded.path / "report.html").exists()


@pytest.fixture
def s3(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Results on an S3 server that every host reaches; the workers' hosts keep copies of their own."""
    moto = ThreadedMotoServer(ip_address=f"{cluster.hosts.net}.1", port=S3_PORT, verbose=False)
    moto.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    words = {"ENDPOINT_URL": cluster.s3, "ACCESS_KEY_ID": "a-key", "SECRET_ACCESS_KEY": "a-secret-key"}
    for name, word in words.items():
        monkeypatch.setenv(f"AWS_{name}", word)
    boto3.client("s3", endpoint_url=cluster.s3, region_name="us-east-1").create_bucket(Bucket="bucket")
    copies = cluster.shared / "cache" / "results"
    copies.mkdir(parents=True, exist_ok=True)
    for name in cluster.hosts.names[1:]:
        cluster.hosts.inside(name, "mount", "-t", "tmpfs", "tmpfs", str(copies))
    yield "s3://bucket/results"
    for name in cluster.hosts.names[1:]:
        cluster.hosts.inside(name, "umount", str(copies))
    moto.stop()


def test_with_results_on_s3_the_workers_of_a_trial_need_no_common_folder(cluster: Cluster, s3: str) -> None:
    with Watcher(cluster) as watcher:
        words = ("ablation=alone", "cluster.workers=2", f"results={s3}")
        done = cluster.exec(command(cluster.shared, "", *words))
    assert done.returncode == 0, done.stdout + done.stderr
    assert watcher.seen == {"h1", "h2"}
    there = results.load(f"{s3}/alone")
    # On any number of machines, with a common folder or without one.
    here = results.load(cluster.shared / "submitted" / "alone")
    assert there.trials.state.tolist() == ["finished"]
    for name in [name for name in here.trials if "_auc" in name]:
        assert there.trials[name].tolist() == pytest.approx(here.trials[name].tolist(), nan_ok=True, abs=1e-12), name


def test_with_results_on_s3_a_pruner_is_told_and_answers(cluster: Cluster, s3: str) -> None:
    done = cluster.exec(command(cluster.shared, "", f"results={s3}", asked="search=rates"))
    assert done.returncode == 0, done.stdout + done.stderr
    there = results.load(f"{s3}/rates")
    assert len(there.trials) == 4
    assert "pruned" in set(there.trials.state) <= {"finished", "pruned"}
    assert [there.validation(name).epoch.tolist() for name in there.trials.trial_id] == [[1]] * 4
    # Both hosts were told: a trial waits for an answer for ten seconds, and then goes on.
    assert "Traceback" not in done.stdout


def test_a_sweep_by_ray_exec_runs_a_trial_on_each_host(cluster: Cluster) -> None:
    done = cluster.exec(command(cluster.shared, "executed"))
    assert done.returncode == 0, done.stdout + done.stderr
    loaded = results.load(cluster.shared / "executed" / "survivors")
    assert loaded.trials.state.tolist() == ["finished", "finished"]
    # Both began before either ended: there is one processor on each host.
    assert loaded.trials.started.max() <= loaded.trials.ended.min()


def test_the_token_is_in_no_result_log_command_line_or_environment(cluster: Cluster) -> None:
    assert len(cluster.token) >= 32
    for path in written(cluster.shared):
        assert cluster.token.encode() not in path.read_bytes(), path
    assert cluster.token not in cluster.file.read_text()
    for name in cluster.hosts.names:
        found = cluster.hosts.inside(name, "grep", "-rlsa", "--", cluster.token, "/tmp/ray", check=False)
        assert found.stdout == ""
        processes = 'grep -lsa -- "$1" /proc/[0-9]*/cmdline /proc/[0-9]*/environ | grep -v -e /$$/ -e self'
        found = cluster.hosts.inside(name, "sh", "-c", processes, "look", cluster.token, check=False)
        # But those that look for it.
        left = [line for line in found.stdout.splitlines() if Path(line).parent.name in _numbers(cluster, name)]
        assert left == [], found.stdout


def _numbers(cluster: Cluster, name: str) -> set[str]:
    return {str(number) for number in cluster.hosts.running(name)}


def test_who_has_no_token_is_refused_everywhere(cluster: Cluster) -> None:
    head = cluster.hosts.addresses[0]
    join = f"import ray; ray.init(address='{head}:6379', log_to_driver=False); print('in', ray.cluster_resources())"
    for environment in (
        {**cluster.environment(token=False), "RAY_AUTH_MODE": "disabled"},
        {**cluster.environment(token=False), "RAY_AUTH_TOKEN": "0" * 64},
    ):
        tried = subprocess.run(
            [PYTHON, "-c", join], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert tried.returncode != 0
        assert "in {" not in tried.stdout
        assert re.search("[Uu]nauthenticated|[Aa]uthentication", tried.stderr), tried.stderr[-2000:]
    with cluster.dashboard() as address:
        tried = cluster.ray("job", "submit", "--address", address, "--", "true", token=False)
        assert tried.returncode != 0
        code = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{address}/api/jobs/"]
        assert subprocess.run(code, capture_output=True, text=True, check=False).stdout == "401"


def test_ports_are_on_loopback_or_the_cluster_s_network_or_ask_for_the_token(cluster: Cluster) -> None:
    for name, address in zip(cluster.hosts.names, cluster.hosts.addresses, strict=True):
        lines = cluster.hosts.inside(name, "ss", "-Hltnp").stdout.splitlines()
        wide = set()
        for line in lines:
            local, process = line.split()[3], line.partition('(("')[2].partition('"')[0]
            host, _, port = local.rpartition(":")
            if host.strip("[]").removeprefix("::ffff:") not in ("127.0.0.1", "::1", address):
                wide.add((process, port))
        # The dashboard is on loopback alone.
        assert not any(port == "8265" for _, port in wide)
        # Ray binds its own servers (gRPC: they ask for the token, see above) and its exporters of metrics to every
        # address of a host; what listens there besides is ssh.
        known = ("gcs_server", "raylet", "ray::", "python", "sshd")
        assert all(process.startswith(known) for process, _ in wide), wide


def test_a_node_with_another_package_version_is_refused_in_one_line(cluster: Cluster) -> None:
    other = cluster.hosts.home("h2") / "other" / "timm-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 0.0.1\n")
    try:
        done = cluster.exec(command(cluster.shared, "refused"))
        assert done.returncode != 0
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("siamray: ")]
        assert re.match(rf"siamray: node h2 \({cluster.hosts.addresses[2]}\): timm is 0.0.1 and the driver's", line)
        assert "Traceback" not in done.stdout
        assert not list(cluster.shared.glob("refused/survivors/trials/*"))
        checked = cluster.exec(command(cluster.shared, "refused", "check=true", "cluster.disk_gb=100000"))
        lines = [line for line in checked.stdout.splitlines() if line.startswith("siamray: ")]
        assert sum("timm is 0.0.1" in line for line in lines) == 1
        assert sum("GB free at" in line for line in lines) >= 3
    finally:
        (other / "METADATA").unlink()
        other.rmdir()


def test_a_path_that_a_host_does_not_share_is_named_with_the_host(cluster: Cluster) -> None:
    private = cluster.shared / "private"
    private.mkdir()
    cluster.hosts.inside("h1", "mount", "-t", "tmpfs", "tmpfs", str(private))
    words = (f"results={private}", "check=true", "cluster.disk_gb=0.1")
    done = cluster.exec(command(cluster.shared, "unused", *words))
    cluster.hosts.inside("h1", "umount", str(private))
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("siamray: ")]
    assert f"node h1 ({cluster.hosts.addresses[1]}): results={private} is not there what it is for the driver" in line


def test_ray_down_leaves_no_process(cluster: Cluster) -> None:
    done = cluster.down()
    assert done.returncode == 0, done.stdout + done.stderr
    until = time.monotonic() + 120
    # The workers' Ray ends by itself once it has lost its head.
    while any(left := {name: cluster.hosts.running(name) for name in cluster.hosts.names}.values()):
        assert time.monotonic() < until, left
        time.sleep(1)
