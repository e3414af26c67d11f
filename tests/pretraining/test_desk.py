"""Trainings reach every worker once, and workers that are not needed go home."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from siamray.pretraining.desk import Desk

Answer = TypeVar("Answer")
SOON = 0.05


async def waiting(awaitable: Awaitable[Answer]) -> "asyncio.Task[Answer]":
    """Begins to wait, and sees that it has to."""
    task = asyncio.ensure_future(awaitable)
    await asyncio.sleep(SOON / 5)
    assert not task.done()
    return task  # type: ignore[return-value]


def test_all_workers_get_a_training_and_one_that_is_started_anew_gets_it_again() -> None:
    async def story() -> None:
        desk = Desk(60)
        early = await waiting(desk.take(0))
        assert await desk.put(b"first") == 1
        assert await early == await desk.take(0) == (1, b"first")
        # Its part is done, the training is not: it must not begin it again.
        done = await waiting(desk.take(1))
        assert await desk.tell(1, "done")
        assert await desk.told(0) == [("taken", None), ("done", None)]
        # Started anew after the end: there is nothing to do again.
        anew = await waiting(desk.take(0))
        await desk.put(b"second")
        assert await done == await anew == (2, b"second")

    asyncio.run(story())


def test_the_first_end_of_a_training_counts_and_one_that_nobody_waits_for_is_told_so() -> None:
    async def story() -> None:
        desk = Desk(60)
        await desk.put(b"first")
        await desk.take(0)
        assert await desk.tell(1, "epoch", {"epoch": 1})
        assert await desk.tell(1, "DivergedError", "no number")
        assert not await desk.tell(1, "done")
        await desk.put(b"second")
        assert not await desk.tell(1, "epoch", {"epoch": 2})
        await desk.take(1)
        assert await desk.told(0) == [("taken", None)]
        await desk.close()
        assert not await desk.tell(2, "epoch", {"epoch": 1})
        assert await desk.take(0) is None

    asyncio.run(story())


def test_workers_without_a_training_go_home_and_those_with_one_stay() -> None:
    async def story() -> None:
        desk = Desk(SOON)
        await desk.put(b"first")
        await desk.take(0)
        # One of two has done its part; the other one takes its time.
        quick = asyncio.ensure_future(desk.take(1))
        await asyncio.sleep(3 * SOON)
        assert not quick.done()
        await desk.tell(1, "done")
        assert await quick is None
        assert await desk.put(b"second") == 0

    asyncio.run(story())


def test_files_are_asked_for_once_and_those_of_the_leading_worker_come_back() -> None:
    async def story() -> None:
        desk = Desk(60)
        await desk.put(b"first")
        await desk.take(0)
        workers = [await waiting(desk.files(1)), await waiting(desk.files(1))]
        assert await desk.told(0) == [("taken", None), ("apart", None)]
        await desk.lay({"checkpoint.pt": b"1", "epochs.parquet": b"1"})
        assert [await worker for worker in workers] == [{"checkpoint.pt": b"1", "epochs.parquet": b"1"}] * 2
        for epoch in (b"2", b"3"):
            assert await desk.keep(1, {"checkpoint.pt": epoch})
        await desk.tell(1, "epoch", {"epoch": 3})
        assert [kind for kind, _ in await desk.told(2)] == ["files", "files", "epoch"]
        assert await desk.arrived() == {"checkpoint.pt": b"3"}
        assert await desk.arrived() == {}
        # Whoever is started anew gets what the lost workers had sent.
        assert await desk.files(1) == {"checkpoint.pt": b"3", "epochs.parquet": b"1"}
        await desk.put(b"second")
        assert not await desk.keep(1, {"checkpoint.pt": b"4"})
        assert await desk.arrived() == {}
        assert not (await waiting(desk.files(2))).done()

    asyncio.run(story())
