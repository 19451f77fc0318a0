"""Node ports on the node's own localhost.

    127.0.0.1:N   translated on its way out, as any node port. A packet with such a source leaves the node, and its
                  answer comes back, only with `route_localnet` on: set once the rules that keep others' loopback
                  addresses out are in force.
    [::1]:N       no such switch exists for IPv6. TCP is translated to a socket here, which connects to the node port
                  once more, by an address that can be translated. Without endpoints it is refused, in the kernel.
                  UDP arrives at a socket of its own for each node port that has endpoints; at others nobody listens.

The rules decide for all, so policies and readiness are those of any program on this node. One socket serves every TCP
node port: the kernel knows what a connection was for. Of a datagram it doesn't say.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Iterable

from kubesvc.kernel import relay, sysctl
from kubesvc.kernel.nft.transaction import Nft
from kubesvc.proxy.config import LOOPBACK6
from kubesvc.proxy.frontends import Frontends
from kubesvc.proxy.layout import TABLE, TCP, UDP, split_key, tail, unpack
from kubesvc.proxy.ruleset import MARTIANS

log = logging.getLogger(__name__)

FORWARDER_PORT = 10247
"""On ::1. The same after a restart, so that the table need not change; another when it is taken."""
ROUTE_LOCALNET = "ipv4/conf/all/route_localnet"
_BACKLOG = 1024
_CLIENTS = 64  # of one UDP port, each with a socket
_AGAIN = 5.0  # seconds until a port that is taken is tried again
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
        return await _connect(self._frontends, TCP, port)


class DatagramForwarder:
    """Passes what comes to [::1]:N on to node port N, for each that has endpoints. Tell it of every change; `run` keeps
    its sockets, in the network namespace of the thread."""

    def __init__(self, frontends: Frontends) -> None:
        self._frontends = frontends
        self._doubtful: set[int] = set()  # ports whose endpoints came or went
        self._woken = asyncio.Event()
        self._open: dict[int, asyncio.Task[None]] = {}
        self._complained: set[int] = set()
        self._most = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)

    def changed(self, keys: Iterable[bytes]) -> None:
        """These frontends have changed, come or gone."""
        found = {port for _, protocol, port in map(split_key, keys) if protocol == UDP}
        if found:
            self._doubtful |= found
            self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._woken.wait()
                self._woken.clear()
                while self._doubtful:
                    self._look(self._doubtful.pop())
        finally:
            self._doubtful |= self._open.keys()
            self._woken.set()
            for task in self._open.values():
                task.cancel()
            await asyncio.gather(*self._open.values(), return_exceptions=True)
            self._open.clear()

    def _look(self, port: int) -> None:
        wanted = _address(self._frontends, UDP, port) is not None
        task = self._open.get(port)
        if task is not None and (task.done() or not wanted):
            task.cancel()
            del self._open[port]
        if not wanted or port in self._open:
            return
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if len(self._open) >= self._most:
                raise OSError(errno.EMFILE, f"{self._most} others are served already")
            receiver.bind((str(LOOPBACK6), port))
        except OSError as error:
            receiver.close()
            self._complain(port, error)
            return
        self._complained.discard(port)
        self._open[port] = asyncio.create_task(self._serve(receiver, port))

    def _complain(self, port: int, error: OSError) -> None:
        if port not in self._complained:
            log.warning("node port %d/UDP doesn't answer on ::1: %s; trying again and again", port, error)
        self._complained.add(port)
        asyncio.get_running_loop().call_later(_AGAIN, self._again, port)

    def _again(self, port: int) -> None:
        self._doubtful.add(port)
        self._woken.set()

    async def _serve(self, receiver: socket.socket, port: int) -> None:
        async def dial(_receiver: socket.socket) -> socket.socket:
            return await _connect(self._frontends, UDP, port)

        with receiver:
            await relay.datagrams(receiver, dial, _CLIENTS)


def _address(frontends: Frontends, protocol: int, port: int) -> bytes | None:
    """An address of this node at which a node port has endpoints: of IPv6, if there is one."""
    for address in sorted(frontends.node_port_ips, key=len, reverse=True):
        frontend = frontends.find(address + tail(protocol, port))
        if frontend is not None and frontend.endpoints:
            return address
    return None


async def _connect(frontends: Frontends, protocol: int, port: int) -> socket.socket:
    """To a node port, by an address that is translated. Raises OSError."""
    address = _address(frontends, protocol, port)
    if address is None:
        raise ConnectionRefusedError(f"port {port} is no Service's that has endpoints")
    family = socket.AF_INET6 if len(address) == 16 else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    target = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(target, (str(unpack(address)), port))
    except BaseException:
        target.close()
        raise
    return target


def open_way() -> None:
    """Let packets from 127.0.0.1 leave, and their answers come back. Call it when the rules are in force."""
    sysctl.ensure(ROUTE_LOCALNET, "1")


def close_way(nft: Nft) -> None:
    """Undo `open_way`, where a table of ours says that it was done. Call it before that table goes."""
    if MARTIANS in nft.chains(TABLE):
        sysctl.ensure(ROUTE_LOCALNET, "0")
