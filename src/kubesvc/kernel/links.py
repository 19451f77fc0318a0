"""Links, addresses, routes and neighbours of one network namespace, over a route-netlink socket.

A `Links` is a socket, and a socket stays in the namespace it was opened in: a process can hold one for each namespace
it looks after and use it from any thread. Calls are synchronous and take microseconds, except `delete`, which waits for
the kernel to finish with the link. Words are `ip`'s own: link, master, via, onlink, proto.

Every failure is an OSError with the kernel's errno and, where it gives one, its explanation (FileExistsError for
what is already there). No policy here: names, addresses and sysctls are chosen by the box and by the node.

Layout of a request (linux/netlink.h, linux/rtnetlink.h):

    nlmsghdr | ifinfomsg / ifaddrmsg / rtmsg / ndmsg | attribute attribute …    attribute = length, type, data, padding
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
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
from pathlib import Path

from kubesvc.kernel import netns

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network
Namespace = Path | str | int

# linux/rtnetlink.h, linux/netlink.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH = 28, 29
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_ACK_TLVS, NLM_F_CAPPED = 0x200, 0x100
SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 11, 12
# linux/if_link.h, linux/veth.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 10, 18
IFLA_NET_NS_FD = 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFF_UP = 1
# linux/if_addr.h, linux/rtnetlink.h, linux/neighbour.h
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_F_NODAD = 1, 2, 8, 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 7, 15
RT_TABLE_MAIN, RTN_UNICAST, RTNH_F_ONLINK = 254, 1, 4
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
NDA_DST, NDA_LLADDR, NUD_PERMANENT = 1, 2, 0x80

PROTO_STATIC = 4  # linux/rtnetlink.h RTPROT_STATIC
PROTO_KUBESVC = 155  # ours: `ip route show proto 155` lists the routes kubesvc made


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the main table. `via` is None for a route straight to a link."""

    to: Network
    via: Address | None = None
    dev: str = ""
    proto: int = PROTO_STATIC


def _attribute(kind: int, data: bytes) -> bytes:
    size = len(data) + 4
    return struct.pack("=HH", size, kind) + data + bytes(-size % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _attributes(data: bytes) -> dict[int, bytes]:
    """type -> data; the flag bits of nested and big-endian types are dropped."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + size]
        at += size + (-size % 4)
    return found


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


class Links:
    """The links of the namespace at `namespace` (a path or descriptor; None: the calling thread's)."""

    def __init__(self, namespace: Namespace | None = None) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        if namespace is None:
            self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        else:
            self._socket = netns.socket_in(namespace, socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        for option in (NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))
        self._lock = threading.Lock()
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def names(self) -> dict[str, int]:
        """name -> index of every link."""
        found: dict[str, int] = {}
        for body in self._request(RTM_GETLINK, NLM_F_DUMP, _link(), "list links"):
            name = _attributes(body[16:]).get(IFLA_IFNAME, b"").rstrip(b"\0").decode()
            found[name] = struct.unpack_from("=i", body, 4)[0]
        return found

    def index(self, name: str) -> int:
        """Raises OSError (ENODEV) when there is no such link."""
        (body,) = self._request(RTM_GETLINK, 0, _link() + _text(IFLA_IFNAME, name), f"find link {name}")
        index: int = struct.unpack_from("=i", body, 4)[0]
        return index

    def mac(self, name: str) -> str:
        (body,) = self._request(RTM_GETLINK, 0, _link() + _text(IFLA_IFNAME, name), f"find link {name}")
        return _attributes(body[16:])[IFLA_ADDRESS].hex(":")

    def exists(self, name: str) -> bool:
        try:
            self.index(name)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        return True

    def add_veth(
        self,
        name: str,
        peer: str,
        *,
        peer_namespace: Namespace | None = None,
        mac: str = "",
        peer_mac: str = "",
        mtu: int = 0,
        up: bool = False,
    ) -> None:
        """A pair: `name` here, `peer` in `peer_namespace` (None: here too). `up` brings this end up."""
        ends = []
        for end, hardware in ((name, mac), (peer, peer_mac)):
            parts = [_text(IFLA_IFNAME, end)]
            if hardware:
                parts.append(_attribute(IFLA_ADDRESS, _mac(hardware)))
            if mtu:
                parts.append(_number(IFLA_MTU, mtu))
            ends.append(b"".join(parts))
        descriptor, ours = self._descriptor(peer_namespace)
        try:
            if descriptor >= 0:
                ends[1] += _number(IFLA_NET_NS_FD, descriptor)
            other = _attribute(VETH_INFO_PEER, _link() + ends[1])
            info = _text(IFLA_INFO_KIND, "veth") + _attribute(IFLA_INFO_DATA, other)
            flags = IFF_UP if up else 0
            body = _link(0, flags, flags) + ends[0] + _attribute(IFLA_LINKINFO, info)
            self._request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add link {name} type veth peer {peer}")
        finally:
            if ours:
                os.close(descriptor)

    def add_bridge(self, name: str, *, mac: str = "", up: bool = True) -> None:
        flags = IFF_UP if up else 0
        body = _link(0, flags, flags) + _text(IFLA_IFNAME, name)
        if mac:
            body += _attribute(IFLA_ADDRESS, _mac(mac))
        body += _attribute(IFLA_LINKINFO, _text(IFLA_INFO_KIND, "bridge"))
        self._request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add link {name} type bridge")

    def up(self, name: str) -> None:
        self._change(name, b"", IFF_UP, IFF_UP, "up")

    def down(self, name: str) -> None:
        self._change(name, b"", 0, IFF_UP, "down")

    def set_mac(self, name: str, mac: str) -> None:
        self._change(name, _attribute(IFLA_ADDRESS, _mac(mac)), 0, 0, f"address {mac}")

    def set_mtu(self, name: str, mtu: int) -> None:
        self._change(name, _number(IFLA_MTU, mtu), 0, 0, f"mtu {mtu}")

    def set_master(self, name: str, bridge: str) -> None:
        self._change(name, _number(IFLA_MASTER, self.index(bridge)), 0, 0, f"master {bridge}")

    def move(self, name: str, namespace: Namespace) -> None:
        """Send a link to another namespace; its addresses are lost on the way."""
        descriptor, ours = self._descriptor(namespace)
        try:
            self._change(name, _number(IFLA_NET_NS_FD, descriptor), 0, 0, f"netns {namespace}")
        finally:
            if ours:
                os.close(descriptor)

    def delete(self, name: str) -> None:
        """Missing is fine; the other end of a veth pair goes with it."""
        try:
            self._request(RTM_DELLINK, NLM_F_ACK, _link() + _text(IFLA_IFNAME, name), f"delete link {name}")
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    # ── addresses, routes, neighbours ────────────────────────────────────────────────────────────────────────────────

    def add_address(self, name: str, address: Interface) -> None:
        """Add `address` (with its prefix) to a link; there already is fine. IPv6 without duplicate detection."""
        family = _family(address.version)
        body = struct.pack("=BBBBI", family, address.network.prefixlen, 0, 0, self.index(name))
        packed = address.ip.packed
        body += _attribute(IFA_LOCAL, packed) + _attribute(IFA_ADDRESS, packed)
        if address.version == 6:
            body += _number(IFA_FLAGS, IFA_F_NODAD)
        self._request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, f"add address {address} dev {name}")

    def delete_address(self, name: str, address: Interface) -> None:
        """Missing is fine."""
        body = struct.pack(
            "=BBBBI", _family(address.version), address.network.prefixlen, 0, 0, self.index(name)
        ) + _attribute(IFA_LOCAL, address.ip.packed)
        with _missing_is_fine(errno.EADDRNOTAVAIL):
            self._request(RTM_DELADDR, NLM_F_ACK, body, f"delete address {address} dev {name}")

    def set_route(
        self,
        to: Network,
        *,
        via: Address | None = None,
        dev: str = "",
        source: Address | None = None,
        onlink: bool = False,
        proto: int = PROTO_STATIC,
    ) -> None:
        """Add the route, or replace the one to the same network. `onlink`: `via` needs no route of its own."""
        body = self._route(to, via, dev, RTNH_F_ONLINK if onlink else 0, proto)
        if source is not None:
            body += _attribute(RTA_PREFSRC, source.packed)
        what = f"route {to}" + (f" via {via}" if via else "") + (f" dev {dev}" if dev else "")
        self._request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, what)

    def delete_route(self, to: Network, *, via: Address | None = None, dev: str = "") -> None:
        """Missing is fine."""
        body = self._route(to, via, dev, 0, 0)
        with _missing_is_fine(errno.ESRCH, errno.ENODEV):
            self._request(RTM_DELROUTE, NLM_F_ACK, body, f"delete route {to}")

    def routes(self, version: int = 4) -> list[Route]:
        """The unicast routes of the main table."""
        names = {index: name for name, index in self.names().items()}
        body = struct.pack("=BBBBBBBBI", _family(version), 0, 0, 0, 0, 0, 0, 0, 0)
        found = []
        for answer in self._request(RTM_GETROUTE, NLM_F_DUMP, body, "list routes"):
            length, table, proto, kind = answer[1], answer[4], answer[5], answer[7]
            if table != RT_TABLE_MAIN or kind != RTN_UNICAST:
                continue
            parts = _attributes(answer[12:])
            to = ip_address(parts.get(RTA_DST, bytes(4 if version == 4 else 16)))
            via = ip_address(parts[RTA_GATEWAY]) if RTA_GATEWAY in parts else None
            dev = names.get(int.from_bytes(parts.get(RTA_OIF, bytes(4)), "little"), "")
            found.append(Route(ip_network((to, length)), via, dev, proto))
        return found

    def set_neighbour(self, name: str, address: Address, mac: str) -> None:
        """A permanent neighbour entry: `address` is at `mac` behind link `name`, without asking."""
        body = struct.pack("=BBHiHBB", _family(address.version), 0, 0, self.index(name), NUD_PERMANENT, 0, 0)
        body += _attribute(NDA_DST, address.packed) + _attribute(NDA_LLADDR, _mac(mac))
        self._request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, f"neighbour {address} dev {name}")

    # ── the socket ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _change(self, name: str, body: bytes, flags: int, change: int, what: str) -> None:
        request = _link(self.index(name), flags, change) + body
        self._request(RTM_NEWLINK, NLM_F_ACK, request, f"set link {name} {what}")

    def _route(self, to: Network, via: Address | None, dev: str, flags: int, proto: int) -> bytes:
        """`proto` 0: a route to delete, whatever its scope and type."""
        scope = RT_SCOPE_LINK if via is None and to.version == 4 else RT_SCOPE_UNIVERSE
        scope = scope if proto else RT_SCOPE_NOWHERE
        kind = RTN_UNICAST if proto else 0
        family = _family(to.version)
        body = struct.pack("=BBBBBBBBI", family, to.prefixlen, 0, 0, RT_TABLE_MAIN, proto, scope, kind, flags)
        body += _attribute(RTA_DST, to.network_address.packed)
        if via is not None:
            body += _attribute(RTA_GATEWAY, via.packed)
        if dev:
            body += _number(RTA_OIF, self.index(dev))
        return body

    @staticmethod
    def _descriptor(namespace: Namespace | None) -> tuple[int, bool]:
        """An open descriptor of a namespace, and whether we opened it; -1 for none."""
        if namespace is None:
            return -1, False
        if isinstance(namespace, int):
            return namespace, False
        return os.open(namespace, os.O_RDONLY | os.O_CLOEXEC), True

    def _request(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        """Send one request and gather its answers. An acknowledgement is asked for, except with a dump."""
        dump = flags & NLM_F_DUMP == NLM_F_DUMP and kind in (RTM_GETLINK, RTM_GETROUTE)
        flags |= NLM_F_REQUEST | (0 if dump else NLM_F_ACK)
        with self._lock:
            self._sequence += 1
            sequence = self._sequence
            header = struct.pack("=IHHII", len(body) + 16, kind, flags, sequence, 0)
            self._socket.send(header + body)
            answers: list[bytes] = []
            while True:
                data = self._socket.recv(1 << 18)
                at = 0
                while at + 16 <= len(data):
                    size, answer, answer_flags, number = struct.unpack_from("=IHHI", data, at)
                    part = data[at + 16 : at + size]
                    at += size + (-size % 4)
                    if number != sequence:
                        continue
                    if answer == NLMSG_DONE:
                        return answers
                    if answer != NLMSG_ERROR:
                        answers.append(part)
                        continue
                    (code,) = struct.unpack_from("=i", part)
                    if code == 0:
                        return answers
                    raise _failure(-code, what, part, answer_flags)


def _failure(number: int, what: str, part: bytes, flags: int) -> OSError:
    """The error of an NLMSG_ERROR, with the kernel's own explanation (extack) when it sent one."""
    message = os.strerror(number)
    if flags & NLM_F_ACK_TLVS:
        (echoed,) = struct.unpack_from("=I", part, 4)
        start = 20 if flags & NLM_F_CAPPED else 4 + echoed + (-echoed % 4)
        with suppress(IndexError, UnicodeDecodeError):
            if reason := _attributes(part[start:]).get(1):
                message = f"{message} ({reason.rstrip(bytes(1)).decode()})"
    return OSError(number, f"{what}: {message}")


class _missing_is_fine:
    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, OSError) and error.errno in self._numbers
