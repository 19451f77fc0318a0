"""The proxy's HTTP servers: its own health and metrics, and a port for each Service that asks for a health check.

    :10256   /healthz /livez              :10249   /metrics /proxyMode
    :N       any path                     N: a Service's healthCheckNodePort, on the addresses node ports answer on

A load balancer asks a Service's port on every node and sends packets to those that say 200. What is answered is
computed when asked. A port that can't be listened on is an event on its Service, tried again and again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from aiohttp import web

from kubesvc.api.core import Service
from kubesvc.api.registry import SERVICE
from kubesvc.client.events import WARNING, Recorder
from kubesvc.client.queue import WorkQueue
from kubesvc.proxy.frontends import Key
from kubesvc.proxy.health import Answer
from kubesvc.proxy.policy import ours

log = logging.getLogger(__name__)

Answerer = Callable[[str], Answer]  # path -> answer


class Listener:
    """One answerer on a port of several addresses."""

    def __init__(self, answer: Answerer) -> None:
        self._answer = answer
        self._web = web.Server(self._handle, access_log=None)
        self._servers: list[asyncio.Server] = []

    async def open(self, addresses: Sequence[str], port: int) -> None:
        """Listen on all of them, or on none. Raises OSError."""
        loop = asyncio.get_running_loop()
        try:
            for address in addresses:
                self._servers.append(await loop.create_server(self._web, address, port))
        except OSError:
            await self.close()
            raise

    @property
    def port(self) -> int:
        """The one listened on, where any was asked for."""
        found: int = self._servers[0].sockets[0].getsockname()[1]
        return found

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        await self._web.shutdown(0.1)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        found = self._answer(request.path)
        return web.Response(status=found.status, text=found.body, headers=found.headers)


class ServicePorts:
    """The health-check node ports of Services. Feed it with `service_changed`; `run` keeps them listening."""

    def __init__(
        self,
        addresses: Sequence[str],
        answer: Callable[[Key], Answer],
        recorder: Recorder,
        node: str,
        proxy_name: str,
    ) -> None:
        self._addresses = addresses
        self._answer = answer
        self._recorder = recorder
        self._node, self._proxy_name = node, proxy_name
        self._wanted: dict[Key, tuple[int, Service]] = {}
        self._open: dict[Key, tuple[int, Sequence[str], Listener]] = {}  # with the addresses listened on
        self._complained: set[tuple[Key, int]] = set()
        self._queue: WorkQueue[Key] = WorkQueue("health-check node ports")

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        before, now = self._port(old), self._port(new)
        if new is not None and now:
            self._wanted[new.key] = (now, new)
        elif old is not None:
            self._wanted.pop(old.key, None)
        if before != now:
            changed = new or old
            assert changed is not None
            self._queue.add(changed.key)

    def _port(self, service: Service | None) -> int:
        if service is None or not ours(service, self._proxy_name):
            return 0
        spec = service.spec
        return spec.health_check_node_port if spec.external_traffic_policy == "Local" else 0

    def move(self, addresses: Sequence[str]) -> None:
        """Listen on these addresses from now on."""
        self._addresses = addresses
        for key in self._wanted:
            self._queue.add(key)

    async def run(self) -> None:
        try:
            await self._queue.run(self._reconcile)
        finally:
            for _, _, listener in self._open.values():
                await listener.close()

    async def _reconcile(self, key: Key) -> None:
        port, service = self._wanted.get(key, (0, None))
        addresses = self._addresses
        listening, on, listener = self._open.get(key, (0, addresses, None))
        if (port, addresses) == (listening, on):
            return
        if listener is not None:
            await listener.close()
            del self._open[key]
        if service is None:
            return
        fresh = Listener(lambda _path: self._answer(key))
        try:
            await fresh.open(addresses, port)
        except OSError as error:
            self._complain(service, port, error)
            self._queue.add_after(key, 5.0)
            return
        self._complained.discard((key, port))
        self._open[key] = (port, addresses, fresh)

    def _complain(self, service: Service, port: int, error: OSError) -> None:
        if (service.key, port) in self._complained:
            return
        self._complained.add((service.key, port))
        text = f'node {self._node} failed to start healthcheck "{"/".join(service.key)}" on port {port}: {error}'
        log.warning(text)
        self._recorder.record("kube-proxy", SERVICE, service, WARNING, "FailedToStartServiceHealthcheck", text)


async def listen(answer: Answerer, address: str, port: int, what: str) -> None:
    """Serve until cancelled. A port in use is tried again: the proxy before this one may still be ending."""
    complained = False
    while True:
        listener = Listener(answer)
        try:
            await listener.open([address], port)
        except OSError as error:
            if not complained:
                log.warning("%s can't listen on %s port %d: %s; trying again", what, address, port, error)
            complained = True
            await asyncio.sleep(1.0)
            continue
        try:
            await asyncio.Event().wait()
        finally:
            await listener.close()
