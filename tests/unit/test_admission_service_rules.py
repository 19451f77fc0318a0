"""What is less often asked of a Service, row by row: every change of type, odd spellings, pairs that don't fit."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubesvc.api.registry import SERVICE
from support.admission import Claimed, admit, cluster, context, service, store, texts

JSON = dict[str, Any]
HTTP = {"port": 80}
DUAL = context(cluster("10.96.0.0/16", "fd00:10:96::/108"))
TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "headless")
ADDRESS, NODE_PORT, HEALTH = "10.96.1.1", "30086", "30087"

# type -> what a Service of it with one port holds: an address, a node port, a load balancer's health check port
HOLDS = {
    "ClusterIP": {ADDRESS},
    "NodePort": {ADDRESS, NODE_PORT},
    "LoadBalancer": {ADDRESS, NODE_PORT, HEALTH},
    "ExternalName": set(),
    "headless": set(),
}
# type -> fields of the spec that only it and its like have
OWN = {
    "ClusterIP": {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"},
    "NodePort": {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "externalTrafficPolicy"},
    "LoadBalancer": {
        "clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "externalTrafficPolicy", "healthCheckNodePort",
        "allocateLoadBalancerNodePorts", "loadBalancerClass",
    },
    "ExternalName": set(),
    "headless": {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"},
}  # fmt: skip


def spec_of(kind: str) -> JSON:
    spec: JSON = {"type": "ClusterIP" if kind == "headless" else kind, "ports": [HTTP], "selector": {"app": "x"}}
    if kind == "LoadBalancer":
        spec |= {"externalTrafficPolicy": "Local", "loadBalancerClass": "example.com/a"}
    if kind == "ExternalName":
        spec["externalName"] = "example.com"
    if kind == "headless":
        spec["clusterIP"] = "None"
    return spec


# ── every change of type ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("before", "after"),
    [(a, b) for a in TYPES for b in TYPES if a != b and "headless" not in (a, b)]
    + [("headless", "ExternalName"), ("ExternalName", "headless")],
)
def test_a_change_of_type_wipes_what_the_new_one_has_no_use_for_and_claims_what_it_needs(
    before: str, after: str
) -> None:
    """The client changes the type (and says what the new one can't do without); the rest it sends back as it got it."""
    old, _ = store(service(**spec_of(before)))
    new = copy.deepcopy(old)
    wanted = spec_of(after)
    new["spec"] |= {k: wanted[k] for k in ("type", "externalName", "clusterIP", "loadBalancerClass") if k in wanted}
    if after == "LoadBalancer":
        new["spec"]["externalTrafficPolicy"] = "Local"
    changed, changes = store(new, old, taken=Claimed(set(HOLDS[before])))
    spec = changed["spec"]
    assert {name for name in set().union(*OWN.values()) if name in spec} == OWN[after]
    assert ("nodePort" in spec["ports"][0]) == (after in ("NodePort", "LoadBalancer"))
    assert spec["selector"] == {"app": "x"}, "the selector stays"
    assert spec.get("externalName") == ("example.com" if "ExternalName" in (before, after) else None), "and the name"
    released = {c.value for c in changes if c.action == "release"}
    assert released == HOLDS[before] - HOLDS[after]
    claimed = {c.value for c in changes if c.action == "claim"}
    assert len(claimed) == len(HOLDS[after] - HOLDS[before])
    assert changed["status"] == {"loadBalancer": {}}


@pytest.mark.parametrize(
    ("before", "change", "text"),
    [
        pytest.param("NodePort", {"type": "ClusterIP", "externalTrafficPolicy": "Local"},
                     'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible '
                     "services", id="another policy"),
        pytest.param("LoadBalancer", {"type": "NodePort", "healthCheckNodePort": 31000},
                     "spec.healthCheckNodePort: Invalid value: 31000: may only be set when `type` is 'LoadBalancer' "
                     "and `externalTrafficPolicy` is 'Local'", id="another health check port"),
        pytest.param("LoadBalancer", {"type": "NodePort", "loadBalancerClass": "example.com/b"},
                     "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
                     id="another class"),
        pytest.param("LoadBalancer", {"type": "NodePort", "allocateLoadBalancerNodePorts": False},
                     "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
                     id="another wish for node ports"),
        pytest.param("ClusterIP", {"type": "ExternalName", "externalName": "a", "clusterIP": "10.96.0.9",
                                   "clusterIPs": ["10.96.0.9"]},
                     "spec.clusterIPs: Forbidden: may not be set for ExternalName services", id="another address"),
        pytest.param("ClusterIP", {"type": "ExternalName", "externalName": "a", "ipFamilyPolicy": "PreferDualStack"},
                     "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services", id="another choice"),
        pytest.param("ClusterIP", {"type": "ExternalName"}, "spec.externalName: Required value", id="no name"),
    ],
)  # fmt: skip
def test_what_the_client_changed_along_with_the_type_is_refused_not_wiped(before: str, change: JSON, text: str) -> None:
    old, _ = store(service(**spec_of(before)))
    new = copy.deepcopy(old)
    new["spec"] |= change
    assert texts(SERVICE, new, old) == [text]


# ── what stays, what is refilled ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param({}, [], id="nothing said: as it was"),
        pytest.param({"clusterIP": ""}, [], id="cleared: as it was"),
        pytest.param({"clusterIP": ADDRESS}, [], id="the same"),
        pytest.param({"clusterIP": "10.96.0.9", "clusterIPs": [ADDRESS]},
                     ['spec.clusterIPs[0]: Invalid value: ["10.96.0.9"]: may not change once set'],
                     id="the first alone"),
        pytest.param({"clusterIP": ADDRESS, "clusterIPs": ["10.96.0.9"]},
                     ['spec.clusterIPs: Invalid value: ["10.96.0.9"]: first value must match `clusterIP`'],
                     id="the list alone"),
        pytest.param({"clusterIP": "10.96.0.9"}, ["spec.clusterIPs: Required value"], id="the first, and no list"),
        pytest.param({"clusterIP": "None", "clusterIPs": ["None"]},
                     ['spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set'], id="headless"),
        pytest.param({"ipFamilies": ["IPv6"]}, [f'spec.clusterIPs[0]: Invalid value: "{ADDRESS}": expected an IPv6 '
                     "value as indicated by `ipFamilies[0]`"], id="another family"),
    ],
)  # fmt: skip
def test_an_address_stays_until_the_service_goes(sent: JSON, expected: list[str]) -> None:
    old, _ = store(service(ports=[HTTP]))
    new = service(ports=[HTTP], **sent)
    assert texts(SERVICE, new, old) == expected
    if not expected:
        assert admit(SERVICE, new, old)["spec"] == old["spec"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        pytest.param([{"name": "a", "port": 80}], {"a": 30001}, id="by its name"),
        pytest.param([{"name": "a", "port": 8080, "protocol": "UDP"}], {"a": 30001}, id="whatever else changed"),
        pytest.param([{"name": "z", "port": 80}], {"z": 30086}, id="another name: another number"),
        pytest.param([{"name": "b", "port": 1}, {"name": "a", "port": 2}], {"b": 30002, "a": 30001}, id="in any order"),
        pytest.param([{"name": "a", "port": 80, "nodePort": 30009}], {"a": 30009}, id="what is said goes first"),
    ],
)
def test_a_node_port_left_out_is_refilled(sent: list[JSON], kept: dict[str, int]) -> None:
    ports = [{"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 81, "nodePort": 30002}]
    old, _ = store(service(type="NodePort", ports=ports))
    new, _ = store(service(type="NodePort", ports=sent), old)
    assert {port["name"]: port["nodePort"] for port in new["spec"]["ports"]} == kept


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param({}, {"healthCheckNodePort": 0}, [], id="left out: refilled"),
        pytest.param({}, {"healthCheckNodePort": 31001}, ["spec.healthCheckNodePort: Forbidden: field is immutable"],
                     id="another"),
        pytest.param({"externalTrafficPolicy": "Cluster"}, {"externalTrafficPolicy": "Local",
                     "healthCheckNodePort": 31001}, [], id="free to choose when it becomes Local"),
        pytest.param({}, {"loadBalancerClass": "example.com/a"}, ['spec.loadBalancerClass: Invalid value: '
                     '"example.com/a": may not change once set'], id="a class, later"),
        pytest.param({"loadBalancerClass": "example.com/a"}, {"loadBalancerClass": None},
                     ["spec.loadBalancerClass: Invalid value: null: may not change once set"], id="no class, later"),
    ],
)  # fmt: skip
def test_what_a_load_balancer_keeps(before: JSON, after: JSON, expected: list[str]) -> None:
    old, _ = store(service(**({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [HTTP]} | before)))
    new = copy.deepcopy(old)
    new["spec"] |= after
    assert texts(SERVICE, new, old) == expected


# ── node ports of one Service ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param({"port": 53, "protocol": "UDP"}, {"port": 53}, [], id="protocols of one port share a number"),
        pytest.param({"port": 53}, {"port": 54}, ["spec.ports[1].nodePort: Duplicate value: 30001"], id="one protocol"),
        pytest.param({"port": 53, "protocol": "UDP"}, {"port": 54}, ["spec.ports[1].nodePort: Invalid value: 30001: "
                     "provided port is already allocated"], id="two ports"),
    ],
)  # fmt: skip
def test_who_may_share_a_node_port(first: JSON, second: JSON, expected: list[str]) -> None:
    ports = [first | {"name": "a", "nodePort": 30001}, second | {"name": "b", "nodePort": 30001}]
    assert texts(SERVICE, service(type="NodePort", ports=ports)) == expected


@pytest.mark.parametrize(
    ("range_", "number", "expected"),
    [
        pytest.param((30000, 32767), 30000, None, id="the first"),
        pytest.param((30000, 32767), 32767, None, id="the last"),
        pytest.param((30000, 32767), 29999, "30000-32767", id="before"),
        pytest.param((30000, 32767), 32768, "30000-32767", id="behind"),
        pytest.param((20000, 40000), 29999, None, id="within a range that was extended"),
        pytest.param((20000, 40000), 40001, "20000-40000", id="behind that one"),
    ],
)
def test_the_range_of_node_ports(range_: tuple[int, int], number: int, expected: str | None) -> None:
    found = texts(
        SERVICE,
        service(type="NodePort", ports=[{"port": 80, "nodePort": number}]),
        of=context(cluster(node_ports=range_)),
    )
    why = f"provided port is not in the valid range. The range of valid ports is {expected}"
    assert found == ([f"spec.ports[0].nodePort: Invalid value: {number}: {why}"] if expected else [])


# ── more of upstream's words ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param({"type": "LoadBalancer", "ports": [{"port": 10250}]}, "spec.ports[0]: Invalid value: 10250: may "
                     "not expose port 10250 externally since it is used by kubelet", id="the kubelet's port"),
        pytest.param({"ports": [{"port": 80, "appProtocol": ""}, ]}, 'spec.ports[0].appProtocol: Invalid value: "": '
                     "name part must be non-empty", id="an empty protocol of the application"),
        pytest.param({"ports": [{"name": "A", "port": 80}]}, 'spec.ports[0].name: Invalid value: "A": a lowercase RFC '
                     "1123 label must consist of", id="a port's name"),
        pytest.param({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]},
                     'spec.ports[1].name: Duplicate value: "a"', id="one name twice"),
        pytest.param({"ports": [{"port": 65536, "targetPort": 1}]}, "spec.ports[0].port: Invalid value: 65536: must be "
                     "between 1 and 65535, inclusive", id="port 65536"),
        pytest.param({"sessionAffinity": "Cookie"}, 'spec.sessionAffinity: Unsupported value: "Cookie": supported '
                     'values: "ClientIP", "None"', id="affinity"),
        pytest.param({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}},
                     "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and "
                     "less than 86400", id="no time"),
        pytest.param({"type": "LoadBalancer", "clusterIP": "None"}, 'spec.clusterIPs[0]: Invalid value: "None": may '
                     "not be set to 'None' for LoadBalancer services", id="headless load balancer"),
        pytest.param({"allocateLoadBalancerNodePorts": True}, "spec.allocateLoadBalancerNodePorts: Forbidden: may only "
                     "be used when `type` is 'LoadBalancer'", id="node ports of no load balancer"),
        pytest.param({"type": "LoadBalancer", "loadBalancerClass": "a/b/c"}, 'spec.loadBalancerClass: Invalid value: '
                     '"a/b/c": a qualified name must consist of', id="a class that is no name"),
        pytest.param({"externalIPs": ["10.0.0.01"]}, 'spec.externalIPs[0]: Invalid value: "10.0.0.01": must not have '
                     "leading 0s", id="an external IP with zeros"),
        pytest.param({"externalIPs": ["::ffff:10.0.0.1"]}, 'spec.externalIPs[0]: Invalid value: "::ffff:10.0.0.1": '
                     "must not be an IPv4-mapped IPv6 address", id="a mapped one"),
        pytest.param({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1/8"]},
                     'spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.1/8": must not have bits set beyond '
                     "the prefix length", id="a source range with host bits"),
        pytest.param({"type": "LoadBalancer", "loadBalancerSourceRanges": ["010.0.0.0/8"]},
                     'spec.LoadBalancerSourceRanges[0]: Invalid value: "010.0.0.0/8": must not have leading 0s in IP '
                     "or prefix length", id="… with zeros"),
        pytest.param({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/08"]},
                     'spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.0/08": must not have leading 0s in IP '
                     "or prefix length", id="… with zeros in its length"),
        pytest.param({"type": "LoadBalancer", "loadBalancerSourceRanges": ["::ffff:10.0.0.0/104"]},
                     'spec.LoadBalancerSourceRanges[0]: Invalid value: "::ffff:10.0.0.0/104": must not have an '
                     "IPv4-mapped IPv6 address", id="… mapped"),
        pytest.param({"clusterIPs": ["10.96.0.9"]}, 'spec.clusterIPs: Invalid value: ["10.96.0.9"]: must be empty when '
                     "`clusterIP` is not specified", id="a list without the first"),
        pytest.param({"clusterIP": "None", "clusterIPs": ["None", "10.96.0.8"]}, 'spec.clusterIPs: Invalid value: '
                     '["None","10.96.0.8"]: \'None\' must be the first and only value', id="none and one"),
        pytest.param({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "10.96.0.8"]}, 'spec.clusterIPs: Invalid '
                     'value: ["10.96.0.9","10.96.0.8"]: may specify no more than one IP for each IP family',
                     id="two of a family"),
        pytest.param({"ipFamilies": ["IPv5"]}, 'spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: '
                     '"IPv4", "IPv6"', id="a family nobody knows"),
        pytest.param({"ipFamilies": ["IPv4", "IPv4"]}, 'spec.ipFamilies[1]: Duplicate value: "IPv4"',
                     id="one twice"),
        pytest.param({"ipFamilyPolicy": "Both"}, 'spec.ipFamilyPolicy: Unsupported value: "Both": supported values: '
                     '"PreferDualStack", "RequireDualStack", "SingleStack"', id="a policy nobody knows"),
        pytest.param({"clusterIP": "somewhere", "ports": []}, 'spec.clusterIPs[0]: Invalid value: "somewhere": must be '
                     "a valid IP address", id="no address: nothing else is looked at"),
    ],
)  # fmt: skip
def test_a_spec_is_refused(spec: JSON, text: str) -> None:
    found = texts(SERVICE, service(**{"ports": [HTTP], **spec}))
    assert found[0].startswith(text)
    assert len({line.partition(":")[0] for line in found}) == 1, "only this field"


def test_source_ranges_may_come_as_an_annotation() -> None:
    name = "service.beta.kubernetes.io/load-balancer-source-ranges"
    tree = service(type="LoadBalancer", ports=[HTTP])
    tree["metadata"]["annotations"] = {name: "10.0.0.0/8, 192.0.2.0/33"}
    why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
    assert texts(SERVICE, tree) == [f'metadata.annotations[{name}]: Invalid value: "192.0.2.0/33": {why}']
    tree["spec"]["type"] = "ClusterIP"
    assert texts(SERVICE, tree)[0] == (
        f"metadata.annotations[{name}]: Forbidden: may only be used when `type` is 'LoadBalancer'"
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"externalIPs": ["192.0.2.01"]},
        {"loadBalancerSourceRanges": ["10.0.0.1/08"]},
        {"clusterIP": "010.096.000.010", "clusterIPs": ["010.096.000.010"]},
    ],
    ids=["external IP", "source range", "cluster IP"],
)
def test_an_odd_spelling_that_is_stored_is_tolerated(spec: JSON) -> None:
    old, _ = store(service(type="LoadBalancer", ports=[HTTP]))
    old["spec"] |= spec
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"a": "b"}
    assert texts(SERVICE, new, old) == []


def test_an_odd_address_in_the_status_is_tolerated_only_where_it_was() -> None:
    old, _ = store(service(type="LoadBalancer", ports=[HTTP]))
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.01", "ipMode": "VIP"}]}}
    of = context(subresource="status")
    assert texts(SERVICE, copy.deepcopy(old) | {"status": status}, old, of) == [
        'status.loadBalancer.ingress[0].ip: Invalid value: "192.0.2.01": must not have leading 0s'
    ]
    assert texts(SERVICE, copy.deepcopy(old) | {"status": status}, old | {"status": status}, of) == []


# ── families, with two to choose from ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("before", "change", "expected"),
    [
        pytest.param({}, {}, (["IPv4"], "SingleStack"), id="nothing said: as it was"),
        pytest.param({"ipFamilyPolicy": "PreferDualStack"}, {}, (["IPv4", "IPv6"], "PreferDualStack"), id="both"),
        pytest.param({}, {"ipFamilyPolicy": "PreferDualStack"}, (["IPv4", "IPv6"], "PreferDualStack"), id="up"),
        pytest.param({"ipFamilyPolicy": "RequireDualStack"}, {"ipFamilyPolicy": "PreferDualStack"},
                     (["IPv4", "IPv6"], "PreferDualStack"), id="less strict"),
        pytest.param({"ipFamilyPolicy": "RequireDualStack"}, {"ipFamilyPolicy": "SingleStack"},
                     (["IPv4"], "SingleStack"), id="down"),
        pytest.param({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]},
                     {"ipFamilyPolicy": "SingleStack"}, (["IPv6"], "SingleStack"), id="down to the primary"),
        pytest.param({"clusterIP": "None", "selector": {"a": "b"}}, {"ipFamilies": ["IPv6"]},
                     (["IPv6"], "SingleStack"), id="headless: freely"),
        pytest.param({"clusterIP": "None", "selector": {"a": "b"}},
                     {"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"},
                     (["IPv6", "IPv4"], "RequireDualStack"), id="headless: to both"),
    ],
)  # fmt: skip
def test_families_of_an_update(before: JSON, change: JSON, expected: tuple[list[str], str]) -> None:
    """As kubectl sends it: the whole object as it was, but for the change."""
    old, _ = store(service(ports=[HTTP], **before), of=DUAL)
    new = copy.deepcopy(old)
    new["spec"] |= change
    changed, _ = store(new, old, DUAL)
    assert (changed["spec"]["ipFamilies"], changed["spec"]["ipFamilyPolicy"]) == expected
    if "clusterIP" not in before:
        assert len(changed["spec"]["clusterIPs"]) == len(expected[0])
        assert changed["spec"]["clusterIPs"][0] == old["spec"]["clusterIPs"][0], "the primary stays"


@pytest.mark.parametrize(
    ("kept", "what"),
    [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")],
)
def test_a_second_is_let_go_of_with_single_stack_alone(kept: str, what: str) -> None:
    old, _ = store(service(ports=[HTTP], ipFamilyPolicy="PreferDualStack"), of=DUAL)
    new = copy.deepcopy(old)
    new["spec"][kept] = new["spec"][kept][:1]
    why = f"must be 'SingleStack' to release the secondary {what}"
    assert texts(SERVICE, new, old, DUAL) == [f'spec.ipFamilyPolicy: Invalid value: "PreferDualStack": {why}']


def test_a_prefering_service_stays_dual_when_the_cluster_no_longer_is() -> None:
    old, _ = store(service(ports=[HTTP], ipFamilyPolicy="PreferDualStack"), of=DUAL)
    new, changes = store(copy.deepcopy(old), old)
    assert (new["spec"], changes) == (old["spec"], [])
