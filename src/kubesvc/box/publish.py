"""Node ports of a box on this machine's localhost: `kubesvc up --publish 8080:30080`.

    127.0.0.1:8080, [::1]:8080 of this machine ── the process `publish` ──► localhost:30080 of node1

Nothing of the host's network is changed: no rule, no sysctl. The supervisor holds the listening sockets, so a client
that comes while the process restarts waits. node1 asks as a program of its own, so every policy gives an answer.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterable

import msgspec

from kubesvc.box.definition import Box, Publication
from kubesvc.box.errors import BoxError
from kubesvc.kernel import netns, relay

BACKLOG = 1024
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_LOCALHOST = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Published(msgspec.Struct, frozen=True):
    """A publication and the sockets its clients find."""

    publication: Publication
    sockets: tuple[socket.socket, ...]


def listen(box: Box) -> tuple[Published, ...]:
    """The sockets of every publication, on this machine. Raises BoxError for a port that somebody has."""
    found: list[Published] = []
    try:
        for publication in box.publications:
            found.append(Published(publication, _sockets(publication)))
    except BoxError:
        close(found)
        raise
    return tuple(found)


def close(published: Iterable[Published]) -> None:
    for each in published:
        for end in each.sockets:
            end.close()


def _sockets(publication: Publication) -> tuple[socket.socket, ...]:
    found: list[socket.socket] = []
    for family, address in _LOCALHOST:
        try:
            found.append(_bound(family, address, publication))
        except OSError as error:
            if error.errno in _NO_SUCH_ADDRESS and found:  # a machine without IPv6
                continue
            for end in found:
                end.close()
            raise _refusal(publication, address, error) from error
    return tuple(found)


def _bound(family: int, address: str, publication: Publication) -> socket.socket:
    made = socket.socket(family, _KINDS[publication.protocol])
    try:
        if publication.protocol == "tcp":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, publication.host_port))
        if publication.protocol == "tcp":
            made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _refusal(publication: Publication, address: str, error: OSError) -> BoxError:
    port, protocol = publication.host_port, publication.protocol
    if error.errno != errno.EADDRINUSE:
        return BoxError(f"--publish {publication}: can't listen on {address} port {port}: {error.strerror}")
    other = msgspec.structs.replace(publication, host_port=port + 10000 if port < 55536 else port - 10000)
    return BoxError(
        f"--publish {publication}: {protocol} port {port} of {address} is taken on this machine. Give another, such as "
        f"--publish {other}, or end what has it (`ss -Hlnp{protocol[0]} 'sport = {port}'` says what)"
    )


async def run(box: Box, published: Iterable[Published]) -> None:
    """Pass on what arrives, until cancelled. Lives on the host."""
    async with asyncio.TaskGroup() as group:
        for each in published:
            passing = relay.connections if each.publication.protocol == "tcp" else relay.datagrams
            for end in each.sockets:
                group.create_task(passing(end, _dialler(box, each.publication)))


def _dialler(box: Box, publication: Publication) -> relay.Dial:
    node = netns.named(box.namespace(box.node_names[0]))
    kind = _KINDS[publication.protocol] | socket.SOCK_NONBLOCK

    async def connect(family: int, address: str) -> socket.socket:
        target = netns.socket_in(node, family, kind)
        try:
            await asyncio.get_running_loop().sock_connect(target, (address, publication.node_port))
        except BaseException:
            target.close()
            raise
        return target

    async def dial(_client: socket.socket) -> socket.socket:
        # What listens on ::1 there leads to whichever family has endpoints; for UDP no refusal says that one hasn't.
        if box.versions != (4,) and (4 not in box.versions or publication.protocol == "udp"):
            return await connect(socket.AF_INET6, "::1")
        try:
            return await connect(socket.AF_INET, "127.0.0.1")
        except ConnectionRefusedError:
            if 6 not in box.versions:
                raise
        return await connect(socket.AF_INET6, "::1")

    return dial
