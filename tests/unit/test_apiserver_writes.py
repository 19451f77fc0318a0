"""Creating, changing and deleting through the whole chain, in process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kubesvc.api.errors import AlreadyExists, ApiError, BadRequest, Conflict, Forbidden, Invalid, NotFound
from kubesvc.api.meta import JSON
from kubesvc.api.registry import (
    CONFIG_MAP,
    DEPLOYMENT,
    IP_ADDRESS,
    NAMESPACE,
    NODE,
    POD,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)
from kubesvc.client.session import JSON_PATCH, STRATEGIC_PATCH, Session
from kubesvc.client.transport import LocalTransport
from kubesvc.store.memory import MemoryStore
from support.apiserver import ADMIN, local_server, local_session


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with local_session() as found:
        yield found


def configmap(name: str = "x", **data: str) -> JSON:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


def pod(name: str = "p", **spec: Any) -> JSON:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "host"}], **spec},
    }


def deployment(replicas: int = 1) -> JSON:
    return {
        "metadata": {"name": "d", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{"name": "c", "image": "host"}]},
            },
        },
    }


def service(name: str = "web", **spec: Any) -> JSON:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}], **spec}}


async def revision(session: Session) -> str:
    body: JSON = (await session._object("GET", CONFIG_MAP.path("default")))["metadata"]
    return str(body["resourceVersion"])


# ── create ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_created_object_has_what_the_server_gives_it(session: Session) -> None:
    tree = await session.create(CONFIG_MAP, configmap(a="1"))
    assert set(tree["metadata"]) == {
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "managedFields",
    }
    assert tree == await session.get(CONFIG_MAP, "default", "x")
    with pytest.raises(AlreadyExists, match='configmaps "x" already exists'):
        await session.create(CONFIG_MAP, configmap())


async def test_a_generated_name_is_the_prefix_and_five_letters(session: Session) -> None:
    body: JSON = {"metadata": {"generateName": "job-", "namespace": "default"}}
    names = [(await session.create(CONFIG_MAP, body))["metadata"]["name"] for _ in range(3)]
    assert len(set(names)) == 3
    assert all(name.startswith("job-") and len(name) == 9 for name in names)


@pytest.mark.parametrize(
    ("kind", "tree", "error", "message"),
    [
        (CONFIG_MAP, {"metadata": {"namespace": "default"}}, Invalid, "name or generateName is required"),
        (CONFIG_MAP, {"metadata": {"name": "x", "namespace": "no"}}, NotFound, 'namespaces "no" not found'),
        (CONFIG_MAP, {"metadata": {"name": "x"}}, BadRequest, "an empty namespace may not be set during creation"),
        (
            CONFIG_MAP,
            {"metadata": {"name": "x", "namespace": "default", "resourceVersion": "1"}},
            BadRequest,
            "resourceVersion should not be set on objects to be created",
        ),
        (
            CONFIG_MAP,
            {"kind": "Secret", "metadata": {"name": "x", "namespace": "default"}},
            BadRequest,
            "Secret in version",
        ),
    ],
    ids=["no name", "no such namespace", "no namespace", "with a revision", "another kind"],
)
async def test_a_create_that_cannot_be(
    session: Session, kind: Kind, tree: JSON, error: type[ApiError], message: str
) -> None:
    with pytest.raises(error, match=message):
        await session.create(kind, tree)


async def test_a_body_for_another_namespace_is_refused(session: Session) -> None:
    body = b'{"metadata":{"name":"x","namespace":"kube-system"}}'
    with pytest.raises(BadRequest, match="does not match the namespace sent on the request"):
        await session.raw("POST", CONFIG_MAP.path("default"), body=body)


async def test_yaml_is_taken_and_times_in_it_stay_text(session: Session) -> None:
    body = b"metadata:\n  name: y\ndata:\n  when: 2026-01-01\n"
    await session.raw("POST", CONFIG_MAP.path("default"), body=body, content_type="application/yaml")
    assert (await session.get(CONFIG_MAP, "default", "y"))["data"] == {"when": "2026-01-01"}


async def test_a_dry_run_answers_and_changes_nothing(session: Session) -> None:
    before = await revision(session)
    made = await session.raw(
        "POST",
        SERVICE.path("default"),
        query={"dryRun": "All"},
        body=b'{"metadata":{"name":"d"},"spec":{"ports":[{"port":1}]}}',
    )
    assert made.status == 201
    assert b'"clusterIP":"10.96.' in made.body
    await session.create(CONFIG_MAP, configmap(a="1"))
    await session.raw("DELETE", CONFIG_MAP.path("default", "x"), query={"dryRun": "All"})
    await session.raw("PUT", CONFIG_MAP.path("default", "x"), query={"dryRun": "All"}, body=b'{"data":{"a":"2"}}')
    assert (await session.get(CONFIG_MAP, "default", "x"))["data"] == {"a": "1"}
    assert int(await revision(session)) == int(before) + 1


async def test_unknown_fields_are_an_error_a_warning_or_nothing(session: Session) -> None:
    body = b'{"metadata":{"name":"f"},"spec":{"ports":[{"port":1}],"nonsense":1}}'
    options = {"body": body, "query": {"fieldValidation": "Strict"}}
    with pytest.raises(BadRequest, match=r'strict decoding error: unknown field "spec\.nonsense"'):
        await session.raw("POST", SERVICE.path("default"), **options)  # type: ignore[arg-type]
    warned = await session.raw("POST", SERVICE.path("default"), body=body)
    assert warned.headers["Warning"] == '299 - "unknown field \\"spec.nonsense\\""'
    query = {"fieldValidation": "Ignore"}
    silent = await session.raw("PUT", SERVICE.path("default", "f"), body=body, query=query)
    assert "Warning" not in silent.headers


# ── update and patch ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stale_update_conflicts_and_one_without_a_revision_wins(session: Session) -> None:
    old = await session.create(CONFIG_MAP, configmap(a="1"))
    await session.patch(CONFIG_MAP, "default", "x", {"data": {"a": "2"}})
    with pytest.raises(Conflict) as refused:
        await session.update(CONFIG_MAP, old)
    assert refused.value.message == (
        'Operation cannot be fulfilled on configmaps "x": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    del old["metadata"]["resourceVersion"]
    assert (await session.update(CONFIG_MAP, old))["data"] == {"a": "1"}


async def test_an_update_that_changes_nothing_writes_nothing(session: Session) -> None:
    made = await session.create(SERVICE, service())
    same = {key: made[key] for key in reversed(made)}  # another order of fields is no change
    assert (await session.update(SERVICE, same)) == made
    assert (await session.patch(SERVICE, "default", "web", {"spec": {"type": "ClusterIP"}})) == made


async def test_the_servers_own_fields_stay(session: Session) -> None:
    made = await session.create(CONFIG_MAP, configmap(a="1"))
    changed = {**made, "data": {"a": "2"}, "metadata": {"name": "x", "namespace": "default"}}
    after = await session.update(CONFIG_MAP, changed)
    for field in ("uid", "creationTimestamp"):
        assert after["metadata"][field] == made["metadata"][field]
    with pytest.raises(Conflict, match="Precondition failed: UID in precondition: another, UID in object meta"):
        await session.patch(CONFIG_MAP, "default", "x", {"metadata": {"uid": "another"}})
    with pytest.raises(BadRequest, match="does not match the name on the URL"):
        await session.patch(CONFIG_MAP, "default", "x", {"metadata": {"name": "y"}})


async def test_patches_race_and_all_arrive(session: Session) -> None:
    """Twenty patches of different fields at once leave all twenty fields."""
    await session.create(CONFIG_MAP, configmap())
    await asyncio.gather(*(session.patch(CONFIG_MAP, "default", "x", {"data": {f"k{n}": "v"}}) for n in range(20)))
    assert len((await session.get(CONFIG_MAP, "default", "x"))["data"]) == 20


async def test_a_conditional_patch_conflicts(session: Session) -> None:
    await session.create(CONFIG_MAP, configmap())
    with pytest.raises(Conflict):
        await session.patch(CONFIG_MAP, "default", "x", {"metadata": {"resourceVersion": "1"}, "data": {"a": "b"}})


async def test_each_patch_type_reaches_its_algorithm(session: Session) -> None:
    await session.create(SERVICE, service())
    await session.patch(
        SERVICE,
        "default",
        "web",
        [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}],
        patch_type=JSON_PATCH,
    )
    ports: JSON = {"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}
    found = await session.patch(SERVICE, "default", "web", ports, patch_type=STRATEGIC_PATCH)
    assert found["metadata"]["labels"] == {"a": "b"}
    assert found["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 8080}]
    with pytest.raises(ApiError) as refused:
        await session.patch(SERVICE, "default", "web", {}, patch_type="text/plain")
    assert refused.value.code == 415


async def test_status_and_spec_are_written_apart(session: Session) -> None:
    await session.create(DEPLOYMENT, deployment(3))
    both: JSON = {"spec": {"replicas": 9}, "status": {"readyReplicas": 1}}
    found = await session.patch(DEPLOYMENT, "default", "d", both, subresource="status")
    assert (found["spec"]["replicas"], found["status"], found["metadata"]["generation"]) == (3, {"readyReplicas": 1}, 1)
    found = await session.patch(DEPLOYMENT, "default", "d", {"spec": {"replicas": 9}, "status": {"readyReplicas": 7}})
    assert (found["spec"]["replicas"], found["status"], found["metadata"]["generation"]) == (9, {"readyReplicas": 1}, 2)


async def test_scale_reads_and_writes_the_replicas(session: Session) -> None:
    await session.create(DEPLOYMENT, deployment(3))
    path = DEPLOYMENT.path("default", "d", "scale")
    scale = await session._object("GET", path)
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 3},
        {"replicas": 0, "selector": "app=d"},
    )
    scaled = await session.patch(DEPLOYMENT, "default", "d", {"spec": {"replicas": 0}}, subresource="scale")
    assert scaled["spec"] == {"replicas": 0}
    assert (await session.get(DEPLOYMENT, "default", "d"))["metadata"]["generation"] == 2
    with pytest.raises(Conflict):
        await session.update(DEPLOYMENT, scale, subresource="scale")
    with pytest.raises(Invalid, match="greater than or equal to 0"):
        await session.patch(DEPLOYMENT, "default", "d", {"spec": {"replicas": -1}}, subresource="scale")


async def test_a_pod_is_bound_once(session: Session) -> None:
    await session.create(POD, pod())
    binding = b'{"apiVersion":"v1","kind":"Binding","metadata":{"name":"p"},"target":{"kind":"Node","name":"n1"}}'
    path = POD.path("default", "p", "binding")
    assert (await session.raw("POST", path, body=binding)).status == 201
    found = await session.get(POD, "default", "p")
    assert found["spec"]["nodeName"] == "n1"
    assert [(c["type"], c["status"]) for c in found["status"]["conditions"]] == [("PodScheduled", "True")]
    with pytest.raises(Conflict, match='pod p is already assigned to node "n1"'):
        await session.raw("POST", path, body=binding)


# ── delete ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_delete_answers_with_a_status_and_the_object_is_gone(session: Session) -> None:
    made = await session.create(CONFIG_MAP, configmap())
    status = await session._object("DELETE", CONFIG_MAP.path("default", "x"))
    assert status["status"] == "Success"
    assert status["details"] == {"name": "x", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    with pytest.raises(NotFound, match='configmaps "x" not found'):
        await session.delete(CONFIG_MAP, "default", "x")


async def test_delete_preconditions(session: Session) -> None:
    made = await session.create(CONFIG_MAP, configmap())
    with pytest.raises(Conflict, match=r"the UID in the precondition \(another\) does not match"):
        await session.delete(CONFIG_MAP, "default", "x", uid="another")
    with pytest.raises(Conflict, match=r"the ResourceVersion in the precondition \(1\) does not match"):
        await session.delete(CONFIG_MAP, "default", "x", resource_version="1")
    metadata = made["metadata"]
    await session.delete(CONFIG_MAP, "default", "x", uid=metadata["uid"], resource_version=metadata["resourceVersion"])


async def test_finalizers_hold_an_object_until_the_last_is_taken(session: Session) -> None:
    tree = configmap()
    tree["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    await session.create(CONFIG_MAP, tree)
    await session.delete(CONFIG_MAP, "default", "x")
    held = await session.get(CONFIG_MAP, "default", "x")
    assert held["metadata"]["deletionTimestamp"]
    assert held["metadata"]["deletionGracePeriodSeconds"] == 0
    await session.delete(CONFIG_MAP, "default", "x")  # again: nothing changes
    assert await session.get(CONFIG_MAP, "default", "x") == held
    with pytest.raises(Invalid, match="no new finalizers can be added"):
        await session.patch(CONFIG_MAP, "default", "x", {"metadata": {"finalizers": ["example.com/c"]}})
    await session.patch(CONFIG_MAP, "default", "x", {"metadata": {"finalizers": ["example.com/b"]}})
    await session.patch(CONFIG_MAP, "default", "x", {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await session.get(CONFIG_MAP, "default", "x")


@pytest.mark.parametrize(
    ("policy", "finalizers"), [("Foreground", ["foregroundDeletion"]), ("Orphan", ["orphan"]), ("Background", None)]
)
async def test_propagation_policy_leaves_a_finalizer_for_the_garbage_collector(
    session: Session, policy: str, finalizers: list[str] | None
) -> None:
    await session.create(DEPLOYMENT, deployment())
    await session.delete(DEPLOYMENT, "default", "d", propagation=policy)
    if finalizers is None:
        with pytest.raises(NotFound):
            await session.get(DEPLOYMENT, "default", "d")
    else:
        assert (await session.get(DEPLOYMENT, "default", "d"))["metadata"]["finalizers"] == finalizers


async def test_a_pod_without_a_node_goes_at_once(session: Session) -> None:
    await session.create(POD, pod())
    await session.delete(POD, "default", "p")
    with pytest.raises(NotFound):
        await session.get(POD, "default", "p")


async def test_a_pod_on_a_node_goes_when_its_node_says_so(session: Session) -> None:
    await session.create(POD, pod(nodeName="n1", terminationGracePeriodSeconds=20))
    await session.delete(POD, "default", "p")
    going = (await session.get(POD, "default", "p"))["metadata"]
    assert going["deletionGracePeriodSeconds"] == 20
    await session.delete(POD, "default", "p", grace_seconds=5)  # sooner, not later
    assert (await session.get(POD, "default", "p"))["metadata"]["deletionGracePeriodSeconds"] == 5
    await session.delete(POD, "default", "p", grace_seconds=60)
    assert (await session.get(POD, "default", "p"))["metadata"]["deletionGracePeriodSeconds"] == 5
    await session.patch(POD, "default", "p", {"status": {"phase": "Running"}}, subresource="status")
    await session.delete(POD, "default", "p", grace_seconds=0)
    with pytest.raises(NotFound):
        await session.get(POD, "default", "p")


async def test_a_finished_pod_goes_at_once(session: Session) -> None:
    await session.create(POD, pod(nodeName="n1"))
    await session.patch(POD, "default", "p", {"status": {"phase": "Succeeded"}}, subresource="status")
    await session.delete(POD, "default", "p")
    with pytest.raises(NotFound):
        await session.get(POD, "default", "p")


async def test_deletecollection_takes_what_is_selected(session: Session) -> None:
    for name in ("a", "b", "c"):
        await session.create(CONFIG_MAP, configmap(name))
    await session.patch(CONFIG_MAP, "default", "b", {"metadata": {"labels": {"keep": "me"}}})
    await session.raw("DELETE", CONFIG_MAP.path("default"), query={"labelSelector": "!keep"})
    items = (await session._object("GET", CONFIG_MAP.path("default")))["items"]
    assert [item["metadata"]["name"] for item in items] == ["b"]


# ── namespaces ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_namespace_lives_until_it_is_finalized(session: Session) -> None:
    made = await session.create(NAMESPACE, {"metadata": {"name": "n"}})
    assert (made["spec"]["finalizers"], made["status"]["phase"]) == (["kubernetes"], "Active")
    assert made["metadata"]["labels"]["kubernetes.io/metadata.name"] == "n"
    await session.create(SERVICE_ACCOUNT, {"metadata": {"name": "a", "namespace": "n"}})
    await session.delete(NAMESPACE, "", "n")
    going = await session.get(NAMESPACE, "", "n")
    assert going["status"]["phase"] == "Terminating"
    with pytest.raises(Forbidden) as refused:
        await session.create(SERVICE_ACCOUNT, {"metadata": {"name": "b", "namespace": "n"}})
    assert refused.value.message == (
        'serviceaccounts "b" is forbidden: unable to create new content in namespace n because it is being terminated'
    )
    going["spec"]["finalizers"] = []
    await session.update(NAMESPACE, going, subresource="finalize")
    with pytest.raises(NotFound):
        await session.get(NAMESPACE, "", "n")


async def test_the_first_namespaces_cannot_be_deleted(session: Session) -> None:
    with pytest.raises(Forbidden, match="this namespace may not be deleted"):
        await session.delete(NAMESPACE, "", "default")


# ── claims ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_service_and_its_claims_are_one_commit(session: Session) -> None:
    made = await session.create(SERVICE, service(type="NodePort"))
    address = made["spec"]["clusterIP"]
    claim = await session.get(IP_ADDRESS, "", address)
    assert claim["spec"]["parentRef"] == {"group": "", "resource": "services", "namespace": "default", "name": "web"}
    # The writes of one commit: the claim, the node port's, then the Service.
    assert int(claim["metadata"]["resourceVersion"]) == int(made["metadata"]["resourceVersion"]) - 2
    with pytest.raises(Forbidden, match=r"it is the claim of services default/web"):
        await session.delete(IP_ADDRESS, "", address)
    await session.delete(SERVICE, "default", "web")
    with pytest.raises(NotFound):
        await session.get(IP_ADDRESS, "", address)


async def test_a_wanted_address_or_port_that_is_taken_is_refused(session: Session) -> None:
    first = await session.create(SERVICE, service("one", type="NodePort"))
    address, port = first["spec"]["clusterIP"], first["spec"]["ports"][0]["nodePort"]
    with pytest.raises(
        Invalid, match=f"spec.clusterIPs: Invalid value: .*failed to allocate IP {address}: provided IP"
    ):
        await session.create(SERVICE, service("two", clusterIP=address))
    with pytest.raises(Invalid, match=rf"spec.ports\[0\].nodePort: Invalid value: {port}: provided port is already"):
        await session.create(SERVICE, service("two", type="NodePort", ports=[{"port": 80, "nodePort": port}]))
    await session.delete(SERVICE, "default", "one")
    again = await session.create(
        SERVICE, service("two", clusterIP=address, type="NodePort", ports=[{"port": 80, "nodePort": port}])
    )
    assert again["spec"]["clusterIP"] == address


async def test_a_node_port_is_released_when_the_type_changes(session: Session) -> None:
    made = await session.create(SERVICE, service("one", type="NodePort"))
    port = made["spec"]["ports"][0]["nodePort"]
    await session.patch(SERVICE, "default", "one", {"spec": {"type": "ClusterIP"}})
    other = await session.create(SERVICE, service("two", type="NodePort", ports=[{"port": 80, "nodePort": port}]))
    assert other["spec"]["ports"][0]["nodePort"] == port


async def test_many_at_once_fill_a_small_range_and_the_next_finds_none() -> None:
    """All that run at once draw from the same few addresses: each gets its own, and then there are no more."""
    async with local_session(cidrs=("10.96.0.0/28",)) as session:  # 14 addresses, one of them the API's
        made = await asyncio.gather(*(session.create(SERVICE, service(f"s{n}")) for n in range(13)))
        assert len({tree["spec"]["clusterIP"] for tree in made}) == 13
        with pytest.raises(ApiError, match="range is full"):
            await session.create(SERVICE, service("one-more"))
        await session.delete(SERVICE, "default", "s3")
        again = await session.create(SERVICE, service("one-more"))
        assert again["spec"]["clusterIP"] == made[3]["spec"]["clusterIP"]


async def test_an_address_that_no_service_holds_can_be_deleted(session: Session) -> None:
    parent = {"group": "", "resource": "services", "namespace": "default", "name": "gone"}
    await session.create(IP_ADDRESS, {"metadata": {"name": "10.96.0.77"}, "spec": {"parentRef": parent}})
    await session.delete(IP_ADDRESS, "", "10.96.0.77")


async def test_an_object_too_large_for_any_store_is_refused(session: Session) -> None:
    with pytest.raises(ApiError) as refused:
        await session.create(POD, pod() | {"spec": large_spec()})
    assert refused.value.code == 413


def large_spec() -> JSON:
    environment = [{"name": f"V{n}", "value": "x" * 1000} for n in range(1100)]
    return {"containers": [{"name": "c", "image": "host", "env": environment}]}


# ── bootstrap ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_starting_again_over_the_same_store_changes_nothing() -> None:
    store = MemoryStore()
    async with local_server(store):
        before = await store.revision()
    async with local_server(store) as server:
        assert await store.revision() == before
        session = Session(LocalTransport(server.handler, ADMIN))
        api = await session.get(SERVICE, "default", "kubernetes")
        assert api["spec"]["clusterIP"] == "10.96.0.1"
        with pytest.raises(NotFound):
            await session.get(NODE, "", "none")
