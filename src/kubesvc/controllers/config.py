"""What the controllers need to be told: nothing here is read from the environment."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import msgspec


class ControllersConfig(msgspec.Struct, frozen=True):
    """`ca_pem` is published in every namespace; each node gets a block of `node_mask` (IPv4) or `node_mask6` (IPv6)
    out of each of `pod_cidrs`, of which there is at most one a family."""

    pod_cidrs: tuple[IPv4Network | IPv6Network, ...] = ()
    ca_pem: str = ""
    node_mask: int = 24
    node_mask6: int = 64
    max_endpoints_per_slice: int = 100  # 1 to 1000
    node_grace: float = 40.0  # seconds without a renewed Lease after which a node counts as unreachable
    gone_node_grace: float = 40.0  # seconds that pods of a Node that is gone are left alone
    service_cidr_grace: float = 10.0  # seconds a ServiceCIDR being deleted waits for claims under way
    volumes: str = ""  # the directory in which volumes are made for claims; "": none are
    signer: Path | None = None
    """The directory with ca.crt and ca.key, which sign approved CertificateSigningRequests; None: nobody signs."""
    signing_duration: float = 365 * 86400.0  # seconds that a certificate lives at most
    workers: int = 16
    """Keys of one controller worked on at once."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_endpoints_per_slice <= 1000:
            raise ValueError(f"max_endpoints_per_slice {self.max_endpoints_per_slice}: expected 1 to 1000")
