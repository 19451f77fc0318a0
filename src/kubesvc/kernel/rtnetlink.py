"""Route netlink's messages: the bodies of requests about links, addresses, routes and neighbours, and their reading.

Values in, bytes out; the socket is netlink.py's, the names and the calls are links.py's. Layout of a request
(linux/netlink.h, linux/rtnetlink.h):

    nlmsghdr | ifinfomsg / ifaddrmsg / rtmsg / ndmsg | attribute attribute …    attribute = length, type, data, padding
"""

from __future__ import annotations

import struct
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)

import msgspec

from kubesvc.kernel.netlink import attribute, attributes, text, u32

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 10  # linux/socket.h
# linux/rtnetlink.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH = 28
RTM_NEWRULE, RTM_DELRULE = 32, 33
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC = 1, 4, 5, 7
RTA_TABLE = 15
RT_TABLE_MAIN, RT_TABLE_LOCAL, RTN_UNICAST, RTNH_F_ONLINK = 254, 255, 1, 4
# linux/fib_rules.h
FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FR_ACT_TO_TBL = 6, 10, 15, 1
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
# linux/if_link.h, linux/if.h, linux/veth.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 10, 18
IFLA_NET_NS_FD = 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFF_UP = 1
# linux/if_addr.h, linux/neighbour.h
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_F_NODAD = 1, 2, 8, 0x02
NDA_DST, NDA_LLADDR, NUD_PERMANENT = 1, 2, 0x80

PROTO_STATIC = 4  # linux/rtnetlink.h RTPROT_STATIC
PROTO_RA = 9  # linux/rtnetlink.h RTPROT_RA: told by a router
PROTO_KUBESVC = 155  # ours: `ip route show proto 155` lists the routes kubesvc made

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_NDMSG = struct.Struct("=BBHiHBB")  # family, padding, index, state, flags, type


class Route(msgspec.Struct, frozen=True):
    """One route of the main table. `via` is None for a route straight to a link."""

    to: Network
    via: Address | None = None
    dev: str = ""
    proto: int = PROTO_STATIC


def family(version: int) -> int:
    return AF_INET if version == 4 else AF_INET6


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


# ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFOMSG.pack(AF_UNSPEC, 0, index, flags, change)


def link_index(body: bytes) -> int:
    index: int = _IFINFOMSG.unpack_from(body)[2]
    return index


def link_attributes(body: bytes) -> dict[int, bytes]:
    return attributes(body, _IFINFOMSG.size)


def link_end(name: str, mac: str = "", mtu: int = 0) -> bytes:
    """The attributes of a link to be made."""
    parts = text(IFLA_IFNAME, name)
    if mac:
        parts += attribute(IFLA_ADDRESS, mac_bytes(mac))
    if mtu:
        parts += u32(IFLA_MTU, mtu)
    return parts


def link_kind(kind: str, data: bytes = b"") -> bytes:
    info = text(IFLA_INFO_KIND, kind) + (attribute(IFLA_INFO_DATA, data) if data else b"")
    return attribute(IFLA_LINKINFO, info)


# ── addresses and neighbours ─────────────────────────────────────────────────────────────────────────────────────────


def addresses_of(version: int) -> bytes:
    """What a dump of addresses asks for."""
    return _IFADDRMSG.pack(family(version), 0, 0, 0, 0)


def address(index: int, value: Interface) -> bytes:
    """An address with its prefix. IPv6 without duplicate detection."""
    body = _IFADDRMSG.pack(family(value.version), value.network.prefixlen, 0, 0, index)
    body += attribute(IFA_LOCAL, value.ip.packed) + attribute(IFA_ADDRESS, value.ip.packed)
    if value.version == 6:
        body += u32(IFA_FLAGS, IFA_F_NODAD)
    return body


def address_found(body: bytes) -> tuple[int, bytes]:
    """The link's index and the packed address of one answer."""
    found = attributes(body, _IFADDRMSG.size)
    index: int = _IFADDRMSG.unpack_from(body)[4]
    return index, found.get(IFA_LOCAL, found.get(IFA_ADDRESS, b""))


def neighbour(index: int, value: Address, mac: str) -> bytes:
    """A permanent one."""
    body = _NDMSG.pack(family(value.version), 0, 0, index, NUD_PERMANENT, 0, 0)
    return body + attribute(NDA_DST, value.packed) + attribute(NDA_LLADDR, mac_bytes(mac))


# ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def route(
    to: Network,
    *,
    via: Address | None = None,
    index: int = 0,
    source: Address | None = None,
    onlink: bool = False,
    proto: int = 0,
    table: int = RT_TABLE_MAIN,
) -> bytes:
    """A route of a table, over the link `index` (0: none is named). `proto` 0: to delete, whoever made it."""
    scope = RT_SCOPE_LINK if via is None and to.version == 4 else RT_SCOPE_UNIVERSE
    scope = scope if proto else RT_SCOPE_NOWHERE  # nowhere: any scope
    kind = RTN_UNICAST if proto else 0
    flags = RTNH_F_ONLINK if onlink else 0
    short = table if table < 256 else 0
    body = _RTMSG.pack(family(to.version), to.prefixlen, 0, 0, short, proto, scope, kind, flags)
    body += attribute(RTA_DST, to.network_address.packed) + u32(RTA_TABLE, table)
    if via is not None:
        body += attribute(RTA_GATEWAY, via.packed)
    if index:
        body += u32(RTA_OIF, index)
    if source is not None:
        body += attribute(RTA_PREFSRC, source.packed)
    return body


def rule(priority: int, table: int = 0, mark: int = 0) -> bytes:
    """A rule: IPv4 packets with this mark (0: all) are routed by `table`. `table` 0: to delete, whatever it says."""
    body = struct.pack("=BBBBBBBBI", AF_INET, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL if table else 0, 0)
    body += u32(FRA_PRIORITY, priority)
    if mark:
        body += u32(FRA_FWMARK, mark)
    return body + (u32(FRA_TABLE, table) if table else b"")


def routes_of(version: int) -> bytes:
    """What a dump of routes asks for."""
    return _RTMSG.pack(family(version), 0, 0, 0, 0, 0, 0, 0, 0)


def route_found(body: bytes, links: dict[int, str]) -> Route | None:
    """One answer; None when it is no unicast route of the main table. `links`: index -> name."""
    version, length, _, _, table, proto, _, kind, _ = _RTMSG.unpack_from(body)
    if table != RT_TABLE_MAIN or kind != RTN_UNICAST:
        return None
    parts = attributes(body, _RTMSG.size)
    to = ip_address(parts.get(RTA_DST, bytes(4 if version == AF_INET else 16)))
    via = ip_address(parts[RTA_GATEWAY]) if RTA_GATEWAY in parts else None
    (index,) = struct.unpack("=i", parts.get(RTA_OIF, bytes(4)))
    return Route(ip_network((to, length)), via, links.get(index, ""), proto)
