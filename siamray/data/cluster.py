"""Processors or a cluster's address go in; a Ray that runs during a block of code comes out."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from siamray.errors import UserError


@contextmanager
def running_ray(cpus: int | None = None, address: str | None = None) -> Iterator[None]:
    """Makes sure that Ray runs while the block does; a Ray that runs already is used and left running.

    Args:
        cpus: processors Ray may use on this machine; None = all.
        address: address of a cluster to join ("auto" finds it); None starts Ray on this machine.

    Raises:
        UserError: if the cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    # Ray reports its use to its makers unless told not to; siamray sends nothing anywhere.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        if address is None:
            # "local" and not None: a stale file of an ended Ray would make None try to join it.
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        raise UserError(f"cluster.address={address}: no Ray cluster answers there; leave it out to run here") from None
    try:
        yield
    finally:
        ray.shutdown()
