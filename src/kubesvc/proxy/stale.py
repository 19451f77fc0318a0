"""Which tracked UDP flows go where no Service would send them any more. Pure.

    destination is a frontend's      stale unless an endpoint that serves answers it: replaced, or all gone
    destination was a frontend's     stale: the Service, its port or its address went
    in a service CIDR, translated    stale: of a Service that went while nobody looked
    anything else                    not ours

TCP needs none of this: its connections end by themselves. A UDP client goes on sending from one port, so that the
kernel goes on sending it where it once decided to; a flow made before a node port was one is as lost. Serving, not
chosen: an endpoint that terminates keeps its flows, as long-lived connections do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

import msgspec

from kubesvc.proxy.layout import unpack


class Path(NamedTuple):
    """Where flows go: many share one. `key` is packed as a frontend's, `answerer` as an endpoint."""

    key: bytes
    answerer: bytes
    translated: bool


class Knowledge(msgspec.Struct, frozen=True):
    """What is known when deciding. `serving` gives the endpoints of a frontend's key; None where there is none."""

    serving: Callable[[bytes], Collection[bytes] | None]
    removed: Collection[bytes]
    """Frontend keys that went since the flows were last looked at."""
    service_cidrs: tuple[IPv4Network | IPv6Network, ...]
    orphaned_addresses: Collection[bytes] = ()
    """Node-port addresses, at the first look: what went before that is unknown, and flows from them to pods count as
    a Service's. (Another tool's port mapping makes its flow anew.)"""
    pod_cidrs: tuple[IPv4Network | IPv6Network, ...] = ()


def stale(paths: Iterable[Path], known: Knowledge) -> list[Path]:
    """The paths whose flows are to be deleted."""
    return [path for path in paths if _is_stale(path, known)]


def _is_stale(path: Path, known: Knowledge) -> bool:
    serving = known.serving(path.key)
    if serving is not None:
        return path.answerer not in serving
    if path.key in known.removed:
        return True
    if not path.translated:
        return False
    destination = path.key[:-8]
    if _within(destination, known.service_cidrs):
        return True
    return destination in known.orphaned_addresses and _within(path.answerer[:-4], known.pod_cidrs)


def _within(address: bytes, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    found = unpack(address)
    return any(found in network for network in networks if network.version == found.version)
