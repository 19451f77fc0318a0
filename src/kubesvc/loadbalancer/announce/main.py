"""The announcer of one node: from Services, Nodes and slices to the addresses it answers ARP for.

Runs inside the node's network namespace. Observe (informers) -> decide (`election`, pure) -> apply (`Responder.claim`).
Only Services of type LoadBalancer are asked for. While the API is away the node goes on answering for what it had.
"""

from __future__ import annotations

import asyncio
import logging

from kubesvc.api.core import Node, Service
from kubesvc.api.registry import NODE, SERVICE
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.loadbalancer.announce.election import Vip, addresses, claims, is_local
from kubesvc.loadbalancer.announce.endpoints import EndpointHosts
from kubesvc.loadbalancer.announce.l2 import Responder
from kubesvc.loadbalancer.config import AnnounceConfig
from kubesvc.loadbalancer.nodes import is_eligible

log = logging.getLogger(__name__)


async def run(session: Session, config: AnnounceConfig) -> None:
    """Run until cancelled."""
    responder = Responder(config.interface, announcements=config.announcements, interval=config.announcement_interval)
    await Announcer(session, config, responder).run()


class Announcer:
    """Keeps what `responder` claims equal to what the election gives this node."""

    def __init__(self, session: Session, config: AnnounceConfig, responder: Responder) -> None:
        self._session = session
        self._config = config
        self._responder = responder
        self._services = Informer(session, SERVICE, Service, fields="spec.type=LoadBalancer")
        self._nodes = Informer(session, NODE, Node)
        self._eligible: set[str] = set()
        self._dirty = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._services.run())
            group.create_task(self._nodes.run())
            group.create_task(self._responder.run())
            await self._services.synced.wait()
            await self._nodes.synced.wait()
            endpoints = EndpointHosts(self._session, group, self._dirty.set)
            self._services.on_change(lambda _old, _new: self._dirty.set())
            self._nodes.on_change(self._node_changed)
            self._dirty.set()
            while True:
                await self._dirty.wait()
                self._dirty.clear()
                self._decide(endpoints)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Heartbeats change nothing."""
        before = set(self._eligible)
        if old is not None:
            self._eligible.discard(old.name)
        if new is not None and is_eligible(new):
            self._eligible.add(new.name)
        if self._eligible != before:
            self._dirty.set()

    def _decide(self, endpoints: EndpointHosts) -> None:
        services = [(s, found) for s in self._services.items.values() if (found := addresses(s, self._config.pools))]
        endpoints.follow({s.key for s, _ in services if is_local(s)})
        vips: list[Vip] = []
        for service, found in services:
            where = endpoints.of(service.key) if is_local(service) else None
            for address in found:
                if is_local(service) and where is None:  # not known yet: leave it as it is
                    where = frozenset({self._config.node_name} if address in self._responder.claimed else ())
                vips.append(Vip(address, where))
        self._responder.claim(claims(self._config.node_name, vips, self._eligible))
