"""Host ports: what arrives at a port of this node goes to the pod that asked for it. A table of the node agent's own.

    prerouting, output (nat, after Services')
        ip daddr . protocol . port  @addressed ─► dnat to pod . port       ports with a hostIP
        to this node:    protocol . port  @any ─► dnat to pod . port       the others
    postrouting (nat)
        translated, from 127/8, or a pod to itself ─► masquerade

The rules are constant and data is in maps, as in the proxy's table; there is no table before the first host port. The
source stays what it was. On 127.0.0.1 they answer wherever node ports do: it takes the same switch of the kernel, which
is the proxy's to turn.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address

from kubesvc.api.pods import Pod
from kubesvc.kernel.nft import expressions as nft
from kubesvc.kernel.nft.connection import Connection
from kubesvc.kernel.nft.objects import INET_PROTO, INET_SERVICE, IPV4_ADDR, Chain, Hook, Map, Rule, Table
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

TABLE = "kubesvc-hostports"
AFTER_SERVICES, SRCNAT = -90, 110
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}

_TARGET = (IPV4_ADDR, INET_SERVICE)
ADDRESSED = Map("addressed", (IPV4_ADDR, INET_PROTO, INET_SERVICE), _TARGET)
ANY = Map("any", (INET_PROTO, INET_SERVICE), _TARGET)
ITSELF = Map("itself", (IPV4_ADDR, IPV4_ADDR))
MAPS = {found.name: found for found in (ADDRESSED, ANY, ITSELF)}

Elements = dict[str, dict[bytes, bytes]]  # map name -> key -> data


class HostPortRefused(Exception):
    """The port is another pod's, or the kernel doesn't take it. The message says which."""


# ── what is in the maps ──


def elements(pod: Pod, address: IPv4Address) -> Elements:
    """Those of one pod; empty when it asks for no host port. IPv6 host addresses have none."""
    found: Elements = {name: {} for name in MAPS}
    for container in pod.spec.every_container:
        for port in container.ports:
            if not port.host_port or port.protocol not in PROTOCOLS or ":" in port.host_ip:
                continue
            key = struct.pack(">B3xH2x", PROTOCOLS[port.protocol], port.host_port)
            target = address.packed + struct.pack(">H2x", port.container_port)
            if port.host_ip in ("", "0.0.0.0"):
                found["any"][key] = target
            else:
                found["addressed"][IPv4Address(port.host_ip).packed + key] = target
    if found["any"] or found["addressed"]:
        found["itself"][address.packed * 2] = b""
    return found


# ── what is in the chains ──

_IPV4 = (nft.Meta(nft.META_NFPROTO), nft.Compare(bytes((nft.NFPROTO_IPV4,))))
_SOURCE, _DESTINATION = 12, 16  # offsets in an IPv4 header
_TRANSLATED = (nft.Conntrack(nft.CT_STATUS), nft.Bitwise(nft.CT_STATUS_DNAT), nft.Compare(bytes(4), negated=True))


def _ports(into: int) -> tuple[nft.Expression, ...]:
    return nft.Meta(nft.META_L4PROTO, into), nft.Payload(nft.TRANSPORT, 2, 2, into + 1)


def _dnats() -> tuple[Rule, ...]:
    dnat = nft.Dnat(nft.NFPROTO_IPV4, 0, 1)
    whole = (nft.Payload(nft.NETWORK, _DESTINATION, 4), *_ports(1), nft.Lookup(ADDRESSED.name, into=0), dnat)
    local = (nft.DestinationType(), nft.Compare(nft.native32(nft.RTN_LOCAL)))
    return (
        Rule("dnat ip to ip daddr . meta l4proto . th dport map @addressed", (*_IPV4, *whole)),
        Rule(
            "fib daddr type local dnat ip to meta l4proto . th dport map @any",
            (*_IPV4, *local, *_ports(0), nft.Lookup(ANY.name, into=0), dnat),
        ),
    )


def _chains() -> tuple[Chain, ...]:
    loopback = (nft.Payload(nft.NETWORK, _SOURCE, 1), nft.Compare(b"\x7f"))
    both = (nft.Payload(nft.NETWORK, _SOURCE, 4), nft.Payload(nft.NETWORK, _DESTINATION, 4, 1))
    # Only to our pods: what another table translates is another's to masquerade.
    back = (
        Rule(
            "ct status dnat ip saddr 127.0.0.0/8 masquerade",
            (*_IPV4, *_TRANSLATED, *loopback, nft.Masquerade()),
        ),
        Rule(
            "ct status dnat ip saddr . ip daddr @itself masquerade",
            (*_IPV4, *_TRANSLATED, *both, nft.Lookup(ITSELF.name), nft.Masquerade()),
        ),
    )
    return (
        Chain("prerouting", _dnats(), Hook("nat", "prerouting", AFTER_SERVICES)),
        Chain("output", _dnats(), Hook("nat", "output", AFTER_SERVICES)),
        Chain("postrouting", back, Hook("nat", "postrouting", SRCNAT)),
    )


# ── the kernel's table ──


class HostPorts:
    """Those of this node's pods, in the network namespace of the calling thread."""

    def __init__(self) -> None:
        self._open: dict[str, Elements] = {}  # pod uid -> its elements
        self._made = False

    def begin(self, pods: Iterable[tuple[Pod, IPv4Address]]) -> None:
        """Put right what an earlier agent left, in one transaction. `pods` run; of two that want one port, the first
        has it. Raises NftError."""
        whole: Elements = {name: {} for name in MAPS}
        for pod, address in pods:
            found = elements(pod, address)
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

    def open(self, pod: Pod, address: IPv4Address) -> None:
        """Lead the pod's host ports to `address`; again is fine. Raises HostPortRefused."""
        found = elements(pod, address)
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
            for key in (*wanted["any"], *(k[4:] for k in wanted["addressed"])):
                taken = key in held["any"] or (key in wanted["any"] and any(k[4:] == key for k in held["addressed"]))
                if taken or any(k in held["addressed"] for k in wanted["addressed"] if k[4:] == key):
                    return int.from_bytes(key[4:6], "big")
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
