"""kubesvc.dev/v1beta1: what configures the built-in load balancer. Cluster-scoped; shapes close to MetalLB's.

    IPAddressPool      addresses for Services of type LoadBalancer
    L2Advertisement    which pools' addresses are answered for by ARP and NDP, by which nodes, on which interfaces
    BGPAdvertisement   which pools' addresses are told to BGP peers, by which nodes, how
    BGPPeer            a router

The schema, for our API server and for others, is examples/loadbalancer/crds.yaml.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import msgspec

from kubesvc.api.meta import LabelSelector, Object, Struct

Address = IPv4Address | IPv6Address
Range = tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address]
"""First and last address, both included."""


class ServiceAllocation(Struct, frozen=True):
    """Which Services may have addresses of a pool; of two that may serve one, the lower priority does (0: last)."""

    priority: int = 0
    namespaces: list[str] = []
    namespace_selectors: list[LabelSelector] = []
    service_selectors: list[LabelSelector] = []


class IPAddressPoolSpec(Struct, frozen=True):
    addresses: list[str] = []
    auto_assign: bool = True
    avoid_buggy_ips: bool = msgspec.field(default=False, name="avoidBuggyIPs")
    service_allocation: ServiceAllocation | None = None


class IPAddressPoolStatus(Struct, frozen=True):
    assigned_ipv4: int = msgspec.field(default=0, name="assignedIPv4")
    assigned_ipv6: int = msgspec.field(default=0, name="assignedIPv6")
    available_ipv4: int = msgspec.field(default=0, name="availableIPv4")
    available_ipv6: int = msgspec.field(default=0, name="availableIPv6")
    message: str = ""


class IPAddressPool(Object, frozen=True):
    spec: IPAddressPoolSpec = IPAddressPoolSpec()
    status: IPAddressPoolStatus = IPAddressPoolStatus()


class L2AdvertisementSpec(Struct, frozen=True):
    """Nothing given: every pool, every node, every interface."""

    ip_address_pools: list[str] = []
    ip_address_pool_selectors: list[LabelSelector] = []
    node_selectors: list[LabelSelector] = []
    interfaces: list[str] = []


class L2Advertisement(Object, frozen=True):
    spec: L2AdvertisementSpec = L2AdvertisementSpec()


class BGPAdvertisementSpec(Struct, frozen=True):
    ip_address_pools: list[str] = []
    ip_address_pool_selectors: list[LabelSelector] = []
    node_selectors: list[LabelSelector] = []
    peers: list[str] = []
    local_pref: int | None = None
    communities: list[str] = []
    aggregation_length: int = 32
    aggregation_length_v6: int = 128


class BGPAdvertisement(Object, frozen=True):
    spec: BGPAdvertisementSpec = BGPAdvertisementSpec()


class BFD(Struct, frozen=True):
    """Milliseconds; a session is down after `detect_multiplier` intervals without a packet."""

    receive_interval: int = 300
    transmit_interval: int = 300
    detect_multiplier: int = 3


class PasswordSecret(Struct, frozen=True):
    """A Secret of type kubernetes.io/basic-auth: its key `password` is the TCP MD5 key."""

    name: str = ""
    namespace: str = "kube-system"


class BGPPeerSpec(Struct, frozen=True):
    my_asn: int = msgspec.field(default=0, name="myASN")
    peer_asn: int = msgspec.field(default=0, name="peerASN")
    peer_address: str = ""
    peer_port: int = 179
    source_address: str = ""
    router_id: str = msgspec.field(default="", name="routerID")
    hold_time: str = "90s"
    keepalive_time: str = ""
    connect_time: str = ""
    ebgp_multi_hop: bool = False
    enable_graceful_restart: bool = False
    node_selectors: list[LabelSelector] = []
    password: str = ""
    password_secret: PasswordSecret | None = None
    bfd: BFD | None = None


class BGPSession(Struct, frozen=True):
    """One node's session. `state`: BIRD's, such as Established; `advertised`: routes told."""

    state: str = ""
    message: str = ""
    advertised: int = 0


class BGPPeerStatus(Struct, frozen=True):
    sessions: dict[str, BGPSession] = {}  # node -> its session


class BGPPeer(Object, frozen=True):
    spec: BGPPeerSpec = BGPPeerSpec()
    status: BGPPeerStatus = BGPPeerStatus()


def parse_range(text: str) -> Range:
    """A network in CIDR notation, or FIRST-LAST. Raises ValueError, which says what was expected."""
    first, dash, last = (part.strip() for part in text.partition("-"))
    try:
        if not dash:
            network = ip_network(first, strict=False) if "/" in first else None
            if network is None:
                raise ValueError(first)
            ends = (network[0], network[-1])
        else:
            ends = (ip_address(first), ip_address(last))
    except ValueError as error:
        raise ValueError(f"{text!r} is neither a network (192.0.2.0/24) nor a range (192.0.2.10-192.0.2.20)") from error
    match ends:
        case (IPv4Address() as low, IPv4Address() as high) if low <= high:
            return low, high
        case (IPv6Address() as low6, IPv6Address() as high6) if low6 <= high6:
            return low6, high6
        case (low, high) if low.version != high.version:
            raise ValueError(f"range {text!r} begins and ends in different IP families")
        case _:
            raise ValueError(f"range {text!r} ends before it begins")


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds of a Go duration, such as 1m30s. Raises ValueError."""
    if not re.fullmatch(r"(\d+(ms|s|m|h))+", text):
        raise ValueError(f"{text!r} is no duration, such as 90s or 1m30s")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h)", text))
