"""A cluster configuration goes in, a connection to Ray comes out: on this machine, or to a running cluster."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType, TracebackType
from typing import Any

from siamray.config import ClusterConfig
from siamray.errors import EXIT_USER_ERROR, Halt, Interrupted, UserError
from siamray.nodes import refuse_other_versions

# A Ray that asks for no token lets everyone on its network run code. It looks when it is imported; imported before, it
# asks by itself from 2.59 on.
if "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
# Read by Ray when it is imported or started, so they come before either: the user's terminal is not Ray's log.
# Ray reports its use to its makers unless told not to; siamray sends nothing anywhere.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# A sweep takes the signals itself.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
# What remains when log_to_driver is off: on a raylet's death twenty lines of its log, on standard output.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")

# Seconds between two looks whether Ray is still there.
_LOOK_SECONDS = 1.0
# A cluster's head may be started again; Ray itself ends a driver that has not found it for a minute.
_ABSENT_SECONDS = 40.0
# A process of Ray's has closed its connections, so that Ray raises errors, before it counts as ended.
_DYING_SECONDS = 5.0
# How long a driver may take to end in order once its Ray has ended: Ray's own calls may wait for a minute or for ever.
_ORDER_SECONDS = 30.0
# Ray gives up a start after 30 s of its own at several places, and waits for ever at others.
_START_SECONDS = 120.0
# An overloaded machine has read Ray's files once a start has failed, and the next one may be in time.
_STARTS = 3
_IN_TIME_SECONDS = 20.0
# By it the watching thread stops the main one.
_SIGNAL = signal.SIGUSR2
_GOES_ON = "the same command goes on where it stopped"


class RayEnded(UserError):
    """The Ray that a command runs on has ended under it; what the command has done so far is on disk."""


@contextmanager
def connected(
    cluster: ClusterConfig, cpus: int | None = None, same_software: bool = True
) -> Iterator[dict[str, float]]:
    """Connects to Ray for the time of a block, and disconnects only what it connected.

    Ray waits for ever for a node that was killed, so the block is ended where Ray has ended.

    Args:
        cluster: its address names a running cluster; null starts Ray on this machine.
        cpus: processors of a Ray started here; None = all.
        same_software: whether nodes of a running cluster must have the versions that this process has.

    Yields:
        All resources of the cluster, such as {"CPU": 2.0}.

    Raises:
        UserError: if there is no cluster at the address, or a node has other versions, or Ray does not start here.
        RayEnded: it ended while the block ran.
    """
    import ray

    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    resources = _start(cluster, cpus)
    with _Watch(_missing_here() if cluster.address is None else _missing_there(cluster.address)) as watch:
        try:
            if same_software and cluster.address is not None:
                refuse_other_versions()
            yield resources
        except (Exception, KeyboardInterrupt, Halt) as error:
            # Ray answers a call that was interrupted by a KeyboardInterrupt, and one after its end by many an error.
            if isinstance(error, (UserError, Interrupted)) or not watch.look(lost(error)):
                raise
            raise RayEnded(watch.reason) from None
        finally:
            watch.leave()
            ray.shutdown()


def ended(dying: bool = False) -> str:
    """Says in one line that the Ray that this process is connected to has ended; "" where it has not, or none is.

    Args:
        dying: whether something was lost, so that it may be about to end: it is given some seconds for that.
    """
    return _watches[-1].look(dying) if _watches else ""


def beside_this_process() -> dict[str, Any]:
    """Options of an actor that other machines' loss shall not take away: on this node, without a processor."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return {"num_cpus": 0, "scheduling_strategy": here}


def lost(error: BaseException) -> bool:
    """Tells whether an error says that a part of Ray was lost, and not what a task has raised."""
    from ray import exceptions

    return isinstance(error, exceptions.RayError) and not isinstance(error, exceptions.RayTaskError)


def _start(cluster: ClusterConfig, cpus: int | None) -> dict[str, float]:
    """Starts Ray on this machine, or connects to a cluster; returns all resources."""
    import ray
    import ray.exceptions

    here = cluster.address is None
    absent = f"cluster.address={cluster.address}: no Ray cluster there"
    less_load = "start the same command again when the machine has less to do and memory to spare"
    handler, main = signal.getsignal(signal.SIGTERM), threading.current_thread() is threading.main_thread()
    left = _STARTS if here else 1
    while True:
        left -= 1
        begun, before = time.monotonic(), _children()
        try:
            with _Deadline(_START_SECONDS, f"Ray has not answered for {_START_SECONDS:.0f} s; {less_load}"):
                return _attempt(cluster, cpus)
        except SystemExit:
            # So Ray's own handler of SIGTERM ends the start of Ray; the one before it has ordered an abort in 3 s.
            if main:
                signal.alarm(0)
            for child in _children() - before:
                with suppress(Exception):
                    child.kill()
            raise Interrupted(signal.SIGTERM, half_started=True) from None
        except ConnectionError:
            ray.shutdown()
            if not here:
                raise UserError(f"{absent}; start one, or leave it null") from None
            raise UserError(f"Ray, started on this machine, does not answer; {less_load}") from None
        except ray.exceptions.AuthenticationError:
            ray.shutdown()
            raise UserError(
                f"cluster.address={cluster.address}: the cluster asks for a token, and not for the one here; copy its "
                "~/.ray/auth_token, or name the file by RAY_AUTH_TOKEN_PATH"
            ) from None
        # Ray has no type for it: RuntimeError, TimeoutError, FileNotFoundError and plain Exception were seen.
        except Exception as error:
            ray.shutdown()
            for child in _children() - before:
                with suppress(Exception):
                    child.kill()
            if left and time.monotonic() - begun > _IN_TIME_SECONDS:
                continue
            said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
            # Of the socket that it makes in a temporary folder.
            remedy = "name a shorter folder by TMPDIR" if "AF_UNIX path" in said else less_load
            reason = f"Ray does not start on this machine ({said}); {remedy}"
            raise UserError(reason if here else f"{absent} that answers ({said})") from None
        finally:
            if main:
                signal.signal(signal.SIGTERM, handler)


def _attempt(cluster: ClusterConfig, cpus: int | None) -> dict[str, float]:
    import ray

    here = cluster.address is None
    ray.init(
        # "local" and not null: a stale file of an ended Ray would make null try to join it.
        address="local" if here else cluster.address,
        num_cpus=cpus if here else None,
        # Train's clean-up of an early stopped trial asks the dashboard's State API, so workers need it.
        include_dashboard=(cluster.workers > 0) if here else None,
        log_to_driver=False,
        # A Ray that has ended says so by a line of the command, and what goes wrong is raised.
        logging_level=logging.CRITICAL,
    )
    resources: dict[str, float] = ray.cluster_resources()
    return resources


def _children() -> set[Any]:
    """The processes that this one has started and those have: Ray loses sight of its own when a start fails."""
    # Ray brings it along.
    processes: Any = import_module("psutil")
    return set(processes.Process().children(recursive=True))


def _missing_here() -> Callable[[], str]:
    """Makes the function that says which of Ray's processes on this machine has ended."""
    from ray._private import worker

    node: Any = worker._global_node

    def missing() -> str:
        dead = {name for name, _ in node.dead_processes()} & {"raylet", "gcs_server"}
        return f"Ray has ended on this machine (its {' and '.join(sorted(dead))} died); {_GOES_ON}" if dead else ""

    return missing


def _missing_there(address: str) -> Callable[[], str]:
    """Makes the function that says that a cluster's head, or this machine's node of it, is gone."""
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    own, seen = context.get_node_id(), time.monotonic()

    def missing() -> str:
        nonlocal seen
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            nodes = ray.nodes()
        # Ray has no type for it either.
        except Exception:
            if time.monotonic() - seen < _ABSENT_SECONDS:
                return ""
            return f"cluster.address={address}: the cluster has ended or cannot be reached any more; {_GOES_ON}"
        seen = time.monotonic()
        if any(node["NodeID"] == own and node["Alive"] for node in nodes):
            return ""
        return f"cluster.address={address}: the cluster's node on this machine has ended; start it, then {_GOES_ON}"

    return missing


class _Deadline:
    """Ends the process in one line where a block takes too long."""

    def __init__(self, seconds: float, line: str) -> None:
        self._timer = threading.Timer(seconds, _end_at_once, [line])
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()


class _Watch:
    """A thread that looks whether Ray is still there, and stops the main thread where it is not.

    Attributes:
        reason: why it has ended; "" while it is there.
    """

    def __init__(self, missing: Callable[[], str]) -> None:
        self.reason = ""
        self._missing = missing
        self._left, self._gone = threading.Event(), threading.Event()
        self._leaving = threading.Lock()
        self._before: Any = None

    def __enter__(self) -> "_Watch":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(_SIGNAL, self._stop)
        _watches.append(self)
        threading.Thread(target=self._run, name="siamray_watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gone.set()
        _watches.remove(self)
        if self._before is not None:
            signal.signal(_SIGNAL, self._before)

    def look(self, dying: bool = False) -> str:
        """Looks now, or for some seconds where Ray may be dying; returns the reason."""
        until = time.monotonic() + (_DYING_SECONDS if dying else 0)
        self.reason = self.reason or self._missing()
        while not self.reason and time.monotonic() < until:
            time.sleep(0.05)
            self.reason = self._missing()
        return self.reason

    def leave(self) -> None:
        """The block has ended: its thread is stopped no more, and has to disconnect in time."""
        with self._leaving:
            self._left.set()

    def _run(self) -> None:
        while not self.look():
            if self._left.wait(_LOOK_SECONDS):
                return
        until = time.monotonic() + _ORDER_SECONDS
        while time.monotonic() < until:
            with self._leaving:
                if not self._left.is_set() and self._before is not None:
                    signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
            # Again and again, as Ray may take what is raised for an error of a trial.
            if self._gone.wait(2 * _LOOK_SECONDS):
                return
        _end_at_once(self.reason)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self._left.is_set():
            raise Halt(self.reason)


# Those of the blocks that this process is in: one at most, as Ray knows one connection.
_watches: list[_Watch] = []


def _end_at_once(line: str) -> None:
    """Ends the process though its main thread waits for Ray; results are written atomically."""
    print(f"siamray: {line}", file=sys.stderr, flush=True)
    os._exit(EXIT_USER_ERROR)
