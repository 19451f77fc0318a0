"""Claims, volumes and the pods that use them, from one end to the other: the controllers against a real API server, a
stand-in agent runs the pods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kubesvc.api.errors import NotFound
from kubesvc.api.meta import JSON
from kubesvc.api.pods import Pod
from kubesvc.api.registry import (
    EVENT,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    STATEFUL_SET,
    STORAGE_CLASS,
)
from kubesvc.api.storage import IS_DEFAULT, SELECTED_NODE, PersistentVolumeClaim
from kubesvc.client.session import Session
from kubesvc.controllers.config import ControllersConfig
from kubesvc.controllers.main import run
from kubesvc.controllers.persistentvolume.plan import storage_class
from kubesvc.controllers.protection.plan import is_used
from kubesvc.controllers.readiness import condition
from kubesvc.controllers.scheduler import binder
from kubesvc.controllers.scheduler import controller as scheduler
from support.agents import Agent, add_node
from support.apiserver import local_session
from support.objects import CREATED, make, owned_by, pod
from support.watching import Event, Following, Watcher, following, running, watching

CLAIM, VOLUME = PERSISTENT_VOLUME_CLAIM, PERSISTENT_VOLUME
WANTED = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


@dataclass
class Cluster:
    session: Session
    see: Watcher
    events: Following[Event]
    directory: Path

    async def claim(self, name: str, **spec: Any) -> None:
        await self.session.create(CLAIM, {"metadata": named(name), "spec": WANTED | spec})

    async def volume(self, name: str, *, node: str = "", **spec: Any) -> None:
        """One that is reached from `node` alone, if that is given."""
        whole: JSON = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}
        if node:
            term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
            whole["nodeAffinity"] = {"required": {"nodeSelectorTerms": [term]}}
        await self.session.create(VOLUME, {"metadata": {"name": name}, "spec": whole | spec})

    async def late_class(self, name: str, provisioner: str) -> None:
        tree = {"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"}
        await self.session.create(STORAGE_CLASS, tree)

    async def pod(self, name: str, claim: str = "", **spec: Any) -> None:
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
        whole = {"containers": [{"name": "c", "image": "host"}], "volumes": volumes} | spec
        await self.session.create(POD, {"metadata": named(name), "spec": whole})

    async def placed(self, name: str) -> str:
        """The node of a pod, once it has one."""

        def node() -> str:
            found = self.see.get(POD, name)
            return "" if found is None else str(found.spec.node_name)

        return await self.see.until(node, f"{name} placed")

    async def held_back(self, name: str, why: str) -> None:
        """The pod is Pending, for this reason, and an Event says so too."""
        message = f"0/2 nodes are available: {why}."

        def told() -> bool:
            pod = self.see.get(POD, name)
            scheduled = condition(pod.status.conditions, "PodScheduled") if pod is not None else None
            return scheduled is not None and (scheduled.status, scheduled.reason, scheduled.message) == (
                "False",
                "Unschedulable",
                message,
            )

        await self.see.until(told, message)
        await self.told("FailedScheduling", name, message)

    async def told(self, reason: str, about: str, message: str) -> None:
        def said() -> bool:
            found = self.events.seen
            return any((e.reason, e.involved_object.name, e.message) == (reason, about, message) for e in found)

        await self.events.until(said, message)

    async def gone(self, kind: Any, name: str) -> None:
        await self.see.until(lambda: self.see.get(kind, name) is None, f"{kind.kind} {name} gone")

    def selected(self, name: str) -> str:
        """The node for which the claim's volume is to be made."""
        claim = self.see.get(CLAIM, name)
        return "" if claim is None else str(claim.metadata.annotations.get(SELECTED_NODE, ""))

    async def bound(self, name: str) -> PersistentVolumeClaim:
        def found() -> PersistentVolumeClaim | None:
            claim: PersistentVolumeClaim | None = self.see.get(CLAIM, name)
            return claim if claim is not None and claim.is_bound else None

        claim = await self.see.until(found, f"{name} bound")
        assert claim is not None
        return claim


def named(name: str) -> JSON:
    return {"name": name, "namespace": "default"}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Two Ready nodes, the controllers, an agent, and the class that makes directories."""
    config = ControllersConfig(node_grace=3600.0, volumes=str(tmp_path))  # nobody renews these nodes' Leases
    kinds = (POD, CLAIM, VOLUME, STATEFUL_SET)
    async with (
        local_session() as session,
        watching(session, *kinds) as see,
        following(session, EVENT, Event) as events,
        running(run(session, config), Agent(session).run()),
    ):
        await session.create(STORAGE_CLASS, storage_class())
        for name in ("n1", "n2"):
            await add_node(session, name)
        yield Cluster(session, see, events, tmp_path)


async def test_a_claim_that_names_no_class_is_of_the_default_one(cluster: Cluster) -> None:
    """Whether it comes after the class or before."""
    await cluster.claim("after")
    assert (await cluster.session.get(CLAIM, "default", "after"))["spec"]["storageClassName"] == "standard"
    await cluster.claim("named", storageClassName="")
    assert (await cluster.session.get(CLAIM, "default", "named"))["spec"]["storageClassName"] == ""
    await cluster.session.delete(STORAGE_CLASS, "", "standard")
    await cluster.claim("before")
    assert "storageClassName" not in (await cluster.session.get(CLAIM, "default", "before"))["spec"]
    fast = {"metadata": {"name": "fast", "annotations": {IS_DEFAULT[0]: "true"}}, "provisioner": "example.com/fast"}
    await cluster.session.create(STORAGE_CLASS, fast)
    await cluster.see.until(
        lambda: (found := cluster.see.get(CLAIM, "before")) and found.spec.storage_class_name == "fast", "its class"
    )


# ── the scheduler waits for claims ───────────────────────────────────────────────────────────────────────────────────


async def test_a_pod_waits_for_a_claim_that_is_not_there_and_runs_when_it_is(cluster: Cluster) -> None:
    await cluster.pod("p", "data")
    await cluster.held_back("p", 'persistentvolumeclaim "data" not found')
    await cluster.claim("data")
    assert await cluster.placed("p")
    (tree,) = cluster.directory.iterdir()
    assert (await cluster.bound("data")).spec.volume_name == tree.name


async def test_what_every_new_claim_goes_through_is_nothing_to_tell(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim of the box's own class, and one for an ephemeral volume, are bound in a moment."""
    monkeypatch.setattr(scheduler, "MOMENT", 3600.0)
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}, SCRATCH]
    await cluster.pod("p", volumes=volumes, nodeSelector={"kubernetes.io/hostname": "n1"})
    await cluster.held_back("p", 'persistentvolumeclaim "data" not found')
    await cluster.claim("data")
    await cluster.told("Scheduled", "p", "Successfully assigned default/p to n1")
    failed = [e.message for e in cluster.events.seen if e.reason == "FailedScheduling"]
    assert failed == ['0/2 nodes are available: persistentvolumeclaim "data" not found.']


async def test_a_pod_waits_until_somebody_makes_the_volume_and_goes_where_it_is(cluster: Cluster) -> None:
    await cluster.claim("data", storageClassName="")
    await cluster.pod("p", "data")
    await cluster.held_back("p", "pod has unbound immediate PersistentVolumeClaims")
    await cluster.volume("v", node="n2")
    assert await cluster.placed("p") == "n2"


async def test_a_volume_that_no_node_reaches_holds_its_pod_back_until_one_does(cluster: Cluster) -> None:
    await cluster.volume("v", node="n3")
    await cluster.claim("data", storageClassName="")
    await cluster.bound("data")
    await cluster.pod("p", "data")
    await cluster.held_back("p", "2 node(s) didn't match PersistentVolume's node affinity")
    await add_node(cluster.session, "n3")
    assert await cluster.placed("p") == "n3"


async def test_a_claim_for_one_pod_has_one_at_a_time(cluster: Cluster) -> None:
    await cluster.claim("data", accessModes=["ReadWriteOncePod"])
    await cluster.pod("first", "data")
    await cluster.placed("first")
    await cluster.pod("second", "data")
    refused = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
    await cluster.held_back("second", f"2 {refused}")
    await cluster.session.delete(POD, "default", "first")
    assert await cluster.placed("second")


async def test_a_late_claim_waits_for_its_pod_and_has_a_volume_where_that_goes(cluster: Cluster) -> None:
    await cluster.late_class("late", "kubesvc/directory")
    await cluster.claim("data", storageClassName="late")
    await cluster.told("WaitForFirstConsumer", "data", "waiting for first consumer to be created before binding")
    await cluster.pod("stuck", "data", nodeSelector={"disk": "ssd"})
    await cluster.told("WaitForPodScheduled", "data", "waiting for pod stuck to be scheduled")
    assert list(cluster.directory.iterdir()) == []
    await cluster.pod("p", "data", nodeSelector={"kubernetes.io/hostname": "n2"})
    assert await cluster.placed("p") == "n2"
    assert (await cluster.bound("data")).metadata.annotations[SELECTED_NODE] == "n2"


async def test_a_late_claim_gets_a_volume_somebody_made_where_the_pod_can_go(cluster: Cluster) -> None:
    await cluster.late_class("local", "kubernetes.io/no-provisioner")
    for name in ("a", "b"):
        await cluster.claim(name, storageClassName="local")
    await cluster.pod("p", "a")
    await cluster.held_back("p", "2 node(s) didn't find available persistent volumes to bind")
    await cluster.volume("v", node="n2", storageClassName="local")
    assert await cluster.placed("p") == "n2"
    assert (await cluster.bound("a")).spec.volume_name == "v"
    assert SELECTED_NODE not in (await cluster.bound("a")).metadata.annotations


async def test_a_late_claim_of_a_pod_that_is_bound_already_has_its_volume_there(cluster: Cluster) -> None:
    """As a DaemonSet's are from the beginning; a volume may come later."""
    for name, provisioner in (("late", "kubesvc/directory"), ("local", "kubernetes.io/no-provisioner")):
        await cluster.late_class(name, provisioner)
        await cluster.claim(name, storageClassName=name)
        await cluster.pod(name, name, nodeName="n2")
    assert (await cluster.bound("late")).metadata.annotations[SELECTED_NODE] == "n2"
    await cluster.volume("elsewhere", node="n1", storageClassName="local")
    await cluster.volume("here", node="n2", storageClassName="local")
    assert (await cluster.bound("local")).spec.volume_name == "here"


async def test_a_place_is_kept_while_somebody_else_makes_the_volume(cluster: Cluster) -> None:
    """For other pods it counts as taken; what is placed meanwhile doesn't wait."""
    await cluster.late_class("cloud", "csi.example")
    await cluster.claim("data", storageClassName="cloud")
    port = [{"name": "c", "image": "host", "ports": [{"containerPort": 80, "hostPort": 80}]}]
    await cluster.pod("slow", "data", containers=port)
    selected = await cluster.see.until(lambda: cluster.selected("data"), "a node selected")
    await cluster.pod("quick", containers=port)
    assert await cluster.placed("quick") != selected
    assert cluster.see.get(POD, "slow").spec.node_name == ""
    uid = cluster.see.get(CLAIM, "data").metadata.uid
    await cluster.volume("v", storageClassName="cloud", claimRef=named("data") | {"uid": uid})
    assert await cluster.placed("slow") == selected


async def test_a_place_is_given_up_when_the_volume_can_not_be_made_there(cluster: Cluster) -> None:
    """The provisioner says so by taking the annotation away."""
    await cluster.late_class("cloud", "csi.example")
    await cluster.claim("data", storageClassName="cloud")
    await cluster.pod("p", "data", nodeSelector={"fast": "yes"})
    await cluster.held_back("p", "2 node(s) didn't match Pod's node affinity/selector")
    await cluster.session.patch(NODE, "", "n1", {"metadata": {"labels": {"fast": "yes"}}})
    await cluster.see.until(lambda: cluster.selected("data") == "n1", "n1 selected")
    await cluster.session.patch(NODE, "", "n1", {"metadata": {"labels": {"fast": None}}})
    await cluster.session.patch(NODE, "", "n2", {"metadata": {"labels": {"fast": "yes"}}})
    await cluster.session.patch(CLAIM, "default", "data", {"metadata": {"annotations": {SELECTED_NODE: None}}})
    await cluster.see.until(lambda: cluster.selected("data") == "n2", "n2 selected")


async def test_a_place_is_kept_for_a_while(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binder, "PATIENCE", timedelta(seconds=0.1))
    await cluster.late_class("cloud", "csi.example")
    await cluster.claim("data", storageClassName="cloud")
    await cluster.pod("p", "data")
    await cluster.told("FailedScheduling", "p", binder.TIMED_OUT)
    await cluster.volume("v", storageClassName="cloud", claimRef=named("data"))
    assert await cluster.placed("p")


# ── ephemeral volumes ────────────────────────────────────────────────────────────────────────────────────────────────

SCRATCH = {
    "name": "scratch",
    "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": WANTED}},
}


async def test_an_ephemeral_volumes_claim_lives_as_long_as_its_pod(cluster: Cluster) -> None:
    await cluster.pod("p", volumes=[SCRATCH])
    await cluster.placed("p")
    claim = await cluster.bound("p-scratch")
    owner = claim.metadata.owner_references[0]
    assert (owner.kind, owner.name, owner.controller, owner.block_owner_deletion) == ("Pod", "p", True, True)
    assert claim.metadata.labels == {"a": "b"}
    await cluster.session.delete(POD, "default", "p")
    await cluster.gone(CLAIM, "p-scratch")
    await cluster.gone(VOLUME, claim.spec.volume_name)
    assert list(cluster.directory.iterdir()) == []


async def test_a_claim_of_that_name_that_is_not_the_pods_is_not_touched(cluster: Cluster) -> None:
    await cluster.claim("p-scratch")
    await cluster.pod("p", volumes=[SCRATCH])
    why = "PVC default/p-scratch was not created for pod default/p (pod is not owner)"
    await cluster.held_back("p", why)
    await cluster.told("FailedBinding", "p", f"ephemeral volume scratch: {why}")
    await cluster.session.delete(CLAIM, "default", "p-scratch")
    await cluster.placed("p")


async def test_a_pod_deleted_in_the_foreground_does_not_wait_for_the_claim_that_waits_for_it(cluster: Cluster) -> None:
    await cluster.pod("p", volumes=[SCRATCH])
    await cluster.placed("p")
    await cluster.session.delete(POD, "default", "p", propagation="Foreground")
    await cluster.gone(POD, "p")
    await cluster.gone(CLAIM, "p-scratch")


# ── protection ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_claim_that_is_used_stays_until_its_pod_is_gone(cluster: Cluster) -> None:
    """Meanwhile no other pod gets it; its volume goes with it."""
    await cluster.claim("data")
    await cluster.pod("user", "data")
    await cluster.placed("user")
    volume = (await cluster.bound("data")).spec.volume_name
    await cluster.session.delete(VOLUME, "", volume)
    await cluster.session.delete(CLAIM, "default", "data")
    await cluster.pod("late", "data")
    await cluster.held_back("late", 'persistentvolumeclaim "data" is being deleted')
    assert cluster.see.get(CLAIM, "data").metadata.finalizers == ["kubernetes.io/pvc-protection"]
    assert cluster.see.get(VOLUME, volume).metadata.finalizers == ["kubernetes.io/pv-protection"]
    await cluster.session.delete(POD, "default", "user")
    await cluster.gone(CLAIM, "data")
    await cluster.gone(VOLUME, volume)
    assert list(cluster.directory.iterdir()) == []
    await cluster.held_back("late", 'persistentvolumeclaim "data" not found')


async def test_what_an_older_version_made_is_protected_from_now_on(cluster: Cluster) -> None:
    await cluster.claim("data")
    await cluster.bound("data")
    for kind, name in ((CLAIM, "data"), (VOLUME, cluster.see.all(VOLUME, "")[0].name)):
        changed = await cluster.session.patch(
            kind, kind.namespaced * "default", name, {"metadata": {"finalizers": None}}
        )
        assert "finalizers" not in changed["metadata"]
        await cluster.see.until(lambda k=kind, n=name: cluster.see.get(k, n).metadata.finalizers, f"{name} protected")


async def test_a_namespace_goes_with_its_claims(cluster: Cluster) -> None:
    await cluster.session.create(NAMESPACE, {"metadata": {"name": "shop"}})
    meta = {"name": "data", "namespace": "shop"}
    await cluster.session.create(CLAIM, {"metadata": meta, "spec": WANTED})
    await cluster.see.until(lambda: getattr(cluster.see.get(CLAIM, "data", "shop"), "is_bound", False), "bound")
    async with following(cluster.session, NAMESPACE, NAMESPACE.view) as namespaces:
        await cluster.session.delete(NAMESPACE, "", "shop")
        await namespaces.until(lambda: namespaces.get("shop", "") is None, "the namespace gone")
    with pytest.raises(NotFound):
        await cluster.session.get(CLAIM, "shop", "data")


CLAIMED = [{"name": "v", "persistentVolumeClaim": {"claimName": "p-v"}}]
EPHEMERAL = [{"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}]
DONE = {"deletionTimestamp": CREATED, "deletionGracePeriodSeconds": 0}
MINE, THEIRS = make(PersistentVolumeClaim, "p-v", owned_by("Pod", "p")), make(PersistentVolumeClaim, "p-v")


@pytest.mark.parametrize(
    ("one", "claim", "used"),
    [
        (pod("p", volumes=CLAIMED), THEIRS, True),
        (pod("p", volumes=CLAIMED, phase="Succeeded"), THEIRS, True),
        (pod("p", volumes=CLAIMED, node=""), THEIRS, False),
        (pod("p", volumes=CLAIMED, meta=DONE), THEIRS, True),
        (pod("p"), THEIRS, False),
        (pod("p", volumes=EPHEMERAL), MINE, True),
        (pod("p", volumes=EPHEMERAL), THEIRS, False),
        (pod("p", volumes=EPHEMERAL, meta=DONE), MINE, False),
    ],
    ids=[
        "by a pod",
        "by a finished one",
        "by none without a node",
        "by one that is going",
        "by none without it",
        "for an ephemeral volume",
        "not made for it",
        "by one that waits for it to go",
    ],
)
def test_who_uses_a_claim(one: Pod, claim: PersistentVolumeClaim, used: bool) -> None:
    assert is_used(claim, [one]) is used


# ── StatefulSets ─────────────────────────────────────────────────────────────────────────────────────────────────────


def stateful_set(replicas: int, **policy: str) -> JSON:
    template = {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "host"}]}}
    spec: JSON = {
        "replicas": replicas,
        "serviceName": "db",
        "selector": {"matchLabels": {"app": "db"}},
        "template": template,
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": WANTED}],
        "persistentVolumeClaimRetentionPolicy": policy,
    }
    return {"metadata": named("db"), "spec": spec}


async def ready(cluster: Cluster, replicas: int) -> None:
    def done() -> bool:
        sts = cluster.see.get(STATEFUL_SET, "db")
        return sts is not None and sts.status.ready_replicas == sts.status.replicas == replicas

    await cluster.see.until(done, f"{replicas} ready")


async def test_claims_go_when_a_stateful_set_shrinks_and_come_back_anew(cluster: Cluster) -> None:
    await cluster.session.create(STATEFUL_SET, stateful_set(2, whenScaled="Delete"))
    await ready(cluster, 2)
    before = {c.name: c.metadata.uid for c in cluster.see.all(CLAIM)}
    assert list(before) == ["data-db-0", "data-db-1"]
    await cluster.session.patch(STATEFUL_SET, "default", "db", {"spec": {"replicas": 1}})
    await cluster.gone(CLAIM, "data-db-1")
    await cluster.session.patch(STATEFUL_SET, "default", "db", {"spec": {"replicas": 2}})
    await ready(cluster, 2)
    after = {c.name: c.metadata.uid for c in cluster.see.all(CLAIM)}
    assert after["data-db-0"] == before["data-db-0"]
    assert after["data-db-1"] != before["data-db-1"]
    await cluster.session.delete(STATEFUL_SET, "default", "db")
    for name in ("db-0", "db-1"):
        await cluster.gone(POD, name)
    assert {c.name: c.metadata.uid for c in cluster.see.all(CLAIM)} == after


async def test_claims_go_with_their_stateful_set_if_they_are_to(cluster: Cluster) -> None:
    """The policy may come later."""
    await cluster.session.create(STATEFUL_SET, stateful_set(1))
    await ready(cluster, 1)
    assert cluster.see.get(CLAIM, "data-db-0").metadata.owner_references == []
    policy = {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}
    await cluster.session.patch(STATEFUL_SET, "default", "db", {"spec": policy})
    await cluster.see.until(lambda: cluster.see.get(CLAIM, "data-db-0").metadata.owner_references, "an owner")
    await cluster.session.delete(STATEFUL_SET, "default", "db")
    await cluster.gone(CLAIM, "data-db-0")
    await cluster.see.until(lambda: not cluster.see.all(VOLUME, ""), "the volume gone")
    assert list(cluster.directory.iterdir()) == []


async def test_a_claim_that_a_pod_misses_is_made_again(cluster: Cluster) -> None:
    tree = stateful_set(1)
    tree["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    await cluster.session.create(STATEFUL_SET, tree)
    before = (await cluster.bound("data-db-0")).metadata.uid
    await cluster.session.delete(CLAIM, "default", "data-db-0")
    await cluster.see.until(
        lambda: (c := cluster.see.get(CLAIM, "data-db-0")) is not None and c.metadata.uid != before, "another claim"
    )
