"""What a load-balancer controller and an announcer are told. Nothing is read from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

Range = tuple[IPv4Address, IPv4Address]
"""First and last address, both included."""


@dataclass(frozen=True, slots=True)
class LoadBalancerConfig:
    """The controller's. Delays are seconds."""

    pools: tuple[Range, ...]
    """Addresses to hand out; inside the node network, so that a node can answer ARP for them."""
    load_balancer_class: str = "kubesvc.dev/pool"
    serve_unclassed: bool = True
    """Also serve Services without a loadBalancerClass. False beside another default load balancer."""
    workers: int = 4
    first_retry: float = 5.0
    last_retry: float = 300.0


@dataclass(frozen=True, slots=True)
class AnnounceConfig:
    """One node's announcer's."""

    node_name: str
    pools: tuple[Range, ...]
    """Only addresses in here are announced: a cloud's address is that cloud's to announce."""
    interface: str = "eth0"
    announcements: int = 3
    """How often a take-over is told. More than once, since the node before may still answer a last question."""
    announcement_interval: float = 1.0
