"""What the API server does: durable creates, lists and starts at 10,000 Services, 1,000 watchers, and kill -9.

    python bench/api.py [creates] [scale] [watchers] [access] [kills]       all but kills by default; `kills=100`

The server runs in a process of its own, over TLS and SQLite with `synchronous=FULL`, controllers on; the client
shares its cores.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles

import uvloop

from figures import show
from kubesvc.api.registry import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, RBAC, ROLE, ROLE_BINDING
from kubesvc.apiserver.access import roles
from kubesvc.apiserver.access.attributes import Attributes
from kubesvc.apiserver.access.rbac import Rbac
from kubesvc.client.transport import User
from support.killing import kill_under_load
from support.serving import Served
from wire import Wire

CLIENTS = 32
SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"

Body = Callable[[int], bytes]


def service(number: int) -> bytes:
    return (
        b'{"apiVersion":"v1","kind":"Service","metadata":{"name":"s%d","labels":{"app":"s%d"}},"spec":{"selector":'
        b'{"app":"s%d"},"ports":[{"name":"http","port":80,"targetPort":8080}]}}' % (number, number, number)
    )


def endpoint_slice(number: int) -> bytes:
    endpoints = b",".join(
        b'{"addresses":["10.244.%d.%d"],"conditions":{"ready":true},"nodeName":"node%d"}' % (number % 250, n, n)
        for n in range(1, 4)
    )
    return (
        b'{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"e%d","labels":'
        b'{"kubernetes.io/service-name":"none"}},"addressType":"IPv4","endpoints":[%s],'
        b'"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}' % (number, endpoints)
    )


def millis(seconds: list[float], percent: int) -> float:
    return quantiles(seconds, n=100, method="inclusive")[percent - 1] * 1000


async def create(kubeconfig: Path, path: str, body: Body, first: int, count: int) -> tuple[float, list[float]]:
    """(creates a second, seconds each took)"""
    wires = [await Wire.open(kubeconfig) for _ in range(CLIENTS)]
    numbers = iter(range(first, first + count))
    took: list[float] = []

    async def client(wire: Wire) -> None:
        for number in numbers:
            began = time.perf_counter()
            status, answer = await wire.ask("POST", path, body(number))
            took.append(time.perf_counter() - began)
            assert status == 201, answer

    began = time.perf_counter()
    await asyncio.gather(*map(client, wires))
    rate = count / (time.perf_counter() - began)
    for wire in wires:
        wire.close()
    return rate, took


async def creates(served: Served) -> None:
    for name, path, body in (("service", SERVICES, service), ("endpointslice", SLICES, endpoint_slice)):
        await create(served.kubeconfig, path, body, 1_000_000, 500)  # warm
        rate, took = await create(served.kubeconfig, path, body, 0, 5000)
        show(f"{name}_creates", rate, "1/s")
        show(f"{name}_create_p50", millis(took, 50), "ms")
        show(f"{name}_create_p99", millis(took, 99), "ms")


async def timed(wire: Wire, path: str, times: int) -> list[float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        status, _ = await wire.ask("GET", path)
        took.append(time.perf_counter() - began)
        assert status == 200
    return took


def resident(pid: int) -> float:
    """MB"""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no VmRSS for {pid}")


async def scale(served: Served) -> None:
    wire = await Wire.open(served.kubeconfig)
    await create(served.kubeconfig, SERVICES, service, 2_000_000, 10_000)
    show("list_10000_services_p50", millis(await timed(wire, SERVICES, 9), 50), "ms")
    show("list_500_of_10000_services_p50", millis(await timed(wire, SERVICES + "?limit=500", 30), 50), "ms")
    show("memory_10000_services", resident(served.pid), "MB")
    wire.close()
    await served.kill()
    began = time.perf_counter()
    await served.start()
    show("start_10000_services", time.perf_counter() - began, "s")
    show("memory_10000_services_after_start", resident(served.pid), "MB")


async def watchers(served: Served, count: int = 1000, events: int = 20) -> None:
    config_map = "/api/v1/namespaces/default/configmaps"
    wires = [await Wire.open(served.kubeconfig) for _ in range(count)]
    for wire in wires:
        await wire.follow(config_map + "?watch=true&resourceVersion=0&fieldSelector=metadata.name%3Dwatched")
    writer = await Wire.open(served.kubeconfig)
    await writer.ask("POST", config_map, b'{"metadata":{"name":"watched"}}')
    await asyncio.gather(*(wire.line() for wire in wires))
    took: list[float] = []

    async def receive(wire: Wire, began: float) -> None:
        await wire.line()
        took.append(time.perf_counter() - began)

    for number in range(events):
        waiting = [asyncio.create_task(receive(wire, time.perf_counter())) for wire in wires]
        await asyncio.sleep(0)
        body = b'{"data":{"n":"%d"}}' % number
        await writer.ask("PATCH", config_map + "/watched", body, "application/merge-patch+json")
        await asyncio.gather(*waiting)
    show("watchers_delivered_p50", millis(took, 50), "ms")
    show("watchers_delivered_p99", millis(took, 99), "ms")
    for wire in [*wires, writer]:
        wire.close()


async def access(served: Served, others: int = 1000) -> None:
    """CPU of one decision with that many roles and bindings: for a user of one, of ten, and of none of them."""
    rbac = Rbac()
    for kind, trees in (
        (CLUSTER_ROLE, roles.cluster_roles()),
        (CLUSTER_ROLE_BINDING, roles.cluster_role_bindings()),
    ):
        for tree in trees:
            rbac.put(kind, "", tree["metadata"]["name"], tree)
    for number in range(others):
        name, rule = (
            f"r{number}",
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": [f"things{number}", "pods"]},
        )
        subject = {"apiGroup": RBAC, "kind": "Group", "name": f"team{number}"}
        rbac.put(ROLE, "default", name, {"metadata": {"name": name}, "rules": [rule]})
        reference = {"kind": "Role", "name": name}
        rbac.put(
            ROLE_BINDING, "default", name, {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
        )
    wanted = Attributes("list", "", "services", "default")
    for said, teams in (("one", 1), ("ten", 10), ("no", 0)):
        user = User("alice", tuple(f"team{n}" for n in range(teams)))
        assert not rbac.allow(user, wanted)  # the longest way: nothing allows it
        began, times = time.process_time(), 20_000
        for _ in range(times):
            rbac.allow(user, wanted)
        show(f"authorisation_of_{said}_role", (time.process_time() - began) / times * 1e6, "us")


async def kills(directory: Path, count: int) -> None:
    outcome = await kill_under_load(Served(directory, with_controllers=True), count)
    show("kills", outcome.kills, "kills")
    show("acknowledged_writes", outcome.acknowledged, "writes")
    show("acknowledged_writes_lost", len(outcome.lost), "writes")
    show("claims_leaked_or_doubled", len(outcome.findings), "claims")
    show("watch_gaps", len(outcome.gaps), "events")
    show("watch_repeats", len(outcome.repeated), "events")


async def main(words: list[str]) -> None:
    show("load_before", os.getloadavg()[0], "processes")
    for name, part in (("creates", creates), ("scale", scale), ("watchers", watchers), ("access", access)):
        if words and name not in words:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            served = Served(Path(scratch), with_controllers=True)
            await served.start()
            try:
                await part(served)
            finally:
                await served.close()
    for word in words:
        if word.startswith("kills"):
            with tempfile.TemporaryDirectory() as scratch:
                await kills(Path(scratch), int(word.partition("=")[2] or 100))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1:]))
