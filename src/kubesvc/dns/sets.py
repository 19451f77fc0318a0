"""The record sets of one Service at hand, and the few Services kept that way. Pure.

Records are made when somebody asks (`answers`), all of one Service at once: a Service that is asked for is asked for
again. What was made is forgotten when the Service changes, or when others were asked for since: making it anew costs
less than keeping everybody's.
"""

from __future__ import annotations

from collections.abc import Iterable

from kubesvc.dns import entry, wire
from kubesvc.dns.entry import Entry
from kubesvc.dns.records import Record
from kubesvc.dns.zones import Zones

Owner = tuple[str, str]  # (namespace, name) of a Service; ("", ZONE) owns a zone's apex, (".", NAME) is a public name
ADDRESSES = (wire.A, wire.AAAA)


class RecordSets:
    """Records of one owner by name and type; `names` exist because of them, `aliases` are CNAMEs'."""

    __slots__ = ("aliases", "names", "sets")

    def __init__(self, records: Iterable[Record], zones: Zones) -> None:
        self.sets: dict[tuple[bytes, int], list[Record]] = {}
        self.names: set[bytes] = set()
        self.aliases: dict[bytes, bytes] = {}  # name -> target
        for record in records:
            self.sets.setdefault((record.name, record.type), []).append(record)
            if record.type == wire.CNAME:
                self.aliases[record.name] = record.data
        for name, kind in self.sets:
            if kind == wire.PTR:
                continue
            apex = len(zones.apex(name))
            while len(name) > apex and name not in self.names:
                self.names.add(name)
                name = name[1 + name[0] :]

    def entry(self, name: bytes, kind: int) -> Entry | None:
        """The answer with the records of `kind`, SRV with their targets' addresses; None without any."""
        records = self.sets.get((name, kind))
        if not records:
            return None
        size = len(name) + 4
        encoded = [wire.record(wire.TO_QUESTION, kind, r.ttl, r.data) for r in records]
        additional: list[bytes] = []
        if kind == wire.SRV:
            at = wire.HEADER + size
            targets: dict[bytes, bytes] = {}  # target -> how to write it: a pointer to its first appearance
            for record, whole in zip(records, encoded, strict=True):
                target, offset = wire.srv_target(record.data), at + 2 + 10 + 6
                targets.setdefault(target, wire.pointer(offset) if offset <= wire.FARTHEST else target)
                at += len(whole)
            for target, owner in targets.items():
                for family in ADDRESSES:
                    for one in self.sets.get((target, family), ()):
                        additional.append(wire.record(owner, family, one.ttl, one.data))
        return entry.make(size, encoded, additional=additional, step=entry.ADDRESS_SIZE.get(kind, 0))

    def has_other_family(self, name: bytes, kind: int) -> bool:
        """Of a question for addresses: does the name have some of the other family?"""
        return kind in ADDRESSES and (name, wire.A + wire.AAAA - kind) in self.sets


class Recent:
    """The owners asked for last, at most `most` record sets altogether (one owner may have more)."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._kept: dict[Owner, RecordSets] = {}  # the one asked for last is the last

    def __len__(self) -> int:
        return self._size

    def get(self, owner: Owner) -> RecordSets | None:
        found = self._kept.pop(owner, None)
        if found is not None:
            self._kept[owner] = found
        return found

    def add(self, owner: Owner, made: RecordSets) -> None:
        self._kept[owner] = made
        self._size += len(made.sets)
        while self._size > self._most and len(self._kept) > 1:
            self.forget(next(iter(self._kept)))

    def forget(self, owner: Owner) -> None:
        found = self._kept.pop(owner, None)
        if found is not None:
            self._size -= len(found.sets)
