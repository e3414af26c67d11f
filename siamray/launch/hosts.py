"""A file of ``ray up`` for hosts of one's own goes in; what each of them says by ssh comes out, all asked at once.

They are asked with the key, user and options of the file, and nothing is left on them: a file that is written into a
shared folder is removed again.
"""

import secrets
import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from siamray.launch.checks import Asked, Check, good, trouble, unchecked

# Nobody waits for a host that is switched off: a connection within a network takes milliseconds.
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 30
_MARK = ".siamray-launch-"

# Answers by lines of name=value. uv, which setup.sh installs Python 3.11 with, comes by pip.
_LOOK = r"""
echo "python=$(python3 -c 'import platform; print(platform.python_version())' 2>/dev/null)"
echo "pip=$(python3 -m pip --version >/dev/null 2>&1 && echo yes)"
echo "uv=$(PATH=$HOME/.local/bin:$PATH command -v uv)"
echo "rsync=$(command -v rsync)"
"""
# The folder itself may not be there yet: what lies above it then counts.
_NEAREST = r"""
there={place}
while [ ! -e "$there" ] && [ "$there" != / ]; do there=$(dirname "$there"); done
"""
_WRITE = (
    _NEAREST
    + r"""
if (: >"$there"/{mark}) 2>/dev/null; then echo "written_{option}=$there"; else echo "unwritable_{option}=$there"; fi
"""
)
_SEE = _NEAREST + 'echo "seen_{option}=$(ls -a "$there" | grep -c -F -e {mark})"\n'
_REMOVE = _NEAREST + 'rm -f "$there"/{mark}\n'


@dataclass(frozen=True)
class Answer:
    """What came back from a host.

    Attributes:
        said: name -> value.
        refused: why it could not be asked; "" where it could.
    """

    said: dict[str, str]
    refused: str = ""


def check_hosts(asked: Asked) -> list[Check]:
    """Asks every host of a file by ssh.

    Args:
        asked: the file; valid, with hosts of the user's own.
    """
    provider = asked.config["provider"]
    if "coordinator_address" in provider:
        return [unchecked("hosts", "which they are is for the coordinator to say")]
    hosts = [str(provider["head_ip"]), *map(str, provider["worker_ips"])]
    paths: list[tuple[str | int, ...]] = [("provider", "head_ip")]
    paths += [("provider", "worker_ips", number) for number in range(len(hosts) - 1)]
    found = [
        trouble("hosts", f"{asked.at(*paths[n])}: {host} is named twice; name every host once")
        for n, host in enumerate(hosts)
        if host in hosts[:n]
    ]
    if found:
        return found
    places = {option: place for option, place in asked.places.items() if "://" not in place}
    run = secrets.token_hex(8)
    looks = {host: _LOOK + _for_places(_WRITE, places, f"{_MARK}{run}-{n}") for n, host in enumerate(hosts)}
    with ThreadPoolExecutor(len(hosts)) as pool:
        answers = dict(zip(hosts, pool.map(lambda host: _ask(asked, host, looks[host]), hosts), strict=True))
        able = [host for host in hosts if not answers[host].refused]
        try:
            seeing = _for_places(_SEE, places, f"{_MARK}{run}-")
            seen = list(pool.map(lambda host: _ask(asked, host, seeing), able)) if places else []
        finally:
            removing = {host: _for_places(_REMOVE, places, f"{_MARK}{run}-{n}") for n, host in enumerate(hosts)}
            if places:
                list(pool.map(lambda host: _ask(asked, host, removing[host]), able))
    for host, path in zip(hosts, paths, strict=True):
        found += _judge(asked, host, asked.at(*path), answers[host])
    if places and len(able) == len(hosts):
        for option, place in places.items():
            found += _shared(option, place, able, answers, dict(zip(able, seen, strict=True)))
    if not places:
        asks = "store=/shared/siamray/store results=/shared/siamray/results"
        found.append(unchecked("shared folder", f"name it as for the sweep, and it is: {asks}"))
    return found


def _for_places(script: str, places: dict[str, str], mark: str) -> str:
    quote = shlex.quote
    return "".join(script.format(place=quote(at), mark=quote(mark), option=option) for option, at in places.items())


def _ask(asked: Asked, host: str, script: str) -> Answer:
    """Runs a script on a host, with the options by which Ray comes to it."""
    auth = asked.config.get("auth", {})
    options = {"BatchMode": "yes", "ConnectTimeout": _CONNECT_SECONDS, "LogLevel": "ERROR"}
    # As Ray does: it knows no host, and leaves no note of one.
    options |= {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null"}
    if "ssh_private_key" in auth:
        options |= {"IdentitiesOnly": "yes"}
    words = ["ssh", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    if "ssh_private_key" in auth:
        words += ["-i", str(Path(auth["ssh_private_key"]).expanduser())]
    if "ssh_proxy_command" in auth:
        words += ["-o", f"ProxyCommand={auth['ssh_proxy_command']}"]
    user = auth.get("ssh_user")
    words += [f"{user}@{host}" if user else host, "sh", "-s"]
    try:
        done = subprocess.run(
            words, input=script, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return Answer({}, f"no answer within {_ANSWER_SECONDS} s; look at its load and its network")
    except OSError as error:
        return Answer({}, f"ssh cannot be started here ({error.strerror}); install it")
    # ssh's own code for what went wrong before the command.
    if done.returncode == 255:
        return Answer({}, _refusal(done.stderr, asked, host))
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return Answer({name: value for name, mid, value in pairs if mid})


def _refusal(stderr: str, asked: Asked, host: str) -> str:
    """Says why ssh did not come to a host, and the remedy."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = lines[-1][:160] if lines else "no reason given"
    auth = asked.config.get("auth", {})
    key = auth.get("ssh_private_key", "your key")
    user = auth.get("ssh_user", "you")
    low = stderr.lower()
    if "unprotected private key" in low:
        return f"ssh refuses {key}, as others may read it; chmod 600 it"
    if "permission denied" in low or "too many authentication" in low:
        return f"does not let {user} in with {key}; ssh-copy-id -i {key} {user}@{host}, or correct auth in the file"
    if "resolve hostname" in low or "not known" in low:
        return "no host has this name; correct it, or write its address"
    if "refused" in low:
        return "nothing listens to ssh there (port 22); start sshd on it"
    if "timed out" in low or "no route" in low or "unreachable" in low:
        return "cannot be reached by ssh; switch it on, or correct its address"
    return f"ssh does not come there ({told}); try: ssh {user}@{host}"


def _judge(asked: Asked, host: str, where: str, answer: Answer) -> Iterator[Check]:
    """Says what a host has, or lacks."""
    subject = f"host {host}"
    if answer.refused:
        yield trouble(subject, f"{where}: {subject}: {answer.refused}")
        return
    said = answer.said
    if "python" not in said:
        user = asked.config.get("auth", {}).get("ssh_user", "the user")
        yield trouble(subject, f"{where}: {subject} runs no commands of sh for {user}; give {user} a login shell there")
        return
    lacks = []
    if not said.get("rsync"):
        lacks.append(("no rsync", "install it there (apt-get install rsync)"))
    if not said["python"]:
        lacks.append(("no python3", "install it there (apt-get install python3 python3-pip)"))
    elif not said.get("pip") and not said.get("uv"):
        lacks.append(("neither pip nor uv", "install one there (apt-get install python3-pip)"))
    for what, remedy in lacks:
        yield trouble(subject, f"{where}: {subject} has {what}; {remedy}")
    if not lacks:
        yield good(subject, f"reached; Python {said['python']}, {'pip' if said.get('pip') else 'uv'}, rsync")


def _shared(
    option: str, place: str, hosts: list[str], answers: dict[str, Answer], seen: dict[str, Answer]
) -> Iterator[Check]:
    """Says whether a folder can be written by all hosts and is the same for all."""
    bad = False
    for host in hosts:
        if there := answers[host].said.get(f"unwritable_{option}"):
            bad = True
            remedy = f"make {place} there and let the user write it"
            yield trouble(option, f"{option}={place}: host {host} cannot write into {there}; {remedy}")
    if bad:
        return
    counts = {host: int(seen[host].said.get(f"seen_{option}", 0)) for host in hosts}
    most = max(counts.values())
    # The odd ones out; where every host is alone, those that differ from the head.
    apart = [host for host in hosts if counts[host] < most] or (hosts[1:] if most < len(hosts) else [])
    for host in apart:
        yield trouble(
            option,
            f"{option}={place}: on host {host} it is not the folder that it is on the others ({counts[host]} of "
            f"{len(hosts)} hosts' files are there); mount the same file system at this path on all",
        )
    if not apart:
        there = answers[hosts[0]].said[f"written_{option}"]
        yield good(option, f"{there} is one folder for all {len(hosts)} hosts, and each can write it")
