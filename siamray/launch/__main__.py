"""Command: a file that starts a cluster in, what would go wrong with it out, before anything is started or paid for.

``python -m siamray.launch cluster.yaml store=s3://BUCKET/store results=s3://BUCKET/results``
"""

import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from siamray.errors import EXIT_USER_ERROR, UserError, nearest, run_command
from siamray.launch import aws, azure, google, kubernetes
from siamray.launch.checks import Asked, Check, Outcome, trouble, troubled
from siamray.launch.hosts import check_hosts
from siamray.launch.machine import check_machine, check_placeholders
from siamray.launch.ray_file import check_file
from siamray.launch.reading import Document, read

HELP = """python -m siamray.launch FILE [store=PLACE] [results=PLACE]

Tells what is wrong with a file that starts a cluster, before anything is paid for; it starts and changes nothing.
FILE      cluster.yaml, or one of experiments/cluster/launch
store=    results=   the places that the sweeps will be given: an object is written into each and removed

For AWS the account is asked (pip install boto3), hosts of one's own are asked by ssh, manifests for Kubernetes are held
against its schemas (pip install kubernetes-validate). The table says what was not checked, and why."""
_PLACES = ("store", "results")


def main(words: list[str]) -> None:
    """Checks the file that the command line names.

    Args:
        words: the command line.

    Raises:
        UserError: there is no such file, or the command line is wrong.
        SystemExit: with exit code 2, after a line for every trouble.
    """
    if any(word in ("--help", "-h", "help") for word in words):
        print(HELP)
        return
    name, places = _words(words)
    documents, found = read(Path(name), name)
    if not found and not documents:
        found = [trouble(name, f"{name}: it is empty; copy cluster.yaml, or one of experiments/cluster/launch")]
    starts = f"ray up {name}"
    if documents and not found:
        if _is_manifest(documents):
            starts = f"kubectl apply -f {name}"
        found = check(name, documents, places)
    Console().print(as_table(found))
    for line in dict.fromkeys(check.said for check in found if check.outcome is Outcome.TROUBLE):
        print(f"siamray: {line}", file=sys.stderr)
    if troubled(found):
        raise SystemExit(EXIT_USER_ERROR)
    Console().print(f"ready: {starts}", soft_wrap=True, highlight=False, markup=False)


def check(name: str, documents: list[Document], places: dict[str, str]) -> list[Check]:
    """Checks what a file says, from what needs nothing but the file to what asks others.

    Args:
        name: of the file.
        documents: what it says.
        places: option (store, results) -> place.

    Returns:
        What was found; where the file itself is wrong, nobody else is asked.
    """
    for document in documents:
        if not isinstance(document.content, dict):
            return [trouble(name, f"{name}: no keys with values at its outermost level; look at its indentation")]
    parts = [Asked(name, document.content, document.lines, places) for document in documents]
    if _is_manifest(documents):
        found = [said for part in parts for said in kubernetes.check_manifest(part)]
        left = [said for part in parts for said in check_placeholders(part)]
        found += [said for said in left if said.outcome is Outcome.TROUBLE] or left[:1]
        return found if troubled(found) else [*found, *kubernetes.check_machine(parts[0])]
    if len(parts) > 1:
        return [trouble(name, f"{name}: {len(parts)} documents, divided by ---, where ray up reads one; keep one")]
    (asked,) = parts
    found = check_file(asked)
    if troubled(found):
        return found
    found += [*check_placeholders(asked), *check_machine(asked)]
    hosts = asked.config["provider"]["type"] == "local"
    # Whoever has the example's addresses, or no key yet, is not to be asked.
    if hosts and troubled([said for said in found if said.subject in ("placeholders", "ssh key", "programs")]):
        return found
    ask = {"aws": aws.check_account, "azure": azure.check_account, "gcp": google.check_account, "local": check_hosts}
    return [*found, *ask[asked.config["provider"]["type"]](asked)]


def as_table(found: list[Check]) -> Table:
    """One row per check."""
    colours = {Outcome.GOOD: "green", Outcome.TROUBLE: "bold red", Outcome.UNCHECKED: "yellow"}
    table = Table("what", "", "found")
    rows = [(said.subject, said.outcome, "" if said.outcome is Outcome.TROUBLE else said.said) for said in found]
    for subject, outcome, text in dict.fromkeys(rows):
        table.add_row(subject, f"[{colours[outcome]}]{outcome}[/]", escape(text or "see below"))
    return table


def _words(words: list[str]) -> tuple[str, dict[str, str]]:
    """Takes the command line apart."""
    files = [word for word in words if "=" not in word]
    if len(files) != 1:
        raise UserError("name one file that starts a cluster: python -m siamray.launch cluster.yaml")
    places = {}
    for word in words:
        option, equals, place = word.partition("=")
        if not equals:
            continue
        if option not in _PLACES:
            raise UserError(f"{option}= is no option of this command{nearest(option, list(_PLACES))}")
        if not place:
            raise UserError(f"{option}= names no place; write a URL or a folder behind it, or leave it out")
        places[option] = place
    (name,) = files
    if name.endswith((".sh", ".sbatch")):
        raise UserError(f"{name} is a script of SLURM's, which checks it itself: sbatch --test-only {name}")
    return name, places


def _is_manifest(documents: list[Document]) -> bool:
    return any(isinstance(part.content, dict) and {"apiVersion", "kind"} & set(part.content) for part in documents)


if __name__ == "__main__":
    run_command(main)
