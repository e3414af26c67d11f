"""A cluster that this process is connected to goes in; what each node is like, and what is wrong with it, comes out.

A node that differs makes other numbers, or loses trials hours later: it is refused before anything is computed.
"""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamray.config import ClusterConfig
from siamray.errors import UserError
from siamray.files import Location, cache_folder, location, reaching, read_bytes, writing_to
from siamray.provenance import software

# Of the file by which the speed of a folder is measured: a second at the least speed, a moment at the usual ones.
PROBE_MB = 8
# A batch of 64 pairs of 64 pixels is 1 MB, and a processor trains several a second: below, reading takes longer.
LEAST_MB_PER_S = 2.0
# Requests to object stores are refused at 15 minutes, drivers tell dead ones by a minute; ntp keeps milliseconds.
CLOCK_SECONDS = 2.0
# A node that has much to do starts a process and imports siamray in so long.
_ANSWER_SECONDS = 120.0
_VERSIONS = "install the versions of the driver's machine there (experiments/cluster/launch/requirements.txt)"


@dataclass(frozen=True)
class Node:
    """A node as Ray knows it."""

    node_id: str
    host: str
    address: str
    head: bool
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return self.address if self.host == self.address else f"{self.host} ({self.address})"


@dataclass(frozen=True)
class Speed:
    """What a folder is like from a node, in MB per second; a trouble instead of numbers where it cannot be used."""

    write: float = float("nan")
    read: float = float("nan")
    trouble: str = ""


@dataclass
class Seen:
    """What an examination of a node found.

    Attributes:
        node: the node.
        free_gb: folder -> free space.
        gpus: that torch can compute on.
        speeds: option that names a folder -> its speed.
        clock: seconds that its clock is ahead of the driver's.
        troubles: one line each, with the remedy.
    """

    node: Node
    free_gb: dict[str, float] = field(default_factory=dict)
    gpus: int = 0
    speeds: dict[str, Speed] = field(default_factory=dict)
    clock: float = 0.0
    troubles: list[str] = field(default_factory=list)


def nodes() -> list[Node]:
    """The nodes that are alive, the head first."""
    import ray

    found = [
        Node(
            node_id=str(node["NodeID"]),
            host=str(node["NodeManagerHostname"]),
            address=str(node["NodeManagerAddress"]),
            head="node:__internal_head__" in node["Resources"],
            cpus=float(node["Resources"].get("CPU", 0.0)),
            gpus=float(node["Resources"].get("GPU", 0.0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(found, key=lambda node: (not node.head, node.address, node.node_id))


def differing(driver: dict[str, str]) -> str:
    """Says in which packages this process differs from a driver; "" where in none.

    Args:
        driver: software() of the driver.
    """
    here = software()
    differ = [name for name in sorted({*driver, *here}) if driver.get(name) != here.get(name)]
    named = ", ".join(f"{name} is {here.get(name)} and the driver's {driver.get(name)}" for name in differ[:3])
    return named + (f", and {len(differ) - 3} more" if len(differ) > 3 else "")


def refuse_other_software(driver: dict[str, str]) -> None:
    """Makes sure that this process has the driver's versions, as on a node that came after the sweep had begun.

    Raises:
        UserError: it has others.
    """
    if named := differing(driver):
        import ray

        raise UserError(f"node {ray.util.get_node_ip_address()}: {named}; {_VERSIONS}")


def refuse_other_versions() -> None:
    """Makes sure that all nodes have the driver's versions of siamray and of what decides the numbers.

    Raises:
        UserError: naming the first node that has not, the packages, and the number of further nodes.
    """
    asked = {node: _on(node, differing).remote(software()) for node in nodes()}
    troubles = [trouble for node, answer in asked.items() if (trouble := _version_trouble(node, answer))]
    if troubles:
        more = f" ({len(troubles) - 1} more nodes alike: check=true names them)" if len(troubles) > 1 else ""
        raise UserError(troubles[0] + more)


def wait_for_room(cluster: ClusterConfig, say: Callable[[str], None]) -> None:
    """Waits until there is room for one trial on a cluster that starts nodes as they are wanted.

    Args:
        cluster: what a trial asks for, and how long to wait.
        say: is told that there is something to wait for.

    Raises:
        UserError: no such node came in time.
    """
    import ray

    each = {"CPU": float(cluster.cpus), **({"GPU": cluster.gpus} if cluster.gpus else {})}
    asked = ray.util.placement_group([each] * max(1, cluster.workers))
    try:
        if asked.wait(5):
            return
        say("waiting for the cluster's first node with room for a trial")
        if not asked.wait(cluster.start_minutes * 60):
            gpus = f" and {cluster.gpus:g} GPUs" if cluster.gpus else ""
            raise UserError(
                f"no room for a trial ({max(1, cluster.workers)} x {cluster.cpus} CPUs{gpus}) within "
                f"cluster.start_minutes={cluster.start_minutes:g}; ray status on the head says why: no quota, no "
                "capacity, no credentials, or no group of nodes that is large enough"
            )
    finally:
        ray.util.remove_placement_group(asked)


def examine(cluster: ClusterConfig, places: dict[str, str]) -> list[Seen]:
    """Examines all nodes at once.

    Args:
        cluster: says how much free space is wanted, and whether GPUs are.
        places: option -> the folder or URL it names, which all nodes must share.

    Returns:
        What was found, node by node.

    Raises:
        UserError: this process itself cannot write one of the places.
    """
    found = [Seen(node) for node in nodes()]
    versions = {seen.node: _on(seen.node, differing).remote(software()) for seen in found}
    for seen in found:
        if trouble := _version_trouble(seen.node, versions[seen.node]):
            seen.troubles.append(trouble)
    # A node that cannot run siamray answers nothing else either.
    able = [seen for seen in found if not seen.troubles or _VERSIONS in seen.troubles[0]]
    with _marked(places) as marks:
        asked = {
            seen.node: _on(seen.node, _look).remote(seen.node.node_id, marks, cluster.gpus > 0 < seen.node.gpus)
            for seen in able
        }
        for seen in able:
            _judge(seen, asked[seen.node], cluster, places)
        for seen in able:
            _look_for(seen, marks)
    for seen in able:
        _ask_for_time(seen)
    return found


def _on(node: Node, work: Callable[..., Any]) -> Any:
    """Makes a task of a function that runs on one node and reserves nothing there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0)(work).options(scheduling_strategy=there)


def _answer(node: Node, answer: Any) -> Any:
    """Waits for a node's answer.

    Raises:
        UserError: none came, or siamray does not run there.
    """
    import ray

    try:
        return ray.get(answer, timeout=_ANSWER_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise UserError(
            f"node {node}: no answer within {_ANSWER_SECONDS:.0f} s; look at its load and its network, or take it out "
            "of the cluster"
        ) from None
    except Exception as error:  # Ray has a kind of its own for every way to fail.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[-1][:200] if lines else type(error).__name__
        raise UserError(f"node {node}: siamray does not run there ({said}); install it there, or restart Ray") from None


def _version_trouble(node: Node, answer: Any) -> str:
    try:
        named = _answer(node, answer)
    except UserError as error:
        return str(error)
    return f"node {node}: {named}; {_VERSIONS}" if named else ""


@contextmanager
def _marked(places: dict[str, str]) -> Iterator[dict[str, tuple[str, str]]]:
    """Puts a mark into every place, for the time of a block; option -> (folder with the mark, what the mark says)."""
    name, mark = f".siamray-check-{secrets.token_hex(8)}", secrets.token_hex(16)
    folders = {option: location(place) / name for option, place in places.items()}
    try:
        for folder in folders.values():
            _write(folder / "driver", mark.encode())
        yield {option: (str(folder), mark) for option, folder in folders.items()}
    finally:
        for folder in folders.values():
            with suppress(Exception):
                if isinstance(folder, Path):
                    shutil.rmtree(folder)
                else:
                    # Not by rm, which takes brackets in a name for a pattern.
                    folder.fs.invalidate_cache()
                    for name in folder.fs.find(folder.path):
                        folder.fs.rm_file(name)


def _write(file: Location, content: bytes) -> None:
    with writing_to(file.parent):
        if not isinstance(file, Path):
            file.fs.pipe_file(file.path, content)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())


def _look(node_id: str, marks: dict[str, tuple[str, str]], gpus: bool) -> dict[str, Any]:
    """Looks around on a node; runs there.

    Args:
        node_id: names the file that the node leaves in every place.
        marks: see _marked.
        gpus: whether to compute on the GPUs.
    """
    speeds = {option: _speed(location(folder), mark, node_id) for option, (folder, mark) in marks.items()}
    local = {str(folder) for folder, _ in marks.values() if "://" not in folder}
    free = {}
    seen = set()
    for folder in (tempfile.gettempdir(), str(cache_folder()), *sorted(str(Path(place).parent) for place in local)):
        there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
        if (device := there.stat().st_dev) not in seen:
            seen.add(device)
            free[str(there)] = shutil.disk_usage(there).free / 1e9
    computed, why = _gpus() if gpus else (0, "")
    return {"speeds": speeds, "free_gb": free, "gpus": computed, "gpu_trouble": why}


def _speed(folder: Location, mark: str, node_id: str) -> Speed:
    """Tests a place from here: whether it is the driver's, can be written, and how fast."""
    try:
        if not isinstance(folder, Path):
            with reaching(folder):
                folder.fs.invalidate_cache()
        if read_bytes(folder / "driver").decode() != mark:
            return Speed(trouble="unshared")
        content = os.urandom(PROBE_MB * 10**6)
        begun = time.perf_counter()
        _write(folder / node_id, content)
        written = time.perf_counter()
        if isinstance(folder, Path):
            # Out of this node's memory, or it would be the speed of that.
            handle = os.open(folder / node_id, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
        again = time.perf_counter()
        same = read_bytes(folder / node_id) == content
        read = time.perf_counter()
    except FileNotFoundError:
        return Speed(trouble="unshared")
    except (UserError, OSError) as error:
        return Speed(trouble=str(error))
    if not same:
        return Speed(trouble="what was written there is read back otherwise; look at the file system")
    return Speed(PROBE_MB / (written - begun), PROBE_MB / (read - again))


def _gpus() -> tuple[int, str]:
    """How many GPUs torch can compute on, and why no more."""
    # A task that reserves none is shown none.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    import torch

    number = 0
    try:
        for number in range(torch.cuda.device_count()):
            ones = torch.ones(64, 64, device=f"cuda:{number}")
            assert float((ones @ ones).sum()) == 64**3
    except Exception as error:  # Drivers fail in ways of their own.
        return number, " ".join(str(error).split())[:200]
    return torch.cuda.device_count(), ""


def _judge(seen: Seen, answer: Any, cluster: ClusterConfig, places: dict[str, str]) -> None:
    """Takes what a node says of itself, and notes what is wrong with it."""
    try:
        told = _answer(seen.node, answer)
    except UserError as error:
        seen.troubles.append(str(error))
        return
    seen.free_gb, seen.gpus, seen.speeds = told["free_gb"], told["gpus"], told["speeds"]
    for option, speed in seen.speeds.items():
        place = f"node {seen.node}: {option}={places[option]}"
        if speed.trouble == "unshared":
            seen.troubles.append(
                f"{place} is not there what it is for the driver; mount the same file system at this path, or name "
                f"another one with {option}="
            )
        elif speed.trouble:
            seen.troubles.append(f"node {seen.node}: {speed.trouble}")
        elif min(speed.write, speed.read) < LEAST_MB_PER_S:
            seen.troubles.append(
                f"{place} is written at {speed.write:.1f} and read at {speed.read:.1f} MB/s, and training wants "
                f"{LEAST_MB_PER_S:g}; look at its network, or take it out of the cluster"
            )
    for folder, free in seen.free_gb.items():
        if free < cluster.disk_gb:
            seen.troubles.append(
                f"node {seen.node}: {free:.1f} GB free at {folder} and cluster.disk_gb={cluster.disk_gb:g}; free space "
                "there, or ask for less"
            )
    if cluster.gpus and seen.gpus < seen.node.gpus:
        why = f" ({told['gpu_trouble']})" if told["gpu_trouble"] else ""
        seen.troubles.append(
            f"node {seen.node}: Ray offers {seen.node.gpus:g} GPUs and torch can use {seen.gpus}{why}; install the "
            "NVIDIA driver that this torch wants, or start Ray there with --num-gpus"
        )


def _look_for(seen: Seen, marks: dict[str, tuple[str, str]]) -> None:
    """Looks whether what a node wrote is here too."""
    for option, (folder, _) in marks.items():
        written = option in seen.speeds and not seen.speeds[option].trouble
        place = location(folder) / seen.node.node_id
        if isinstance(place, Path) and written and not place.exists():
            seen.troubles.append(
                f"node {seen.node}: what it wrote into {option}={place.parent.parent} has not come to the driver; "
                f"mount the same file system on both, or name another one with {option}="
            )


def _now() -> float:
    return time.time()


def _ask_for_time(seen: Seen) -> None:
    """Compares a node's clock with this one; the answer of the shortest of three questions is taken."""
    best = float("inf")
    for _ in range(3):
        sent = time.time()
        try:
            there = _answer(seen.node, _on(seen.node, _now).remote())
        except UserError as error:
            seen.troubles.append(str(error))
            return
        took = time.time() - sent
        if took < best:
            best, seen.clock = took, there - (sent + took / 2)
    if abs(seen.clock) - best / 2 > CLOCK_SECONDS:
        way = "ahead of" if seen.clock > 0 else "behind"
        seen.troubles.append(
            f"node {seen.node}: its clock is {abs(seen.clock):.0f} s {way} the driver's; set both by an ntp service"
        )
