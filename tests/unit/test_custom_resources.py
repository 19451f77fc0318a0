"""Custom resources through the whole server: defined, served, checked, versioned, emptied."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from kubesvc.api.errors import ApiError, BadRequest, Invalid, MethodNotAllowed, NotFound, UnsupportedMediaType
from kubesvc.api.registry import CUSTOM_RESOURCE_DEFINITION as DEFINITION
from kubesvc.api.registry import Kind
from kubesvc.apiserver.custom import rules
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, Request, Response
from kubesvc.store.memory import MemoryStore
from support.apiserver import ADMIN, local_server
from support.custom import DATABASE, GATEWAY, HTTP_ROUTE, TEXT, definition, of

JSON = dict[str, Any]
DB = Kind("example.com", "v1", "Database", "databases", "database", True)
GW = Kind("gateway.example.com", "v1", "Gateway", "gateways", "gateway", True)
ROUTE = Kind("gateway.example.com", "v1", "HTTPRoute", "httproutes", "httproute", True)
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"


class Cluster:
    def __init__(self, server: Any) -> None:
        self.handler = server.handler
        self.session = Session(LocalTransport(server.handler, ADMIN))

    async def send(self, method: str, path: str, tree: Any = None, *, accept: str = "application/json",
                   media: str = "application/json", **query: str) -> Response:  # fmt: skip
        body = b"" if tree is None else msgspec.json.encode(tree)
        headers = {"accept": accept, "content-type": media}
        response: Response = await self.handler(Request(method, path, query, headers, body, ADMIN))
        return response

    async def get(self, path: str, **more: str) -> JSON:
        response = await self.send("GET", path, **more)
        assert response.status == 200, response.body
        found: JSON = msgspec.json.decode(response.body)
        return found

    async def define(self, tree: JSON) -> JSON:
        """A definition, once it is established."""
        await self.session.create(DEFINITION, copy.deepcopy(tree))
        return await self.until(tree["metadata"]["name"], "Established")

    async def until(self, name: str, condition: str, status: str = "True") -> JSON:
        deadline = time.monotonic() + 60
        while True:
            found = await self.session.get(DEFINITION, "", name)
            held = {c["type"]: c["status"] for c in found["status"].get("conditions") or ()}
            if held.get(condition) == status:
                return found
            assert time.monotonic() < deadline, held
            await asyncio.sleep(0)

    async def gone(self, name: str) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                await self.session.get(DEFINITION, "", name)
            except NotFound:
                return
            assert time.monotonic() < deadline
            await asyncio.sleep(0)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with local_server() as server:
        yield Cluster(server)


def db(name: str = "a", **spec: Any) -> JSON:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"engine": "postgres", **spec}}


def refusal(error: pytest.ExceptionInfo[ApiError]) -> str:
    return error.value.message


# ── definitions ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_definition_is_named_established_and_kept_by_its_finalizer(cluster: Cluster) -> None:
    found = await cluster.define(DATABASE)
    assert found["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    status = found["status"]
    assert status["storedVersions"] == ["v1"]
    assert status["acceptedNames"] == {
        "plural": "databases", "singular": "database", "kind": "Database", "listKind": "DatabaseList",
        "shortNames": ["db"], "categories": ["all"],
    }  # fmt: skip
    assert {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]} == {
        "NamesAccepted": ("True", "NoConflicts"), "Established": ("True", "InitialNamesAccepted")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param(lambda d: d["metadata"].update(name="x.example.com"), "spec.names.plural", id="name"),
        pytest.param(lambda d: d["spec"].update(group="nodots"), "a domain with at least one dot", id="group"),
        pytest.param(lambda d: d["spec"].update(scope="Galaxy"), 'spec.scope: Unsupported value: "Galaxy"', id="scope"),
        pytest.param(lambda d: d["spec"]["versions"][0].update(storage=False), "exactly one version marked as storage",
                     id="storage"),
        pytest.param(lambda d: d["spec"]["versions"].append(d["spec"]["versions"][0]), "Duplicate value", id="twice"),
        pytest.param(lambda d: d["spec"]["versions"][0].pop("schema"), "schemas are required", id="no schema"),
        pytest.param(lambda d: root(d).update({"properties": {"a": {}}}), "must not be empty for specified",
                     id="no type"),
        pytest.param(lambda d: root(d).update({"properties": {"a": {"type": "thing"}}}), "Unsupported", id="type"),
        pytest.param(lambda d: root(d).update({"properties": {"a": {"$ref": "#/b"}}}), "$ref is not", id="ref"),
        pytest.param(lambda d: root(d).update({"properties": {"a": {"type": "array"}}}), "items: Required", id="items"),
        pytest.param(lambda d: root(d).update({"properties": {"a": {"type": "string", "default": 1}}}),
                     "must be of type string", id="default of another type"),
        pytest.param(lambda d: root(d).update({"properties": {"a": {"type": "string", "pattern": "(?=x)"}}}),
                     "must be a valid regular expression", id="pattern"),
        pytest.param(lambda d: root(d).update({"properties": {"a": {"type": "string", "anyOf": [{"pattern": "[x"}]}}}),
                     "anyOf[0].pattern: Invalid value: \"[x\"", id="pattern among others"),
        pytest.param(lambda d: root(d).update({"not": {"x-kubernetes-validations": [{"rule": "true"}]}}),
                     "not.x-kubernetes-validations: Forbidden: must be empty to be structural", id="rule among others"),
        pytest.param(lambda d: root(d).update({"x-kubernetes-validations": [{"rule": "self. +"}]}),
                     "compilation failed", id="rule"),
        pytest.param(lambda d: root(d).update({"additionalProperties": {"type": "string"}}), "mutual exclusive",
                     id="both kinds of fields"),
        pytest.param(lambda d: d["spec"]["versions"][0].update(
            additionalPrinterColumns=[{"name": "x", "type": "text", "jsonPath": ".a"}]), "Unsupported value: \"text\"",
                     id="column"),
    ],
)  # fmt: skip
async def test_a_definition_that_cannot_be_served_is_refused(cluster: Cluster, change: Any, text: str) -> None:
    tree = copy.deepcopy(DATABASE)
    change(tree)
    with pytest.raises(Invalid) as error:
        await cluster.session.create(DEFINITION, tree)
    assert text in refusal(error)


def root(tree: JSON) -> JSON:
    found: JSON = tree["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


async def test_names_belong_to_the_first_until_it_goes(cluster: Cluster) -> None:
    await cluster.define(definition("Widget", of({"a": TEXT}), shortNames=["wd"]))
    second = definition("Widget", of({"a": TEXT}), plural="otherwidgets", singular="other", shortNames=["ow"])
    await cluster.session.create(DEFINITION, second)
    found = await cluster.until("otherwidgets.example.com", "NamesAccepted", "False")
    conditions = {c["type"]: c for c in found["status"]["conditions"]}
    assert '"Widget' in conditions["NamesAccepted"]["message"]
    assert conditions["Established"]["status"] == "False"
    assert (await cluster.send("GET", "/apis/example.com/v1/otherwidgets")).status == 404
    await cluster.session.delete(DEFINITION, "", "widgets.example.com")
    await cluster.gone("widgets.example.com")
    await cluster.until("otherwidgets.example.com", "Established")


async def test_what_is_not_enforced_is_said(cluster: Cluster) -> None:
    ruled = [{"rule": "authorizer.path('/x').check('get').allowed()"}, {"rule": "true", "messageExpression": "odd()"}]
    fields = {"a": TEXT, "b": TEXT | {"anyOf": [{"format": "isbn"}, {"format": "uri"}]}}
    tree = definition("Odd", of(fields, **{"x-kubernetes-validations": ruled}))
    tree["spec"]["conversion"] = {"strategy": "Webhook"}
    columns = [{"name": "Of", "type": "string", "jsonPath": path} for path in (".a", ".a[[")]
    tree["spec"]["versions"][0]["additionalPrinterColumns"] = columns
    made = await cluster.send("POST", DEFINITION.path(), tree)
    assert made.status == 201, made.body
    for said in (
        "x-kubernetes-validations[0] is not enforced: ",
        "x-kubernetes-validations[1].messageExpression is not used: ",
        "properties[b].anyOf[0].format is not enforced: ",
        "additionalPrinterColumns[1] stays empty: ",
        "conversion by webhook is not done",
    ):
        assert said in made.headers["Warning"]
    assert "anyOf[1]" not in made.headers["Warning"]
    await cluster.until("odds.example.com", "Established")
    kind = Kind("example.com", "v1", "Odd", "odds", "odd", True)
    await cluster.session.create(kind, {"metadata": {"name": "x", "namespace": "default"}, "a": "b"})


# ── objects ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_object_is_pruned_and_defaulted(cluster: Cluster) -> None:
    await cluster.define(DATABASE)
    tree = db(nonsense=1, template={"any": {"thing": [None]}}, parameters={"a": "b"}, backup={"keep": None, "x": 1})
    made = await cluster.send("POST", DB.path("default"), tree | {"extra": 1})
    assert made.status == 201, made.body
    found = msgspec.json.decode(made.body)
    assert found["spec"] == {
        "engine": "postgres", "template": {"any": {"thing": [None]}}, "parameters": {"a": "b"},
        "backup": {"keep": None}, "replicas": 1, "storage": "1Gi",
    }  # fmt: skip
    assert "extra" not in found
    assert found["metadata"]["generation"] == 1
    for path in ("extra", "spec.nonsense", "spec.backup.x"):
        assert f'unknown field \\"{path}\\"' in made.headers["Warning"]
    with pytest.raises(BadRequest, match='strict decoding error: unknown field "spec.nonsense"'):
        await cluster.session.raw("POST", DB.path("default"), query={"fieldValidation": "Strict"},
                                  body=msgspec.json.encode(db("b", nonsense=1)))  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"engine": "oracle"}, 'spec.engine: Unsupported value: "oracle": supported values: "postgres", "mysql"'),
        ({"replicas": 10}, "spec.replicas: Invalid value: 10: spec.replicas in body should be less than or equal to 9"),
        ({"replicas": "3"}, 'Invalid value: "string": spec.replicas in body must be of type integer: "string"'),
        ({"storage": True}, 'spec.storage in body must be of type integer,string: "boolean"'),
        ({"parameters": {"a": 1}}, "spec.parameters.a in body must be of type string"),
        ({"engine": "mysql", "replicas": 2}, "spec.replicas: Forbidden: mysql has one replica, not 2"),
    ],
)  # fmt: skip
async def test_an_object_is_refused_in_upstreams_words(cluster: Cluster, spec: JSON, text: str) -> None:
    await cluster.define(DATABASE)
    with pytest.raises(Invalid) as error:
        await cluster.session.create(DB, db(**spec))
    assert text in refusal(error)
    assert refusal(error).startswith('Database.example.com "a" is invalid: ')


async def test_a_required_field_is_asked_for(cluster: Cluster) -> None:
    await cluster.define(DATABASE)
    with pytest.raises(Invalid, match=r"spec: Required value"):
        await cluster.session.create(DB, {"metadata": {"name": "a", "namespace": "default"}})
    with pytest.raises(Invalid, match=r"spec\.engine: Required value"):
        await cluster.session.create(DB, {"metadata": {"name": "a", "namespace": "default"}, "spec": {}})


async def test_a_rule_compares_with_what_was(cluster: Cluster) -> None:
    await cluster.define(DATABASE)
    await cluster.session.create(DB, db(version="14"))
    with pytest.raises(Invalid, match='spec.version: Invalid value: "15": version is immutable'):
        await cluster.session.patch(DB, "default", "a", {"spec": {"version": "15"}})
    await cluster.session.patch(DB, "default", "a", {"spec": {"replicas": 3}})


async def test_rules_end_when_they_take_too_long(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else asks the server waits meanwhile."""
    monkeypatch.setattr(rules, "_LONGEST_ASKED", 0.0)
    await cluster.define(DATABASE)
    with pytest.raises(Invalid, match="the rules take more than 0 s for this object"):
        await cluster.session.create(DB, db())


async def test_a_schema_may_become_stricter_while_objects_live(cluster: Cluster) -> None:
    found = await cluster.define(DATABASE)
    await cluster.session.create(DB, db(replicas=9))
    root(found)["properties"]["spec"]["properties"]["replicas"]["maximum"] = 3
    await cluster.session.update(DEFINITION, found)
    deadline = time.monotonic() + 60
    while (await cluster.send("POST", DB.path("default"), db("b", replicas=9))).status != 422:
        await cluster.session.delete(DB, "default", "b")
        assert time.monotonic() < deadline
        await asyncio.sleep(0)
    changed = await cluster.session.patch(DB, "default", "a", {"spec": {"parameters": {"a": "b"}}})
    assert changed["spec"]["replicas"] == 9
    with pytest.raises(Invalid, match="less than or equal to 3"):
        await cluster.session.patch(DB, "default", "a", {"spec": {"replicas": 8}})


async def test_status_is_written_apart(cluster: Cluster) -> None:
    await cluster.define(DATABASE)
    made = await cluster.session.create(DB, db() | {"status": {"phase": "Mine"}})
    assert "status" not in made
    changed = await cluster.session.patch(
        DB, "default", "a",
        {"status": {"phase": "Ready", "x": 1}, "spec": {"replicas": 5}, "metadata": {"labels": {"a": "b"}}},
        subresource="status",
    )  # fmt: skip
    assert (changed["status"], changed["spec"]["replicas"]) == ({"phase": "Ready"}, 1)
    assert "labels" not in changed["metadata"]
    assert changed["metadata"]["generation"] == 1
    changed = await cluster.session.patch(DB, "default", "a", {"status": {"phase": "Gone"}, "spec": {"replicas": 5}})
    assert (changed["status"]["phase"], changed["metadata"]["generation"]) == ("Ready", 2)


async def test_scale_is_where_the_definition_says(cluster: Cluster) -> None:
    await cluster.define(DATABASE)
    await cluster.session.create(DB, db(replicas=2))
    await cluster.session.patch(
        DB, "default", "a", {"status": {"replicas": 1, "selector": "app=x"}}, subresource="status"
    )
    scale = await cluster.get(DB.path("default", "a", "scale"))
    assert (scale["spec"], scale["status"]) == ({"replicas": 2}, {"replicas": 1, "selector": "app=x"})
    scale["spec"]["replicas"] = 4
    assert (await cluster.send("PUT", DB.path("default", "a", "scale"), scale)).status == 200
    assert (await cluster.session.get(DB, "default", "a"))["spec"]["replicas"] == 4
    scale["spec"]["replicas"] = 40
    scale["metadata"].pop("resourceVersion")
    assert (await cluster.send("PUT", DB.path("default", "a", "scale"), scale)).status == 422


async def test_a_scale_is_applied_where_the_definition_says(cluster: Cluster) -> None:
    await cluster.define(DATABASE)
    await cluster.session.create(DB, db(replicas=2))
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 4}}

    async def apply(**more: str) -> Response:
        return await cluster.send("PATCH", DB.path("default", "a", "scale"), scale,
                                  media="application/apply-patch+yaml", fieldManager="scaler", **more)  # fmt: skip

    assert (await apply()).status == 409
    assert (await apply(force="true")).status == 200
    found = await cluster.session.get(DB, "default", "a")
    assert found["spec"]["replicas"] == 4
    (own,) = (entry for entry in found["metadata"]["managedFields"] if entry["manager"] == "scaler")
    assert (own["apiVersion"], own["subresource"]) == (DB.api_version, "scale")
    assert own["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


async def test_a_table_has_the_definitions_columns(cluster: Cluster) -> None:
    await cluster.define(GATEWAY)
    await cluster.session.create(GW, gateway())
    status = {"conditions": [{"type": "Programmed", "status": "True"}], "addresses": [{"value": "192.0.2.1"}]}
    await cluster.session.patch(GW, "default", "g", {"status": status}, subresource="status")
    table = await cluster.get(GW.path("default"), accept=TABLE)
    assert [c["name"] for c in table["columnDefinitions"]] == ["Name", "Class", "Address", "Programmed", "Age"]
    assert table["rows"][0]["cells"][:4] == ["g", "c", "192.0.2.1", "True"]


def gateway(**listener: Any) -> JSON:
    one = {"name": "web", "port": 80, "protocol": "HTTP", **listener}
    return {"metadata": {"name": "g", "namespace": "default"}, "spec": {"gatewayClassName": "c", "listeners": [one]}}


async def test_a_gateway_and_its_routes_are_what_their_rules_say(cluster: Cluster) -> None:
    await cluster.define(GATEWAY)
    await cluster.define(HTTP_ROUTE)
    made = await cluster.session.create(GW, gateway())
    assert made["spec"]["listeners"][0]["allowedRoutes"] == {"namespaces": {"from": "Same"}}
    bad = gateway(tls={})
    bad["metadata"]["name"] = "h"
    with pytest.raises(Invalid, match="tls must not be specified for protocols"):
        await cluster.session.create(GW, bad)
    twice = gateway()
    twice["metadata"]["name"] = "i"
    twice["spec"]["listeners"].append({"name": "other", "port": 80, "protocol": "HTTP"})
    with pytest.raises(Invalid, match="must be unique for each listener"):
        await cluster.session.create(GW, twice)
    same = gateway()
    same["metadata"]["name"] = "j"
    same["spec"]["listeners"].append({"name": "web", "port": 81, "protocol": "HTTP"})
    with pytest.raises(Invalid, match=r'spec.listeners\[1\]: Duplicate value: \{"name":"web"\}'):
        await cluster.session.create(GW, same)
    route = await cluster.session.create(ROUTE, {"metadata": {"name": "r", "namespace": "default"}, "spec": {}})
    assert route["spec"]["rules"] == [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]
    wrong = {"metadata": {"name": "s", "namespace": "default"},
             "spec": {"hostnames": ["UPPER"],
                      "rules": [{"matches": [{"path": {"type": "Exact", "value": "x"}}]}]}}  # fmt: skip
    with pytest.raises(Invalid, match=r"spec.hostnames\[0\] in body should match"):
        await cluster.session.create(ROUTE, wrong)
    wrong["spec"].pop("hostnames")  # type: ignore[attr-defined]
    with pytest.raises(Invalid, match="must be an absolute path"):
        await cluster.session.create(ROUTE, wrong)


async def test_patches_of_custom_resources_are_merge_json_and_apply(cluster: Cluster) -> None:
    await cluster.define(DATABASE)
    await cluster.session.create(DB, db())
    with pytest.raises(UnsupportedMediaType):
        await cluster.session.patch(DB, "default", "a", {}, patch_type="application/strategic-merge-patch+json")
    operations = [{"op": "replace", "path": "/spec/replicas", "value": 3}]
    found = await cluster.session.patch(DB, "default", "a", operations, patch_type="application/json-patch+json")
    assert found["spec"]["replicas"] == 3


async def test_server_side_apply_knows_the_schemas_lists(cluster: Cluster) -> None:
    await cluster.define(GATEWAY)

    async def apply(manager: str, tree: JSON) -> Response:
        whole = {"apiVersion": GW.api_version, "kind": GW.kind, **tree}
        return await cluster.send("PATCH", GW.path("default", "g"), whole, media="application/apply-patch+yaml",
                                  fieldManager=manager)  # fmt: skip

    assert (await apply("one", gateway())).status == 201
    done = await apply("two", gateway(name="extra", port=443, protocol="HTTPS"))
    assert done.status == 200, done.body
    found = await cluster.session.get(GW, "default", "g")
    assert [listener["name"] for listener in found["spec"]["listeners"]] == ["web", "extra"]
    clash = await apply("three", gateway(port=81))
    assert clash.status == 409
    assert b'conflict with \\"one\\": .spec.listeners[name=\\"web\\"].port' in clash.body
    changed = gateway(name="extra", port=443, protocol="HTTPS")
    changed["spec"]["listeners"] = []
    await apply("two", changed)
    assert (await cluster.send("GET", GW.path("default", "g"))).status == 200


async def test_selectable_fields_select(cluster: Cluster) -> None:
    await cluster.define(DATABASE)
    await cluster.session.create(DB, db("a"))
    await cluster.session.create(DB, db("b", engine="mysql"))
    found = await cluster.get(DB.path("default"), fieldSelector="spec.engine=mysql")
    assert (found["kind"], [item["metadata"]["name"] for item in found["items"]]) == ("DatabaseList", ["b"])
    assert (await cluster.send("GET", DB.path("default"), fieldSelector="spec.replicas=1")).status == 400


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def versioned(storage: str = "v1beta1") -> JSON:
    old = {"name": "v1beta1", "served": True, "schema": {"openAPIV3Schema": of({"spec": of({"size": TEXT})})},
           "deprecated": True}  # fmt: skip
    new = {"name": "v1", "served": True,
           "schema": {"openAPIV3Schema": of(
               {"spec": of({"size": TEXT, "unit": {"type": "string", "default": "m"}})})}}  # fmt: skip
    return definition("Thing", {}, versions=[{**v, "storage": v["name"] == storage} for v in (old, new)])


async def test_an_object_is_served_in_every_version(cluster: Cluster) -> None:
    found = await cluster.define(versioned())
    old = Kind("example.com", "v1beta1", "Thing", "things", "thing", True)
    new = Kind("example.com", "v1", "Thing", "things", "thing", True)
    made = await cluster.send("POST", old.path("default"), {"metadata": {"name": "x"}, "spec": {"size": "1"}})
    assert "v1beta1 Thing is deprecated" in made.headers["Warning"]
    shown = await cluster.session.get(new, "default", "x")
    assert (shown["apiVersion"], shown["spec"]) == ("example.com/v1", {"size": "1", "unit": "m"})
    assert shown["metadata"]["uid"] == msgspec.json.decode(made.body)["metadata"]["uid"]
    await cluster.session.create(new, {"metadata": {"name": "y", "namespace": "default"}, "spec": {"size": "2"}})
    listed = await cluster.get(old.path("default"))
    assert [(i["apiVersion"], i["spec"]) for i in listed["items"]] == [
        ("example.com/v1beta1", {"size": "1"}), ("example.com/v1beta1", {"size": "2"})
    ]  # fmt: skip
    for version in found["spec"]["versions"]:
        version["storage"] = version["name"] == "v1"
    found = await cluster.session.update(DEFINITION, found)
    assert found["status"]["storedVersions"] == ["v1beta1", "v1"]
    groups = await cluster.get("/apis/example.com")
    assert [v["version"] for v in groups["versions"]] == ["v1", "v1beta1"]
    changed = await cluster.session.patch(old, "default", "x", {"spec": {"size": "3"}})
    assert (changed["apiVersion"], changed["spec"]["size"]) == ("example.com/v1beta1", "3")


async def test_a_watch_is_in_the_version_it_was_asked_in(cluster: Cluster) -> None:
    await cluster.define(versioned())
    new = Kind("example.com", "v1", "Thing", "things", "thing", True)
    await cluster.session.create(new, {"metadata": {"name": "x", "namespace": "default"}, "spec": {"size": "1"}})
    for version in ("v1", "v1beta1"):
        response = await cluster.send("GET", f"/apis/example.com/{version}/things", watch="true")
        assert response.stream is not None
        line = await anext(aiter(response.stream))
        assert msgspec.json.decode(line)["object"]["apiVersion"] == f"example.com/{version}"
        await response.stream.aclose()  # type: ignore[attr-defined]


# ── deletion ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_definition_takes_its_objects_with_it_and_waits_for_their_finalizers(cluster: Cluster) -> None:
    await cluster.define(DATABASE)
    await cluster.session.create(DB, db("plain"))
    held = db("held")
    held["metadata"]["finalizers"] = ["example.com/mine"]
    await cluster.session.create(DB, held)
    await cluster.session.delete(DEFINITION, "", "databases.example.com")
    await cluster.until("databases.example.com", "Terminating")
    with pytest.raises(MethodNotAllowed, match="definition is terminating"):
        await cluster.session.create(DB, db("late"))
    deadline = time.monotonic() + 60
    while len((await cluster.get(DB.path()))["items"]) != 1:
        assert time.monotonic() < deadline
        await asyncio.sleep(0)
    await cluster.session.patch(DB, "default", "held", {"metadata": {"finalizers": None}})
    await cluster.gone("databases.example.com")
    while (await cluster.send("GET", DB.path())).status != 404:
        assert time.monotonic() < deadline
        await asyncio.sleep(0)
    await cluster.define(DATABASE)
    assert (await cluster.get(DB.path()))["items"] == []


async def test_custom_kinds_are_there_again_after_a_restart() -> None:
    store = MemoryStore()
    async with local_server(store) as server:
        cluster = Cluster(server)
        await cluster.define(DATABASE)
        await cluster.session.create(DB, db())
    async with local_server(store) as server:
        assert (await Cluster(server).session.get(DB, "default", "a"))["spec"]["engine"] == "postgres"


# ── discovery and OpenAPI ────────────────────────────────────────────────────────────────────────────────────────────


async def test_custom_kinds_are_discovered_and_described(cluster: Cluster) -> None:
    await cluster.define(DATABASE)
    resources = {r["name"]: r for r in (await cluster.get("/apis/example.com/v1"))["resources"]}
    assert set(resources) == {"databases", "databases/status", "databases/scale"}
    assert resources["databases"]["shortNames"] == ["db"]
    aggregated = await cluster.get(
        "/apis", accept="application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    )
    assert "example.com" in [item["metadata"]["name"] for item in aggregated["items"]]
    index = (await cluster.get("/openapi/v3"))["paths"]
    assert "apis/example.com/v1" in index
    document = await cluster.get("/openapi/v3/apis/example.com/v1")
    schema = document["components"]["schemas"]["com.example.v1.Database"]
    assert schema["properties"]["spec"]["properties"]["engine"]["enum"] == ["postgres", "mysql"]
    assert schema["x-kubernetes-group-version-kind"] == [{"group": "example.com", "version": "v1", "kind": "Database"}]
    second = await cluster.get("/openapi/v2")
    assert "com.example.v1.Database" in second["definitions"]
    packed = await cluster.send(
        "GET", "/openapi/v2", accept="application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    )
    assert packed.status == 200
    assert b"com.example.v1.Database" in packed.body
    references = [v["$ref"] for v in schema["properties"].values() if "$ref" in v]
    assert all(r.rsplit("/", 1)[1] in document["components"]["schemas"] for r in references)
