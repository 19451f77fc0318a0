"""Provider azure while every fifth call of Azure's API goes wrong, and what is left of it in Azure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.api.nodes import Node
from kubesvc.loadbalancer.providers.azure.provider import AzureProvider
from support import azure as azures
from support.azure import Azure
from support.azure_services import INTERNAL, PIP_NAME, nodes, service
from support.faults import Outcome, Story

NODES = nodes("10.0.0.4", "10.0.0.5")


def some_spec(dice: random.Random, name: str) -> dict[str, Any]:
    """A Service that anybody might write."""
    first = dice.randrange(1, 20_000)
    ports = [
        (first + n, 30_000 + (first + n) % 2_000, dice.choice(["TCP", "UDP"])) for n in range(dice.choice([1, 1, 2]))
    ]
    annotations: dict[str, str] = {}
    kind = dice.choice(["public", "public", "internal", "named"])
    if kind == "internal":
        annotations[INTERNAL] = "true"
    if kind == "named":  # all of these share one public IP of the user's, so their ports must differ
        annotations[PIP_NAME] = "mine"
        ports = [(20_000 + int(name[1:]), 32_000, "TCP")]
    more: dict[str, Any] = {}
    if dice.random() < 0.3:
        more["load_balancer_source_ranges"] = [f"192.0.2.{dice.randrange(256)}/32"]
    if dice.random() < 0.3:
        more["session_affinity"] = "ClientIP"
    return {"ports": ports, "annotations": annotations, **more}


def shown(service: Azure, served: Service, status: LoadBalancerStatus) -> list[str]:
    """What is wrong with one Service's load balancer, by looking at Azure alone."""
    found = []
    internal = INTERNAL in served.metadata.annotations
    document = service.balancer("kubernetes-internal" if internal else "kubernetes")["properties"]
    address = status.ingress[0].ip
    fronts = {f["id"] for f in document["frontendIPConfigurations"] if address_of(service, f) == address}
    for port in served.spec.ports:
        rules = [
            rule["properties"]
            for rule in document["loadBalancingRules"]
            if rule["properties"]["frontendIPConfiguration"]["id"] in fronts
            and rule["properties"]["frontendPort"] == port.port
            and rule["properties"]["protocol"] == port.protocol.capitalize()
        ]
        sticky = "SourceIP" if served.spec.session_affinity == "ClientIP" else "Default"
        if [(r["backendPort"], r["loadDistribution"]) for r in rules] != [(port.port, sticky)]:
            found.append(f"{served.name}: port {port.port} of {address}: {rules}")
        ranges = served.spec.load_balancer_source_ranges
        opened = [
            door
            for door in service.doors()
            if door.get("destinationAddressPrefix") == address
            and str(port.port) in [door.get("destinationPortRange"), *door.get("destinationPortRanges", ())]
            and door["protocol"] == port.protocol.capitalize()
        ]
        sources = [d["sourceAddressPrefix"] for d in opened]
        if sources != (ranges or ([] if internal else ["Internet"])):
            found.append(f"{served.name}: {address}:{port.port} is open to {sources}")
    return found


def address_of(service: Azure, frontend: dict[str, Any]) -> str:
    properties = frontend["properties"]
    if "publicIPAddress" in properties:
        return str(service.things[properties["publicIPAddress"]["id"].lower()]["properties"]["ipAddress"])
    return str(properties["privateIPAddress"])


def versions(number: int, seed: int) -> list[Service]:
    dice = random.Random(f"{seed} {number}")
    return [service(f"s{number}", **some_spec(dice, f"s{number}")) for _ in range(3)]


async def endure(cycles: int, seed: int = 20, *, workers: int = 25, restarts: int = 4) -> Outcome:
    async with azures.azure() as (cloud, config):
        cloud.public_ip("mine", "203.0.113.200")
        cloud.trouble.rate = 0.2

        @asynccontextmanager
        async def started(services: Sequence[Service]) -> AsyncIterator[AzureProvider]:
            provider = AzureProvider(config, "kubernetes", azures.client(config))
            task = asyncio.create_task(provider.run(lambda _: None))
            await asyncio.sleep(0)
            await provider.adopt(services)
            yield provider
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        async def wrong(served: Service, _: Sequence[Node], status: LoadBalancerStatus) -> list[str]:
            return shown(cloud, served, status)

        story = Story(started, lambda n: versions(n, seed), lambda _: NODES, wrong, seed)
        outcome = await story.go(cycles, workers=workers, restarts=restarts)
        outcome.leaked = [*cloud.names("loadBalancers"), *cloud.names("publicIPAddresses"), *cloud.doors()]
        outcome.leaked.remove("mine")
        outcome.calls, outcome.faults = sum(cloud.calls.values()), cloud.trouble.met
    return outcome
