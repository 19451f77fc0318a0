"""A backend without a kernel, which can trace a packet.

It is the nftables backend over `MemoryNft`: the same elements and the same rules, so a test of packet flows here tests
what the kernel will be given. The way of a packet:

    from outside or a pod   prerouting ─► input (to this node) or forward ─► postrouting
    from this node          output ─► (delivered here: input) ─► postrouting
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

import msgspec

from kubesvc.kernel.nft.memory import MemoryNft
from kubesvc.kernel.nft.trace import Packet
from kubesvc.proxy.backend import Ranges
from kubesvc.proxy.layout import pack, unpack
from kubesvc.proxy.nftables import NftablesBackend


class Where(Enum):
    """Where a connection starts."""

    WIRE = "arrives at this node, from a pod or from outside"
    NODE = "made by a process in this node's own network"


class Trace(NamedTuple):
    """What became of a connection. output: "address:port", "reject" or "drop"."""

    output: str
    masqueraded: bool


class Connection(msgspec.Struct, frozen=True):
    """The first packet of a connection, in text."""

    source: str
    destination: str
    protocol: int
    port: int
    where: Where = Where.WIRE
    source_port: int = 40000
    mark: int = 0
    """The connection's, put there by somebody else."""


class FakeBackend(NftablesBackend):
    """`Backend` in memory. `packet` is the last one traced, as it ended; its `matched` holds the rules it matched, as
    nft prints them."""

    def __init__(self, ranges: Ranges, node_ips: Iterable[str] = ()) -> None:
        self.nft = MemoryNft()
        self.packet = Packet(b"", b"", 0, 0)
        self._node_ips = frozenset(pack(ip) for ip in node_ips)
        super().__init__(self.nft, ranges)

    def trace(self, connection: Connection, *, draw: int = 0) -> Trace:
        """Send a connection through; every random number comes out as `draw` (modulo what is asked)."""
        packet = Packet(pack(connection.source), pack(connection.destination), connection.protocol, connection.port)
        packet.source_port, packet.connection_mark = connection.source_port, connection.mark
        self.packet = packet
        masqueraded = False
        hook = "output" if connection.where is Where.NODE else "prerouting"
        while hook:
            packet.incoming = self._came_by(hook, connection.where)
            packet.outgoing = "" if hook in ("prerouting", "input") else "lo" if self._here(packet) else "eth0"
            self.nft.run(hook, packet, draw)
            if packet.verdict in ("drop", "reject"):
                return Trace(packet.verdict, False)
            masqueraded = masqueraded or packet.verdict == "masquerade"
            hook = self._next(hook, packet)
        return Trace(_show(packet), masqueraded)

    def outputs(self, connection: Connection, draws: int = 64) -> set[str]:
        """Every place the connection may end up at."""
        return {self.trace(connection, draw=n).output for n in range(draws)}

    def _here(self, packet: Packet) -> bool:
        return packet.destination in self._node_ips or unpack(packet.destination).is_loopback

    @staticmethod
    def _came_by(hook: str, where: Where) -> str:
        if hook not in ("prerouting", "input", "forward"):
            return ""
        return "lo" if where is Where.NODE else "eth0"

    def _next(self, hook: str, packet: Packet) -> str:
        """The hook after this one; "" where the packet leaves the node or reaches a process."""
        here = self._here(packet)
        match hook:
            case "prerouting":
                return "input" if here else "forward"
            case "output" | "forward":
                return "postrouting"
            case "postrouting" if here:
                return "input"  # over the loopback
        return ""


def _show(packet: Packet) -> str:
    address = unpack(packet.destination)
    return f"{address}:{packet.port}" if address.version == 4 else f"[{address}]:{packet.port}"
