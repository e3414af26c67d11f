"""SLURM's batch script, on an allocation that this machine plays: Ray starts, the sweep's command runs, all ends."""

import os
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from tests.cluster.test_launch_files import CHECKOUT, LAUNCH

STUBS = {
    # Of srun's options only the command behind them matters here.
    "srun": """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
if [ "$1" = hostname ]; then echo 127.0.0.1; else exec "$@"; fi
""",
    "scontrol": "#!/bin/sh\necho node1\n",
}


@pytest.fixture
def allocation(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on one node with two processors."""
    for name, text in STUBS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node1", "SLURM_CPUS_PER_TASK": "2", "SLURM_SUBMIT_DIR": str(CHECKOUT),
        "PYTHONPATH": str(CHECKOUT),
    }  # fmt: skip


@pytest.mark.slow
def test_the_script_starts_ray_runs_the_command_and_leaves_nothing(allocation: dict[str, str], tmp_path: Path) -> None:
    words = [
        "ablation=soft_labels", f"store={tmp_path}/store", f"results={tmp_path}/results", "check=true",
        "cluster.gpus=0", "cluster.cpus=1", "cluster.disk_gb=0",
    ]  # fmt: skip
    done = subprocess.run(
        [LAUNCH / "slurm.sh", *words], env=allocation, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all is well: 1 nodes, 2 trials at a time; nothing was run" in done.stdout
    # The job's token is gone, and was shown nowhere.
    assert not list(tmp_path.glob(".siamray-job-*"))
    temporary = f"/tmp/ray-{allocation['SLURM_JOB_ID']}"
    import_module("ray")
    processes = import_module("psutil").process_iter(["cmdline"])
    assert not [each for each in processes if any(temporary in word for word in each.info["cmdline"] or [])]


def test_the_script_says_what_is_missing(allocation: dict[str, str], tmp_path: Path) -> None:
    elsewhere = {**allocation, "SLURM_SUBMIT_DIR": str(tmp_path)}
    done = subprocess.run([LAUNCH / "slurm.sh"], env=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"slurm.sh: no {tmp_path}/.venv/bin/ray; submit in the root of a checkout")
