"""Provider azure while every fifth call of Azure's API goes wrong: nothing leaks and nothing is wrong."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.loadbalancer.provider import ProviderFailed
from kubesvc.loadbalancer.providers.azure.provider import AzureProvider
from support import azure as azures
from support.azure import Azure
from support.azure_services import INTERNAL, PIP_NAME, nodes, service

CYCLES, AT_ONCE, ROUNDS = 500, 25, 5
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


async def test_500_cycles_with_every_fifth_call_going_wrong() -> None:
    dice = random.Random(20)
    async with azures.azure() as (cloud, config):
        cloud.public_ip("mine", "203.0.113.200")
        living: dict[str, tuple[Service, LoadBalancerStatus]] = {}

        async def one(provider: AzureProvider, name: str, *, keep: bool) -> None:
            """Create, update and delete; or leave it for the next round to delete."""
            made = service(name, **some_spec(dice, name))
            if dice.random() < 0.8:
                await until_done(lambda: provider.ensure(made, NODES))
            else:  # its first try ends half-way
                await asyncio.gather(provider.ensure(made, NODES), return_exceptions=True)
            changed = service(name, **some_spec(dice, name))
            status = await until_done(lambda: provider.ensure(changed, NODES))
            if keep:
                living[name] = (changed, status)
            else:
                await until_done(lambda: provider.delete(changed))

        number = 0
        for _ in range(ROUNDS):
            provider = AzureProvider(config, "kubernetes", azures.client(config))
            task = asyncio.create_task(provider.run(lambda _: None))
            await provider.adopt([s for s, _ in living.values()])
            cloud.trouble.rate = 0.2
            old = list(living)
            for _ in range(CYCLES // ROUNDS // AT_ONCE):
                names = [f"s{number + n}" for n in range(AT_ONCE)]
                number += AT_ONCE
                gone, old = [living.pop(name)[0] for name in old[:2]], old[2:]
                await asyncio.gather(
                    *(one(provider, name, keep=index < 2) for index, name in enumerate(names)),
                    *(until_done(lambda made=made: provider.delete(made)) for made in gone),
                )
            cloud.trouble.rate = 0.0
            problems = [problem for s, status in living.values() for problem in shown(cloud, s, status)]
            assert problems == []
            expected = sum(len(s.spec.ports) for s, _ in living.values())
            documents = [cloud.balancer(name) for name in cloud.names("loadBalancers")]
            assert sum(len(d["properties"]["loadBalancingRules"]) for d in documents) == expected
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        provider = AzureProvider(config, "kubernetes", azures.client(config))
        task = asyncio.create_task(provider.run(lambda _: None))
        await provider.adopt([s for s, _ in living.values()])
        for made, _ in living.values():
            await provider.delete(made)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        leaked = [*cloud.names("loadBalancers"), *cloud.names("publicIPAddresses"), *cloud.doors()]
        assert leaked == ["mine"]
        assert number == CYCLES
