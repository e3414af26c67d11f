"""Workers on several machines talk over the network that Ray uses, whatever their own names resolve to."""

import os

import pytest

from siamray.pretraining import network


def test_the_interface_of_an_address_is_found() -> None:
    assert network.interface_of("127.0.0.1") == "lo"
    assert network.interface_of("203.0.113.7") is None


def test_gloo_and_nccl_are_told_the_interface_unless_the_user_has_told_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    network.use_node_network()
    assert os.environ.pop("GLOO_SOCKET_IFNAME") == "lo"
    assert os.environ["NCCL_SOCKET_IFNAME"] == "ib0"
