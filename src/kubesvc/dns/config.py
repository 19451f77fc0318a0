"""What one node's DNS is told by whoever starts it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

import msgspec

from kubesvc.dns.answers import PodMode
from kubesvc.dns.workers import Board

SocketFactory = Callable[[int, int], socket.socket]
"""(family, type) -> a new socket; a box makes them in the host's network namespace."""


def plain_socket(family: int, kind: int) -> socket.socket:
    """A socket in the process's own namespace."""
    return socket.socket(family, kind)


class DnsConfig(msgspec.Struct, frozen=True):
    """`udp_sockets` and `tcp_sockets` are bound already (TCP: listening) and stay open when `run` ends.

    Bind them to the node's address, not to the wildcard: an answer must leave from the address that was asked.
    """

    node_name: str
    node_ip: str
    port: int  # where the sockets are bound; the target port of the kube-dns Service on this node
    udp_sockets: tuple[socket.socket, ...]
    tcp_sockets: tuple[socket.socket, ...]
    dns_domain: str = "cluster.local"  # the cluster's own zone, the one in pods' search paths
    more_domains: tuple[str, ...] = ()  # zones with the same names again
    public_zones: Mapping[str, tuple[str, ...]] = {}  # zone -> its name servers; none: ours
    transfer_to: tuple[str, ...] = ()  # networks whose clients may fetch whole zones
    notify: tuple[str, ...] = ()  # ADDRESS or ADDRESS:PORT of secondaries that are told of changes
    ttl: int = 5  # seconds, of records and of negative answers
    upstreams: tuple[str, ...] = ()  # ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or tls://ADDRESS#NAME; see `upstreams`
    find_upstreams: Callable[[], tuple[str, ...]] | None = None  # whom the machine asks now: looked at again and again
    zones: Mapping[str, tuple[str, ...]] = {}  # stub zone -> who is asked for its names
    hosts: Mapping[str, tuple[str, ...]] = {}  # name outside the zone -> its addresses
    random_case: bool = False  # 0x20: draw the letters' case in questions to upstreams
    pod_mode: PodMode = "insecure"  # a-b-c-d.ns.pod: never, always, or when a pod has the address
    complete_search: bool = True  # answer a pod's first search-path question with what it leads to
    host_searches: tuple[str, ...] = ()  # domains that pods' search paths have after the zone's: the machine's own
    socket_factory: SocketFactory = plain_socket
    cluster_cidrs: tuple[str, ...] = ()  # of Services and pods: reverse names in them are never forwarded
    health_socket: socket.socket | None = None  # listening, for /livez, /readyz and /metrics over HTTP
    worker: int = 0  # which of several processes on the same address; one that isn't the first answers, and no more
    board: Board | None = None  # where the metrics of them meet
    announce: bool = True  # put this node behind kube-dns with a slice of its own, and look after the neighbours'
    report: bool = True  # write Events about names: ExternalNames that lead nowhere, public names that can't be served
    probe_external: bool = True  # for that, ask HTTP servers behind ExternalNames whether they accept the name
    drain_seconds: float = 0.5  # how long to go on answering after this node's endpoint is withdrawn
