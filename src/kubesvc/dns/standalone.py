"""DNS alone, for any Kubernetes cluster, where CoreDNS would be: `kubesvc dns`.

What a box tells its DNS servers is asked of the API here: the reverse zones of the ServiceCIDR objects and of the
Nodes' pod networks. As CoreDNS it usually runs behind the kube-dns Service of the cluster, whose selector finds its
pods; with `announce` each writes a slice of its own instead, as on a box.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import msgspec
from msgspec.structs import replace

from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.networking import ServiceCIDR
from kubesvc.api.nodes import Node
from kubesvc.api.registry import NODE, SERVICE_CIDR
from kubesvc.client import kubeconfig
from kubesvc.client.session import Session, Unreachable
from kubesvc.dns import main, upstreams, workers
from kubesvc.dns.answers import PodMode
from kubesvc.dns.config import DnsConfig
from kubesvc.dns.settings import Settings
from kubesvc.dns.workers import Board

log = logging.getLogger(__name__)

Address = tuple[str, int]
PATIENCE = 1.0  # seconds between two questions for the networks
PATIENT = 5.0  # seconds after which names are answered without knowing them
BACKLOG = 1024


class StandaloneError(Exception):
    """The server can't start; the message says what to give it."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    kubeconfig: Path | None  # None: the pod's service account
    settings: Settings
    node_name: str
    node_ip: str  # "": the first address listened on, or the one that leads to the API
    listen: tuple[Address, ...] = (("0.0.0.0", 53),)
    http: Address | None = ("0.0.0.0", 9153)  # /health, /ready, /metrics
    resolv_conf: Path = upstreams.RESOLV_CONF
    cluster_cidrs: tuple[str, ...] = ()  # Services' and pods' networks; none: ask the API
    ttl: int = 5
    pod_mode: PodMode = "insecure"
    random_case: bool = False
    complete_search: bool = True
    announce: bool = False
    report: bool = True
    probe_external: bool = False
    workers: int = 0  # processes that answer; 0: as many as the cores are worth
    drain_seconds: float = 5.0  # what CoreDNS's `lameduck 5s` gives proxies


def serve(options: Options) -> None:
    """Answer until SIGTERM or SIGINT. Raises StandaloneError, KubeconfigError, OSError."""
    count = options.workers or workers.usual(len(os.sched_getaffinity(0)))
    session = kubeconfig.load(options.kubeconfig) if options.kubeconfig else kubeconfig.in_cluster()
    with ExitStack() as stack:
        pairs = [stack.enter_context(_sockets(options, shared=count > 1)) for _ in range(count)]
        http = _bound(stack, options.http, socket.SOCK_STREAM) if options.http else None
        if count == 1:
            udp, tcp = pairs[0]
            asyncio.run(_until_told(session, options, udp, tcp, http))
            return
        board = Board(count)

        def work(worker: int) -> None:
            own = options if worker == 0 else replace(options, announce=False, report=False, drain_seconds=0)
            udp, tcp = pairs[worker]
            asyncio.run(_until_told(session, own, udp, tcp, http if worker == 0 else None, worker, board))

        log.info("%d workers", count)
        workers.supervise(count, work)


async def _until_told(
    session: Session,
    options: Options,
    udp: tuple[socket.socket, ...],
    tcp: tuple[socket.socket, ...],
    http: socket.socket | None,
    worker: int = 0,
    board: Board | None = None,
) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await run(session, options, udp, tcp, http, worker, board)
    except asyncio.CancelledError:
        log.info("ended")
    finally:
        await session.close()


async def run(
    session: Session,
    options: Options,
    udp: tuple[socket.socket, ...],
    tcp: tuple[socket.socket, ...],
    http: socket.socket | None,
    worker: int = 0,
    board: Board | None = None,
) -> None:
    """Answer on sockets that are bound already, until cancelled."""

    def resolvers() -> tuple[str, ...]:
        return upstreams.find(options.resolv_conf)

    networks = options.cluster_cidrs or await _networks(session)
    config = DnsConfig(
        node_name=options.node_name,
        node_ip=options.node_ip or _own_address(options.listen),
        port=udp[0].getsockname()[1],
        udp_sockets=udp,
        tcp_sockets=tcp,
        health_socket=http,
        worker=worker,
        board=board,
        ttl=options.ttl,
        upstreams=() if options.settings.forward else resolvers(),
        find_upstreams=resolvers,
        host_searches=upstreams.find_searches(options.resolv_conf),
        random_case=options.random_case,
        pod_mode=options.pod_mode,
        complete_search=options.complete_search,
        cluster_cidrs=networks,
        announce=options.announce,
        report=options.report,
        probe_external=options.probe_external,
        drain_seconds=options.drain_seconds,
    )
    log.info("node %s; reverse zones of %s", config.node_name, ", ".join(networks) or "no network")
    config = options.settings.apply(config)
    await main.run(session, config if worker == 0 else replace(config, notify=()))


def _bound(stack: ExitStack, address: Address, kind: socket.SocketKind, *, shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    made = stack.enter_context(socket.socket(family, kind))
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if kind == socket.SOCK_STREAM:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        made.bind(address)
    except OSError as error:
        raise StandaloneError(
            f"{address[0]} port {address[1]} can't be listened on: {error.strerror}; "
            "name another with --bind-address or --http-bind-address"
        ) from error
    if kind == socket.SOCK_STREAM:
        made.listen(BACKLOG)
    return made


@contextmanager
def _sockets(
    options: Options, *, shared: bool
) -> Iterator[tuple[tuple[socket.socket, ...], tuple[socket.socket, ...]]]:
    """One worker's, UDP and TCP; `shared`: others listen on the same addresses."""
    with ExitStack() as stack:
        yield (
            tuple(_bound(stack, address, socket.SOCK_DGRAM, shared=shared) for address in options.listen),
            tuple(_bound(stack, address, socket.SOCK_STREAM, shared=shared) for address in options.listen),
        )


def _own_address(listen: tuple[Address, ...]) -> str:
    """The first address listened on; of a wildcard, the one this machine would send from."""
    host = listen[0][0]
    if not ip_address(host).is_unspecified:
        return host
    family, somewhere = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((somewhere, 53))  # sends nothing
        except OSError:
            return "::1" if ":" in host else "127.0.0.1"
        return str(probe.getsockname()[0])


async def _networks(session: Session) -> tuple[str, ...]:
    """The cluster's networks as the API has them; none when it can't be asked for PATIENT seconds."""
    trouble: object = ""
    try:
        async with asyncio.timeout(PATIENT):
            while True:
                try:
                    return await _ask_networks(session)
                except (ApiError, Unreachable) as error:
                    if not trouble:
                        log.warning("the API doesn't give the cluster's networks: %s; trying again", error)
                    trouble = error
                    await asyncio.sleep(PATIENCE)
    except TimeoutError:
        log.warning("no reverse zones: %s; --cluster-cidr names the networks", trouble or "the API doesn't answer")
        return ()


async def _ask_networks(session: Session) -> tuple[str, ...]:
    found: dict[str, None] = {}
    try:
        for one in (await session.list(SERVICE_CIDR, ServiceCIDR)).items:
            found.update(dict.fromkeys(one.spec.cidrs))
    except NotFound:  # Kubernetes before 1.33
        log.warning("this cluster has no ServiceCIDR objects: --cluster-cidr names the Services' network")
    for node in (await session.list(NODE, Node)).items:
        found.update(dict.fromkeys(cidr for cidr in (*node.spec.pod_cidrs, node.spec.pod_cidr) if cidr))
    return tuple(found)
