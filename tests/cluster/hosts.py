"""Hosts on one machine: network, process, mount and name spaces with an sshd each, on a bridge of their own.

They share this machine's files, so that any folder is one that all of them share, but for ``/tmp/ray``, ``/dev/shm``
and their homes. A host that is killed loses all its processes at once, as by a loss of power; started again, it has its
home.
"""

import getpass
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
NEEDED = ("sshd", "ssh", "ssh-keygen", "ip", "rsync", "unshare", "nsenter")


def why_not() -> str:
    """Says why there can be no hosts on this machine; "" where there can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)} (Debian: openssh-server openssh-client iproute2 rsync)"
    tried = subprocess.run(["unshare", "-n", "-m", "-p", "-f", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "needs the right to make network, mount and process namespaces"


def run(*words: str | Path, check: bool = True, **more: object) -> subprocess.CompletedProcess[str]:
    """Runs a command of this machine."""
    return subprocess.run([*map(str, words)], check=check, capture_output=True, text=True, **more)  # type: ignore[call-overload, no-any-return]


class Hosts:
    """Three hosts; the first is the head of a cluster.

    Attributes:
        names: h0, h1, h2.
        addresses: of each, in a network of their own.
        key: of ssh, allowed on each as the user who runs the tests.
    """

    def __init__(self, folder: Path, number: int = 3) -> None:
        """Starts them.

        Args:
            folder: for keys, homes and logs.
            number: of hosts.
        """
        self.folder = folder
        self.net = f"10.{77 + os.getpid() // 250 % 100}.{os.getpid() % 250}"
        self.names = [f"h{n}" for n in range(number)]
        self.addresses = [f"{self.net}.{11 + n}" for n in range(number)]
        self._tag = f"{os.getpid() % 100000}"
        self._inits: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.key = folder / "key"
        for name in ("key", "host_key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
        (folder / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in zip(self.names, self.addresses, strict=True))
        )
        self._bridge = f"smb{self._tag}"
        run("ip", "link", "add", self._bridge, "type", "bridge")
        run("ip", "address", "add", f"{self.net}.1/24", "dev", self._bridge)
        run("ip", "link", "set", self._bridge, "up")
        for name, address in zip(self.names, self.addresses, strict=True):
            self._cable(name, address)
            self.start(name)
        for address in self.addresses:
            self._wait_for_ssh(address)

    def _space(self, name: str) -> str:
        return f"siamray-{name}-{self._tag}"

    def _cable(self, name: str, address: str) -> None:
        space, inner, outer = self._space(name), f"sm{self._tag}{name}i", self.link(name)
        run("ip", "netns", "add", space)
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
        run("ip", "link", "set", inner, "netns", space, "name", "eth0")
        run("ip", "link", "set", outer, "master", self._bridge, "up")
        inside = ("ip", "-n", space)
        run(*inside, "address", "add", f"{address}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "link", "set", "lo", "up")

    def link(self, name: str) -> str:
        """This machine's end of a host's cable."""
        return f"sm{self._tag}{name}o"

    def home(self, name: str) -> Path:
        """The host's home, as this machine sees it."""
        return self.folder / name / "home"

    def start(self, name: str) -> None:
        """Starts a host that is not running."""
        home, real = self.home(name), Path.home()
        home.mkdir(parents=True, exist_ok=True)
        (home / ".bashrc").touch()
        binds = []
        for path in {Path(sys.base_prefix), Path(sys.prefix).resolve(), CHECKOUT, self.folder.resolve()}:
            # The host's home hides this machine's, and with it what lies there and is needed.
            if path.is_relative_to(real):
                inside = home / path.relative_to(real)
                inside.mkdir(parents=True, exist_ok=True)
                binds.append(f"mount --rbind {path} {inside}")
        configuration = self.folder / name / "sshd_config"
        configuration.write_text(
            f"Port 22\nListenAddress 0.0.0.0\nHostKey {self.folder}/host_key\n"
            f"AuthorizedKeysFile {self.folder}/key.pub\n"
            "UsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n"
            "MaxStartups 100\nMaxSessions 100\n"
        )
        lines = [
            "set -e",
            "mount --make-rprivate /",
            f"hostname {name}",
            f"mount --bind {self.folder}/hosts /etc/hosts",
            "mkdir -p /tmp/ray /run/sshd",
            "mount -t tmpfs tmpfs /tmp/ray",
            "mount -t tmpfs tmpfs /dev/shm",
            *binds,
            f"mount --rbind {home} {real}",
            f"exec {shutil.which('sshd')} -D -e -f {configuration}",
        ]
        words = ["ip", "netns", "exec", self._space(name), "unshare", "-m", "-u", "-p", "-f", "--kill-child",
                 "--mount-proc", "sh", "-c", "\n".join(lines)]  # fmt: skip
        with (self.folder / name / "log").open("ab") as log:
            self._inits[name] = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

    def kill(self, name: str) -> None:
        """Ends all processes of a host at once; its network stays, and nobody answers there."""
        process = self._inits.pop(name)
        with suppress(ProcessLookupError):
            os.kill(self._init(process), signal.SIGKILL)
        process.kill()
        process.wait()

    def _init(self, process: subprocess.Popen[bytes]) -> int:
        """The process number here of what is number 1 on a host."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(children[0]) if children else process.pid

    def running(self, name: str) -> dict[int, str]:
        """The processes of a host but its sshd and what has ended: number there -> command line."""
        listed = self.inside(name, "ps", "-eo", "pid=,stat=,args=", check=False).stdout.splitlines()
        split = [line.split(None, 2) for line in listed]
        found = {int(pid): args for pid, state, args in split if not state.startswith("Z")}
        return {pid: args for pid, args in found.items() if "sshd" not in args and "ps -eo" not in args}

    def inside(self, name: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command on a host, without ssh."""
        pid = str(self._init(self._inits[name]))
        return run("nsenter", "-t", pid, "-n", "-m", "-u", "-p", *words, check=check)

    def ssh(self, name: str, command: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Runs a command on a host as its user would, by ssh in an interactive shell."""
        address = self.addresses[self.names.index(name)]
        return run(*self._ssh(address), "bash", "--login", "-i", "-c", f"'{command}'", check=False, timeout=seconds)

    def forward(self, name: str, port: int, here: int) -> subprocess.Popen[bytes]:
        """Forwards a port of this machine to one of a host's own (127.0.0.1), by ssh."""
        address = self.addresses[self.names.index(name)]
        words = [
            *self._ssh(address),
            "-N",
            "-o",
            "ExitOnForwardFailure=yes",
            "-L",
            f"127.0.0.1:{here}:127.0.0.1:{port}",
        ]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _ssh(self, address: str) -> list[str]:
        quiet = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        return ["ssh", "-i", str(self.key), *quiet, "-o", "ConnectTimeout=5", f"{getpass.getuser()}@{address}"]

    def _wait_for_ssh(self, address: str) -> None:
        until = time.monotonic() + 30
        while run(*self._ssh(address), "true", check=False).returncode:
            if time.monotonic() > until:
                logs = "\n".join(path.read_text() for path in self.folder.glob("*/log"))
                raise RuntimeError(f"no ssh to {address}: {logs}")
            time.sleep(0.2)

    def close(self) -> None:
        """Ends all hosts, and takes away their network."""
        for name in list(self._inits):
            self.kill(name)
        for name in self.names:
            run("ip", "netns", "delete", self._space(name), check=False)
        run("ip", "link", "delete", self._bridge, check=False)
