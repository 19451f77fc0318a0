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
from collections.abc import Callable

from kubesvc.api.errors import ApiError
from kubesvc.client.session import Session, Unreachable
from kubesvc.dns.answers import Answers
from kubesvc.dns.clients import Clients
from kubesvc.dns.config import DnsConfig
from kubesvc.dns.external import Examiner
from kubesvc.dns.forward import Forwarder
from kubesvc.dns.health import HealthServer
from kubesvc.dns.kube_dns import Announcement
from kubesvc.dns.metrics import render
from kubesvc.dns.neighbour import Watch, asking
from kubesvc.dns.notify import Notifier
from kubesvc.dns.reporting import Reporter
from kubesvc.dns.resolver import Resolver
from kubesvc.dns.server import Server
from kubesvc.dns.transfer import Transfers
from kubesvc.dns.workers import Board
from kubesvc.dns.world import World

log = logging.getLogger(__name__)

HOLD_SECONDS = 2.0  # a stub resolver waits 5 s for a reply, but gives up at once on SERVFAIL
BOARD_SECONDS = 1.0  # how old the metrics of other workers may be
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
        others=config.more_domains,
        public=config.public_zones,
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
    transfers = Transfers(answers, [ipaddress.ip_network(cidr) for cidr in config.transfer_to])
    resolver = Resolver(answers, forwarder, transfers)
    server = Server(answers, resolver, config.udp_sockets, config.tcp_sockets, clients or {})
    world = World(session, answers)
    notifier = Notifier(config.notify if config.worker == 0 else (), config.socket_factory)
    world.on_serial(notifier.changed)
    announcement = Announcement(session, world.slices, node=config.node_name, node_ip=config.node_ip, port=config.port)
    page = _metrics(server, forwarder, config)
    reporter = _reporter(session, world, resolver, config) if config.report else None
    if reporter is not None:
        forwarder.on_loop = reporter.loop_found
    ending = False

    def unready() -> str:
        return "it is about to end" if ending else "" if answers.synced else "the caches have not synced"

    health = None
    if config.health_socket is not None:
        board = config.board
        whole = (lambda: board.total(config.worker, page())) if board is not None else page
        health = HealthServer(config.health_socket, unready, whole)
        await health.start()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(world.run())
            group.create_task(_begin(server, world, forwarder, config))
            group.create_task(notifier.run())
            if clients is not None:
                group.create_task(clients.run())
            if config.board is not None and config.worker:
                group.create_task(_write(config.board, config.worker, page))
            await world.synced.wait()
            # Hundreds of thousands of answers that live long: keep them out of every full collection's pause.
            gc.collect()
            gc.freeze()
            if reporter is not None:
                group.create_task(reporter.run())
            if config.announce:
                group.create_task(announcement.run())
                watch = Watch(session, world.slices, node=config.node_name, probe=asking(answers.zone))
                group.create_task(watch.run())
    finally:
        ending = True
        if not config.announce or await _withdrawn(announcement):
            await asyncio.sleep(config.drain_seconds)
        await server.stop()
        await forwarder.close()
        if health is not None:
            await health.stop()


def _metrics(server: Server, forwarder: Forwarder, config: DnsConfig) -> Callable[[], str]:
    family = "2" if ":" in config.node_ip else "1"
    return lambda: render(server.counts, forwarder, zone=config.dns_domain, port=config.port, family=family)


async def _write(board: Board, worker: int, page: Callable[[], str]) -> None:
    """Keep this worker's metrics where the first one finds them, until cancelled."""
    while True:
        board.write(worker, page())
        await asyncio.sleep(BOARD_SECONDS)


def _reporter(session: Session, world: World, resolver: Resolver, config: DnsConfig) -> Reporter:
    async def ask(query: bytes) -> bytes | None:
        return await resolver.answer(query, tcp=True)

    examiner = Examiner(ask, config.socket_factory, config.dns_domain, probe=config.probe_external)
    return Reporter(session, world, examiner, address=config.node_ip, host=config.node_name)


async def _begin(server: Server, world: World, forwarder: Forwarder, config: DnsConfig) -> None:
    """Answer once the caches have synced: what was asked while a killed server's socket had no reader waits there.

    Then look for loops, until cancelled: our own questions could come back to us from now on.
    """
    try:
        async with asyncio.timeout(HOLD_SECONDS):
            await world.synced.wait()
    except TimeoutError:
        log.warning("the API has not been read in %.0f s; names of the cluster are SERVFAIL until then", HOLD_SECONDS)
    await server.start()
    await forwarder.watch(config.find_upstreams)


async def _withdrawn(announcement: Announcement) -> bool:
    try:
        async with asyncio.timeout(WITHDRAW_SECONDS):
            await announcement.withdraw()
    except (ApiError, Unreachable, TimeoutError) as error:
        log.warning("this node's endpoint of kube-dns stays: %s", error or "the API did not answer in time")
        return False
    return True
