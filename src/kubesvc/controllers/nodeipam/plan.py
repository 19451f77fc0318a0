"""Which block of each pod network a node gets: the first free one, kept for as long as the node lives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from kubesvc.api.nodes import Node

Network = IPv4Network | IPv6Network


class Exhausted(Exception):
    """No free block is left in a pod network."""


def blocks_of(node: Node) -> list[Network]:
    texts = node.spec.pod_cidrs or ([node.spec.pod_cidr] if node.spec.pod_cidr else [])
    return [ip_network(text) for text in texts]


def first_free(network: Network, prefix: int, taken: Iterable[Network]) -> Network:
    """The first block of `prefix` bits in `network` that overlaps none of `taken`. Raises Exhausted."""
    size = 1 << (network.max_prefixlen - prefix)
    position = int(network.network_address)
    same = sorted((n for n in taken if n.version == network.version), key=lambda n: int(n.network_address))
    for block in same:
        start, end = int(block.network_address), int(block.broadcast_address)
        if end >= position and start < position + size:
            position = (end // size + 1) * size
    if position + size - 1 > int(network.broadcast_address) or prefix < network.prefixlen:
        raise Exhausted(f"no /{prefix} is free in {network}: use a larger pod CIDR or fewer nodes")
    return type(network)((position, prefix))


def plan(
    nodes: Iterable[Node], networks: Sequence[Network], mask: int, mask6: int
) -> tuple[dict[str, list[Network]], list[str]]:
    """(node's name -> the blocks it is given, in the order of `networks`; names of nodes for which none is left)."""
    known = sorted(nodes, key=lambda n: (n.metadata.creation_timestamp or "", n.name))
    taken = [block for node in known for block in blocks_of(node)]
    given: dict[str, list[Network]] = {}
    left_out: list[str] = []
    for node in known:
        if node.spec.pod_cidr or node.metadata.deletion_timestamp is not None or not networks:
            continue
        try:
            blocks = [first_free(n, mask if n.version == 4 else mask6, taken) for n in networks]
        except Exhausted:
            left_out.append(node.name)
            continue
        taken += blocks
        given[node.name] = blocks
    return given, left_out
