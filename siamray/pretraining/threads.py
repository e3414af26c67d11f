"""A number of threads goes in; for the time of a block all arithmetic of this process uses so many."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Fixes the threads of torch, BLAS and OpenMP: sums in another order differ in their last digits.

    Args:
        number: how many, cluster.cpus of a trial.
    """
    previous = torch.get_num_threads()
    with threadpool_limits(limits=number):
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(previous)
