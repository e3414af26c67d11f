"""Writes experiments/cluster/launch/requirements.txt: what siamray needs on a node, in the versions installed here.

Run: python -m tests.cluster.requirements > experiments/cluster/launch/requirements.txt
"""

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILE = Path(__file__).resolve().parents[2] / "experiments" / "cluster" / "launch" / "requirements.txt"
# What a node does: trials, on stores and results of an object store, whatever weights they start from.
EXTRAS = ("s3", "imagenet", "cmaes")
HEAD = """\
# What siamray needs on a node of a cluster, in the versions that its tests ran with; torch names those of CUDA itself.
# Made by:  python -m tests.cluster.requirements > experiments/cluster/launch/requirements.txt
"""


def wanted(package: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """What a package needs here, of itself and for extras."""
    for text in metadata.requires(package) or []:
        requirement = Requirement(text)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", *sorted(extras))
        ):
            yield requirement


def closure() -> dict[str, str]:
    """Package -> version, of all that siamray needs, and that needs, and so on; those missing here are not named."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [("siamray", frozenset(EXTRAS))]
    while waiting:
        package, extras = waiting.pop()
        if (package, extras) in seen:
            continue
        seen.add((package, extras))
        try:
            # +cpu and the like name a build, which other machines may not have.
            version = metadata.version(package).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
        if package != "siamray":
            found[package] = version
        waiting += [(canonicalize_name(need.name), frozenset(need.extras)) for need in wanted(package, extras)]
    # Torch pins its own, and they are there only where it was built for CUDA.
    return {name: found[name] for name in sorted(found) if not name.startswith(("nvidia-", "triton", "cuda-"))}


if __name__ == "__main__":
    print(HEAD + "\n".join(f"{package}=={version}" for package, version in closure().items()))
