"""Slices, mirrors, ServiceCIDRs and node life against a real API server in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kubesvc.api import registry
from kubesvc.api.errors import NotFound
from kubesvc.api.labels import DNS_MANAGER, SERVICE_CIDR_FINALIZER, SERVICE_NAME, SLICE_MANAGED_BY, UNREACHABLE
from kubesvc.api.meta import JSON
from kubesvc.api.registry import (
    ENDPOINT_SLICE,
    ENDPOINTS,
    LEASE,
    NAMESPACE,
    NODE,
    POD,
    SERVICE,
    SERVICE_CIDR,
)
from kubesvc.client.session import Session
from kubesvc.controllers.config import ControllersConfig
from kubesvc.controllers.main import run
from kubesvc.node import lease
from kubesvc.node.config import NodeConfig
from support.agents import Agent, add_node
from support.apiserver import local_session
from support.watching import Watcher, running, watching

# Nobody renews these nodes' Leases.
CONFIG = ControllersConfig(
    pod_cidrs=(ip_network("10.244.0.0/16"),), ca_pem="PEM", service_cidr_grace=0.0, node_grace=3600.0
)


@dataclass
class Cluster:
    session: Session
    see: Watcher
    agent: Agent

    def slices(self, service: str, namespace: str = "default") -> list[Any]:
        return [s for s in self.see.all(ENDPOINT_SLICE, namespace) if s.service_name == service]

    def ready(self, service: str) -> dict[str, bool]:
        """A Service's endpoints: address -> ready."""
        return {e.addresses[0]: e.ready for s in self.slices(service) for e in s.endpoints}

    def runs(self, pod: str) -> bool:
        found = self.see.get(POD, pod)
        return found is not None and bool(found.status.pod_ip)

    async def add_pod(self, name: str, node: str = "n1") -> None:
        spec = {"nodeName": node, "containers": [{"name": "c", "image": "host"}]}
        meta = {"name": name, "namespace": "default", "labels": {"app": "web"}}
        await self.session.create(POD, {"metadata": meta, "spec": spec})


@asynccontextmanager
async def started(config: ControllersConfig) -> AsyncIterator[Cluster]:
    kinds = [k for k in registry.stored() if k.acted_on]
    async with local_session() as session, watching(session, *kinds) as see:
        agent = Agent(session)
        await add_node(session, "n1")
        async with running(run(session, config), agent.run()):
            yield Cluster(session, see, agent)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with started(CONFIG) as one:
        yield one


def service(name: str, **spec: Any) -> JSON:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": ports, **spec}}


WEB = service("web", selector={"app": "web"})


async def test_a_slices_story(cluster: Cluster) -> None:
    """Made, edited by hand and put right, deleted and recreated; left alone once the selector is gone; collected."""
    await cluster.session.create(SERVICE, WEB)
    await cluster.add_pod("a")
    await cluster.see.until(lambda: list(cluster.ready("web").values()) == [True], "a's endpoint")
    (found,) = cluster.slices("web")
    edit = {"endpoints": [], "ports": []}
    edited = await cluster.session.patch(ENDPOINT_SLICE, "default", found.name, edit)
    await cluster.see.until(
        lambda: (
            cluster.see.of["EndpointSlice"].revision > int(edited["metadata"]["resourceVersion"])
            and list(cluster.ready("web").values()) == [True]
        ),
        "the edit undone",
    )
    await cluster.session.delete(ENDPOINT_SLICE, "default", found.name)
    await cluster.see.until(
        lambda: cluster.slices("web") and cluster.slices("web")[0].metadata.uid != found.metadata.uid, "another slice"
    )
    (found,) = cluster.slices("web")
    await cluster.see.until(  # they are written at leisure
        lambda: (written := cluster.see.get(ENDPOINTS, "web")) and any(s.addresses for s in written.subsets),
        "a's address in the Endpoints",
    )
    await cluster.session.patch(SERVICE, "default", "web", {"spec": {"selector": None}})
    await cluster.add_pod("b")
    await cluster.see.until(lambda: cluster.runs("b"), "b runs")
    await cluster.see.until(
        lambda: len(cluster.slices("web")) == 2, "the Endpoints left behind are mirrored, as upstream"
    )
    assert found.metadata.uid in [s.metadata.uid for s in cluster.slices("web")]
    assert len(cluster.ready("web")) == 1, "nobody adds b any more: they are for the user to take over"
    await cluster.session.delete(SERVICE, "default", "web")
    await cluster.see.until(lambda: not cluster.slices("web"), "no slice without its Service")


async def test_a_service_that_becomes_an_alias_keeps_its_slices_for_its_way_back(cluster: Cluster) -> None:
    """As upstream: ExternalName leaves slices as they are; a ClusterIP again uses the same ones."""
    await cluster.session.create(SERVICE, WEB)
    await cluster.see.until(lambda: cluster.slices("web"), "a slice")
    (before,) = cluster.slices("web")
    alias = {"spec": {"type": "ExternalName", "externalName": "example.org", "clusterIP": None, "clusterIPs": None}}
    await cluster.session.patch(SERVICE, "default", "web", alias)
    await cluster.add_pod("a")
    await cluster.see.until(lambda: cluster.runs("a"), "a runs")
    assert cluster.ready("web") == {}
    await cluster.session.patch(SERVICE, "default", "web", {"spec": {"type": "ClusterIP", "externalName": None}})
    await cluster.see.until(lambda: list(cluster.ready("web").values()) == [True], "a's endpoint")
    assert [s.metadata.uid for s in cluster.slices("web")] == [before.metadata.uid]


async def test_an_orphaned_slice_of_ours_is_collected_and_a_foreign_one_is_not(cluster: Cluster) -> None:
    """Neither has an owner, and no Service is called so."""

    def orphan(name: str, manager: str) -> JSON:
        labels = {SERVICE_NAME: "nobody", SLICE_MANAGED_BY: manager}
        return {"metadata": {"name": name, "namespace": "default", "labels": labels}, "addressType": "IPv4"}

    await cluster.session.create(ENDPOINT_SLICE, orphan("ours", "endpointslice-controller.k8s.io"))
    await cluster.session.create(ENDPOINT_SLICE, orphan("foreign", "me"))
    await cluster.see.until(lambda: [s.name for s in cluster.slices("nobody")] == ["foreign"], "the foreign one alone")


async def test_hand_written_endpoints_are_mirrored(cluster: Cluster) -> None:
    """Written, changed, the mirror deleted by hand, a selector given, taken away again, the Endpoints deleted."""
    await cluster.session.create(SERVICE, service("db"))
    meta = {"name": "db", "namespace": "default"}

    def subsets(*ips: str) -> JSON:
        return {"subsets": [{"addresses": [{"ip": ip} for ip in ips], "ports": [{"name": "http", "port": 5432}]}]}

    await cluster.session.create(ENDPOINTS, {"metadata": meta, **subsets("192.0.2.7")})
    await cluster.see.until(lambda: cluster.ready("db") == {"192.0.2.7": True}, "a mirror")
    (mirror,) = cluster.slices("db")
    assert mirror.metadata.labels[SLICE_MANAGED_BY] == "endpointslicemirroring-controller.k8s.io"
    assert mirror.endpoints[0].conditions.serving is None
    await cluster.session.patch(ENDPOINTS, "default", "db", subsets("192.0.2.7", "192.0.2.8"))
    await cluster.see.until(lambda: len(cluster.ready("db")) == 2, "both addresses")
    await cluster.session.delete(ENDPOINT_SLICE, "default", mirror.name)
    await cluster.see.until(
        lambda: cluster.see.get(ENDPOINT_SLICE, mirror.name) is None and len(cluster.ready("db")) == 2, "another mirror"
    )
    skip = {"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}}
    await cluster.session.patch(ENDPOINTS, "default", "db", skip)
    await cluster.see.until(lambda: not cluster.slices("db"), "no mirror of what asks to be skipped")
    unskip = {"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": None}}}
    await cluster.session.patch(ENDPOINTS, "default", "db", unskip)
    await cluster.see.until(lambda: len(cluster.ready("db")) == 2, "mirrored again")
    await cluster.session.delete(ENDPOINTS, "default", "db")
    await cluster.see.until(lambda: not cluster.slices("db"), "nothing to mirror")
    assert cluster.see.get(ENDPOINTS, "kubernetes") is not None
    assert len(cluster.slices("kubernetes")) == 1, "the API's own Endpoints ask not to be mirrored"


async def test_hand_written_endpoints_of_a_selectorless_service_are_left_alone(cluster: Cluster) -> None:
    await cluster.session.create(SERVICE, service("db"))
    meta = {"name": "db", "namespace": "default"}
    made = await cluster.session.create(ENDPOINTS, {"metadata": meta, "subsets": []})
    await cluster.session.create(SERVICE, WEB)
    await cluster.see.until(lambda: cluster.see.get(ENDPOINTS, "web"), "the Endpoints of a Service that selects")
    assert cluster.see.get(ENDPOINTS, "db").metadata.resource_version == made["metadata"]["resourceVersion"]


async def test_a_service_cidrs_life(cluster: Cluster) -> None:
    """Ready with a finalizer; asked to go while it is needed it stays and says why; then it goes."""
    await cluster.session.create(SERVICE_CIDR, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]}})

    def ready() -> tuple[str, str] | None:
        found = cluster.see.get(SERVICE_CIDR, "more")
        return (
            next(((c.status, c.reason) for c in found.status.conditions if c.type == "Ready"), None) if found else None
        )

    await cluster.see.until(lambda: ready() == ("True", ""), "Ready")
    assert SERVICE_CIDR_FINALIZER in cluster.see.get(SERVICE_CIDR, "more").metadata.finalizers
    address = {
        "metadata": {"name": "10.97.0.9"},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "was"}},
    }
    await cluster.session.create(registry.IP_ADDRESS, address)
    await cluster.see.until(lambda: cluster.see.get(registry.IP_ADDRESS, "10.97.0.9"), "the claim")
    await cluster.session.delete(SERVICE_CIDR, "", "more")
    await cluster.see.until(lambda: ready() == ("False", "Terminating"), "kept for the address")
    await cluster.session.delete(registry.IP_ADDRESS, "", "10.97.0.9")
    await cluster.see.until(lambda: cluster.see.get(SERVICE_CIDR, "more") is None, "gone")


SILENCE = 1000.0  # seconds: more than a busy machine takes for the story


def node_config(name: str) -> NodeConfig:
    nowhere = Path("/nonexistent")
    return NodeConfig("box", name, (IPv4Address("192.0.2.1"),), nowhere, nowhere, nowhere, nowhere)


async def test_a_node_that_falls_silent_loses_its_endpoints_and_gets_them_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its Lease stops: Unknown, tainted, pods not ready, its DNS closed. It speaks again: everything as before."""
    loop, ahead = asyncio.get_running_loop(), 0.0
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + ahead)
    async with started(replace(CONFIG, node_grace=SILENCE)) as cluster:
        config = node_config("n1")
        labels = {SERVICE_NAME: "kube-dns", SLICE_MANAGED_BY: DNS_MANAGER}
        dns = {
            "metadata": {"name": "kube-dns-n1", "namespace": "kube-system", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"], "nodeName": "n1", "conditions": {"ready": True}}],
            "ports": [{"name": "dns", "port": 10053, "protocol": "UDP"}],
        }

        def ready() -> str:
            return next(c.status for c in cluster.see.get(NODE, "n1", "").status.conditions if c.type == "Ready")

        async with running(lease.keep(cluster.session, config)):
            await cluster.see.until(lambda: cluster.see.get(LEASE, "n1", "kube-node-lease"), "a Lease")
            owners = cluster.see.get(LEASE, "n1", "kube-node-lease").metadata.owner_references
            assert [(o.kind, o.name) for o in owners] == [("Node", "n1")]
            await cluster.session.create(SERVICE, WEB)
            await cluster.session.create(ENDPOINT_SLICE, dns)
            await cluster.add_pod("a")
            await cluster.see.until(lambda: list(cluster.ready("web").values()) == [True], "a's endpoint")
            assert ready() == "True"
        ahead = SILENCE
        await cluster.see.until(lambda: ready() == "Unknown", "the node taken for lost")
        await cluster.see.until(lambda: list(cluster.ready("web").values()) == [False], "a's endpoint not ready")
        await cluster.see.until(
            lambda: not cluster.see.get(ENDPOINT_SLICE, "kube-dns-n1", "kube-system").endpoints[0].ready, "DNS closed"
        )
        await cluster.see.until(
            lambda: {t.key for t in cluster.see.get(NODE, "n1", "").spec.taints} == {UNREACHABLE}, "the taints"
        )
        async with running(lease.keep(cluster.session, config)):
            said = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
            await cluster.session.patch(NODE, "", "n1", {"status": {"conditions": [said]}}, subresource="status")
            await cluster.see.until(lambda: not cluster.see.get(NODE, "n1", "").spec.taints, "no taint")
            await cluster.agent.report(cluster.see.get(POD, "a"), ready=True)
            await cluster.see.until(lambda: list(cluster.ready("web").values()) == [True], "a's endpoint again")


async def test_a_pod_that_a_taint_drives_away_says_so(cluster: Cluster) -> None:
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "host"}]}
    meta = {"name": "p", "namespace": "default", "finalizers": ["example.com/held"]}
    await cluster.session.create(POD, {"metadata": meta, "spec": spec})
    await cluster.session.patch(NODE, "", "n1", {"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}})

    def going() -> bool:
        found = cluster.see.get(POD, "p")
        return found is not None and found.metadata.deletion_timestamp is not None

    await cluster.see.until(going, "p driven away")
    told = {c.type: c.reason for c in cluster.see.get(POD, "p").status.conditions}
    assert told["DisruptionTarget"] == "DeletionByTaintManager"


async def test_pods_of_a_node_that_is_gone_are_collected_and_namespaces_finish() -> None:
    """A pod being deleted on a node that no longer exists would wait for its agent for ever."""
    async with started(replace(CONFIG, gone_node_grace=0.2)) as cluster:
        await cluster.session.create(NAMESPACE, {"metadata": {"name": "shop"}})
        await add_node(cluster.session, "n2")
        cluster.agent.deaf_to = {"n2"}
        spec = {"nodeName": "n2", "containers": [{"name": "c", "image": "host"}]}
        await cluster.session.create(POD, {"metadata": {"name": "p", "namespace": "shop"}, "spec": spec})
        await cluster.session.delete(NAMESPACE, "", "shop")

        def waits() -> bool:
            found = cluster.see.get(POD, "p", "shop")
            return found is not None and found.metadata.deletion_timestamp is not None

        await cluster.see.until(waits, "p waits for its node")
        await cluster.session.delete(NODE, "", "n2")
        await cluster.see.until(lambda: cluster.see.get(NAMESPACE, "shop") is None, "the namespace gone")
        with pytest.raises(NotFound):
            await cluster.session.get(POD, "shop", "p")
