"""Provider azure while every fifth call of Azure's API goes wrong, and what is left of it in Azure."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.loadbalancer.provider import ProviderFailed
from kubesvc.loadbalancer.providers.azure.config import AzureConfig
from kubesvc.loadbalancer.providers.azure.provider import AzureProvider
from support import azure as azures
from support.azure import Azure
from support.azure_services import INTERNAL, PIP_NAME, nodes, service

log = logging.getLogger(__name__)

AT_ONCE = 25
ROUNDS = 4  # each begins with a fresh provider, as after a restart
NODES = nodes("10.0.0.4", "10.0.0.5")


@dataclass
class Outcome:
    cycles: int = 0
    calls: int = 0
    wrong: int = 0
    leaked: int = 0


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


async def until_done(work: Any) -> Any:
    """As the controller's queue does, without its delays."""
    while True:
        try:
            return await work()
        except ProviderFailed:
            await asyncio.sleep(0)


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


async def endure(cycles: int, seed: int = 20) -> Outcome:
    """`cycles` Services created, updated and deleted, 25 at a time; some live on over a restart."""
    outcome = Outcome()
    async with azures.azure() as (cloud, config):
        cloud.public_ip("mine", "203.0.113.200")
        story = _Story(cloud, config, random.Random(seed))
        while outcome.cycles < cycles:
            async with story.restarted() as provider:
                cloud.trouble.rate = 0.2
                for _ in range(max(1, cycles // ROUNDS // AT_ONCE)):
                    await story.go_on(provider, outcome.cycles)
                    outcome.cycles += AT_ONCE
                cloud.trouble.rate = 0.0
                outcome.wrong += story.wrong()
        outcome.calls = sum(cloud.calls.values())
        async with story.restarted() as provider:
            for made, _ in story.living.values():
                await provider.delete(made)
        left = [*cloud.names("loadBalancers"), *cloud.names("publicIPAddresses"), *cloud.doors()]
        assert "mine" in left
        outcome.leaked = len(left) - 1
    return outcome


class _Story:
    def __init__(self, cloud: Azure, config: AzureConfig, dice: random.Random) -> None:
        self.cloud, self.config, self.dice = cloud, config, dice
        self.living: dict[str, tuple[Service, LoadBalancerStatus]] = {}

    @asynccontextmanager
    async def restarted(self) -> AsyncIterator[AzureProvider]:
        provider = AzureProvider(self.config, "kubernetes", azures.client(self.config))
        task = asyncio.create_task(provider.run(lambda _: None))
        await asyncio.sleep(0)
        await provider.adopt([s for s, _ in self.living.values()])
        yield provider
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def go_on(self, provider: AzureProvider, number: int) -> None:
        """One cycle of each of 25 Services, and the end of two that have lived on."""
        gone = [self.living.pop(name)[0] for name in list(self.living)[: max(0, len(self.living) - 4)]]
        cycles = [self.cycle(provider, f"s{number + n}", keep=n < 2) for n in range(AT_ONCE)]
        await asyncio.gather(*cycles, *(self.delete(provider, made) for made in gone))

    async def cycle(self, provider: AzureProvider, name: str, *, keep: bool) -> None:
        made = service(name, **some_spec(self.dice, name))
        if self.dice.random() < 0.8:
            await until_done(lambda: provider.ensure(made, NODES))
        else:  # it is changed while it is still being tried
            await asyncio.gather(provider.ensure(made, NODES), return_exceptions=True)
        changed = service(name, **some_spec(self.dice, name))
        status = await until_done(lambda: provider.ensure(changed, NODES))
        if keep:
            self.living[name] = (changed, status)
        else:
            await self.delete(provider, changed)

    async def delete(self, provider: AzureProvider, made: Service) -> None:
        await until_done(lambda: provider.delete(made))

    def wrong(self) -> int:
        found = [problem for s, status in self.living.values() for problem in shown(self.cloud, s, status)]
        expected = sum(len(s.spec.ports) for s, _ in self.living.values())
        documents = [self.cloud.balancer(name)["properties"] for name in self.cloud.names("loadBalancers")]
        there = sum(len(properties["loadBalancingRules"]) for properties in documents)
        if there != expected:
            found.append(f"{there} rules instead of {expected}")
        for problem in found:
            log.error("%s", problem)
        return len(found)
