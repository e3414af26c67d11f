"""Serves the results of sweeps as pages for a browser, live and read-only.

python -m dashboards results=results port=8050
"""

import logging
import socket
import sys
from contextlib import suppress

from werkzeug.serving import make_server

from dashboards.guard import is_loopback, new_token
from dashboards.options import AppOptions, parse
from dashboards.server import create_app
from dashboards.source import Source
from siamray.errors import UserError, run_command

COMMAND = "python -m dashboards"


def main(words: list[str]) -> None:
    """Serves the pages until it is interrupted.

    Args:
        words: the command line.

    Raises:
        UserError: an option is wrong, there is no such folder, or the port is taken.
    """
    asked = parse(AppOptions, words, COMMAND)
    source = Source(asked.results)
    if source.single and (problem := source.read(source.place.name).problem):
        raise UserError(problem)
    listening = listen(asked.host, asked.port)
    token = None if is_loopback(asked.host) else new_token()
    port = listening.getsockname()[1]
    server = make_server(asked.host, port, create_app(source, token).server, threaded=True, fd=listening.fileno())
    # A line for every request would hide the link, and hold the token.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    shown = "127.0.0.1" if asked.host in ("0.0.0.0", "localhost") else asked.host
    name = f"[{shown}]" if ":" in shown else shown
    print(f"dashboards of {source.place}: http://{name}:{port}/" + (f"?token={token}" if token else ""))
    if token:
        print("the link opens the pages to whoever has it; the connection is not encrypted")
    sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        server.serve_forever()


def listen(host: str, port: int) -> socket.socket:
    """Takes a port.

    Args:
        host: an address of this machine.
        port: 0 takes a free one.

    Raises:
        UserError: it is taken, forbidden, or the address is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, socket.gaierror):
            raise UserError(f"host={host}: no address of this machine ({reason.lower()})") from None
        raise UserError(f"port={port}: {host} cannot be listened on ({reason.lower()}); name another port") from None
    return listening


if __name__ == "__main__":
    run_command(main)
