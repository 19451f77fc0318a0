"""The schema, what it says of unknown fields and wrong types, and the OpenAPI documents made from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api import schema
from kubesvc.api.descriptions import DESCRIPTIONS, ENUMS
from kubesvc.api.registry import DEPLOYMENT, EVENT, KINDS, POD, SERVICE, Kind
from kubesvc.apiserver import compiled, fields, openapi
from kubesvc.apiserver.fields import check_types, drop_unknown

JSON = dict[str, Any]


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda k: k.kind)
def test_every_kind_has_a_type_whose_references_lead_somewhere(kind: Kind) -> None:
    waiting, seen = [schema.type_name(kind)], set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            for field in schema.named(name).fields.values():
                inner = field.items or field.values
                waiting += [ref for ref in (field.ref, inner.ref if inner else "") if ref]


def test_what_the_schema_knows_of_a_services_ports() -> None:
    spec = schema.named("io.k8s.api.core.v1.ServiceSpec")
    ports = spec.fields["ports"]
    assert (ports.list, ports.keys, ports.merge, ports.strategies) == (
        "map",
        ("port", "protocol"),
        "port",
        frozenset({"merge"}),
    )
    assert schema.named("io.k8s.api.core.v1.ServicePort").fields["targetPort"].type == "int-or-string"
    assert spec.fields["selector"].atomic
    assert not ports.atomic


def test_descriptions_are_of_fields_that_exist() -> None:
    for name, texts in DESCRIPTIONS.items():
        assert set(texts) - {""} <= set(schema.named(f"io.k8s.{name}").fields), name
    for name, field in ENUMS:
        assert field in schema.named(f"io.k8s.{name}").fields, name


@pytest.mark.parametrize(
    ("name", "unsaid"),
    [
        ("api.core.v1.ServiceSpec", set()),
        ("api.core.v1.ServicePort", set()),
        ("api.apps.v1.DeploymentSpec", set()),
        ("api.core.v1.ContainerPort", set()),
        ("api.core.v1.Probe", {"terminationGracePeriodSeconds"}),
    ],
)
def test_what_a_service_stands_before_is_explained(name: str, unsaid: set[str]) -> None:
    assert set(schema.named(f"io.k8s.{name}").fields) - set(DESCRIPTIONS[name]) == unsaid


# ── fields ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "tree", "expected"),
    [
        pytest.param(SERVICE, {"spec": {"foo": 1}}, ["spec.foo"], id="in the spec"),
        pytest.param(SERVICE, {"spec": {"ports": [{"port": 1}, {"prot": 1}]}}, ["spec.ports[1].prot"], id="in a list"),
        pytest.param(SERVICE, {"spec": {"selector": {"any": "thing"}}}, [], id="not in a map"),
        pytest.param(SERVICE, {"extra": {"a": {"b": 1}}}, ["extra"], id="once, not below"),
        pytest.param(DEPLOYMENT, {"spec": {"template": {"spec": {"containers": [{"img": ""}]}}}},
                     ["spec.template.spec.containers[0].img"], id="deep"),
        pytest.param(SERVICE, {"metadata": {"managedFields": [{"fieldsV1": {"f:spec": {}}}]}}, [], id="shapeless"),
    ],
)  # fmt: skip
def test_unknown_fields_are_named_and_dropped(kind: Kind, tree: JSON, expected: list[str]) -> None:
    assert drop_unknown(kind, tree) == [f'unknown field "{path}"' for path in expected]
    assert drop_unknown(kind, tree) == []


@pytest.mark.parametrize(
    ("kind", "tree", "expected"),
    [
        pytest.param(SERVICE, {"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}, [], id="int or string"),
        pytest.param(SERVICE, {"spec": {"ports": [{"port": True}]}}, ["spec.ports[0].port"],
                     id="a boolean is no integer"),
        pytest.param(SERVICE, {"spec": {"ports": [{"port": 2**31}]}}, ["spec.ports[0].port"], id="more than 32 bits"),
        pytest.param(SERVICE, {"spec": {"ports": {"port": 80}}}, ["spec.ports"], id="an object is no list"),
        pytest.param(SERVICE, {"spec": {"selector": {"a": 1}}}, ["spec.selector[a]"], id="a label is a string"),
        pytest.param(SERVICE, {"spec": {"type": None, "ports": None}}, [], id="null is nothing"),
        pytest.param(SERVICE, {"spec": "x"}, ["spec"], id="a spec is an object"),
        pytest.param(POD, {"spec": {"containers": [{"resources": {"limits": {"cpu": "100m", "mem": "1Gi", "a": 1}}}]}},
                     [], id="quantities"),
        pytest.param(POD, {"spec": {"containers": [{"resources": {"limits": {"cpu": "much"}}}]}},
                     ["spec.containers[0].resources.limits[cpu]"], id="no quantity"),
        pytest.param(EVENT, {"eventTime": "2026-01-01T00:00:00.000001Z", "lastTimestamp": "x"}, ["lastTimestamp"],
                     id="times"),
    ],
)  # fmt: skip
def test_wrong_types(kind: Kind, tree: JSON, expected: list[str]) -> None:
    assert [cause.field for cause in check_types(kind, tree)] == expected


_VALUES = st.sampled_from([None, True, 0, 80, 2**40, 1.5, "", "http", "1Gi", "2026-01-01T00:00:00Z"])
_INNER = st.sampled_from(["ports", "port", "nodePort", "targetPort", "selector", "type", "creationTimestamp"])
_NODES = st.recursive(_VALUES, lambda x: st.lists(x, max_size=2) | st.dictionaries(_INNER, x, max_size=3), max_leaves=6)
_TREES = st.dictionaries(st.sampled_from(["spec", "metadata", "status", "kind"]), _NODES)


@given(_TREES)
def test_what_is_compiled_never_accepts_what_the_walk_refuses(tree: JSON) -> None:
    if compiled.fits(SERVICE, tree):
        assert list(fields._wrong(tree, schema.type_of(SERVICE), "")) == []


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda k: k.kind)
def test_every_kind_compiles(kind: Kind) -> None:
    assert compiled.fits(kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}})
    assert not compiled.fits(kind, {"metadata": "x"})


# ── OpenAPI ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_index_leads_to_every_document() -> None:
    index = json.loads(openapi.v3_index())["paths"]
    assert set(index) == {kind.root.removeprefix("/") for kind in KINDS.values()}
    for path, entry in index.items():
        assert entry["serverRelativeURL"].startswith(f"/openapi/v3/{path}?hash=")
        assert openapi.v3(path) is not None
    assert openapi.v3("apis/example.com/v1") is None


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(v) for v in node.values()))
    if isinstance(node, list):
        return set().union(*(references(v) for v in node))
    return set()


def test_every_reference_in_a_document_is_answered_in_it() -> None:
    for path in json.loads(openapi.v3_index())["paths"]:
        document = json.loads(openapi.v3(path) or b"")
        assert references(document) <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    document = json.loads(openapi.v2())
    assert references(document) <= {f"#/definitions/{name}" for name in document["definitions"]}


def test_what_kubectl_looks_for() -> None:
    """It finds a kind by its path or its extension, merges by the keys, and checks that patch takes fieldValidation."""
    document = json.loads(openapi.v3("api/v1") or b"")
    services = document["paths"]["/api/v1/namespaces/{namespace}/services/{name}"]
    gvk = {"group": "", "version": "v1", "kind": "Service"}
    assert services["patch"]["x-kubernetes-group-version-kind"] == gvk
    assert {"fieldValidation", "dryRun"} <= {p["name"] for p in services["patch"]["parameters"]}
    schemas = document["components"]["schemas"]
    assert schemas["io.k8s.api.core.v1.Service"]["x-kubernetes-group-version-kind"] == [gvk]
    ports = schemas["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"]
    assert ports["x-kubernetes-patch-merge-key"] == "port"
    assert ports["x-kubernetes-list-map-keys"] == ["port", "protocol"]
    assert ports["description"]


POD_PATH = "/api/v1/namespaces/{namespace}/pods/{name}"


@pytest.mark.parametrize(
    ("path", "methods", "kind"),
    [
        (f"{POD_PATH}/exec", {"get", "post"}, "PodExecOptions"),
        (f"{POD_PATH}/attach", {"get", "post"}, "PodAttachOptions"),
        (f"{POD_PATH}/portforward", {"get", "post"}, "PodPortForwardOptions"),
        (f"{POD_PATH}/log", {"get"}, "Pod"),
        (f"{POD_PATH}/binding", {"post"}, "Binding"),
        (f"{POD_PATH}/eviction", {"post"}, "Eviction"),
        (f"{POD_PATH}/proxy", {"get", "put", "post", "delete", "patch"}, "PodProxyOptions"),
        (f"{POD_PATH}/proxy/{{path}}", {"get", "put", "post", "delete", "patch"}, "PodProxyOptions"),
        ("/api/v1/namespaces/{namespace}/services/{name}/proxy/{path}", {"get", "put", "post", "delete", "patch"},
         "ServiceProxyOptions"),
        ("/api/v1/nodes/{name}/proxy", {"get", "put", "post", "delete", "patch"}, "NodeProxyOptions"),
        ("/api/v1/namespaces/{name}/finalize", {"put"}, "Namespace"),
        ("/api/v1/namespaces/{namespace}/services", {"get", "post", "delete"}, "Service"),
        ("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale", {"get", "put", "patch"}, "Scale"),
        ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"post"}, "SelfSubjectAccessReview"),
    ],
)  # fmt: skip
def test_every_path_is_in_both_documents(path: str, methods: set[str], kind: str) -> None:
    root = "/".join(path.strip("/").split("/")[: 2 if path.startswith("/api/") else 3])
    for document in (json.loads(openapi.v2()), json.loads(openapi.v3(root) or b"")):
        item = document["paths"][path]
        assert set(item) - {"parameters"} == methods
        names = [parameter["name"] for parameter in item["parameters"]]
        assert names == [part.strip("{}") for part in path.split("/") if part.startswith("{")]
        assert {item[method]["x-kubernetes-group-version-kind"]["kind"] for method in methods} == {kind}


def test_a_patch_says_which_patches_there_are() -> None:
    wanted = ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"]
    path = "/api/v1/namespaces/{namespace}/services/{name}"
    new, old = json.loads(openapi.v3("api/v1") or b""), json.loads(openapi.v2())
    assert list(new["paths"][path]["patch"]["requestBody"]["content"]) == wanted
    assert list(new["paths"][path]["put"]["requestBody"]["content"]) == ["*/*"]
    assert old["paths"][path]["patch"]["consumes"] == wanted


def test_no_two_operations_have_one_name() -> None:
    paths = json.loads(openapi.v2())["paths"]
    ids = [item[m]["operationId"] for item in paths.values() for m in item if m != "parameters"]
    assert len(ids) == len(set(ids)), sorted(i for i in ids if ids.count(i) > 1)[:5]
