"""What the desk's clouds make of a Service: each cloud's manners, from annotations to listeners and checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.core import Service, ServicePort, ServiceSpec
from kubesvc.api.meta import Condition, ObjectMeta
from kubesvc.api.nodes import Node, NodeAddress, NodeSpec, NodeStatus
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.provider import Refused
from kubesvc.loadbalancer.providers.desk import plan, vocabulary
from kubesvc.loadbalancer.providers.desk.model import Balancer, Check
from kubesvc.loadbalancer.providers.desk.provider import DeskProvider

AWS = "service.beta.kubernetes.io/aws-load-balancer-"
AZURE = "service.beta.kubernetes.io/azure-"
TCP = ServicePort(name="web", port=80, node_port=30080, protocol="TCP")
UDP = ServicePort(name="dns", port=53, node_port=30053, protocol="UDP")


def node(name: str, address: str, **labels: str) -> Node:
    ready = Condition(type="Ready", status="True", reason="", message="")
    return Node(
        metadata=ObjectMeta(name=name, labels=labels),
        spec=NodeSpec(pod_cidr="10.244.0.0/24"),
        status=NodeStatus(addresses=[NodeAddress(type="InternalIP", address=address)], conditions=[ready]),
    )


NODES = [node("b", "172.29.0.3", disk="ssd"), node("a", "172.29.0.2")]


def service(annotations: dict[str, str] | None = None, *, local: bool = False, **spec: Any) -> Service:
    more = {"external_traffic_policy": "Local", "health_check_node_port": 31000} if local else {}
    return Service(
        metadata=ObjectMeta(name="web", namespace="shop", uid="u-1", annotations=annotations or {}),
        spec=ServiceSpec(**({"type": "LoadBalancer", "ports": [TCP]} | more | spec)),
    )


def made(cloud: str, found: Service) -> Balancer:
    return plan.balancer(cloud, found, NODES, lambda asked: asked or "172.29.0.200")


def check(cloud: str, found: Service) -> Check | None:
    return made(cloud, found).listeners[0].check


@pytest.mark.parametrize(
    ("cloud", "local", "expected"),
    [
        ("aws", False, ("tcp", 30080, 10, 10, 3, 3)),
        ("aws", True, ("http", 31000, 10, 6, 2, 2)),
        ("gcp", False, ("http", 10256, 8, 1, 1, 3)),
        ("gcp", True, ("http", 31000, 8, 1, 1, 3)),
        ("azure", False, ("tcp", 30080, 5, 5, 1, 2)),
        ("azure", True, ("http", 31000, 5, 5, 1, 2)),
    ],
    ids=["aws", "aws-local", "gcp", "gcp-local", "azure", "azure-local"],
)
def test_each_cloud_checks_in_its_own_way(cloud: str, local: bool, expected: tuple[object, ...]) -> None:
    found = check(cloud, service(local=local))
    assert found is not None
    asked = (found.protocol, found.port, found.interval, found.timeout, found.healthy, found.unhealthy)
    assert asked == expected
    assert found.path == ("/healthz" if found.protocol == "http" else "/")


@pytest.mark.parametrize(("cloud", "mode"), [("aws", "nat"), ("gcp", "vip"), ("azure", "vip")])
def test_packets_arrive_as_the_cloud_sends_them(cloud: str, mode: str) -> None:
    assert [(p.port, p.node_port, p.mode) for p in made(cloud, service()).listeners] == [(80, 30080, mode)]


def test_aws_has_a_host_name_that_stays_and_the_others_an_address() -> None:
    found = made("aws", service({AWS + "scheme": "internet-facing"}))
    assert found == made("aws", service({AWS + "scheme": "internet-facing"}))
    (ingress,) = plan.status(found).ingress
    assert (ingress.ip, ingress.ip_mode) == ("", None)
    assert ingress.hostname.startswith("k8s-shop-web-")
    assert ingress.hostname.endswith(".elb.us-east-1.desk.kubesvc")
    named = made("aws", service({AWS + "scheme": "internet-facing", AWS + "name": "Front"}))
    assert named.hostname.startswith("front-")
    for cloud in ("gcp", "azure"):
        (ingress,) = plan.status(made(cloud, service())).ingress
        assert (ingress.ip, ingress.ip_mode, ingress.hostname) == ("172.29.0.200", "VIP", "")


@pytest.mark.parametrize(
    ("cloud", "annotations", "internal"),
    [
        ("aws", {}, True),
        ("aws", {AWS + "scheme": "internet-facing"}, False),
        ("aws", {AWS + "internal": "false"}, False),
        ("gcp", {}, False),
        ("gcp", {"networking.gke.io/load-balancer-type": "Internal"}, True),
        ("azure", {}, False),
        ("azure", {AZURE + "load-balancer-internal": "true"}, True),
    ],
)
def test_the_scheme_is_as_the_cloud_has_it(cloud: str, annotations: dict[str, str], internal: bool) -> None:
    assert made(cloud, service(annotations)).internal is internal


def test_aws_ends_connections_for_a_header_tls_or_another_source() -> None:
    for wishes, header, tls in (
        ({AWS + "proxy-protocol": "*"}, True, False),
        ({AWS + "target-group-attributes": "proxy_protocol_v2.enabled=true"}, True, False),
        ({AWS + "target-group-attributes": "preserve_client_ip.enabled=false"}, False, False),
        ({AWS + "ssl-cert": "arn:aws:acm:x"}, False, True),
    ):
        (found,) = made("aws", service(wishes)).listeners
        assert (found.mode, found.proxy_protocol, found.tls) == ("proxy", header, tls), wishes
    both = made("aws", service({AWS + "proxy-protocol": "*"}, ports=[TCP, UDP])).listeners
    assert [p.mode for p in both] == ["proxy", "nat"]
    https = ServicePort(name="https", port=443, node_port=30443, protocol="TCP")
    some = made("aws", service({AWS + "ssl-cert": "arn", AWS + "ssl-ports": "https"}, ports=[TCP, https])).listeners
    assert [p.mode for p in some] == ["nat", "proxy"]


def test_aws_takes_only_nodes_with_the_labels() -> None:
    assert [t.name for t in made("aws", service()).targets] == ["a", "b"]
    assert [t.name for t in made("aws", service({AWS + "target-node-labels": "disk=ssd"})).targets] == ["b"]


def test_health_checks_are_told_by_annotations() -> None:
    told = {"protocol": "HTTP", "port": "8080", "path": "/up", "interval": "30", "unhealthy-threshold": "2"}
    found = check("aws", service({f"{AWS}healthcheck-{name}": value for name, value in told.items()}))
    assert found == Check(protocol="http", port=8080, path="/up", interval=30, timeout=10, healthy=3, unhealthy=2)
    port = "service.beta.kubernetes.io/port_80_"
    found = check("azure", service({port + "health-probe_protocol": "http", port + "health-probe_request-path": "/up"}))
    assert found is not None
    assert (found.protocol, found.path) == ("http", "/up")
    assert check("azure", service({port + "no_probe_rule": "true"})) is None
    assert [p.port for p in made("azure", service({port + "no_lb_rule": "true"}, ports=[TCP, UDP])).listeners] == [53]
    named = {port + "health-probe_port": "admin"}
    admin = ServicePort(name="admin", port=81, node_port=30081, protocol="TCP")
    found = check("azure", service(named, ports=[TCP, admin]))
    assert found is not None
    assert found.port == 30081
    assert check("azure", service(ports=[UDP])) is None


@pytest.mark.parametrize(
    ("cloud", "annotations", "words"),
    [
        ("aws", {AWS + "scheme": "public"}, "'public' isn't one of internal, internet-facing"),
        ("aws", {AWS + "proxy-protocol": "v2"}, "'v2' isn't one of *"),
        ("aws", {AWS + "healthcheck-interval": "soon"}, "'soon' isn't a number from 5 to 300"),
        ("aws", {AWS + "target-node-labels": "ssd"}, "'ssd' isn't a list of key=value"),
        ("aws", {AWS + "ssl-ports": "443"}, "possible without ssl-cert"),
        ("aws", {AWS + "subnets": "a,b", AWS + "private-ipv4-addresses": "10.0.0.1"}, "one for each of the 2 subnets"),
        ("aws", {vocabulary.SOURCE_RANGES: "10.0.0.1/33"}, "a list of CIDRs"),
        ("gcp", {"networking.gke.io/load-balancer-type": "Secret"}, "'Secret' isn't Internal"),
        ("gcp", {"cloud.google.com/network-tier": "Gold"}, "'Gold' isn't Premium or Standard"),
        ("azure", {AZURE + "load-balancer-health-probe-protocol": "icmp"}, "'icmp' isn't tcp, http or https"),
        ("azure", {AZURE + "load-balancer-internal": "yes"}, "'yes' isn't true or false"),
        ("azure", {AZURE + "load-balancer-tcp-idle-timeout": "99"}, "'99' isn't a number from 4 to 30"),
        ("azure", {"service.beta.kubernetes.io/port_80_no_lb_rule": "true"}, "no port is left to balance"),
    ],
)
def test_a_value_that_the_cloud_refuses_is_refused(cloud: str, annotations: dict[str, str], words: str) -> None:
    """In the real provider's words, of annotations that the desk doesn't emulate as well."""
    with pytest.raises(Refused) as raised:
        made(cloud, service(annotations))
    assert words in str(raised.value)


def test_a_port_that_no_node_has_is_refused() -> None:
    bare = ServicePort(name="web", port=80, protocol="TCP")
    for cloud, wishes in (("aws", {}), ("aws", {AWS + "nlb-target-type": "ip"}), ("azure", {})):
        with pytest.raises(Refused, match="node port"):
            made(cloud, service(wishes, ports=[bare], allocate_load_balancer_node_ports=False))


@pytest.mark.parametrize(
    ("cloud", "load_balancer_class"),
    [
        ("aws", "service.k8s.aws/nlb"),
        ("gcp", "networking.gke.io/l4-regional-external"),
        ("azure", "kubesvc.dev/azure"),
    ],
)
def test_the_real_providers_class_is_the_desks(cloud: str, load_balancer_class: str, tmp_path: Path) -> None:
    provider = DeskProvider(LoadBalancerConfig(cloud=cloud), tmp_path)
    assert provider.owns(load_balancer_class)
    assert provider.owns("kubesvc.dev/desk")


def test_an_address_that_aws_has_no_room_for_is_remarked_on(tmp_path: Path) -> None:
    asking = service(load_balancer_ip="192.0.2.1")
    assert "spec.loadBalancerIP" in str(DeskProvider(LoadBalancerConfig(cloud="aws"), tmp_path).remarks(asking))
    assert not DeskProvider(LoadBalancerConfig(cloud="gcp"), tmp_path).remarks(asking)


def test_of_azure_the_address_and_who_may_connect_are_told_by_annotations() -> None:
    ranges = {AZURE + "allowed-ip-ranges": "192.0.2.0/24"}
    internal = {AZURE + "load-balancer-internal": "true", AZURE + "load-balancer-ipv4": "172.29.0.9"}
    closed = {AZURE + "deny-all-except-load-balancer-source-ranges": "true"}
    assert made("azure", service(ranges)).sources == ("192.0.2.0/24",)
    assert made("azure", service(ranges | internal)).sources == ()  # the VNet gets in until it is shut out
    assert made("azure", service(ranges | internal | closed)).sources == ("192.0.2.0/24",)
    assert made("azure", service(internal)).address == "172.29.0.9"


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_ranges_of_the_other_family_let_nobody_in(cloud: str) -> None:
    assert made(cloud, service(load_balancer_source_ranges=["2001:db8::/32"])).sources == (plan.NOBODY,)
    assert made(cloud, service(load_balancer_source_ranges=["0.0.0.0/0"])).sources == ()


def test_source_ranges_come_from_the_spec_before_the_annotation() -> None:
    annotated = {vocabulary.SOURCE_RANGES: "192.0.2.0/24, 198.51.100.0/24, 2001:db8::/32"}
    assert made("aws", service(annotated)).sources == ("192.0.2.0/24", "198.51.100.0/24")
    told = service(annotated, load_balancer_source_ranges=["203.0.113.0/24"])
    assert made("aws", told).sources == ("203.0.113.0/24",)


def test_what_is_passed_over_is_said() -> None:
    """Another cloud's, one of nobody's, and what the desk can't do; what it does is silent, and strangers' are."""
    annotations = {
        AWS + "nlb-target-type": "ip",
        AWS + "shceme": "internal",
        AWS + "scheme": "internal",
        AWS + "healthcheck-interval": "5",
        AWS + "subnets": "subnet-1",
        AWS + "eip-pool": "p",
        AWS + "listener-attributes.TCP-80": "tcp.idle_timeout.seconds=60",
        AZURE + "load-balancer-internal": "true",
        "example.com/other": "x",
    }
    assert list(vocabulary.remarks("aws", annotations)) == [
        f"{AWS}eip-pool does nothing: name addresses with `eip-allocations`",
        f"{AWS}listener-attributes.TCP-80 isn't emulated on the desk: it acts with provider aws alone",
        f"{AWS}nlb-target-type: ip isn't emulated on the desk: "
        "traffic goes to node ports, as with target type instance",
        f"{AWS}shceme isn't an annotation that aws knows: it does nothing; look at its spelling",
        f"{AWS}subnets isn't emulated on the desk: it acts with provider aws alone",
        f"{AZURE}load-balancer-internal is for azure, and this is aws: it does nothing here",
    ]


@pytest.mark.parametrize(
    ("cloud", "name", "said"),
    [
        ("azure", "service.beta.kubernetes.io/port_80_health-probe_interval", ""),
        ("azure", AZURE + "load-balancer-internal", ""),
        ("azure", AZURE + "pip-name", "isn't emulated"),
        ("azure", "service.beta.kubernetes.io/port_80_helth", "does nothing"),
        ("azure", AZURE + "load-balancer-mode", "does nothing"),
        ("gcp", "networking.gke.io/load-balancer-type", ""),
        ("gcp", "cloud.google.com/l4-rbs", ""),
        ("gcp", "cloud.google.com/network-tier", "isn't emulated"),
        ("gcp", "cloud.google.com/neg", "does nothing: backends are instance groups"),
        ("gcp", "networking.gke.io/load-balancer-tpye", "isn't an annotation that gcp knows"),
    ],
)
def test_an_annotation_of_the_clouds_own_is_silent_or_told(cloud: str, name: str, said: str) -> None:
    found = list(vocabulary.remarks(cloud, {name: "x"}))
    assert [said in text for text in found] == ([True] if said else [])


@pytest.mark.parametrize(
    ("cloud", "name"),
    [
        ("aws", AWS + "multi-cluster-target-group"),
        ("gcp", "networking.gke.io/l4-strong-session-affinity"),
        ("azure", AZURE + "pls-create"),
    ],
)
def test_what_the_real_provider_rejects_the_desk_rejects(cloud: str, name: str) -> None:
    with pytest.raises(Refused, match=name):
        made(cloud, service({name: "true"}))


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_what_acts_on_the_desk_is_in_the_real_providers_table(cloud: str) -> None:
    prefix = "service.beta.kubernetes.io/" if cloud == "azure" else ""
    names = [prefix + name.replace("{port}", "80") for name in vocabulary.ACTS[cloud]]
    fates = {name: vocabulary.fate(cloud, name) for name in names}
    assert [name for name, found in fates.items() if found is None or found[0] != vocabulary.SUPPORTED] == []
