"""The load-balancer controller against the API server in this process: what a Service shows, and what people read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Any

import pytest

from kubesvc.api.balancing import IPAddressPool
from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.api.labels import LOAD_BALANCER_CLEANUP
from kubesvc.api.meta import JSON
from kubesvc.api.nodes import Node
from kubesvc.api.registry import EVENT, IP_ADDRESS_POOL, NAMESPACE, NODE, SERVICE
from kubesvc.client.session import Session
from kubesvc.loadbalancer import main
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.controller import Controller
from kubesvc.loadbalancer.plan import ready_condition
from kubesvc.loadbalancer.provider import BadPool, ProviderFailed
from kubesvc.loadbalancer.providers.pool import PoolProvider
from support.apiserver import local_session
from support.watching import DEADLINE, Event, Following, following

POOL = ((IPv4Address("172.29.7.200"), IPv4Address("172.29.7.201")),)
CONFIG = LoadBalancerConfig(POOL, first_retry=0.01, last_retry=0.05)


class World:
    """A cluster's Services as a user writes and sees them."""

    def __init__(self, session: Session, services: Following[Service], events: Following[Event]) -> None:
        self.session, self.services, self.events = session, services, events

    async def create(self, name: str, **spec: Any) -> None:
        ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
        whole: JSON = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports, **spec}
        await self.session.create(SERVICE, {"metadata": {"name": name, "namespace": "default"}, "spec": whole})

    async def patch(self, name: str, patch: JSON) -> None:
        await self.session.patch(SERVICE, "default", name, patch)

    async def delete(self, name: str) -> None:
        await self.session.delete(SERVICE, "default", name)
        await self.services.until(lambda: self.services.get(name) is None, f"{name} is gone")

    def address(self, name: str) -> str:
        service = self.services.get(name)
        return ",".join(i.ip for i in service.status.load_balancer.ingress) if service else ""

    def reason(self, name: str) -> str:
        """The reason our condition shows, with its status."""
        service = self.services.get(name)
        condition = ready_condition(service) if service else None
        return f"{condition.status} {condition.reason}" if condition else ""

    async def has(self, name: str, address: str) -> None:
        await self.services.until(
            lambda: (self.address(name), self.reason(name)) == (address, "True Ensured"), f"{name} has {address}"
        )

    async def waits(self, name: str, reason: str) -> None:
        await self.services.until(lambda: self.reason(name) == f"False {reason}", f"{name} waits: {reason}")

    async def told(self, name: str, *reasons: str) -> list[Event]:
        """Wait until exactly these events, in this order, are about `name`."""

        def about() -> list[Event]:
            return [e for e in self.events.seen if e.involved_object.name == name]

        await self.events.until(lambda: [e.reason for e in about()] == list(reasons), f"events {reasons}")
        return about()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with (
        local_session() as session,
        following(session, SERVICE, Service) as services,
        following(session, EVENT, Event) as events,
    ):
        node = {"metadata": {"name": "node1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        await session.create(NODE, node)
        await session.patch(NODE, "", "node1", {"status": node["status"]}, subresource="status")
        yield World(session, services, events)


@asynccontextmanager
async def controller(world: World, config: LoadBalancerConfig = CONFIG) -> AsyncIterator[None]:
    task = asyncio.create_task(main.run(world.session, config))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_service_gets_an_address_a_finalizer_and_its_events(world: World) -> None:
    async with controller(world):
        await world.create("web")
        await world.has("web", "172.29.7.200")
        service = world.services.get("web")
        assert service is not None
        assert [i.ip_mode for i in service.status.load_balancer.ingress] == ["VIP"]
        assert service.metadata.finalizers == [LOAD_BALANCER_CLEANUP]
        events = await world.told("web", "EnsuringLoadBalancer", "EnsuredLoadBalancer")
        assert [(e.type, e.message) for e in events] == [
            ("Normal", "Ensuring load balancer"),
            ("Normal", "Ensured load balancer"),
        ]


async def test_an_address_is_waited_for_and_handed_on(world: World) -> None:
    async with controller(world):
        await world.create("s1", loadBalancerIP="172.29.7.201")
        await world.has("s1", "172.29.7.201")

        await world.create("s2", loadBalancerIP="172.29.7.201")  # s2 can't take s1's address
        await world.waits("s2", "AddressInUse")
        assert world.address("s2") == ""
        events = await world.told("s2", "EnsuringLoadBalancer", "SyncLoadBalancerFailed")
        assert (events[1].type, events[1].message) == (
            "Warning",
            "Error syncing load balancer: AddressInUse: 172.29.7.201 is held by Service default/s1",
        )

        await world.delete("s1")  # s1 frees it
        await world.told(
            "s1", "EnsuringLoadBalancer", "EnsuredLoadBalancer", "DeletingLoadBalancer", "DeletedLoadBalancer"
        )
        await world.has("s2", "172.29.7.201")  # s2 can
        await world.told("s2", "EnsuringLoadBalancer", "SyncLoadBalancerFailed", "EnsuredLoadBalancer")


async def test_no_two_services_ever_show_one_address(world: World) -> None:
    async with controller(world):
        for name in ("s1", "s2", "s3", "s4"):
            await world.create(name)
        for _ in range(2):
            await world.services.until(lambda: len(served(world)) == 2, "two are served")
            await world.delete(min(served(world)))
    shown: dict[str, str] = {}  # service -> its address, replayed in the order of revisions
    for service in sorted(world.services.seen, key=lambda s: int(s.metadata.resource_version)):
        shown[service.name] = "".join(i.ip for i in service.status.load_balancer.ingress)
        holders = [name for name, address in shown.items() if address and address == shown[service.name]]
        assert len(holders) < 2, f"{holders} both show {shown[service.name]}"


def served(world: World) -> list[str]:
    return [name for name in ("s1", "s2", "s3", "s4") if world.address(name)]


async def test_a_service_that_stops_being_one_gives_its_address_back(world: World) -> None:
    async with controller(world):
        for name in ("s1", "s2"):
            await world.create(name)
        await world.services.until(lambda: bool(world.address("s1") and world.address("s2")), "both are served")
        freed = world.address("s1")
        await world.create("s3")
        await world.waits("s3", "PoolExhausted")
        await world.patch("s1", {"spec": {"type": "ClusterIP"}})
        await world.has("s3", freed)
        await world.services.until(lambda: (world.address("s1"), world.reason("s1")) == ("", ""), "s1 shows nothing")
        s1 = world.services.get("s1")
        assert s1 is not None
        assert s1.metadata.finalizers == []


async def test_a_restart_changes_no_address(world: World) -> None:
    async with controller(world):
        await world.create("s1", loadBalancerIP="172.29.7.201")
        await world.has("s1", "172.29.7.201")
        await world.told("s1", "EnsuringLoadBalancer", "EnsuredLoadBalancer")
        await world.patch("s1", {"spec": {"loadBalancerIP": None}})
    await world.create("z0")  # while nobody looks
    async with controller(world):
        await world.has("z0", "172.29.7.200")
        assert world.address("s1") == "172.29.7.201"
    assert {s.status.load_balancer.ingress[0].ip for s in world.services.seen if s.name == "s1"
            and s.status.load_balancer.ingress} == {"172.29.7.201"}  # fmt: skip
    await world.told("s1", "EnsuringLoadBalancer", "EnsuredLoadBalancer")


async def test_a_service_deleted_while_nobody_looks_is_cleaned_up_later(world: World) -> None:
    async with controller(world):
        await world.create("s1")
        await world.has("s1", "172.29.7.200")
    await world.session.delete(SERVICE, "default", "s1")
    await world.services.until(lambda: is_dying(world.services.get("s1")), "s1 is held")
    async with controller(world):
        await world.services.until(lambda: world.services.get("s1") is None, "s1 is gone")


def is_dying(service: Service | None) -> bool:
    return service is not None and service.metadata.deletion_timestamp is not None


async def test_an_address_asked_for_later_is_moved_to(world: World) -> None:
    async with controller(world):
        await world.create("s1")
        await world.has("s1", "172.29.7.200")
        await world.patch("s1", {"metadata": {"annotations": {"metallb.io/loadBalancerIPs": "172.29.7.201"}}})
        await world.has("s1", "172.29.7.201")
        await world.create("s2")
        await world.has("s2", "172.29.7.200")


async def test_a_wish_that_can_not_be_met_costs_nothing(world: World) -> None:
    async with controller(world):
        await world.create("s1")
        await world.has("s1", "172.29.7.200")
        await world.patch("s1", {"spec": {"loadBalancerIP": "192.0.2.1"}})
        await world.waits("s1", "AddressOutsidePool")
        assert world.address("s1") == "172.29.7.200"
        await world.patch("s1", {"spec": {"loadBalancerIP": None}})
        await world.has("s1", "172.29.7.200")


async def test_another_class_is_left_to_its_owner(world: World) -> None:
    async with controller(world):
        await world.create("other", loadBalancerClass="example.com/other")
        await world.create("ours", loadBalancerClass="kubesvc.dev/pool")
        await world.has("ours", "172.29.7.200")
    other = world.services.get("other")
    assert other is not None
    assert (other.metadata.finalizers, other.status.load_balancer) == ([], LoadBalancerStatus())
    assert not [e for e in world.events.seen if e.involved_object.name == "other"]


async def test_without_a_node_to_take_traffic_people_are_warned(world: World) -> None:
    await world.session.delete(NODE, "", "node1")
    async with controller(world):
        await world.create("web")
        events = await world.told("web", "EnsuringLoadBalancer", "UnAvailableLoadBalancer", "EnsuredLoadBalancer")
        assert events[1].message == "There are no available nodes for LoadBalancer"


async def test_a_pool_that_can_not_be_used_ends_the_controller(world: World) -> None:
    backwards = LoadBalancerConfig(((POOL[0][1], POOL[0][0]),))
    with pytest.raises(BadPool):
        await asyncio.wait_for(main.run(world.session, backwards), DEADLINE)


class Flaky(PoolProvider):
    """A provider that fails twice, as a cloud does."""

    failures = 2

    async def ensure(self, service: Service, nodes: Sequence[Node]) -> LoadBalancerStatus:
        if self.failures:
            self.failures -= 1
            raise ProviderFailed("the cloud is overcast")
        return await super().ensure(service, nodes)


async def test_a_failing_provider_is_asked_again(world: World) -> None:
    task = asyncio.create_task(Controller(world.session, [Flaky(world.session, CONFIG)], CONFIG).run())
    try:
        await world.create("web")
        await world.has("web", "172.29.7.200")
        events = await world.told("web", "EnsuringLoadBalancer", "SyncLoadBalancerFailed", "EnsuredLoadBalancer")
        assert events[1].message == "Error syncing load balancer: ProviderFailed: the cloud is overcast"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Dark(PoolProvider):
    """Another provider beside the first, whose cloud doesn't answer."""

    name = "dark"

    def owns(self, load_balancer_class: str) -> bool:
        return load_balancer_class == "example.com/dark"

    async def delete(self, service: Service) -> None:
        raise ProviderFailed("the cloud is dark")


async def test_a_cloud_that_does_not_answer_holds_nobody_elses_service(world: World) -> None:
    providers = [PoolProvider(world.session, CONFIG), Dark(world.session, NO_POOLS)]
    task = asyncio.create_task(Controller(world.session, providers, CONFIG).run())
    try:
        await world.create("web", loadBalancerClass="kubesvc.dev/pool")
        await world.has("web", "172.29.7.200")
        await world.delete("web")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_why_a_service_waits_is_told_again_now_and_then(world: World) -> None:
    """Events are forgotten; who asks tomorrow is answered as well."""
    config = LoadBalancerConfig(POOL, first_retry=0.01, last_retry=0.05, remind=0.01)
    async with controller(world, config):
        await world.create("web", loadBalancerIP="10.0.0.1")
        await world.waits("web", "AddressOutsidePool")
        await world.events.until(
            lambda: any((e.count or 1) > 2 for e in latest(world, "web", "SyncLoadBalancerFailed")), "told again"
        )


class Seen(PoolProvider):
    """A provider whose targets are addresses, as those of some clouds."""

    def __init__(self, session: Session, config: LoadBalancerConfig) -> None:
        super().__init__(session, config)
        self.targets: asyncio.Queue[list[str]] = asyncio.Queue()

    async def ensure(self, service: Service, nodes: Sequence[Node]) -> LoadBalancerStatus:
        self.targets.put_nowait([address for node in nodes for address in node.internal_ips])
        return await super().ensure(service, nodes)


async def test_a_nodes_new_address_is_a_new_target(world: World) -> None:
    provider = Seen(world.session, CONFIG)
    task = asyncio.create_task(Controller(world.session, [provider], CONFIG).run())
    try:
        await world.create("web")
        await world.has("web", "172.29.7.200")
        for address in ("192.0.2.1", "192.0.2.2"):
            status = {"addresses": [{"type": "InternalIP", "address": address}]}
            await world.session.patch(NODE, "", "node1", {"status": status}, subresource="status")
            async with asyncio.timeout(DEADLINE):
                while await provider.targets.get() != [address]:
                    pass
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Fussy(PoolProvider):
    """A provider that passes some annotations over, as a cloud's does."""

    def remarks(self, service: Service) -> Sequence[str]:
        return tuple(f"annotation {name} does nothing here" for name in sorted(service.metadata.annotations))


async def test_what_is_passed_over_is_told_once(world: World) -> None:
    """Each remark is a warning of its own; a Service that changes for another reason isn't told again."""
    task = asyncio.create_task(Controller(world.session, [Fussy(world.session, CONFIG)], CONFIG).run())
    try:
        await world.create("web")
        await world.has("web", "172.29.7.200")
        await world.patch("web", {"metadata": {"annotations": {"a": "1"}}})
        first = "EnsuringLoadBalancer", "EnsuredLoadBalancer", "AnnotationIgnored"
        events = await world.told("web", *first)
        assert (events[2].type, events[2].message) == ("Warning", "annotation a does nothing here")
        await world.patch("web", {"metadata": {"labels": {"x": "y"}}})
        await world.patch("web", {"metadata": {"annotations": {"b": "1"}}})
        events = await world.told("web", *first, "AnnotationIgnored")
        assert events[3].message == "annotation b does nothing here"
        await world.patch("web", {"metadata": {"annotations": {"a": None}}})
        await world.patch("web", {"metadata": {"annotations": {"c": "1"}}})
        events = await world.told("web", *first, "AnnotationIgnored", "AnnotationIgnored")
        assert [e.message for e in events[3:]] == ["annotation b does nothing here", "annotation c does nothing here"]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def add_node(world: World, name: str) -> None:
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    await world.session.create(NODE, {"metadata": {"name": name}})
    await world.session.patch(NODE, "", name, {"status": status}, subresource="status")


async def test_new_hosts_are_told(world: World) -> None:
    """A node more, and one less; a heartbeat or a Service's own change are no news."""
    updated = "UpdatedLoadBalancer"
    async with controller(world):
        await world.create("web")
        await world.has("web", "172.29.7.200")
        await world.patch("web", {"metadata": {"labels": {"x": "y"}}})
        await add_node(world, "node2")
        events = await world.told("web", "EnsuringLoadBalancer", "EnsuredLoadBalancer", updated)
        assert (events[2].type, events[2].message) == ("Normal", "Updated load balancer with new hosts")
        excluded = {"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}}
        await world.session.patch(NODE, "", "node2", excluded)
        await world.create("other")
        await world.has("other", "172.29.7.201")
        await world.events.until(
            lambda: sum(e.count or 1 for e in latest(world, "web", updated)) == 2, "told a second time"
        )


def latest(world: World, name: str, reason: str) -> list[Event]:
    """An event's newest version each."""
    found = {e.name: e for e in world.events.seen if e.involved_object.name == name and e.reason == reason}
    return list(found.values())


# ── pools as objects ─────────────────────────────────────────────────────────────────────────────────────────────────

NO_POOLS = LoadBalancerConfig(first_retry=0.01, last_retry=0.05)


async def create_pool(world: World, name: str, *addresses: str, **more: object) -> None:
    await world.session.create(IP_ADDRESS_POOL, {"metadata": {"name": name}, "spec": {"addresses": addresses, **more}})


async def test_who_waits_is_served_when_a_pool_appears(world: World) -> None:
    async with controller(world, NO_POOLS):
        await world.create("s1")
        await world.waits("s1", "NoPool")
        await create_pool(world, "p", "10.0.0.1-10.0.0.1")
        await world.has("s1", "10.0.0.1")
        await world.create("s2")
        await world.waits("s2", "PoolExhausted")
        await world.session.patch(IP_ADDRESS_POOL, "", "p", {"spec": {"addresses": ["10.0.0.1-10.0.0.2"]}})
        await world.has("s2", "10.0.0.2")
        assert world.address("s1") == "10.0.0.1"


async def test_a_pool_for_some_namespaces_follows_their_labels(world: World) -> None:
    gold: JSON = {"namespaceSelectors": [{"matchLabels": {"tier": "gold"}}]}
    async with controller(world, NO_POOLS):
        await create_pool(world, "gold", "10.0.0.1-10.0.0.9", serviceAllocation=gold)
        await world.create("s1")
        await world.waits("s1", "PoolNotAllowed")
        await world.session.patch(NAMESPACE, "", "default", {"metadata": {"labels": {"tier": "gold"}}})
        await world.has("s1", "10.0.0.1")


async def test_services_share_an_address_under_one_key(world: World) -> None:
    async with controller(world):
        annotations = {"metallb.io/allow-shared-ip": "dns"}
        for name, protocol in (("tcp", "TCP"), ("udp", "UDP")):
            ports = [{"name": "dns", "port": 53, "protocol": protocol}]
            spec = {"type": "LoadBalancer", "selector": {"app": "dns"}, "ports": ports}
            meta = {"name": name, "namespace": "default", "annotations": annotations}
            await world.session.create(SERVICE, {"metadata": meta, "spec": spec})
        await world.has("tcp", "172.29.7.200")
        await world.has("udp", "172.29.7.200")
        await world.delete("tcp")
        assert world.address("udp") == "172.29.7.200"


async def test_who_asks_for_what_cannot_be_had_frees_what_it_had(world: World) -> None:
    """The address it may not keep goes to who waits for it, though it waits itself from now on."""
    async with controller(world, NO_POOLS):
        await create_pool(world, "p", "10.0.0.1-10.0.0.1")
        await world.create("s1")
        await world.has("s1", "10.0.0.1")
        await world.create("s2")
        await world.waits("s2", "PoolExhausted")
        await world.patch("s1", {"metadata": {"annotations": {"metallb.io/address-pool": "nosuch"}}})
        await world.waits("s1", "PoolNotFound")
        await world.has("s2", "10.0.0.1")


async def test_a_mistake_in_one_of_two_that_share_moves_neither_at_a_restart(world: World) -> None:
    annotations = {"metallb.io/allow-shared-ip": "web"}
    async with controller(world):
        for name, port in (("s1", 80), ("s2", 81)):
            spec = {"type": "LoadBalancer", "ports": [{"port": port, "protocol": "TCP"}]}
            meta = {"name": name, "namespace": "default", "annotations": annotations}
            await world.session.create(SERVICE, {"metadata": meta, "spec": spec})
            await world.has(name, "172.29.7.200")
        await world.patch("s1", {"metadata": {"annotations": {"metallb.io/loadBalancerIPs": "nonsense"}}})
        await world.waits("s1", "InvalidAddress")
    async with controller(world):
        await world.create("s3")
        await world.has("s3", "172.29.7.201")
        await world.patch("s1", {"metadata": {"annotations": {"metallb.io/loadBalancerIPs": None}}})
        await world.has("s1", "172.29.7.200")
        await world.has("s2", "172.29.7.200")


async def test_a_pool_says_what_is_used_and_why_it_is_not(world: World) -> None:
    async with controller(world, NO_POOLS), following(world.session, IP_ADDRESS_POOL, IPAddressPool) as pools:
        await create_pool(world, "p", "10.0.0.0/30")
        await create_pool(world, "q", "10.0.0.2-10.0.0.9")
        await world.create("s1")

        def shown() -> bool:
            p, q = pools.get("p", ""), pools.get("q", "")
            if p is None or q is None:
                return False
            counts = (p.status.assigned_ipv4, p.status.available_ipv4)
            return counts == (1, 3) and "overlap those of pool p" in q.status.message

        await pools.until(shown, "both are shown")


async def test_thirty_at_once_get_thirty_addresses(world: World) -> None:
    async with controller(world, NO_POOLS):
        await create_pool(world, "p", "10.0.0.1-10.0.0.30")
        names = [f"s{n}" for n in range(30)]
        await asyncio.gather(*(world.create(name) for name in names))
        await world.services.until(lambda: all(world.address(n) for n in names), "all are served")
        assert len({world.address(n) for n in names}) == 30


async def test_no_default_provider_leaves_services_without_a_class_alone(world: World) -> None:
    config = LoadBalancerConfig(POOL, default_provider="", first_retry=0.01, last_retry=0.05)
    async with controller(world, config):
        await world.create("other")
        await world.create("ours", loadBalancerClass="kubesvc.dev/pool")
        await world.has("ours", "172.29.7.200")
    assert world.address("other") == ""
    other = world.services.get("other")
    assert other is not None
    assert other.metadata.finalizers == []


async def test_a_class_of_nobody_is_named_where_nobody_else_is(world: World) -> None:
    async with controller(world, LoadBalancerConfig(POOL, alone=True)):
        await world.create("other", loadBalancerClass="example.com/other")
        await world.waits("other", "UnknownClass")
        events = await world.told("other", "SyncLoadBalancerFailed")
        assert "no load balancer here serves the loadBalancerClass 'example.com/other'" in events[0].message
        assert "a cloud's classes are those of `kubesvc up --cloud`" in events[0].message
        await world.delete("other")
