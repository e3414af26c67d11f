"""Ray Train's workers go in; their process group, over the network that Ray itself uses between the nodes, comes out.

Left alone, gloo takes the address that a machine's own name has, which on Debian and Ubuntu is 127.0.1.1: two machines
then wait for each other until they give up.
"""

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ray.train.torch.config import TorchConfig, _TorchBackend


@dataclass
class NodeNetwork(TorchConfig):
    """As TorchConfig."""

    @property
    def backend_cls(self) -> type["_NodeNetworkBackend"]:
        """What starts the process group."""
        return _NodeNetworkBackend


class _NodeNetworkBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(use_node_network)
        super().on_start(worker_group, backend_config)


def use_node_network() -> None:
    """Names the network interface of this node's address to gloo and NCCL, unless the user has named one."""
    import ray

    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, name)


def interface_of(address: str) -> str | None:
    """Finds the network interface that has an address; None where none has it, as behind a translation of addresses."""
    # Ray brings it along.
    interfaces = import_module("psutil").net_if_addrs()
    return next((name for name, known in interfaces.items() if any(each.address == address for each in known)), None)
