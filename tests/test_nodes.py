"""Nodes that would make other numbers, or lose trials, are found and named before anything is computed."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from siamray import nodes
from siamray.cluster import connected
from siamray.compose import compose
from siamray.config import ClusterConfig
from siamray.errors import UserError
from siamray.nodes import Node, Seen, Speed, differing, examine, refuse_other_software, refuse_other_versions
from siamray.pretraining.trainer import make_room
from siamray.provenance import software
from siamray.sweeps.checking import as_table, check_cluster
from siamray.sweeps.runner import concurrency

HEAD = Node("a" * 56, "h0", "10.0.0.10", True, 0.0, 0.0)
WORKER = Node("b" * 56, "h1", "10.0.0.11", False, 4.0, 1.0)


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> dict[Callable[..., Any], Callable[[Node], Any]]:
    """A cluster of a head and a worker that answer what a test says; work -> what a node answers."""
    answers: dict[Callable[..., Any], Callable[[Node], Any]] = {
        differing: lambda _: "",
        nodes._look: lambda node: {
            "speeds": {"results": Speed(100.0, 200.0)},
            "free_gb": {"/tmp": 50.0},
            "gpus": int(node.gpus),
            "gpu_trouble": "",
        },
        nodes._now: lambda _: nodes.time.time(),
    }

    class Task:
        def __init__(self, node: Node, work: Callable[..., Any]) -> None:
            self.node, self.work = node, work

        def remote(self, *given: object) -> "Task":
            if self.work is nodes._look:
                for folder, _ in given[1].values():  # type: ignore[attr-defined]
                    (Path(folder) / self.node.node_id).touch()
            return self

    def answer(node: Node, task: Task) -> Any:
        told = answers[task.work](node)
        if isinstance(told, Exception):
            raise told
        return told

    monkeypatch.setattr(nodes, "nodes", lambda: [HEAD, WORKER])
    monkeypatch.setattr(nodes, "_on", Task)
    monkeypatch.setattr(nodes, "_answer", answer)
    return answers


def troubles(tmp_path: Path, cluster: ClusterConfig | None = None) -> list[str]:
    found = examine(cluster or ClusterConfig(gpus=1.0), {"results": str(tmp_path)})
    # The marks are taken away.
    assert list(tmp_path.iterdir()) == []
    told = [trouble for seen in found for trouble in seen.troubles]
    assert not any("\n" in trouble for trouble in told)
    return told


def test_a_cluster_without_troubles_has_none(two_nodes: dict[Any, Any], tmp_path: Path) -> None:
    assert troubles(tmp_path) == []
    refuse_other_versions()


def test_a_node_with_another_version_is_refused_in_a_line_that_names_it_and_the_package(
    two_nodes: dict[Any, Any], tmp_path: Path
) -> None:
    two_nodes[differing] = lambda node: "" if node.head else "timm is 1.0.1 and the driver's 1.0.2"
    line = r"node h1 \(10.0.0.11\): timm is 1.0.1 and the driver's 1.0.2; install the versions of the driver's machine"
    with pytest.raises(UserError, match=line) as refused:
        refuse_other_versions()
    assert "more nodes" not in str(refused.value)
    assert len(troubles(tmp_path)) == 1
    two_nodes[differing] = lambda _: "timm is 1.0.1 and the driver's 1.0.2"
    with pytest.raises(UserError, match=r"node h0 .* \(1 more nodes alike: check=true names them\)"):
        refuse_other_versions()


def test_what_differs_is_named_with_both_versions() -> None:
    here = software()
    assert differing(here) == ""
    refuse_other_software(here)
    assert differing({**here, "timm": "0.1"}) == f"timm is {here['timm']} and the driver's 0.1"
    assert "code is" in differing({**here, "siamray's code": "0" * 12})
    assert differing(dict.fromkeys(here, "0")).endswith(f"and {len(here) - 3} more")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"speeds": {"results": Speed(trouble="unshared")}}, "is not there what it is for the driver; mount the same"),
        ({"speeds": {"results": Speed(trouble="/shared may not be written")}}, "h1 .*: /shared may not be written"),
        ({"speeds": {"results": Speed(90.0, 0.4)}}, "written at 90.0 and read at 0.4 MB/s, and training wants 2"),
        ({"free_gb": {"/tmp": 0.3}}, "0.3 GB free at /tmp and cluster.disk_gb=10; free space there, or ask for less"),
        (
            {"gpus": 0, "gpu_trouble": "driver too old"},
            r"1 GPUs and torch can use 0 \(driver too old\); install",
        ),
    ],
    ids=["unshared", "read-only", "slow", "full", "gpu"],
)
def test_every_trouble_is_a_line_with_node_and_remedy(
    changed: dict[str, Any], expected: str, two_nodes: dict[Any, Any], tmp_path: Path
) -> None:
    well = two_nodes[nodes._look]
    two_nodes[nodes._look] = lambda node: {**well(node), **({} if node.head else changed)}
    (told,) = troubles(tmp_path)
    assert "node h1 (10.0.0.11)" in told
    assert re.search(expected, told)


def test_a_clock_that_is_wrong_is_told_and_by_how_much(two_nodes: dict[Any, Any], tmp_path: Path) -> None:
    two_nodes[nodes._now] = lambda node: nodes.time.time() - (0 if node.head else 35)
    (told,) = troubles(tmp_path)
    assert "node h1 (10.0.0.11): its clock is 35 s behind the driver's" in told


def test_a_node_that_does_not_answer_is_one_trouble(two_nodes: dict[Any, Any], tmp_path: Path) -> None:
    two_nodes[differing] = lambda node: "" if node.head else UserError(f"node {node}: no answer within 120 s; look")
    assert troubles(tmp_path) == ["node h1 (10.0.0.11): no answer within 120 s; look"]


def test_what_a_node_writes_must_come_to_the_driver(
    two_nodes: dict[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name != WORKER.node_id and exists(path))
    (told,) = troubles(tmp_path)
    assert "what it wrote into results=" in told
    assert "has not come to the driver" in told


def test_a_folder_that_is_another_one_on_the_node_is_told_from_the_driver_s(tmp_path: Path) -> None:
    (tmp_path / "check").mkdir()
    assert nodes._speed(tmp_path / "check", "mark", "me").trouble == "unshared"
    (tmp_path / "check" / "driver").write_text("another")
    assert nodes._speed(tmp_path / "check", "mark", "me").trouble == "unshared"
    (tmp_path / "check" / "driver").write_text("mark")
    speed = nodes._speed(tmp_path / "check", "mark", "me")
    assert speed.trouble == ""
    assert min(speed.write, speed.read) > 0
    assert (tmp_path / "check" / "me").stat().st_size == nodes.PROBE_MB * 10**6


def test_a_full_disk_of_a_node_is_said_as_such(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("1m")
    (disk / "driver").write_text("mark")
    assert "is on a full disk; free space" in nodes._speed(disk, "mark", "me").trouble


def test_a_driver_that_cannot_write_says_so_itself(two_nodes: dict[Any, Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made"):
        examine(ClusterConfig(), {"results": str(tmp_path / "file")})


def test_the_table_has_a_row_per_node() -> None:
    found = [
        Seen(HEAD, {"/tmp": 20.0}, 0, {"results": Speed(10.0, 20.0)}, 0.01),
        Seen(WORKER, {"/tmp": 30.0}, 1, {"results": Speed(11.0, 21.0)}, -0.02),
    ]
    console = Console(width=120, record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(as_table(found, {"results": "/shared"}))
    text = console.export_text()
    assert "h0 (10.0.0.10) head" in text
    assert "11, 21" in text


@pytest.mark.slow
def test_check_true_tests_this_machine_s_ray_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ablation=soft_labels", f"results={tmp_path / 'results'}", f"store={tmp_path}", "check=true"]
    well = compose("sweep", [*words, "cluster.disk_gb=0"])
    with connected(well.cluster, cpus=2):
        check_cluster(well, Console(width=160))
        assert "all is well: 1 nodes, 2 trials at a time; nothing was run" in capsys.readouterr().out
        wanting = compose("sweep", [*words, "cluster.disk_gb=1000000", "cluster.cpus=64"])
        with pytest.raises(SystemExit) as ended:
            check_cluster(wanting, Console(width=160))
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("siamray: ") for line in lines)
    assert any("GB free at" in line for line in lines)
    assert any("needs 64 CPUs, and there are 2" in line for line in lines)
    assert list((tmp_path / "results").iterdir()) == []


class PlacementGroup:
    """Is there at the second time of asking, or never."""

    def __init__(self, comes: bool) -> None:
        self.comes, self.waited, self.removed = comes, list[float](), False

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        return self.comes and len(self.waited) > 1


@pytest.mark.parametrize("comes", [True, False])
def test_a_cluster_that_starts_nodes_as_wanted_is_waited_for_and_not_for_ever(
    comes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, bundles, said = PlacementGroup(comes), list[list[dict[str, float]]](), list[str]()

    def placement_group(asked: list[dict[str, float]]) -> PlacementGroup:
        bundles.append(asked)
        return group

    monkeypatch.setattr("ray.util.placement_group", placement_group)
    monkeypatch.setattr("ray.util.remove_placement_group", lambda given: setattr(given, "removed", True))
    cluster = ClusterConfig(workers=2, cpus=4, gpus=1.0, trials=8, start_minutes=7.0)
    if comes:
        make_room(cluster, {}, said.append)
    else:
        line = r"no room for a trial \(2 x 4 CPUs and 1 GPUs\) within cluster.start_minutes=7; ray status .* quota"
        with pytest.raises(UserError, match=line):
            make_room(cluster, {}, said.append)
    assert bundles == [[{"CPU": 4.0, "GPU": 1.0}] * 2]
    assert group.waited == [5, 420]
    assert group.removed
    assert said == ["waiting for the cluster's first node with room for a trial"]
    # What does not grow is asked what it has.
    with pytest.raises(UserError, match="needs 8 CPUs, and there are 0"):
        make_room(ClusterConfig(workers=2, cpus=4), {}, said.append)
    assert concurrency(cluster, {}) == 8
