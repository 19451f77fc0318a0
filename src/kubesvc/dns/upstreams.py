"""Which resolvers this machine uses: reading resolv.conf, and seeing through systemd-resolved's stub.

A stub on loopback (127.0.0.53) is of no use to anyone outside the host's namespace, and asking it from a cluster that
the host itself asks is a loop (kind#1975), so the resolvers behind it are taken where they can be read.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kubesvc.dns import wire

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
BEHIND_RESOLVED = Path("/run/systemd/resolve/resolv.conf")
RESOLVED_STUBS = ("127.0.0.53", "127.0.0.54")


def nameservers(text: str) -> list[str]:
    """The addresses on the nameserver lines of a resolv.conf, each once; lines that hold none are passed over."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) >= 2 and words[0] == "nameserver" and _is_address(words[1]):
            found[words[1]] = None
    return list(found)


def searches(text: str) -> list[str]:
    """The search domains of a resolv.conf: the last `search` or `domain` line counts."""
    found: list[str] = []
    for line in text.splitlines():
        match line.split("#")[0].split(";")[0].split():
            case ["search" | "domain", *names]:
                found = [name for name in names if _is_name(name)]
    return found


def _is_name(text: str) -> bool:
    try:
        return len(wire.encode_name(text)) > 1
    except wire.BadName:
        return False


def find_searches(resolv_conf: Path = RESOLV_CONF) -> tuple[str, ...]:
    """The machine's search domains, which its pods' search paths end with."""
    try:
        return tuple(searches(resolv_conf.read_text()))
    except OSError:  # `find` logs it
        return ()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def find(
    resolv_conf: Path = RESOLV_CONF, behind_resolved: Path = BEHIND_RESOLVED, *, own: Iterable[str] = ()
) -> tuple[str, ...]:
    """The machine's resolvers, without the addresses in `own` (a cluster's DNS: forwarding there is a loop).

    A file that can't be read counts as empty, with a log line.
    """
    found = _read(resolv_conf)
    if any(address in RESOLVED_STUBS for address in found):
        found = _read(behind_resolved) or found
    excluded = set(own)
    for address in found:
        if address in excluded:
            log.warning("%s: nameserver %s is this cluster's own DNS; it is not forwarded to", resolv_conf, address)
    return tuple(address for address in found if address not in excluded)


def _read(path: Path) -> list[str]:
    try:
        return nameservers(path.read_text())
    except OSError as error:
        log.warning("%s: %s; no resolvers are taken from it", path, error.strerror)
        return []


class Endpoint(NamedTuple):
    """Where an upstream is. `tls_name`: it is asked over TLS, and its certificate must have this name ("": address)."""

    address: str
    port: int
    tls_name: str | None = None


def parse(upstream: str) -> Endpoint:
    """What `endpoint` reads, or tls://ADDRESS[:PORT][#NAME], whose port is 853 unless given. Raises ValueError."""
    if not upstream.startswith("tls://"):
        return Endpoint(*endpoint(upstream))
    where, _, name = upstream.removeprefix("tls://").partition("#")
    return Endpoint(*endpoint(where, "853"), name)


def endpoint(upstream: str, default: str = "53") -> tuple[str, int]:
    """(address, port) of ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT. Raises ValueError."""
    address, port = upstream, default
    if upstream.startswith("["):
        address, bracket, rest = upstream[1:].partition("]")
        if not bracket:
            raise ValueError(f"{upstream!r}: expected [ADDRESS] or [ADDRESS]:PORT")
        port = rest.removeprefix(":") or default
    elif upstream.count(":") == 1:
        address, _, port = upstream.partition(":")
    ipaddress.ip_address(address)
    if not 0 < int(port) < 65536:
        raise ValueError(f"{upstream!r}: expected a port of 1 to 65535")
    return address, int(port)
