"""Services, nodes and providers for tests of Google Cloud."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.api.nodes import Node
from kubesvc.loadbalancer.config import GcpConfig
from kubesvc.loadbalancer.providers.gcp.provider import GcpProvider
from kubesvc.loadbalancer.providers.gcp.resources import Site
from support.gcp.server import Server

SITE = Site("shop", "europe-west1", "test")
NODES = [("node1", "europe-west1-b"), ("node2", "europe-west1-c"), ("node3", "europe-west1-d")]


def service(name: str = "web", *, annotations: dict[str, str] | None = None, **spec: Any) -> Service:
    """`spec` has the API's own field names. Without ports: TCP 80."""
    whole = {
        "type": "LoadBalancer",
        "ipFamilies": ["IPv4"],
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}],
        **spec,
    }
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "annotations": annotations or {}}
    return msgspec.convert({"metadata": metadata, "spec": whole}, Service)


def ports(*said: str) -> list[dict[str, Any]]:
    """`80`, `53/UDP`."""
    split = [(text.partition("/")[0], text.partition("/")[2] or "TCP") for text in said]
    return [{"name": f"p{n}{p.lower()}", "port": int(n), "protocol": p} for n, p in split]


def nodes(*names: str) -> list[Node]:
    """Those of the three VMs; all of them unless some are named."""
    return [node(name, zone) for name, zone in NODES if not names or name in names]


def node(name: str, zone: str) -> Node:
    return msgspec.convert({"metadata": {"name": name}, "spec": {"providerID": f"gce://shop/{zone}/{name}"}}, Node)


def config(server: Server, **more: Any) -> GcpConfig:
    """Impatient: a stand-in answers at once."""
    quick = {"first_delay": 0.001, "last_delay": 0.01}
    return GcpConfig("shop", "europe-west1", endpoint=server.url, **(quick | more))


@asynccontextmanager
async def provider(server: Server, *adopted: Service, **more: Any) -> AsyncIterator[GcpProvider]:
    made = GcpProvider(config(server, **more), "test")
    task = asyncio.create_task(made.run(lambda _: None))
    try:
        await made.adopt(adopted)
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def ip(status: LoadBalancerStatus) -> str:
    (ingress,) = status.ingress
    assert ingress.ip_mode == "VIP"
    assert not ingress.hostname
    return ingress.ip
