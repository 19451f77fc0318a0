"""What the cloud on a desk has: balancers, as the provider orders them and as the data plane reads them. Pure.

One balancer is one Service's, as in a real cloud's account; it is kept as a file named for the Service's uid.
"""

from __future__ import annotations

import msgspec

CLOUDS = ("aws", "gcp", "azure")
DOMAIN = "desk.kubesvc"
"""The zone of the balancers' host names."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """How a node is asked whether it may have traffic. Times are seconds."""

    protocol: str  # http or tcp
    port: int
    path: str = "/"
    interval: float = 10.0
    timeout: float = 10.0
    healthy: int = 3  # good answers in a row, until it is used
    unhealthy: int = 3  # bad ones, until it isn't


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """One port of a balancer.

    mode  vip    packets reach a node with the balancer's address as destination
          nat    they reach its node port, from the client's address
          proxy  a connection of the balancer's own reaches its node port
    """

    protocol: str  # TCP or UDP
    port: int
    node_port: int
    mode: str
    check: Check | None = None  # None: every node counts as healthy
    proxy_protocol: bool = False  # the connection begins with a PROXY protocol v2 header
    tls: bool = False  # the balancer ends TLS


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A node, and the networks of its pods."""

    name: str
    address: str
    networks: tuple[str, ...] = ()


class Balancer(msgspec.Struct, frozen=True, kw_only=True):
    uid: str
    service: str  # NAMESPACE/NAME
    address: str
    hostname: str = ""
    internal: bool = False  # not for this machine, which plays the internet
    sources: tuple[str, ...] = ()  # CIDRs; none: everybody
    affinity: bool = False  # a client stays with its node
    fail_open: bool = True  # with no node healthy, all are tried
    listeners: tuple[Listener, ...] = ()
    targets: tuple[Target, ...] = ()
