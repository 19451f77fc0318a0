"""`kubesvc up --cloud gcp`: a passthrough Network Load Balancer's manners, with traffic."""

from __future__ import annotations

import pytest

from support.box import eventually
from support.cloud import Cloud, cloud


@pytest.fixture(scope="module")
def gcp(tmp_path_factory):
    with cloud("gcp", tmp_path_factory.mktemp("gcp") / "box") as made:
        yield made


def test_the_status_is_an_address_that_packets_keep(gcp: Cloud) -> None:
    """ipMode VIP: a node sees the balancer's address as destination, the client's as source."""
    gcp.service("web", externalTrafficPolicy="Local")
    ingress = gcp.ingress("web")
    assert (ingress["ipMode"], set(ingress)) == ("VIP", {"ip", "ipMode"})
    address = ingress["ip"]
    assert eventually(lambda: gcp.asks(address)[1]) == gcp.client_address
    assert eventually(lambda: gcp.machine_asks(address)[1]) == gcp.host_address
    assert f"A {address}" in gcp.box.kubesvc("status").stdout
    seen = gcp.box.inside("node1", "conntrack", "-L") + gcp.box.inside("node2", "conntrack", "-L")
    assert f"src={gcp.client_address} dst={address}" in seen


def test_policy_cluster_hides_the_client(gcp: Cloud) -> None:
    gcp.service("hidden")
    address = gcp.address("hidden")
    assert eventually(lambda: gcp.asks(address)[1]) in gcp.nodes.values()


def test_pods_do_not_go_through_the_balancer(gcp: Cloud) -> None:
    """Their node serves an address that it knows as a Service's: so even what the balancer would refuse is answered."""
    gcp.service("near", {"networking.gke.io/load-balancer-type": "Internal"})
    address = gcp.address("near")
    eventually(lambda: gcp.asks(address), 60, "served")
    table = ("nft", "list", "table", "inet", "kubesvc")
    eventually(lambda: f" {address} . " in gcp.box.inside("node2", *table), 60, "the client's node knows it")
    before = gcp.box.inside("cloud", "conntrack", "-L")
    assert gcp.from_pod("client", address)[0].startswith("echo-")
    pod_address = gcp.box.get("pod", "client")["status"]["podIP"]
    assert pod_address not in before + gcp.box.inside("cloud", "conntrack", "-L")


def test_an_internal_balancer_is_silent_outside(gcp: Cloud) -> None:
    gcp.service("inner", {"networking.gke.io/load-balancer-type": "Internal"})
    address = gcp.address("inner")
    eventually(lambda: gcp.asks(address), 60, "served inside")
    assert gcp.silent(address, machine=True)


def test_source_ranges_are_obeyed(gcp: Cloud) -> None:
    gcp.service("guarded", loadBalancerSourceRanges=[f"{gcp.client_address}/32"], externalTrafficPolicy="Local")
    address = gcp.address("guarded")
    eventually(lambda: gcp.asks(address), 60, "the client may")
    assert gcp.silent(address, machine=True)


def test_only_nodes_with_endpoints_are_used_under_policy_local(gcp: Cloud) -> None:
    gcp.pods("only", "node2")
    gcp.service("local", selector={"app": "only"}, externalTrafficPolicy="Local")
    address = gcp.address("local")
    eventually(lambda: len(choices(gcp, address)) == 1, 60, "node1 is out")
    assert {gcp.asks(address)[0] for _ in range(20)} == {"only-node2"}


def choices(gcp: Cloud, address: str) -> list[str]:
    return [line for line in gcp.rules().splitlines() if address in line and "ct mark set" in line]


def both(gcp: Cloud, name: str, address: str) -> bool:
    return gcp.healthy(name) == set(gcp.nodes) and len(choices(gcp, address)) == 2


def test_an_address_asked_for_is_given_once(gcp: Cloud) -> None:
    """spec.loadBalancerIP; the second that asks waits, with the reason, and is served when the first goes."""
    gcp.service("first")
    wanted = ".".join([*gcp.address("first").split(".")[:3], "240"])
    gcp.service("asks", loadBalancerIP=wanted)
    eventually(lambda: gcp.address("asks") == wanted, 60, "given")
    gcp.service("also", loadBalancerIP=wanted)
    said = eventually(lambda: gcp.reasons("also").get("SyncLoadBalancerFailed"), 60, "refused")
    assert f"AddressInUse: {wanted} is held by Service default/asks" in str(said)
    gcp.box.kubectl("delete", "service", "asks", "--timeout=60s")
    assert gcp.address("also") == wanted


def test_a_client_stays_with_its_node_under_affinity(gcp: Cloud) -> None:
    gcp.service("sticky", sessionAffinity="ClientIP", externalTrafficPolicy="Local")
    address = gcp.address("sticky")
    eventually(lambda: both(gcp, "sticky", address), 60, "both nodes are healthy")
    assert len({gcp.asks(address)[0] for _ in range(20)}) == 1


def test_udp_is_balanced_too(gcp: Cloud) -> None:
    ports = [{"name": "u", "port": 53, "targetPort": 8080, "protocol": "UDP"}]
    gcp.service("udp", ports=ports, externalTrafficPolicy="Local")
    address = gcp.address("udp")
    assert eventually(lambda: gcp.udp(address, 53)[1]) == gcp.client_address


def test_a_dead_node_is_taken_out_by_the_health_check(gcp: Cloud) -> None:
    """Its cable is pulled: connections that would have gone there don't, and it comes back by itself."""
    gcp.service("lives", externalTrafficPolicy="Local")
    address = gcp.address("lives")
    eventually(lambda: both(gcp, "lives", address), 60, "both are healthy")
    gcp.box.inside("net", "ip", "link", "set", "node2", "down")
    try:
        eventually(lambda: len(choices(gcp, address)) == 1, 60, "node2 is out")
        assert {gcp.asks(address)[0] for _ in range(20)} == {"echo-node1"}
    finally:
        gcp.box.inside("net", "ip", "link", "set", "node2", "up")
    eventually(lambda: len(choices(gcp, address)) == 2, 60, "node2 is back")
    eventually(lambda: {gcp.asks(address)[0] for _ in range(20)} == {"echo-node1", "echo-node2"}, 60, "it serves")


def test_the_balancers_outlive_their_process(gcp: Cloud) -> None:
    """Its death stops no traffic; the next one knows all there is."""
    gcp.service("steady", externalTrafficPolicy="Local")
    address = gcp.address("steady")
    eventually(lambda: both(gcp, "steady", address), 60, "both are healthy")
    status = gcp.box.kubesvc("status").stdout
    pid = next(line.split()[1] for line in status.splitlines() if line.startswith("cloud "))
    gcp.box.inside("cloud", "kill", "-9", pid)
    assert gcp.asks(address)
    eventually(lambda: "signal SIGKILL" in gcp.box.kubesvc("status").stdout, 60, "it is back")
    eventually(lambda: len(choices(gcp, address)) == 2, 60, "everybody is healthy again")
    assert gcp.asks(address)
