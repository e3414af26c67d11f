"""The on-premise variant of the launch files, brought up by ``ray up`` on the hosts of tests.cluster.hosts."""

import getpass
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.cluster.hosts import CHECKOUT, Hosts

RAY = str(Path(sys.executable).parent / "ray")
PYTHON = str(Path(sys.executable))
S3_PORT = 5005
FILE = CHECKOUT / "experiments" / "cluster" / "launch" / "onpremise.yaml"


class Cluster:
    """A cluster of hosts, and the machine of a user who starts it and works with it.

    Attributes:
        hosts: the first has the head; the others have one processor each.
        shared: a folder that all of them share.
        laptop: the user's home.
        token: what the cluster asks for.
        s3: where the hosts look for an S3 server; a test that wants one starts it.
    """

    def __init__(self, folder: Path, hosts: Hosts) -> None:
        self.hosts, self.shared, self.laptop = hosts, folder / "shared", folder / "laptop"
        self.shared.mkdir()
        self.laptop.mkdir()
        self.file = folder / "cluster.yaml"
        self.token = ""
        self.s3 = f"http://{hosts.net}.1:{S3_PORT}"
        # Of this test session: its name is in files that Ray keeps in /tmp/ray.
        self.name = f"siamray-test-{os.getpid()}"
        config = yaml.safe_load(FILE.read_text())
        config["cluster_name"] = self.name
        config["provider"] |= {"head_ip": hosts.addresses[0], "worker_ips": hosts.addresses[1:]}
        config["auth"] = {"ssh_user": getpass.getuser(), "ssh_private_key": str(hosts.key)}
        # In place of setup.sh: the packages are those of the tests, and the code is what was shipped. What lies in
        # ~/other is found before the packages.
        line = (
            f"export PATH={Path(PYTHON).parent}:$PATH PYTHONPATH=$HOME/siamray:$HOME/other RAY_AUTH_MODE=token "
            f"SIAMRAY_CACHE={self.shared}/cache AWS_ENDPOINT_URL={self.s3} AWS_ACCESS_KEY_ID=a-key "
            "AWS_SECRET_ACCESS_KEY=a-secret-key AWS_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true"
        )
        config["setup_commands"][1:] = [f"mkdir -p ~/other; echo {shlex.quote(line)} >> ~/.bashrc"]
        # Small ones: there are three on this machine. They must not give way to all else on it.
        small = "RAY_worker_niceness=0 ray start --object-store-memory=80000000"
        for kind in ("head", "worker"):
            *before, start = config[f"{kind}_start_ray_commands"]
            size = small if kind == "head" else f"{small} --num-cpus=1"
            config[f"{kind}_start_ray_commands"] = [*before, start.replace("ray start", size)]
        self.file.write_text(yaml.safe_dump(config))
        (folder / "count_nodes.py").write_text(
            "import ray\n"
            "ray.init(log_to_driver=False, logging_level='ERROR')\n"
            "print('alive nodes:', sum(node['Alive'] for node in ray.nodes()))\n"
        )

    def environment(self, token: bool = True) -> dict[str, str]:
        """The environment of the user's shell; without the token of another user's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SIAMRAY_", "AWS_"))}
        home = self.laptop if token else self.laptop / "stranger"
        home.mkdir(exist_ok=True)
        return {**kept, "HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_enable_autoscaler_v2": "0",
                "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "160"}  # fmt: skip

    def make_token(self) -> None:
        """What a user does once, by the command that the launch files name."""
        done = self.ray("get-auth-token", "--generate")
        assert done.returncode == 0, done.stderr
        self.token = (self.laptop / ".ray" / "auth_token").read_text()

    def ray(self, *words: str, token: bool = True, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Runs a command of Ray on the user's machine, in the root of the checkout."""
        return subprocess.run(
            [RAY, *words], cwd=CHECKOUT, env=self.environment(token), capture_output=True, text=True, check=False,
            timeout=seconds, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.ray("up", str(self.file), "--yes", "--no-config-cache")

    def down(self) -> subprocess.CompletedProcess[str]:
        return self.ray("down", str(self.file), "--yes")

    def exec(self, command: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Runs a command on the head by ``ray exec``."""
        return self.ray("exec", str(self.file), command, "--no-config-cache", seconds=seconds)

    @contextmanager
    def dashboard(self) -> Iterator[str]:
        """Forwards the dashboard by ssh for the time of a block, and gives its address."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            here = free.getsockname()[1]
        forwarding = self.hosts.forward(self.hosts.names[0], 8265, here)
        try:
            for _ in range(100):
                with socket.socket() as tried:
                    if tried.connect_ex(("127.0.0.1", here)) == 0:
                        break
                if forwarding.poll() is not None:
                    break
                subprocess.run(["sleep", "0.1"], check=True)
            yield f"http://127.0.0.1:{here}"
        finally:
            forwarding.kill()
            forwarding.wait()

    def submit(self, command: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Runs a command on the cluster by ``ray job submit`` through the forwarded dashboard, to its end."""
        with self.dashboard() as address:
            return self.ray("job", "submit", "--address", address, "--", *shlex.split(command), seconds=seconds)

    def workers(self) -> int:
        """How many worker nodes Ray counts on."""
        done = self.exec(f"python {self.file.parent}/count_nodes.py", seconds=120)
        found = re.findall(r"^alive nodes: (\d+)", done.stdout, flags=re.MULTILINE)
        return int(found[-1]) - 1 if found else -1

    def wait_for_workers(self, number: int, seconds: float = 180) -> None:
        """Waits until Ray counts on so many worker nodes."""
        until = time.monotonic() + seconds
        while (there := self.workers()) != number:
            assert time.monotonic() < until, f"{there} workers, not {number}"
            time.sleep(1)
