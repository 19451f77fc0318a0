"""What an API server is told at start. Nothing is read from the environment."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import msgspec

from kubesvc.apiserver.admission import Cluster


class ApiConfig(msgspec.Struct, frozen=True):
    """`advertise_address` is where pods and nodes reach this server: the endpoint of default/kubernetes.

    `tls_cert` and `tls_key` are what it serves with; clients are known by certificates of `client_ca`. With
    `node_client_cert` and `node_client_key` it dials nodes, whose serving certificates it trusts by the same CA.
    """

    service_cidrs: tuple[IPv4Network | IPv6Network, ...]  # primary first
    node_port_range: tuple[int, int]  # both ends included
    advertise_address: str
    advertise_port: int
    tls_cert: Path
    tls_key: Path
    client_ca: Path
    node_client_cert: Path
    node_client_key: Path
    dns_domain: str = "cluster.local"
    signing_key: Path | None = None  # PEM: of ServiceAccount tokens; None: one for the life of the server
    allow_external_ips: bool = False  # Services may claim any address with spec.externalIPs (CVE-2020-8554)
    audit_log: Path | None = None  # who did what, a line an event; None: nobody writes it down
    audit_policy: Path | None = None  # of how much of what; None: the metadata of every request
    own_ports: frozenset[int] = frozenset()  # the nodes' own, which no Service may have as its node port

    @property
    def cluster(self) -> Cluster:
        return Cluster(
            self.service_cidrs, self.node_port_range, self.dns_domain, self.allow_external_ips, own_ports=self.own_ports
        )
