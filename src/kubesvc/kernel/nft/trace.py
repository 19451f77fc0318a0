"""A packet's way through the chains of one table in memory.

It interprets the very expressions the kernel is sent, so a packet-flow table tests the rules themselves. Left out:
reply packets, and everything our rules don't use. The rules that matched are kept in order, as nft prints them: a
failing test lists them.
"""

from __future__ import annotations

import sys

import msgspec

from kubesvc.kernel.nft import expressions as nft
from kubesvc.kernel.nft.jenkins import jhash, scale
from kubesvc.kernel.nft.objects import Chain, Map


class Packet(msgspec.Struct):
    """The first packet of a connection, as it is now. Addresses packed, ports numbers, `mark` and `priority` the
    kernel's own notes on it, `connection_mark` that on its connection."""

    source: bytes
    destination: bytes
    protocol: int
    port: int
    mark: int = 0
    priority: int = 0
    source_port: int = 0
    connection_mark: int = 0
    incoming: str = ""  # the link it came by
    outgoing: str = ""  # the link it leaves by
    translated: bool = False
    verdict: str = ""  # drop, reject, dnat, masquerade: how the last chain ended
    matched: list[str] = []


class State(msgspec.Struct):
    """All of one table: its maps, chains and elements."""

    comment: str
    maps: dict[str, Map] = {}
    chains: dict[str, Chain] = {}
    elements: dict[str, dict[bytes, bytes]] = {}  # map -> key -> data
    expiry: dict[str, dict[bytes, float]] = {}  # dynamic map -> key -> when it ends

    def expressions(self) -> list[nft.Expression]:
        return [e for chain in self.chains.values() for rule in chain.rules for e in rule.expressions]

    def targets(self) -> set[str]:
        """The chains that rules and verdict maps name."""
        found = {e.chain for e in self.expressions() if isinstance(e, nft.Verdict) and e.chain}
        for name in (m.name for m in self.maps.values() if m.verdicts):
            found |= {chain.decode() for chain in self.elements[name].values()}
        return found

    def find(self, name: str, key: bytes, now: float) -> bytes | None:
        """What an element maps to, b"" in a set; None where there is none (any more)."""
        held, map_ = self.elements[name], self.maps[name]
        if map_.interval:
            return next((data for between, data in held.items() if _within(map_, key, between)), None)
        if map_.dynamic and self.expiry[name].get(key, now + 1) <= now:
            del held[key], self.expiry[name][key]
        return held.get(key)

    def change(self, operation: nft.DynamicSet, key: bytes, data: bytes, now: float) -> bool:
        """Do what a rule says to an element; False where there was no room."""
        held, expiry = self.elements[operation.set], self.expiry[operation.set]
        there = self.find(operation.set, key, now) is not None
        if operation.operation == nft.DELETE:
            held.pop(key, None)
            expiry.pop(key, None)
            return True
        if not there and len(held) >= self.maps[operation.set].dynamic:
            return False
        held.setdefault(key, data)
        expiry[key] = now + operation.timeout
        return True


def _within(map_: Map, key: bytes, between: bytes) -> bool:
    """Whether each field lies in its range."""
    start, last = 0, map_.key_length
    for part in map_.key:
        end = start + part.padded
        if not between[start:end] <= key[start:end] <= between[last + start : last + end]:
            return False
        start = end
    return True


class Run:
    """One packet in one base chain. A chain's result is True when the packet's way through the hook has ended."""

    def __init__(self, table: State, packet: Packet, draw: int, now: float) -> None:
        self._table, self._packet, self._draw, self._now = table, packet, draw, now
        self._registers = bytearray(64)

    def chain(self, chain: Chain) -> bool:
        for rule in chain.rules:
            ended = self._rule(rule.expressions, f"{chain.name}: {rule.text}")
            if ended is not None:
                return ended
        return False

    def _rule(self, expressions: tuple[nft.Expression, ...], text: str) -> bool | None:
        """None: go on with the next rule. False: leave this chain. True: the hook has ended."""
        for expression in expressions:
            match expression:
                case nft.Verdict(code, name):
                    self._packet.matched.append(text)
                    return self._obey(code, name)
                case nft.Lookup(name, source, _, verdicts=True):
                    key = self._load(source, self._table.maps[name].key_length)
                    target = self._table.elements[name].get(key)
                    if target is None:
                        return None
                    self._packet.matched.append(f"{text} ({target.decode()})")
                    return self._obey(nft.GOTO, target.decode())
                case nft.Dnat() | nft.Masquerade() | nft.Reject():
                    self._packet.matched.append(text)
                    self._end(expression)
                    return True
                case _ if not self._step(expression):
                    return None
        self._packet.matched.append(text)
        return None

    def _obey(self, code: int, name: str) -> bool | None:
        if code == nft.DROP:
            self._packet.verdict = "drop"
            return True
        if code == nft.RETURN:
            return False
        ended = self.chain(self._table.chains[name])
        return ended if code == nft.GOTO else (True if ended else None)

    def _end(self, expression: nft.Expression) -> None:
        packet = self._packet
        match expression:
            case nft.Dnat(_, address, port):
                packet.destination = self._load(address, len(packet.destination))
                packet.port = int.from_bytes(self._load(port, 2), "big")
                packet.translated, packet.verdict = True, "dnat"
            case nft.Masquerade():
                packet.verdict = "masquerade"
            case _:
                packet.verdict = "reject"

    def _step(self, expression: nft.Expression) -> bool:
        """Run one expression; False where the packet doesn't match."""
        match expression:
            case nft.Payload(base, offset, length, into):
                self._store(into, self._header(base)[offset : offset + length])
            case nft.Meta(key, into):
                self._store(into, self._meta(key))
            case nft.SetMeta(key, source):
                value = int.from_bytes(self._load(source, 4), sys.byteorder)
                if key == nft.META_MARK:
                    self._packet.mark = value
                else:
                    self._packet.priority = value
            case nft.Conntrack(key, into):
                self._store(into, self._connection(key).to_bytes(4, sys.byteorder))
            case nft.SetConntrack(_, source):
                self._packet.connection_mark = int.from_bytes(self._load(source, 4), sys.byteorder)
            case nft.Compare(value, source, negated):
                return (self._load(source, len(value)) == value) is not negated
            case nft.Bitwise(mask, xor, word):
                value = int.from_bytes(self._load(word, 4), sys.byteorder)
                self._store(word, ((value & mask) ^ xor).to_bytes(4, sys.byteorder))
            case nft.Mask(prefix):
                self._store(0, bytes(a & b for a, b in zip(self._load(0, len(prefix)), prefix, strict=True)))
            case nft.Immediate(value, into):
                self._store(into, value)
            case nft.RandomNumber(modulus, offset, into):
                self._store(into, (offset + self._draw % modulus).to_bytes(4, sys.byteorder))
            case nft.JenkinsHash(source, length, modulus, seed, offset, into):
                slot = scale(jhash(self._load(source, length), seed), modulus)
                self._store(into, (offset + slot).to_bytes(4, sys.byteorder))
            case nft.Lookup(name, source, into, negated=negated):
                found = self._table.find(name, self._load(source, self._table.maps[name].key_length), self._now)
                if into is not None and found is not None:
                    self._store(into, found)
                return (found is not None) is not negated
            case nft.DynamicSet(name, _, key_word, data_word):
                map_ = self._table.maps[name]
                key_, data = self._load(key_word, map_.key_length), self._load(data_word, map_.data_length)
                return self._table.change(expression, key_, data, self._now)
            case _:
                raise NotImplementedError(expression.name)
        return True

    def _load(self, word: int, length: int) -> bytes:
        return bytes(self._registers[4 * word : 4 * word + length])

    def _store(self, word: int, value: bytes) -> None:
        """A load fills whole words: the kernel zeroes what it pads."""
        padded = value + bytes(-len(value) % 4)
        self._registers[4 * word : 4 * word + len(padded)] = padded

    def _meta(self, key: int) -> bytes:
        packet = self._packet
        match key:
            case nft.META_PRIORITY:
                return packet.priority.to_bytes(4, sys.byteorder)
            case nft.META_MARK:
                return packet.mark.to_bytes(4, sys.byteorder)
            case nft.META_L4PROTO:
                return bytes((packet.protocol,))
            case nft.META_IIFNAME:
                return packet.incoming.encode().ljust(16, b"\0")
            case nft.META_OIFNAME:
                return packet.outgoing.encode().ljust(16, b"\0")
            case nft.META_NFPROTO:
                return bytes((nft.NFPROTO_IPV4 if len(packet.destination) == 4 else nft.NFPROTO_IPV6,))
        raise NotImplementedError(key)

    def _connection(self, key: int) -> int:
        match key:
            case nft.CT_STATE:
                return nft.CT_STATE_NEW
            case nft.CT_MARK:
                return self._packet.connection_mark
        return nft.CT_STATUS_DNAT if self._packet.translated else 0

    def _header(self, base: int) -> bytes:
        packet = self._packet
        if base == nft.TRANSPORT:
            return packet.source_port.to_bytes(2, "big") + packet.port.to_bytes(2, "big")
        before = 12 if len(packet.destination) == 4 else 8
        return bytes(before) + packet.source + packet.destination
