"""What a Service's load balancer in AWS should be, and what is there. Pure values.

load balancer ── listener :80/TCP ──► target group ──► targets (instance and node port, or a pod's address and port)
     │           listener :443/TLS ─► target group ──► …
     └── security groups: the Service's own (who may connect), the cluster's backend group (whom nodes let in)
"""

from __future__ import annotations

import msgspec

Target = tuple[str, int]
"""An instance's id or an IP address, and the port."""


class Permission(msgspec.Struct, frozen=True):
    """One rule of a security group that lets in. `source`: a CIDR, a prefix list or a security group, by its id."""

    protocol: str  # tcp, udp, icmp
    first: int
    last: int
    source: str


class Health(msgspec.Struct, frozen=True):
    """A target group's check. `port` is a number's digits or `traffic-port`; path and codes are "" for TCP."""

    protocol: str
    port: str
    path: str
    interval: int
    timeout: int
    healthy: int
    unhealthy: int
    codes: str


class Group(msgspec.Struct, frozen=True):
    """A target group. Its key says all that can't be changed of it."""

    key: str
    name: str
    protocol: str
    port: int
    target_type: str
    ip_address_type: str
    health: Health
    attributes: dict[str, str]
    targets: frozenset[Target]


class Listener(msgspec.Struct, frozen=True):
    """`group` is the key of the group it forwards to; `certificates` begins with the default one."""

    port: int
    protocol: str
    group: str
    certificates: tuple[str, ...]
    policy: str
    alpn: str
    attributes: dict[str, str]


class Place(msgspec.Struct, frozen=True):
    """A subnet the load balancer stands in, with its addresses there where they are chosen."""

    subnet: str
    allocation: str = ""
    private: str = ""
    ipv6: str = ""


class Wanted(msgspec.Struct, frozen=True):
    name: str
    own_group_name: str
    scheme: str
    vpc: str
    ip_address_type: str
    places: tuple[Place, ...]
    permissions: frozenset[Permission] | None  # of the Service's own security group; None: it has none
    security_groups: tuple[str, ...]  # beside its own
    attributes: dict[str, str]
    groups: dict[str, Group]  # key -> group
    listeners: dict[int, Listener]  # port -> listener
    tags: dict[str, str]  # of all that is made


# ── what is there: changed in place as calls succeed ─────────────────────────────────────────────────────────────────


class FoundSecurityGroup(msgspec.Struct):
    id: str
    permissions: set[Permission] = set()
    tags: dict[str, str] = {}


class FoundBalancer(msgspec.Struct):
    arn: str
    name: str
    hostname: str
    scheme: str
    ip_address_type: str
    places: dict[str, Place]  # subnet -> place
    security_groups: tuple[str, ...]
    attributes: dict[str, str] = {}
    tags: dict[str, str] = {}


class FoundGroup(msgspec.Struct):
    arn: str
    key: str
    health: Health
    attributes: dict[str, str] = {}
    targets: set[Target] = set()
    tags: dict[str, str] = {}


class FoundListener(msgspec.Struct):
    arn: str
    protocol: str
    group_arn: str
    certificates: tuple[str, ...] = ()
    policy: str = ""
    alpn: str = ""
    attributes: dict[str, str] = {}


class Found(msgspec.Struct):
    """All that is tagged with one Service."""

    security_group: FoundSecurityGroup | None = None
    balancer: FoundBalancer | None = None
    groups: dict[str, FoundGroup] = {}  # arn -> group
    listeners: dict[int, FoundListener] = {}  # port -> listener

    def group(self, key: str) -> FoundGroup | None:
        return next((g for g in self.groups.values() if g.key == key), None)

    @property
    def empty(self) -> bool:
        return self.security_group is None and self.balancer is None and not self.groups
