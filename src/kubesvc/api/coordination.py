"""coordination.k8s.io/v1 Lease: who holds something, and when that was last said."""

from __future__ import annotations

from kubesvc.api.meta import Object, Struct

NODE_LEASES = "kube-node-lease"
"""The namespace of the nodes' Leases, each named after its node."""


class LeaseSpec(Struct, frozen=True):
    holder_identity: str = ""
    lease_duration_seconds: int = 0
    renew_time: str | None = None


class Lease(Object, frozen=True):
    spec: LeaseSpec = LeaseSpec()
