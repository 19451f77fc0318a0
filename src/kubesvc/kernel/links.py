"""Links, addresses, routes and neighbours of one network namespace, over a route-netlink socket.

A `Links` is a socket, and a socket stays in the namespace it was opened in: a process can hold one for each namespace
it looks after and use it from any thread, one inside a running event loop too. Calls are synchronous and take
microseconds, except `delete`, which waits for the kernel to finish with the link. Words are `ip`'s own: link, master,
via, onlink, proto.

Every failure is an OSError with the kernel's errno and, where it gives one, its explanation (FileExistsError for
what is already there). No policy here: names, addresses and sysctls are chosen by the rooms.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from kubesvc.kernel import rtnetlink
from kubesvc.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NetlinkError,
    NetlinkSocket,
    attribute,
    text,
    u32,
)
from kubesvc.kernel.rtnetlink import PROTO_KUBESVC, PROTO_STATIC, Address, Interface, Network, Route

__all__ = ["PROTO_KUBESVC", "PROTO_STATIC", "Links", "Route"]

Namespace = Path | str | int

NETLINK_ROUTE = 0  # linux/netlink.h


class Links:
    """The links of the namespace at `namespace` (a path or descriptor; None: the calling thread's)."""

    def __init__(self, namespace: Namespace | None = None) -> None:
        self._socket = NetlinkSocket(NETLINK_ROUTE, namespace)
        self._lock = threading.Lock()

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
        for body in self._dump(rtnetlink.RTM_GETLINK, rtnetlink.link(), "list links"):
            name = rtnetlink.link_attributes(body).get(rtnetlink.IFLA_IFNAME, b"").rstrip(b"\0").decode()
            found[name] = rtnetlink.link_index(body)
        return found

    def index(self, name: str) -> int:
        """Raises OSError (ENODEV) when there is no such link."""
        return rtnetlink.link_index(self._find(name))

    def mac(self, name: str) -> str:
        return rtnetlink.link_attributes(self._find(name))[rtnetlink.IFLA_ADDRESS].hex(":")

    def mtu(self, name: str) -> int:
        """Bytes. Raises OSError (ENODEV) when there is no such link."""
        (found,) = struct.unpack("=I", rtnetlink.link_attributes(self._find(name))[rtnetlink.IFLA_MTU])
        return int(found)

    def exists(self, name: str) -> bool:
        try:
            self._find(name)
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
        with _descriptor(peer_namespace) as descriptor:
            other = rtnetlink.link() + rtnetlink.link_end(peer, peer_mac, mtu)
            if descriptor is not None:
                other += u32(rtnetlink.IFLA_NET_NS_FD, descriptor)
            kind = rtnetlink.link_kind("veth", attribute(rtnetlink.VETH_INFO_PEER, other))
            self._add(rtnetlink.link_end(name, mac, mtu) + kind, up, f"add link {name} type veth peer {peer}")

    def add_bridge(self, name: str, *, mac: str = "", up: bool = True) -> None:
        self._add(rtnetlink.link_end(name, mac) + rtnetlink.link_kind("bridge"), up, f"add link {name} type bridge")

    def up(self, name: str) -> None:
        self._change(name, b"", rtnetlink.IFF_UP, rtnetlink.IFF_UP, "up")

    def down(self, name: str) -> None:
        self._change(name, b"", 0, rtnetlink.IFF_UP, "down")

    def set_mac(self, name: str, mac: str) -> None:
        self._change(name, attribute(rtnetlink.IFLA_ADDRESS, rtnetlink.mac_bytes(mac)), 0, 0, f"address {mac}")

    def set_mtu(self, name: str, mtu: int) -> None:
        self._change(name, u32(rtnetlink.IFLA_MTU, mtu), 0, 0, f"mtu {mtu}")

    def set_master(self, name: str, bridge: str) -> None:
        self._change(name, u32(rtnetlink.IFLA_MASTER, self.index(bridge)), 0, 0, f"master {bridge}")

    def move(self, name: str, namespace: Namespace) -> None:
        """Send a link to another namespace; its addresses are lost on the way."""
        with _descriptor(namespace) as descriptor:
            assert descriptor is not None
            self._change(name, u32(rtnetlink.IFLA_NET_NS_FD, descriptor), 0, 0, f"netns {namespace}")

    def delete(self, name: str) -> None:
        """Missing is fine; the other end of a veth pair goes with it."""
        body = rtnetlink.link() + text(rtnetlink.IFLA_IFNAME, name)
        with _missing_is_fine(errno.ENODEV):
            self._request(rtnetlink.RTM_DELLINK, 0, body, f"delete link {name}")

    # ── addresses, routes, neighbours ────────────────────────────────────────────────────────────────────────────────

    def add_address(self, name: str, address: Interface) -> None:
        """Add `address` (with its prefix) to a link; there already is fine. IPv6 without duplicate detection."""
        body = rtnetlink.address(self.index(name), address)
        self._request(rtnetlink.RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, f"add address {address} dev {name}")

    def delete_address(self, name: str, address: Interface) -> None:
        """Missing is fine."""
        body = rtnetlink.address(self.index(name), address)
        with _missing_is_fine(errno.EADDRNOTAVAIL):
            self._request(rtnetlink.RTM_DELADDR, 0, body, f"delete address {address} dev {name}")

    def holder(self, address: Address) -> str | None:
        """The name of the link that has `address`; None when none has."""
        for body in self._dump(rtnetlink.RTM_GETADDR, rtnetlink.addresses_of(address.version), "list addresses"):
            index, packed = rtnetlink.address_found(body)
            if packed == address.packed:
                return next((name for name, number in self.names().items() if number == index), None)
        return None

    def addresses(self) -> list[Address]:
        """Every address of every link, of both families."""
        found: list[Address] = []
        for version in (4, 6):
            for body in self._dump(rtnetlink.RTM_GETADDR, rtnetlink.addresses_of(version), "list addresses"):
                found.append(ip_address(rtnetlink.address_found(body)[1]))
        return found

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
        index = self.index(dev) if dev else 0
        body = rtnetlink.route(to, via=via, index=index, source=source, onlink=onlink, proto=proto)
        what = f"route {to}" + (f" via {via}" if via else "") + (f" dev {dev}" if dev else "")
        self._request(rtnetlink.RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, what)

    def delete_route(self, to: Network, *, via: Address | None = None, dev: str = "") -> None:
        """Missing is fine."""
        body = rtnetlink.route(to, via=via, index=self.index(dev) if dev else 0)
        with _missing_is_fine(errno.ESRCH, errno.ENODEV):
            self._request(rtnetlink.RTM_DELROUTE, 0, body, f"delete route {to}")

    def routes(self, version: int = 4) -> list[Route]:
        """The unicast routes of the main table."""
        names = {index: name for name, index in self.names().items()}
        answers = self._dump(rtnetlink.RTM_GETROUTE, rtnetlink.routes_of(version), "list routes")
        found = (rtnetlink.route_found(body, names) for body in answers)
        return [route for route in found if route is not None]

    def set_neighbour(self, name: str, address: Address, mac: str) -> None:
        """A permanent neighbour entry: `address` is at `mac` behind link `name`, without asking."""
        body = rtnetlink.neighbour(self.index(name), address, mac)
        self._request(rtnetlink.RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, f"neighbour {address} dev {name}")

    # ── the socket ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _find(self, name: str) -> bytes:
        body = rtnetlink.link() + text(rtnetlink.IFLA_IFNAME, name)
        (found,) = self._request(rtnetlink.RTM_GETLINK, 0, body, f"find link {name}")
        return found

    def _add(self, body: bytes, up: bool, what: str) -> None:
        flags = rtnetlink.IFF_UP if up else 0
        self._request(rtnetlink.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, rtnetlink.link(0, flags, flags) + body, what)

    def _change(self, name: str, body: bytes, flags: int, change: int, what: str) -> None:
        request = rtnetlink.link(self.index(name), flags, change) + body
        self._request(rtnetlink.RTM_NEWLINK, 0, request, f"set link {name} {what}")

    def _request(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        with self._lock, _named(what):
            return self._socket.ask(kind, flags, body)

    def _dump(self, kind: int, body: bytes, what: str) -> list[bytes]:
        with self._lock, _named(what):
            return self._socket.dump(kind, body)


@contextmanager
def _named(what: str) -> Iterator[None]:
    """A refusal says what was asked; OSError makes it the subclass of its errno."""
    try:
        yield
    except NetlinkError as error:
        raise OSError(error.errno, f"{what}: {error.strerror}") from error


@contextmanager
def _missing_is_fine(*numbers: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


@contextmanager
def _descriptor(namespace: Namespace | None) -> Iterator[int | None]:
    """An open descriptor of a namespace; one that we had to open is closed afterwards."""
    if namespace is None or isinstance(namespace, int):
        yield namespace
        return
    opened = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)
