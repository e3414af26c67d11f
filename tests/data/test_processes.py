"""Work that is shared out gives the same results by one process and by several, and ends at the first error."""

import os

import pytest
from rich.progress import Progress

from siamray.data.processes import shared_out


def bar() -> Progress:
    return Progress(disable=True)


@pytest.mark.parametrize("processes", [1, 3])
def test_every_piece_is_done_once_and_its_result_has_its_place(processes: int) -> None:
    done = list(shared_out(abs, range(-20, 0), processes, bar()))
    assert sorted(done) == [(place, 20 - place) for place in range(20)]
    assert list(shared_out(abs, [], processes, bar())) == []


def test_one_process_is_this_one_and_several_are_others() -> None:
    pieces = ["__import__('os').getpid()"] * 4
    assert {process for _, process in shared_out(eval, pieces, 1, bar())} == {os.getpid()}
    assert os.getpid() not in {process for _, process in shared_out(eval, pieces, 2, bar())}


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_a_piece_is_the_callers(processes: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(shared_out(eval, ["1", "1 / 0", "1"], processes, bar()))
