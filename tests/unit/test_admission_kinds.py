"""The other kinds through admission, and what holds for the metadata of all."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest

from kubesvc.api.registry import (
    BGP_ADVERTISEMENT,
    BGP_PEER,
    CONFIG_MAP,
    ENDPOINT_SLICE,
    ENDPOINTS,
    EVENT,
    INGRESS,
    IP_ADDRESS,
    KINDS,
    NAMESPACE,
    NETWORK_POLICY,
    NODE,
    SECRET,
    SERVICE_CIDR,
    Kind,
)
from kubesvc.apiserver import admission
from support.admission import admit, context, named, texts

JSON = dict[str, Any]


def with_meta(**metadata: Any) -> JSON:
    tree = named(CONFIG_MAP, "c")
    tree["metadata"] |= metadata
    return tree


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        pytest.param({"name": ""}, "metadata.name: Required value: name or generateName is required", id="no name"),
        pytest.param({"name": "a_b"}, 'metadata.name: Invalid value: "a_b": a lowercase RFC 1123 subdomain must '
                     "consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
                     "alphanumeric character (e.g. 'example.com', regex used for validation is "
                     r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')", id="name"),
        pytest.param({"labels": {"a": "x y"}}, 'metadata.labels: Invalid value: "x y": a valid label must be an empty '
                     "string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
                     "alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation "
                     "is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')", id="label"),
        pytest.param({"annotations": {"a": "x" * 262144}}, "metadata.annotations: Too long: may not be more than "
                     "262144 bytes", id="annotations"),
        pytest.param({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]},
                     'metadata.ownerReferences[0].uid: Invalid value: "": uid must not be empty', id="owner"),
        pytest.param({"labels": ["a"]}, 'metadata.labels: Invalid value: "array": metadata.labels in body must be of '
                     'type object: "array"', id="type"),
        pytest.param({"creationTimestamp": "yesterday"}, 'metadata.creationTimestamp: Invalid value: "yesterday": must '
                     "be an RFC 3339 time, such as 2006-01-02T15:04:05Z", id="time"),
    ],
)  # fmt: skip
def test_metadata_is_refused_in_upstreams_words(metadata: JSON, text: str) -> None:
    assert texts(CONFIG_MAP, with_meta(**metadata)) == [text]


def test_what_the_server_owns_of_the_metadata_stays() -> None:
    old = with_meta(uid="u1", creationTimestamp="2026-01-01T00:00:00Z")
    new = admit(
        CONFIG_MAP, with_meta(creationTimestamp="2020-01-01T00:00:00Z", deletionTimestamp="2020-01-01T00:00:00Z"), old
    )
    assert new["metadata"] == old["metadata"]


def test_a_finalizer_cannot_be_added_to_what_is_being_deleted() -> None:
    old = with_meta(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["a/b"])
    new = with_meta(finalizers=["a/b", "c/d"])
    assert texts(CONFIG_MAP, new, old) == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new "
        'finalizers []string{"c/d"}'
    ]


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda k: k.kind)
def test_every_kind_can_be_asked_about_an_empty_object(kind: Kind) -> None:
    tree = named(kind, "x")
    admission.default(kind, tree)
    admission.prepare(kind, tree, None, context())
    admission.validate(kind, tree, None, context())
    assert any("nothing in this cluster acts on it" in w for w in admission.warnings(kind, tree)) != kind.acted_on


ROUTER: JSON = {"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1"}


@pytest.mark.parametrize(
    ("kind", "spec", "text"),
    [
        (BGP_PEER, ROUTER | {"holdTime": "0s", "bfd": {"receiveInterval": 100}}, None),
        (BGP_PEER, ROUTER | {"peerASN": 2**32}, "spec.peerASN: Invalid value: 4294967296: must be an AS number"),
        (BGP_PEER, ROUTER | {"peerAddress": "router"}, 'spec.peerAddress: Invalid value: "router": must be an IP'),
        (BGP_PEER, ROUTER | {"routerID": "fd00::1"}, 'spec.routerID: Invalid value: "fd00::1": must be an IPv4'),
        (BGP_PEER, ROUTER | {"peerPort": 70000}, "spec.peerPort: Invalid value: 70000: must be a number from 1"),
        (BGP_PEER, ROUTER | {"holdTime": "1s"}, 'spec.holdTime: Invalid value: "1s": must be 0s, or from 3s'),
        (BGP_PEER, ROUTER | {"holdTime": "soon"}, 'spec.holdTime: Invalid value: "soon": must be a duration'),
        (BGP_PEER, ROUTER | {"keepaliveTime": "2m"}, 'spec.keepaliveTime: Invalid value: "2m": may not be longer'),
        (BGP_PEER, ROUTER | {"bfd": {"receiveInterval": 1}}, "spec.bfd.receiveInterval: Invalid value: 1: must be a"),
        (BGP_PEER, ROUTER | {"password": 'a"b'}, 'spec.password: Invalid value: "***": may not have quotes'),
        (BGP_ADVERTISEMENT, {"communities": ["65535:65535", "large:4294967295:0:1"], "localPref": 0}, None),
        (BGP_ADVERTISEMENT, {"communities": ["70000:1"]}, 'spec.communities[0]: Invalid value: "70000:1": must be two'),
        (BGP_ADVERTISEMENT, {"communities": ["large:1:2:4294967296"]}, "spec.communities[0]: Invalid value"),
        (BGP_ADVERTISEMENT, {"localPref": 2**32}, "spec.localPref: Invalid value: 4294967296: must be a number from"),
        (BGP_ADVERTISEMENT, {"aggregationLength": 33}, "spec.aggregationLength: Invalid value: 33: must be a prefix"),
    ],
)  # fmt: skip
def test_what_bird_would_refuse_is_refused_where_it_is_written(kind: Kind, spec: JSON, text: str | None) -> None:
    """BIRD refuses a whole file for one mistake: every session of every node would go."""
    found = texts(kind, named(kind, "x", spec=spec))
    assert len(found) == (text is not None)
    assert not text or found[0].startswith(text)


# ── namespaces and nodes ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_namespace_is_active_labelled_and_finalized() -> None:
    found = admit(NAMESPACE, named(NAMESPACE, "shop"))
    assert found["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop"}
    assert found["spec"] == {"finalizers": ["kubernetes"]}
    assert found["status"] == {"phase": "Active"}


def test_a_namespaces_finalizers_change_through_finalize_alone() -> None:
    old = admit(NAMESPACE, named(NAMESPACE, "shop"))
    new = copy.deepcopy(old)
    new["spec"]["finalizers"] = []
    assert admit(NAMESPACE, new, old)["spec"] == old["spec"]
    assert admit(NAMESPACE, new, old, context(subresource="finalize"))["spec"] == {"finalizers": []}


def test_a_node_registers_with_its_status_and_keeps_its_pod_range() -> None:
    node = named(NODE, "node1", spec={"podCIDR": "10.244.0.0/24"}, status={"addresses": []})
    old = admit(NODE, node)
    assert old["spec"]["podCIDRs"] == ["10.244.0.0/24"]
    assert old["status"] == {"addresses": []}
    assert texts(NODE, named(NODE, "node1", spec={"podCIDR": "10.244.9.0/24"}), old) == [
        'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'
    ]


# ── endpoints ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_slice_gets_its_defaults_and_counts_what_readers_see() -> None:
    old = admit(ENDPOINT_SLICE, named(ENDPOINT_SLICE, "s", addressType="IPv4", ports=[{"port": 80}]))
    assert old["ports"] == [{"port": 80, "name": "", "protocol": "TCP"}]
    assert old["metadata"]["generation"] == 1
    noted = copy.deepcopy(old)
    noted["metadata"]["annotations"] = {"a": "b"}
    assert admit(ENDPOINT_SLICE, noted, old)["metadata"]["generation"] == 1
    noted["endpoints"] = [{"addresses": ["10.244.0.2"]}]
    assert admit(ENDPOINT_SLICE, noted, old)["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param({}, "addressType: Required value", id="no type"),
        pytest.param({"addressType": "IPX"}, 'addressType: Unsupported value: "IPX": supported values: "FQDN", "IPv4", '
                     '"IPv6"', id="type"),
        pytest.param({"addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}]}, "endpoints[0].addresses[0]: "
                     'Invalid value: "fd00::1": must be a valid IPv4 address', id="the other family"),
        pytest.param({"addressType": "IPv4", "endpoints": [{}]}, "endpoints[0].addresses: Required value: must contain "
                     "at least 1 address", id="no address"),
        pytest.param({"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}]}, "endpoints[0].addresses[0]: "
                     'Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
                     id="loopback"),
        pytest.param({"addressType": "IPv4", "ports": [{"port": 1}, {"port": 2}]}, 'ports[1].name: Duplicate value: ""',
                     id="two ports of a name"),
    ],
)  # fmt: skip
def test_a_slice_is_refused_in_upstreams_words(body: JSON, text: str) -> None:
    assert texts(ENDPOINT_SLICE, named(ENDPOINT_SLICE, "s", **body)) == [text]


def test_a_slices_address_type_stays() -> None:
    old = admit(ENDPOINT_SLICE, named(ENDPOINT_SLICE, "s", addressType="IPv4"))
    assert texts(ENDPOINT_SLICE, named(ENDPOINT_SLICE, "s", addressType="IPv6"), old) == [
        'addressType: Invalid value: "IPv6": field is immutable'
    ]


def test_endpoints_need_an_address_and_are_deprecated() -> None:
    tree = named(ENDPOINTS, "web", subsets=[{"ports": [{"port": 80}]}])
    assert texts(ENDPOINTS, tree) == ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]
    assert ENDPOINTS.deprecated == "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"


# ── configuration ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param({"data": {"a b": "x"}}, "data[a b]: Invalid value: \"a b\": a valid config key must consist of "
                     "alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex "
                     "used for validation is '[-._a-zA-Z0-9]+')", id="key"),
        pytest.param({"data": {"a": "x"}, "binaryData": {"a": "eA=="}}, 'data[a]: Invalid value: "a": duplicate of key '
                     "present in binaryData", id="key twice"),
        pytest.param({"data": {"a": "x" * (1 << 20) + "y"}}, ": Too long: may not be more than 1048576 bytes",
                     id="size"),
    ],
)  # fmt: skip
def test_a_config_map_is_refused_in_upstreams_words(body: JSON, text: str) -> None:
    assert texts(CONFIG_MAP, named(CONFIG_MAP, "c", **body)) == [text]


def test_an_immutable_config_map_stays_as_it_is() -> None:
    old = admit(CONFIG_MAP, named(CONFIG_MAP, "c", data={"a": "b"}, immutable=True))
    assert texts(CONFIG_MAP, named(CONFIG_MAP, "c", data={"a": "c"}, immutable=True), old) == [
        "data: Forbidden: field is immutable when `immutable` is set"
    ]


def test_a_secrets_plain_strings_become_data() -> None:
    found = admit(SECRET, named(SECRET, "s", data={"a": "eA=="}, stringData={"b": "y"}))
    assert found["type"] == "Opaque"
    assert found["data"] == {"a": "eA==", "b": base64.b64encode(b"y").decode()}
    assert "stringData" not in found
    assert texts(SECRET, named(SECRET, "s", data={"a": "?"})) == ['data[a]: Invalid value: "?": must be base64']


# ── networking ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cidrs", "text"),
    [
        pytest.param([], "spec.cidrs: Required value: at least one CIDR required", id="none"),
        pytest.param(["10.0.0.1/8"], 'spec.cidrs[0]: Invalid value: "10.0.0.1/8": must not have bits set '
                     "beyond the prefix length", id="host bits"),
        pytest.param(["FD00::/112"], 'spec.cidrs[0]: Invalid value: "FD00::/112": must be in canonical form '
                     '("fd00::/112")', id="spelling"),
        pytest.param(["10.0.0.0/08"], 'spec.cidrs[0]: Invalid value: "10.0.0.0/08": must not have leading 0s in IP or '
                     "prefix length", id="leading zeros"),
        pytest.param(["::ffff:10.0.0.0/104"], 'spec.cidrs[0]: Invalid value: "::ffff:10.0.0.0/104": must not have an '
                     "IPv4-mapped IPv6 address", id="mapped"),
        pytest.param(["10.0.0.0/40"], 'spec.cidrs[0]: Invalid value: "10.0.0.0/40": must be a valid CIDR value, (e.g. '
                     "10.9.8.0/24 or 2001:db8::/64)", id="no CIDR"),
        pytest.param(["10.0.0.0/8", "fd00::/112", "11.0.0.0/8"], 'spec.cidrs: Invalid value: ["10.0.0.0/8",'
                     '"fd00::/112","11.0.0.0/8"]: may only hold up to 2 values', id="three"),
        pytest.param(["10.0.0.0/8", "11.0.0.0/8"], 'spec.cidrs: Invalid value: ["10.0.0.0/8","11.0.0.0/8"]: may '
                     "specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
                     id="one family"),
        pytest.param(["fd00::/48"], 'spec.cidrs[0]: Invalid value: "fd00::/48": the prefix of an IPv6 range must be '
                     "/64 or longer", id="too large"),
    ],
)  # fmt: skip
def test_a_service_range_is_refused(cidrs: list[str], text: str) -> None:
    assert texts(SERVICE_CIDR, named(SERVICE_CIDR, "r", spec={"cidrs": cidrs})) == [text]


def test_a_service_range_may_only_gain_a_second_family() -> None:
    old = admit(SERVICE_CIDR, named(SERVICE_CIDR, "r", spec={"cidrs": ["10.0.0.0/8"]}))
    both = named(SERVICE_CIDR, "r", spec={"cidrs": ["10.0.0.0/8", "fd00::/112"]})
    assert texts(SERVICE_CIDR, both, old) == []
    assert texts(SERVICE_CIDR, old, both) == ['spec.cidrs: Invalid value: ["10.0.0.0/8"]: field is immutable']


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("10.0.0.1", None, id="IPv4"),
        pytest.param("fd00::1", None, id="IPv6"),
        pytest.param("fd00:0::1", "must be a canonical format IP address (expected fd00::1)", id="another spelling"),
        pytest.param("web", "must be a valid IP address", id="no address"),
    ],
)
def test_an_ip_address_is_named_by_itself(name: str, why: str | None) -> None:
    tree = named(IP_ADDRESS, name, spec={"parentRef": {"resource": "services", "name": "web"}})
    assert texts(IP_ADDRESS, tree) == ([f'metadata.name: Invalid value: "{name}": {why}'] if why else [])


@pytest.mark.parametrize(
    ("parent", "text"),
    [
        pytest.param(None, "spec.parentRef: Required value", id="none"),
        pytest.param({"name": "w"}, "spec.parentRef.resource: Required value", id="no resource"),
        pytest.param({"resource": "services"}, "spec.parentRef.name: Required value", id="no name"),
        pytest.param({"resource": "a/b", "name": "w"}, 'spec.parentRef.resource: Invalid value: "a/b": may not contain '
                     "'/'", id="two resources"),
        pytest.param({"resource": "services", "name": ".."}, 'spec.parentRef.name: Invalid value: "..": may not be '
                     "'..'", id="no path segment"),
        pytest.param({"resource": "services", "name": "w", "namespace": "a%b"}, 'spec.parentRef.namespace: Invalid '
                     """value: "a%b": may not contain '%'""", id="no namespace"),
    ],
)  # fmt: skip
def test_an_ip_address_names_its_parent(parent: JSON | None, text: str) -> None:
    spec = {} if parent is None else {"parentRef": parent}
    assert texts(IP_ADDRESS, named(IP_ADDRESS, "10.0.0.1", spec=spec)) == [text]


def test_an_ip_address_keeps_its_parent() -> None:
    tree = named(IP_ADDRESS, "10.0.0.1", spec={"parentRef": {"resource": "services", "name": "web"}})
    other = named(IP_ADDRESS, "10.0.0.1", spec={"parentRef": {"resource": "services", "name": "db"}})
    assert texts(IP_ADDRESS, other, tree) == [
        'spec.parentRef: Invalid value: {"resource":"services","name":"db"}: field is immutable'
    ]


def test_what_is_stored_but_not_acted_on_is_admitted_all_the_same() -> None:
    rule = {"http": {"paths": [{"path": "/", "backend": {}}]}}
    assert texts(INGRESS, named(INGRESS, "i", spec={"rules": [rule]})) == [
        "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"
    ]
    policy = admit(NETWORK_POLICY, named(NETWORK_POLICY, "n", spec={"podSelector": {}, "egress": [{}]}))
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_an_events_name_need_not_be_a_subdomain() -> None:
    assert texts(EVENT, named(EVENT, "web.18A_b")) == []
