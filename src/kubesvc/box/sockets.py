"""The sockets a box listens on, opened once by the supervisor: while a process restarts its callers queue."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec

from kubesvc.box.definition import API_PORT, DNS_HEALTH_PORT, DNS_PORT, Box
from kubesvc.box.families import Address
from kubesvc.box.publish import Published
from kubesvc.kernel import netns

BACKLOG = 1024
UDP_BUFFER = 4 << 20  # bytes


class Sockets(msgspec.Struct, frozen=True):
    """`api`: the host's 127.0.0.1 and the node network; `dns` maps a node -> its (UDP, TCP, health over HTTP);
    `published`: node ports on the host's localhost."""

    api: tuple[socket.socket, ...]
    dns: dict[str, tuple[socket.socket, socket.socket, socket.socket]]
    published: tuple[Published, ...] = ()


def listen_on_host(box: Box) -> socket.socket:
    """The API's socket on the host: the port it had before, else 6443, else any free one."""
    for port in (box.api_port or API_PORT, API_PORT, 0):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.close()
            continue
        listener.listen(BACKLOG)
        return listener
    raise OSError("no free port on 127.0.0.1")


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _tcp(namespace: Path, address: Address, port: int) -> socket.socket:
    listener = netns.socket_in(namespace, _family(address), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((str(address), port))
    listener.listen(BACKLOG)
    return listener


def _udp(namespace: Path, address: Address, port: int) -> socket.socket:
    receiver = netns.socket_in(namespace, _family(address), socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BUFFER)
    receiver.bind((str(address), port))
    return receiver


def open_all(box: Box, on_host: socket.socket, published: tuple[Published, ...]) -> Sockets:
    """Every listening socket of the box, with those made on the host before; its network must be there."""
    inside = _tcp(netns.named(box.namespace("net")), box.network.api, API_PORT)
    dns = {node: open_node(box, node) for node in box.node_names}
    return Sockets((on_host, inside), dns, published)


def open_node(box: Box, node: str) -> tuple[socket.socket, socket.socket, socket.socket]:
    """A node's DNS sockets."""
    namespace, address = netns.named(box.namespace(node)), box.node_ip(node)
    return (
        _udp(namespace, address, DNS_PORT),
        _tcp(namespace, address, DNS_PORT),
        _tcp(namespace, address, DNS_HEALTH_PORT),
    )
