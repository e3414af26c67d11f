"""SIGINT and SIGTERM come in; a sweep ends in order at the first one, at once at the second."""

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from siamray.cluster import ended
from siamray.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Takes the signals for the time of a block.

    Attributes:
        asked: the first signal's number; 0 before there was one.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        """Takes nothing yet.

        Args:
            say: tells the user what happens.
        """
        self.asked = 0
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        """Takes the signals."""
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the signals back.

        Raises:
            Interrupted: a signal came, and Ray has ended too: a batch system sends it to every process of a job.
        """
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is not None and self.asked and ended():
            raise Interrupted(self.asked) from None

    def end(self) -> None:
        """Ends what the signals were for.

        Raises:
            Interrupted: there was a signal.
        """
        if self.asked:
            raise Interrupted(self.asked)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            # Ray's processes end with the one that started them; results are written atomically.
            os._exit(128 + number)
        self.asked = number
        self._say("ending; trials that run go on from their last epoch next time; once more ends at once")
