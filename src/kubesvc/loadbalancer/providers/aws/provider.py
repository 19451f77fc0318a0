"""Network Load Balancers of AWS for Services of type LoadBalancer.

observe   Service and nodes from the controller, slices from an informer, what is in AWS from the inventory
decide    wishes.wish_of, wanted.wanted_of, applied.steps: pure
apply     call by call; each that succeeds is remembered, any that fails makes the inventory look again
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from kubesvc.api.core import LoadBalancerIngress, LoadBalancerStatus, Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.nodes import Node
from kubesvc.api.registry import ENDPOINT_SLICE
from kubesvc.client.informer import Informer, Key
from kubesvc.client.session import Session
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.provider import Change, ProviderFailed
from kubesvc.loadbalancer.providers.aws import failures, names
from kubesvc.loadbalancer.providers.aws.annotations import NLB_CLASS
from kubesvc.loadbalancer.providers.aws.applied import as_listed, steps
from kubesvc.loadbalancer.providers.aws.client import AwsError, Client
from kubesvc.loadbalancer.providers.aws.firewall import Firewall
from kubesvc.loadbalancer.providers.aws.inventory import Inventory
from kubesvc.loadbalancer.providers.aws.model import Found, Wanted
from kubesvc.loadbalancer.providers.aws.plan import Call, deletion
from kubesvc.loadbalancer.providers.aws.surroundings import Surroundings
from kubesvc.loadbalancer.providers.aws.wanted import World, instance_of, node_rules, nodes_behind, wanted_of
from kubesvc.loadbalancer.providers.aws.wishes import Wish, remarks, wish_of

ROUNDS = 10
"""More than any change needs: a plan that never ends is a mistake, and must not become a bill."""


class AwsProvider:
    """Provider of Network Load Balancers. Raises BadProvider when it can't begin."""

    name = "aws"

    def __init__(self, session: Session, config: LoadBalancerConfig) -> None:
        self._cluster = config.cluster_name
        self._config = config.aws
        self.client = Client(config.aws)
        self._inventory = Inventory(self.client, self._cluster)
        self._firewall = Firewall(self.client, self._cluster)
        self._around = Surroundings(self.client, config.aws.vpc_id, self._cluster, time.monotonic)
        self._slices = Informer[EndpointSlice](session, ENDPOINT_SLICE, EndpointSlice)
        self._slices.index("service", lambda one: [(one.namespace, one.service_name)])
        self._pods: set[Key] = set()  # services whose targets are pods
        self._changed: Callable[[Change | Key], None] = lambda _: None

    def owns(self, load_balancer_class: str) -> bool:
        return load_balancer_class == NLB_CLASS

    def remarks(self, service: Service) -> Sequence[str]:
        return remarks(service)

    async def run(self, changed: Callable[[Change | Key], None]) -> None:
        self._changed = changed
        self._slices.on_change(self._slice_changed)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._slices.run())
                group.create_task(self._look_again())
        finally:
            self.client.close()

    async def _look_again(self) -> None:
        """What people changed behind our back is put right now and then."""
        while True:
            await asyncio.sleep(self._config.resync)
            self._inventory.doubt_all()
            self._firewall.doubt()
            self._around.forget()
            self._changed(Change.RULES)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for one in (old, new):
            if one is not None and (key := (one.namespace, one.service_name)) in self._pods:
                self._changed(key)

    async def adopt(self, services: Iterable[Service]) -> None:
        await self._slices.synced.wait()
        self._firewall.expect(map(names.service_tag, services))

    async def ensure(self, service: Service, nodes: Sequence[Node]) -> LoadBalancerStatus:
        wish = wish_of(service)
        tag = names.service_tag(service)
        (self._pods.add if wish.target_type == "ip" else self._pods.discard)(service.key)
        found = await self._inventory.of(tag)
        wanted = await self._wanted(service, nodes, wish, found)
        if await self._inventory.need_inside(tag, found, lambda: as_listed(wanted, found)):
            await self._apply(tag, lambda: steps(wanted, found))
        if not wish.carries_backend:
            await self._firewall.release(tag)
        assert found.balancer is not None
        # A host name has no ipMode in the API: nobody short-cuts it, so TLS and PROXY protocol always happen.
        return LoadBalancerStatus(ingress=[LoadBalancerIngress(hostname=found.balancer.hostname)])

    async def _wanted(self, service: Service, nodes: Sequence[Node], wish: Wish, found: Found) -> Wanted:
        tag, shown = names.service_tag(service), service.status.load_balancer
        vpc = await self._around.vpc([i for i in map(instance_of, nodes) if i])
        groups = await self._around.security_groups(wish.security_groups, vpc, shown)
        slices = self._slices.by_index("service", service.key) if wish.target_type == "ip" else ()
        subnets = await self._around.subnets(vpc)

        def world(*more: str) -> World:
            return World(self._cluster, vpc, subnets, tuple(nodes), tuple(slices), (*groups, *more))

        if not wish.carries_backend:
            return wanted_of(service, wish, world(), found.balancer)
        wanted_of(service, wish, world("sg-backend"), found.balancer)  # refused before anything is made
        wanted = wanted_of(service, wish, world(await self._firewall.group(tag, vpc)), found.balancer)
        behind = await self._around.node_groups(nodes_behind(wish, world()))
        rules = node_rules(wish, wanted, self._config.node_ports)
        await self._firewall.need(tag, frozenset((group, *rule) for group in behind for rule in rules))
        return wanted

    async def _apply(self, tag: str, plan: Callable[[], list[Call]]) -> None:
        for _ in range(ROUNDS):
            calls = plan()
            if not calls:
                return
            try:
                for call in calls:
                    call.then(await self._call(call))
            except BaseException:
                self._inventory.doubt(tag)
                self._around.forget()
                raise
        raise ProviderFailed(f"Service {tag}: what is wanted isn't reached in {ROUNDS} rounds: a mistake of ours")

    async def _call(self, call: Call) -> object:
        try:
            return await self.client.call(call.api, call.operation, **call.arguments)
        except AwsError as error:
            if call.operation.startswith(("delete_", "revoke_", "deregister_")) and error.code in failures.GONE:
                return {}
            raise

    async def delete(self, service: Service) -> None:
        tag = names.service_tag(service)
        self._pods.discard(service.key)
        found = await self._inventory.of(tag)
        await self._apply(tag, lambda: deletion(found))
        self._inventory.forget(tag)
        await self._firewall.release(tag)
