"""The controller with provider gcp, over our API server and the stand-in: what users of the cluster see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
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
from kubesvc.loadbalancer.overview import overview
from kubesvc.loadbalancer.plan import ready_condition
from kubesvc.loadbalancer.providers.gcp import wishes
from support.apiserver import local_session
from support.gcp.server import Server, gcp_server
from support.gcp.users import NODES, config
from support.watching import Event, Following, following


class World:
    def __init__(
        self, session: Session, server: Server, services: Following[Service], events: Following[Event]
    ) -> None:
        self.session, self.server, self.services, self.events = session, server, services, events

    async def create(self, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
        whole = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports, **spec}
        metadata = {"name": name, "namespace": "default", "annotations": annotations or {}}
        await self.session.create(SERVICE, {"metadata": metadata, "spec": whole})

    async def patch(self, name: str, patch: dict[str, Any]) -> None:
        await self.session.patch(SERVICE, "default", name, patch)

    def shown(self, name: str) -> tuple[str, str]:
        """Address, and our condition's status with its reason."""
        service = self.services.get(name)
        condition = service and ready_condition(service)
        address = ",".join(i.ip for i in service.status.load_balancer.ingress) if service else ""
        return address, f"{condition.status} {condition.reason}" if condition else ""

    async def ensured(self, name: str) -> str:
        await self.services.until(lambda: self.shown(name)[1] == "True Ensured", f"{name} is ensured", within=60)
        return self.shown(name)[0]

    async def waits(self, name: str, reason: str) -> str:
        await self.services.until(lambda: self.shown(name)[1] == f"False {reason}", f"{name} waits", within=60)
        service = self.services.get(name)
        condition = ready_condition(service) if service else None
        assert condition is not None
        return condition.message

    async def told(self, name: str, *reasons: str) -> list[str]:
        """Messages of the events about `name`, which have these reasons in this order."""

        def about() -> list[Event]:
            return [e for e in self.events.seen if e.involved_object.name == name]

        await self.events.until(lambda: [e.reason for e in about()] == list(reasons), f"events {reasons}", within=60)
        return [e.message for e in about()]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with (
        gcp_server() as server,
        local_session() as session,
        following(session, SERVICE, Service) as services,
        following(session, EVENT, Event) as events,
    ):
        for name, zone in NODES:
            node = {"metadata": {"name": name}, "spec": {"providerID": f"gce://shop/{zone}/{name}"}}
            await session.create(NODE, node)
            ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
            await session.patch(NODE, "", name, ready, subresource="status")
        yield World(session, server, services, events)


@asynccontextmanager
async def controller(world: World, **more: Any) -> AsyncIterator[None]:
    settings = LoadBalancerConfig(
        default_provider="gcp", cluster_name="test", gcp=config(world.server, **more), first_retry=0.01, last_retry=0.05
    )
    task = asyncio.create_task(main.run(world.session, settings, ("gcp",)))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_service_lives_with_its_load_balancer(world: World) -> None:
    """Its address, a finalizer, events in upstream's words, the record to create; nothing is left when it goes."""
    async with controller(world):
        await world.create("web")
        address = await world.ensured("web")
        service = world.services.get("web")
        assert service is not None
        assert service.metadata.finalizers == [LOAD_BALANCER_CLEANUP]
        assert [i.ip_mode for i in service.status.load_balancer.ingress] == ["VIP"]
        assert (await overview(world.session)).services == [("default/web", "", f"A {address}", "")]

        await world.patch("web", {"spec": {"ports": [{"name": "tls", "port": 443, "protocol": "TCP"}]}})
        rules = world.server.cloud.of("forwardingRules")
        async with asyncio.timeout(60):
            while [rule["ports"] for rule in rules.values()] != [["443"]]:
                await asyncio.sleep(0.02)
                rules = world.server.cloud.of("forwardingRules")
        assert [rule["IPAddress"] for rule in rules.values()] == [address]

        await world.session.delete(SERVICE, "default", "web")
        await world.services.until(lambda: world.services.get("web") is None, "web is gone", within=60)
        await world.told(
            "web", "EnsuringLoadBalancer", "EnsuredLoadBalancer", "DeletingLoadBalancer", "DeletedLoadBalancer"
        )
    assert world.server.cloud.leftovers() == []


async def test_what_is_refused_is_said_and_served_when_it_can_be(world: World) -> None:
    async with controller(world, remembered=0.0, resync=0.5):
        await world.create("web", {wishes.ADDRESSES: "user-edge"})
        message = await world.waits("web", "AddressNotFound")
        assert "'user-edge' is no static address of region europe-west1; reserve it first" in message
        told = await world.told("web", "EnsuringLoadBalancer", "SyncLoadBalancerFailed")
        assert told[1] == f"Error syncing load balancer: AddressNotFound: {message}"
        assert world.server.cloud.of("forwardingRules") == {}

        body = {"name": "user-edge", "address": "198.51.100.1", "addressType": "EXTERNAL", "networkTier": "PREMIUM"}
        world.server.cloud.objects["regions/europe-west1/addresses"] = {"user-edge": body}
        assert await world.ensured("web") == "198.51.100.1"  # without a change of the Service


async def test_a_failing_cloud_is_named_and_asked_again(world: World) -> None:
    world.server.faults.script = [("POST", "backendServices", 500)] * 2
    async with controller(world, tries=2):
        await world.create("web")
        await world.ensured("web")
        told = await world.told("web", "EnsuringLoadBalancer", "SyncLoadBalancerFailed", "EnsuredLoadBalancer")
    assert "ProviderFailed: Google Cloud: insert backendServices" in told[1]
    assert told[1].endswith("500 internalError: injected")


async def test_an_annotation_that_is_passed_over_is_said_once(world: World) -> None:
    async with controller(world):
        await world.create("web", {"cloud.google.com/neg": '{"ingress": true}', "networking.gke.io/new": "x"})
        await world.ensured("web")
        told = await world.told(
            "web", "EnsuringLoadBalancer", "EnsuredLoadBalancer", "AnnotationIgnored", "AnnotationIgnored"
        )
        assert told[2:] == [
            "annotation cloud.google.com/neg: backends are instance groups; leave it out",
            "annotation networking.gke.io/new: it isn't known here; leave it out",
        ]


async def test_a_cordoned_off_node_leaves_the_load_balancers(world: World) -> None:
    async with controller(world):
        await world.create("web")
        await world.ensured("web")
        label = {"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}}
        await world.session.patch(NODE, "", "node2", label)
        await world.told("web", "EnsuringLoadBalancer", "EnsuredLoadBalancer", "UpdatedLoadBalancer")
        members = {vm.rpartition("/")[2] for vms in world.server.cloud.members.values() for vm in vms}
        assert members == {"node1", "node3"}


async def test_a_service_deleted_while_nobody_looks_is_taken_down_later(world: World) -> None:
    async with controller(world):
        await world.create("web")
        await world.ensured("web")
    await world.session.delete(SERVICE, "default", "web")
    async with controller(world):
        await world.services.until(lambda: world.services.get("web") is None, "web is gone", within=60)
    assert world.server.cloud.leftovers() == []


def test_the_command_says_which_options_are_missing(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("")
    base = ["loadbalancer", "--kubeconfig", str(tmp_path / "config"), "--provider", "gcp"]
    half = CliRunner().invoke(cli, [*base, "--gcp-project", "shop"])
    assert half.exit_code == 2
    assert "--gcp-project and --gcp-region: give both" in half.output
