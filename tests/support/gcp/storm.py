"""A cloud where every call and every operation may fail, and a controller that is killed on the way: what is left?

Each API call fails, goes unanswered, or is done and goes unanswered; each operation may end in an error. Services are
created, changed and deleted, several at a time, each retried as the controller would, now and then by a new process.
Whenever a provider says that a load balancer is made, it is looked at: not by what the plan wants, but by what a
packet would meet.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.loadbalancer.provider import ProviderFailed
from kubesvc.loadbalancer.providers.gcp.provider import GcpProvider
from kubesvc.loadbalancer.providers.gcp.wishes import TYPE
from support.gcp.cloud import Cloud
from support.gcp.server import Server
from support.gcp.users import config, nodes, ports, service

T = TypeVar("T")
PORTS = ("80", "443", "53/UDP", "53", "8080", "5000/UDP", "9000", "9001", "9002")
VMS = ("node1", "node2", "node3")


@dataclass
class Outcome:
    cycles: int = 0
    failures: int = 0
    """How often the provider said that it failed, and was asked again."""
    restarts: int = 0
    wrong: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    faults: Counter[int | str] = field(default_factory=Counter)


async def storm(server: Server, cycles: int, *, rate: float = 0.2, width: int = 8, seed: int = 1) -> Outcome:
    """`cycles` of create, update, delete, `width` at a time."""
    outcome = Outcome()
    dice = random.Random(seed)
    server.faults.rate = rate
    alive: dict[str, Service] = {}
    current = GcpProvider(config(server, tries=3, first_delay=0.0005, last_delay=0.002), "test")

    running: set[asyncio.Task[Any]] = set()
    reborn = asyncio.Event()
    reborn.set()

    async def die() -> None:
        """The process ends with all it does; another begins with what the API server knows."""
        nonlocal current
        reborn.clear()
        outcome.restarts += 1
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.to_thread(current._compute._pool.shutdown)  # what it sent arrives before its successor speaks
        current._compute.close()
        current = GcpProvider(current._config, "test")
        await current.adopt(list(alive.values()))
        reborn.set()

    async def insist(work: Callable[[GcpProvider], Coroutine[Any, Any, T]]) -> T:
        while True:
            await reborn.wait()
            task = asyncio.create_task(work(current))
            running.add(task)
            (result,) = await asyncio.gather(task, return_exceptions=True)
            running.discard(task)
            if isinstance(result, ProviderFailed):
                outcome.failures += 1
                if dice.random() < 0.05 and reborn.is_set():
                    await die()
            elif isinstance(result, asyncio.CancelledError):
                continue
            elif isinstance(result, BaseException):
                raise result
            else:
                return result

    async def cycle(number: int) -> None:
        name = f"s{number}"
        for _ in range(2):
            wish = alive[name] = random_service(name, dice)
            status = await insist(lambda gcp, wish=wish: gcp.ensure(wish, nodes()))  # type: ignore[misc]
            outcome.wrong += [f"{name}: {problem}" for problem in problems(server.cloud, wish, status)]
        await insist(lambda gcp: gcp.delete(alive[name]))
        del alive[name]
        outcome.cycles += 1

    numbers = iter(range(cycles))

    async def work() -> None:
        for number in numbers:
            await cycle(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(work())
    current._compute.close()
    await server.cloud.quiet()
    outcome.leaked = server.cloud.leftovers()
    outcome.calls, outcome.faults = server.calls, server.faults.dealt
    return outcome


def random_service(name: str, dice: random.Random) -> Service:
    more: dict[str, Any] = {}
    if dice.random() < 0.4:
        more |= {"externalTrafficPolicy": "Local", "healthCheckNodePort": dice.randint(30000, 32767)}
    if dice.random() < 0.3:
        more["loadBalancerSourceRanges"] = [f"192.0.2.{dice.randrange(256)}/32"]
    annotations = {TYPE: "Internal"} if dice.random() < 0.3 else {}
    said = dice.sample(PORTS, dice.choice([1, 1, 2, 3, 7]))
    more["sessionAffinity"] = dice.choice(["None", "ClientIP"])
    return service(name, annotations=annotations, ports=ports(*said), **more)


def problems(cloud: Cloud, wish: Service, status: LoadBalancerStatus) -> list[str]:
    """What is wrong with the load balancer, from the address to the machines."""
    (ingress,) = status.ingress
    internal = TYPE in wish.metadata.annotations
    rules = [rule for rule in cloud.of("forwardingRules").values() if rule["IPAddress"] == ingress.ip]
    found: list[str] = []
    wanted = {(port.protocol, port.port) for port in wish.spec.ports}
    for protocol, port in wanted:
        leading = [rule for rule in rules if _takes(rule, protocol, port)]
        if len(leading) != 1:
            found.append(f"{len(leading)} rules take {port}/{protocol} of {ingress.ip}")
            continue
        if leading[0]["loadBalancingScheme"] != ("INTERNAL" if internal else "EXTERNAL"):
            found.append("scheme")
    backends = {rule["backendService"].rpartition("/")[2] for rule in rules}
    if len(backends) != 1:
        return [*found, f"backend services {backends}"]
    backend = cloud.of("backendServices")[backends.pop()]
    if backend["sessionAffinity"] != ("CLIENT_IP" if wish.spec.session_affinity == "ClientIP" else "NONE"):
        found.append("affinity")
    check = cloud.of("healthChecks")[backend["healthChecks"][0].rpartition("/")[2]]
    local = wish.spec.external_traffic_policy == "Local"
    health_port = wish.spec.health_check_node_port if local else 10256
    if check["httpHealthCheck"]["port"] != health_port:
        found.append(f"checked on {check['httpHealthCheck']['port']}, not {health_port}")
    groups = [entry["group"].partition("projects/shop/")[2] for entry in backend["backends"]]
    machines = sorted(vm.rpartition("/")[2] for group in groups for vm in cloud.members.get(group, ()))
    if machines != sorted(VMS):
        found.append(f"machines {machines}")
    if not _admitted(cloud, "35.191.0.0/16", "", ("tcp", health_port)):
        found.append("no probe gets in")
    sources = wish.spec.load_balancer_source_ranges or ["0.0.0.0/0"]
    opened = {
        (allowed["IPProtocol"].upper(), int(port), source)
        for firewall in cloud.of("firewalls").values()
        if ingress.ip in firewall.get("destinationRanges", ())
        for allowed in firewall["allowed"]
        for port in allowed["ports"]
        for source in firewall["sourceRanges"]
    }
    if opened != {(*way, source) for way in wanted for source in sources}:
        found.append(f"open are {sorted(opened)}")
    if any(held["address"] == ingress.ip for held in cloud.of("addresses").values()):
        found.append("the address is held still")
    return found


def _takes(rule: dict[str, Any], protocol: str, port: int) -> bool:
    if rule["IPProtocol"] not in (protocol, "L3_DEFAULT"):
        return False
    low, _, high = rule.get("portRange", "").partition("-")
    between = bool(low) and int(low) <= port <= int(high or low)
    return bool(rule.get("allPorts")) or between or str(port) in rule.get("ports", ())


def _admitted(cloud: Cloud, source: str, ip: str, way: tuple[str, int]) -> bool:
    return any(
        source in firewall["sourceRanges"]
        and ip in firewall.get("destinationRanges", [ip])
        and any(a["IPProtocol"] == way[0] and str(way[1]) in a["ports"] for a in firewall["allowed"])
        for firewall in cloud.of("firewalls").values()
    )
