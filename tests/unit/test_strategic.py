"""Strategic merge patches, as kubectl sends them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.errors import BadRequest
from kubesvc.api.registry import DEPLOYMENT, SERVICE, Kind
from kubesvc.apiserver import patch

JSON = dict[str, Any]


def apply(kind: Kind, tree: JSON, document: JSON) -> JSON:
    return patch.apply(kind, tree, json.dumps(document).encode(), patch.STRATEGIC_PATCH)


def ports(*found: JSON) -> JSON:
    return {"spec": {"ports": list(found)}}


A, B, C = {"name": "a", "port": 80}, {"name": "b", "port": 81}, {"name": "c", "port": 82}


@pytest.mark.parametrize(
    ("current", "document", "expected"),
    [
        pytest.param(ports(A, B), ports({"port": 81, "nodePort": 30081}), ports(A, {**B, "nodePort": 30081}),
                     id="a port is merged by its number"),
        pytest.param(ports(A), ports(B), ports(A, B), id="a new one is added"),
        pytest.param(ports(A, B), ports({"port": 80, "$patch": "delete"}), ports(B), id="one is deleted"),
        pytest.param(ports(A, B), ports({"$patch": "replace"}, C), ports(C), id="the list is replaced"),
        pytest.param(ports({**A, "nodePort": 1}), ports({"port": 80, "nodePort": None}), ports(A), id="null clears"),
        pytest.param(ports(A, B), {"spec": {"$setElementOrder/ports": [{"port": 81}, {"port": 80}]}}, ports(B, A),
                     id="an order alone"),
        pytest.param(ports(A, B), {"spec": {"$setElementOrder/ports": [{"port": 82}, {"port": 80}], "ports": [C]}},
                     ports(C, B, A), id="an order with an addition; the unknown stays between"),
        pytest.param({"spec": {"ports": None}}, ports(A), ports(A), id="where there was none"),
    ],
)  # fmt: skip
def test_ports_of_a_service(current: JSON, document: JSON, expected: JSON) -> None:
    assert apply(SERVICE, current, document) == expected


def test_port_53_is_merged_with_its_own_protocol() -> None:
    udp, tcp = {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}
    found = apply(SERVICE, ports(udp, tcp), ports({"port": 53, "protocol": "TCP", "nodePort": 30053}))
    assert found == ports(udp, {**tcp, "nodePort": 30053})


@pytest.mark.parametrize(
    ("current", "document", "expected"),
    [
        pytest.param(["a"], {"finalizers": ["b"]}, ["a", "b"], id="a union"),
        pytest.param(["a"], {"finalizers": ["a", "b", "b"]}, ["a", "b"], id="without repeats"),
        pytest.param(["a", "b"], {"$deleteFromPrimitiveList/finalizers": ["a"]}, ["b"], id="one taken out"),
        pytest.param(["a", "b"], {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"],
                                  "$setElementOrder/finalizers": ["c", "b"]}, ["c", "b"], id="as kubectl sends it"),
    ],
)  # fmt: skip
def test_finalizers_are_a_set(current: list[str], document: JSON, expected: list[str]) -> None:
    found = apply(SERVICE, {"metadata": {"finalizers": current}}, {"metadata": document})
    assert found["metadata"]["finalizers"] == expected


def test_lists_without_a_strategy_and_atomic_maps_of_the_schema() -> None:
    current = {"spec": {"externalIPs": ["192.0.2.1"], "selector": {"a": "b"}}}
    found = apply(SERVICE, current, {"spec": {"externalIPs": ["192.0.2.2"], "selector": {"c": "d"}}})
    assert found["spec"]["externalIPs"] == ["192.0.2.2"], "a plain list is replaced"
    assert found["spec"]["selector"] == {"a": "b", "c": "d"}, "a map merges, atomic or not, as upstream does here"


def deployment(*containers: JSON, **spec: Any) -> JSON:
    return {"spec": {"template": {"spec": {"containers": list(containers)}}, **spec}}


def test_environment_variables_merge_by_name_inside_containers_that_merge_by_name() -> None:
    web = {"name": "web", "image": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}
    patched = {"name": "web", "env": [{"name": "Y", "value": "3"}, {"name": "X", "$patch": "delete"}, {"name": "Z"}]}
    found = apply(DEPLOYMENT, deployment({"name": "proxy"}, web), deployment(patched))
    assert found == deployment(
        {"name": "proxy"}, {"name": "web", "image": "a", "env": [{"name": "Y", "value": "3"}, {"name": "Z"}]}
    )


def test_retain_keys_leaves_nothing_of_the_old_strategy() -> None:
    current = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    document = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert apply(DEPLOYMENT, current, document) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_an_object_is_replaced_or_emptied_on_demand() -> None:
    current = {"metadata": {"labels": {"a": "b"}}, "spec": {"selector": {"matchLabels": {"a": "b"}}}}
    replaced = apply(DEPLOYMENT, current, {"metadata": {"labels": {"$patch": "replace", "c": "d"}}})
    assert replaced["metadata"]["labels"] == {"c": "d"}
    emptied = apply(DEPLOYMENT, current, {"spec": {"selector": {"$patch": "delete"}}})
    assert emptied["spec"]["selector"] == {}


def test_a_new_list_is_cleaned_of_directives() -> None:
    document = ports({"port": 80, "$patch": "delete"}, B)
    assert apply(SERVICE, {}, document) == ports(B)


def test_fields_the_schema_does_not_know_merge_plainly() -> None:
    found = apply(SERVICE, {"spec": {"future": {"a": 1, "b": [1]}}}, {"spec": {"future": {"b": [2], "c": None}}})
    assert found == {"spec": {"future": {"a": 1, "b": [2]}}}


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(ports({"name": "a"}), id="an item without its key"),
        pytest.param({"spec": {"$patch": "explode"}}, id="an unknown directive"),
        pytest.param({"spec": {"$retainKeys": ["type"], "clusterIP": "None"}}, id="a field that may not stay"),
    ],
)
def test_a_patch_that_cannot_be_understood_is_a_bad_request(document: JSON) -> None:
    with pytest.raises(BadRequest):
        apply(SERVICE, ports(A), document)


_PORTS = st.lists(
    st.fixed_dictionaries({"port": st.integers(1, 6)}, optional={"name": st.sampled_from("abc")}),
    unique_by=lambda p: p["port"],
    max_size=5,
)


@given(_PORTS, _PORTS)
def test_merging_keeps_one_item_a_key_and_is_done_once(current: list[JSON], patched: list[JSON]) -> None:
    once = apply(SERVICE, ports(*current), ports(*patched))
    found = [p["port"] for p in once["spec"]["ports"]]
    assert sorted(found) == sorted({p["port"] for p in current} | {p["port"] for p in patched})
    assert apply(SERVICE, once, ports(*patched)) == once


@given(_PORTS, st.permutations([1, 2, 3, 4, 5, 6]))
def test_an_order_of_everything_is_the_order(current: list[JSON], order: list[int]) -> None:
    document = {"spec": {"$setElementOrder/ports": [{"port": p} for p in order]}}
    found = apply(SERVICE, ports(*current), document)["spec"]["ports"]
    assert [p["port"] for p in found] == [p for p in order if p in {c["port"] for c in current}]
