"""Host ports: what arrives at a port of this node goes to the pod that asked for it. A table of the node agent's own.

    prerouting, output (nat, after Services')
        daddr . protocol . port  @addressed-4, -6 ─► dnat to pod . port    ports with a hostIP
        to this node: protocol . port  @any-4, -6 ─► dnat to pod . port    the others
    postrouting (nat)
        translated, from 127/8, or a pod to itself ─► masquerade

The rules are constant and data is in maps, as in the proxy's table; there is no table before the first host port. The
source stays what it was. On 127.0.0.1 they answer wherever node ports do: it takes the same switch of the kernel, which
is the proxy's to turn.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from kubesvc.api.pods import Pod
from kubesvc.kernel.nft import expressions as nft
from kubesvc.kernel.nft.connection import Connection
from kubesvc.kernel.nft.objects import INET_PROTO, INET_SERVICE, IPV4_ADDR, IPV6_ADDR, Chain, Hook, Map, Rule, Table
from kubesvc.kernel.nft.transaction import (
    AddChain,
    AddElements,
    AddMap,
    AddTable,
    DeleteElements,
    DeleteTable,
    FillChain,
    NftError,
    Transaction,
)
from kubesvc.node.config import Address

TABLE = "kubesvc-hostports"
AFTER_SERVICES, SRCNAT = -90, 110
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}

_TYPES = {4: IPV4_ADDR, 6: IPV6_ADDR}
ADDRESSED = {v: Map(f"addressed-{v}", (t, INET_PROTO, INET_SERVICE), (t, INET_SERVICE)) for v, t in _TYPES.items()}
ANY = {v: Map(f"any-{v}", (INET_PROTO, INET_SERVICE), (t, INET_SERVICE)) for v, t in _TYPES.items()}
ITSELF = {v: Map(f"itself-{v}", (t, t)) for v, t in _TYPES.items()}
MAPS = {found.name: found for family in (ADDRESSED, ANY, ITSELF) for found in family.values()}
_ANYWHERE = {4: ("", "0.0.0.0"), 6: ("", "::")}  # hostIPs
_KEY = 8  # bytes of protocol . port, the end of every key

Elements = dict[str, dict[bytes, bytes]]  # map name -> key -> data


class HostPortRefused(Exception):
    """The port is another pod's, or the kernel doesn't take it. The message says which."""


# ── what is in the maps ──


def elements(pod: Pod, addresses: Iterable[Address]) -> Elements:
    """Those of one pod; empty when it asks for no host port."""
    found: Elements = {name: {} for name in MAPS}
    for address in addresses:
        version = address.version
        for container in pod.spec.every_container:
            for port in container.ports:
                if not port.host_port or port.protocol not in PROTOCOLS:
                    continue
                key = struct.pack(">B3xH2x", PROTOCOLS[port.protocol], port.host_port)
                target = address.packed + struct.pack(">H2x", port.container_port)
                if port.host_ip in _ANYWHERE[version]:
                    found[ANY[version].name][key] = target
                elif (wanted := ip_address(port.host_ip or "::")).version == version:
                    found[ADDRESSED[version].name][wanted.packed + key] = target
                else:
                    continue
                found[ITSELF[version].name][address.packed * 2] = b""
    return found


# ── what is in the chains ──

_PROTO = {4: nft.NFPROTO_IPV4, 6: nft.NFPROTO_IPV6}
_IP = {4: "ip", 6: "ip6"}
_SOURCE, _DESTINATION = {4: 12, 6: 8}, {4: 16, 6: 24}  # offsets in the header
_SIZE = {4: 4, 6: 16}
_TRANSLATED = (nft.Conntrack(nft.CT_STATUS), nft.Bitwise(nft.CT_STATUS_DNAT), nft.Compare(bytes(4), negated=True))


def _only(version: int) -> tuple[nft.Expression, ...]:
    return nft.Meta(nft.META_NFPROTO), nft.Compare(bytes((_PROTO[version],)))


def _ports(into: int) -> tuple[nft.Expression, ...]:
    return nft.Meta(nft.META_L4PROTO, into), nft.Payload(nft.TRANSPORT, 2, 2, into + 1)


def _dnats(version: int) -> tuple[Rule, ...]:
    ip, words = _IP[version], _SIZE[version] // 4
    dnat = nft.Dnat(_PROTO[version], 0, words)
    address = nft.Payload(nft.NETWORK, _DESTINATION[version], _SIZE[version])
    whole = (address, *_ports(words), nft.Lookup(ADDRESSED[version].name, into=0), dnat)
    local = (nft.DestinationType(), nft.Compare(nft.native32(nft.RTN_LOCAL)))
    any_ = ANY[version].name
    return (
        Rule(
            f"dnat {ip} to {ip} daddr . meta l4proto . th dport map @{ADDRESSED[version].name}",
            (*_only(version), *whole),
        ),
        Rule(
            f"fib daddr type local dnat {ip} to meta l4proto . th dport map @{any_}",
            (*_only(version), *local, *_ports(0), nft.Lookup(any_, into=0), dnat),
        ),
    )


def _hairpin(version: int) -> Rule:
    """Only to our pods: what another table translates is another's to masquerade."""
    ip, size, name = _IP[version], _SIZE[version], ITSELF[version].name
    source = nft.Payload(nft.NETWORK, _SOURCE[version], size)
    destination = nft.Payload(nft.NETWORK, _DESTINATION[version], size, size // 4)
    return Rule(
        f"ct status dnat {ip} saddr . {ip} daddr @{name} masquerade",
        (*_only(version), *_TRANSLATED, source, destination, nft.Lookup(name), nft.Masquerade()),
    )


def _chains() -> tuple[Chain, ...]:
    loopback = (nft.Payload(nft.NETWORK, _SOURCE[4], 1), nft.Compare(b"\x7f"))
    back = (
        Rule(
            "ct status dnat ip saddr 127.0.0.0/8 masquerade",
            (*_only(4), *_TRANSLATED, *loopback, nft.Masquerade()),
        ),
        _hairpin(4),
        _hairpin(6),
    )
    dnats = (*_dnats(4), *_dnats(6))
    return (
        Chain("prerouting", dnats, Hook("nat", "prerouting", AFTER_SERVICES)),
        Chain("output", dnats, Hook("nat", "output", AFTER_SERVICES)),
        Chain("postrouting", back, Hook("nat", "postrouting", SRCNAT)),
    )


# ── the kernel's table ──


class HostPorts:
    """Those of this node's pods, in the network namespace of the calling thread."""

    def __init__(self) -> None:
        self._open: dict[str, Elements] = {}  # pod uid -> its elements
        self._made = False

    def begin(self, pods: Iterable[tuple[Pod, Sequence[Address]]]) -> None:
        """Put right what an earlier agent left, in one transaction. `pods` run; of two that want one port, the first
        has it. Raises NftError."""
        whole: Elements = {name: {} for name in MAPS}
        for pod, addresses in pods:
            found = elements(pod, addresses)
            if any(found.values()) and self._owner(found) is None:
                self._open[pod.metadata.uid] = found
                for name, part in found.items():
                    whole[name] |= part
        transaction = Transaction()
        self._made = bool(self._open)
        connection = Connection()
        try:
            if connection.comment(TABLE) is not None:
                transaction.add(DeleteTable(TABLE))
            if self._made:
                _make(transaction)
                _add(transaction, whole)
            connection.commit(transaction)
        finally:
            connection.close()

    def open(self, pod: Pod, addresses: Sequence[Address]) -> None:
        """Lead the pod's host ports to `addresses`; again is fine. Raises HostPortRefused."""
        found = elements(pod, addresses)
        if not any(found.values()) or self._open.get(pod.metadata.uid) == found:
            return
        self.close(pod)
        if (port := self._owner(found)) is not None:
            raise HostPortRefused(f"host port {port} is in use by another pod of this node")
        transaction = Transaction()
        if not self._made:
            _make(transaction)
        _add(transaction, found)
        try:
            _commit(transaction)
        except NftError as error:
            raise HostPortRefused(f"the kernel refused a host port: {error}") from error
        self._made = True
        self._open[pod.metadata.uid] = found

    def close(self, pod: Pod) -> None:
        """Forget the pod's host ports; one that has none is fine. Raises NftError."""
        found = self._open.pop(pod.metadata.uid, None)
        if found is None:
            return
        transaction = Transaction()
        for name, part in found.items():
            if part:
                transaction.add(DeleteElements(TABLE, MAPS[name], part.keys()))
        _commit(transaction)

    def _owner(self, wanted: Elements) -> int | None:
        """A port of `wanted` that is taken: with and without an address are one port, as for the scheduler."""
        for held in self._open.values():
            for version in _TYPES:
                any_, addressed = ANY[version].name, ADDRESSED[version].name
                theirs = {*held[any_], *(key[-_KEY:] for key in held[addressed])}
                for key in (*wanted[any_], *wanted[addressed]):
                    port = key[-_KEY:]
                    if port in held[any_] or key in held[addressed] or (key in wanted[any_] and port in theirs):
                        return int.from_bytes(port[4:6], "big")
        return None


def _make(transaction: Transaction) -> None:
    transaction.add(AddTable(Table(TABLE, "host ports of kubesvc's pods")))
    for found in MAPS.values():
        transaction.add(AddMap(TABLE, found))
    for chain in _chains():
        transaction.add(AddChain(TABLE, chain))
        transaction.add(FillChain(TABLE, chain))


def _add(transaction: Transaction, wanted: Elements) -> None:
    for name, part in wanted.items():
        if part:
            transaction.add(AddElements(TABLE, MAPS[name], part))


def _commit(transaction: Transaction) -> None:
    connection = Connection()
    try:
        connection.commit(transaction)
    finally:
        connection.close()
