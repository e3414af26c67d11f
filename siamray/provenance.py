"""Nothing goes in; what a result must be able to name later comes out: versions, the state of the code, the machine."""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("siamray", "torch", "timm", "ray", "optuna", "scikit-learn", "numpy", "SimpleITK", "pydicom", "zarr")
# What decides the numbers, in the root of a checkout.
_CODE = ("siamray", "dashboards", "experiments", "pyproject.toml")


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def git_state() -> dict[str, Any]:
    """The state of the checkout that siamray runs from; empty outside a checkout.

    Returns:
        commit; dirty, whether anything in the checkout is not committed; and, where the code itself is not,
        diff_sha256, the hash of uncommitted_diff().
    """
    try:
        state: dict[str, Any] = {
            "commit": _git("rev-parse", "HEAD").strip(),
            "dirty": bool(_git("status", "--porcelain").strip()),
        }
    except (OSError, subprocess.SubprocessError):
        return {}
    diff = uncommitted_diff()
    return {**state, **({"diff_sha256": hashlib.sha256(diff.encode()).hexdigest()} if diff else {})}


@cache
def uncommitted_diff() -> str:
    """What the code and the configurations here have beyond the commit, new files too, as git writes it.

    Only siamray's own folders are looked at, so that nothing else that lies in the checkout, such as tables or images,
    gets into results. Whoever writes a password into code or configurations would find it in the diff.

    Returns:
        "" where nothing differs, or outside a checkout.
    """
    try:
        root = _git("rev-parse", "--show-toplevel").strip()
        index = Path(root, _git("rev-parse", "--git-path", "index", folder=root).strip())
        there = [name for name in _CODE if Path(root, name).exists()]
        # New files are announced to a copy of the index: the user's own stays as it is.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "index")
            if index.exists():
                shutil.copyfile(index, copy)
            own = {"GIT_INDEX_FILE": str(copy)}
            _git("add", "--intent-to-add", "--", *there, folder=root, more=own)
            return _git("diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--", *there, folder=root, more=own)
    except (OSError, subprocess.SubprocessError):
        return ""


@cache
def code_fingerprint() -> str:
    """Hashes the code that decides the numbers of a training and its evaluation, committed or not: twelve digits."""
    package = Path(__file__).resolve().parent
    rooms = (package / room for room in ("data", "pretraining", "downstream"))
    files = sorted(path for room in rooms for path in room.rglob("*.py"))
    total = hashlib.sha256()
    for path in (*files, package / "seeds.py"):
        content = path.read_bytes()
        total.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()[:12]


def software() -> dict[str, str]:
    """What must be the same wherever trials of a sweep run: versions(), and the code itself."""
    return {**versions(), "siamray's code": code_fingerprint()}


@cache
def environment() -> dict[str, Any]:
    """The machine that a result was made on.

    Returns:
        platform (system, release, C library), cpu (the model's name), cpus (processors of the machine), gpus (names).
    """
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"platform": platform.platform(), "cpu": _cpu_model(), "cpus": os.cpu_count(), "gpus": gpus}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _git(*words: str, folder: str | None = None, more: dict[str, str] | None = None) -> str:
    place = folder or str(Path(__file__).resolve().parent)
    ran = subprocess.run(
        ["git", "-C", place, *words], capture_output=True, check=True, timeout=30, env={**os.environ, **(more or {})}
    )
    return ran.stdout.decode("utf-8", "replace")
