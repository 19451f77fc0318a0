"""The zones as a table, wire question -> wire answer, made when first asked for. Pure.

    question ──► table ──────────────► Entry           what was asked before, and hasn't changed since
        └──────► a Service's records ► Entry | Alias   made now, and kept; ExternalName: followed, or handed on outside
        └──────► pods, names ────────► Entry           a-b-c-d.ns.pod; NODATA where a name exists, else NXDOMAIN
        └──────► wildcards ──────────► Entry | Alias   in a public zone alone (RFC 4592)
        └──────► in no zone ─────────► None            somebody else's: forward it

A change costs next to nothing, however large the Service: what was made of it is forgotten. So the table holds no more
than the zone's own record sets, and of these only what somebody asks for.

A name exists when it owns records or a name below it does (RFC 8020). Reverse names of cluster IPs and endpoints are
here wherever they are; those in `networks` that nobody has are NXDOMAIN, others forwarded.
A name of a client's search path that doesn't exist may be another name that does: `search` completes it.
Left out: what the server's sockets, EDNS sizes and other flags make of an entry (`entry`, `server`).
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from kubesvc.dns import entry, search, wire
from kubesvc.dns.entry import Entry
from kubesvc.dns.records import KUBE_DNS, Record, apex_records, undashed
from kubesvc.dns.reverse import Pointers, canonical
from kubesvc.dns.sets import ADDRESSES, Owner, Recent, RecordSets
from kubesvc.dns.zones import Network, Zone, Zones

Maker = Callable[[Owner], Iterable[Record]]
"""Makes every record of a Service, from the objects as they are now."""
MAX_CHAIN = 10  # CNAMEs followed inside the zone
WHOLE_ZONES = (b"\0\xfb", b"\0\xfc")  # IXFR and AXFR: `transfer` answers them
MOST_DERIVED = 10_000  # answers kept until something changes
MOST_SETS = 20_000  # record sets kept besides the table: about 8 MB
PodMode = Literal["disabled", "insecure", "verified"]


class Alias(msgspec.Struct, frozen=True):
    """CNAMEs that lead out of the zone, as (owner, target), and the name to ask an upstream for.

    `nothing` is the answer instead of them where they complete a search path and lead to no address of the family.
    """

    chain: tuple[tuple[bytes, bytes], ...]
    target: bytes
    ttl: int
    nothing: Entry | None = None


class Guess(msgspec.Struct, frozen=True):
    """A name of a client's search path that the zone doesn't have: these names outside, in the client's order, may be
    the one meant. The first that exists is the answer, or `nothing` if it has no address of the family; without one,
    the name asked doesn't exist."""

    targets: tuple[bytes, ...]
    ttl: int
    nothing: Entry


Found = Entry | Alias | Guess | None


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
        self.zones = Zones((zone, *others), public=public, networks=networks)
        self.zone = self.zones.clusters[0].name
        self.ttl = ttl
        self.pod_mode = pod_mode
        self._searches = tuple(wire.encode_name(domain) for domain in searches)  # clients' domains outside the zone
        self._pods: Counter[tuple[bytes, bytes]] = Counter()  # (namespace, packed address) -> pods that have it
        self.synced = False
        self.table: dict[bytes, Entry] = {}  # lower-case question -> answer, of what has been asked
        self._hosts: dict[bytes, Entry] = {}  # question -> answer, for names outside the zone
        self._names: Counter[bytes] = Counter()  # name in the zone -> how many make it exist, Services aside
        self._namespaces: set[bytes] = set()
        self._negative: dict[tuple[int, int, bytes], Entry] = {}  # (rcode, length of name, its zone) -> answer
        self._makers: dict[Owner, Maker] = {}
        self._recent = Recent(MOST_SETS)
        # owner -> questions in the table that its records answer: those for endpoints, and the others
        self._asked: tuple[dict[Owner, list[bytes]], ...] = ({}, {})
        self._derived: dict[bytes, Entry | Alias | Guess] = {}  # question + asker's namespace -> answer
        self._given: dict[Owner, RecordSets] = {}  # records that didn't come by a maker
        self._givers: dict[bytes, Owner] = {}  # name with such records -> whose
        self._pointers = Pointers()
        self._pointing: dict[str, bytes] = {}  # address -> its PTR question in the table
        self._at_apex: dict[bytes, Sequence[Record]] = {}  # public zone -> a Service's records of that very name
        self.serials: dict[bytes, int] = {}  # zone -> its SOA's serial
        self.changes = 0  # so far
        self._stale = set(self.zones)  # zones whose serial is older than their records
        for one in self.zones:
            self._names[one.name] += 1
            if one.kind == "cluster":
                self._names.update(wire.join([label], one.name) for label in (b"svc", b"pod"))
        self.set_serial(serial)

    @property
    def serial_due(self) -> bool:
        """Has a zone changed since it got its serial?"""
        return bool(self._stale)

    def set_serial(self, serial: int) -> list[Zone]:
        """Give the zones that have changed this serial; those zones. To be called some times a second at most."""
        self._derived.clear()
        found = [zone for zone in self.zones if zone in self._stale]
        for zone in found:
            self.serials[zone.name] = serial
            self._set_apex(zone)
        for (rcode, size, origin), negative in self._negative.items():
            if rcode != wire.SERVFAIL:
                negative.body = self._soa(size, origin)
        self._stale.clear()
        return found

    def _set_apex(self, zone: Zone) -> None:
        records = apex_records(zone, self.ttl, self.serials[zone.name])
        self.replace(("", zone.text), [*records, *self._at_apex.get(zone.name, ())])

    @property
    def serial(self) -> int:
        """The serial of the cluster's own zone."""
        return self.serials[self.zone]

    def set_namespace(self, namespace: str, *, exists: bool) -> None:
        self._derived.clear()
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
        self._derived.clear()
        self._pods[namespace.encode(), packed] += 1 if exists else -1
        if self._pods[namespace.encode(), packed] <= 0:
            del self._pods[namespace.encode(), packed]

    def set_hosts(self, hosts: Mapping[str, Sequence[str]]) -> None:
        """Answer these names (in no zone) with these addresses, whatever the world says. Raises ValueError."""
        self._derived.clear()
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

    def promise(self, owner: Owner, make: Maker | None) -> None:
        """The Service `owner` is there, or with None isn't any more; `make` is called when its names are asked for.

        What `make` gives is in the cluster's zones and the reverse ones.
        """
        if make is None:
            self._makers.pop(owner, None)
        else:
            self._makers[owner] = make
        self.changed(owner)

    def changed(
        self, owner: Owner, gone: Iterable[str] = (), come: Iterable[str] = (), *, endpoints_alone: bool = False
    ) -> None:
        """Forget what was made of `owner`; addresses (as text) that no longer lead back to it, and that now do.

        `endpoints_alone`: its own name and ports are as before, as a cluster IP's are whoever is behind it.
        """
        self.changes += 1
        self._derived.clear()
        if owner[0] not in ("", "."):
            self._stale.update(self.zones.clusters)
            self._stale.update(self.zones.reverses)
        self._recent.forget(owner)
        for asked in self._asked[: 1 if endpoints_alone else 2]:
            for question in asked.pop(owner, ()):
                self.table.pop(question, None)
        for address in canonical(come):
            self._pointers.add(address, owner)
            self._unpoint(address)
        for address in canonical(gone):
            self._pointers.discard(address, owner)
            self._unpoint(address)

    def publish(self, name: bytes, records: Sequence[Record]) -> None:
        """Let `name`, in a public zone, have exactly these records from now on."""
        zone = self.zones.of(name)
        if zone is None:
            return
        if name == zone.name:  # beside SOA and NS
            self._at_apex[name] = records
            self._set_apex(zone)
        else:
            self.replace((".", wire.to_text(name)), records)
        self._stale.add(zone)

    def all_records(self) -> Iterable[Iterable[Record]]:
        """Every record of every zone, owner by owner, each as it is when it is reached."""
        for given in list(self._given.values()):
            yield [record for records in given.sets.values() for record in records]
        for owner, make in list(self._makers.items()):
            yield make(owner)

    def _unpoint(self, address: str) -> None:
        if address in self._pointing:
            self.table.pop(self._pointing.pop(address), None)

    def replace(self, owner: Owner, records: Sequence[Record]) -> None:
        """Let `owner` have exactly these records from now on, whatever their names (reverse names excepted)."""
        before = self._given.pop(owner, None)
        self.changed(owner)
        if before is not None:
            self._forget(before.names)
            for name, _ in before.sets:
                self._givers.pop(name, None)
        if records:
            after = self._given[owner] = RecordSets(records, self.zones)
            self._names.update(after.names)
            self._givers.update((name, owner) for name, _ in after.sets)

    def _forget(self, names: Iterable[bytes]) -> None:
        for name in names:
            self._names[name] -= 1
            if self._names[name] <= 0:
                del self._names[name]

    def _owner(self, name: bytes, zone: Zone, labels: Sequence[bytes]) -> Owner | None:
        """Whose records answer for `name`, which has `labels` in front of `zone`."""
        if labels and zone.kind == "cluster":
            if len(labels) > 2 and labels[-1] == b"svc":
                return labels[-2].decode("latin-1"), labels[-3].decode("latin-1")
            if labels[-1] == b"dns":
                return KUBE_DNS
        return self._givers.get(name)

    def _sets(self, owner: Owner | None) -> RecordSets | None:
        """The records of `owner`, made now if need be."""
        if owner is None:
            return None
        found = self._recent.get(owner) or self._given.get(owner)
        if found is None and owner in self._makers:
            found = RecordSets(self._makers[owner](owner), self.zones)
            self._recent.add(owner, found)
        return found

    def _keep(self, question: bytes, found: Entry, *owners: Owner, own: bool = False) -> Entry:
        """`own`: not about an endpoint."""
        self.table[question] = found
        for owner in owners:
            self._asked[own].setdefault(owner, []).append(question)
        return found

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, question: bytes, namespace: bytes = b"") -> Found:
        """The answer to a question of class IN, in any case; None when it isn't ours to answer.

        `namespace` is the asker's, where it is known and its search path is to be completed. Bytes that aren't a
        question (a bad label, another class), or ask for a whole zone, are None too: `wire.parse` says what is wrong.
        """
        if question[-2:] != b"\0\x01" or question[-4:-2] in WHOLE_ZONES:
            return None
        question = question.lower()
        known = self._derived.get(question + namespace) if self.synced else None
        if known is not None:
            return known
        found = self._find(question)
        if namespace and isinstance(found, Entry) and found.rcode == wire.NXDOMAIN:
            found = self._complete(question, namespace) or found
        if self.synced and found is not None and question not in self.table:
            self._derive(question + namespace, found)
        return found

    def _derive(self, key: bytes, found: Entry | Alias | Guess) -> None:
        """Keep, until anything changes, an answer that no one owner's records give."""
        if len(self._derived) >= MOST_DERIVED:
            self._derived.clear()
        if not isinstance(found, Entry) or len(found.body) <= wire.UDP_SIZE:
            self._derived[key] = found

    def _complete(self, question: bytes, namespace: bytes) -> Found:
        """What a name of the first search domain of `namespace` stands for, when the zone doesn't have it itself.

        Decided by the name, never by the family asked for: A and AAAA can't disagree. To the family that it has no
        address of the answer is NODATA without a CNAME: one would have glibc end its search, with nothing if the other
        family's answer is lost or comes from a server that doesn't know the client.
        """
        name, kind = question[:-4], question[-4] << 8 | question[-3]
        inside, outside = search.candidates(name, namespace, self.zone, self._searches)
        if kind not in ADDRESSES or not (inside or outside) or self._exists(name[1 + name[0] :]):
            return None  # beside other names below it, such as an endpoint's, its absence means something
        nothing = self._no(wire.NOERROR, name)
        for candidate in (*inside, *outside):
            if self._alias(candidate) is not None:
                found = self._follow(name, kind, (name, candidate))
                return replace(found, nothing=nothing) if isinstance(found, Alias) else found
            if self._has_addresses(candidate):
                found = self._find(wire.question(candidate, kind))
                if not isinstance(found, Entry) or not found.step:
                    return nothing
                return self._chained(name, kind, [(name, candidate)], found)
        elsewhere = tuple(candidate for candidate in outside if self.zones.of(candidate) is None)
        return Guess(elsewhere, self.ttl, nothing) if elsewhere else None

    def _of(self, name: bytes) -> RecordSets | None:
        zone = self.zones.of(name)
        return self._sets(self._owner(name, zone, wire.labels_over(name, zone.name) or ())) if zone else None

    def _exists(self, name: bytes) -> bool:
        sets = self._of(name)
        return name in self._names or (sets is not None and name in sets.names)

    def _alias(self, name: bytes) -> bytes | None:
        """What the name is an alias of."""
        sets = self._of(name)
        return sets.aliases.get(name) if sets is not None else None

    def _has_addresses(self, name: bytes) -> bool:
        """Of either family, so that both questions lead to the same name."""
        sets = self._of(name)
        if sets is not None:
            return any((name, family) in sets.sets for family in ADDRESSES)
        return any(wire.question(name, family) in self._hosts for family in ADDRESSES)

    def _find(self, question: bytes) -> Found:
        name = question[:-4]
        zone = self.zones.of(name)
        if zone is None or zone.kind == "reverse":
            return self._hosts.get(question) or self._reverse(question, name, zone)
        if not self.synced:
            return self._no(wire.SERVFAIL, name)
        found = self.table.get(question)
        if found is not None:
            return found
        kind = question[-4] << 8 | question[-3]
        labels = wire.labels_over(name, zone.name) or ()
        owner = self._owner(name, zone, labels)
        sets = self._sets(owner)
        if sets is not None and owner is not None:
            made = sets.entry(name, kind)
            if made is None and sets.has_other_family(name, kind):
                made = self._no(wire.NOERROR, name)
            if made is not None:
                return self._keep(question, made, owner, own=len(labels) == 3 or name[1:2] == b"_")
            if name in sets.aliases and (kind in ADDRESSES or zone.kind == "public"):
                return self._follow(name, kind)
            if name in sets.names:
                return self._no(wire.NOERROR, name)
        if zone.kind == "public":
            return self._wildcard(name, kind)
        if len(labels) == 3 and labels[2] == b"pod":
            return self._pod(name, labels, kind)
        return self._no(wire.NOERROR if name in self._names else wire.NXDOMAIN, name)

    def _wildcard(self, name: bytes, kind: int) -> Found:
        """What * under the closest name that exists says of a name that doesn't (RFC 4592)."""
        if name in self._names:
            return self._no(wire.NOERROR, name)
        above = name
        while above not in self._names:
            above = above[1 + above[0] :]
        star = b"\1*" + above
        sets = self._of(star)
        if sets is None:
            return self._no(wire.NOERROR if star in self._names else wire.NXDOMAIN, name)
        if target := sets.aliases.get(star):
            if kind == wire.CNAME:
                return entry.make(len(name) + 4, [wire.record(wire.TO_QUESTION, wire.CNAME, self.ttl, target)])
            return self._follow(name, kind, (name, target))
        return sets.entry(star, kind) or self._no(wire.NOERROR, name)

    def _follow(self, name: bytes, kind: int, *before: tuple[bytes, bytes]) -> Found:
        """From alias to alias inside the zone, to addresses or out of it. `before` are links that lead here."""
        chain = list(before)
        at = chain[-1][1] if chain else name
        while target := self._alias(at):
            chain.append((at, target))
            if len(chain) > MAX_CHAIN:
                return self._no(wire.NOERROR, name)
            at = target
        if self.zones.of(at) is None and wire.question(at, kind) not in self._hosts:
            return Alias(tuple(chain), at, self.ttl)
        found = self._find(wire.question(at, kind))
        if not isinstance(found, Entry) or not found.step:  # unresolved inside the zone: NODATA, as CoreDNS says it
            return self._no(wire.NOERROR, name)
        return self._chained(name, kind, chain, found)

    def _chained(self, name: bytes, kind: int, chain: Sequence[tuple[bytes, bytes]], found: Entry) -> Entry:
        """CNAMEs and the addresses at their end."""
        links = [wire.record(owner, wire.CNAME, self.ttl, to) for owner, to in chain]
        links[0] = wire.record(wire.TO_QUESTION, wire.CNAME, self.ttl, chain[0][1])
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

    def _reverse(self, question: bytes, name: bytes, zone: Zone | None) -> Entry | None:
        """PTR, and what else there is in reverse zones. A cluster IP's target (svc.ns.svc) hides endpoints'
        (host.svc.ns.svc)."""
        found = self.table.get(question)
        if found is not None and self.synced:
            return found
        for suffix in (wire.IN_ADDR, wire.IP6):
            labels = wire.labels_over(name, suffix)
            if labels is None:
                continue
            address = wire.reversed_address(labels)
            owners = self._pointers.get(str(address)) if address is not None else []
            if not owners and zone is None:
                return None
            origin = zone.name if zone is not None else suffix
            if not self.synced:
                return self._no(wire.SERVFAIL, name, origin)
            pairs = [(owner, self._sets(owner)) for owner in owners]
            ones = [one.data for _, sets in pairs if sets for one in sets.sets.get((name, wire.PTR), ())]
            if not ones and zone is not None:
                return self._between(name, question, labels, suffix, zone)
            if not ones or question[-4:-2] != b"\0\x0c":
                return self._no(wire.NOERROR if ones else wire.NXDOMAIN, name, origin)
            depths = {target: len(wire.ancestors(target, self.zone)) for target in ones}
            targets = sorted(target for target in depths if depths[target] == min(depths.values()))
            encoded = [wire.record(wire.TO_QUESTION, wire.PTR, self.ttl, target) for target in targets]
            self._pointing[str(address)] = question
            return self._keep(question, entry.make(len(question), encoded), *owners)
        return None

    def _between(self, name: bytes, question: bytes, labels: Sequence[bytes], suffix: bytes, zone: Zone) -> Entry:
        """A name of a reverse zone that is no address somebody has: the apex, one above addresses, or nothing."""
        sets = self._of(name)
        kind = question[-4] << 8 | question[-3]
        if sets is not None and (made := sets.entry(name, kind)) is not None:
            return self._keep(question, made, ("", zone.text))
        whole = len(labels) == (4 if suffix == wire.IN_ADDR else 32)
        exists = name in self._names or (not whole and self._pointers.any_below(labels, suffix))
        return self._no(wire.NOERROR if exists else wire.NXDOMAIN, name, zone.name)

    def _no(self, rcode: int, name: bytes, origin: bytes = b"") -> Entry:
        """Nothing, and the SOA that says for how long; the same entry for all names of one length in the zone
        `origin` (without one: the name's own)."""
        key = (rcode, len(name), origin or self.zones.apex(name))
        found = self._negative.get(key)
        if found is None:
            authority = [self._soa(*key[1:])] if rcode != wire.SERVFAIL else []
            found = self._negative[key] = entry.make(len(name) + 4, (), rcode=rcode, authority=authority)
        return found

    def _soa(self, size: int, origin: bytes) -> bytes:
        """The SOA of a negative answer to a name of `size` bytes, its owner a pointer into the question."""
        owner = wire.pointer(wire.HEADER + size - len(origin))
        zone = self.zones.at(origin)
        serial = self.serials.get(origin, self.serial)
        if zone is None or zone.kind == "reverse":
            server, contact = b"\2ns\3dns" + self.zone, b"\x0ahostmaster" + self.zone
        else:
            server = b"\2ns\3dns" + owner if zone.kind == "cluster" else zone.servers[0]
            contact = b"\x0ahostmaster" + owner
        return wire.record(owner, wire.SOA, self.ttl, wire.soa(server, contact, serial, self.ttl))
