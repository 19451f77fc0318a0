"""What the endpoint controllers cost: 1,000 and 10,000 Services with three pods each, from nothing to all slices.

An API server over a store in memory, and the controllers, each size in a process of its own. Printed: seconds until
every slice and Endpoints object is there, writes, one pod's change until its slice is written (p50 and p99), writes
while nothing happens and after the controllers were started again, and the memory the controllers added.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import multiprocessing
import pstats
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import msgspec
from msgspec.structs import replace

from figures import show, show_percentiles
from kubesvc.api.meta import JSON
from kubesvc.api.registry import ENDPOINT_SLICE, ENDPOINTS, NODE, POD, SERVICE, Kind
from kubesvc.apiserver import stored
from kubesvc.apiserver.server import ApiServer
from kubesvc.client.session import STRATEGIC_PATCH, Session
from kubesvc.client.transport import LocalTransport, Request, Response, User
from kubesvc.controllers import main as controllers
from kubesvc.controllers.config import ControllersConfig
from kubesvc.store.memory import MemoryStore
from kubesvc.store.protocol import StoreEvent, Write
from support.apiserver import config

NODES, PODS_EACH = 10, 3
CHANGES = 300
CREATED = "2026-01-01T00:00:00Z"
IDLE = 2.0  # seconds nothing happens


class Counting:
    """A transport that counts writes by method and resource; `outside` it is the server's own."""

    def __init__(self, server: ApiServer) -> None:
        self._inner = LocalTransport(server.handler, User("controllers", ("system:masters",)))
        self.writes: Counter[str] = Counter()

    async def send(self, request: Request) -> Response:
        if request.method != "GET" and "/events" not in request.path:
            self.writes[f"{request.method} {request.path.split('/')[-1 if request.method == 'POST' else -2]}"] += 1
        return await self._inner.send(request)

    async def close(self) -> None:
        await self._inner.close()


def resident() -> float:
    """MB of this process, without what it shares with its parent."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no Private_Dirty")


def meta(name: str, namespace: str, **more: object) -> JSON:
    return {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{namespace}-{name}",
        "creationTimestamp": CREATED,
        **more,
    }


def service(number: int) -> JSON:
    address = f"10.96.{number // 250 + 1}.{number % 250 + 1}"
    return {
        "metadata": meta(f"s{number}", "default", labels={"app": f"s{number}"}),
        "spec": {
            "type": "ClusterIP",
            "selector": {"app": f"s{number}"},
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
        "status": {"loadBalancer": {}},
    }


def pod(number: int, index: int) -> JSON:
    """As a node's agent leaves one: with conditions, container statuses, a volume and an environment."""
    serial = number * PODS_EACH + index
    ip = f"10.{128 + serial // 62500}.{serial // 250 % 250}.{serial % 250 + 1}"
    name = f"s{number}-7d4b9c8f6d-{index:05d}"
    turned = {"status": "True", "lastTransitionTime": CREATED, "lastProbeTime": None}
    kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled", "PodReadyToStartContainers")
    return {
        "metadata": meta(
            name,
            "default",
            generateName=f"s{number}-7d4b9c8f6d-",
            labels={"app": f"s{number}", "pod-template-hash": "7d4b9c8f6d"},
            annotations={"kubectl.kubernetes.io/restartedAt": CREATED},
        ),
        "spec": {
            "nodeName": f"n{serial % NODES}",
            "restartPolicy": "Always",
            "volumes": [{"name": "config", "configMap": {"name": "config"}}],
            "containers": [
                {
                    "name": "app",
                    "image": "example.org/app:1.0",
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                    "env": [{"name": "MODE", "value": "production"}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 5},
                }
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "hostIP": "192.0.2.1",
            "conditions": [{"type": kind, **turned} for kind in kinds],
            "containerStatuses": [
                {"name": "app", "ready": True, "restartCount": 0, "image": "example.org/app:1.0", "imageID": "x"}
            ],
        },
    }


async def fill(store: MemoryStore, services: int) -> None:
    async def put(kind: Kind, tree: JSON) -> None:
        namespace = tree["metadata"].get("namespace", "")
        key = stored.key(kind, namespace, tree["metadata"]["name"])
        await store.commit([Write(key, stored.encode(kind, tree), 0)])

    for number in range(NODES):
        labels = {"topology.kubernetes.io/zone": f"z{number % 3}"}
        ready = [{"type": "Ready", "status": "True"}]
        tree = {"metadata": {**meta(f"n{number}", "", labels=labels)}, "spec": {}, "status": {"conditions": ready}}
        await put(NODE, tree)
    for number in range(services):
        await put(SERVICE, service(number))
        for index in range(PODS_EACH):
            await put(POD, pod(number, index))


async def until_there(store: MemoryStore, services: int) -> float:
    """When, on the clock of perf_counter, the last slice and Endpoints object of the fill was written."""
    missing = {(kind.plural, f"s{n}") for kind in (ENDPOINT_SLICE, ENDPOINTS) for n in range(services)}
    for kind in (ENDPOINT_SLICE, ENDPOINTS):
        prefix = stored.collection(kind)
        page = await store.list(prefix)
        for item in page.items:
            missing.discard(_whose(kind, item.value))
    events = store.watch("", page.revision)
    while missing:
        event = await anext(events)
        if not isinstance(event, StoreEvent) or event.value is None:
            continue
        for kind in (ENDPOINT_SLICE, ENDPOINTS):
            if event.key.startswith(stored.collection(kind)):
                missing.discard(_whose(kind, event.value))
    return time.perf_counter()


def _whose(kind: Kind, value: bytes) -> tuple[str, str]:
    """The object's Service, once it has all its endpoints."""
    tree = msgspec.json.decode(value)
    if kind is ENDPOINTS:
        found = sum(len(s.get("addresses", ())) for s in tree.get("subsets") or ())
        return (kind.plural, tree["metadata"]["name"] if found == PODS_EACH else "")
    name = tree["metadata"].get("labels", {}).get("kubernetes.io/service-name", "")
    return (kind.plural, name if len(tree["endpoints"]) == PODS_EACH else "")


async def one_change(session: Session, store: MemoryStore, number: int, ready: bool) -> float:
    """Milliseconds from a pod's status being acknowledged to its slice being written."""
    tree = pod(number, 0)
    turned = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": "2026-01-02T00:00:00Z"}
    events = store.watch(stored.collection(ENDPOINT_SLICE), await store.revision())
    patch = {"status": {"conditions": [turned]}}
    name = tree["metadata"]["name"]
    begun = time.perf_counter()
    await session.patch(POD, "default", name, patch, subresource="status", patch_type=STRATEGIC_PATCH)
    async for event in events:
        if isinstance(event, StoreEvent) and event.value is not None:
            break
    taken = (time.perf_counter() - begun) * 1e3
    return taken


@asynccontextmanager
async def running(session: Session) -> AsyncIterator[None]:
    task = asyncio.create_task(
        controllers.run(session, ControllersConfig(pod_cidrs=(ip_network("10.128.0.0/9"),), node_grace=3600))
    )
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def measure(services: int) -> None:
    store = MemoryStore()
    await fill(store, services)
    server = ApiServer(store, replace(config(), service_cidrs=(ip_network("10.96.0.0/12"),)))
    await server.start()
    gc.collect()
    before = resident()
    transport = Counting(server)
    session = Session(transport)
    outside = Session(LocalTransport(server.handler, User("agent", ("system:masters",))))
    label = f"at_{services}"
    profile = cProfile.Profile() if "--profile" in sys.argv else None
    begun, cpu = time.perf_counter(), time.process_time()
    if profile:
        profile.enable()
    async with running(session):
        done = await until_there(store, services)
        if profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        show(f"all_slices_{label}", done - begun, "s")
        show(f"all_slices_cpu_{label}", time.process_time() - cpu, "s")
        show(f"writes_{label}", transport.writes.total(), "writes")
        await asyncio.sleep(0.5)
        gc.collect()
        show(f"memory_added_{label}", resident() - before, "MB")
        latencies = []
        for ready in (False, True):
            for number in range(0, services, max(1, services // CHANGES)):
                latencies.append(await one_change(outside, store, number, ready))
        show_percentiles(f"one_pods_change_{label}", latencies, "ms")
        transport.writes.clear()
        await asyncio.sleep(IDLE)
        show(f"writes_when_idle_{label}", transport.writes.total(), "writes")
    transport.writes.clear()
    begun = time.perf_counter()
    async with running(session):
        await until_there(store, services)
        await asyncio.sleep(max(IDLE, time.perf_counter() - begun))
        show(f"writes_after_restart_{label}", transport.writes.total(), "writes")
        if transport.writes:
            print(dict(transport.writes))
    await server.close()


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:] if word.isdigit()] or [1000, 10000]
    for size in sizes:
        process = multiprocessing.get_context("spawn").Process(target=_one, args=(size,))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


def _one(services: int) -> None:
    asyncio.run(measure(services))


if __name__ == "__main__":
    main()
