"""A node's DNS against a real API server in this process: what is applied resolves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.errors import NotFound
from kubesvc.api.meta import JSON
from kubesvc.api.nodes import Node as NodeObject
from kubesvc.api.registry import ENDPOINT_SLICE, NAMESPACE, NODE, SERVICE
from kubesvc.client.session import Session
from kubesvc.dns.kube_dns import change, wanted
from support.agents import add_node
from support.apiserver import local_session
from support.dns_node import DEADLINE, NODE_IP, SVC, node
from support.watching import following


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with local_session() as one:
        yield one


def slice_of(name: str, *addresses: str) -> JSON:
    return {
        "metadata": {
            "name": f"{name}-a",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def service(name: str, **spec: object) -> JSON:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def test_created_service_resolves_and_deleted_one_does_not(session: Session) -> None:
    """From the API to an answer, and back to NXDOMAIN."""
    async with node(session) as one:
        await one.until("web." + SVC, "A", rcode="NXDOMAIN")
        made = await session.create(SERVICE, service("web", ports=[{"name": "http", "port": 80}]))
        await one.until("web." + SVC, "A", f"A {made['spec']['clusterIP']}")
        await one.until(f"_http._tcp.web.{SVC}", "SRV", f"SRV 0 100 80 web.{SVC}")
        await session.delete(SERVICE, "default", "web")
        await one.until("web." + SVC, "A", rcode="NXDOMAIN")


async def test_headless_service_follows_its_slices(session: Session) -> None:
    """Endpoints come, change and go."""
    async with node(session) as one:
        await session.create(SERVICE, service("db", clusterIP="None", ports=[{"name": "http", "port": 80}]))
        await session.create(ENDPOINT_SLICE, slice_of("db", "10.244.1.5"))
        await one.until("db." + SVC, "A", "A 10.244.1.5")
        more = {"endpoints": slice_of("db", "10.244.1.5", "10.244.2.6")["endpoints"]}
        await session.patch(ENDPOINT_SLICE, "default", "db-a", more)
        await one.until("db." + SVC, "A", "A 10.244.1.5", "A 10.244.2.6")
        await session.delete(ENDPOINT_SLICE, "default", "db-a")
        await one.until("db." + SVC, "A", rcode="NXDOMAIN")


async def test_new_namespace_exists(session: Session) -> None:
    """NXDOMAIN becomes NODATA when the namespace is made."""
    async with node(session) as one:
        await one.until("shop.svc.cluster.local", "A", rcode="NXDOMAIN")
        await session.create(NAMESPACE, {"metadata": {"name": "shop"}})
        await one.until("shop.svc.cluster.local", "A")


async def test_each_node_announces_itself_and_withdraws(session: Session) -> None:
    """kube-dns-NODE is there while its DNS answers, for its own node, and gone after an orderly end."""
    for name in ("node1", "node2"):
        await add_node(session, name)
    async with node(session, "node1") as first, node(session, "node2"):
        for name in ("node1", "node2"):
            await _announced(session, name)
        found = await session.get(ENDPOINT_SLICE, "kube-system", "kube-dns-node1")
        known = await session.read(NODE, NodeObject, "", "node1")
        assert change(found, wanted(known, NODE_IP, first.port)) is None
        assert [(o["kind"], o["name"]) for o in found["metadata"]["ownerReferences"]] == [("Node", "node1")]
        assert found["metadata"]["labels"] == {
            "kubernetes.io/service-name": "kube-dns",
            "endpointslice.kubernetes.io/managed-by": "dns.kubesvc.dev",
        }
        await first.stop()
        with pytest.raises(NotFound):
            await session.get(ENDPOINT_SLICE, "kube-system", "kube-dns-node1")
        await session.get(ENDPOINT_SLICE, "kube-system", "kube-dns-node2")


async def test_announcement_is_put_back_when_somebody_changes_it(session: Session) -> None:
    """The node keeps its slice: deleted or emptied, it is as before a moment later; others' labels stay."""
    await add_node(session, "node1")
    async with node(session) as one:
        await _announced(session, "node1")
        await session.delete(ENDPOINT_SLICE, "kube-system", "kube-dns-node1")
        await _announced(session, "node1")
        await session.patch(
            ENDPOINT_SLICE, "kube-system", "kube-dns-node1", {"endpoints": [], "metadata": {"labels": {"mine": "1"}}}
        )
        want = wanted(await session.read(NODE, NodeObject, "", "node1"), NODE_IP, one.port)
        async with asyncio.timeout(DEADLINE):
            async for event in session.watch(ENDPOINT_SLICE, since="0", namespace="kube-system"):
                tree = event.object
                if b'"mine"' in bytes(tree) and NODE_IP.encode() in bytes(tree):
                    break
        found = await session.get(ENDPOINT_SLICE, "kube-system", "kube-dns-node1")
        assert change(found, want) is None
        assert found["metadata"]["labels"]["mine"] == "1"


async def test_a_nodes_endpoint_is_ready_with_its_node_and_goes_with_it(session: Session) -> None:
    """No Node, no slice; a Node taken for lost, not ready; the Node back, ready again; deleted, withdrawn."""
    async with node(session), following(session, ENDPOINT_SLICE, EndpointSlice) as slices:

        def ready() -> bool | None:
            found = slices.get("kube-dns-node1", "kube-system")
            return found.endpoints[0].ready if found else None

        assert ready() is None
        await add_node(session, "node1")
        await slices.until(lambda: ready() is True, "announced with the Node")
        for status, shown in (("Unknown", False), ("True", True)):
            patch = {"status": {"conditions": [{"type": "Ready", "status": status}]}}
            await session.patch(NODE, "", "node1", patch, subresource="status")
            await slices.until(lambda shown=shown: ready() is shown, f"ready {shown}: the Node is {status}")
        await session.delete(NODE, "", "node1")
        await slices.until(lambda: ready() is None, "withdrawn with the Node")


async def _announced(session: Session, name: str) -> None:
    """Wait until the node's slice is there."""
    since = "0"
    async with asyncio.timeout(DEADLINE):
        listed = await session.list(ENDPOINT_SLICE, EndpointSlice, namespace="kube-system")
        if any(item.name == f"kube-dns-{name}" for item in listed.items):
            return
        since = listed.resource_version
        async for event in session.watch(ENDPOINT_SLICE, since=since, namespace="kube-system"):
            if event.type == "ADDED" and f'"kube-dns-{name}"'.encode() in bytes(event.object):
                return
