"""Routes of the network namespace the calling thread is in, over a blocking netlink socket.

For callers inside a running event loop, where pyroute2's synchronous sockets refuse to work (and its asynchronous ones
need asyncio's own loop, not uvloop's). linux/rtnetlink.h.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from kubesvc.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NetlinkSocket,
    attribute,
    attributes,
    message,
)

_NETLINK_ROUTE = 0
_RTM_GETADDR, _RTM_NEWROUTE = 22, 24
_RTA_DST, _RTA_OIF, _RTA_PREFSRC = 1, 4, 7
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RT_TABLE_MAIN, _RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RTN_UNICAST = 254, 0, 253, 1
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags

PROTOCOL = 107
"""What `ip route` prints as `proto 107`: kubesvc made it."""


def link_of(address: IPv4Address | IPv6Address) -> int | None:
    """The index of the link that has `address`; None when none has."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    netlink = NetlinkSocket(_NETLINK_ROUTE)
    try:
        for body in netlink.dump(_RTM_GETADDR, struct.pack("=BBBBi", family, 0, 0, 0, 0)):
            (index,) = struct.unpack_from("=i", body, 4)
            found = attributes(body, 8)
            if found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS)) == address.packed:
                return int(index)
    finally:
        netlink.close()
    return None


def addresses() -> list[IPv4Address | IPv6Address]:
    """Every address of the links here, in the kernel's order."""
    netlink = NetlinkSocket(_NETLINK_ROUTE)
    try:
        found: list[IPv4Address | IPv6Address] = []
        for body in netlink.dump(_RTM_GETADDR, struct.pack("=BBBBi", 0, 0, 0, 0, 0)):
            held = attributes(body, 8)
            packed = held.get(_IFA_LOCAL, held.get(_IFA_ADDRESS, b""))
            found.append(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))
        return found
    finally:
        netlink.close()


def replace(network: IPv4Network | IPv6Network, link: int, source: IPv4Address | IPv6Address | None = None) -> None:
    """Route `network` straight onto a link, from `source`. Raises NetlinkError."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    scope = _RT_SCOPE_LINK if network.version == 4 else _RT_SCOPE_UNIVERSE
    header = _RTMSG.pack(family, network.prefixlen, 0, 0, _RT_TABLE_MAIN, PROTOCOL, scope, _RTN_UNICAST, 0)
    body = header + attribute(_RTA_DST, network.network_address.packed) + attribute(_RTA_OIF, struct.pack("=i", link))
    if source is not None:
        body += attribute(_RTA_PREFSRC, source.packed)
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
    netlink = NetlinkSocket(_NETLINK_ROUTE)
    try:
        for refused in netlink.request(message(_RTM_NEWROUTE, flags, 1, body)):
            raise refused
    finally:
        netlink.close()
