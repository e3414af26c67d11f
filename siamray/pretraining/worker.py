"""One worker among many: what it is told of the others, the same for one process and for a cluster."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from numpy.typing import NDArray


@dataclass(frozen=True)
class Worker:
    """One of the processes that train together; alone, it is rank 0 of 1."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this is the worker that writes files."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Collects a small value of every worker on every worker, in order of rank."""
        if self.world_size == 1:
            return [value]
        collected: list[Any] = [None] * self.world_size
        distributed.all_gather_object(collected, value)
        return collected

    def total(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Adds up whole numbers over all workers, any shape; every worker gets the sums and none sees the parts."""
        if self.world_size == 1:
            return counts
        summed = torch.from_numpy(np.ascontiguousarray(counts)).to(self.device)
        distributed.all_reduce(summed)
        return summed.cpu().numpy()

    def broadcast(self, value: Any) -> Any:
        """Hands the leading worker's value to all."""
        if self.world_size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def align(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrites tensors, the same on all workers by number and shape, by the leading worker's."""
        if self.world_size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Waits until all workers are here."""
        if self.world_size > 1:
            distributed.barrier()
