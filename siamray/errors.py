"""What a user can mend: an error of one line, and the way every command ends with it."""

import os
import signal
import sys
from collections.abc import Callable
from difflib import get_close_matches

EXIT_USER_ERROR = 2
# 128 and the number of SIGINT.
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """A mistake or a condition that the user can mend; its message is one line that names file, option and remedy."""


class DiskFull(UserError):
    """There is no space where something must be written; once there is, the same command goes on."""


class Interrupted(KeyboardInterrupt):
    """A signal has ended a command in order.

    Attributes:
        code: exit code by the shell's custom, 128 + the signal's number.
        half_started: whether a library was being started, which then crashes a process that ends in the usual way.
    """

    def __init__(self, number: int, half_started: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number
        self.half_started = half_started


class Halt(BaseException):
    """Ends a command wherever it is, in one line; no Exception, so that no library takes it for one of its work."""


def nearest(word: str, known: list[str]) -> str:
    """Names the known word nearest to a misspelt one, as the end of an error message.

    Args:
        word: what the user wrote.
        known: the valid words.

    Returns:
        ``"; did you mean 'X'?"``, or the list of the valid words where none is near.
    """
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    if len(known) > 20:
        return f"; there are {len(known)} valid names, such as {', '.join(sorted(known)[:5])}"
    return f"; valid: {', '.join(sorted(known))}"


def run_command(main: Callable[[list[str]], None]) -> None:
    """Runs a command's main function on the command line; a UserError ends it in one line with exit code 2.

    Args:
        main: takes the arguments after the program's name.
    """
    try:
        main(sys.argv[1:])
    except (UserError, Halt) as error:
        print(f"siamray: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None
    except KeyboardInterrupt as interrupted:
        print("siamray: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        if isinstance(interrupted, Interrupted) and interrupted.half_started:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(interrupted.code)
        raise SystemExit(getattr(interrupted, "code", EXIT_INTERRUPTED)) from None
