"""A Ray that does not start, or ends, is said in one line."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import ray

from siamray import cluster
from siamray.cluster import RayEnded, connected, ended
from siamray.config import ClusterConfig
from siamray.errors import Halt, Interrupted, UserError


def refusing(error: BaseException) -> Callable[..., None]:
    def init(**given: object) -> None:
        raise error

    return init


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup. This could happen because"),
        RuntimeError("\nFailed to start GCS.  Last 0 lines of error files:\n\nPlease check gcs_server.out"),
        TimeoutError("Timed out after 30 seconds while waiting for node to startup."),
        ConnectionError("Could not connect"),
        FileNotFoundError("gcs_server_port"),
    ],
)
def test_a_ray_that_does_not_start_is_said_in_one_line_with_a_remedy(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", refusing(error))
    with pytest.raises(UserError, match="machine has less to do") as refused, connected(ClusterConfig()):
        pass
    assert "\n" not in str(refused.value)
    there = ClusterConfig(address="10.0.0.1:6379")
    with pytest.raises(UserError, match=r"cluster.address=10.0.0.1:6379: no Ray cluster there"), connected(there):
        pass


def test_a_cluster_whose_token_is_another_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", refusing(ray.exceptions.AuthenticationError("InvalidAuthToken: missing")))
    with (
        pytest.raises(UserError, match=r"address=10.0.0.1:6379: the cluster asks for a token, .* RAY_AUTH_TOKEN_PATH"),
        connected(ClusterConfig(address="10.0.0.1:6379")),
    ):
        pass


def test_a_start_that_was_too_slow_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def init(**given: object) -> None:
        tried.append(subprocess.Popen(["sleep", "600"]))
        if len(tried) < 3:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(cluster, "_missing_here", lambda: lambda: "")
    monkeypatch.setattr(cluster, "_IN_TIME_SECONDS", 0.0)
    with connected(ClusterConfig()) as resources:
        assert resources == {"CPU": 2.0}
    # What a failed start has left takes no part in the next one.
    assert [process.wait(60) for process in tried[:2]] == [-signal.SIGKILL] * 2
    tried[2].kill()


def test_a_signal_while_ray_starts_ends_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**given: object) -> None:
        # As Ray's own handler of SIGTERM does: an abort if the process has not ended by itself in a few seconds.
        signal.alarm(60)
        raise SystemExit(1)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(Interrupted) as interrupted, connected(ClusterConfig()):
        pass
    assert interrupted.value.code == 143
    assert signal.alarm(0) == 0
    assert interrupted.value.half_started
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_process_that_crashes_at_its_end_as_ray_was_half_started_ends_in_one_line() -> None:
    code = (
        "import atexit, os, ray\n"
        "from siamray import cluster\n"
        "from siamray.config import ClusterConfig\n"
        "from siamray.errors import run_command\n"
        "def init(**given): raise SystemExit(1)\n"
        "ray.init = init\n"
        "atexit.register(os.abort)\n"
        "def main(words):\n"
        "    with cluster.connected(ClusterConfig()): pass\n"
        "print('found')\n"
        "run_command(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 143
    assert done.stdout == "found\n"
    assert done.stderr == "siamray: interrupted; the same command goes on where this one stopped\n"


def test_a_start_that_hangs_ends_in_one_line() -> None:
    code = (
        "import time, ray\n"
        "from siamray import cluster\n"
        "from siamray.config import ClusterConfig\n"
        "cluster._START_SECONDS = 0.5\n"
        "ray.init = lambda **given: time.sleep(600)\n"
        "with cluster.connected(ClusterConfig()): pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("siamray: Ray has not answered for 0 s; start the same command again")
    assert done.stderr.count("\n") == 1


def test_a_block_whose_ray_ends_is_ended_though_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = False
    monkeypatch.setattr(cluster, "_LOOK_SECONDS", 0.01)

    def wait() -> None:
        nonlocal dead
        with cluster._Watch(lambda: "Ray has ended" if dead else ""):
            assert ended() == ""
            dead = True
            time.sleep(600)

    before = signal.getsignal(signal.SIGUSR2)
    with pytest.raises(Halt, match="Ray has ended"):
        wait()
    assert ended() == ""
    assert signal.getsignal(signal.SIGUSR2) == before


def test_a_ray_that_is_dying_when_its_error_comes_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    died = time.monotonic() + 0.5
    monkeypatch.setattr(cluster, "_start", lambda *_: {})
    monkeypatch.setattr(cluster, "_missing_here", lambda: lambda: "it died" if time.monotonic() > died else "")
    with pytest.raises(RayEnded, match="it died"), connected(ClusterConfig()):
        raise ray.exceptions.LocalRayletDiedError()
    # What a program raises by itself is no sign of a dying Ray.
    died = time.monotonic() + 600
    with pytest.raises(ZeroDivisionError), connected(ClusterConfig()):
        raise ZeroDivisionError


@pytest.mark.slow
def test_a_killed_node_ends_a_block_that_waits_for_it() -> None:
    from ray._private import worker

    def wait() -> None:
        with connected(ClusterConfig(), 1):
            node: Any = worker._global_node
            next(process for name, process in node.live_processes() if name == "raylet").kill()
            ray.get(ray.remote(lambda: 1).remote())

    with pytest.raises(RayEnded, match=r"its raylet died\); the same command goes on where it stopped"):
        wait()
    assert not ray.is_initialized()
