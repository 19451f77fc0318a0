"""Taking one object through admission as the server does, without a server."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

from kubesvc.api import errors
from kubesvc.api.registry import SERVICE, Kind
from kubesvc.apiserver import admission
from kubesvc.apiserver.admission import ClaimChange, Cluster, Context

JSON = dict[str, Any]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def cluster(*cidrs: str, node_ports: tuple[int, int] = (30000, 32767)) -> Cluster:
    return Cluster(tuple(ip_network(c) for c in cidrs or ("10.96.0.0/16",)), node_ports)


def context(of: Cluster | None = None, *, subresource: str = "", choose: int = 0) -> Context:
    """A context whose chooser always says `choose` (or the last there is)."""
    return Context(of or cluster(), NOW, lambda n: min(choose, n - 1), subresource)


@dataclass
class Claimed:
    """What other objects hold, as a set of values."""

    values: set[str] = field(default_factory=set)

    def address(self, address: str) -> bool:
        return address in self.values

    def node_port(self, port: int) -> bool:
        return str(port) in self.values


def named(kind: Kind, name: str, **body: Any) -> JSON:
    metadata: JSON = {"name": name} | ({"namespace": "default"} if kind.namespaced else {})
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **copy.deepcopy(body)}


def service(name: str = "web", /, **spec: Any) -> JSON:
    return named(SERVICE, name, spec=spec)


def admit(kind: Kind, new: JSON, old: JSON | None = None, of: Context | None = None) -> JSON:
    """`new` after defaults and preparation. Raises Invalid as the server would."""
    new, old, of = copy.deepcopy(new), copy.deepcopy(old), of or context()
    admission.default(kind, new)
    admission.prepare(kind, new, old, of)
    if causes := admission.validate(kind, new, old, of):
        raise errors.invalid(kind.kind, new["metadata"].get("name", ""), causes, kind.group)
    return new


def store(
    new: JSON, old: JSON | None = None, of: Context | None = None, taken: Claimed | None = None
) -> tuple[JSON, list[ClaimChange]]:
    """A Service all the way through: admitted, with its addresses and node ports, and the claims of its commit."""
    admitted = admit(SERVICE, new, old, of)
    changes = admission.claims(SERVICE, admitted, old, of or context(), taken or Claimed())
    return admitted, changes


def texts(kind: Kind, new: JSON, old: JSON | None = None, of: Context | None = None) -> list[str]:
    """The complaints about `new`, each as kubectl prints it; empty when it is fine."""
    new, old, of = copy.deepcopy(new), copy.deepcopy(old), of or context()
    admission.default(kind, new)
    admission.prepare(kind, new, old, of)
    return [f"{c.field}: {c.message}" for c in admission.validate(kind, new, old, of)]
