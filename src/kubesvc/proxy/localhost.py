"""Node ports on the node's own localhost.

    127.0.0.1:N   translated on its way out, as any node port. A packet with such a source leaves the node, and its
                  answer comes back, only with `route_localnet` on: set once the rules that keep others' loopback
                  addresses out are in force.
    [::1]:N       no such switch exists for IPv6. TCP is translated to a socket here, which connects to the node port
                  once more, by an address that can be translated. Without endpoints it is refused, in the kernel.

The rules decide for both, so policies and readiness are those of any program on this node. One socket serves every node
port: the kernel knows what a connection was for.
"""

from __future__ import annotations

import asyncio
import logging
import socket

from kubesvc.kernel import relay, sysctl
from kubesvc.kernel.nft.transaction import Nft
from kubesvc.proxy.config import LOOPBACK6
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import TABLE, TCP, tail, unpack
from kubesvc.proxy.ruleset import MARTIANS

log = logging.getLogger(__name__)

FORWARDER_PORT = 10247
"""On ::1. The same after a restart, so that the table need not change; another when it is taken."""
ROUTE_LOCALNET = "ipv4/conf/all/route_localnet"
_BACKLOG = 1024
_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv6/ip6_tables.h IP6T_SO_ORIGINAL_DST
_SOCKADDR_IN6 = 28  # bytes


def listen() -> socket.socket | None:
    """The socket for ::1, in this network namespace; None, with a line in the log, where there is no IPv6."""
    for port in (FORWARDER_PORT, 0):
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((str(LOOPBACK6), port))
        except OSError as error:
            listener.close()
            problem = error
            continue
        listener.listen(_BACKLOG)
        return listener
    log.info("node ports don't answer on ::1: %s", problem)
    return None


class Forwarder:
    """Connects each client of [::1]:N to node port N. Lives in the network namespace it was made in."""

    def __init__(self, listener: socket.socket, frontends: Frontends) -> None:
        self._listener, self._frontends = listener, frontends

    async def run(self) -> None:
        await relay.connections(self._listener, self._dial)

    def close(self) -> None:
        self._listener.close()

    async def _dial(self, client: socket.socket) -> socket.socket:
        asked = client.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6)
        port = int.from_bytes(asked[2:4], "big")
        for address in sorted(self._frontends.node_port_ips, key=len, reverse=True):  # IPv6 first
            frontend = self._frontends.find(address + tail(TCP, port))
            if frontend is not None and frontend.endpoints:
                family = socket.AF_INET6 if len(address) == 16 else socket.AF_INET
                target = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                try:
                    await asyncio.get_running_loop().sock_connect(target, (str(unpack(address)), port))
                except BaseException:
                    target.close()
                    raise
                return target
        raise ConnectionRefusedError(f"port {port} is no Service's that has endpoints")


def open_way() -> None:
    """Let packets from 127.0.0.1 leave, and their answers come back. Call it when the rules are in force."""
    sysctl.ensure(ROUTE_LOCALNET, "1")


def close_way(nft: Nft) -> None:
    """Undo `open_way`, where a table of ours says that it was done. Call it before that table goes."""
    if MARTIANS in nft.chains(TABLE):
        sysctl.ensure(ROUTE_LOCALNET, "0")
