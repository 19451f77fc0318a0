"""Boxes with IPv4 and IPv6, and with IPv6 alone: real packets through Services of every type, over both."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from support.box import BoxUnderTest, eventually, fresh_box
from support.dualstack import (
    ASK,
    apply,
    ask,
    ask_from_host,
    family,
    node_ips,
    pod,
    pod_ips,
    service,
)
from support.ports import free_port

BOTH = {"ipFamilyPolicy": "RequireDualStack"}
NODES = ("node1", "node2")
NAMES = """
import socket, sys
kind = {"4": socket.AF_INET, "6": socket.AF_INET6}[sys.argv[2]]
try: print(*sorted({a[4][0] for a in socket.getaddrinfo(sys.argv[1], 80, kind)}))
except socket.gaierror as error: print(error.errno)
"""
families = pytest.mark.parametrize("version", [4, 6])
kinds = pytest.mark.parametrize("kind", ["tcp", "udp"])


@pytest.fixture(scope="module")
def dual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoxUnderTest]:
    """Two nodes with an echo server each, `client` on the second, and a Service of each type."""
    with fresh_box(tmp_path_factory.mktemp("dual") / "box") as box:
        box.up("--nodes", "2", "--ip-family", "dual")
        said = apply(
            box,
            pod("echo1", "node1", app="echo"),
            pod("echo2", "node2", app="echo"),
            pod("client", "node2"),
            service("cluster", **BOTH),
            service("headless", clusterIP="None", **BOTH),
            service("node", type="NodePort", **BOTH),
            service("balanced", type="LoadBalancer", **BOTH),
            service("sticky", sessionAffinity="ClientIP", **BOTH),
            service("six", ipFamilies=["IPv6"]),
            service("first6", ipFamilies=["IPv6", "IPv4"], **BOTH),
            service("prefers", ipFamilyPolicy="PreferDualStack"),
            service("single"),
        )
        assert said.count("created") == 12, said
        box.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        box.wait_programmed()
        yield box


def cluster_ips(box: BoxUnderTest, name: str) -> dict[int, str]:
    """family -> cluster IP."""
    return {family(ip): ip for ip in box.get("service", name)["spec"]["clusterIPs"]}


def load_balancer_ips(box: BoxUnderTest, name: str) -> list[str]:
    ingress = eventually(lambda: box.get("service", name)["status"]["loadBalancer"]["ingress"], what="its addresses")
    return [found["ip"] for found in ingress]  # type: ignore[attr-defined]


def own(box: BoxUnderTest, name: str, version: int) -> str:
    """A pod's address of a family."""
    return next(ip for ip in pod_ips(box, name) if family(ip) == version)


def test_nodes_pods_and_ranges_have_both_families(dual: BoxUnderTest) -> None:
    """IPv4 first, in the API and in what `kubesvc status` prints."""
    (ranges,) = dual.get("servicecidrs")["items"]
    assert ranges["spec"]["cidrs"] == ["10.96.0.0/16", "fd00:10:96::/112"]
    status = dual.kubesvc("status").stdout
    for name in NODES:
        addresses, cidrs = node_ips(dual, name), dual.get("node", name)["spec"]["podCIDRs"]
        assert [family(ip) for ip in addresses] == [4, 6]
        assert [ip_network(cidr).prefixlen for cidr in cidrs] == [24, 64]
        assert all(text in status for text in (*addresses, *cidrs))
    found = dual.get("pod", "echo1")["status"]
    assert [family(ip["ip"]) for ip in found["podIPs"]] == [4, 6]
    assert found["podIP"] == found["podIPs"][0]["ip"]
    assert [ip["ip"] for ip in found["hostIPs"]] == node_ips(dual, "node1")
    cidrs = dual.get("node", "node1")["spec"]["podCIDRs"]
    assert all(ip_address(ip["ip"]) in ip_network(cidr) for ip, cidr in zip(found["podIPs"], cidrs, strict=True))
    assert f"[{cluster_ips(dual, 'cluster')[6]}]:80/TCP" in status
    hosts = dual.kubectl("exec", "client", "--", "cat", "/etc/hosts")
    assert all(f"{ip}\tclient\n" in hosts for ip in pod_ips(dual, "client"))


@pytest.mark.parametrize(
    ("name", "policy", "order"),
    [
        ("single", "SingleStack", ["IPv4"]),
        ("six", "SingleStack", ["IPv6"]),
        ("prefers", "PreferDualStack", ["IPv4", "IPv6"]),
        ("cluster", "RequireDualStack", ["IPv4", "IPv6"]),
        ("first6", "RequireDualStack", ["IPv6", "IPv4"]),
        ("headless", "RequireDualStack", ["IPv4", "IPv6"]),
    ],
)
def test_a_service_has_the_families_it_asks_for(dual: BoxUnderTest, name: str, policy: str, order: list[str]) -> None:
    """Addresses in their order, and a slice of endpoints of each."""
    spec = dual.get("service", name)["spec"]
    assert (spec["ipFamilyPolicy"], spec["ipFamilies"]) == (policy, order)
    if name != "headless":
        assert [f"IPv{family(ip)}" for ip in spec["clusterIPs"]] == order
        assert spec["clusterIP"] == spec["clusterIPs"][0]
    slices = dual.get("endpointslices", "-l", f"kubernetes.io/service-name={name}")["items"]
    found = {s["addressType"]: {e["addresses"][0] for e in s["endpoints"]} for s in slices}
    assert found == {f"IPv{v}": {own(dual, f"echo{n}", v) for n in (1, 2)} for v in (4, 6) if f"IPv{v}" in order}


@kinds
@families
def test_a_cluster_ip_leads_to_every_pod_and_keeps_the_source(dual: BoxUnderTest, version: int, kind: str) -> None:
    """On both nodes; each pod sees the client's own address of that family."""
    answers = ask(dual, "client", kind, cluster_ips(dual, "cluster")[version], count=40)
    assert {name for name, _, _ in answers} == {"echo1", "echo2"}
    assert {seen for _, seen, _ in answers} == {own(dual, "client", version)}


@families
def test_pods_reach_each_other_across_nodes_and_themselves_through_a_service(dual: BoxUnderTest, version: int) -> None:
    """Pod to pod without translation; hairpin."""
    assert ask(dual, "client", "tcp", own(dual, "echo1", version), 8080) == [("echo1", own(dual, "client", version), 1)]
    names = {name for name, _, _ in ask(dual, "echo1", "tcp", cluster_ips(dual, "cluster")[version], count=40)}
    assert names == {"echo1", "echo2"}


@kinds
@families
def test_affinity_keeps_a_client_with_its_pod(dual: BoxUnderTest, version: int, kind: str) -> None:
    """Of 30 connections through a Service that spreads them otherwise."""
    answers = ask(dual, "client", kind, cluster_ips(dual, "sticky")[version], count=30)
    assert len({name for name, _, _ in answers}) == 1


@families
def test_names_have_the_addresses_of_each_family(dual: BoxUnderTest, version: int) -> None:
    """A and AAAA of Services and of pods behind a headless one; none where the Service has none; and back."""

    def names(name: str) -> list[str]:
        return dual.kubectl("exec", "client", "--", "python3", "-c", NAMES, name, str(version)).split()

    address = cluster_ips(dual, "cluster")[version]
    assert names("cluster") == [address]
    assert set(names("headless")) == {own(dual, f"echo{n}", version) for n in (1, 2)}
    assert names({4: "six", 6: "single"}[version]) == [str(socket.EAI_NODATA)]
    code = "import socket, sys; print(socket.gethostbyaddr(sys.argv[1])[0])"
    assert dual.kubectl("exec", "client", "--", "python3", "-c", code, address) == "cluster.default.svc.cluster.local\n"


@kinds
@families
def test_node_ports_answer_on_every_node(dual: BoxUnderTest, version: int, kind: str) -> None:
    """This machine asks, and pods do."""
    port = dual.get("service", "node")["spec"]["ports"][kind == "udp"]["nodePort"]
    for node in NODES:
        address = next(ip for ip in node_ips(dual, node) if family(ip) == version)
        assert ask_from_host(address, port, kind)[0] in ("echo1", "echo2")
        assert ask(dual, "client", kind, address, port)[0][0] in ("echo1", "echo2")


@kinds
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_node_ports_answer_on_the_nodes_own_localhost(dual: BoxUnderTest, address: str, kind: str) -> None:
    """Of each node; also those of a Service of the other family, on ::1."""
    for name in ("node", "six") if address == "::1" else ("node",):
        if name == "six":
            dual.kubectl("patch", "service", "six", "-p", '{"spec": {"type": "NodePort"}}')
        port = str(dual.get("service", name)["spec"]["ports"][kind == "udp"]["nodePort"])

        def asked(node: str, port: str = port) -> bool:
            return dual.inside(node, "python3", "-c", ASK, kind, address, port, "3", "9").count("echo") == 3

        for node in NODES:
            eventually(lambda node=node: asked(node), what=f"{kind} {name} by {address} on {node}")


def test_load_balancer_addresses_of_both_families_answer(dual: BoxUnderTest) -> None:
    """By ARP and by NDP: no node has them as its own. This machine and pods ask."""
    ingress = load_balancer_ips(dual, "balanced")
    assert [family(ip) for ip in ingress] == [4, 6]
    for address in ingress:
        for kind in ("tcp", "udp"):
            assert str(eventually(lambda a=address, k=kind: ask_from_host(a, 80, k)[0])).startswith("echo")
            eventually(lambda a=address, k=kind: ask(dual, "client", k, a)[0][0].startswith("echo"))
        for node in NODES:
            assert f"{address}/" not in dual.inside(node, "ip", "-o", "addr")


def test_a_service_gains_and_loses_its_second_family(dual: BoxUnderTest) -> None:
    """The second address comes and goes with ipFamilyPolicy, and packets with it; the first stays."""
    assert "created" in apply(dual, service("changes"))
    (first,) = cluster_ips(dual, "changes").values()
    dual.kubectl("patch", "service", "changes", "-p", '{"spec": {"ipFamilyPolicy": "PreferDualStack"}}')
    second = cluster_ips(dual, "changes")[6]
    eventually(lambda: ask(dual, "client", "tcp", second), what="the second address")
    single = {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": [first]}
    dual.kubectl("patch", "service", "changes", "-p", json.dumps({"spec": single}))
    assert cluster_ips(dual, "changes") == {4: first}
    eventually(lambda: second not in dual.inside("node2", "nft", "list", "ruleset"), what="the second address is gone")
    assert ask(dual, "client", "tcp", first)


def test_a_node_added_has_both_families_and_takes_them_along(dual: BoxUnderTest) -> None:
    """Pods on it are reached over each; its routes go with it."""
    dual.kubesvc("node", "add", "east1")
    assert "created" in apply(dual, pod("away", "east1"))
    dual.kubectl("wait", "--for=condition=Ready", "pod/away", "--timeout=60s")
    addresses = pod_ips(dual, "away")
    assert [family(ip) for ip in addresses] == [4, 6]
    for address in addresses:
        assert ask(dual, "client", "udp", address, 8080)[0][0] == "away"
    cidr = dual.get("node", "east1")["spec"]["podCIDRs"][1]
    assert cidr in dual.inside("node1", "ip", "-6", "route")
    dual.kubesvc("node", "remove", "east1")
    eventually(lambda: cidr not in dual.inside("node1", "ip", "-6", "route"), what="the route is gone")


def test_addresses_survive_the_death_of_everything(dual: BoxUnderTest) -> None:
    """All processes killed at once: pods go on with their addresses, newcomers get others, packets flow over both."""
    names = ("echo1", "echo2", "client")
    before = {name: pod_ips(dual, name) for name in names}
    dual.kill()
    dual.up()
    assert "created" in apply(dual, pod("newcomer", "node1"))
    dual.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    assert {name: pod_ips(dual, name) for name in names} == before
    assert not {ip for ips in before.values() for ip in ips} & set(pod_ips(dual, "newcomer"))
    for address in cluster_ips(dual, "cluster").values():
        eventually(lambda a=address: len({n for n, _, _ in ask(dual, "client", "udp", a, count=20)}) == 2)


def test_a_box_of_ipv6_alone(tmp_path: Path) -> None:
    """Nodes, names, Services of every type, logs, exec and published ports work; IPv4 is refused as upstream does."""
    published = free_port()
    with fresh_box(tmp_path / "box") as box:
        box.up("--ip-family", "ipv6", "--publish", f"{published}:30080", "--publish", f"{published}:30080/udp")
        ports = [port | {"nodePort": 30080} for port in service("x")["spec"]["ports"]]
        said = apply(
            box,
            pod("echo", "node1", app="echo"),
            pod("client", "node1"),
            service("web", type="LoadBalancer", ports=ports),
        )
        assert said.count("created") == 3, said
        box.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        box.wait_programmed()
        (inside,) = cluster_ips(box, "web").values()
        (node,) = node_ips(box, "node1")
        assert {family(ip) for ip in (inside, node, *pod_ips(box, "echo"))} == {6}
        assert (
            box.get("endpointslices", "-l", "kubernetes.io/service-name=kubernetes")["items"][0]["addressType"]
            == "IPv6"
        )
        names = ("exec", "client", "--", "python3", "-c", NAMES, "web", "6")
        eventually(lambda: box.kubectl(*names).split() == [inside], what="its name")
        for kind in ("tcp", "udp"):
            assert ask(box, "client", kind, inside)[0][0] == "echo"
            assert ask_from_host(node, 30080, kind)[0] == "echo"
            for here in ("127.0.0.1", "::1"):
                assert eventually(lambda h=here, k=kind: ask_from_host(h, published, k)[0] == "echo")
        (address,) = load_balancer_ips(box, "web")
        assert eventually(lambda: ask_from_host(address, 80)[0] == "echo")
        assert "not configured on this cluster" in apply(box, service("four", ipFamilies=["IPv4"]))
        assert "not configured for dual-stack" in apply(box, service("both", **BOTH))


def packets(box: BoxUnderTest, source: str, address: str, size: int) -> str:
    """One packet of `size` bytes, IP header included, that may not be taken apart; what ping says."""
    headers = 48 if family(address) == 6 else 28
    words = ["ping", "-c", "1", "-W", "5", "-M", "do", "-s", str(size - headers), address]
    return box.kubectl("exec", source, "--", *words, check=False)


def test_the_mtu_is_that_of_every_link_and_packets_fill_it(tmp_path: Path) -> None:
    """Packets of just that size pass between nodes, pods and this machine unbroken; larger ones are refused at their
    source. Large answers come back through Services, by TCP and UDP."""
    with fresh_box(tmp_path / "box") as box:
        refused = box.kubesvc("up", "--ip-family", "dual", "--mtu", "1200", check=False)
        assert "--mtu 1200: expected 1280 to 65535 bytes" in refused.stderr
        box.up("--nodes", "2", "--ip-family", "dual", "--mtu", "1380")
        assert "created" in apply(
            box, pod("echo1", "node1", app="echo"), pod("client", "node2"), service("cluster", **BOTH)
        )
        box.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        box.wait_programmed()
        for link in json.loads(subprocess.check_output(["ip", "-j", "link", "show", f"ks-{box.name}"])):
            assert link["mtu"] == 1380
        for part in ("net", "node1", "node2"):
            links = json.loads(box.inside(part, "ip", "-j", "link"))
            assert {link["mtu"] for link in links if link["ifname"] != "lo"} == {1380}
        for address in (*pod_ips(box, "echo1"), *node_ips(box, "node1")):
            assert "1 received" in packets(box, "client", address, 1380), address
            assert "1 received" not in (said := packets(box, "client", address, 1381)), address
            assert "too long" in said or "too big" in said, said
        for address in cluster_ips(box, "cluster").values():
            for kind, size in (("tcp", 3_000_000), ("udp", 20_000)):
                assert ask(box, "client", kind, address, size=size)[0][2] == size
