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
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.api.nodes import Node
from kubesvc.loadbalancer.providers.gcp.provider import GcpProvider
from kubesvc.loadbalancer.providers.gcp.wishes import TYPE
from support.faults import Outcome, Story
from support.gcp.cloud import Cloud
from support.gcp.server import gcp_server
from support.gcp.users import config, nodes, ports, service

PORTS = ("80", "443", "53/UDP", "53", "8080", "5000/UDP", "9000", "9001", "9002")
VMS = ("node1", "node2", "node3")


async def endure(cycles: int, seed: int = 1, *, workers: int = 8, restarts: int = 4, rate: float = 0.2) -> Outcome:
    async with gcp_server(seed=seed, latency=0.001) as server:
        server.faults.rate = rate

        @asynccontextmanager
        async def started(services: Sequence[Service]) -> AsyncIterator[GcpProvider]:
            gcp = GcpProvider(config(server, tries=3, first_delay=0.0005, last_delay=0.002), "test")
            await gcp.adopt(services)
            yield gcp
            await asyncio.to_thread(gcp._compute._pool.shutdown)  # what it sent arrives before its successor speaks
            gcp._compute.close()

        async def wrong(service: Service, _: Sequence[Node], status: LoadBalancerStatus) -> list[str]:
            return problems(server.cloud, service, status)

        story = Story(started, lambda n: versions(n, seed), lambda _: nodes(), wrong, seed, deaths=0.05)
        outcome = await story.go(cycles, workers=workers, restarts=restarts)
        await server.cloud.quiet()
        outcome.leaked = server.cloud.leftovers()
        outcome.calls = sum(server.calls.values())
        outcome.faults = Counter({str(fault): n for fault, n in server.faults.dealt.items()})
    return outcome


def versions(number: int, seed: int) -> list[Service]:
    dice = random.Random(f"{seed} {number}")
    return [random_service(f"s{number}", dice) for _ in range(3)]


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
