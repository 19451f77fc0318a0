"""The controller with provider azure, from an API server to a stand-in for Azure: what people read of it."""

from __future__ import annotations

import asyncio
import builtins
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from kubesvc.api.core import Service
from kubesvc.api.labels import LOAD_BALANCER_CLEANUP
from kubesvc.api.registry import EVENT, NODE, SERVICE
from kubesvc.cli.main import cli
from kubesvc.client.session import Session
from kubesvc.loadbalancer import main
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.controller import Controller
from kubesvc.loadbalancer.plan import ready_condition
from kubesvc.loadbalancer.provider import LoadBalancerError
from kubesvc.loadbalancer.providers.azure.config import AZURE_CLASS, AzureConfig
from kubesvc.loadbalancer.providers.azure.provider import AzureProvider
from kubesvc.loadbalancer.providers.pool import PoolProvider
from support import azure as azures
from support.apiserver import local_session
from support.azure import Azure
from support.azure_services import AZURE
from support.watching import Event, Following, following

CONFIG = LoadBalancerConfig(default_provider="azure", first_retry=0.01, last_retry=0.05)


class World:
    def __init__(self, session: Session, cloud: Azure, services: Following[Service], events: Following[Event]) -> None:
        self.session, self.cloud, self.services, self.events = session, cloud, services, events

    async def create(self, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
        whole = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports, **spec}
        meta = {"name": name, "namespace": "default", "annotations": annotations or {}}
        await self.session.create(SERVICE, {"metadata": meta, "spec": whole})

    async def shows(self, name: str, address: str, reason: str) -> None:
        def look() -> bool:
            service = self.services.get(name)
            condition = ready_condition(service) if service else None
            shown = ",".join(f"{i.ip} {i.ip_mode}" for i in service.status.load_balancer.ingress) if service else ""
            return condition is not None and (shown, condition.reason) == (address, reason)

        await self.services.until(look, f"{name} shows {address!r}, {reason}")

    async def told(self, name: str, *reasons: str) -> list[Event]:
        def about() -> list[Event]:
            return [e for e in self.events.seen if e.involved_object.name == name]

        await self.events.until(lambda: [e.reason for e in about()] == list(reasons), f"events {reasons}")
        return about()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with (
        azures.azure(fresh=0.2) as (cloud, config),
        local_session() as session,
        following(session, SERVICE, Service) as services,
        following(session, EVENT, Event) as events,
    ):
        await add_node(session, "n1", "10.0.0.4")
        async with running(session, config):
            yield World(session, cloud, services, events)


@asynccontextmanager
async def running(session: Session, config: AzureConfig) -> AsyncIterator[None]:
    providers = [AzureProvider(config, "kubernetes", azures.client(config)), PoolProvider(session, CONFIG)]
    task = asyncio.create_task(Controller(session, providers, CONFIG).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def add_node(session: Session, name: str, address: str) -> None:
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": address}],
    }
    spec = {"providerID": f"azure:///subscriptions/x/resourceGroups/y/providers/Microsoft.Compute/{name}"}
    await session.create(NODE, {"metadata": {"name": name}, "spec": spec, "status": status})
    await session.patch(NODE, "", name, {"status": status}, subresource="status")


async def test_a_service_lives_and_dies_with_its_events(world: World) -> None:
    await world.create("web", loadBalancerClass=AZURE_CLASS)
    await world.shows("web", "203.0.113.1 VIP", "Ensured")
    served = world.services.get("web")
    assert served is not None
    assert served.metadata.finalizers == [LOAD_BALANCER_CLEANUP]
    await world.told("web", "EnsuringLoadBalancer", "EnsuredLoadBalancer")
    await add_node(world.session, "n2", "10.0.0.5")
    await world.told("web", "EnsuringLoadBalancer", "EnsuredLoadBalancer", "UpdatedLoadBalancer")
    (pool,) = world.cloud.balancer()["properties"]["backendAddressPools"]
    listed = [a["properties"]["ipAddress"] for a in pool["properties"]["loadBalancerBackendAddresses"]]
    assert listed == ["10.0.0.4", "10.0.0.5"]
    await world.session.delete(SERVICE, "default", "web")
    await world.services.until(lambda: world.services.get("web") is None, "web is gone")
    assert (world.cloud.names("loadBalancers"), world.cloud.names("publicIPAddresses")) == ([], [])
    assert world.cloud.doors() == []


async def test_what_is_passed_over_is_a_warning(world: World) -> None:
    await world.create("web", {AZURE + "load-balancer-mode": "auto"})
    await world.shows("web", "203.0.113.1 VIP", "Ensured")
    events = await world.told("web", "EnsuringLoadBalancer", "EnsuredLoadBalancer", "AnnotationIgnored")
    assert (events[2].type, events[2].message) == (
        "Warning",
        f"{AZURE}load-balancer-mode is ignored: one Standard load balancer has all nodes: leave it out",
    )


async def test_who_waits_for_a_public_ip_is_served_when_somebody_makes_it(world: World) -> None:
    await world.create("web", {AZURE + "pip-name": "mine"})
    await world.shows("web", "", "PublicIPNotFound")
    world.cloud.public_ip("mine", "203.0.113.77")
    await world.shows("web", "203.0.113.77 VIP", "Ensured")


async def test_a_failure_says_what_azure_said_and_is_tried_again(world: World) -> None:
    world.cloud.trouble.planned = ["500"]
    await world.create("web")
    await world.shows("web", "203.0.113.1 VIP", "Ensured")
    events = await world.told("web", "EnsuringLoadBalancer", "SyncLoadBalancerFailed", "EnsuredLoadBalancer")
    assert "ProviderFailed: Azure says 500 InternalServerError: an error occurred" in events[1].message


def test_what_the_provider_needs_is_named() -> None:
    given = ["loadbalancer", "--kubeconfig", "/nonexistent", "--provider", "azure", "--azure-vnet", "v"]
    shown = CliRunner().invoke(cli, given)
    assert shown.exit_code == 2
    assert (
        "--provider azure needs --azure-subscription, --azure-resource-group, --azure-location, --azure-subnet, "
        "--azure-nsg, too"
    ) in " ".join(shown.output.split())


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith(("azure.", "kubesvc.loadbalancer.providers.azure.client"))]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name: str, *more: Any, **others: Any) -> Any:
        if name.startswith("azure."):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    config = LoadBalancerConfig(azure=AzureConfig("s", "g", "l", "v", "s", "n"))
    with pytest.raises(LoadBalancerError, match=r"pip install 'kubesvc\[azure\]'"):
        main.PROVIDERS["azure"](None, config)  # type: ignore[arg-type]
