"""What node ports on 127.0.0.1 could open, and don't: packets with loopback addresses that come over a wire."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from kubesvc.proxy import localhost
from kubesvc.proxy.layout import TABLE
from support.flows import HOSTS, PODS, everything
from support.net import DEADLINE, Lab, Namespace, ask
from support.wires import Wires, build

PORT = 9999


def test_the_forwarder_listens_where_it_can(wires: Wires) -> None:
    """On another port when its own is taken; nowhere, and without a failure, on a node without IPv6."""
    node = wires.at["node"]
    first, second = node.call(localhost.listen), node.call(localhost.listen)
    assert isinstance(first, socket.socket)
    assert isinstance(second, socket.socket)
    assert first.getsockname()[1] == localhost.FORWARDER_PORT != second.getsockname()[1]
    for listener in (first, second):
        listener.close()
    node.sysctl("ipv6/conf/lo/disable_ipv6", "1")
    assert node.call(localhost.listen) is None
    wires.backend.close()


@pytest.fixture
def wires() -> Iterator[Wires]:
    with Lab("martian") as lab:
        yield build(lab)


def datagram(source: str, destination: str, text: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram to PORT."""
    udp = struct.pack(">HHHH", 5353, PORT, 8 + len(text), 0) + text
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + header[12:] + udp


def send(where: Namespace, link: str, mac: str, packet: bytes) -> None:
    """Put a packet on the wire as it is, whatever the sender's own kernel thinks of its addresses."""

    def put() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as wire:
            wire.sendto(packet, (link, 0x0800, 0, 0, bytes.fromhex(mac.replace(":", ""))))

    where.call(put)


def mac_of(where: Namespace, link: str) -> str:
    return where.ip("-br", "link", "show", "dev", link).split()[2]


@pytest.mark.parametrize("sender", ["client", "pod1"])
def test_a_packet_to_loopback_from_the_wire_reaches_nobody(wires: Wires, sender: str) -> None:
    """Neither from the node network nor from a pod, also with the kernel's own refusal switched off; an ordinary one
    that follows arrives. Without our rules it would have arrived: so the test could fail."""
    node, own = wires.at["node"], HOSTS["4"]["node"]
    towards = mac_of(node, "eth0" if sender == "client" else "pod1")
    source = HOSTS["4"]["client"] if sender == "client" else PODS["4"]["pod1"]
    with node.socket(socket.SOCK_DGRAM) as receiver:
        receiver.bind(("0.0.0.0", PORT))
        receiver.settimeout(DEADLINE)

        def heard(*destinations: str) -> bytes:
            for number, destination in enumerate(destinations):
                packet = datagram(source, destination, f"{number}".encode())
                send(wires.at[sender], "eth0", towards, packet)
            return receiver.recv(100)

        assert {heard("127.0.0.1", own), receiver.recv(100)} == {b"0", b"1"}
        wires.backend.resync(everything())
        assert heard("127.0.0.1", own) == b"1"
        node.run("nft", "delete", "table", "inet", TABLE)
        assert heard("127.0.0.1") == b"0"
    wires.backend.close()


def test_answers_to_localhost_pass_the_guard(wires: Wires) -> None:
    """They bear the node's address on the wire; and with the kernel's switch off nothing would come back."""
    wires.backend.resync(everything())
    node = wires.at["node"]
    assert ask(node, "127.0.0.1", 30013) == ("pod3", HOSTS["4"]["node"])
    assert ask(node, "127.0.0.1", 31013, udp=True) == ("pod3", HOSTS["4"]["node"])
    node.call(lambda: localhost.close_way(wires.backend._nft))
    with pytest.raises(OSError):
        ask(node, "127.0.0.1", 30013, timeout=0.3)
    wires.backend.close()
