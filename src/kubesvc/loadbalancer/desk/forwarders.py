"""Connections that the balancer ends itself and begins anew to a node port: with a PROXY header, or after TLS."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable, Iterable, Sequence

from kubesvc.kernel import relay
from kubesvc.loadbalancer.desk.proxyprotocol import header
from kubesvc.loadbalancer.providers.desk.model import Balancer, Listener, Target

log = logging.getLogger(__name__)

BACKLOG = 512


class Forwarders:
    """One for each listener of mode proxy. `choose` gives the nodes that a new connection may go to."""

    def __init__(self, choose: Callable[[Balancer, Listener], Sequence[Target]]) -> None:
        self._choose = choose
        self._running: dict[tuple[str, Listener], tuple[socket.socket, asyncio.Task[None]]] = {}
        self._balancers: dict[str, Balancer] = {}  # address -> balancer

    def keep(self, balancers: Iterable[Balancer]) -> None:
        """Exactly those that these balancers need. The connections of one that changes are cut."""
        known = self._balancers = {balancer.address: balancer for balancer in balancers}
        wanted = {(b.address, found) for b in known.values() for found in b.listeners if found.mode == "proxy"}
        for key in self._running.keys() - wanted:
            listening, task = self._running.pop(key)
            task.cancel()
            listening.close()
        for key in wanted - self._running.keys():
            try:
                self._running[key] = self._start(*key)
            except OSError as error:
                log.warning("can't listen on %s port %d: %s", key[0], key[1].port, error)

    def _start(self, address: str, listener: Listener) -> tuple[socket.socket, asyncio.Task[None]]:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address, listener.port))
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        return listening, asyncio.create_task(relay.connections(listening, self._dialler(address, listener)))

    def _dialler(self, address: str, listener: Listener) -> relay.Dial:
        async def dial(client: socket.socket) -> socket.socket:
            balancer = self._balancers.get(address)
            nodes = list(self._choose(balancer, listener)) if balancer else []
            if not nodes:
                raise OSError(f"{address}:{listener.port}: no node is healthy")
            loop = asyncio.get_running_loop()
            target = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                await loop.sock_connect(target, (random.choice(nodes).address, listener.node_port))
                if listener.proxy_protocol:
                    await loop.sock_sendall(target, header(client.getpeername(), client.getsockname()))
            except BaseException:
                target.close()
                raise
            return target

        return dial
