"""`kubesvc up --cloud azure`: the shared Standard Load Balancer's manners, with traffic; and what `down` leaves."""

from __future__ import annotations

import pytest

from support.box import eventually, footprint, fresh_box, machine, own_network
from support.cloud import Cloud, cloud

PREFIX = "service.beta.kubernetes.io/azure-"


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    with cloud("azure", tmp_path_factory.mktemp("azure") / "box") as made:
        yield made


def test_the_status_is_an_address_and_the_client_is_seen(azure: Cloud) -> None:
    """Floating IP: the balancer's address is the destination at the node."""
    azure.service("web", externalTrafficPolicy="Local")
    assert azure.ingress("web")["ipMode"] == "VIP"
    address = azure.address("web")
    assert eventually(lambda: azure.asks(address)[1]) == azure.client_address
    assert eventually(lambda: azure.machine_asks(address)[1]) == azure.host_address
    azure.service("hidden")
    hidden = azure.address("hidden")
    assert eventually(lambda: azure.asks(hidden)[1]) in azure.nodes.values()


def test_without_floating_ip_packets_come_to_the_node_port(azure: Cloud) -> None:
    azure.service("ported", {PREFIX + "disable-load-balancer-floating-ip": "true"}, externalTrafficPolicy="Local")
    address = azure.address("ported")
    assert eventually(lambda: azure.asks(address)[1]) == azure.client_address
    eventually(lambda: f"dnat ip to {azure.nodes['node1']}" in azure.rules(), 60, "node1 is healthy, too")


def test_an_internal_balancer_is_silent_outside_and_can_be_opened(azure: Cloud) -> None:
    azure.service("inner", {PREFIX + "load-balancer-internal": "true"})
    address = azure.address("inner")
    eventually(lambda: azure.asks(address), 60, "served inside")
    assert azure.silent(address, machine=True)
    azure.service("inner", {PREFIX + "load-balancer-internal": "false"})
    eventually(lambda: azure.machine_asks(address), 60, "served outside")


def test_with_no_healthy_node_nobody_is_tried(azure: Cloud) -> None:
    """Without endpoints the node port refuses the probe: connections are dropped, not refused."""
    azure.service("empty", selector={"app": "nobody"})
    address = azure.address("empty")
    eventually(lambda: f"{address} tcp dport 80 ct state new drop" in azure.rules(), 60, "nobody is chosen")
    assert azure.silent(address)


def test_a_port_without_a_rule_is_not_served(azure: Cloud) -> None:
    ports = [
        {"name": "a", "port": 80, "targetPort": 8080, "protocol": "TCP"},
        {"name": "b", "port": 90, "targetPort": 8080, "protocol": "TCP"},
    ]
    azure.service("some", {"service.beta.kubernetes.io/port_90_no_lb_rule": "true"}, ports=ports)
    address = azure.address("some")
    eventually(lambda: azure.asks(address), 60, "served")
    assert azure.silent(address, 90)
    azure.service("some", ports=ports)
    eventually(lambda: azure.asks(address, 90), 60, "served, too")


def test_a_probe_that_can_not_be_is_refused(azure: Cloud) -> None:
    azure.service("bad", {PREFIX + "load-balancer-health-probe-interval": "1"})
    said = eventually(lambda: azure.reasons("bad").get("SyncLoadBalancerFailed"), 60, "refused")
    assert "'1' isn't a number from 5 to 119" in str(said)


def test_a_node_that_is_added_takes_part(azure: Cloud) -> None:
    """It gets its way back to the balancers with its other links; removed, it is no target any more."""
    azure.service("wide", selector={"app": "wide"}, externalTrafficPolicy="Local")
    address = azure.address("wide")
    azure.box.kubesvc("node", "add", "node3")
    azure.pods("wide", "node3")
    assert eventually(lambda: azure.asks(address)[:2], 60) == ["wide-node3", azure.client_address]
    azure.box.kubesvc("node", "remove", "node3")
    eventually(lambda: {len(b["targets"]) for b in azure.ledger() if b["service"] == "default/wide"} == {2}, 60, "out")


def test_up_finds_addresses_again_and_down_leaves_nothing(tmp_path) -> None:
    """The cloud remembers with the box; everything it put on the machine goes with it."""
    with machine(), fresh_box(tmp_path / "box") as box:
        before = footprint(box)
        box.up("--cloud", "aws", "--cloud-speed", "20", *own_network())
        box.kubectl("create", "service", "loadbalancer", "web", "--tcp=80:8080")
        name = "jsonpath={.status.loadBalancer.ingress[0].hostname}"
        found = str(eventually(lambda: box.kubectl("get", "service", "web", "-o", name), 60, "it has a balancer"))
        box.interrupt()
        assert footprint(box) == before
        box.up()
        eventually(lambda: f"{found}." in box.kubesvc("status").stdout, 60, "the same name")
        box.interrupt()
        assert footprint(box) == before
        refused = box.kubesvc("up", "--cloud", "gcp", check=False)
        assert "was made with --cloud aws, not gcp" in refused.stderr
