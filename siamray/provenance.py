"""Nothing goes in; what a result must be able to name later comes out: versions and the state of the code."""

import hashlib
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("siamray", "torch", "timm", "ray", "optuna", "scikit-learn", "numpy", "SimpleITK", "pydicom", "zarr")


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
    """Commit of the checkout siamray runs from, and whether it holds uncommitted changes; empty outside a checkout."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}


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
