"""The check before ``ray up``, against three hosts by real ssh: ready, switched off, or without the user's key."""

import getpass
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import on_hosts
from tests.cluster.hosts import CHECKOUT
from tests.cluster.ray_up import Cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("SIAMRAY_HOSTS" not in os.environ, reason="needs hosts of its own; SIAMRAY_HOSTS=1 asks for it"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Hosts without Ray, and the machine of a user with a token."""
    with on_hosts(tmp_path_factory.mktemp("launch")) as made:
        made.make_token()
        (made.laptop / ".ray").chmod(0o700)
        yield made


def check(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "siamray.launch", str(cluster.file), *words]
    return subprocess.run(
        line, cwd=CHECKOUT, env=cluster.environment(), capture_output=True, text=True, check=False, timeout=120
    )


def test_hosts_by_real_ssh_are_ready_and_nothing_is_left_on_them(cluster: Cluster) -> None:
    done = check(cluster, f"store={cluster.shared}/store", "results=/dev/shm/results")
    said = done.stderr.strip().splitlines()
    # /dev/shm is each host's own: it is not the same for all.
    assert done.returncode == 2
    assert len(said) == 2
    assert all("results=/dev/shm/results: on host" in line and "(1 of 3 hosts' files" in line for line in said)
    done = check(cluster, f"store={cluster.shared}/store")
    assert (done.returncode, done.stderr) == (0, "")
    assert "is one folder for all 3 hosts" in re.sub(r"\s+", " ", done.stdout.replace("│", ""))
    assert done.stdout.endswith(f"ready: ray up {cluster.file}\n")
    assert not list(cluster.shared.rglob("*"))
    assert not (cluster.laptop / ".ssh" / "known_hosts").exists()


def test_a_host_that_is_off_and_a_key_that_is_not_known_are_named(cluster: Cluster) -> None:
    cluster.hosts.kill("h2")
    done = check(cluster)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert f"host {cluster.hosts.addresses[2]}: " in line
    assert "nothing listens to ssh there" in line or "cannot be reached by ssh" in line
    key = cluster.laptop / "another"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    cluster.file.write_text(cluster.file.read_text().replace(str(cluster.hosts.key), str(key)))
    said = check(cluster).stderr.strip().splitlines()
    assert sum(f"does not let {getpass.getuser()} in with {key}; ssh-copy-id -i {key}" in line for line in said) == 2
