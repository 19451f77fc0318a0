"""What a decision is made from: the nodes, what runs there, and the namespaces' labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod


class HostPort(NamedTuple):
    protocol: str
    port: int
    address: str  # "" and 0.0.0.0 are all of them


class Candidate(msgspec.Struct, frozen=True):
    """A node with what runs there: how many pods of the same owner, how many at all, which host ports are taken, how
    much of each resource is requested, and the pods themselves, where rules look at them."""

    node: Node
    siblings: int = 0
    pods: int = 0
    host_ports: frozenset[HostPort] = frozenset()
    requested: Mapping[str, Decimal] = {}
    there: Sequence[Pod] = ()


Namespaces = Mapping[str, Mapping[str, str]]
"""name -> labels."""
