"""The parameters of each verb, in upstream's words, and the forms an answer can have."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import msgspec
import pytest
import yaml

from kubesvc.api.meta import JSON
from kubesvc.api.registry import CONFIG_MAP, DEPLOYMENT, ENDPOINTS, POD, SERVICE, Kind
from kubesvc.apiserver import duplicates
from kubesvc.apiserver.server import ApiServer
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, Request, Response
from kubesvc.store.memory import MemoryStore
from support.apiserver import ADMIN, local_server

PATH = CONFIG_MAP.path("default")
STRICT = {"fieldValidation": "Strict"}
PLAIN: JSON = {"ports": [{"port": 80}]}


class Client:
    def __init__(self, server: ApiServer, store: MemoryStore) -> None:
        self.server, self.store = server, store
        self.transport = LocalTransport(server.handler, ADMIN)
        self.session = Session(self.transport)

    async def send(
        self,
        method: str,
        path: str,
        body: JSON | bytes | None = None,
        query: dict[str, str] | None = None,
        **headers: str,
    ) -> Response:
        raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.transport.send(Request(method, path, query or {}, named, raw))

    async def json(self, *args: Any, **headers: str) -> tuple[int, Any]:
        response = await self.send(*args, **headers)
        return response.status, msgspec.json.decode(response.body)

    async def put(self, *names: str) -> None:
        for name in names:
            await self.session.create(CONFIG_MAP, {"metadata": {"name": name, "namespace": "default"}})


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    store = MemoryStore(mark_seconds=0.05)
    async with local_server(store) as server:
        yield Client(server, store)


# ── parameters ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "query", "message"),
    [
        ("POST", {"dryRun": "Some"}, 'CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: '
                                     'supported values: "All"'),
        ("PUT", {"fieldValidation": "x"}, 'UpdateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value:'
                                          ' "x": supported values: "", "Ignore", "Strict", "Warn"'),
        ("PATCH", {"force": "true"}, 'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified '
                                     "for non-apply patch"),
        ("PATCH", {"fieldManager": "x" * 129}, 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may '
                                               "not be more than 128 bytes"),
        ("DELETE", {"dryRun": "x"}, 'DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["x"]: '
                                    'supported values: "All"'),
        ("DELETE", {"propagationPolicy": "x"}, 'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: '
                   'Unsupported value: "x": supported values: "Foreground", "Background", "Orphan", "nil"'),
        ("DELETE", {"propagationPolicy": "Orphan", "orphanDependents": "true"}, "orphanDependents and "
                   "deletionPropagation cannot be both set"),
        ("GET", {"resourceVersionMatch": "Exact"}, 'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: '
                "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ("GET", {"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 'resourceVersionMatch "exact" is forbidden '
                'for resourceVersion "0"'),
        ("GET", {"resourceVersionMatch": "x", "resourceVersion": "1"}, "resourceVersionMatch: Unsupported value: "
                '"x": supported values: "Exact", "NotOlderThan", ""'),
        ("GET", {"sendInitialEvents": "true"}, "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        ("GET", {"watch": "1", "sendInitialEvents": "true"}, "sendInitialEvents requires setting resourceVersionMatch "
                "to NotOlderThan"),
        ("GET", {"watch": "1", "resourceVersionMatch": "NotOlderThan"}, "resourceVersionMatch is forbidden for watch "
                "unless sendInitialEvents is provided"),
    ],
)  # fmt: skip
async def test_a_parameter_that_means_nothing_is_refused(
    client: Client, method: str, query: dict[str, str], message: str
) -> None:
    await client.put("x")
    path = PATH if method in ("POST", "GET") else f"{PATH}/x"
    headers = {"content_type": "application/merge-patch+json"} if method == "PATCH" else {}
    code, status = await client.json(method, path, None if method in ("GET", "DELETE") else {"metadata": {"name": "x"}},
                                     query, **headers)  # fmt: skip
    assert (code, status["reason"]) == (422, "Invalid")
    assert message in status["message"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "DELETECOLLECTION", "EVICT"])
async def test_a_dry_run_of_every_verb_changes_nothing(client: Client, method: str) -> None:
    await client.put("x")
    pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "host"}]}}
    await client.session.create(POD, pod)
    before = await client.store.revision()
    dry, body = {"dryRun": "All"}, {"metadata": {"name": "x"}, "data": {"a": "b"}}
    match method:
        case "POST":
            response = await client.send("POST", PATH, {"metadata": {"name": "y"}}, dry)
        case "DELETECOLLECTION":
            response = await client.send("DELETE", PATH, None, dry)
        case "EVICT":
            response = await client.send("POST", POD.path("default", "p", "eviction"), {"metadata": {"name": "p"}}, dry)
        case _:
            content = "application/merge-patch+json" if method == "PATCH" else "application/json"
            given = None if method == "DELETE" else body
            response = await client.send(method, f"{PATH}/x", given, dry, content_type=content)
    assert response.status in (200, 201), response.body
    assert await client.store.revision() == before


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_limit_with_a_revision_lists_that_revision(client: Client) -> None:
    await client.put("a")
    then = str(await client.store.revision())
    await client.put("b", "c")
    _, page = await client.json("GET", PATH, None, {"limit": "5", "resourceVersion": then})
    assert [item["metadata"]["name"] for item in page["items"]] == ["a"]
    _, all_ = await client.json("GET", PATH, None, {"resourceVersion": then})
    assert len(all_["items"]) == 3


async def test_an_expired_page_says_how_to_go_on() -> None:
    """The token in the 410 goes on at the present revision, for who prefers that to beginning anew."""
    store = MemoryStore(history_bytes=20_000)
    async with local_server(store) as server:
        client = Client(server, store)
        await client.put("a", "b", "c")
        _, first = await client.json("GET", PATH, None, {"limit": "1"})
        for n in range(100):
            await client.session.patch(CONFIG_MAP, "default", "a", {"data": {"n": str(n) * 50}})
        code, status = await client.json("GET", PATH, None, {"limit": "1", "continue": first["metadata"]["continue"]})
        assert (code, status["reason"]) == (410, "Expired")
        assert "Continuing with the provided token results in an inconsistent list" in status["message"]
        _, rest = await client.json("GET", PATH, None, {"continue": status["metadata"]["continue"]})
        assert [item["metadata"]["name"] for item in rest["items"]] == ["b", "c"]


async def test_deletecollection_takes_a_page_of_what_is_selected(client: Client) -> None:
    await client.put("a", "b", "c")
    code, gone = await client.json("DELETE", PATH, None, {"limit": "2"})
    assert (code, [item["metadata"]["name"] for item in gone["items"]]) == (200, ["a", "b"])
    _, left = await client.json("GET", PATH)
    assert [item["metadata"]["name"] for item in left["items"]] == ["c"]
    await client.send("DELETE", PATH, None, {"fieldSelector": "metadata.name!=c"})
    assert len((await client.json("GET", PATH))[1]["items"]) == 1


async def test_get_refuses_a_revision_yet_to_come(client: Client) -> None:
    await client.put("x")
    code, status = await client.json("GET", f"{PATH}/x", None, {"resourceVersion": "9999"})
    assert (code, status["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")


@pytest.mark.parametrize(
    ("kind", "selector", "message"),
    [
        (DEPLOYMENT, "spec.x=1", '"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"'),
        (POD, "spec.x=1", "field label not supported: spec.x"),
    ],
)
async def test_a_field_nobody_selects_by_is_named(client: Client, kind: Kind, selector: str, message: str) -> None:
    code, status = await client.json("GET", kind.path(), None, {"fieldSelector": selector})
    assert (code, status["message"]) == (400, message)


# ── fields given twice ───────────────────────────────────────────────────────────────────────────────────────────────

TWICE = (
    b'{"metadata":{"name":"x"},"spec":{"ports":[{"port":80,"port":81}],"type":"ClusterIP","type":"NodePort","no":1}}'
)
YAML = b"metadata:\n  name: x\nspec:\n  type: ClusterIP\n  type: NodePort\n  ports:\n  - port: 80\n    port: 81\n"


def test_duplicates_are_named_by_path_or_line() -> None:
    assert duplicates.in_json(TWICE) == ['duplicate field "spec.ports[0].port"', 'duplicate field "spec.type"']
    assert duplicates.in_json(b'{"a":{"b":1},"c":[{"b":1},{"b":1}]}') == []
    assert duplicates.in_yaml(YAML) == [
        'line 5: key "type" already set in map',
        'line 8: key "port" already set in map',
    ]


@pytest.mark.parametrize(
    ("body", "media", "message"),
    [
        (TWICE, "application/json", 'Service in version "v1" cannot be handled as a Service: strict decoding error: '
         'unknown field "spec.no", duplicate field "spec.ports[0].port", duplicate field "spec.type"'),
        (YAML, "application/yaml", 'Service in version "v1" cannot be handled as a Service: strict decoding error: '
         'yaml: unmarshal errors:\n  line 5: key "type" already set in map\n  line 8: key "port" already set in map'),
    ],
    ids=["JSON", "YAML"],
)  # fmt: skip
async def test_a_field_given_twice_is_an_error_a_warning_or_nothing(
    client: Client, body: bytes, media: str, message: str
) -> None:
    path = SERVICE.path("default")
    code, status = await client.json("POST", path, body, STRICT, content_type=media)
    assert (code, status["message"]) == (400, message)
    warned = await client.send("POST", path, body, {"dryRun": "All"}, content_type=media)
    assert warned.status == 201, warned.body
    assert ("duplicate field" in warned.headers["Warning"]) == (media == "application/json")
    assert ("already set in map" in warned.headers["Warning"]) == (media == "application/yaml")
    ignored = await client.send("POST", path, body, {"fieldValidation": "Ignore"}, content_type=media)
    assert (ignored.status, "Warning" in ignored.headers) == (201, False)


async def test_a_patch_may_not_say_a_field_twice(client: Client) -> None:
    await client.put("x")
    patch, media = b'{"data":{"a":"1","a":"2"}}', "application/merge-patch+json"
    code, status = await client.json("PATCH", f"{PATH}/x", patch, STRICT, content_type=media)
    assert (code, status["message"].rpartition(": ")[2]) == (400, 'duplicate field "data.a"')


UNKNOWN = {"spec": {"ports": [{"port": 80, "prot": 1}], "nonsense": {"deep": [1]}}, "extra": "x"}
NAMED = ['unknown field "spec.ports[0].prot"', 'unknown field "spec.nonsense"', 'unknown field "extra"']
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
ADD_UNKNOWN = b'[{"op":"add","path":"/spec/nonsense","value":1},{"op":"add","path":"/extra","value":1}]'


@pytest.mark.parametrize("validation", ["Ignore", "Warn", "Strict", ""])
@pytest.mark.parametrize(
    ("method", "body", "media", "named"),
    [
        ("POST", UNKNOWN, "application/json", NAMED),
        ("POST", b"spec: {ports: [{port: 80, prot: 1}], nonsense: {deep: [1]}}\nextra: x\n", "application/yaml", NAMED),
        ("PUT", UNKNOWN, "application/json", NAMED),
        ("PATCH", UNKNOWN, MERGE, NAMED),
        ("PATCH", UNKNOWN, STRATEGIC, NAMED),
        ("PATCH", ADD_UNKNOWN, JSON_PATCH, NAMED[1:]),
    ],
    ids=["create", "create from YAML", "update", "merge patch", "strategic merge patch", "JSON patch"],
)
async def test_an_unknown_field_is_never_stored_and_named_as_asked(
    client: Client, method: str, body: JSON | bytes, media: str, named: list[str], validation: str
) -> None:
    """Decoding drops it: Strict refuses then, Warn (the default) warns, Ignore says nothing."""
    path = SERVICE.path("default", "" if method == "POST" else "x")
    if method != "POST":
        await client.session.create(SERVICE, {"metadata": {"name": "x", "namespace": "default"}, "spec": PLAIN})
    if isinstance(body, dict):
        body = {"metadata": {"name": "x"}, **body}
    elif media == "application/yaml":
        body = b"metadata: {name: x}\n" + body
    query = {"fieldValidation": validation} if validation else {}
    answer = await client.send(method, path, body, query, content_type=media)
    if validation == "Strict":
        message = msgspec.json.decode(answer.body)["message"]
        assert (answer.status, sorted(message.partition("strict decoding error: ")[2].split(", "))) == (
            400,
            sorted(named),
        )
        return
    assert answer.status in (200, 201), answer.body
    for found in (msgspec.json.decode(answer.body), await client.session.get(SERVICE, "default", "x")):
        assert set(found) == {"apiVersion", "kind", "metadata", "spec", "status"}
        assert "nonsense" not in found["spec"]
        assert set(found["spec"]["ports"][0]) == {"port", "protocol", "targetPort"}
    warned = answer.headers.get("Warning", "").replace("\\", "")
    assert [f'299 - "{text}"' in warned for text in named] == [validation != "Ignore"] * len(named)


async def test_an_unknown_field_stays_out_also_where_a_race_is_tried_again(client: Client) -> None:
    """The second try of a create reads the body anew."""
    state = client.server._state
    body: JSON = {"metadata": {"generateName": "x-"}, "spec": {**PLAIN, "nonsense": 1}}
    for _ in range(2):
        state.random = Random(7)  # the same letters again: the second create loses its first try
        code, made = await client.json("POST", SERVICE.path("default"), body)
        assert (code, "nonsense" in made["spec"]) == (201, False)


# ── writes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_generated_name_that_is_taken_is_made_anew(client: Client) -> None:
    state = client.server._state
    body = {"metadata": {"generateName": "x-", "namespace": "default"}}
    state.random = Random(7)
    first = await client.session.create(CONFIG_MAP, body)
    state.random = Random(7)  # the same letters again
    second = await client.session.create(CONFIG_MAP, body)
    assert first["metadata"]["name"] != second["metadata"]["name"]


async def test_a_put_makes_the_kinds_that_upstream_lets_it_make(client: Client) -> None:
    spec = {"metadata": {"name": "made"}, "spec": {"ports": [{"port": 80}]}}
    code, made = await client.json("PUT", SERVICE.path("default", "made"), spec)
    assert (code, made["spec"]["type"]) == (201, "ClusterIP")
    code, status = await client.json("PUT", f"{PATH}/made", {"metadata": {"name": "made"}})
    assert (code, status["reason"]) == (404, "NotFound")


async def test_puts_that_create_and_deletes_in_a_race_all_have_their_way(client: Client) -> None:
    """A PUT that finds nothing and then something, or the reverse, is never told of it."""
    path, body = SERVICE.path("default", "raced"), {"metadata": {"name": "raced"}, "spec": PLAIN}
    for _ in range(20):
        puts = [
            client.send("PUT", path, {**body, "metadata": {"name": "raced", "labels": {"n": str(n)}}}) for n in range(8)
        ]
        deletes = [client.send("DELETE", path) for _ in range(2)]
        answers = await asyncio.gather(*puts, *deletes)
        assert {answer.status for answer in answers[:8]} <= {200, 201}, [a.body for a in answers[:8]]
        assert 201 in {answer.status for answer in answers[:8]}
        assert {answer.status for answer in answers[8:]} <= {200, 404}
        await client.send("DELETE", path)


async def test_an_eviction_deletes_the_pod(client: Client) -> None:
    spec = {"containers": [{"name": "c", "image": "host"}]}
    await client.session.create(POD, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": "default"}}
    code, status = await client.json("POST", POD.path("default", "p", "eviction"), body)
    assert (code, status["kind"], status["status"]) == (201, "Status", "Success")
    assert (await client.json("GET", POD.path("default")))[1]["items"] == []
    code, _ = await client.json("POST", POD.path("default", "p", "eviction"), {"metadata": {"name": "p"}})
    assert code == 404


async def test_an_evicted_pod_says_why_it_goes(client: Client) -> None:
    """Once, however often it is asked to."""
    metadata = {"name": "p", "namespace": "default", "finalizers": ["example.com/kept"]}
    spec = {"containers": [{"name": "c", "image": "host"}]}
    await client.session.create(POD, {"metadata": metadata, "spec": spec})
    for _ in range(2):
        code, _ = await client.json("POST", POD.path("default", "p", "eviction"), {"metadata": {"name": "p"}})
        assert code == 201
    pod = await client.session.get(POD, "default", "p")
    assert "deletionTimestamp" in pod["metadata"]
    told = [(c["type"], c["status"], c["reason"], c["message"]) for c in pod["status"]["conditions"]]
    assert told == [("DisruptionTarget", "True", "EvictionByEvictionAPI", "Eviction API: evicting")]


async def test_an_eviction_keeps_to_its_preconditions_and_its_name(client: Client) -> None:
    spec = {"containers": [{"name": "c", "image": "host"}]}
    await client.session.create(POD, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    path = POD.path("default", "p", "eviction")
    body = {"metadata": {"name": "p"}, "deleteOptions": {"preconditions": {"uid": "another"}}}
    assert (await client.json("POST", path, body))[0] == 409
    assert (await client.json("POST", path, {"metadata": {"name": "other"}}))[0] == 400


async def test_a_deprecated_kind_is_warned_about_once_at_every_verb(client: Client) -> None:
    text = '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'
    body = {"metadata": {"name": "x"}, "subsets": [{"addresses": [{"ip": "192.0.2.7"}]}]}
    path = ENDPOINTS.path("default")
    for method, at, sent in (
        ("POST", path, body),
        ("GET", path, None),
        ("PUT", f"{path}/x", body),
        ("DELETE", f"{path}/x", None),
    ):
        response = await client.send(method, at, sent)
        assert response.headers["Warning"] == text, method


# ── forms ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_answer_can_be_yaml(client: Client) -> None:
    await client.put("x")
    response = await client.send("GET", f"{PATH}/x", accept="application/yaml")
    assert response.content_type == "application/yaml"
    assert response.body.startswith(b"apiVersion: v1\nkind: ConfigMap\n")
    _, same = await client.json("GET", f"{PATH}/x")
    assert yaml.safe_load(response.body) == same
    listed = yaml.safe_load((await client.send("GET", PATH, accept="application/yaml")).body)
    assert listed["kind"] == "ConfigMapList"
    assert (await client.send("GET", PATH, None, {"watch": "1"}, accept="application/yaml")).status == 406


async def test_a_large_list_is_packed_for_who_takes_it(client: Client) -> None:
    for n in range(20):
        body = {"metadata": {"name": f"c{n}", "namespace": "default"}, "data": {"x": "y" * 10_000}}
        await client.session.create(CONFIG_MAP, body)
    plain = await client.send("GET", PATH)
    packed = await client.send("GET", PATH, accept_encoding="gzip, deflate")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.body) * 10 < len(plain.body)
    assert gzip.decompress(packed.body) == plain.body
    for path, encoding in ((f"{PATH}/c1", "gzip"), (PATH, "identity"), (PATH, "gzip;q=0")):
        assert "Content-Encoding" not in (await client.send("GET", path, accept_encoding=encoding)).headers


async def test_a_document_a_client_has_is_not_sent_again(client: Client) -> None:
    for path, accept in (
        ("/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
        ("/api", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
        ("/openapi/v3", "application/json"),
    ):
        first = await client.send("GET", path, accept=accept)
        again = await client.send("GET", path, accept=accept, if_none_match=first.headers["ETag"])
        assert (first.status, again.status, again.body) == (200, 304, b"")
        changed = await client.send("GET", path, accept=accept, if_none_match='"another"')
        assert (changed.status, changed.body) == (200, first.body)


# ── about itself ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_health_is_asked_whole_in_part_or_one_check_alone(client: Client) -> None:
    for name in ("livez", "readyz", "healthz"):
        verbose = await client.send("GET", f"/{name}", None, {"verbose": ""})
        assert verbose.body.decode() == f"[+]ping ok\n[+]store ok\n[+]bootstrap ok\n{name} check passed\n"
    without = await client.send("GET", "/readyz", None, {"verbose": "", "exclude": "store"})
    assert "[+]store excluded: ok\n" in without.body.decode()
    assert (await client.send("GET", "/readyz/store")).body == b"ok"
    assert (await client.send("GET", "/readyz/nothing")).status == 404
    client.server._state.ready = False
    failed = await client.send("GET", "/readyz")
    assert failed.status == 500
    assert "[-]bootstrap failed: " in failed.body.decode()
    assert failed.body.endswith(b"readyz check failed\n")
    assert (await client.send("GET", "/livez")).status == 200


async def test_metrics_count_what_was_asked(client: Client) -> None:
    await client.put("x", "y")
    await client.send("GET", PATH)
    await client.send("GET", f"{PATH}/nothing")
    watching = await client.send("GET", PATH, None, {"watch": "true"})
    assert watching.stream is not None
    await anext(watching.stream)
    response = await client.send("GET", "/metrics")
    assert response.content_type.startswith("text/plain")
    lines = response.body.decode().splitlines()
    maps = 'group="",version="v1",resource="configmaps",subresource=""'
    total = 'apiserver_request_total{code="%s",component="apiserver",dry_run="",' + maps + ',scope="%s",verb="%s"} %s'
    assert total % ("201", "namespace", "POST", "2") in lines
    assert total % ("404", "resource", "GET", "1") in lines
    assert total % ("200", "namespace", "LIST", "1") in lines
    assert f'apiserver_longrunning_requests{{component="apiserver",{maps},scope="namespace",verb="WATCH"}} 1' in lines
    assert 'apiserver_storage_objects{resource="configmaps"} 2' in lines
    assert 'apiserver_resource_objects{group="networking.k8s.io",resource="servicecidrs"} 1' in lines
    for line in lines:
        name, _, value = line.rpartition(" ")
        assert line.startswith("# ") or (name and float(value) >= 0), line
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    for wanted in ("apiserver_request_duration_seconds", "apiserver_response_sizes", "process_resident_memory_bytes",
                   "apiserver_current_inflight_requests", "kubernetes_build_info"):  # fmt: skip
        assert wanted in families
    await watching.stream.aclose()  # type: ignore[attr-defined]
    after = (await client.send("GET", "/metrics")).body.decode()
    assert f'apiserver_longrunning_requests{{component="apiserver",{maps},scope="namespace",verb="WATCH"}} 0' in after
