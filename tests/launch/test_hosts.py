"""Hosts of one's own are asked by ssh: what one lacks, or why it cannot be reached, is a line with its remedy."""

import shutil
from pathlib import Path

import pytest

from tests.launch.conftest import User

HOSTS = ("10.0.0.10", "alpha"), ("[10.0.0.11, 10.0.0.12]", "[beta, gamma]")
# A host is a folder with its programs. The script comes by standard input, as by ssh; $APART has another /shared.
SSH = """
for word; do case "$word" in *@*) host=${word#*@};; esac; done
echo "$@" >> "$HOSTS/asked"
[ -f "$HOSTS/$host/refusal" ] && { cat "$HOSTS/$host/refusal" >&2; exit 255; }
[ "$host" = "$APART" ] && sed "s#/shared#/elsewhere#" > "$HOSTS/script" && exec < "$HOSTS/script"
PATH="$HOSTS/$host/bin" HOME="$HOSTS/$host" exec /bin/sh -s
"""


@pytest.fixture
def hosts(user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three hosts that have all that is wanted."""
    folder = tmp_path / "hosts"
    for name in ("alpha", "beta", "gamma"):
        (folder / name / "bin").mkdir(parents=True)
        for program in ("dirname", "ls", "grep", "rm", "echo"):
            (folder / name / "bin" / program).symlink_to(str(shutil.which(program)))
        for program, said in (("python3", "3.10.12"), ("rsync", "")):
            path = folder / name / "bin" / program
            path.write_text(f"#!/bin/sh\necho {said}\n")
            path.chmod(0o755)
    monkeypatch.setenv("HOSTS", str(folder))
    user.program("ssh", SSH)
    return folder


def test_hosts_that_have_all_that_is_wanted_are_ready(user: User, hosts: Path, tmp_path: Path) -> None:
    path = user.file("onpremise", *HOSTS)
    code, out, troubles = user.check(path, f"store={tmp_path}/shared/store", f"results={tmp_path}/shared/results")
    assert (code, troubles) == (0, [])
    assert "Python 3.10.12, pip, rsync" in out
    assert "is one folder for all 3 hosts, and each can write it" in out
    assert f"ready: ray up {path}" in out
    # Nothing is left of the test, and nobody was asked for a password or to know a host.
    assert not list(tmp_path.rglob(".siamray-launch-*"))
    assert not (tmp_path / "shared").exists()
    for line in (hosts / "asked").read_text().splitlines():
        assert "BatchMode=yes" in line
        assert f"-i {user.home}/.ssh/id_ed25519 siamray@" in line
        assert "UserKnownHostsFile=/dev/null" in line


def test_without_a_folder_it_says_that_none_was_tested(user: User, hosts: Path) -> None:
    code, out, _ = user.check(user.file("onpremise", *HOSTS))
    assert code == 0
    assert "not checked" in out
    assert "store=/shared/siamray/store" in out


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("siamray@beta: Permission denied (publickey).", "does not let siamray in with ~/.ssh/id_ed25519; ssh-copy-id"),
        ("ssh: Could not resolve hostname beta: Name or service not known", "no host has this name"),
        ("ssh: connect to host beta port 22: Connection timed out", "cannot be reached by ssh; switch it on"),
        ("ssh: connect to host beta port 22: Connection refused", "nothing listens to ssh there (port 22)"),
        ("kex_exchange_identification: read: Connection reset", "Connection reset); try: ssh siamray@beta"),
    ],
)
def test_a_host_that_cannot_be_reached_is_a_line_that_says_why(user: User, hosts: Path, stderr: str, line: str) -> None:
    (hosts / "beta" / "refusal").write_text(stderr)
    path = user.file("onpremise", *HOSTS)
    said = user.refused(path)
    assert "host beta" in said
    assert line in said
    assert "worker_ips: [beta" in path.read_text().splitlines()[int(said.split(":")[2]) - 1]


def test_what_a_host_lacks_is_a_line_each(user: User, hosts: Path) -> None:
    (hosts / "alpha" / "bin" / "rsync").unlink()
    (hosts / "beta" / "bin" / "python3").unlink()
    (hosts / "gamma" / "bin" / "python3").write_text("#!/bin/sh\n[ $1 = -c ] && echo 3.12.3\n")
    code, _, troubles = user.check(user.file("onpremise", *HOSTS))
    assert code == 2
    assert [line.partition(": host ")[2] for line in troubles] == [
        "alpha has no rsync; install it there (apt-get install rsync)",
        "beta has no python3; install it there (apt-get install python3 python3-pip)",
        "gamma has neither pip nor uv; install one there (apt-get install python3-pip)",
    ]


def test_a_folder_that_is_not_the_same_on_all_hosts_is_named(
    user: User, hosts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APART", "beta")
    for name in ("shared", "elsewhere"):
        (tmp_path / name).mkdir()
    _, _, troubles = user.check(user.file("onpremise", *HOSTS), f"store={tmp_path}/shared")
    (line,) = troubles
    assert f"store={tmp_path}/shared: on host beta it is not the folder that it is on the others" in line
    assert "(1 of 3 hosts' files are there); mount the same file system at this path on all" in line
    assert not list(tmp_path.rglob(".siamray-launch-*"))


def test_a_folder_that_a_host_cannot_write_is_named(user: User, hosts: Path) -> None:
    # Not even root can make a file there.
    _, _, troubles = user.check(user.file("onpremise", *HOSTS), "store=/proc/siamray")
    assert len(troubles) == 3
    assert "store=/proc/siamray: host alpha cannot write into /proc; make /proc/siamray there" in troubles[0]


def test_a_host_that_is_named_twice_is_refused(user: User, hosts: Path) -> None:
    path = user.file("onpremise", ("10.0.0.10", "alpha"), ("[10.0.0.11, 10.0.0.12]", "[beta, alpha]"))
    assert "alpha is named twice" in user.refused(path)
