"""The pure parts of announcing: frames, advertisements, BIRD's configuration and answers."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kubesvc.api.balancing import (
    BFD,
    BGPAdvertisement,
    BGPAdvertisementSpec,
    BGPPeerSpec,
    L2Advertisement,
    L2AdvertisementSpec,
)
from kubesvc.api.meta import LabelSelector, ObjectMeta
from kubesvc.loadbalancer.announce import bird_state, ndp
from kubesvc.loadbalancer.announce.adverts import L2Rule, Route, routes, rules
from kubesvc.loadbalancer.announce.bird_config import Neighbour, Way, protocol, render
from kubesvc.loadbalancer.announce.election import Member, Vip, claims
from kubesvc.loadbalancer.announce.heartbeat import Heartbeat

MAC, OTHER = bytes.fromhex("02005e000001"), bytes.fromhex("02005e000002")
VIP6, ASKER = IPv6Address("fd00::7"), IPv6Address("fe80::1")
RACK = LabelSelector(match_labels={"rack": "a"})


def test_a_solicitation_survives_the_wire() -> None:
    asked = ndp.Solicitation(OTHER, ASKER, VIP6)
    frame = asked.to_wire()
    assert ndp.Solicitation.from_wire(frame) == asked
    assert frame[:6] == bytes.fromhex("3333ff000007")
    assert ndp.checksum(pseudo(frame) + frame[54:]) == 0


@pytest.mark.parametrize("sender", [ASKER, ndp.UNSPECIFIED], ids=["a neighbour", "who is about to take the address"])
def test_an_advertisement_is_sound(sender: IPv6Address) -> None:
    frame = ndp.reply(ndp.Solicitation(OTHER, sender, VIP6), MAC)
    solicited, override = bool(frame[58] & 0x40), bool(frame[58] & 0x20)
    assert (solicited, override) == (sender == ASKER, True)
    assert frame[:6] == (OTHER if sender == ASKER else ndp.ALL_NODES_MAC)
    assert (frame[62:78], frame[78:]) == (VIP6.packed, b"\x02\x01" + MAC)
    assert frame[21] == 255
    assert ndp.checksum(pseudo(frame) + frame[54:]) == 0


def pseudo(frame: bytes) -> bytes:
    return frame[22:54] + len(frame[54:]).to_bytes(4, "big") + bytes((0, 0, 0, ndp.NEXT_ICMPV6))


def test_a_question_from_beyond_the_link_is_none() -> None:
    frame = bytearray(ndp.Solicitation(OTHER, ASKER, VIP6).to_wire())
    frame[21] = 254
    assert ndp.Solicitation.from_wire(bytes(frame)) is None


@pytest.mark.parametrize("leaving", [False, True])
def test_a_heartbeat_survives_the_wire(leaving: bool) -> None:
    beat = Heartbeat(MAC, "b0e11db5-19c5-4c53-a0c4-1b35af9ff87a", "eth0", leaving)
    assert Heartbeat.from_wire(beat.to_wire()) == beat


@given(st.binary(max_size=90))
def test_what_anybody_may_send_is_read_or_left(junk: bytes) -> None:
    frame = Heartbeat(MAC, "uid", "eth0").to_wire()
    assert Heartbeat.from_wire(junk) is None
    Heartbeat.from_wire(frame[:22] + junk)
    ndp.Solicitation.from_wire(junk)


def test_a_pool_nobody_advertises_is_announced_by_all() -> None:
    l2 = [L2Advertisement(metadata=ObjectMeta(name="a"), spec=L2AdvertisementSpec(ip_address_pools=["one"]))]
    bgp = [
        BGPAdvertisement(
            metadata=ObjectMeta(name="b"), spec=BGPAdvertisementSpec(ip_address_pool_selectors=[RACK], local_pref=200)
        )
    ]
    l2_rules, bgp_rules = rules(l2, bgp, {"one": {}, "two": {"rack": "a"}, "three": {}})
    assert [rule.pools for rule in l2_rules] == [{"one"}, {"three"}]
    assert [rule.pools for rule in bgp_rules] == [{"two"}]
    assert routes(bgp_rules, [("192.0.2.1", "two"), ("192.0.2.2", "one")], {}) == [
        Route(ip_network("192.0.2.1/32"), None, 200)
    ]


def test_addresses_are_told_as_their_network() -> None:
    spec = BGPAdvertisementSpec(aggregation_length=24, aggregation_length_v6=64, node_selectors=[RACK])
    _, found = rules([], [BGPAdvertisement(metadata=ObjectMeta(name="b"), spec=spec)], {"p": {}})
    vips = [("192.0.2.1", "p"), ("192.0.2.9", "p"), ("fd00::1", "p")]
    assert [str(r.network) for r in routes(found, vips, {"rack": "a"})] == ["192.0.2.0/24", "fd00::/64"]
    assert routes(found, vips, {"rack": "b"}) == []


@pytest.mark.parametrize(
    ("members", "hosts", "announcer"),
    [
        ([Member("node1"), Member("node2", cordoned=True)], None, "node1"),
        ([Member("node2", cordoned=True)], None, "node2"),
        ([Member("node1"), Member("node2", cordoned=True)], {"node2"}, "node2"),
        ([Member("node1", interface="eth1"), Member("node2")], None, "node2"),
        ([Member("node1", interface="eth1")], None, None),
    ],
    ids=["not-the-cordoned-one", "unless-there-is-no-other", "or-it-has-the-endpoint", "by-interface", "nobody"],
)
def test_who_announces_among_members(members: list[Member], hosts: set[str] | None, announcer: str | None) -> None:
    vip = Vip(ip_address("192.0.2.1"), None if hosts is None else frozenset(hosts), "p")
    allowed = [L2Rule(frozenset({"p"}), interfaces=frozenset({"eth0"}))]
    assert [m.name for m in members if claims(m.name, [vip], members, allowed)] == ([announcer] if announcer else [])


def peer(name: str, **more: object) -> Neighbour:
    given = {"my_asn": 64512, "peer_asn": 64513, "peer_address": "10.9.0.1", **more}
    return Neighbour(name, BGPPeerSpec(**given), "hush")  # type: ignore[arg-type]


def test_a_peer_is_told_only_what_is_for_it() -> None:
    """By family, and by the advertisement's peers; attributes of one network add up."""
    network = ip_network("192.0.2.1/32")
    config = render(
        "10.9.0.11",
        [peer("a", bfd=BFD(receive_interval=100)), peer("b-6", peer_address="fd00::1")],
        [
            Route(network, frozenset({"a"}), 100, ("64512:1",)),
            Route(network, None, 200, ("large:1:2:3",)),
            Route(ip_network("fd01::/64")),
            Route(ip_network("192.0.2.2/32"), frozenset({"other"})),
        ],
    )
    a, b = config.split("protocol bgp peer_a {")[1].split("protocol bgp peer_b_6 {")
    actions = "bgp_local_pref = 200; bgp_community.add((64512, 1)); bgp_large_community.add((1, 2, 3)); accept;"
    assert f"if net ~ [ 192.0.2.1/32 ] then {{ {actions} }}" in a
    assert "192.0.2.2" not in a
    assert "min rx interval 100 ms" in a
    assert 'password "hush";' in a
    assert "if net ~ [ fd01::/64 ] then { accept; }" in b
    assert "192.0.2" not in b
    assert "protocol kernel" not in config


@pytest.mark.parametrize(
    ("more", "way", "lines"),
    [
        ({}, Way("10.9.0.11", direct=True), ["local as 64512;"]),
        ({"bfd": BFD()}, Way("10.9.0.11", direct=True), ["local 10.9.0.11 as 64512;"]),
        ({"peer_asn": 64512}, Way("10.9.0.11", direct=True), ["local as 64512;", "direct;"]),
        ({"peer_asn": 64512, "bfd": BFD()}, Way("10.8.0.3"), ["local 10.8.0.3 as 64512;"]),
        ({"ebgp_multi_hop": True, "bfd": BFD()}, Way("10.8.0.3"), ["local 10.8.0.3 as 64512;", "multihop;"]),
        ({"source_address": "10.9.9.9", "bfd": BFD()}, Way("10.8.0.3"), ["local 10.9.9.9 as 64512;"]),
    ],
    ids=["external", "external-bfd", "internal-near", "internal-far-bfd", "multihop-bfd", "a-source-given"],
)
def test_a_session_goes_the_way_there_is(more: dict[str, object], way: Way, lines: list[str]) -> None:
    """BIRD has BFD over several hops only from a given address, and takes an internal peer for a far one."""
    config = render("10.9.0.11", [replace(peer("a", **more), way=way)], [])
    found = [line.strip() for line in config.splitlines()]
    assert [line for line in found if line.startswith("local ") or line in ("direct;", "multihop;")] == lines


@pytest.mark.parametrize("more", [{"peer_asn": 64512}, {"ebgp_multi_hop": True}])
def test_bfd_over_several_hops_waits_for_a_route(more: dict[str, object]) -> None:
    """BIRD would refuse the file, and with it all other sessions."""
    assert "bfd {" not in render("10.9.0.11", [peer("a", bfd=BFD(), **more)], []).replace("protocol bfd {", "")


def test_every_peer_has_a_protocol_of_its_own() -> None:
    names = ["a-b", "a.b", "a" * 63 + ".b", "a" * 63 + ".c"]
    found = {protocol(name) for name in names}
    assert len(found) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]{,62}", name) for name in found)


def test_what_bird_says_of_its_sessions() -> None:
    reply = """1002-device1    Device     ---        up     02:06:01.984  
1006-
1002-peer_router BGP        ---        up     02:06:01.984  Established   
1006-  BGP state:          Established
1006-    Neighbor address: 10.9.0.1
1006-  Channel ipv4
     Routes:         0 imported, 3 exported, 0 preferred
1002-peer_b BGP        ---        start  02:06:01.984  Active        Socket: Connection refused
1006-  BGP state:          Active
     Last error:       Socket: Connection refused
0000 
"""
    assert bird_state.is_whole(reply)
    assert not bird_state.is_whole(reply[:-6])
    assert bird_state.sessions(reply) == {
        "peer_router": bird_state.Session("Established", 3),
        "peer_b": bird_state.Session("Active", 0, "Socket: Connection refused"),
    }
    assert (
        bird_state.error("0002-Reading configuration\n8002 bird.conf:3:1 syntax error\n")
        == "bird.conf:3:1 syntax error"
    )
