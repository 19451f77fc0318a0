"""The controllers against a real API server in this process; a stand-in agent runs the pods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from kubesvc.api import registry
from kubesvc.api.endpoints import pod_is_ready
from kubesvc.api.errors import TooManyRequests
from kubesvc.api.labels import BALANCE, DEPLOYMENT_REVISION, WEIGHT, WEIGHTS
from kubesvc.api.meta import JSON, Object
from kubesvc.api.pods import Pod
from kubesvc.api.policy import PodDisruptionBudget, PodDisruptionBudgetStatus
from kubesvc.api.registry import (
    CONFIG_MAP,
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    EVENT,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    POD_DISRUPTION_BUDGET,
    REPLICA_SET,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)
from kubesvc.api.registry import CUSTOM_RESOURCE_DEFINITION as DEFINITION
from kubesvc.client.session import Session
from kubesvc.controllers.config import ControllersConfig
from kubesvc.controllers.main import run
from support.agents import Agent, add_node
from support.apiserver import local_session
from support.custom import NUMBER, definition, of
from support.watching import Watcher, following, running, watching

# Nobody renews these nodes' Leases.
CONFIG = ControllersConfig(pod_cidrs=(ip_network("10.244.0.0/16"),), ca_pem="PEM", node_grace=3600.0)


@dataclass
class Cluster:
    session: Session
    see: Watcher
    agent: Agent

    def pods(self, **labels: str) -> list[Pod]:
        """Active pods with these labels."""
        found: list[Pod] = self.see.all(POD)
        return [
            p for p in found if labels.items() <= p.metadata.labels.items() and p.metadata.deletion_timestamp is None
        ]

    def endpoints(self, service: str) -> dict[str, bool]:
        """A Service's endpoints: address -> ready."""
        slices = [s for s in self.see.all(ENDPOINT_SLICE) if s.service_name == service]
        return {e.addresses[0]: e.ready for s in slices for e in s.endpoints}

    def budget(self) -> PodDisruptionBudgetStatus:
        """Of the PodDisruptionBudget b."""
        found: PodDisruptionBudget | None = self.see.get(POD_DISRUPTION_BUDGET, "b")
        return found.status if found is not None else PodDisruptionBudgetStatus()

    async def events(self) -> list[JSON]:
        response = await self.session.raw("GET", EVENT.path("default"))
        items: list[JSON] = msgspec.json.decode(response.body)["items"]
        return items

    async def told(self, reason: str, about: str) -> str:
        """The message of an Event with this reason."""
        informer = self.see.of["Event"]
        while True:
            before = informer.revision
            for event in await self.events():
                if event["reason"] == reason:
                    assert event["involvedObject"]["name"] == about
                    return str(event["message"])
            await self.see.until(lambda before=before: informer.revision > before, "another event")


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Three Ready nodes, the controllers, an agent."""
    kinds = [k for k in registry.stored() if k.acted_on]
    async with local_session() as session, watching(session, *kinds) as see:
        agent = Agent(session)
        async with running(run(session, CONFIG), agent.run()):
            for name in ("n1", "n2", "n3"):
                await add_node(session, name)
            yield Cluster(session, see, agent)


def web(replicas: int, version: str = "1", **spec: Any) -> JSON:
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": f"host:{version}"}]},
            },
            **spec,
        },
    }


SERVICE_WEB = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
}


async def roll_out(cluster: Cluster, replicas: int) -> None:
    await cluster.session.create(SERVICE, SERVICE_WEB)
    await cluster.session.create(DEPLOYMENT, web(replicas))
    await until_complete(cluster, replicas)


async def until_complete(cluster: Cluster, replicas: int) -> None:
    """As `kubectl rollout status` waits, then for the slices."""
    generation = (await cluster.session.get(DEPLOYMENT, "default", "web"))["metadata"]["generation"]

    def complete() -> bool:
        d = cluster.see.get(DEPLOYMENT, "web")
        if d is None or d.status.observed_generation < generation:
            return False
        s = d.status
        return bool(s.updated_replicas == s.replicas == s.available_replicas == d.spec.replicas == replicas)

    await cluster.see.until(complete, f"web rolled out with {replicas} replicas")

    def served() -> bool:
        pods = cluster.pods(app="web")
        shown = {ip for ip, is_ready in cluster.endpoints("web").items() if is_ready}
        return all(map(pod_is_ready, pods)) and shown == {p.status.pod_ip for p in pods}

    await cluster.see.until(served, "an endpoint for each ready pod")


async def test_a_deployment_leads_to_bound_pods_and_endpoints(cluster: Cluster) -> None:
    """Spread over the nodes, counted, conditions set, named in slices and Endpoints, told in events."""
    await roll_out(cluster, 6)
    pods = cluster.pods(app="web")
    assert sorted(p.spec.node_name for p in pods) == ["n1", "n1", "n2", "n2", "n3", "n3"]
    assert all(p.name.startswith("web-") and p.metadata.owner_references[0].kind == "ReplicaSet" for p in pods)
    (rs,) = cluster.see.all(REPLICA_SET)
    assert rs.metadata.annotations[DEPLOYMENT_REVISION] == "1"
    assert (rs.status.replicas, rs.status.available_replicas) == (6, 6)
    conditions = {c.type: c.reason for c in cluster.see.get(DEPLOYMENT, "web").status.conditions}
    assert conditions == {"Available": "MinimumReplicasAvailable", "Progressing": "NewReplicaSetAvailable"}
    await cluster.see.until(
        lambda: sum(len(s.addresses) for s in getattr(cluster.see.get(ENDPOINTS, "web"), "subsets", [])) == 6,
        "Endpoints with six addresses",
    )
    (found,) = cluster.see.all(ENDPOINT_SLICE)[1:]  # the first is the API's own
    assert found.metadata.name.startswith("web-")
    assert (found.ports[0].name, found.ports[0].port) == ("http", 8080)


async def test_events_tell_what_was_done(cluster: Cluster) -> None:
    await roll_out(cluster, 1)
    reasons: set[str] = set()

    async def seen() -> bool:
        reasons.update(e["reason"] for e in await cluster.events())
        return {"ScalingReplicaSet", "SuccessfulCreate", "Scheduled"} <= reasons

    informer = cluster.see.of["Event"]
    while not await seen():
        before = informer.revision
        await cluster.see.until(lambda before=before: informer.revision > before, "another event")
    messages = {e["reason"]: e["message"] for e in await cluster.events()}
    (pod,), (rs,) = cluster.pods(app="web"), cluster.see.all(REPLICA_SET)
    assert messages["Scheduled"] == f"Successfully assigned default/{pod.name} to {pod.spec.node_name}"
    assert messages["SuccessfulCreate"] == f"Created pod: {pod.name}"
    assert messages["ScalingReplicaSet"] == f"Scaled up replica set {rs.name} from 0 to 1"


async def test_a_pod_that_stops_being_ready_leaves_the_slice(cluster: Cluster) -> None:
    await roll_out(cluster, 2)
    first = cluster.pods(app="web")[0]
    ip = first.status.pod_ip
    await cluster.agent.report(first, ready=False)
    await cluster.see.until(lambda: cluster.endpoints("web").get(ip) is False, f"{ip} not ready in the slice")
    await cluster.agent.report(first, ready=True)
    await cluster.see.until(lambda: cluster.endpoints("web").get(ip) is True, f"{ip} ready again")


async def test_a_pods_weight_reaches_the_slices_and_a_bad_one_is_told(cluster: Cluster) -> None:
    """Annotated while it runs; the Service asks for it meanwhile; what isn't a weight is an Event on the pod."""
    await roll_out(cluster, 2)
    first, second = cluster.pods(app="web")

    def written() -> list[str]:
        slices = [s for s in cluster.see.all(ENDPOINT_SLICE) if s.service_name == "web"]
        return [s.metadata.annotations.get(WEIGHTS, "") for s in slices]

    async def annotate(kind: registry.Kind, name: str, key: str, value: str) -> None:
        await cluster.session.patch(kind, "default", name, {"metadata": {"annotations": {key: value}}})

    await annotate(POD, first.name, WEIGHT, "5")
    await annotate(SERVICE, "web", BALANCE, "weighted")
    await cluster.see.until(lambda: written() == [f"{first.status.pod_ip}=5"], "the weight")
    await annotate(POD, first.name, WEIGHT, "0")
    await cluster.see.until(lambda: written() == [f"{first.status.pod_ip}=0"], "the new weight")

    await annotate(POD, second.name, WEIGHT, "heavy")
    message = await cluster.told("InvalidWeight", second.name)
    assert [e["type"] for e in await cluster.events() if e["reason"] == "InvalidWeight"] == ["Warning"]
    assert message.startswith(f"pod default/{second.name}: annotation kubesvc.dev/weight is 'heavy'; expected")
    await annotate(SERVICE, "web", BALANCE, "fair")
    await cluster.see.until(lambda: written() == [""], "nobody asks any more")
    message = await cluster.told("InvalidBalance", "web")
    assert message.startswith("service default/web: annotation kubesvc.dev/balance is 'fair'; expected")


async def test_a_target_port_that_no_pod_names_is_told(cluster: Cluster) -> None:
    """With the names there are, on the Service, once there are pods."""
    await roll_out(cluster, 1)
    await cluster.session.patch(
        SERVICE, "default", "web", {"spec": {"ports": [{"name": "http", "port": 80, "targetPort": "web"}]}}
    )
    message = await cluster.told("TargetPortNotFound", "web")
    assert message.startswith("service default/web: port 80: none of its pods has a port named web/TCP; they have none")


async def test_a_claim_of_a_class_that_is_not_there_is_told_once(cluster: Cluster) -> None:
    """And not again with every change of others."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "fast"}
    await cluster.session.create(
        PERSISTENT_VOLUME_CLAIM, {"metadata": {"name": "data", "namespace": "default"}, "spec": spec}
    )
    message = await cluster.told("ProvisioningFailed", "data")
    assert message.startswith('storageclass.storage.k8s.io "fast" not found')
    await cluster.session.create(
        PERSISTENT_VOLUME_CLAIM,
        {"metadata": {"name": "other", "namespace": "default"}, "spec": spec | {"storageClassName": ""}},
    )
    await cluster.told("FailedBinding", "other")
    assert [e["count"] for e in await cluster.events() if e["reason"] == "ProvisioningFailed"] == [1]


async def test_scale_rollout_and_undo(cluster: Cluster) -> None:
    """Scaled up and down, a new template within its bounds, the old template again."""
    await roll_out(cluster, 2)
    scale = {"spec": {"replicas": 5}}
    await cluster.session.patch(DEPLOYMENT, "default", "web", scale, subresource="scale")
    await until_complete(cluster, 5)
    await cluster.session.patch(DEPLOYMENT, "default", "web", {"spec": {"replicas": 3}})
    await until_complete(cluster, 3)

    lowest = 3

    def count(old: object, new: object) -> None:
        nonlocal lowest
        lowest = min(lowest, sum(pod_is_ready(p) for p in cluster.pods(app="web")))

    cluster.see.of["Pod"].on_change(count)
    await cluster.session.patch(DEPLOYMENT, "default", "web", {"spec": {"template": web(3, "2")["spec"]["template"]}})
    await until_complete(cluster, 3)
    assert lowest == 3, "25 % of 3, rounded down, may be unavailable: none"
    assert {r.metadata.annotations[DEPLOYMENT_REVISION]: r.spec.replicas for r in cluster.see.all(REPLICA_SET)} == {
        "1": 0,
        "2": 3,
    }
    await cluster.session.patch(DEPLOYMENT, "default", "web", {"spec": {"template": web(3)["spec"]["template"]}})
    await until_complete(cluster, 3)
    assert cluster.see.get(DEPLOYMENT, "web").metadata.annotations[DEPLOYMENT_REVISION] == "3"
    assert {r.metadata.annotations[DEPLOYMENT_REVISION]: r.spec.replicas for r in cluster.see.all(REPLICA_SET)} == {
        "2": 0,
        "3": 3,
    }


async def test_a_killed_pod_and_a_deleted_slice_come_back(cluster: Cluster) -> None:
    await roll_out(cluster, 2)
    victim = cluster.pods(app="web")[0]
    await cluster.session.delete(POD, "default", victim.name)
    await cluster.see.until(
        lambda: victim.name not in {p.name for p in cluster.pods(app="web")} and len(cluster.pods(app="web")) == 2,
        "another pod in its place",
    )
    await until_complete(cluster, 2)
    (found,) = (s for s in cluster.see.all(ENDPOINT_SLICE) if s.service_name == "web")
    await cluster.session.delete(ENDPOINT_SLICE, "default", found.name)
    await cluster.see.until(
        lambda: cluster.see.get(ENDPOINT_SLICE, found.name) is None and len(cluster.endpoints("web")) == 2,
        "the slice under another name",
    )


async def test_deletion_cascades(cluster: Cluster) -> None:
    """A Deployment takes its ReplicaSets and pods with it, a Service its slices and Endpoints."""
    await roll_out(cluster, 3)
    await cluster.session.delete(DEPLOYMENT, "default", "web")
    await cluster.see.until(
        lambda: not cluster.see.all(REPLICA_SET) and not cluster.see.all(POD), "no ReplicaSet and no pod"
    )
    await cluster.session.delete(SERVICE, "default", "web")
    await cluster.see.until(
        lambda: len(cluster.see.all(ENDPOINT_SLICE)) == len(cluster.see.all(ENDPOINTS)) == 1,
        "no slice and no Endpoints but the API's own",
    )


@pytest.mark.parametrize("policy", ["Foreground", "Orphan"])
async def test_propagation_policies(cluster: Cluster, policy: str) -> None:
    """In the foreground the owner goes last; orphans stay, without an owner."""
    await roll_out(cluster, 2)
    (rs,) = cluster.see.all(REPLICA_SET)
    pods_when_it_went: list[int] = []

    def gone(old: Any, new: Any) -> None:
        if new is None and old.name == "web":
            pods_when_it_went.append(len(cluster.see.all(REPLICA_SET)))

    cluster.see.of["Deployment"].on_change(gone)
    await cluster.session.delete(DEPLOYMENT, "default", "web", propagation=policy)
    await cluster.see.until(lambda: pods_when_it_went, "the Deployment gone")
    if policy == "Foreground":
        assert pods_when_it_went == [0]
        await cluster.see.until(lambda: not cluster.see.all(POD), "no pod")
    else:
        await cluster.see.until(
            lambda: cluster.see.get(REPLICA_SET, rs.name).metadata.owner_references == [], "the ReplicaSet on its own"
        )
        assert len(cluster.pods(app="web")) == 2


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [({"minAvailable": 2}, 1), ({"maxUnavailable": "50%"}, 2), ({"minAvailable": "100%"}, 0)],
    ids=["a number", "a share that may be away", "all of them"],
)
async def test_a_budget_follows_its_pods(cluster: Cluster, spec: JSON, allowed: int) -> None:
    await cluster.session.create(DEPLOYMENT, web(3))
    await cluster.session.create(POD_DISRUPTION_BUDGET, budget(**spec))

    def counted() -> bool:
        status = cluster.budget()
        return (status.current_healthy, status.disruptions_allowed) == (3, allowed)

    await cluster.see.until(counted, "all healthy")
    victim = cluster.pods(app="web")[0].name
    path, body = POD.path("default", victim, "eviction"), msgspec.json.encode({"metadata": {"name": victim}})
    if not allowed:
        with pytest.raises(TooManyRequests):
            await cluster.session.raw("POST", path, body=body)
        return
    await cluster.session.raw("POST", path, body=body)
    await cluster.see.until(
        lambda: cluster.see.get(POD, victim) is None and not cluster.budget().disrupted_pods and counted(),
        "another in its place, and as many allowed as before",
    )


class Definition(Object, frozen=True):
    status: JSON = msgspec.field(default_factory=dict)

    @property
    def established(self) -> bool:
        return any((c["type"], c["status"]) == ("Established", "True") for c in self.status.get("conditions") or ())


def budget(**spec: Any) -> JSON:
    selector = {"matchLabels": {"app": "web"}}
    return {"metadata": {"name": "b", "namespace": "default"}, "spec": {"selector": selector, **spec}}


async def test_a_budget_of_pods_without_a_scale_allows_nothing(cluster: Cluster) -> None:
    await cluster.session.create(DAEMON_SET, web(1))
    await cluster.session.create(POD_DISRUPTION_BUDGET, budget(maxUnavailable=1))
    why = "daemonsets.apps does not implement the scale subresource"
    assert await cluster.told("CalculateExpectedPodCountFailed", "b") == why
    await cluster.see.until(lambda: [c.message for c in cluster.budget().conditions] == [why], why)


async def test_a_budget_is_told_of_pods_that_nobody_scales(cluster: Cluster) -> None:
    metadata = {"name": "alone", "namespace": "default", "labels": {"app": "web"}}
    await cluster.session.create(POD, {"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "host"}]}})
    await cluster.session.create(POD_DISRUPTION_BUDGET, budget(maxUnavailable=1))
    why = "nothing controls alone: only spec.minAvailable as a number counts pods without a controller"
    assert await cluster.told("UnmanagedPods", "b") == why


async def test_a_budget_asks_a_custom_kind_for_its_scale(cluster: Cluster) -> None:
    numbers = of({"replicas": NUMBER})
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    version = {"subresources": {"scale": scale, "status": {}}}
    tree = definition("Fleet", of({"spec": numbers, "status": numbers}), version=version)
    async with following(cluster.session, DEFINITION, Definition) as seen:
        await cluster.session.create(DEFINITION, tree)
        await seen.until(lambda: (d := seen.get("fleets.example.com", "")) and d.established, "the kind served")
    fleet = Kind("example.com", "v1", "Fleet", "fleets", "fleet", True)
    owner = {"metadata": {"name": "f", "namespace": "default"}, "spec": {"replicas": 4}}
    uid = (await cluster.session.create(fleet, owner))["metadata"]["uid"]
    reference = {"apiVersion": "example.com/v1", "kind": "Fleet", "name": "f", "uid": uid, "controller": True}
    metadata = {"name": "p", "namespace": "default", "labels": {"app": "web"}, "ownerReferences": [reference]}
    await cluster.session.create(POD, {"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "host"}]}})
    await cluster.session.create(POD_DISRUPTION_BUDGET, budget(maxUnavailable=1))
    await cluster.see.until(lambda: cluster.budget().expected_pods == 4, "as many expected as it wants")


async def test_an_orphan_is_adopted_and_a_relabelled_pod_let_go(cluster: Cluster) -> None:
    await roll_out(cluster, 2)
    (rs,) = cluster.see.all(REPLICA_SET)
    stray = cluster.pods(app="web")[0]
    await cluster.session.patch(POD, "default", stray.name, {"metadata": {"labels": {"app": "debug"}}})
    await cluster.see.until(
        lambda: not cluster.see.get(POD, stray.name).metadata.owner_references and len(cluster.pods(app="web")) == 2,
        "the pod on its own, another in its place",
    )
    again = await cluster.session.patch(POD, "default", stray.name, {"metadata": {"labels": {"app": "web"}}})
    await cluster.see.until(
        lambda: (
            cluster.see.of["Pod"].revision >= int(again["metadata"]["resourceVersion"])
            and len(cluster.pods(app="web")) == 2
            and all(p.metadata.owner_references[0].uid == rs.metadata.uid for p in cluster.pods(app="web"))
        ),
        "two pods, all owned: the stray was adopted and one too many deleted",
    )


async def test_a_pod_that_fits_nowhere_says_so_and_is_placed_when_a_node_allows(cluster: Cluster) -> None:
    spec = {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "c", "image": "host"}]}
    await cluster.session.create(POD, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})

    def told() -> str:
        pod = cluster.see.get(POD, "p")
        return next((c.message for c in pod.status.conditions if c.type == "PodScheduled"), "") if pod else ""

    why = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    await cluster.see.until(lambda: told() == why, why)
    await cluster.session.patch(NODE, "", "n2", {"metadata": {"labels": {"disk": "ssd"}}})
    await cluster.see.until(lambda: cluster.see.get(POD, "p").spec.node_name == "n2", "the pod on n2")


async def test_nodes_get_pod_addresses(cluster: Cluster) -> None:
    await cluster.see.until(
        lambda: (
            [n.spec.pod_cidrs for n in cluster.see.all(NODE, "")]
            == [["10.244.0.0/24"], ["10.244.1.0/24"], ["10.244.2.0/24"]]
        ),
        "a block for each node",
    )


async def test_a_namespaces_life(cluster: Cluster) -> None:
    """Furnished when new, its furniture put back, emptied and gone when deleted."""
    await cluster.session.create(NAMESPACE, {"metadata": {"name": "shop"}})
    await cluster.see.until(
        lambda: (
            cluster.see.get(SERVICE_ACCOUNT, "default", "shop")
            and cluster.see.get(CONFIG_MAP, "kube-root-ca.crt", "shop")
        ),
        "a ServiceAccount and the CA",
    )
    await cluster.session.delete(CONFIG_MAP, "shop", "kube-root-ca.crt")
    await cluster.see.until(
        lambda: getattr(cluster.see.get(CONFIG_MAP, "kube-root-ca.crt", "shop"), "data", {}) == {"ca.crt": "PEM"},
        "the CA again",
    )
    tree = web(2)
    tree["metadata"]["namespace"] = "shop"
    await cluster.session.create(DEPLOYMENT, tree)
    await cluster.see.until(
        lambda: sum(pod_is_ready(p) for p in cluster.see.all(POD, "shop")) == 2, "two ready pods in shop"
    )
    await cluster.session.delete(NAMESPACE, "", "shop")
    await cluster.see.until(lambda: cluster.see.get(NAMESPACE, "shop") is None, "the namespace gone")
    for kind in (POD, REPLICA_SET, DEPLOYMENT, CONFIG_MAP):
        assert cluster.see.all(kind, "shop") == []


async def test_a_terminating_namespace_is_a_quiet_place(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Deleting one under a rolling Deployment ends without a warning in the log."""
    await cluster.session.create(NAMESPACE, {"metadata": {"name": "busy"}})
    tree = web(5)
    tree["metadata"]["namespace"] = "busy"
    await cluster.session.create(DEPLOYMENT, tree)
    await cluster.see.until(lambda: cluster.see.all(POD, "busy"), "the first pod")
    await cluster.session.delete(NAMESPACE, "", "busy")
    await cluster.see.until(lambda: cluster.see.get(NAMESPACE, "busy") is None, "the namespace gone")
    assert [r.getMessage() for r in caplog.records if r.name.startswith("kubesvc") and r.levelname == "WARNING"] == []
