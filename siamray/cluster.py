"""A cluster configuration goes in, a connection to Ray comes out: on this machine, or to a running cluster."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from siamray.config import ClusterConfig
from siamray.errors import UserError


@contextmanager
def connected(cluster: ClusterConfig, cpus: int | None = None) -> Iterator[dict[str, float]]:
    """Connects to Ray for the time of a block, and disconnects only what it connected.

    Args:
        cluster: its address names a running cluster; null starts Ray on this machine.
        cpus: processors of a Ray started here; None = all.

    Yields:
        All resources of the cluster, such as {"CPU": 2.0}.

    Raises:
        UserError: if there is no cluster at the address.
    """
    # Read by Ray when it is imported or started, so they come first: the user's terminal is not Ray's log.
    # Ray reports its use to its makers unless told not to; siamray sends nothing anywhere.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # A sweep takes the signals itself.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    import ray

    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    here = cluster.address is None
    try:
        ray.init(
            # "local" and not null: a stale file of an ended Ray would make null try to join it.
            address="local" if here else cluster.address,
            num_cpus=cpus if here else None,
            # Train's clean-up of an early stopped trial asks the dashboard's State API, so workers need it.
            include_dashboard=(cluster.workers > 0) if here else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except ConnectionError:
        raise UserError(
            f"cluster.address={cluster.address}: no Ray cluster there; start one, or leave it null"
        ) from None
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()
