"""Trainings come in from a process that waits, and go out to the workers that do them; what they tell comes back.

Where the workers do not see the folder of the process, its files go the same way.

Imports no torch: the actor is there in a second, and its process stays small.
"""

import asyncio
from typing import Any


class Desk:
    """An actor between a process and its group of workers; one training lies on it at a time.

    The workers ask for the next training, and ask again when they have been started anew: a training stays on the
    desk until one of them says that it has ended.
    """

    def __init__(self, idle_seconds: float) -> None:
        """Has no training yet.

        Args:
            idle_seconds: workers that wait as long for a training go home: others may wait for their place.
        """
        self._idle_seconds = idle_seconds
        self._changed = asyncio.Condition()
        self._number = 0
        self._packed: bytes | None = None
        self._told: list[tuple[str, Any]] = []
        self._files: dict[str, bytes] | None = None
        self._arrived: dict[str, bytes] = {}
        self._closed = False

    async def put(self, packed: bytes) -> int:
        """Lays a training on the desk.

        Args:
            packed: the pickled training; only workers open it.

        Returns:
            Its number, counted from 1; 0 where the workers have gone home.
        """
        async with self._changed:
            if self._closed:
                return 0
            self._number += 1
            self._packed, self._told, self._files, self._arrived = packed, [], None, {}
            self._changed.notify_all()
            return self._number

    async def take(self, after: int) -> tuple[int, bytes] | None:
        """Waits for a training.

        Args:
            after: the number of the last training that the worker has done; 0 if none.

        Returns:
            Number and training, the same for all workers; None once there will be no more.
        """
        async with self._changed:
            while not self._closed and (self._packed is None or self._number <= after):
                try:
                    await asyncio.wait_for(self._changed.wait(), self._idle_seconds)
                except TimeoutError:
                    # One that has done its part of a training waits for those that have not, as long as it takes.
                    if self._packed is None:
                        self._closed = True
                        self._changed.notify_all()
            if self._closed or self._packed is None:
                return None
            if not self._told:
                self._told.append(("taken", None))
                self._changed.notify_all()
            return self._number, self._packed

    async def tell(self, number: int, kind: str, value: Any = None) -> bool:
        """Tells something of a training.

        Args:
            number: of the training.
            kind: ``epoch``, or how it ended; the first end counts.
            value: goes with it.

        Returns:
            Whether the training is still wanted.
        """
        async with self._changed:
            if self._closed or number != self._number or self._packed is None:
                return False
            self._told.append((kind, value))
            if kind != "epoch":
                self._packed = None
            self._changed.notify_all()
            return True

    async def files(self, number: int) -> dict[str, bytes]:
        """Gives a worker the files of the training's folder, as they were kept last; asks the process for them first.

        Args:
            number: of the training.

        Returns:
            Name below the folder -> content; the same for all workers that are started together. None of a training
            that nobody waits for any more.
        """
        async with self._changed:
            if ("apart", None) not in self._told:
                self._told.append(("apart", None))
                self._changed.notify_all()
            await self._changed.wait_for(lambda: self._closed or number != self._number or self._files is not None)
            return self._files or {}

    async def lay(self, files: dict[str, bytes]) -> None:
        """Lays the files of the process's folder on the desk, once it was told ``apart``."""
        async with self._changed:
            self._files = files
            self._changed.notify_all()

    async def keep(self, number: int, files: dict[str, bytes]) -> bool:
        """Takes files that the leading worker has made.

        Args:
            number: of the training.
            files: name below its folder -> content.

        Returns:
            Whether the training is still wanted.
        """
        async with self._changed:
            if self._closed or number != self._number or self._packed is None:
                return False
            self._files = (self._files or {}) | files
            self._arrived |= files
            self._told.append(("files", None))
            self._changed.notify_all()
            return True

    async def arrived(self) -> dict[str, bytes]:
        """Gives the process the files that were kept since it asked last."""
        arrived, self._arrived = self._arrived, {}
        return arrived

    async def told(self, seen: int) -> list[tuple[str, Any]]:
        """Waits for something new of the training that was put last.

        Args:
            seen: how many things are known already.

        Returns:
            The others, in order, each with its kind and value; ``taken`` is the first one, ``apart`` asks for files,
            and ``files`` says that some have arrived.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._told) > seen)
            return self._told[seen:]

    async def close(self) -> None:
        """Lets the workers go home: those that train, after the epoch at hand."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
