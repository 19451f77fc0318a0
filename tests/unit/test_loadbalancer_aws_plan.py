"""What a Service asks of AWS and which calls that means: without AWS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kubesvc.api.core import Service, ServicePort, ServiceSpec
from kubesvc.api.discovery import Endpoint, EndpointConditions, EndpointSlice, SlicePort
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.nodes import Node, NodeSpec
from kubesvc.loadbalancer.provider import Refused
from kubesvc.loadbalancer.providers.aws import annotations, failures, names
from kubesvc.loadbalancer.providers.aws.annotations import PREFIX, SOURCE_RANGES
from kubesvc.loadbalancer.providers.aws.model import Found, Permission, Wanted
from kubesvc.loadbalancer.providers.aws.places import Subnet
from kubesvc.loadbalancer.providers.aws.plan import deletion, next_calls
from kubesvc.loadbalancer.providers.aws.wanted import World, instance_of, node_rules, wanted_of
from kubesvc.loadbalancer.providers.aws.wishes import Wish, remarks, wish_of

HTTP = ServicePort(name="http", port=80, target_port=8080, node_port=30080)
DNS_TCP = ServicePort(name="dns-tcp", port=53, target_port=53, node_port=30053)
DNS_UDP = ServicePort(name="dns", port=53, target_port=53, node_port=30053, protocol="UDP")
POLICY = Path(__file__).parents[2] / "docs" / "guide" / "aws.md"


def service(*ports: ServicePort, spec: dict[str, Any] | None = None, **asked: str) -> Service:
    """`asked` are annotations, `_` for `-`."""
    named = {PREFIX + name.replace("_", "-"): value for name, value in asked.items()}
    more = {"ip_families": ["IPv4"], **(spec or {})}
    return Service(
        metadata=ObjectMeta(name="web", namespace="default", annotations=named),
        spec=ServiceSpec(type="LoadBalancer", ports=list(ports or (HTTP,)), **more),
    )


SUBNETS = (
    Subnet("subnet-1", "a", {"kubernetes.io/role/internal-elb": "1", "Name": "in-a"}, 100),
    Subnet("subnet-2", "b", {"kubernetes.io/role/internal-elb": ""}, 100),
    Subnet("subnet-3", "b", {"kubernetes.io/role/internal-elb": "1"}, 100),
    Subnet("subnet-4", "c", {"kubernetes.io/role/internal-elb": "1"}, 7),
    Subnet("subnet-5", "c", {"kubernetes.io/role/internal-elb": "1", "kubernetes.io/cluster/other": "owned"}, 99),
    Subnet("subnet-6", "a", {"kubernetes.io/role/elb": "1"}, 100),
)
NODES = tuple(
    Node(metadata=ObjectMeta(name=name, labels=labels), spec=NodeSpec(provider_id=identity))
    for name, identity, labels in (
        ("n1", "aws:///a/i-1", {"pool": "edge"}),
        ("n2", "aws:///b/i-2", {}),
        ("far", "gce://p/z/n", {}),
    )
)


def world(*slices: EndpointSlice) -> World:
    return World("c", "vpc-1", SUBNETS, NODES, slices, ("sg-back",))


def wanted(one: Service, *slices: EndpointSlice, found: Found | None = None) -> Wanted:
    return wanted_of(one, wish_of(one), world(*slices), found.balancer if found else None)


class Aws:
    """Answers calls as far as identities go, and writes down their names."""

    def __init__(self) -> None:
        self.found, self.made = Found(), 0

    def reach(self, one: Service) -> list[str]:
        return self.make(lambda: next_calls(wanted(one, found=self.found), self.found))

    def make(self, plan: Any) -> list[str]:
        names: list[str] = []
        while calls := plan():
            for call in calls:
                names.append(call.operation)
                self.made += 1
                arn = f"arn-{self.made}"
                call.then(
                    {
                        "GroupId": f"sg-{self.made}",
                        "LoadBalancers": [{"LoadBalancerArn": arn, "DNSName": "web.example"}],
                        "TargetGroups": [{"TargetGroupArn": arn}],
                        "Listeners": [{"ListenerArn": arn}],
                    }
                )
            assert self.made < 100
        return names


# ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_change_is_a_modification_and_what_is_as_wanted_costs_no_call() -> None:
    aws = Aws()
    assert aws.reach(service()) == [
        "create_security_group",
        "create_target_group",
        "authorize_security_group_ingress",
        "create_load_balancer",
        "modify_target_group_attributes",
        "register_targets",
        "create_listener",
    ]
    assert aws.reach(service()) == []
    assert aws.reach(service(healthcheck_interval="30")) == ["modify_target_group"]
    assert aws.reach(service(target_node_labels="pool=edge")) == ["modify_target_group", "deregister_targets"]
    assert aws.reach(service()) == ["register_targets"]
    moved = ServicePort(name="http", port=80, target_port=8080, node_port=30081)
    assert aws.reach(service(moved)) == ["register_targets", "deregister_targets"]
    assert aws.reach(service(attributes="load_balancing.cross_zone.enabled=true")) == [
        "modify_load_balancer_attributes", "register_targets", "deregister_targets"
    ]  # fmt: skip
    assert aws.reach(service(ip_address_type="dualstack")) == [
        "authorize_security_group_ingress",
        "set_ip_address_type",
    ]
    assert aws.reach(service()) == ["revoke_security_group_ingress", "set_ip_address_type"]
    assert aws.reach(service(security_groups="sg-mine")) == ["set_security_groups", "delete_security_group"]


def test_another_port_comes_before_the_old_one_goes() -> None:
    aws = Aws()
    aws.reach(service())
    done = aws.reach(service(ServicePort(name="http", port=81, target_port=8080, node_port=30080)))
    assert done.index("create_listener") < done.index("delete_listener") < done.index("delete_target_group")


def test_targets_of_another_kind_take_over_behind_the_same_listener() -> None:
    aws = Aws()
    aws.reach(service())
    pods = pod_slice(("10.0.0.9", True))
    done = aws.make(lambda: next_calls(wanted(service(nlb_target_type="ip"), pods, found=aws.found), aws.found))
    assert [name for name in done if "listener" in name or name.endswith("_target_group")] == [
        "create_target_group", "modify_listener", "delete_target_group"
    ]  # fmt: skip


def test_tls_comes_to_a_listener_and_goes_from_it() -> None:
    aws = Aws()
    aws.reach(service())
    assert aws.reach(service(ssl_cert="arn:1,arn:2")) == ["modify_listener", "add_listener_certificates"]
    assert aws.reach(service(ssl_cert="arn:2")) == ["modify_listener"]
    assert aws.reach(service()) == ["modify_listener"]
    assert aws.reach(service()) == []


def test_tags_asked_for_go_when_they_are_no_longer_and_others_stay() -> None:
    aws = Aws()
    aws.reach(service(additional_resource_tags="Team=a, Stage=dev"))
    assert aws.found.balancer is not None
    aws.found.balancer.tags["CostCentre"] = "set by somebody"
    assert set(aws.reach(service(additional_resource_tags="Team=b"))) == {
        "create_tags",
        "delete_tags",
        "add_tags",
        "remove_tags",
    }
    tags = aws.found.balancer.tags
    assert (tags["Team"], tags.get("Stage"), tags["CostCentre"]) == ("b", None, "set by somebody")


def test_deletion_takes_the_load_balancer_before_what_it_uses() -> None:
    aws = Aws()
    aws.reach(service(HTTP, ServicePort(name="b", port=81, node_port=30081)))
    assert aws.make(lambda: deletion(aws.found)) == [
        "delete_load_balancer", "delete_target_group", "delete_target_group", "delete_security_group"
    ]  # fmt: skip
    assert aws.found.empty


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_defaults_are_upstreams() -> None:
    found = wanted(service())
    assert (found.scheme, found.ip_address_type) == ("internal", "ipv4")
    assert [place.subnet for place in found.places] == ["subnet-1", "subnet-2"]
    assert found.permissions == {Permission("tcp", 80, 80, "0.0.0.0/0")}
    group = found.groups["80-TCP-instance-ipv4"]
    health = group.health
    assert (health.protocol, health.port, health.interval, health.timeout) == ("TCP", "traffic-port", 10, 10)
    assert (health.healthy, health.unhealthy) == (3, 3)
    assert group.targets == {("i-1", 30080), ("i-2", 30080)}
    assert group.attributes == {"proxy_protocol_v2.enabled": "false"}


def test_policy_local_is_checked_on_the_health_check_node_port() -> None:
    local = {"external_traffic_policy": "Local", "health_check_node_port": 31000}
    health = wish_of(service(spec=local)).health
    assert (health.protocol, health.port, health.path, health.codes) == ("HTTP", "31000", "/healthz", "200-399")
    assert (health.interval, health.timeout, health.healthy, health.unhealthy) == (10, 6, 2, 2)
    assert wish_of(service(spec=local, nlb_target_type="ip")).health.port == "traffic-port"


def pod_slice(*pods: tuple[str, bool]) -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(name="web-1", namespace="default"),
        endpoints=[
            Endpoint(addresses=[ip], conditions=EndpointConditions(ready=ready), node_name="n1") for ip, ready in pods
        ],
        ports=[SlicePort(name="http", port=8080)],
    )


def test_pods_are_targets_while_they_are_ready() -> None:
    asked = service(nlb_target_type="ip")
    found = wanted(asked, pod_slice(("10.0.0.9", True), ("10.0.0.8", False)))
    assert found.groups["80-TCP-ip-ipv4"].targets == {("10.0.0.9", 8080)}
    assert node_rules(wish_of(asked), found, (30000, 32767)) == {("tcp", 8080, 8080)}


def test_nodes_open_the_range_of_node_ports_as_one() -> None:
    asked = service(HTTP, DNS_UDP)
    assert node_rules(wish_of(asked), wanted(asked), (30000, 32767)) == {("tcp", 30000, 32767), ("udp", 30000, 32767)}


def test_one_port_in_tcp_and_udp_is_one_listener() -> None:
    found = wanted(service(DNS_TCP, DNS_UDP))
    assert [(one.port, one.protocol) for one in found.listeners.values()] == [(53, "TCP_UDP")]
    assert found.permissions is not None
    assert {rule.protocol for rule in found.permissions} == {"tcp", "udp"}


def test_a_group_for_each_ssl_port_and_its_backend_protocol() -> None:
    https = ServicePort(name="https", port=443, node_port=30443)
    found = wanted(
        service(HTTP, https, ssl_cert="arn:1", ssl_ports="https", backend_protocol="ssl", alpn_policy="HTTP2Preferred")
    )
    assert [(one.protocol, one.certificates, one.alpn) for one in found.listeners.values()] == [
        ("TCP", (), "None"),
        ("TLS", ("arn:1",), "HTTP2Preferred"),
    ]
    assert {group.protocol for group in found.groups.values()} == {"TCP", "TLS"}


@pytest.mark.parametrize(
    ("asked", "check"),
    [
        ({"scheme": "internet-facing"}, lambda w: w.scheme == "internet-facing"),
        ({"internal": "false"}, lambda w: w.scheme == "internet-facing"),
        ({"internal": "false", "scheme": "internal"}, lambda w: w.scheme == "internal"),
        ({"type": "nlb-ip"}, lambda w: w.target_type == "ip"),
        ({"proxy-protocol": "*"}, lambda w: w.ports[0].proxy_protocol),
        ({"proxy-protocol-per-target-group": "80"}, lambda w: w.ports[0].proxy_protocol),
        ({"listener-attributes.TCP-80": "tcp.idle_timeout.seconds=60"}, lambda w: w.ports[0].attributes),
        ({"access-log-enabled": "true"}, lambda w: w.attributes == {"access_logs.s3.enabled": "true"}),
        ({"security-groups": "sg-1"}, lambda w: not w.manage_backend),
        ({"security-groups": "sg-1", "manage-backend-security-group-rules": "true"}, lambda w: w.manage_backend),
        ({"healthcheck-port": "http"}, lambda w: w.health.port == "30080"),
        ({"enable-icmp-for-path-mtu-discovery": "on"}, lambda w: w.icmp),
    ],
)
def test_annotations_are_heeded(asked: dict[str, str], check: Any) -> None:
    named = {PREFIX + name: value for name, value in asked.items()}
    wish: Wish = wish_of(Service(metadata=ObjectMeta(name="w", annotations=named), spec=ServiceSpec(ports=[HTTP])))
    assert check(wish)


def test_spec_goes_before_the_annotation_of_source_ranges() -> None:
    one = service()
    one.metadata.annotations[SOURCE_RANGES] = "192.0.2.1/24, 198.51.100.0/24"
    assert wish_of(one).source_ranges == ("192.0.2.0/24", "198.51.100.0/24")
    spec = service(spec={"load_balancer_source_ranges": ["203.0.113.0/24"]})
    spec.metadata.annotations[SOURCE_RANGES] = "192.0.2.0/24"
    assert wish_of(spec).source_ranges == ("203.0.113.0/24",)


@pytest.mark.parametrize(
    ("one", "reason", "words"),
    [
        (service(scheme="public"), "InvalidAnnotation", "'public' isn't one of internal, internet-facing"),
        (service(healthcheck_interval="3"), "InvalidAnnotation", "a number from 5 to 300"),
        (service(attributes="a"), "InvalidAnnotation", "key=value"),
        (service(name="internal-x"), "InvalidAnnotation", "'internal-' in front"),
        (service(eip_allocations="eipalloc-1"), "InvalidAnnotation", "without scheme: internet-facing"),
        (service(private_ipv4_addresses="10.0.0.1"), "AddressesAndSubnetsDiffer", "1 for 2 subnets"),
        (service(ssl_ports="443"), "InvalidAnnotation", "without ssl-cert"),
        (service(ssl_ports="443", ssl_cert="arn:1"), "InvalidAnnotation", "the Service's ports"),
        (service(multi_cluster_target_group="true"), "AnnotationRejected", "give each a Service"),
        (service(subnets="subnet-2,subnet-3"), "ZoneTwice", "name one of each zone"),
        (service(subnets="nowhere"), "SubnetNotFound", "nowhere"),
        (service(additional_resource_tags="kubesvc.dev/cluster=x"), "InvalidAnnotation", "free to set"),
        (service(ServicePort(port=9, protocol="SCTP", node_port=30009)), "ProtocolNotServed", "use TCP or UDP"),
        (service(ServicePort(port=80)), "NodePortMissing", "nlb-target-type: ip"),
        (service(DNS_TCP, ServicePort(port=53, node_port=9, protocol="UDP")), "PortsNotServed", "give both the same"),
        (service(spec={"ip_families": ["IPv6"]}), "FamilyNotServed", "dualstack"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_the_remedy(one: Service, reason: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        wanted(one)
    assert refused.value.reason == reason
    assert words in refused.value.message


@pytest.mark.parametrize("asked", [{"scheme": "internet-facing", "subnets": "subnet-6"}, {"disable_nlb_sg": "true"}])
def test_what_aws_can_not_change_is_refused_and_keeps_serving(asked: dict[str, str]) -> None:
    aws = Aws()
    aws.reach(service())
    with pytest.raises(Refused) as refused:
        aws.reach(service(**asked))
    assert refused.value.reason == "CannotBeChanged"
    assert "take the change back" in refused.value.message
    assert aws.reach(service()) == []


def test_the_scheme_stays_when_its_annotation_goes() -> None:
    aws = Aws()
    aws.reach(service(scheme="internet-facing"))
    assert aws.reach(service()) == []


def test_a_subnet_that_is_stood_in_stays_chosen() -> None:
    aws = Aws()
    aws.reach(service(subnets="subnet-1,subnet-3"))
    assert aws.reach(service()) == []


@pytest.mark.parametrize(
    ("identity", "instance"),
    [("aws:///us-east-1a/i-0abc", "i-0abc"), ("aws:///us-east-1a/x/fargate-10", ""), ("gce://p/z/i-1", ""), ("", "")],
)
def test_nodes_are_instances_by_their_provider_id(identity: str, instance: str) -> None:
    assert instance_of(Node(spec=NodeSpec(provider_id=identity))) == instance


# ── names, errors, documentation ─────────────────────────────────────────────────────────────────────────────────────


def test_names_are_legal_and_differ() -> None:
    one = Service(metadata=ObjectMeta(name="a-very-long-name-" * 3, namespace="kube-system-of-mine"))
    made = {names.name(cluster, one, more) for cluster in ("a", "b") for more in ("", "80-TCP-instance-ipv4")}
    assert len(made) == 4
    assert all(len(name) <= 32 and "--" not in name for name in made)


def test_an_error_names_the_iam_action_that_is_missing() -> None:
    said = failures.describe("elbv2", "create_load_balancer", "AccessDenied", "not authorized.")
    assert said.startswith("AWS elasticloadbalancing:CreateLoadBalancer: AccessDenied: not authorized; allow the IAM")


def test_ignored_and_unknown_annotations_are_remarked_on() -> None:
    said = remarks(service(eip_pool="p", weights="1", scheme="internal"))
    assert [text.split()[1] for text in said] == [PREFIX + "eip-pool", PREFIX + "weights"]


def test_an_address_asked_for_in_the_spec_is_remarked_on() -> None:
    plain = service(scheme="internal")
    assert remarks(plain) == []
    (said,) = remarks(replace(plain, spec=replace(plain.spec, load_balancer_ip="192.0.2.1")))
    assert "spec.loadBalancerIP is passed over" in said


def test_the_guide_has_the_table_of_the_code() -> None:
    assert annotations.markdown() in POLICY.read_text()
