"""ARP for IPv4 over Ethernet, to and from wire. Pure.

    ethernet      0 destination 6 │ 6 source 12 │ 12 type 14
    ARP (RFC 826) 14 hardware 16 │ 16 protocol 18 │ 18 hlen │ 19 plen │ 20 operation 22 │
                  22 sender MAC 28 │ 28 sender IP 32 │ 32 target MAC 38 │ 38 target IP 42

NDP (RFC 4861) is in the module beside this one, with the same two directions.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import msgspec

ETH_P_IP = 0x0800  # linux/if_ether.h
ETH_P_ARP = 0x0806
ARPHRD_ETHER = 1  # linux/if_arp.h
ARPOP_REQUEST = 1
ARPOP_REPLY = 2

BROADCAST = b"\xff" * 6
NOBODY = b"\x00" * 6

_FRAME = struct.Struct("!6s6sHHHBBH6s4s6s4s")


class ArpFrame(msgspec.Struct, frozen=True):
    """One ARP packet with its Ethernet header; MACs are six bytes."""

    destination: bytes
    source: bytes
    operation: int
    sender_mac: bytes
    sender_ip: IPv4Address
    target_mac: bytes
    target_ip: IPv4Address

    def to_wire(self) -> bytes:
        return _FRAME.pack(
            self.destination, self.source, ETH_P_ARP,
            ARPHRD_ETHER, ETH_P_IP, 6, 4, self.operation,
            self.sender_mac, self.sender_ip.packed, self.target_mac, self.target_ip.packed,
        )  # fmt: skip

    @classmethod
    def from_wire(cls, frame: bytes) -> ArpFrame | None:
        """The packet in `frame` (Ethernet padding allowed); None when it isn't ARP for IPv4 over Ethernet."""
        if len(frame) < _FRAME.size:
            return None
        (
            destination, source, ethertype, hardware, protocol, hlen, plen, operation,
            sender_mac, sender_ip, target_mac, target_ip,
        ) = _FRAME.unpack_from(frame)  # fmt: skip
        if (ethertype, hardware, protocol, hlen, plen) != (ETH_P_ARP, ARPHRD_ETHER, ETH_P_IP, 6, 4):
            return None
        return cls(
            destination, source, operation, sender_mac, IPv4Address(sender_ip), target_mac, IPv4Address(target_ip)
        )


def reply(request: ArpFrame, mac: bytes) -> ArpFrame:
    """`request.target_ip` is at `mac`, told to who asked."""
    return ArpFrame(request.sender_mac, mac, ARPOP_REPLY, mac, request.target_ip, request.sender_mac, request.sender_ip)


def announcement(address: IPv4Address, mac: bytes) -> ArpFrame:
    """A gratuitous request, as RFC 5227 section 2.3 announces an address: every table that has an entry for it is
    updated, and none gets a new one. (A reply would do for most systems, the request does for all.)"""
    return ArpFrame(BROADCAST, mac, ARPOP_REQUEST, mac, address, NOBODY, address)
