"""The header of the PROXY protocol, version 2, in front of a TCP connection over IPv4. Pure. Follows HAProxy's
proxy-protocol.txt, 2.2."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_VERSION_2_PROXY, _TCP_OVER_IPV4 = 0x21, 0x11


def header(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """Addresses with ports, as the client sees them."""
    addresses = IPv4Address(source[0]).packed + IPv4Address(destination[0]).packed
    body = addresses + struct.pack(">HH", source[1], destination[1])
    return _SIGNATURE + struct.pack(">BBH", _VERSION_2_PROXY, _TCP_OVER_IPV4, len(body)) + body
