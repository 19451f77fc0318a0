"""Neighbour discovery for IPv6 over Ethernet: solicitations from wire, advertisements to wire. Pure.

ethernet        0 destination 6 │ 6 source 12 │ 12 type 14
IPv6 (RFC 8200) 14 version, class, flow 18 │ 18 length 20 │ 20 next header 21 │ 21 hop limit 22 │ 22 source 38 │
                38 destination 54
NDP (RFC 4861)  54 type 55 │ 55 code 56 │ 56 checksum 58 │ 58 flags 62 │ 62 target 78 │ 78 options
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

import msgspec

ETH_P_IPV6 = 0x86DD  # linux/if_ether.h
NEXT_ICMPV6 = 58
SOLICITATION, ADVERTISEMENT = 135, 136
SOLICITED, OVERRIDE = 0x40000000, 0x20000000
TARGET_LINK_LAYER = 2  # an option
HOPS = 255  # who is further away than this link can't send it

ALL_NODES = IPv6Address("ff02::1")
ALL_NODES_MAC = bytes.fromhex("333300000001")
UNSPECIFIED = IPv6Address("::")

_HEAD = struct.Struct("!6s6sHIHBB16s16sBBHI16s")


class Solicitation(msgspec.Struct, frozen=True):
    """Who asks (an address and six bytes), and where `target` is. Asked by "::" it is duplicate address detection."""

    mac: bytes
    sender: IPv6Address
    target: IPv6Address

    @classmethod
    def from_wire(cls, frame: bytes) -> Solicitation | None:
        """The question in `frame`; None when it is none, or came from beyond this link."""
        if len(frame) < _HEAD.size:
            return None
        _, mac, ethertype, _, _, following, hops, sender, _, kind, code, _, _, target = _HEAD.unpack_from(frame)
        if (ethertype, following, hops, kind, code) != (ETH_P_IPV6, NEXT_ICMPV6, HOPS, SOLICITATION, 0):
            return None
        return cls(mac, IPv6Address(sender), IPv6Address(target))

    def to_wire(self) -> bytes:
        """As a neighbour asks: to the target's solicited-node group."""
        group = solicited_node(self.target)
        body = _body(SOLICITATION, 0, self.target) + (b"" if self.sender == UNSPECIFIED else b"\x01\x01" + self.mac)
        return _frame(b"\x33\x33" + group.packed[12:], self.mac, self.sender, group, body)


def solicited_node(address: IPv6Address) -> IPv6Address:
    """The multicast group that questions for `address` are sent to."""
    return IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])


def reply(question: Solicitation, mac: bytes) -> bytes:
    """`question.target` is at `mac`, told to who asked; to everybody, when somebody is about to take it."""
    if question.sender == UNSPECIFIED:
        return announcement(question.target, mac)
    return _advertisement(question.target, mac, question.sender, question.mac, SOLICITED | OVERRIDE)


def announcement(address: IPv6Address, mac: bytes) -> bytes:
    """Unsolicited, with the override flag (RFC 4861 section 7.2.6): tables that have an entry for it are updated."""
    return _advertisement(address, mac, ALL_NODES, ALL_NODES_MAC, OVERRIDE)


def _advertisement(address: IPv6Address, mac: bytes, to: IPv6Address, to_mac: bytes, flags: int) -> bytes:
    body = _body(ADVERTISEMENT, flags, address) + bytes((TARGET_LINK_LAYER, 1)) + mac
    return _frame(to_mac, mac, address, to, body)


def _body(kind: int, flags: int, target: IPv6Address) -> bytes:
    return struct.pack("!BBHI16s", kind, 0, 0, flags, target.packed)


def _frame(to_mac: bytes, mac: bytes, source: IPv6Address, destination: IPv6Address, body: bytes) -> bytes:
    pseudo = source.packed + destination.packed + struct.pack("!II", len(body), NEXT_ICMPV6)
    body = body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]
    header = struct.pack("!IHBB16s16s", 6 << 28, len(body), NEXT_ICMPV6, HOPS, source.packed, destination.packed)
    return to_mac + mac + ETH_P_IPV6.to_bytes(2, "big") + header + body


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
