"""What one entry in the registry is enough for, Events in both their shapes, and the kinds that are only stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pkgutil import iter_modules

import msgspec
import pytest

from kubesvc.api import registry, schema
from kubesvc.api.errors import BadRequest, Invalid, NotFound
from kubesvc.api.meta import JSON
from kubesvc.api.registry import KINDS, Kind
from kubesvc.apiserver import admission, discovery, openapi, views
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, Request, Response
from support.apiserver import ADMIN, local_server

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Client:
    def __init__(self, transport: LocalTransport) -> None:
        self.transport, self.session = transport, Session(transport)

    async def send(
        self, method: str, path: str, body: JSON | None = None, *, accept: str = "*/*", **query: str
    ) -> Response:
        raw = b"" if body is None else msgspec.json.encode(body)
        return await self.transport.send(Request(method, path, query, {"accept": accept}, raw))

    async def get(self, path: str, *, accept: str = "*/*", **query: str) -> JSON:
        response = await self.send("GET", path, accept=accept, **query)
        assert response.status == 200, response.body
        found: JSON = msgspec.json.decode(response.body)
        return found


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with local_server() as server:
        yield Client(LocalTransport(server.handler, ADMIN))


# ── one entry ────────────────────────────────────────────────────────────────────────────────────────────────────────

WIDGET = Kind("example.com", "v1", "Widget", "widgets", "widget", True, ("wd",), ("all",), acted_on=False)
_CACHES = (discovery._groups, openapi.v3, openapi.v3_index, openapi._digest)


@pytest.fixture
def widgets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A kind more: the entry, and its type as scripts/generate-schema would add it (a ConfigMap's)."""
    known = schema.schema()
    kinds = {**known.kinds, "example.com/v1/Widget": known.kinds["/v1/ConfigMap"]}
    extended = msgspec.structs.replace(known, kinds=kinds)
    monkeypatch.setattr(schema, "schema", lambda: extended)
    monkeypatch.setitem(KINDS, ("example.com", "v1", "widgets"), WIDGET)
    for cached in _CACHES:
        cached.cache_clear()
    yield
    for cached in _CACHES:
        cached.cache_clear()


async def test_an_entry_in_the_registry_is_enough_for_a_kind(widgets: None, client: Client) -> None:
    made = await client.send("POST", WIDGET.path("default"), {"metadata": {"name": "a"}, "data": {"x": "y"}})
    assert made.status == 201, made.body
    assert "Widget is stored, but nothing in this cluster acts on it" in made.headers["Warning"]
    listed = await client.get(WIDGET.path(), labelSelector="!none", fieldSelector="metadata.name=a")
    assert (listed["kind"], listed["apiVersion"], len(listed["items"])) == ("WidgetList", "example.com/v1", 1)
    table = await client.get(WIDGET.path("default", "a"), accept=TABLE)
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Age"]
    patched = await client.session.patch(WIDGET, "default", "a", {"data": {"x": "z"}})
    assert patched["data"] == {"x": "z"}
    resources = (await client.get("/apis/example.com/v1"))["resources"]
    assert [(r["name"], r["shortNames"], r["categories"]) for r in resources] == [("widgets", ["wd"], ["all"])]
    assert (
        "/apis/example.com/v1/namespaces/{namespace}/widgets"
        in (await client.get("/openapi/v3/apis/example.com/v1"))["paths"]
    )
    await client.session.delete(WIDGET, "default", "a")
    with pytest.raises(NotFound, match='widgets.example.com "a" not found'):
        await client.session.get(WIDGET, "default", "a")


def test_an_admission_file_is_found_by_being_there() -> None:
    """Every file that says what it ADMITS counts, without being named anywhere, and no two speak for one kind."""
    spoken: list[tuple[str, str]] = []
    for module in iter_modules(admission.__path__):
        found = __import__(f"{admission.__name__}.{module.name}", fromlist=["ADMITS"])
        spoken += [(kind.group, kind.plural) for kind, _ in getattr(found, "ADMITS", ())]
    assert len(spoken) == len(set(spoken))
    assert set(spoken) == set(admission._RULES)
    assert set(spoken) <= {(group, plural) for group, _, plural in KINDS}


def test_every_kind_of_the_promise_is_served() -> None:
    expected = """
        v1 Namespace Node Pod Service Endpoints Event ConfigMap Secret ServiceAccount ReplicationController
           PersistentVolume PersistentVolumeClaim ResourceQuota LimitRange
        apps/v1 Deployment ReplicaSet StatefulSet DaemonSet ControllerRevision
        batch/v1 Job CronJob
        discovery.k8s.io/v1 EndpointSlice
        networking.k8s.io/v1 Ingress IngressClass ServiceCIDR IPAddress NetworkPolicy
        coordination.k8s.io/v1 Lease
        events.k8s.io/v1 Event
        storage.k8s.io/v1 StorageClass
        policy/v1 PodDisruptionBudget
        autoscaling/v2 HorizontalPodAutoscaler
        scheduling.k8s.io/v1 PriorityClass
    """
    version, wanted = "", set()
    for word in expected.split():
        if word[0].islower():
            version = word
        else:
            wanted.add((version, word))
    assert wanted <= {(kind.api_version, kind.kind) for kind in KINDS.values()}


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────

CORE: JSON = {
    "metadata": {"name": "web.1", "namespace": "default"},
    "involvedObject": {"kind": "Service", "namespace": "default", "name": "web"},
    "reason": "Tested",
    "message": "it was tested",
    "type": "Normal",
    "source": {"component": "test"},
    "firstTimestamp": "2026-01-01T00:00:00Z",
    "lastTimestamp": "2026-01-01T00:00:00Z",
    "count": 3,
}
NEW: JSON = {
    "metadata": {"name": "web.2", "namespace": "default"},
    "eventTime": "2026-01-01T00:00:00.000000Z",
    "reportingController": "example.com/tester",
    "reportingInstance": "tester-1",
    "action": "Testing",
    "reason": "Tested",
    "regarding": {"kind": "Service", "namespace": "default", "name": "db"},
    "note": "it was tested anew",
    "type": "Warning",
}
EVENT, EVENTS_EVENT = registry.EVENT, registry.EVENTS_EVENT


def test_an_event_is_the_same_there_and_back() -> None:
    shown = views.show(EVENTS_EVENT, {**CORE, "apiVersion": "v1", "kind": "Event"})
    assert (shown["apiVersion"], shown["note"], shown["deprecatedCount"]) == ("events.k8s.io/v1", "it was tested", 3)
    assert views.keep(EVENTS_EVENT, shown) == {**CORE, "apiVersion": "v1", "kind": "Event"}
    assert views.show(EVENT, shown) is shown


async def test_an_event_is_seen_in_both_shapes(client: Client) -> None:
    await client.session.create(EVENT, CORE)
    await client.session.create(EVENTS_EVENT, NEW)
    core = {e["metadata"]["name"]: e for e in (await client.get(EVENT.path("default")))["items"]}
    new = {e["metadata"]["name"]: e for e in (await client.get(EVENTS_EVENT.path("default")))["items"]}
    assert set(core) == set(new) == {"web.1", "web.2"}
    assert core["web.2"]["involvedObject"]["name"] == "db"
    assert core["web.2"]["reportingComponent"] == "example.com/tester"
    assert (new["web.1"]["note"], new["web.1"]["deprecatedSource"]) == ("it was tested", {"component": "test"})
    assert new["web.1"]["metadata"] == core["web.1"]["metadata"]
    tables = [await client.get(kind.path("default"), accept=TABLE) for kind in (EVENT, EVENTS_EVENT)]
    assert tables[0]["rows"] == tables[1]["rows"]
    await client.session.delete(EVENTS_EVENT, "default", "web.1")
    with pytest.raises(NotFound):
        await client.session.get(EVENT, "default", "web.1")


async def test_events_are_selected_and_patched_in_the_shape_of_the_request(client: Client) -> None:
    await client.session.create(EVENT, CORE)
    found = await client.get(EVENTS_EVENT.path("default"), fieldSelector="regarding.name=web,reason=Tested")
    assert [event["metadata"]["name"] for event in found["items"]] == ["web.1"]
    with pytest.raises(BadRequest, match=r"field label not supported: involvedObject\.name"):
        await client.session.raw("GET", EVENTS_EVENT.path(), query={"fieldSelector": "involvedObject.name=web"})
    patched = await client.session.patch(EVENTS_EVENT, "default", "web.1", {"deprecatedCount": 4})
    assert patched["deprecatedCount"] == 4
    assert (await client.session.get(EVENT, "default", "web.1"))["count"] == 4


async def test_a_watch_shows_events_in_the_shape_of_the_request(client: Client) -> None:
    await client.session.create(EVENT, CORE)
    for kind, field in ((EVENT, "message"), (EVENTS_EVENT, "note")):
        response = await client.send("GET", kind.path("default"), watch="true")
        assert response.stream is not None
        line = msgspec.json.decode(await anext(response.stream))
        assert (line["object"]["apiVersion"], line["object"][field]) == (kind.api_version, "it was tested")


async def test_a_new_event_must_say_who_did_what(client: Client) -> None:
    body = {k: v for k, v in NEW.items() if k not in ("action", "reportingController")}
    with pytest.raises(Invalid, match="reportingController: Required value, action: Required value"):
        await client.session.create(EVENTS_EVENT, body)


# ── only stored ──────────────────────────────────────────────────────────────────────────────────────────────────────

PARAMETERS = {"kind": "K", "name": "n"}
POD_TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "host"}]}}
JOB_TEMPLATE = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "h"}]}}}}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
VOLUME = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}


@pytest.mark.parametrize(
    ("kind", "body", "path", "value"),
    [
        pytest.param(registry.CRON_JOB, {"spec": {"schedule": "@daily", "jobTemplate": JOB_TEMPLATE}},
                     "spec.concurrencyPolicy", "Allow", id="CronJob"),
        pytest.param(registry.REPLICATION_CONTROLLER, {"spec": {"template": POD_TEMPLATE}}, "spec.selector", {"a": "b"},
                     id="ReplicationController"),
        pytest.param(registry.CONTROLLER_REVISION, {"data": {"x": 1}, "revision": 3}, "revision", 3,
                     id="ControllerRevision"),
        pytest.param(registry.INGRESS_CLASS, {"spec": {"controller": "a.b/c", "parameters": PARAMETERS}},
                     "spec.parameters.scope", "Cluster", id="IngressClass"),
        pytest.param(registry.PERSISTENT_VOLUME, {"spec": VOLUME}, "spec.persistentVolumeReclaimPolicy", "Retain",
                     id="PersistentVolume"),
        pytest.param(registry.PERSISTENT_VOLUME_CLAIM, {"spec": CLAIM}, "status.phase", "Pending",
                     id="PersistentVolumeClaim"),
        pytest.param(registry.STORAGE_CLASS, {"provisioner": "p"}, "volumeBindingMode", "Immediate", id="StorageClass"),
        pytest.param(registry.POD_DISRUPTION_BUDGET, {"spec": {"minAvailable": "50%"}}, "metadata.generation", 1,
                     id="PodDisruptionBudget"),
        pytest.param(registry.HORIZONTAL_POD_AUTOSCALER,
                     {"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}},
                     "spec.minReplicas", 1, id="HorizontalPodAutoscaler"),
        pytest.param(registry.RESOURCE_QUOTA, {"spec": {"hard": {"pods": "4"}}}, "spec.hard", {"pods": "4"},
                     id="ResourceQuota"),
        pytest.param(registry.LIMIT_RANGE, {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}},
                     "spec.limits", [{"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "1"},
                                      "defaultRequest": {"cpu": "1"}}], id="LimitRange"),
        pytest.param(registry.PRIORITY_CLASS, {"value": 5}, "preemptionPolicy", "PreemptLowerPriority",
                     id="PriorityClass"),
    ],
)  # fmt: skip
async def test_a_kind_has_its_defaults_and_a_warning_if_it_is_only_stored(
    client: Client, kind: Kind, body: JSON, path: str, value: object
) -> None:
    namespace = "default" if kind.namespaced else ""
    made = await client.send("POST", kind.path(namespace), {"metadata": {"name": "x"}, **body})
    assert made.status == 201, made.body
    warning = None if kind.acted_on else f'299 - "{kind.kind} is stored, but nothing in this cluster acts on it"'
    assert made.headers.get("Warning") == warning
    found: object = await client.session.get(kind, namespace, "x")
    for part in path.split("."):
        assert isinstance(found, dict)
        found = found[part]
    assert found == value
    table = await client.get(kind.path(namespace, "x"), accept=TABLE)
    assert len(table["columnDefinitions"]) == len(table["rows"][0]["cells"])


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        pytest.param(registry.CRON_JOB, {"spec": {"jobTemplate": JOB_TEMPLATE}}, "spec.schedule: Required value",
                     id="no schedule"),
        pytest.param(registry.CRON_JOB, {"spec": {"schedule": "* * *", "jobTemplate": JOB_TEMPLATE}},
                     r"expected exactly 5 fields, found 3: \[\* \* \*\]", id="half a schedule"),
        pytest.param(registry.PERSISTENT_VOLUME_CLAIM, {"spec": {}}, "at least 1 access mode is required", id="claim"),
        pytest.param(registry.PERSISTENT_VOLUME, {"spec": {**VOLUME, "nfs": {"path": "/", "server": "s"}}},
                     "may not specify more than 1 volume type", id="volume"),
        pytest.param(registry.POD_DISRUPTION_BUDGET, {"spec": {"minAvailable": 1, "maxUnavailable": 1}},
                     "minAvailable and maxUnavailable cannot be both set", id="budget"),
        pytest.param(registry.HORIZONTAL_POD_AUTOSCALER,
                     {"spec": {"minReplicas": 4, "maxReplicas": 3, "scaleTargetRef": {"kind": "D", "name": "d"}}},
                     "must be greater than or equal to `minReplicas`", id="autoscaler"),
        pytest.param(registry.PRIORITY_CLASS, {"value": 2_000_000_000},
                     "maximum allowed value of a user defined priority is 1000000000", id="priority"),
        pytest.param(registry.INGRESS_CLASS, {"spec": {"controller": "plain"}}, "must be a domain-prefixed path",
                     id="ingress class"),
        pytest.param(registry.LEASE, {"spec": {"leaseDurationSeconds": 0}}, "must be greater than 0", id="lease"),
    ],
)  # fmt: skip
async def test_a_kind_that_is_only_stored_is_refused_in_upstreams_words(
    client: Client, kind: Kind, body: JSON, text: str
) -> None:
    metadata = {"name": "x"} | ({"namespace": "default"} if kind.namespaced else {})
    with pytest.raises(Invalid, match=text):
        await client.session.create(kind, {"metadata": metadata, **body})


async def test_a_replication_controller_scales(client: Client) -> None:
    kind = registry.REPLICATION_CONTROLLER
    body = {"metadata": {"name": "rc", "namespace": "default"}, "spec": {"replicas": 0, "template": POD_TEMPLATE}}
    await client.session.create(kind, body)
    scale = await client.get(kind.path("default", "rc", "scale"))
    assert (scale["spec"], scale["status"]) == ({"replicas": 0}, {"replicas": 0, "selector": "a=b"})
    found = await client.get(kind.path("default"), fieldSelector="status.replicas=0")
    assert len(found["items"]) == 1
