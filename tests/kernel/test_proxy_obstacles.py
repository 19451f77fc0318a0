"""Firewalls of others, made with the real tools: what they drop is reported, and the command given lets it pass.

outside 172.29.7.99 ── node 172.29.7.11 ══ pod 10.244.0.1
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pytest

from kubesvc.api.nodes import Node
from kubesvc.kernel.iptables import LegacyFilters
from kubesvc.kernel.nft.foreign import BaseChain, Filters
from kubesvc.proxy.doors import Door
from kubesvc.proxy.layout import TABLE
from kubesvc.proxy.obstacles import find
from support.lists import Api
from support.net import DEADLINE, Lab, Namespace, ask
from support.proxied import proxied, until
from support.proxy import NODE, NODE_IP, RANGES, endpoint, service, slice_of

POD, NODE_PORT, HEALTH, HOSTED = "10.244.0.1", 30080, 32100, 6443
NODE_OBJECT = msgspec.convert({"metadata": {"name": NODE, "uid": "1", "resourceVersion": "1"}}, Node)
WEB = service(
    type="LoadBalancer",
    externalTrafficPolicy="Local",
    healthCheckNodePort=HEALTH,
    ports=[{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}],
)
API = service("kubernetes", "10.96.0.1", ports=[{"name": "https", "port": 443, "targetPort": HOSTED}])
API_SLICE = slice_of(
    endpoint(NODE_IP, node=NODE), owner="kubernetes", ports=[{"name": "https", "port": HOSTED, "protocol": "TCP"}]
)

# As each writes it: `iptables-restore` format, the rules that matter here.
DOCKER = """
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -o docker0 -j DOCKER
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
"""
UFW = """
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:ufw-before-input - [0:0]
:ufw-before-forward - [0:0]
:ufw-not-local - [0:0]
:ufw-user-input - [0:0]
:ufw-user-forward - [0:0]
:ufw-user-limit-accept - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp --icmp-type echo-request -j ACCEPT
-A ufw-before-input -p udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -j ufw-user-input
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp --icmp-type echo-request -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -j DROP
-A ufw-user-input -p tcp -m multiport --dports 80,443 -j ACCEPT
-A ufw-user-input -p tcp --dport 22 -j ACCEPT
-A ufw-user-limit-accept -j ACCEPT
"""
REJECTING = """
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A FORWARD -m comment --comment "nothing passes" -j REJECT --reject-with icmp-host-prohibited
"""
PODS = "10.244.0.0/16"

# rule set, the commands given for each tool: forward first, then input
SETS = {
    "Docker": (DOCKER, ("{0} -I DOCKER-USER -s {1} -j ACCEPT && {0} -I DOCKER-USER -d {1} -j ACCEPT",)),
    "ufw": (UFW, ("ufw route allow from {1} && ufw route allow to {1}", f"ufw allow {HOSTED},{HEALTH}/tcp")),
    "a last rule that rejects": (
        REJECTING,
        (
            "{0} -I FORWARD -s {1} -j ACCEPT && {0} -I FORWARD -d {1} -j ACCEPT",
            f"{{0}} -I INPUT -p tcp -m multiport --dports {HOSTED},{HEALTH} -j ACCEPT",
        ),
    ),
}
AS_UFW_DOES = {  # what its commands come to; it keeps them in files of the machine's
    "ufw route allow from": "{0} -A ufw-user-forward -s {1} -j ACCEPT",
    "ufw route allow to": "{0} -A ufw-user-forward -d {1} -j ACCEPT",
    "ufw allow": f"{{0}} -A ufw-user-input -p tcp -m multiport --dports {HOSTED},{HEALTH} -j ACCEPT",
}


@dataclass
class World:
    node: Namespace
    outside: Namespace

    def restore(self, tool: str, rules: str) -> None:
        """`iptables-restore` of a table filter."""
        command = ["ip", "netns", "exec", self.node.name, f"{tool}-restore"]
        done = subprocess.run(command, input=f"*filter{rules}COMMIT\n", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def passes(self, port: int, patience: float) -> bool:
        try:
            ask(self.outside, NODE_IP, port, timeout=patience)
        except OSError:
            return False
        return True


@pytest.fixture
def world() -> Iterator[World]:
    with Lab("obstacle") as lab:
        node, outside = lab.namespace("node"), lab.namespace("outside")
        lab.link(node, "eth0", outside, "eth0")
        node.ip("addr", "add", f"{NODE_IP}/24", "dev", "eth0")
        outside.ip("addr", "add", "172.29.7.99/24", "dev", "eth0")
        lab.serve(lab.pod(node, "pod", POD), 8080, "pod")
        lab.serve(node, HEALTH, "health")
        lab.serve(node, HOSTED, "hosted")
        yield World(node, outside)


def reported(api: Api) -> list[str]:
    return [event["message"] for event in api.written if event.get("reason") == "PacketsMayBeDropped"]


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize("name", SETS)
async def test_what_a_firewall_drops_passes_after_the_command_given(world: World, name: str, tool: str) -> None:
    """Node ports at the forward hook, health checks and endpoints of this node itself at the input hook: dropped,
    reported with the chain and the command, open once that was run, and nobody else touched their rules."""
    rules, remedies = SETS[name]
    world.restore(tool, rules)
    theirs = world.node.run(f"{tool}-save").replace(":OUTPUT ACCEPT", "").split("\n", 1)[1]
    used = tool if tool.endswith("legacy") else "iptables"
    wanted = [text.format(used, PODS) for text in remedies]
    api = Api(services=[WEB, API], endpointslices=[slice_of(endpoint(POD, node=NODE)), API_SLICE], nodes=[NODE_OBJECT])
    async with proxied(world.node, api):
        await until("reported", lambda: len(reported(api)) >= len(remedies))
        messages = reported(api)
        assert [m.rpartition("let them pass: ")[2] for m in sorted(messages, key=lambda m: " INPUT" in m)] == wanted
        assert all(("of iptables-legacy" in message) == tool.endswith("legacy") for message in messages)
        if len(wanted) > 1:
            closed = next(message for message in messages if " INPUT" in message)
            assert f"{HOSTED} (Service default/kubernetes has an endpoint there)" in closed
            assert f"{HEALTH} (the health check of Service default/web)" in closed
        for port, opened in ((NODE_PORT, False), (HEALTH, len(wanted) == 1), (HOSTED, len(wanted) == 1)):
            assert world.passes(port, DEADLINE if opened else 0.4) is opened, port
        after = world.node.run(f"{tool}-save").replace(":OUTPUT ACCEPT", "").split("\n", 1)[1]
        assert _rules(after) == _rules(theirs)
        for command in " && ".join(wanted).split(" && "):
            for start, meant in AS_UFW_DOES.items():
                if command.startswith(start):
                    command = meant.format(tool, PODS)
            world.node.run(*shlex.split(command.replace("iptables ", f"{tool} ") if tool not in command else command))
        assert all(world.passes(port, DEADLINE) for port in (NODE_PORT, HEALTH, HOSTED))
    assert obstacles_of(world.node) == []


def _rules(saved: str) -> list[str]:
    return [line for line in saved.splitlines() if line.startswith("-A")]


def chains_of(node: Namespace) -> list[BaseChain]:
    filters, legacy = node.call(Filters), node.call(LegacyFilters)
    assert isinstance(filters, Filters)
    assert isinstance(legacy, LegacyFilters)
    try:
        return [*filters.read(TABLE), *legacy.read()]
    finally:
        filters.close()
        legacy.close()


DOORS = (Door("tcp", HEALTH, 4, "a"), Door("tcp", HOSTED, 4, "b"), Door("udp", 5353, 6, "c"))


def obstacles_of(node: Namespace) -> list[str]:
    doors = [door for door in DOORS if door.version == 4]
    return [str(found) for found in find(chains_of(node), RANGES.pod_cidrs, doors)]


def test_looking_makes_no_table(world: World) -> None:
    """A node without iptables-legacy has none after it was looked for."""
    assert chains_of(world.node) == []
    with_names = world.node.run("cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")
    assert with_names == ""


INPUTS = {
    "open by policy": ("iptables-legacy", "-P INPUT ACCEPT", True),
    "closed by policy": ("iptables-legacy", "-P INPUT DROP", False),
    "closed, IPv6": ("ip6tables-legacy", "-P INPUT DROP", False),
    "closed, IPv6 by nft": ("ip6tables-nft", "-P INPUT DROP", False),
    "open by a range": ("iptables-legacy", "-P INPUT DROP; -A INPUT -p tcp --dport 1000:60000 -j ACCEPT", True),
    "open by a range in nft": ("iptables-nft", "-P INPUT DROP; -A INPUT -p tcp --dport 1000:60000 -j ACCEPT", True),
    "open for udp alone": ("iptables-nft", "-P INPUT DROP; -A INPUT -p udp --dport 1000:60000 -j ACCEPT", False),
    "open by a range of several": (
        "iptables-legacy",
        f"-P INPUT DROP; -A INPUT -p tcp -m multiport --dports 22,6000:7000,{HEALTH} -j ACCEPT",
        True,
    ),
    "open by source port": ("iptables-legacy", "-P INPUT DROP; -A INPUT -p tcp --sport 1:65535 -j ACCEPT", False),
    "all accepted before the policy": ("iptables-legacy", "-P INPUT DROP; -A INPUT -j ACCEPT", True),
    "what is established": (
        "iptables-legacy",
        "-P INPUT DROP; -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        False,
    ),
    "a last rule that drops": ("iptables-legacy", "-A INPUT -p tcp --dport 22 -j ACCEPT; -A INPUT -j DROP", False),
}


@pytest.mark.parametrize("name", INPUTS)
def test_whether_a_port_is_open(world: World, name: str) -> None:
    """As rules of both tools say it: policies, ports, ranges, lists, protocols, families."""
    tool, commands, open_ = INPUTS[name]
    for command in commands.split("; "):
        world.node.run(tool, *command.split())
    version = 6 if tool.startswith("ip6") else 4
    doors = [door for door in DOORS if door.version == version]
    found = [str(each) for each in find(chains_of(world.node), (), doors)]
    assert bool(found) is not open_
    assert all(f"to let them pass: {tool.replace('-nft', '')} -I INPUT -p " in each for each in found)


NFT_INPUTS = {
    "a chain of nft's own": (
        "add table inet t; add chain inet t in { type filter hook input priority 0; policy drop; }",
        [f"nft insert rule inet t in tcp dport {{ {HOSTED}, {HEALTH} }} accept"],
    ),
    "a set that may hold the port": (
        "add table inet t; add chain inet t in { type filter hook input priority 0; policy drop; }; "
        "add rule inet t in tcp dport { 22, 1024-65535 } accept",
        [],
    ),
    "firewalld": (
        "add table inet firewalld; add chain inet firewalld filter_INPUT { type filter hook input priority 10; }; "
        "add chain inet firewalld filter_IN_public_allow; "
        "add rule inet firewalld filter_IN_public_allow tcp dport 22 accept; "
        "add chain inet firewalld filter_IN_trusted; add rule inet firewalld filter_IN_trusted accept; "
        "add rule inet firewalld filter_INPUT ct state { established, related } accept; "
        'add rule inet firewalld filter_INPUT iifname "lo" accept; '
        "add rule inet firewalld filter_INPUT reject with icmpx admin-prohibited",
        [f"firewall-cmd --permanent --add-port={HOSTED}/tcp --add-port={HEALTH}/tcp && firewall-cmd --reload"],
    ),
    "this node's own way out": (
        "add table ip t; add chain ip t out { type filter hook output priority 0; policy drop; }",
        [f"nft insert rule ip t out ip daddr {PODS} accept"],
    ),
}


@pytest.mark.parametrize("name", NFT_INPUTS)
def test_input_and_output_chains_of_nft(world: World, name: str) -> None:
    """The command is the one of whoever made the table; having run it, nothing is left to complain of."""
    rules, remedies = NFT_INPUTS[name]
    world.node.run("nft", rules)
    found = obstacles_of(world.node)
    assert [each.rpartition("let them pass: ")[2] for each in found] == remedies
    for command in remedies:
        if command.startswith("nft"):
            world.node.run("nft", command.removeprefix("nft "))
            assert obstacles_of(world.node) == []
