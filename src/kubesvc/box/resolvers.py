"""The machine's own resolvers, for names outside the cluster.

A resolver on loopback, such as systemd-resolved's 127.0.0.53, is a stub; the servers behind it are read from where
systemd-resolved writes them, so that questions don't go in circles.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
BEHIND_THE_STUB = Path("/run/systemd/resolve/resolv.conf")


def nameservers(text: str) -> list[str]:
    """The addresses of the `nameserver` lines of a resolv.conf, those that are addresses."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                ip_address(words[1].partition("%")[0])
            except ValueError:
                continue
            found.append(words[1])
    return found


def host_resolvers() -> tuple[str, ...]:
    """The machine's resolvers, loopback ones replaced by those behind them; empty when it has none."""
    found = _read(RESOLV_CONF)
    if any(ip_address(server.partition("%")[0]).is_loopback for server in found):
        behind = [server for server in _read(BEHIND_THE_STUB) if not ip_address(server.partition("%")[0]).is_loopback]
        return tuple(behind or found)
    return tuple(found)


def _read(path: Path) -> list[str]:
    try:
        return nameservers(path.read_text())
    except OSError:
        return []
