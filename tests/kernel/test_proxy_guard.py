"""Somebody else at the same kernel: our table is repaired, their filters are reported and never touched."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import msgspec
import pytest

from kubesvc.api.nodes import Node
from kubesvc.kernel.nft.connection import Connection
from kubesvc.kernel.nft.monitor import Monitor
from kubesvc.proxy import maps
from kubesvc.proxy.backend import BackendError, Changes
from kubesvc.proxy.layout import TABLE
from kubesvc.proxy.nftables import NftablesBackend
from support.lists import Api
from support.net import Lab, Namespace
from support.proxied import proxied, until
from support.proxy import NODE, RANGES, changes, frontend, service, slice_of

NODE_OBJECT = msgspec.convert({"metadata": {"name": NODE, "uid": "1", "resourceVersion": "1"}}, Node)


@pytest.fixture
def node() -> Iterator[Namespace]:
    with Lab("guard") as lab:
        yield lab.namespace("node")


def api() -> Api:
    return Api(services=[service()], endpointslices=[slice_of("10.244.0.5")], nodes=[NODE_OBJECT])


def listing(node: Namespace) -> str:
    return node.run("nft", "list", "table", "inet", TABLE)


@pytest.mark.parametrize(
    "meddling",
    [
        pytest.param("flush ruleset", id="everything flushed"),
        pytest.param(f"delete table inet {TABLE}", id="the table deleted"),
        pytest.param(f"flush table inet {TABLE}", id="its rules flushed"),
        pytest.param(f"flush map inet {TABLE} frontends4", id="a map flushed"),
        pytest.param(f"delete element inet {TABLE} frontends4 {{ 10.96.0.10 . tcp . 80 }}", id="an element deleted"),
        pytest.param(f"insert rule inet {TABLE} services drop", id="a rule added"),
        pytest.param(f"delete table inet {TABLE}; add table inet {TABLE}", id="an empty table in its place"),
    ],
)
async def test_what_somebody_did_to_the_table_is_undone_at_once(
    node: Namespace, meddling: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Noticed through the kernel's own notices, without a change of any Service."""
    async with proxied(node, api()) as here:
        before = listing(node)
        node.run("nft", meddling)
        await until("repaired", lambda: here.metric("sync_full_proxy_rules_duration_seconds_count") == 2)
        assert listing(node) == before
    assert "programming everything again in 0.05 s" in caplog.text


async def test_it_is_noticed_again_and_again(node: Namespace, caplog: pytest.LogCaptureFixture) -> None:
    """A repaired table is watched as the first one was; the log names the program."""
    async with proxied(node, api()) as here:
        for count in (2, 3):
            node.run("nft", "flush", "ruleset")
            await until("repaired", lambda n=count: here.metric("sync_full_proxy_rules_duration_seconds_count") == n)
    assert "was changed by nft (delete table)" in caplog.text


async def test_what_somebody_did_during_a_large_change_shows_after_it(
    node: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens meanwhile: the kernel would hold 8 KB for each element."""
    asked = api()
    async with proxied(node, asked) as here:
        plain = Monitor.listen

        def listen(monitor: Monitor) -> None:
            assert not monitor.listening
            monkeypatch.undo()
            node.run("nft", f"delete table inet {TABLE}")
            plain(monitor)

        monkeypatch.setattr(Monitor, "listen", listen)
        large = [f"10.244.{n >> 8}.{n & 255}" for n in range(5000)]
        asked.tell("endpointslices", "MODIFIED", slice_of(*large))
        await until("repaired", lambda: here.metric("sync_full_proxy_rules_duration_seconds_count") == 2)
        assert "10.244.19.135 . 8080" in listing(node)


async def test_our_own_changes_and_others_tables_are_no_damage(node: Namespace) -> None:
    """A hundred changes of ours and a table of somebody else: nothing is programmed twice."""
    asked = api()
    async with proxied(node, asked) as here:
        for last in range(100):
            asked.tell("endpointslices", "MODIFIED", slice_of(f"10.244.1.{last}"))
        node.run("nft", "add table inet other; add chain inet other c; add rule inet other c drop")
        asked.tell("endpointslices", "MODIFIED", slice_of("10.244.2.1"))
        await until("programmed", lambda: "10.244.2.1 . 8080" in listing(node))
        assert here.metric("sync_full_proxy_rules_duration_seconds_count") == 1
    assert "chain c" in node.run("nft", "list", "table", "inet", "other")


def test_a_map_of_another_type_under_our_name_is_replaced(node: Namespace) -> None:
    """What can't be taken over is replaced whole, in one transaction."""
    connection = node.call(Connection)
    assert isinstance(connection, Connection)
    backend = NftablesBackend(connection, RANGES)
    backend.resync(changes(frontend("10.96.0.10", 80, "10.244.0.1")))
    before = listing(node)
    node.run("nft", f"flush table inet {TABLE}; delete map inet {TABLE} frontends4")
    node.run("nft", f"add map inet {TABLE} frontends4 {{ type ipv4_addr : ipv4_addr; }}")
    backend.resync(changes(frontend("10.96.0.10", 80, "10.244.0.1")))
    assert sorted(listing(node).splitlines()) == sorted(before.splitlines())
    backend.close()


@pytest.mark.parametrize("suffix", ["4", "6"])
def test_a_kernel_error_names_the_service_and_leaves_the_old_state(node: Namespace, suffix: str) -> None:
    """Among many changes, the one refused is named; none of them happened."""
    connection = node.call(Connection)
    assert isinstance(connection, Connection)
    backend = NftablesBackend(connection, RANGES)
    vip, pod = ("10.96.0.{}", "10.244.0.1") if suffix == "4" else ("fd00:96::{}", "fd00:10::1")
    backend.resync(changes(frontend(vip.format(1), 80, pod)))
    if suffix == "4":
        node.run("nft", f"add element inet {TABLE} backends4 {{ 10.96.0.9 . tcp . 80 . 6b00:0 : 10.0.0.1 . 1 }}")
    else:
        node.run("nft", f"add element inet {TABLE} backends6 {{ fd00:96::9 . tcp . 80 . 6b00:0 : fd00::1 . 1 }}")
    before = listing(node)
    many = [frontend(vip.format(n), 80, pod, owner=f"svc-{n}") for n in range(2, 20)]
    with pytest.raises(BackendError, match=r"^Service default/svc-9: add element inet kubesvc backends"):
        backend.apply(Changes({f.key: f for f in many}), "7")
    assert listing(node) == before
    assert len(connection.elements(TABLE, maps.FRONTENDS[suffix])) == 1
    backend.close()


FIREWALLS = {
    "a policy": (
        "add table ip theirs; add chain ip theirs passing { type filter hook forward priority 0; policy drop; }",
        "nft insert rule ip theirs passing ip saddr 10.244.0.0/16 accept && "
        "nft insert rule ip theirs passing ip daddr 10.244.0.0/16 accept",
    ),
    "firewalld": (
        "add table inet firewalld; add chain inet firewalld filter_FORWARD "
        "{ type filter hook forward priority 10; policy accept; }; "
        "add rule inet firewalld filter_FORWARD ct state established accept; "
        "add rule inet firewalld filter_FORWARD reject with icmpx type admin-prohibited",
        "firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16 && firewall-cmd --reload",
    ),
    "Docker": (
        "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; "
        "add chain ip filter DOCKER-USER; add rule ip filter DOCKER-USER counter return; "
        "add rule ip filter FORWARD counter jump DOCKER-USER",
        "iptables -I DOCKER-USER -s 10.244.0.0/16 -j ACCEPT && iptables -I DOCKER-USER -d 10.244.0.0/16 -j ACCEPT",
    ),
    "ufw": (
        "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; "
        "add chain ip filter ufw-before-forward; add rule ip filter ufw-before-forward ct state established accept; "
        "add rule ip filter FORWARD counter jump ufw-before-forward",
        "ufw route allow from 10.244.0.0/16 && ufw route allow to 10.244.0.0/16",
    ),
}


@pytest.mark.parametrize("name", FIREWALLS)
async def test_somebody_elses_drop_is_reported_with_the_command_that_opens_it(node: Namespace, name: str) -> None:
    """In the log and as an Event on the Node, when it is there at the start; and their table stays as it was."""
    rules, remedy = FIREWALLS[name]
    node.run("nft", rules)
    theirs = node.run("nft", "list", "ruleset")
    asked = api()
    async with proxied(node, asked):
        await until("an event", lambda: bool(asked.written))
    (event,) = asked.written
    assert (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == ("Node", NODE)
    assert event["reason"] == "PacketsMayBeDropped"
    assert event["message"].endswith(f"to let them pass: {remedy}")
    assert node.run("nft", "list", "ruleset").startswith(theirs)


async def test_a_firewall_that_comes_later_is_noticed_and_one_that_is_opened_too(
    node: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    """Reported when it appears; running the command given ends the complaint."""
    caplog.set_level(logging.INFO)
    asked = api()
    async with proxied(node, asked):
        node.run("nft", FIREWALLS["a policy"][0])
        await until("an event", lambda: bool(asked.written))
        for command in FIREWALLS["a policy"][1].split(" && "):
            node.run(*command.split())
        await until(
            "it is open", lambda: "no longer stands in the way of packets of pods (10.244.0.0/16)" in caplog.text
        )
        assert len(asked.written) == 1
    assert json.loads(node.run("nft", "-j", "list", "chain", "ip", "theirs", "passing"))
