"""The seam below the decisions: what a data plane is told, and what it promises.

A `Frontend` is one (address, protocol, port) that answers, with everything a data plane must know about it. `Changes`
is a minimal difference; the same shape with every removal left out is the whole. nftables programs it now; eBPF can
behind the same seam.

    BackendError    the data plane refused: nothing has changed. Call `resync` with everything, later
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

import msgspec

from kubesvc.proxy.layout import Draw, Masquerade, Refusal, show_endpoint, split_key, unpack


class BackendError(Exception):
    pass


class Kind(StrEnum):
    """Why a frontend's address answers."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    EXTERNAL_IP = "ExternalIP"
    LOAD_BALANCER = "LoadBalancer"


class Frontend(msgspec.Struct, frozen=True, gc=False):
    """An address that answers. `key` and `endpoints` are packed as `layout` says; an endpoint's place in the tuple is
    its slot, and stays when others come and go; with weights an endpoint has several. Without endpoints, `refusal` says
    how connections end.

    `outside` holds for sources that are neither pods nor this node (externalTrafficPolicy Local): its endpoints are
    reached without masquerade, and without any the connection is dropped; None: they are treated as all others."""

    key: bytes
    endpoints: tuple[bytes, ...]
    masquerade: Masquerade
    refusal: Refusal | None
    affinity: int  # seconds, 0: none
    kind: Kind
    service: tuple[str, str]  # namespace, name
    port_name: str
    outside: tuple[bytes, ...] | None = None
    sources: tuple[bytes, ...] | None = None
    """Only these sources may connect: first and last address of each range, disjoint, one after the other in a bytes;
    None: all."""
    draw: Draw = Draw.RANDOM

    def __str__(self) -> str:
        address, protocol, port = split_key(self.key)
        to = ", ".join(map(show_endpoint, dict.fromkeys(self.endpoints))) or (
            self.refusal.name.lower() if self.refusal else "nothing"
        )
        return f"{'/'.join(self.service)} {self.kind} {unpack(address)} proto {protocol} port {port} -> {to}"


class Changes(msgspec.Struct):
    """What is new, and what is gone. Addresses are packed; None and False remove."""

    frontends: dict[bytes, Frontend | None] = {}
    service_ips: dict[bytes, bool] = {}
    """Addresses that only Services have: a port of one that no Service has is refused at once."""
    local_endpoints: dict[bytes, bool] = {}
    """Addresses of pods on this node that may be sent back to themselves."""

    def __bool__(self) -> bool:
        return bool(self.frontends or self.service_ips or self.local_endpoints)


class Ranges(msgspec.Struct, frozen=True):
    """The cluster's address ranges, which the constant rules hold."""

    service_cidrs: tuple[IPv4Network | IPv6Network, ...]
    pod_cidrs: tuple[IPv4Network | IPv6Network, ...]
    """A source inside them is a pod whose answers come back by this node: its own pods, where that is known."""
    localhost: bool = False
    """Whether node ports answer on 127.0.0.1: then what comes to it from elsewhere is kept out."""


class Backend(Protocol):
    def apply(self, changes: Changes, revision: str) -> None:
        """Make the changes, all at once; they are in force when this returns. Raises BackendError. `revision` is the
        newest resourceVersion among their causes, for whoever traces latency."""
        ...

    def resync(self, everything: Changes) -> None:
        """Make the data plane equal to `everything`, whatever it holds, without a moment in which less works. Always
        the first call. Raises BackendError."""
        ...

    def know(self, ranges: Ranges) -> None:
        """The ranges are these from the next `resync` on."""
        ...

    def close(self) -> None:
        """Let go of the data plane; it stays in force."""
        ...
