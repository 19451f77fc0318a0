"""What admission is told of the world: the cluster's ranges, the time, a chooser, and what is already taken.

Everything here is a value or a protocol, so that admission itself stays a function of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, Protocol

import msgspec


class Cluster(msgspec.Struct, frozen=True):
    """What admission must know of the cluster. `service_cidrs`, as configured, say which families Services have and
    which is primary; `ranges`, of the ServiceCIDR objects that aren't going, say where addresses come from."""

    service_cidrs: tuple[IPv4Network | IPv6Network, ...]
    node_port_range: tuple[int, int]  # both ends included
    dns_domain: str = "cluster.local"
    allow_external_ips: bool = False
    ranges: tuple[IPv4Network | IPv6Network, ...] | None = None  # None: service_cidrs
    own_ports: frozenset[int] = frozenset()
    """Ports that the nodes listen on themselves: where node_port_range holds them, they count as allocated."""

    @property
    def allocatable(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return self.service_cidrs if self.ranges is None else self.ranges


class Context(msgspec.Struct, frozen=True):
    """One request. `choose(n)` is a random integer in [0, n). `user` to `extra` are whose it is; "" is the server.
    `spent` tells the seconds of the processor that this thread has taken."""

    cluster: Cluster
    now: datetime
    choose: Callable[[int], int]
    subresource: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    spent: Callable[[], float] = lambda: 0.0


class Taken(Protocol):
    """Hints of what other objects hold. The commit decides; a wrong hint only costs another try."""

    def address(self, address: str) -> bool: ...

    def node_port(self, port: int) -> bool: ...


class ClaimChange(msgspec.Struct, frozen=True):
    """One address or node port to claim or release in the commit that writes the Service.

    A dynamic claim that loses the race is chosen anew; another is the client's own wish and fails the request.
    """

    kind: Literal["address", "nodeport"]
    value: str
    action: Literal["claim", "release"]
    dynamic: bool
