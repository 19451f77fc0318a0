"""Questions about a Service's spec, asked by its defaults, its validation and its claims.

A spec here is the JSON tree; a missing field, null and the empty value mean the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address

from kubesvc.api import names
from kubesvc.api.meta import JSON

EXTERNAL_NAME, CLUSTER_IP, NODE_PORT, LOAD_BALANCER = "ExternalName", "ClusterIP", "NodePort", "LoadBalancer"
NONE = "None"  # clusterIP of a headless Service
IPV4, IPV6 = "IPv4", "IPv6"


def spec_of(tree: JSON) -> JSON:
    found: JSON = tree.get("spec") or {}
    return found


def type_of(spec: JSON) -> str:
    found: str = spec.get("type") or CLUSTER_IP
    return found


def cluster_ips(spec: JSON) -> list[str]:
    return list(spec.get("clusterIPs") or ())


def families(spec: JSON) -> list[str]:
    return list(spec.get("ipFamilies") or ())


def ports(spec: JSON) -> list[JSON]:
    return [p for p in spec.get("ports") or () if isinstance(p, dict)]


def family_of(address: str) -> str:
    return IPV6 if ":" in address else IPV4


def is_headless(spec: JSON) -> bool:
    return cluster_ips(spec) == [NONE]


def needs_cluster_ip(spec: JSON) -> bool:
    """Every type but ExternalName has the clusterIP fields, be it "None"."""
    return type_of(spec) in (CLUSTER_IP, NODE_PORT, LOAD_BALANCER)


def has_node_ports(spec: JSON) -> bool:
    """Whether its type can have node ports at all."""
    return type_of(spec) in (NODE_PORT, LOAD_BALANCER)


def allocates_node_ports(spec: JSON) -> bool:
    """Whether ports without a node port are given one."""
    if type_of(spec) == LOAD_BALANCER:
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return type_of(spec) == NODE_PORT


def externally_accessible(spec: JSON) -> bool:
    return has_node_ports(spec) or (type_of(spec) == CLUSTER_IP and bool(spec.get("externalIPs")))


def needs_health_check(spec: JSON) -> bool:
    return type_of(spec) == LOAD_BALANCER and spec.get("externalTrafficPolicy") == "Local"


def node_ports(spec: JSON) -> list[int]:
    """The node ports its ports carry, in order, each number once."""
    return list(dict.fromkeys(int(p["nodePort"]) for p in ports(spec) if p.get("nodePort")))


def held_node_ports(spec: JSON) -> Iterator[int]:
    """Every number a Service holds: its node ports and its health check's port."""
    if has_node_ports(spec):
        yield from node_ports(spec)
    if needs_health_check(spec) and spec.get("healthCheckNodePort"):
        yield int(spec["healthCheckNodePort"])


def held_addresses(spec: JSON) -> list[str]:
    """Every cluster IP a Service holds, as written in it."""
    if not needs_cluster_ip(spec) or is_headless(spec):
        return []
    return [a for a in cluster_ips(spec) if a and a != NONE]


@lru_cache(maxsize=8192)
def canonical(address: str) -> str:
    """One spelling per address: what an IPAddress object is named. Stored leading zeros are read as decimal."""
    if names.is_plain_ipv4(address):
        return address
    if ":" not in address:
        address = ".".join(str(int(octet)) for octet in address.split("."))
    return str(ip_address(address))
