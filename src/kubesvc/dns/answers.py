"""The zones as a table, wire question -> wire answer, kept current Service by Service. Pure.

    question ──► table ──────────────► Entry           every record set, and "no such family" of every address
        └──────► aliases ────────────► Entry | Alias   ExternalName: followed inside the zone, handed on outside
        └──────► pods, names ────────► Entry           a-b-c-d.ns.pod; NODATA where a name exists, else NXDOMAIN
        └──────► wildcards ──────────► Entry | Alias   in a public zone alone (RFC 4592)
        └──────► in no zone ─────────► None            somebody else's: forward it

A name exists when it owns records or a name below it does (RFC 8020). Reverse names of cluster IPs and endpoints are
here wherever they are; those in `networks` that nobody has are NXDOMAIN, others forwarded.
A name of a client's search path that doesn't exist may be another name that does: `search` completes it.
Left out: what the server's sockets, EDNS sizes and other flags make of an entry (`entry`, `server`).
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kubesvc.dns import entry, search, wire
from kubesvc.dns.entry import Entry
from kubesvc.dns.records import Record, apex_records, undashed
from kubesvc.dns.zones import Network, Zone, Zones

Owner = tuple[str, str]  # (namespace, name) of a Service; ("", ZONE) owns a zone's apex, (".", NAME) is a public name
ADDRESSES = (wire.A, wire.AAAA)
MAX_CHAIN = 10  # CNAMEs followed inside the zone
PodMode = Literal["disabled", "insecure", "verified"]


@dataclass(frozen=True, slots=True)
class Alias:
    """CNAMEs that lead out of the zone, as (owner, target), and the name to ask an upstream for."""

    chain: tuple[tuple[bytes, bytes], ...]
    target: bytes
    ttl: int


@dataclass(frozen=True, slots=True)
class Guess:
    """A name of a client's search path that the zone doesn't have: these names outside, in the client's order, may be
    the one meant. The first that exists is the answer; without one, the name asked doesn't exist."""

    targets: tuple[bytes, ...]
    ttl: int


Found = Entry | Alias | Guess | None


@dataclass(slots=True)
class _Owned:
    """What one Service put into the tables, to take it out again."""

    questions: list[bytes] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    pointers: list[bytes] = field(default_factory=list)  # reverse names
    alias: bytes | None = None


class Answers:
    """The answers of every zone. Until `synced` is set every name in them is SERVFAIL: better late than wrong.

    `zone` is the cluster's own, `others` have the same names again; `public` maps a zone -> its name servers.
    """

    def __init__(
        self,
        zone: str,
        *,
        ttl: int,
        networks: Iterable[Network] = (),
        serial: int = 1,
        pod_mode: PodMode = "insecure",
        searches: Iterable[str] = (),
        others: Sequence[str] = (),
        public: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        networks = tuple(networks)
        self.zones = Zones((zone, *others), public=public, networks=networks)
        self.zone = self.zones.clusters[0].name
        self.ttl = ttl
        self.pod_mode = pod_mode
        self._searches = tuple(wire.encode_name(domain) for domain in searches)  # clients' domains outside the zone
        self._pods: Counter[tuple[bytes, bytes]] = Counter()  # (namespace, packed address) -> pods that have it
        self.synced = False
        self.table: dict[bytes, Entry] = {}  # lower-case question -> answer
        self._hosts: dict[bytes, Entry] = {}  # question -> answer, for names outside the zone
        self._aliases: dict[bytes, bytes] = {}  # name -> CNAME target
        self._names: Counter[bytes] = Counter()  # name in the zone -> how many owners make it exist
        self._pointers: dict[bytes, list[tuple[Owner, bytes]]] = {}  # reverse name -> who points where
        self._namespaces: set[bytes] = set()
        self._negative: dict[tuple[int, int, bytes], Entry] = {}  # (rcode, length of name, its zone) -> answer
        self._owned: dict[Owner, _Owned] = {}
        self.serials: dict[bytes, int] = {}  # zone -> its SOA's serial
        self._changed = {zone.name for zone in self.zones}  # zones whose records have changed since their serial did
        for one in self.zones:
            self._names[one.name] += 1
            if one.kind == "cluster":
                self._names.update(wire.join([label], one.name) for label in (b"svc", b"pod"))
        self.set_serial(serial)

    @property
    def changed(self) -> bool:
        """Is there a zone whose serial says less than its records?"""
        return bool(self._changed)

    def set_serial(self, serial: int) -> list[Zone]:
        """Give this serial to each zone that has changed since it got its own; those zones."""
        found = [zone for zone in self.zones if zone.name in self._changed]
        for zone in found:
            self.serials[zone.name] = serial
            self.replace(("", zone.text), apex_records(zone, self.ttl, serial))
        for (rcode, size, origin), negative in self._negative.items():
            if origin in self._changed and rcode != wire.SERVFAIL:
                negative.body = self._soa(size, origin)
        self._changed.clear()
        return found

    @property
    def serial(self) -> int:
        """The serial of the cluster's own zone."""
        return self.serials[self.zone]

    def set_namespace(self, namespace: str, *, exists: bool) -> None:
        label = namespace.encode()
        if exists == (label in self._namespaces):
            return
        names = [wire.join([label, parent], zone.name) for zone in self.zones.clusters for parent in (b"svc", b"pod")]
        if exists:
            self._namespaces.add(label)
            self._names.update(names)
        else:
            self._namespaces.discard(label)
            self._forget(names)

    def set_pod(self, namespace: str, packed: bytes, *, exists: bool) -> None:
        """A pod has this address, or has it no longer; asked for in pod mode `verified` alone."""
        self._pods[namespace.encode(), packed] += 1 if exists else -1
        if self._pods[namespace.encode(), packed] <= 0:
            del self._pods[namespace.encode(), packed]

    def set_hosts(self, hosts: Mapping[str, Sequence[str]]) -> None:
        """Answer these names (in no zone) with these addresses, whatever the world says. Raises ValueError."""
        for text, addresses in hosts.items():
            name = wire.encode_name(text)
            if zone := self.zones.of(name):
                raise ValueError(f"host {text!r} is in the zone {zone.text}, which is answered from the cluster")
            for kind, size in ((wire.A, 4), (wire.AAAA, 16)):
                all_packed = [ipaddress.ip_address(address).packed for address in addresses]
                encoded = [wire.record(wire.TO_QUESTION, kind, self.ttl, one) for one in all_packed if len(one) == size]
                step = entry.ADDRESS_SIZE[kind] if encoded else 0
                self._hosts[wire.question(name, kind)] = entry.make(len(name) + 4, encoded, step=step)

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def replace(self, owner: Owner, records: Sequence[Record]) -> None:
        """Let `owner` have exactly these records from now on; none takes it out."""
        before = self._owned.pop(owner, None) or _Owned()
        after = _Owned()
        sets: dict[tuple[bytes, int], list[Record]] = {}
        pointers: dict[bytes, list[bytes]] = {}  # reverse name -> targets
        for record in records:
            if record.type == wire.PTR:
                pointers.setdefault(record.name, []).append(record.data)
            else:
                sets.setdefault((record.name, record.type), []).append(record)
            if record.type == wire.CNAME:
                self._aliases[record.name] = record.data
                after.alias = record.name
        entries = self._entries(sets)
        names = {above for name, _ in sets for above in wire.ancestors(name, self._apex(name))}
        after.questions, after.names, after.pointers = list(entries), list(names), list(pointers)
        if self.synced and owner[0]:  # an apex changes with its serial, not the other way round
            self._note(before.questions, entries)
        self.table.update(entries)
        self._names.update(names)
        self._take_out(before, keep=after, of=owner)
        for name, targets in pointers.items():
            self._pointers.setdefault(name, []).extend((owner, target) for target in targets)
        for name in {*before.pointers, *pointers}:
            self._point(name)
        if records:
            self._owned[owner] = after

    def _apex(self, name: bytes) -> bytes:
        """The zone of a name that is in one."""
        if name.endswith(self.zone):  # nearly all of them
            return self.zone
        zone = self.zones.of(name)
        return zone.name if zone is not None else b"\0"

    def _note(self, before: Iterable[bytes], entries: Mapping[bytes, Entry]) -> None:
        """Remember the zones in which these questions are answered otherwise than before."""
        for question in {*before, *entries}:
            old, new = self.table.get(question), entries.get(question)
            if old is None or new is None or old.body != new.body:
                self._changed.add(self._apex(question[:-4]))

    def _take_out(self, before: _Owned, keep: _Owned, of: Owner) -> None:
        for question in set(before.questions).difference(keep.questions):
            del self.table[question]
        self._forget(before.names)
        if before.alias is not None and before.alias != keep.alias:
            del self._aliases[before.alias]
        for name in before.pointers:
            self._pointers[name] = [one for one in self._pointers[name] if one[0] != of]

    def _forget(self, names: Iterable[bytes]) -> None:
        for name in names:
            self._names[name] -= 1
            if self._names[name] <= 0:
                del self._names[name]

    def _entries(self, sets: dict[tuple[bytes, int], list[Record]]) -> dict[bytes, Entry]:
        """An entry for each record set, and a NODATA one where a name has one family alone."""
        found = {}
        for (name, kind), records in sets.items():
            found[wire.question(name, kind)] = self._entry(name, kind, records, sets)
            other = wire.A + wire.AAAA - kind
            if kind in ADDRESSES and (name, other) not in sets:
                found[wire.question(name, other)] = self._no(wire.NOERROR, name)
        return found

    def _entry(
        self, name: bytes, kind: int, records: Sequence[Record], sets: dict[tuple[bytes, int], list[Record]]
    ) -> Entry:
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
                    for one in sets.get((target, family), ()):
                        additional.append(wire.record(owner, family, one.ttl, one.data))
        return entry.make(size, encoded, additional=additional, step=entry.ADDRESS_SIZE.get(kind, 0))

    def _point(self, name: bytes) -> None:
        """Rebuild the PTR of a reverse name. A cluster IP's (svc.ns.svc) hides endpoints' (host.svc.ns.svc)."""
        ones = self._pointers.get(name)
        asked = wire.question(name, wire.PTR)
        old = self.table.pop(asked, None)
        if ones:
            self.table[asked] = self._pointer(asked, ones)
        else:
            self._pointers.pop(name, None)
        zone = self.zones.of(name)
        if zone is None:
            return
        new = self.table.get(asked)
        if old is None and new is not None:
            self._names.update(wire.ancestors(name, zone.name)[1:])
        elif old is not None and new is None:
            self._forget(wire.ancestors(name, zone.name)[1:])
        if old is None or new is None or old.body != new.body:
            self._changed.add(zone.name)

    def _pointer(self, asked: bytes, ones: Sequence[tuple[Owner, bytes]]) -> Entry:
        depths = [(len(wire.ancestors(target, self.zone)), target) for _, target in ones]
        shallowest = min(depths)[0]
        targets = sorted({target for depth, target in depths if depth == shallowest})
        return entry.make(len(asked), [wire.record(wire.TO_QUESTION, wire.PTR, self.ttl, one) for one in targets])

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, question: bytes, namespace: bytes = b"") -> Found:
        """The answer to a question of class IN, in any case; None when it isn't ours to answer.

        `namespace` is the asker's, where it is known and its search path is to be completed. Bytes that aren't a
        question (a bad label, another class) are None too: `wire.parse` says what is wrong.
        """
        if question[-2:] != b"\0\x01":
            return None
        question = question.lower()
        found = self._find(question)
        if namespace and isinstance(found, Entry) and found.rcode == wire.NXDOMAIN:
            return self._complete(question, namespace) or found
        return found

    def _complete(self, question: bytes, namespace: bytes) -> Found:
        """What a name of the first search domain of `namespace` stands for, when the zone doesn't have it itself.

        Decided by the name, never by the family asked for: A and AAAA can't disagree.
        """
        name, kind = question[:-4], question[-4] << 8 | question[-3]
        inside, outside = search.candidates(name, namespace, self.zone, self._searches)
        if kind not in ADDRESSES or not (inside or outside) or name[1 + name[0] :] in self._names:
            return None  # beside other names below it, such as an endpoint's, its absence means something
        for candidate in (*inside, *outside):
            if candidate in self._aliases:
                return self._follow(name, kind, (name, candidate))
            asked = wire.question(candidate, kind)  # both families are there, or none: NODATA has an entry too
            if asked in self.table or asked in self._hosts:
                return self._chained(name, kind, [(name, candidate)], self._find(asked))
        elsewhere = tuple(candidate for candidate in outside if self.zones.of(candidate) is None)
        return Guess(elsewhere, self.ttl) if elsewhere else None

    def _find(self, question: bytes) -> Found:
        name = question[:-4]
        zone = self.zones.of(name)
        if zone is None:
            return self._hosts.get(question) or self._reverse(question, name)
        if not self.synced:
            return self._no(wire.SERVFAIL, name, zone.name)
        found = self.table.get(question)
        if found is not None:
            return found
        kind = question[-4] << 8 | question[-3]
        if name in self._aliases and (kind in ADDRESSES or zone.kind == "public"):
            return self._follow(name, kind)
        exists = name in self._names or name in self._pointers
        if zone.kind == "cluster":
            labels = wire.labels_over(name, zone.name) or ()
            if len(labels) == 3 and labels[2] == b"pod":
                return self._pod(name, labels, kind)
        elif zone.kind == "public" and not exists:
            return self._wildcard(name, kind, zone)
        return self._no(wire.NOERROR if exists else wire.NXDOMAIN, name, zone.name)

    def _wildcard(self, name: bytes, kind: int, zone: Zone) -> Found:
        """What * under the closest name that exists says of a name that doesn't (RFC 4592)."""
        above = name
        while above not in self._names:
            above = above[1 + above[0] :]
        star = b"\1*" + above
        if star not in self._names:
            return self._no(wire.NXDOMAIN, name, zone.name)
        target = self._aliases.get(star)
        if target is not None:
            if kind == wire.CNAME:
                return entry.make(len(name) + 4, [wire.record(wire.TO_QUESTION, wire.CNAME, self.ttl, target)])
            return self._follow(name, kind, (name, target))
        found = self.table.get(wire.question(star, kind))
        if found is None or not found.step:
            return self._no(wire.NOERROR, name, zone.name)
        encoded = [wire.record(wire.TO_QUESTION, kind, self.ttl, one) for one in entry.addresses(found)]
        return entry.make(len(name) + 4, encoded, step=found.step)

    def _follow(self, name: bytes, kind: int, *before: tuple[bytes, bytes]) -> Found:
        """From alias to alias inside the zone, to addresses or out of it. `before` are links that lead here."""
        chain = list(before)
        at = chain[-1][1] if chain else name
        while target := self._aliases.get(at):
            chain.append((at, target))
            if len(chain) > MAX_CHAIN:
                return self._no(wire.NOERROR, name)
            if self.zones.of(target) is None and wire.question(target, kind) not in self._hosts:
                return Alias(tuple(chain), target, self.ttl)
            at = target
        if self.zones.of(at) is None and wire.question(at, kind) not in self._hosts:
            return Alias(tuple(chain), at, self.ttl)
        found = self._find(wire.question(at, kind))
        if not isinstance(found, Entry) or not found.step:  # unresolved inside the zone: NODATA, as CoreDNS says it
            return self._no(wire.NOERROR, name)
        return self._chained(name, kind, chain, found)

    def _chained(self, name: bytes, kind: int, chain: Sequence[tuple[bytes, bytes]], found: Found) -> Entry:
        """CNAMEs and the addresses at their end; with none of this family there, NODATA."""
        links = [wire.record(owner, wire.CNAME, self.ttl, to) for owner, to in chain]
        links[0] = wire.record(wire.TO_QUESTION, wire.CNAME, self.ttl, chain[0][1])
        if not isinstance(found, Entry) or not found.step:
            return entry.make(len(name) + 4, links, authority=[self._soa(len(name), self._apex(name))])
        finals = [wire.record(chain[-1][1], kind, self.ttl, data) for data in entry.addresses(found)]
        return entry.make(len(name) + 4, [*links, *finals])

    def _pod(self, name: bytes, labels: Sequence[bytes], kind: int) -> Entry:
        """a-b-c-d.ns.pod: the address in the name, if the namespace exists; `verified`: if a pod there has it."""
        packed = undashed(labels[0])
        if packed is None or labels[1] not in self._namespaces or self.pod_mode == "disabled":
            return self._no(wire.NXDOMAIN, name)
        if self.pod_mode == "verified" and (labels[1], packed) not in self._pods:
            return self._no(wire.NXDOMAIN, name)
        if kind != (wire.A if len(packed) == 4 else wire.AAAA):
            return self._no(wire.NOERROR, name)
        encoded = wire.record(wire.TO_QUESTION, kind, self.ttl, packed)
        return entry.make(len(name) + 4, [encoded], step=len(encoded))

    def _reverse(self, question: bytes, name: bytes) -> Entry | None:
        """An address outside the cluster's networks: ours to answer if a Service or an endpoint has it."""
        if name not in self._pointers:
            return None
        suffix = wire.IP6 if name.endswith(wire.IP6) else wire.IN_ADDR
        if not self.synced:
            return self._no(wire.SERVFAIL, name, suffix)
        return self.table.get(question) or self._no(wire.NOERROR, name, suffix)

    def _no(self, rcode: int, name: bytes, origin: bytes = b"") -> Entry:
        """Nothing, and the SOA that says for how long; the same entry for all names of one length in the zone
        `origin` (without one: the name's own)."""
        key = (rcode, len(name), origin or self._apex(name))
        found = self._negative.get(key)
        if found is None:
            authority = [self._soa(*key[1:])] if rcode != wire.SERVFAIL else []
            found = self._negative[key] = entry.make(len(name) + 4, (), rcode=rcode, authority=authority)
        return found

    def _soa(self, size: int, origin: bytes) -> bytes:
        """The SOA of a negative answer to a name of `size` bytes, its owner a pointer into the question."""
        owner = wire.pointer(wire.HEADER + size - len(origin))
        zone = self.zones.at(origin)
        if zone is None or zone.kind == "reverse":
            data = wire.soa(b"\2ns\3dns" + self.zone, b"\x0ahostmaster" + self.zone, self._serial(origin), self.ttl)
        elif zone.kind == "cluster":
            data = wire.soa(b"\2ns\3dns" + owner, b"\x0ahostmaster" + owner, self._serial(origin), self.ttl)
        else:
            data = wire.soa(zone.servers[0], b"\x0ahostmaster" + owner, self._serial(origin), self.ttl)
        return wire.record(owner, wire.SOA, self.ttl, data)

    def _serial(self, origin: bytes) -> int:
        return self.serials.get(origin, self.serial)
