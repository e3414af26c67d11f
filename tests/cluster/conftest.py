"""What tests on a cluster share: three hosts with Ray brought up on them, and a tiny sweep for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.hosts import Hosts, why_not
from tests.cluster.ray_up import Cluster


@contextmanager
def on_hosts(folder: Path) -> Iterator[Cluster]:
    """Three hosts, and the files of a cluster that is not up on them; skips where there can be none."""
    if reason := why_not():
        pytest.skip(reason)
    hosts = Hosts(folder / "hosts")
    try:
        yield Cluster(folder, hosts)
    finally:
        hosts.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of a head and two workers, up; where the tests have not, it is taken down at the end."""
    with on_hosts(tmp_path_factory.mktemp("cluster")) as made:
        refused = made.up()
        # Before there is a token nothing is started.
        assert refused.returncode != 0
        assert f"No such file or directory: '{made.laptop}/.ray/auth_token'" in refused.stderr
        assert not any(made.hosts.running(name) for name in made.hosts.names)
        made.make_token()
        # An overloaded machine has read Ray's files once a start has failed, and the next one may be in time.
        for _ in range(3):
            done = made.up()
            if done.returncode == 0:
                break
        assert done.returncode == 0, done.stdout + done.stderr
        made.wait_for_workers(2)
        yield made


def written(folder: Path) -> list[Path]:
    """The files below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]
