"""What every backend promises, run against the fake and the kernel; and what the kernel's own reader says of it."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

import msgspec
import pytest
from msgspec.structs import replace

from kubesvc.kernel.netlink import NetlinkSocket, attributes, text
from kubesvc.kernel.nft.connection import Connection
from kubesvc.kernel.nft.expressions import native32
from kubesvc.kernel.nft.objects import IPV4_ADDR, Chain, Map, Table
from kubesvc.kernel.nft.transaction import (
    AddChain,
    AddElements,
    AddMap,
    AddTable,
    DeleteElements,
    Nft,
    NftError,
    Transaction,
)
from kubesvc.proxy import maps, ruleset
from kubesvc.proxy.backend import BackendError, Changes, Frontend, Kind, Ranges
from kubesvc.proxy.fake import FakeBackend
from kubesvc.proxy.layout import TABLE, UDP, Draw, Refusal, pack, port_data, show_endpoint, slot, split_key, unpack
from kubesvc.proxy.nftables import NftablesBackend
from support.net import Lab, Namespace
from support.proxy import NODE_IP, RANGES, changes, frontend


@dataclass
class Bench:
    """A backend and the nftables below it."""

    backend: NftablesBackend
    nft: Nft
    node: Namespace | None = None

    def again(self) -> NftablesBackend:
        """A second backend over the same nftables: the proxy restarted."""
        if isinstance(self.backend, FakeBackend):
            restarted = FakeBackend(RANGES, [NODE_IP])
            restarted.nft = self.backend.nft
            restarted._nft = self.backend.nft
            return restarted
        return NftablesBackend(self.nft, RANGES)

    def held(self) -> dict[str, list[str] | str]:
        """address:port -> endpoints by slot or the refusal, read back from the maps."""
        found: dict[str, list[str] | str] = {}
        for suffix in "46":
            backends = self.nft.elements(TABLE, maps.BACKENDS[suffix])
            for key, number in self.nft.elements(TABLE, maps.FRONTENDS[suffix]).items():
                if number == native32(Refusal.DROP):
                    found[_at(key)] = "DROP"
                    continue
                slots = {k: e for k, e in backends.items() if k[:-4] == key and k[-2:] == SLOT}
                mine = sorted((int.from_bytes(k[-4:-2], "little"), e) for k, e in slots.items())
                assert [slot for slot, _ in mine] == list(range(int.from_bytes(number[:2], "little")))
                found[_at(key)] = [show_endpoint(e) for _, e in mine]
            for key in self.nft.elements(TABLE, maps.REFUSED[suffix]):
                assert _at(key) not in found
                found[_at(key)] = "REJECT"
        return found


def _at(key: bytes) -> str:
    address, _, port = split_key(key)
    return f"{unpack(address)}:{port}"


@pytest.fixture(params=["fake", "nftables"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "fake":
        fake = FakeBackend(RANGES, [NODE_IP])
        yield Bench(fake, fake.nft)
        return
    with Lab("contract") as lab:
        node = lab.namespace("node")
        nft = node.call(Connection)
        assert isinstance(nft, Connection)
        backend = NftablesBackend(nft, RANGES)
        yield Bench(backend, nft, node)
        backend.close()


def endpoint_at(address: str) -> bytes:
    return pack(address) + port_data(8080)


WEB = frontend("10.96.0.10", 80, "10.244.0.1", "10.244.0.2", "10.244.0.3")
DNS = frontend("10.96.0.11", 53, "10.244.0.4", protocol=UDP, owner="dns")
EMPTY = frontend("10.96.0.12", 80, owner="empty")
PORT = frontend(NODE_IP, 30080, "10.244.0.1", "10.244.0.2", kind=Kind.NODE_PORT)
SIX = frontend("fd00:96::10", 80, "fd00:10:244::1", owner="six")

STICKY = frontend("10.96.0.13", 80, "10.244.0.1", "10.244.0.2", affinity=5400, owner="sticky")
LOCAL = frontend(
    "172.29.8.1",
    80,
    "10.244.0.1",
    "10.244.0.2",
    kind=Kind.LOAD_BALANCER,
    owner="local",
    affinity=10800,
    outside=(endpoint_at("10.244.0.1"),),
    sources=(pack("192.0.2.0") + pack("192.0.2.255"), pack("198.51.100.7") * 2),
)
FAR = frontend(NODE_IP, 30081, "10.244.1.1", kind=Kind.NODE_PORT, owner="far", outside=(), affinity=10800)

HELD = {
    "10.96.0.10:80": ["10.244.0.1:8080", "10.244.0.2:8080", "10.244.0.3:8080"],
    "10.96.0.11:53": ["10.244.0.4:8080"],
    "10.96.0.12:80": "REJECT",
    f"{NODE_IP}:30080": ["10.244.0.1:8080", "10.244.0.2:8080"],
    "fd00:96::10:80": ["[fd00:10:244::1]:8080"],
    "10.96.0.13:80": ["10.244.0.1:8080", "10.244.0.2:8080"],
    "172.29.8.1:80": ["10.244.0.1:8080", "10.244.0.2:8080"],
    f"{NODE_IP}:30081": ["10.244.1.1:8080"],
    "10.96.0.14:80": ["10.244.0.1:8080", "10.244.0.2:8080", "10.244.0.1:8080"],
    "fd00:96::14:80": ["[fd00:10:244::1]:8080", "[fd00:10:244::2]:8080"] * 3,
}
CLIENTS = frontend("10.96.0.14", 80, "10.244.0.1", "10.244.0.2", "10.244.0.1", draw=Draw.CLIENT, owner="clients")
FLOWS = frontend("fd00:96::14", 80, *("fd00:10:244::1", "fd00:10:244::2") * 3, draw=Draw.CONNECTION, owner="flows")
EVERYTHING = (WEB, DNS, EMPTY, PORT, SIX, STICKY, LOCAL, FAR, CLIENTS, FLOWS)
SLOT = slot(0)[2:]


def test_resync_programs_everything(bench: Bench) -> None:
    """From nothing to all frontends, in both families."""
    bench.backend.resync(changes(*EVERYTHING, local=("10.244.0.1",)))
    assert bench.held() == HELD
    assert bench.nft.elements(TABLE, maps.HAIRPIN["4"]).keys() == {pack("10.244.0.1") * 2}
    assert bench.nft.elements(TABLE, maps.SERVICE_IPS["6"]).keys() == {pack("fd00:96::10"), pack("fd00:96::14")}


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(("10.244.0.1", "10.244.0.9", "10.244.0.3"), id="one replaced"),
        pytest.param(("10.244.0.1", "10.244.0.2", "10.244.0.3", "10.244.0.9"), id="one added"),
        pytest.param(("10.244.0.1", "10.244.0.3"), id="one removed"),
        pytest.param((), id="all removed"),
        pytest.param(tuple(f"10.244.1.{n}" for n in range(1, 200)), id="many"),
    ],
)
def test_endpoints_change(bench: Bench, after: tuple[str, ...]) -> None:
    """A Service's endpoints become any others, and come back; nobody else's change."""
    bench.backend.resync(changes(*EVERYTHING))
    changed = frontend("10.96.0.10", 80, *after)
    bench.backend.apply(Changes({changed.key: changed}), "7")
    assert bench.held() == HELD | {"10.96.0.10:80": [f"{a}:8080" for a in after] or "REJECT"}
    bench.backend.apply(Changes({WEB.key: WEB}), "8")
    assert bench.held() == HELD


def test_frontends_come_and_go(bench: Bench) -> None:
    """A frontend removed is gone with its cluster IP; one that refuses is too."""
    bench.backend.resync(changes(*EVERYTHING))
    removed = Changes({WEB.key: None, EMPTY.key: None}, {pack("10.96.0.10"): False, pack("10.96.0.12"): False})
    bench.backend.apply(removed, "7")
    assert bench.held() == {k: v for k, v in HELD.items() if k not in ("10.96.0.10:80", "10.96.0.12:80")}
    left = {pack("10.96.0.11"), pack("10.96.0.13"), pack("10.96.0.14")}
    assert bench.nft.elements(TABLE, maps.SERVICE_IPS["4"]).keys() == left


def test_removing_what_never_was_is_fine(bench: Bench) -> None:
    """A frontend may come and go before the backend hears of it."""
    bench.backend.resync(changes(WEB))
    bench.backend.apply(Changes({DNS.key: None}), "7")
    assert bench.held() == {"10.96.0.10:80": HELD["10.96.0.10:80"]}


def test_new_ranges_hold_from_the_next_resync_on(bench: Bench) -> None:
    """Chains that only the old ones needed go, those of the new ones come; the elements stay."""
    for localhost in (True, False, True):
        before = bench.nft.chains(TABLE) if bench.nft.comment(TABLE) else []
        bench.backend.know(replace(RANGES, localhost=localhost))
        bench.backend.apply(Changes(), "7")
        assert not before or bench.nft.chains(TABLE) == before
        bench.backend.resync(changes(*EVERYTHING))
        assert (ruleset.MARTIANS in bench.nft.chains(TABLE)) is localhost
        assert bench.held() == HELD


def test_a_restart_adopts_what_is_there(bench: Bench) -> None:
    """A second backend takes over the table, changing only what differs, and goes on from there."""
    bench.backend.resync(changes(*EVERYTHING))
    restarted = bench.again()
    restarted.resync(changes(*EVERYTHING))
    assert bench.held() == HELD
    fewer = frontend("10.96.0.10", 80, "10.244.0.2")
    again = bench.again()
    again.resync(changes(fewer, DNS))
    assert bench.held() == {"10.96.0.10:80": ["10.244.0.2:8080"], "10.96.0.11:53": ["10.244.0.4:8080"]}
    assert "pick-off-cluster-3" not in bench.nft.chains(TABLE)
    again.apply(Changes({WEB.key: WEB}), "9")
    assert bench.held()["10.96.0.10:80"] == HELD["10.96.0.10:80"]


def _delete_behind_its_back(nft: Nft, found: Frontend) -> None:
    meddling = Transaction()
    meddling.add(DeleteElements(TABLE, maps.FRONTENDS["4"], [found.key]))
    nft.commit(meddling)


def test_a_refused_change_changes_nothing_and_a_resync_heals(bench: Bench) -> None:
    """When one part of a batch is refused the rest doesn't happen; everything is right after a resync."""
    bench.backend.resync(changes(*EVERYTHING))
    _delete_behind_its_back(bench.nft, WEB)
    before = {name: bench.nft.elements(TABLE, m) for name, m in maps.DATA_MAPS.items()}
    other = frontend("10.96.0.11", 53, "10.244.0.5", protocol=UDP, owner="dns")
    fresh = frontend("10.96.0.77", 80, *(f"10.244.7.{n}" for n in range(1, 12)))
    with pytest.raises(BackendError, match="frontends4"):
        bench.backend.apply(Changes({other.key: other, WEB.key: None, fresh.key: fresh}), "7")
    assert {name: bench.nft.elements(TABLE, m) for name, m in maps.DATA_MAPS.items()} == before
    assert "pick-off-cluster-11" not in bench.nft.chains(TABLE)
    bench.backend.resync(changes(*EVERYTHING))
    assert bench.held() == HELD


def test_a_table_deleted_by_hand_comes_back(bench: Bench) -> None:
    """Someone flushed the ruleset: the next change is refused, the resync after it restores everything."""
    bench.backend.resync(changes(*EVERYTHING))
    if bench.node:
        bench.node.run("nft", "flush", "ruleset")
    else:
        bench.nft._tables.clear()  # type: ignore[attr-defined]
    with pytest.raises(BackendError):
        bench.backend.apply(Changes({WEB.key: None}), "7")
    bench.backend.resync(changes(*EVERYTHING))
    assert bench.held() == HELD


def test_a_table_of_another_layout_is_replaced(bench: Bench) -> None:
    """An older version's table of our name goes, in the same transaction that brings the new one."""
    old = Transaction()
    old.add(AddTable(Table(TABLE, "kubesvc data plane, layout 0")))
    old.add(AddMap(TABLE, Map("frontends4", (IPV4_ADDR,))))
    old.add(AddChain(TABLE, Chain("leftover", ())))
    bench.nft.commit(old)
    bench.backend.resync(changes(*EVERYTHING))
    assert bench.held() == HELD
    assert "leftover" not in bench.nft.chains(TABLE)


def test_foreign_tables_are_left_alone(bench: Bench) -> None:
    """Another's table, with maps of the same names, is the same before and after."""
    theirs = Map("cluster-ips4", (IPV4_ADDR,))
    foreign = Transaction()
    foreign.add(AddTable(Table("theirs", "not ours")))
    foreign.add(AddMap("theirs", theirs))
    foreign.add(AddElements("theirs", theirs, {pack("10.96.0.10"): b""}))
    bench.nft.commit(foreign)
    bench.backend.resync(changes(*EVERYTHING))
    bench.backend.apply(Changes({WEB.key: None}, {pack("10.96.0.10"): False}), "7")
    bench.again().resync(changes(DNS))
    assert bench.nft.comment("theirs") == "not ours"
    assert bench.nft.elements("theirs", theirs) == {pack("10.96.0.10"): b""}


def test_a_missing_map_is_an_error_that_names_it(bench: Bench) -> None:
    """Reading a table that isn't there says which."""
    with pytest.raises(NftError, match=f"frontends4 of table inet {TABLE}"):
        bench.nft.elements(TABLE, maps.FRONTENDS["4"])


def test_the_fake_can_be_told_to_refuse() -> None:
    """A refusal at commit leaves the fake as it was."""
    fake = FakeBackend(RANGES)
    fake.resync(changes(WEB))
    fake.nft.refuse_next = errno.ENOMEM
    with pytest.raises(BackendError, match="Cannot allocate memory"):
        fake.apply(Changes({WEB.key: None}), "7")
    fake.apply(Changes({WEB.key: None}), "7")
    assert fake.nft.elements(TABLE, maps.FRONTENDS["4"]) == {}


@pytest.fixture
def node() -> Iterator[Namespace]:
    with Lab("nft") as lab:
        yield lab.namespace("node")


def nfts() -> list[str]:
    """Every nft there is: the machine's, and the one that $KUBESVC_NFT names (see scripts/newest-nft)."""
    return ["nft", *filter(None, [os.environ.get("KUBESVC_NFT")])]


@pytest.mark.parametrize("program", nfts())
def test_an_administrator_can_read_it(node: Namespace, program: str) -> None:
    """`nft list` prints addresses, ports and slots in clear, and every rule as its text says."""
    ranges = Ranges(
        (ip_network("10.96.0.0/16"), ip_network("fd00:96::/108")),
        (ip_network("10.244.0.0/16"), ip_network("10.128.0.0/9"), ip_network("fd00:10:244::/56")),
        localhost=True,
    )
    backend = NftablesBackend(node.call(Connection), ranges)  # type: ignore[arg-type]
    backend.resync(changes(*EVERYTHING, local=("10.244.0.1",)))
    backend.close()
    printed = node.run(program, "list", "ruleset")
    for line in (
        "10.96.0.10 . tcp . 80 : 6b01:3",
        "10.96.0.10 . tcp . 80 . 6b00:2 : 10.244.0.3 . 8080",
        "fd00:96::10 . tcp . 80 . 6b00:0 : fd00:10:244::1 . 8080",
        f"{NODE_IP} . tcp . 30080 : 6b02:2",
        "6b01:3 : goto pick-off-cluster-3",
        "10.244.0.1 . 10.244.0.1",
        "172.29.8.1 . tcp . 80 . 192.0.2.0/24",
        "172.29.8.1 . tcp . 80 . 198.51.100.7",
        f"{NODE_IP} . tcp . 30081 : 6b08:2",
        "update @affinity4 { ip saddr . ct mark timeout 1h30m : meta priority }",
        "meta priority set jhash ip saddr mod 3 seed 0x6b756265 offset 1795162112",
        "set jhash ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport mod 6 seed 0x6b756265 offset 1795162112",
        "10.96.0.14 . tcp . 80 : 6a01:3",
    ):
        assert line in printed
    lines = [line.strip() for line in printed.splitlines()]
    classes = {number for found in EVERYTHING for number in maps.classes_of(found)}
    assert len(classes) == 9
    picks = [ruleset.pick(number) for number in classes]
    for chain in (*ruleset.constant_chains(ranges), *ruleset.memories(classes).values(), *picks):
        start = lines.index(f"chain {chain.name} {{") + (2 if chain.hook else 1)
        assert lines[start : lines.index("}", start)] == [rule.text for rule in chain.rules]


@pytest.mark.parametrize("program", nfts())
def test_nft_prints_json_and_reads_its_own_listing_back(node: Namespace, program: str) -> None:
    """`nft -j` doesn't crash, and what `nft list` prints is a script that `nft -f` accepts."""
    backend = NftablesBackend(node.call(Connection), replace(RANGES, localhost=True))  # type: ignore[arg-type]
    backend.resync(changes(*EVERYTHING))
    found = json.loads(node.run(program, "-j", "list", "table", "inet", TABLE))
    maps = {o["map"]["name"]: o["map"] for o in found["nftables"] if "map" in o}
    assert len(maps["backends4"]["elem"]) == 6 + 4 + 4 + 2 + 2 + 3
    # nft 1.0.6 lists an `update` whose key is two IPv6 addresses, but aborts when it is to load one.
    without = [msgspec.structs.replace(found, affinity=0) for found in EVERYTHING]
    backend.resync(changes(*without))
    backend.close()
    listing = node.run(program, "list", "ruleset")
    _reload(node, program, listing)
    assert node.run(program, "list", "ruleset") == listing


def _reload(node: Namespace, program: str, listing: str) -> None:
    node.run("sh", "-c", f"{program} flush ruleset; {program} -f - <<'SCRIPT'\n{listing}\nSCRIPT")


@pytest.mark.parametrize("program", nfts())
def test_our_maps_are_byte_for_byte_what_nft_makes_of_their_listing(node: Namespace, program: str) -> None:
    """Types, lengths, flags, sizes and the byte orders in user data: newer versions put more behind those."""
    nft = node.call(Connection)
    assert isinstance(nft, Connection)
    backend = NftablesBackend(nft, RANGES)
    whole = [msgspec.structs.replace(found, affinity=0) for found in EVERYTHING]
    backend.resync(changes(*whole, local=("10.244.0.1",)))
    ours, elements = _sets(node), {name: nft.elements(TABLE, m) for name, m in maps.DATA_MAPS.items()}
    _reload(node, program, node.run(program, "list", "ruleset"))
    theirs = _sets(node)
    assert {name: nft.elements(TABLE, m) for name, m in maps.DATA_MAPS.items()} == elements
    backend.close()
    assert set(ours) == {m.name for m in (*maps.DATA_MAPS.values(), maps.CLASSES, *maps.DYNAMIC_MAPS)}
    for name, found in ours.items():
        user_data, same = found.pop(_USER_DATA), theirs[name].pop(_USER_DATA)
        assert found == theirs[name], name
        assert same.startswith(user_data), name


_USER_DATA = 13  # NFTA_SET_USERDATA
_TOLD = (3, 4, 5, 6, 7, 9, 11, _USER_DATA)  # NFTA_SET_FLAGS, …_TYPE, …_LEN, …_DESC, …_TIMEOUT


def _sets(node: Namespace) -> dict[str, dict[int, bytes]]:
    """The attributes of each set of our table, as the kernel has them."""
    asking = node.call(lambda: NetlinkSocket(12))  # NETLINK_NETFILTER
    assert isinstance(asking, NetlinkSocket)
    found: dict[str, dict[int, bytes]] = {}
    for body in asking.dump(0x0A0A, struct.pack("=BBH", 1, 0, 0) + text(1, TABLE)):  # NFT_MSG_GETSET
        told = attributes(body, 4)
        found[told[2].rstrip(b"\0").decode()] = {key: told[key] for key in _TOLD if key in told}
    asking.close()
    return found


def test_many_elements_fit_one_transaction(node: Namespace) -> None:
    """5,000 Services with 20 endpoints: several megabytes, in a batch; replaced in another, with nothing left over."""
    backend = NftablesBackend(node.call(Connection), RANGES)  # type: ignore[arg-type]
    many = [
        frontend(f"10.96.{n >> 8}.{n & 255}", 80, *(f"10.244.{n >> 8}.{e}" for e in range(20)), owner=f"s{n}")
        for n in range(5000)
    ]
    backend.resync(changes(*many))
    nft = backend._nft
    backend.resync(changes(*many))  # the kernel is still resizing its hashes
    assert len(nft.elements(TABLE, maps.BACKENDS["4"])) == 100_000
    backend.resync(changes(WEB))
    assert len(nft.elements(TABLE, maps.BACKENDS["4"])) == 3
    backend.close()
