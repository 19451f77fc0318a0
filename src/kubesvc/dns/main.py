"""One node's DNS, wired: informers, answers, sockets, and this node's endpoint of kube-dns.

start: let questions queue ─► caches synced (or HOLD_SECONDS: SERVFAIL) ─► answer ─► announce kube-dns-NODE
end:   withdraw kube-dns-NODE ─► answer a little longer, until every proxy has heard ─► close
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import time

from kubesvc.api.errors import ApiError
from kubesvc.client.session import Session, Unreachable
from kubesvc.dns.answers import Answers
from kubesvc.dns.clients import Clients
from kubesvc.dns.config import DnsConfig
from kubesvc.dns.forward import Forwarder
from kubesvc.dns.health import HealthServer
from kubesvc.dns.kube_dns import Announcement
from kubesvc.dns.metrics import render
from kubesvc.dns.neighbour import Watch, asking
from kubesvc.dns.resolver import Resolver
from kubesvc.dns.server import Server
from kubesvc.dns.world import World

log = logging.getLogger(__name__)

HOLD_SECONDS = 2.0  # a stub resolver waits 5 s for a reply, but gives up at once on SERVFAIL
WITHDRAW_SECONDS = 2.0  # an API that is away must not hold up the end


async def run(session: Session, config: DnsConfig) -> None:
    """Answer on the config's sockets until cancelled; then withdraw, drain and stop."""
    networks = [ipaddress.ip_network(cidr) for cidr in config.cluster_cidrs]
    answers = Answers(
        config.dns_domain,
        ttl=config.ttl,
        networks=networks,
        pod_mode=config.pod_mode,
        searches=config.host_searches,
    )
    answers.set_hosts(config.hosts)
    forwarder = Forwarder(
        config.upstreams,
        config.socket_factory,
        clock=time.monotonic,
        zones=config.zones,
        random_case=config.random_case,
    )
    clients = Clients(session, config.node_name, networks=networks) if config.complete_search else None
    server = Server(answers, Resolver(answers, forwarder), config.udp_sockets, config.tcp_sockets, clients or {})
    world = World(session, answers)
    announcement = Announcement(session, world.slices, node=config.node_name, node_ip=config.node_ip, port=config.port)
    health = None
    if config.health_socket is not None:

        def metrics() -> str:
            family = "2" if ":" in config.node_ip else "1"
            zone = config.dns_domain
            return render(server.counts, forwarder, zone=zone, port=config.port, family=family)

        health = HealthServer(config.health_socket, lambda: answers.synced, metrics)
        await health.start()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(world.run())
            group.create_task(_begin(server, forwarder, world))
            if clients is not None:
                group.create_task(clients.run())
            await world.synced.wait()
            # Hundreds of thousands of answers that live long: keep them out of every full collection's pause.
            gc.collect()
            gc.freeze()
            group.create_task(announcement.run())
            group.create_task(Watch(session, world.slices, node=config.node_name, probe=asking(answers.zone)).run())
    finally:
        await _withdraw(announcement, config.drain_seconds)
        await server.stop()
        await forwarder.close()
        if health is not None:
            await health.stop()


async def _begin(server: Server, forwarder: Forwarder, world: World) -> None:
    """Answer once the caches have synced: what was asked while a killed server's socket had no reader waits there."""
    try:
        async with asyncio.timeout(HOLD_SECONDS):
            await world.synced.wait()
    except TimeoutError:
        log.warning("the API has not been read in %.0f s; names of the cluster are SERVFAIL until then", HOLD_SECONDS)
    await server.start()
    forwarder.probe_loops()


async def _withdraw(announcement: Announcement, drain_seconds: float) -> None:
    try:
        async with asyncio.timeout(WITHDRAW_SECONDS):
            await announcement.withdraw()
    except (ApiError, Unreachable, TimeoutError) as error:
        log.warning("this node's endpoint of kube-dns stays: %s", error or "the API did not answer in time")
    else:
        await asyncio.sleep(drain_seconds)
