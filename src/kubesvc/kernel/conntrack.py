"""The kernel's connection tracking in one network namespace: flows listed, flows deleted. linux/nfnetlink_conntrack.h.

    flow = original (source → destination as the client sent it)  +  reply (source = who answers, after dnat)

The kernel picks the flows of one protocol itself where it can (Linux 5.8); an older one gives all, and they are picked
here. Only zone 0 counts: other zones belong to whoever made them.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from typing import NamedTuple

from kubesvc.kernel.netlink import NLM_F_REQUEST, NetlinkSocket, attribute, attributes, message, nested

_NETLINK_NETFILTER = 12
_CTNETLINK = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = _CTNETLINK | 1, _CTNETLINK | 2
_AF_INET, _AF_INET6 = 2, 10
# enum ctattr_type, ctattr_tuple, ctattr_ip, ctattr_l4proto, ctattr_filter
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _ID, _ZONE, _FILTER = 1, 2, 3, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_FILTER_PROTO_NUM = 1 << 3
_DST_NAT = 1 << 5  # IPS_DST_NAT
_BATCH = 512  # deletions in one datagram


class Flow(NamedTuple):
    """A tracked flow. Addresses are packed; `handle` is what `delete` needs to name it."""

    destination: bytes
    port: int
    answerer: bytes
    """The source of replies: where the flow really goes."""
    answerer_port: int
    translated: bool
    """Whether the destination was rewritten."""
    handle: bytes


class Conntrack:
    """A connection to the tracking of the namespace it was made in. Not to be shared between threads at one time."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(_NETLINK_NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def flows(self, protocol: int) -> list[Flow]:
        """Every flow of a protocol with ports, both families, in one dump each. Raises OSError."""
        found: list[Flow] = []
        for family in (_AF_INET, _AF_INET6):
            wanted = nested(_TUPLE_ORIG, nested(_TUPLE_PROTO, attribute(_PROTO_NUM, bytes((protocol,)))))
            flags = struct.pack("=I", _FILTER_PROTO_NUM)
            picked = nested(
                _FILTER, attribute(_FILTER_ORIG_FLAGS, flags), attribute(_FILTER_REPLY_FLAGS, struct.pack("=I", 0))
            )
            bodies = self._netlink.dump(_GET, struct.pack("=BBH", family, 0, 0) + wanted + picked)
            found += [flow for body in bodies if (flow := _decode(body, protocol)) is not None]
        return found

    def delete(self, flows: Iterable[Flow]) -> int:
        """Delete the flows; returns how many went. One that is gone already is fine. Raises OSError."""
        handles = [flow.handle for flow in flows]
        deleted = len(handles)
        for start in range(0, len(handles), _BATCH):
            parts = [
                message(_DELETE, NLM_F_REQUEST, number, handle)
                for number, handle in enumerate(handles[start : start + _BATCH], 1)
            ]
            for refused in self._netlink.request(b"".join(parts)):
                if refused.errno != errno.ENOENT:
                    raise refused
                deleted -= 1
        return deleted


def _decode(body: bytes, protocol: int) -> Flow | None:
    family = body[0]
    found = attributes(body, 4)
    if found.get(_ZONE, b"\0\0") != b"\0\0":
        return None
    original, reply = attributes(found[_TUPLE_ORIG]), attributes(found[_TUPLE_REPLY])
    ports = attributes(original[_TUPLE_PROTO])
    if ports[_PROTO_NUM][0] != protocol:
        return None
    sources, destinations = (_V4_SRC, _V4_DST) if family == _AF_INET else (_V6_SRC, _V6_DST)
    (status,) = struct.unpack(">I", found.get(_STATUS, bytes(4)))
    handle = struct.pack("=BBH", family, 0, 0) + attribute(_TUPLE_ORIG | 0x8000, found[_TUPLE_ORIG])
    if _ID in found:  # a flow that was made anew meanwhile is another one
        handle += attribute(_ID, found[_ID])
    return Flow(
        attributes(original[_TUPLE_IP])[destinations],
        int.from_bytes(ports[_PROTO_DST_PORT], "big"),
        attributes(reply[_TUPLE_IP])[sources],
        int.from_bytes(attributes(reply[_TUPLE_PROTO])[_PROTO_SRC_PORT], "big"),
        bool(status & _DST_NAT),
        handle,
    )
