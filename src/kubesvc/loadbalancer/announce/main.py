"""The announcer of one node: from Services, Nodes and slices to what it answers for by ARP and NDP, and tells by BGP.

    world (informers) ─┬─► election (pure), with who is alive on each interface's segment ─► Responder.claim
                       └─► adverts.routes (pure) ─► BIRD

Runs inside the node's network namespace. While the API is away the node goes on with what it had.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from kubesvc.api.balancing import Address
from kubesvc.api.registry import SERVICE
from kubesvc.client.events import NORMAL, Recorder
from kubesvc.client.session import Session
from kubesvc.loadbalancer.announce.bgp import Speaker
from kubesvc.loadbalancer.announce.election import claims
from kubesvc.loadbalancer.announce.health import Health
from kubesvc.loadbalancer.announce.l2 import Responder
from kubesvc.loadbalancer.announce.segment import Segment
from kubesvc.loadbalancer.announce.world import World
from kubesvc.loadbalancer.config import AnnounceConfig
from kubesvc.loadbalancer.nodes import is_eligible

log = logging.getLogger(__name__)

COMPONENT = "kubesvc-announcer"
SETTLE = 0.01  # seconds in which changes are gathered: a thousand Services may get their addresses at once


async def run(session: Session, config: AnnounceConfig) -> None:
    """Run until cancelled."""
    responders = [
        Responder(interface, announcements=config.announcements, interval=config.announcement_interval)
        for interface in config.interfaces
    ]
    await Announcer(session, config, responders).run()


class Announcer:
    """Keeps what each responder claims equal to what the election on its segment gives this node."""

    def __init__(self, session: Session, config: AnnounceConfig, responders: Sequence[Responder]) -> None:
        self._config = config
        self._dirty = asyncio.Event()
        self._events = Recorder(session, host=config.node_name)
        self._world = World(session, config, self._dirty.set)
        self._health = Health(config.health, self._dirty.set)
        self._speaker = Speaker(session, config, self._world, self._events)
        self._ways = [(r, self._segment(r.interface)) for r in responders]

    def _segment(self, interface: str) -> Segment:
        config = self._config
        return Segment(interface, interval=config.heartbeat, silence=config.silence, changed=self._dirty.set)

    async def listening(self) -> None:
        """Wait until every socket is open: each belongs to the namespace the thread was in then."""
        for responder, segment in self._ways:
            await responder.listening.wait()
            await segment.listening.wait()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._events.run())
                group.create_task(self._health.run())
                for responder, segment in self._ways:
                    group.create_task(responder.run())
                    group.create_task(segment.run())
                await self._world.run(group)
                group.create_task(self._speaker.run())
                self._dirty.set()
                while True:
                    await self._dirty.wait()
                    await asyncio.sleep(SETTLE)
                    self._dirty.clear()
                    self._decide()
        finally:
            for responder, _ in self._ways:
                responder.claim(frozenset())

    def _decide(self) -> None:
        node = self._world.node
        serves = node is not None and is_eligible(node) and self._health.healthy
        self._speaker.healthy = self._health.healthy
        self._speaker.wake()
        rules, _ = self._world.rules()
        for responder, segment in self._ways:
            segment.uid = node.metadata.uid if node is not None else ""
            segment.take_part(serves)
            if not serves:
                responder.claim(frozenset())
            elif segment.settled(self._world.eligible()):
                vips = self._world.vips(lambda vip, r=responder: vip.address in r.claimed)  # type: ignore[misc]
                members = self._world.members(segment.heard(), responder.interface)
                before = responder.claimed
                responder.claim(claims(self._config.node_name, vips, members, rules))
                self._tell(responder.claimed - before)

    def _tell(self, gained: frozenset[Address]) -> None:
        """In MetalLB's words."""
        if gained:
            texts = {str(address) for address in gained}
            message = f'announcing from node "{self._config.node_name}" with protocol "layer2"'
            for service in self._world.services.items.values():
                if any(ingress.ip in texts for ingress in service.status.load_balancer.ingress):
                    self._events.record(COMPONENT, SERVICE, service, NORMAL, "nodeAssigned", message)
