"""Links against the kernel, in namespaces of their own."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from kubesvc.kernel import netns
from kubesvc.kernel.links import PROTO_KUBESVC, Links, Route


@pytest.fixture
def spaces(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two namespaces pinned under the test's directory."""
    unique = f"{os.getpid()}-{secrets.token_hex(3)}"
    pair = (tmp_path / f"a-{unique}", tmp_path / f"b-{unique}")
    for path in pair:
        netns.create(path)
    yield pair
    for path in pair:
        netns.delete(path)


def test_a_veth_pair_with_ends_in_two_namespaces_carries_packets(spaces: tuple[Path, Path]) -> None:
    """A routed pair, permanent neighbours and an onlink gateway: as pods hang on a node."""
    node, pod = spaces
    with Links(node) as here, Links(pod) as there:
        here.add_veth(
            "veth1",
            "eth0",
            peer_namespace=pod,
            mac="02:00:00:00:00:01",
            peer_mac="02:00:00:00:00:02",
            up=True,
        )
        there.up("lo")
        there.up("eth0")
        there.add_address("eth0", ip_interface("10.1.0.5/32"))
        gateway = ip_address("169.254.1.1")
        there.set_neighbour("eth0", gateway, "02:00:00:00:00:01")
        there.set_route(ip_network("0.0.0.0/0"), via=gateway, dev="eth0", onlink=True)
        here.up("lo")
        here.add_address("lo", ip_interface("10.9.0.1/32"))
        here.set_route(ip_network("10.1.0.5/32"), dev="veth1", source=ip_address("10.9.0.1"))
        here.set_neighbour("veth1", ip_address("10.1.0.5"), "02:00:00:00:00:02")
        assert here.mac("veth1") == "02:00:00:00:00:01"
        assert there.routes() == [Route(ip_network("0.0.0.0/0"), gateway, "eth0")]

    server = netns.socket_in(pod)
    client = netns.socket_in(node)
    with server, client:
        server.bind(("10.1.0.5", 80))
        server.listen()
        client.settimeout(60)
        client.connect(("10.1.0.5", 80))
        accepted, peer = server.accept()
        accepted.close()
        assert peer[0] == "10.9.0.1"


def test_a_bridge_takes_members_and_moves_with_nothing_left(spaces: tuple[Path, Path]) -> None:
    first, second = spaces
    with Links(first) as here, Links(second) as there:
        here.add_bridge("br0", mac="02:00:00:00:00:10")
        here.add_veth("port1", "out1")
        here.set_master("port1", "br0")
        here.up("port1")
        here.move("out1", second)
        assert "out1" in there.names()
        assert not here.exists("out1")
        here.delete("port1")
        here.delete("port1")
        assert set(here.names()) == {"lo", "br0"}


def test_routes_are_replaced_listed_and_deleted(spaces: tuple[Path, Path]) -> None:
    with Links(spaces[0]) as here:
        here.add_bridge("d0")
        here.add_address("d0", ip_interface("192.168.7.1/24"))
        here.add_address("d0", ip_interface("fd00::1/64"))
        network = ip_network("10.244.3.0/24")
        for last in (2, 3):
            here.set_route(network, via=ip_address(f"192.168.7.{last}"), proto=PROTO_KUBESVC)
        ours = [r for r in here.routes() if r.proto == PROTO_KUBESVC]
        assert ours == [Route(network, ip_address("192.168.7.3"), "d0", PROTO_KUBESVC)]
        here.set_route(ip_network("fd01::/64"), via=ip_address("fd00::2"), proto=PROTO_KUBESVC)
        assert ip_network("fd01::/64") in {r.to for r in here.routes(6)}
        here.delete_route(network)
        here.delete_route(network)
        assert network not in {r.to for r in here.routes()}
        here.delete_address("d0", ip_interface("192.168.7.1/24"))
        here.delete_address("d0", ip_interface("192.168.7.1/24"))


def test_errors_name_the_request_and_keep_the_kernels_errno(spaces: tuple[Path, Path]) -> None:
    with Links(spaces[0]) as here:
        here.add_bridge("d0", up=False)
        with pytest.raises(FileExistsError, match="add link d0 type bridge"):
            here.add_bridge("d0")
        with pytest.raises(OSError, match="find link nothere"):
            here.up("nothere")
        with pytest.raises(OSError, match=r"route 10\.0\.0\.0/8 via 192\.0\.2\.1: .*\("):
            here.set_route(ip_network("10.0.0.0/8"), via=ip_address("192.0.2.1"))


def test_a_socket_serves_several_threads(spaces: tuple[Path, Path]) -> None:
    failed: list[BaseException] = []
    with Links(spaces[0]) as here:

        def work(number: int) -> None:
            try:
                for turn in range(20):
                    here.add_bridge(f"d{number}-{turn}")
                    here.delete(f"d{number}-{turn}")
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert set(here.names()) == {"lo"}
    assert socket.if_nameindex()
