"""What the controllers need to be told: nothing here is read from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network


@dataclass(frozen=True, slots=True)
class ControllersConfig:
    """`ca_pem` is published in every namespace; each node gets a block of `node_mask` (IPv4) or `node_mask6` (IPv6)
    out of each of `pod_cidrs`, of which there is at most one a family."""

    pod_cidrs: tuple[IPv4Network | IPv6Network, ...] = ()
    ca_pem: str = ""
    node_mask: int = 24
    node_mask6: int = 64
    max_endpoints_per_slice: int = 100
    workers: int = 16
    """Keys of one controller worked on at once."""
