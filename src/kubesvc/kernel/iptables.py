"""The filters of `iptables-legacy` in one network namespace, read: base chains and rules, as `nft.foreign` tells those
of nftables. Only the table `filter`, and only where it is there: asking for a table that nobody made would make it.

    struct ipt_getinfo, ipt_get_entries        linux/netfilter_ipv4/ip_tables.h, and the same for IPv6
    entry ─► match … match ─► target           linux/netfilter/x_tables.h
             an entry whose target is ERROR begins a chain and names it; a base chain ends with its policy
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from kubesvc.kernel.nft.foreign import BaseChain, Rule, match_ports

_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES; IPv6's are the same
_INFO = struct.Struct("=32sI5I5III")  # name, valid_hooks, hook_entry, underflow, num_entries, size
_ENTRIES = struct.Struct("=32sI4x")  # name, size; aligned as the entries behind it
_PART = struct.Struct("=H29sB")  # size, name, revision: of a match, of a target
_HOOKS = {1: "input", 2: "forward", 3: "output"}  # enum nf_inet_hooks
_DROP, _ACCEPT = -1, -2  # -NF_DROP - 1, -NF_ACCEPT - 1
_QUIET = ("comment", "limit")


class _Family(msgspec.Struct, frozen=True):
    """`head`: the address part of an entry; what follows it is alike."""

    name: str
    domain: int
    level: int
    names: str
    address: int  # bytes
    protocol: int  # offset
    inverted: int  # offset
    sizes: int  # offset of target_offset and next_offset
    head: int  # bytes until the first match


_V4 = _Family("ip", socket.AF_INET, socket.IPPROTO_IP, "ip_tables_names", 4, 80, 83, 88, 112)
_V6 = _Family("ip6", socket.AF_INET6, socket.IPPROTO_IPV6, "ip6_tables_names", 16, 128, 132, 140, 168)


class LegacyFilters:
    """A reader of the namespace that the calling thread was in when it was made."""

    def __init__(self) -> None:
        self._sources: list[tuple[_Family, socket.socket, BinaryIO]] = []
        self._libc = ctypes.CDLL(None, use_errno=True)
        for family in (_V4, _V6):
            try:
                names = (Path("/proc/thread-self/net") / family.names).open("rb", buffering=0)
            except OSError:
                continue  # a kernel without it
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
            self._sources.append((family, socket.socket(family.domain, kind, socket.IPPROTO_RAW), names))

    def close(self) -> None:
        for _, asking, names in self._sources:
            asking.close()
            names.close()

    def read(self) -> list[BaseChain]:
        """Every base chain of the table filter, for both families. Raises OSError."""
        found: list[BaseChain] = []
        for family, asking, names in self._sources:
            names.seek(0)
            if b"filter" in names.read().split():
                found += self._read(family, asking)
        return found

    def _read(self, family: _Family, asking: socket.socket) -> Iterator[BaseChain]:
        info = self._ask(asking, family.level, _GET_INFO, _INFO.pack(b"filter", *[0] * 13))
        _, _, *numbers = _INFO.unpack(info)
        starts, ends, size = numbers[:5], numbers[5:10], numbers[11]
        table = self._ask(asking, family.level, _GET_ENTRIES, _ENTRIES.pack(b"filter", size) + bytes(size))
        entries = table[_ENTRIES.size :]
        bases = {starts[number]: hook.upper() for number, hook in _HOOKS.items()}
        rules = tuple(_rules(family, entries, bases))
        for number, hook in _HOOKS.items():
            policy = _verdict(*_target(family, entries, ends[number])) == "drop"
            yield BaseChain(family.name, "filter", hook.upper(), hook, policy, _without_policies(rules), legacy=True)

    def _ask(self, asking: socket.socket, level: int, option: int, given: bytes) -> bytes:
        """getsockopt() that also says something, which Python's doesn't."""
        held = ctypes.create_string_buffer(given, len(given))
        length = ctypes.c_uint(len(given))
        if self._libc.getsockopt(asking.fileno(), level, option, held, ctypes.byref(length)):
            number = ctypes.get_errno()
            raise OSError(number, f"iptables' table filter can't be read: {os.strerror(number)}")
        return held.raw[: length.value]


def _without_policies(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(rule for rule in rules if rule.chain)


def _rules(family: _Family, entries: bytes, bases: dict[int, str]) -> Iterator[Rule]:
    """The rules of all chains; the policy that ends a base chain has no chain's name."""
    chain, at = "", 0
    while at < len(entries):
        chain = bases.get(at, chain)
        (following,) = struct.unpack_from("=H", entries, at + family.sizes + 2)
        name, data = _target(family, entries, at)
        begins = at + following
        if name == "ERROR":
            chain = data[:30].rstrip(b"\0").decode(errors="replace")
        else:
            last = begins in bases or begins >= len(entries) or _target(family, entries, begins)[0] == "ERROR"
            yield _rule(family, entries[at:begins], "" if last else chain)
        at = begins


def _target(family: _Family, entries: bytes, at: int) -> tuple[str, bytes]:
    """Name and data of the target of the entry at `at`."""
    (offset,) = struct.unpack_from("=H", entries, at + family.sizes)
    size, name, _ = _PART.unpack_from(entries, at + offset)
    return _text(name), entries[at + offset + _PART.size : at + offset + size]


def _verdict(name: str, data: bytes) -> str:
    if name == "REJECT":
        return "drop"
    if name:
        return ""
    return {_DROP: "drop", _ACCEPT: "accept"}.get(struct.unpack_from("=i", data)[0], "")


def _rule(family: _Family, entry: bytes, chain: str) -> Rule:
    size = family.address
    compared: set[bytes] = set()
    sides: set[str] = set()
    for side, at in (("saddr", 0), ("daddr", size)):
        if any(entry[at + 2 * size : at + 3 * size]):  # its mask
            compared.add(entry[at : at + size])
            sides.add(side)
    (protocol,) = struct.unpack_from("=H", entry, family.protocol)
    if protocol:
        compared.add(bytes((protocol & 0xFF,)))
    interfaces = any(entry[4 * size : 4 * size + 32])
    ports: tuple[tuple[int, int], ...] | None = None
    matched = False
    (target,) = struct.unpack_from("=H", entry, family.sizes)
    at = family.head
    while at < target:
        length, name, _ = _PART.unpack_from(entry, at)
        found = match_ports(_text(name), entry[at + _PART.size : at + length])
        ports = found if found is not None else ports
        matched = matched or _text(name) not in _QUIET
        at += length
    name, data = _target(family, entry, 0)
    conditional = bool(compared or interfaces or matched or entry[family.inverted])
    return Rule(chain, _verdict(name, data), conditional, frozenset(compared), frozenset(sides), ports)


def _text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode(errors="replace")
