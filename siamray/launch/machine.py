"""A file of ``ray up`` goes in; what the user's machine lacks for it comes out: programs, files, keys, the token."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from siamray.errors import UserError
from siamray.launch.checks import Asked, Check, good, trouble

# Words of the examples that stand for the user's own, in capitals as the README has them.
_PLACEHOLDERS = {
    "BUCKET": "your bucket's name",
    "CONTAINER": "your storage container's name",
    "REGISTRY": "your registry of images",
    "PROJECT": "your project's name",
    "DIR": "your folder",
}
_EXAMPLE_PROJECT = "my-project"
_EXAMPLE_HOSTS = {"10.0.0.10", "10.0.0.11", "10.0.0.12"}
_MAKE_TOKEN = "ray get-auth-token --generate > /dev/null && chmod 700 ~/.ray"


def check_placeholders(asked: Asked) -> list[Check]:
    """Looks for what stands in the examples for the user's own, in the file and in the given places.

    Args:
        asked: the file.
    """
    found = []
    for option, place in asked.places.items():
        for word in _words(place):
            found.append(trouble("placeholders", f"{option}={place}: {word} is the example's; write {_instead(word)}"))
    for path, text in _texts(asked.config, ()):
        where = f"{asked.at(*path)}: {'.'.join(map(str, path))}"
        for word in _words(text):
            found.append(trouble("placeholders", f"{where}: {word} is the example's; write {_instead(word)}"))
        if path == ("provider", "project_id") and text == _EXAMPLE_PROJECT:
            found.append(trouble("placeholders", f"{where} is {text}, the example's; write your project's name"))
    provider = asked.config.get("provider")
    hosts = {provider.get("head_ip"), *provider.get("worker_ips", [])} if isinstance(provider, dict) else set()
    if hosts == _EXAMPLE_HOSTS:
        where = asked.at("provider", "head_ip")
        found.append(trouble("placeholders", f"{where}: head_ip and worker_ips are the example's; write your hosts'"))
    return found or [good("placeholders", "none is left of the example's")]


def check_machine(asked: Asked) -> list[Check]:
    """Looks whether ``ray up`` finds on this machine what it needs.

    Args:
        asked: the file; valid.
    """
    return [*_programs(asked), *_mounts(asked), *_keys(asked), *_token(asked)]


def _words(text: str) -> list[str]:
    return [word for word in _PLACEHOLDERS if re.search(rf"(?<![A-Za-z0-9_$]){word}(?![A-Za-z0-9_])", text)]


def _instead(word: str) -> str:
    return _PLACEHOLDERS[word]


def _texts(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*path, str(key)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, (*path, number))


def _programs(asked: Asked) -> Iterator[Check]:
    missing = [program for program in ("ssh", "rsync") if shutil.which(program) is None]
    if missing:
        named = " and ".join(missing)
        yield trouble("programs", f"{asked.name}: ray up needs {named}, not installed here; apt-get install {named}")
    else:
        yield good("programs", "ssh and rsync are installed")


def _mounts(asked: Asked) -> Iterator[Check]:
    """Looks for the files that are shipped; Ray looks for them where it is started."""
    shipped = {to: what for to, what in asked.config.get("file_mounts", {}).items() if not _is_token(to)}
    missing = [(to, what) for to, what in shipped.items() if not Path(str(what)).expanduser().exists()]
    for to, what in missing:
        remedy = "correct it" if Path(str(what)).expanduser().is_absolute() else "start in the root of the checkout"
        yield trouble("shipped files", f"{asked.at('file_mounts', to)}: file_mounts: there is no {what}; {remedy}")
    if shipped and not missing:
        yield good("shipped files", f"all {len(shipped)} are here")


def _keys(asked: Asked) -> Iterator[Check]:
    """Looks at the keys of ssh that the file names."""
    auth = asked.config.get("auth", {})
    for option in ("ssh_private_key", "ssh_public_key"):
        if option not in auth:
            continue
        where, file = asked.at("auth", option), Path(auth[option]).expanduser()
        if not file.is_file():
            named = auth[option].removesuffix(".pub")
            kind = "rsa -b 4096" if asked.config["provider"]["type"] == "azure" else "ed25519"
            make = f'ssh-keygen -t {kind} -f {named} -N ""'
            yield trouble("ssh key", f"{where}: {option}: there is no file {auth[option]}; name yours, or: {make}")
        elif option == "ssh_private_key" and file.stat().st_mode & 0o077:
            yield trouble("ssh key", f"{where}: others may read {auth[option]}, so that ssh refuses it; chmod 600 it")
        else:
            yield good("ssh key", f"{auth[option]} is here")
    if not {"ssh_private_key", "ssh_public_key"} & set(auth) and asked.config["provider"]["type"] != "local":
        yield good("ssh key", "Ray makes one")


def _is_token(to: str) -> bool:
    return to.rpartition("/")[2] == "auth_token"


def _token(asked: Asked) -> Iterator[Check]:
    """Looks for the token, and whether the nodes will ask for it."""
    for kind in ("head", "worker"):
        option = f"{kind}_start_ray_commands"
        starts = [command for command in asked.config.get(option, []) if "ray start" in command]
        if not starts or not all("RAY_AUTH_MODE=token" in command for command in starts):
            yield trouble(
                "token",
                f"{asked.at(option)}: {option} start Ray without RAY_AUTH_MODE=token, so that whoever reaches it runs "
                "code; export it before ray start, as cluster.yaml does",
            )
    shipped = [(to, what) for to, what in asked.config.get("file_mounts", {}).items() if _is_token(to)]
    if not shipped:
        yield trouble(
            "token", f"{asked.at('file_mounts')}: file_mounts ships no token; add ~/.ray/auth_token: ~/.ray/auth_token"
        )
    for to, what in shipped:
        where, file = asked.at("file_mounts", to), Path(what).expanduser()
        if not file.is_file():
            yield trouble("token", f"{where}: there is no token at {what}; make one: {_MAKE_TOKEN}")
        elif not file.read_text(encoding="utf-8", errors="replace").strip():
            yield trouble("token", f"{where}: the token at {what} is empty; remove it and make one: {_MAKE_TOKEN}")
        elif others_may_read(file):
            remedy = f"chmod 700 {Path(what).parent} && chmod 600 {what}"
            yield trouble("token", f"{where}: others on this machine may read the token at {what}; {remedy}")
        else:
            yield good("token", f"{what} is here, and the user's alone")


def others_may_read(file: Path) -> bool:
    """Tells whether another user of this machine can come to a file and read it.

    Args:
        file: the file.
    """
    try:
        file = file.resolve(strict=True)
        return any(
            file.stat().st_mode & read and all(folder.stat().st_mode & enter for folder in file.parents)
            for read, enter in ((0o040, 0o010), (0o004, 0o001))
        )
    except OSError as error:
        raise UserError(f"{file} cannot be looked at ({error.strerror}); mend its permissions") from None
