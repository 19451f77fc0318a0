"""Services through admission: defaults, validation texts, what an update keeps, wipes and refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubesvc.api.errors import Invalid
from kubesvc.api.registry import SERVICE
from kubesvc.apiserver import admission
from support.admission import admit, cluster, context, service, store, texts

JSON = dict[str, Any]
HTTP = {"port": 80}
DUAL = context(cluster("10.96.0.0/16", "fd00:10:96::/108"))


def stored(name: str = "web", /, **spec: Any) -> JSON:
    return store(service(name, **spec))[0]


def stored_dual(name: str = "web", /, **spec: Any) -> JSON:
    return store(service(name, **spec), of=DUAL)[0]


def changed(tree: JSON, **spec: Any) -> JSON:
    """`tree` with fields of its spec set, or removed where None."""
    tree = copy.deepcopy(tree)
    for name, value in spec.items():
        if value is None:
            tree["spec"].pop(name, None)
        else:
            tree["spec"][name] = value
    return tree


# ── defaults ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_service_that_says_only_its_port_gets_every_default() -> None:
    assert admit(SERVICE, service(ports=[HTTP]))["spec"] == {
        "type": "ClusterIP",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ipFamilyPolicy": "SingleStack",
        "ipFamilies": ["IPv4"],
    }


@pytest.mark.parametrize(
    ("spec", "field", "expected"),
    [
        pytest.param({"type": "NodePort"}, "externalTrafficPolicy", "Cluster", id="node port: from outside"),
        pytest.param({"type": "LoadBalancer"}, "externalTrafficPolicy", "Cluster", id="load balancer: from outside"),
        pytest.param({"externalIPs": ["192.0.2.1"]}, "externalTrafficPolicy", "Cluster", id="external IPs: too"),
        pytest.param({}, "externalTrafficPolicy", None, id="cluster IP: not"),
        pytest.param({"type": "LoadBalancer"}, "allocateLoadBalancerNodePorts", True, id="a load balancer allocates"),
        pytest.param({"type": "NodePort"}, "allocateLoadBalancerNodePorts", None, id="only a load balancer says so"),
        pytest.param(
            {"sessionAffinity": "ClientIP"},
            "sessionAffinityConfig",
            {"clientIP": {"timeoutSeconds": 10800}},
            id="three hours of affinity",
        ),
        pytest.param(
            {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}},
            "sessionAffinityConfig",
            None,
            id="no affinity, no config",
        ),
    ],
)
def test_defaults_by_type(spec: JSON, field: str, expected: Any) -> None:
    assert admit(SERVICE, service(ports=[HTTP], **spec))["spec"].get(field) == expected


def test_an_external_name_has_neither_addresses_nor_policies() -> None:
    spec = admit(SERVICE, service(type="ExternalName", externalName="example.com."))["spec"]
    assert spec == {"type": "ExternalName", "externalName": "example.com.", "sessionAffinity": "None"}


def test_a_load_balancers_address_is_a_vip_unless_said_otherwise() -> None:
    old = stored(type="LoadBalancer", ports=[HTTP])
    new = copy.deepcopy(old)
    new["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example.com"}]}}
    admitted = admit(SERVICE, new, old, context(subresource="status"))
    assert admitted["status"]["loadBalancer"]["ingress"] == [
        {"ip": "192.0.2.1", "ipMode": "VIP"},
        {"hostname": "lb.example.com"},
    ]


def test_nulls_mean_not_given() -> None:
    admitted = admit(SERVICE, service(ports=[{"port": 80, "name": None}], selector=None, type=None))
    assert admitted["spec"]["type"] == "ClusterIP"
    assert "selector" not in admitted["spec"]


# ── the ten texts ────────────────────────────────────────────────────────────────────────────────────────────────────

LABEL_WHY = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        pytest.param(service(), "spec.ports: Required value", id="1 no port"),
        pytest.param(
            service(ports=[{"port": 80}, {"port": 81, "name": "b"}]),
            "spec.ports[0].name: Required value",
            id="2 no name",
        ),
        pytest.param(service("A", ports=[HTTP]), f'metadata.name: Invalid value: "A": {LABEL_WHY}', id="3 name"),
        pytest.param(
            service(type="NodePort", ports=[{"port": 80, "nodePort": 80}]),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. "
            "The range of valid ports is 30000-32767",
            id="4 out of range",
        ),
        pytest.param(
            service(ports=[{"port": 80, "nodePort": 30080}]),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            id="8 node port of a cluster IP",
        ),
        pytest.param(
            service(externalTrafficPolicy="Local", ports=[HTTP]),
            'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services',
            id="9 Local for nobody",
        ),
        pytest.param(
            service(ports=[{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]),
            'spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,'
            '"NodePort":0}',
            id="10 the same port twice",
        ),
    ],
)
def test_a_new_service_is_refused_in_upstreams_words(tree: JSON, text: str) -> None:
    assert texts(SERVICE, tree) == [text]


def test_text_6_an_address_may_not_change_once_set() -> None:
    old = stored(ports=[HTTP])
    new = changed(old, clusterIP="10.96.0.9")
    assert texts(SERVICE, new, old) == ['spec.clusterIPs[0]: Invalid value: ["10.96.0.9"]: may not change once set']


def test_the_whole_message_names_the_object_and_joins_its_causes() -> None:
    with pytest.raises(Invalid) as caught:
        admit(SERVICE, service("web", type="NodePort", externalTrafficPolicy="Loca"))
    assert caught.value.message == (
        'Service "web" is invalid: [spec.ports: Required value, spec.externalTrafficPolicy: Unsupported value: "Loca": '
        'supported values: "Cluster", "Local"]'
    )


# ── other validation ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param({"type": "Bogus"}, 'spec.type: Unsupported value: "Bogus": supported values: "ClusterIP", '
                     '"ExternalName", "LoadBalancer", "NodePort"', id="type"),
        pytest.param({"ports": [{"port": 0, "targetPort": 1}]}, "spec.ports[0].port: Invalid value: 0: must be between "
                     "1 and 65535, inclusive", id="port 0"),
        pytest.param({"ports": [{"port": 80, "protocol": "ICM"}]}, 'spec.ports[0].protocol: Unsupported value: "ICM": '
                     'supported values: "SCTP", "TCP", "UDP"', id="protocol"),
        pytest.param({"ports": [{"port": 80, "targetPort": "muchtoolonganame"}]}, "spec.ports[0].targetPort: "
                     'Invalid value: "muchtoolonganame": must be no more than 15 characters', id="target port's name"),
        pytest.param({"ports": [{"port": 80, "targetPort": 70000}]}, "spec.ports[0].targetPort: Invalid value: 70000: "
                     "must be between 1 and 65535, inclusive", id="target port's number"),
        pytest.param({"clusterIP": "None", "type": "NodePort"}, 'spec.clusterIPs[0]: Invalid value: "None": may not be '
                     "set to 'None' for NodePort services", id="headless node port"),
        pytest.param({"clusterIP": "10.96.0.010"}, 'spec.clusterIPs[0]: Invalid value: "10.96.0.010": must not have '
                     "leading 0s", id="leading zeros"),
        pytest.param({"clusterIP": "::ffff:10.96.0.10"}, 'spec.clusterIPs[0]: Invalid value: "::ffff:10.96.0.10": must '
                     "not be an IPv4-mapped IPv6 address", id="mapped"),
        pytest.param({"clusterIP": "somewhere"}, 'spec.clusterIPs[0]: Invalid value: "somewhere": must be a valid IP '
                     "address, (e.g. 10.9.8.7 or 2001:db8::ffff)", id="no address"),
        pytest.param({"externalIPs": ["127.0.0.1"]}, 'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in '
                     "the loopback range (127.0.0.0/8, ::1/128)", id="loopback"),
        pytest.param({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}},
                     "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 "
                     "and less than 86400", id="affinity's timeout"),
        pytest.param({"loadBalancerClass": "example.com/fast"}, "spec.loadBalancerClass: Forbidden: may only be used "
                     "when `type` is 'LoadBalancer'", id="class"),
        pytest.param({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, "spec.LoadBalancerSourceRanges: Forbidden: may only "
                     "be used when `type` is 'LoadBalancer'", id="source ranges"),
        pytest.param({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/40"]},
                     'spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.0/40": must be a valid CIDR value, '
                     "(e.g. 10.9.8.0/24 or 2001:db8::/64)", id="a source range"),
        pytest.param({"internalTrafficPolicy": "Near"}, 'spec.internalTrafficPolicy: Unsupported value: "Near": '
                     'supported values: "Cluster", "Local"', id="internal policy"),
        pytest.param({"trafficDistribution": "Near"}, 'spec.trafficDistribution: Unsupported value: "Near": supported '
                     'values: "PreferClose", "PreferSameNode", "PreferSameZone"', id="distribution"),
        pytest.param({"healthCheckNodePort": 31000}, "spec.healthCheckNodePort: Invalid value: 31000: may only be set "
                     "when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'", id="health check port"),
        pytest.param({"selector": {"-app": "x"}}, 'spec.selector: Invalid value: "-app": name part must consist of '
                     "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
                     "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
                     "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')", id="selector"),
        pytest.param({"type": "ExternalName", "externalName": "UPPER"}, 'spec.externalName: Invalid value: "UPPER": a '
                     "lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and "
                     "must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation "
                     r"is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')", id="external name"),
        pytest.param({"type": "ExternalName"}, "spec.externalName: Required value", id="no external name"),
        pytest.param({"type": "ExternalName", "externalName": "a", "clusterIP": "10.96.0.1"}, "spec.clusterIPs: "
                     "Forbidden: may not be set for ExternalName services", id="an alias with an address"),
    ],
)  # fmt: skip
def test_a_spec_is_refused_in_upstreams_words(spec: JSON, text: str) -> None:
    assert texts(SERVICE, service(**{"ports": [HTTP], **spec})) == [text]


def test_a_value_of_the_wrong_type_is_all_that_is_said() -> None:
    assert texts(SERVICE, service(ports=[{"port": "http"}])) == [
        'spec.ports[0].port: Invalid value: "string": spec.ports[0].port in body must be of type integer: "string"'
    ]


def test_headless_needs_no_port() -> None:
    assert texts(SERVICE, service(clusterIP="None", selector={"app": "x"})) == []


def test_tcp_and_udp_may_share_a_number() -> None:
    dns = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]
    assert texts(SERVICE, service(ports=dns)) == []


# ── families ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cidrs", "spec", "families", "policy"),
    [
        pytest.param(("10.0.0.0/16",), {}, ["IPv4"], "SingleStack", id="one family"),
        pytest.param(("fd00::/112",), {}, ["IPv6"], "SingleStack", id="the cluster's"),
        pytest.param(("10.0.0.0/16", "fd00::/112"), {}, ["IPv4"], "SingleStack", id="the primary of two"),
        pytest.param(("10.0.0.0/16", "fd00::/112"), {"ipFamilies": ["IPv6"]}, ["IPv6"], "SingleStack", id="asked for"),
        pytest.param(("10.0.0.0/16", "fd00::/112"), {"clusterIP": "fd00::9"}, ["IPv6"], "SingleStack", id="inferred"),
        pytest.param(("10.0.0.0/16", "fd00::/112"), {"ipFamilyPolicy": "PreferDualStack"}, ["IPv4", "IPv6"],
                     "PreferDualStack", id="two if there are"),
        pytest.param(("10.0.0.0/16",), {"ipFamilyPolicy": "PreferDualStack"}, ["IPv4"], "PreferDualStack",
                     id="one if not"),
        pytest.param(("10.0.0.0/16",), {"clusterIP": "None"}, ["IPv4", "IPv6"], "RequireDualStack",
                     id="headless without selector: both, even here"),
        pytest.param(("10.0.0.0/16",), {"clusterIP": "None", "selector": {"app": "x"}}, ["IPv4"], "SingleStack",
                     id="headless with one: as any"),
    ],
)  # fmt: skip
def test_families(cidrs: tuple[str, ...], spec: JSON, families: list[str], policy: str) -> None:
    found = admit(SERVICE, service(ports=[HTTP], **spec), of=context(cluster(*cidrs)))["spec"]
    assert (found["ipFamilies"], found["ipFamilyPolicy"]) == (families, policy)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param({"ipFamilyPolicy": "RequireDualStack"}, 'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": '
                     "this cluster is not configured for dual-stack services", id="two required, one there"),
        pytest.param({"ipFamilies": ["IPv6"]}, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this '
                     "cluster", id="the other family"),
        pytest.param({"clusterIP": "fd00::1"}, 'spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured '
                     "on this cluster", id="an address of it"),
        pytest.param({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack"}, "spec.ipFamilyPolicy: Invalid "
                     "value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP "
                     "families are specified", id="two families, single stack"),
        pytest.param({"ipFamilies": ["IPv4"], "clusterIP": "fd00::1"}, 'spec.clusterIPs[0]: Invalid value: "fd00::1": '
                     "expected an IPv4 value as indicated by `ipFamilies[0]`", id="an address of another family"),
        pytest.param({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.2"]}, 'spec.clusterIPs: Invalid value: '
                     '["10.96.0.2"]: first value must match `clusterIP`', id="two firsts"),
    ],
)  # fmt: skip
def test_families_are_refused_in_upstreams_words(spec: JSON, text: str) -> None:
    assert texts(SERVICE, service(ports=[HTTP], **spec)) == [text]


def test_a_preferring_service_does_not_follow_the_cluster() -> None:
    old = stored(ports=[HTTP], ipFamilyPolicy="PreferDualStack")
    assert old["spec"]["ipFamilies"] == ["IPv4"]
    assert admit(SERVICE, copy.deepcopy(old), old, DUAL)["spec"]["ipFamilies"] == ["IPv4"]


def test_a_service_upgrades_and_downgrades_when_it_says_so() -> None:
    single = stored(ports=[HTTP])
    both, changes = store(changed(single, ipFamilyPolicy="RequireDualStack"), single, DUAL)
    assert both["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    assert both["spec"]["clusterIPs"][0] == single["spec"]["clusterIP"]
    assert [(c.action, c.value) for c in changes] == [("claim", both["spec"]["clusterIPs"][1])]

    fewer = changed(both, clusterIPs=both["spec"]["clusterIPs"][:1], ipFamilies=["IPv4"])
    assert texts(SERVICE, fewer, both, DUAL)[0] == (
        "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary "
        "cluster IP"
    )
    again, changes = store(changed(both, ipFamilyPolicy="SingleStack"), both, DUAL)
    assert again["spec"]["clusterIPs"] == single["spec"]["clusterIPs"]
    assert [(c.action, c.value) for c in changes] == [("release", both["spec"]["clusterIPs"][1])]


def test_the_primary_family_stays() -> None:
    old = stored_dual(ports=[HTTP], ipFamilyPolicy="RequireDualStack")
    new = changed(old, ipFamilies=["IPv6", "IPv4"], clusterIPs=old["spec"]["clusterIPs"][::-1])
    new["spec"]["clusterIP"] = new["spec"]["clusterIPs"][0]
    assert any(
        t == 'spec.ipFamilies[0]: Invalid value: ["IPv6","IPv4"]: may not change once set'
        for t in texts(SERVICE, new, old, DUAL)
    )


def test_a_headless_service_may_change_its_families() -> None:
    old = stored_dual(clusterIP="None", selector={"app": "x"})
    new = changed(old, ipFamilies=["IPv6"])
    assert texts(SERVICE, new, old, DUAL) == []


# ── updates ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_update_without_what_was_allocated_means_as_it_is() -> None:
    ports = [{"name": "http", "port": 80}, {"name": "https", "port": 443}]
    old = stored(type="LoadBalancer", externalTrafficPolicy="Local", ports=ports)
    new = service(
        type="LoadBalancer",
        externalTrafficPolicy="Local",
        ports=[{"name": "https", "port": 8443}, {"name": "http", "port": 80}],
    )
    spec = admit(SERVICE, new, old)["spec"]
    by_name = {p["name"]: p["nodePort"] for p in old["spec"]["ports"]}
    assert {p["name"]: p["nodePort"] for p in spec["ports"]} == by_name
    for field in ("clusterIP", "clusterIPs", "healthCheckNodePort", "ipFamilies"):
        assert spec[field] == old["spec"][field]


def test_a_node_port_moved_to_another_port_is_not_given_twice() -> None:
    old = stored(type="NodePort", ports=[{"name": "a", "port": 80, "nodePort": 30080}])
    new = service(type="NodePort", ports=[{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30080}])
    spec = admit(SERVICE, new, old)["spec"]
    assert "nodePort" not in spec["ports"][0]
    assert spec["ports"][1]["nodePort"] == 30080


def test_one_number_for_tcp_and_udp_is_refilled_for_both() -> None:
    ports = [{"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53}]
    old = stored(type="NodePort", ports=ports)
    assert old["spec"]["ports"][0]["nodePort"] == old["spec"]["ports"][1]["nodePort"]
    new = admit(SERVICE, service(type="NodePort", ports=ports), old)
    assert new["spec"]["ports"] == old["spec"]["ports"]


def test_leaving_load_balancer_takes_its_fields_and_its_status_along() -> None:
    old = stored(type="LoadBalancer", externalTrafficPolicy="Local", loadBalancerClass="a/b", ports=[HTTP])
    old["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}
    new = admit(SERVICE, changed(old, type="ClusterIP"), old)
    for field in (
        "healthCheckNodePort",
        "loadBalancerClass",
        "allocateLoadBalancerNodePorts",
        "externalTrafficPolicy",
    ):
        assert field not in new["spec"]
    assert "nodePort" not in new["spec"]["ports"][0]
    assert new["status"]["loadBalancer"] == {}
    assert new["spec"]["clusterIP"] == old["spec"]["clusterIP"]


def test_a_field_the_client_set_anew_is_not_wiped_but_refused() -> None:
    old = stored(type="NodePort", ports=[HTTP])
    new = changed(old, type="ClusterIP", ports=[{"port": 80, "nodePort": 31234}])
    assert texts(SERVICE, new, old) == ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]


def test_to_external_name_and_back() -> None:
    old = stored(ports=[HTTP], selector={"app": "x"})
    alias, changes = store(changed(old, type="ExternalName", externalName="example.com"), old)
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & set(alias["spec"])
    assert alias["spec"]["selector"] == {"app": "x"}
    assert [(c.kind, c.action, c.value) for c in changes] == [("address", "release", old["spec"]["clusterIP"])]

    back, changes = store(changed(alias, type="ClusterIP"), alias)
    assert back["spec"]["externalName"] == "example.com"
    assert [(c.kind, c.action, c.value) for c in changes] == [("address", "claim", back["spec"]["clusterIP"])]


def test_headless_and_not_headless_do_not_change_into_each_other() -> None:
    headless, plain = stored(clusterIP="None", selector={"a": "b"}, ports=[HTTP]), stored(ports=[HTTP])
    to_plain = changed(headless, clusterIP="10.96.0.9")
    assert 'spec.clusterIPs[0]: Invalid value: ["10.96.0.9"]: may not change once set' in texts(
        SERVICE, to_plain, headless
    )
    to_headless = changed(plain, clusterIP="None")
    assert 'spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set' in texts(SERVICE, to_headless, plain)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param({"loadBalancerClass": "a/c"}, 'spec.loadBalancerClass: Invalid value: "a/c": may not change once '
                     "set", id="class"),
        pytest.param({"healthCheckNodePort": 31999}, "spec.healthCheckNodePort: Forbidden: field is immutable",
                     id="health check port"),
    ],
)  # fmt: skip
def test_what_a_load_balancer_may_not_change(spec: JSON, text: str) -> None:
    old = stored(type="LoadBalancer", externalTrafficPolicy="Local", loadBalancerClass="a/b", ports=[HTTP])
    assert texts(SERVICE, changed(old, **spec), old) == [text]


def test_a_stored_address_of_odd_spelling_is_tolerated() -> None:
    old = stored(ports=[HTTP])
    old["spec"] |= {"clusterIP": "010.096.000.010", "clusterIPs": ["010.096.000.010"]}
    assert texts(SERVICE, copy.deepcopy(old), old) == []


def test_a_node_port_outside_a_range_that_shrank_is_tolerated() -> None:
    old = stored(type="NodePort", ports=[{"port": 80, "nodePort": 31000}])
    assert texts(SERVICE, copy.deepcopy(old), old, context(cluster(node_ports=(32000, 32100)))) == []


# ── status ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_spec_and_status_are_written_apart() -> None:
    old = stored(type="LoadBalancer", ports=[HTTP])
    new = changed(old, type="NodePort")
    new["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}
    assert admit(SERVICE, new, old)["status"] == {"loadBalancer": {}}
    assert admit(SERVICE, new, old, context(subresource="status"))["spec"] == old["spec"]


def test_a_new_service_brings_no_status() -> None:
    tree = service(ports=[HTTP]) | {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    assert admit(SERVICE, tree)["status"] == {"loadBalancer": {}}


@pytest.mark.parametrize(
    ("kind", "ingress", "text"),
    [
        pytest.param("ClusterIP", {"ip": "192.0.2.1"}, "status.loadBalancer.ingress: Forbidden: may only be used when "
                     "`spec.type` is 'LoadBalancer'", id="not a load balancer"),
        pytest.param("LoadBalancer", {"hostname": "a", "ipMode": "VIP"}, "status.loadBalancer.ingress[0].ipMode: "
                     "Forbidden: may not be specified when `ip` is not set", id="a mode of nothing"),
        pytest.param("LoadBalancer", {"ip": "192.0.2.1", "ipMode": "X"}, "status.loadBalancer.ingress[0].ipMode: "
                     'Unsupported value: "X": supported values: "Proxy", "VIP"', id="another mode"),
        pytest.param("LoadBalancer", {"hostname": "192.0.2.1"}, "status.loadBalancer.ingress[0].hostname: Invalid "
                     'value: "192.0.2.1": must be a DNS name, not an IP address', id="an address as a name"),
    ],
)  # fmt: skip
def test_a_status_is_refused_in_upstreams_words(kind: str, ingress: JSON, text: str) -> None:
    old = stored(type=kind, ports=[HTTP])
    new = copy.deepcopy(old) | {"status": {"loadBalancer": {"ingress": [ingress]}}}
    assert texts(SERVICE, new, old, context(subresource="status")) == [text]


# ── warnings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, [], id="nothing to say"),
        pytest.param({"externalIPs": ["192.0.2.1"]}, ["spec.externalIPs is deprecated and may no longer be implemented "
                     "in some clusters"], id="external IPs"),
        pytest.param({"trafficDistribution": "PreferClose"}, ['spec.trafficDistribution: "PreferClose" is deprecated; '
                     'use "PreferSameZone"'], id="PreferClose"),
        pytest.param({"clusterIP": "None", "clusterIPs": ["None"], "sessionAffinity": "ClientIP"},
                     ["spec.SessionAffinity is ignored for headless services"], id="headless affinity"),
        pytest.param({"externalName": "a"}, ['spec.externalName is ignored when spec.type is not "ExternalName"'],
                     id="a name without the type"),
        pytest.param({"clusterIPs": ["FD00::1"]}, ['spec.clusterIPs[0]: IPv6 address "FD00::1" should be in RFC 5952 '
                     'canonical format ("fd00::1")'], id="spelling"),
    ],
)  # fmt: skip
def test_warnings(spec: JSON, expected: list[str]) -> None:
    assert admission.warnings(SERVICE, service(**spec)) == expected
