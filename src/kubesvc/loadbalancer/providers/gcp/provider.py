"""Provider `gcp`: a passthrough network load balancer of Google Cloud for each Service.

    observe   the inventory: one list a kind for all Services
    decide    plan: the next step
    apply     that step, by Google's library; then look again

What the Services of a cluster share (instance groups, the nodes' health check) is changed under one lock, and removed
when the last that uses it is gone. After a failure nothing that was known is trusted: operations that still run are
waited for, and all is listed anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from kubesvc.api.core import LoadBalancerIngress, LoadBalancerStatus, Service
from kubesvc.api.nodes import Node
from kubesvc.loadbalancer.config import GcpConfig
from kubesvc.loadbalancer.provider import Change, ProviderFailed, Refused
from kubesvc.loadbalancer.providers.gcp import plan, wishes
from kubesvc.loadbalancer.providers.gcp.compute import CloudError, Compute, Doubt
from kubesvc.loadbalancer.providers.gcp.instances import instances_of
from kubesvc.loadbalancer.providers.gcp.inventory import Inventory
from kubesvc.loadbalancer.providers.gcp.plan import Step, Verb
from kubesvc.loadbalancer.providers.gcp.resources import Found, Kind, Site
from kubesvc.loadbalancer.providers.gcp.wishes import EXTERNAL_CLASS, INTERNAL_CLASS, Refusal, wish_of

log = logging.getLogger(__name__)

MAX_STEPS = 60  # for one Service: more means that somebody else undoes them


class GcpProvider:
    """Raises BadProvider when there are no credentials."""

    name = "gcp"

    def __init__(self, config: GcpConfig, cluster_name: str) -> None:
        self._config = config
        self._site = Site(
            config.project, config.region, cluster_name, config.network, config.subnetwork, config.node_tags
        )
        self._compute = Compute(config)
        self._inventory = Inventory(self._compute, self._site, config.remembered, time.monotonic)
        self._shared = asyncio.Lock()
        self._users: dict[str, bool] = {}  # uid -> whether it needs the nodes' health check
        self._zones: frozenset[str] = frozenset()
        self._missing: dict[tuple[str, str], float] = {}  # zone and name of a node's VM -> when it wasn't there
        self._sure: set[str] = set()  # uids of which nothing is under way that we don't know of

    def owns(self, load_balancer_class: str) -> bool:
        return load_balancer_class in (EXTERNAL_CLASS, INTERNAL_CLASS)

    def remarks(self, service: Service) -> Sequence[str]:
        return wishes.remarks(service)

    async def run(self, changed: Callable[[Change], None]) -> None:
        """What others undo is found by looking at every Service now and then."""
        try:
            while True:
                await asyncio.sleep(self._config.resync)
                changed(Change.RULES)
        finally:
            self._compute.close()

    async def adopt(self, services: Iterable[Service]) -> None:
        """Names say whose an object is; only what the Services share must be known before one goes."""
        for service in services:
            self._users[service.metadata.uid] = service.spec.external_traffic_policy != "Local"

    async def ensure(self, service: Service, nodes: Sequence[Node]) -> LoadBalancerStatus:
        uid = service.metadata.uid
        wish = wish_of(service)
        placed = instances_of(nodes, self._config.project, self._config.region)
        had = next((ingress.ip for ingress in service.status.load_balancer.ingress), "")
        try:
            if isinstance(wish, Refusal):
                raise self._refused(wish, service, await self._inventory.look())
            if isinstance(placed, Refusal):
                raise self._refused(placed, service, await self._inventory.look())
            self._users[uid] = not wish.health_port
            self._zones = frozenset(placed)
            async with self._shared:
                await self._apply(
                    lambda f: plan.shared_steps(self._site, f, self._present(placed), check=not wish.health_port)
                )

            def steps(found: Found) -> Iterator[Step]:
                nonlocal had
                address = plan.address_of(self._site, service, wish, found, had)
                if isinstance(address, Refusal):
                    raise self._refused(address, service, found)
                had = address.ip or had
                return plan.ensure_steps(self._site, service, wish, address, found, placed)

            found = await self._apply(steps)
            await self._tidy()
        except CloudError as error:
            raise self._failed(uid, error) from error
        except asyncio.CancelledError:
            self._sure.discard(uid)
            raise
        self._sure.add(uid)
        return _status(plan.ips_of(self._site, service, found))

    async def delete(self, service: Service) -> None:
        uid, wanted = service.metadata.uid, service.spec.load_balancer_class
        if wanted and not self.owns(wanted):
            return  # another provider's; without a class it may have been ours
        try:
            if uid not in self._sure:
                await self._compute.settle(self._site.prefix)
                self._inventory.forget()
            self._users.pop(uid, None)
            await self._apply(lambda found: plan.delete_steps(self._site, service, found))
            await self._tidy()
        except CloudError as error:
            raise self._failed(uid, error) from error
        self._sure.discard(uid)

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _apply(self, steps: Callable[[Found], Iterator[Step]]) -> Found:
        """Do the first of the steps until there is none. Raises CloudError."""
        last = ""
        for _ in range(MAX_STEPS):
            found = await self._inventory.look()
            step = next(steps(found), None)
            if step is None:
                return found
            await self._do(step, found)
            last = f"{step.verb} {step.kind} {step.name}"
        raise CloudError(last, 0, "", f"not as wanted after {MAX_STEPS} steps: does another controller change it?")

    async def _do(self, step: Step, found: Found) -> None:
        """And know the result. What a step met that wasn't expected is looked at, and the next step planned by it."""
        try:
            if step.verb in (Verb.ADD_INSTANCES, Verb.REMOVE_INSTANCES):
                await self._enrol(step, found)
                return
            await self._compute.do(step)
        except CloudError as error:
            gone = error.status == 404 and step.verb is not Verb.INSERT
            there = error.status == 409 and step.verb is Verb.INSERT
            if isinstance(error, Doubt) or not (gone or there or error.status == 412):
                raise
            log.info("%s: looked at again", error)
        deleted = step.verb is Verb.DELETE
        self._inventory.put(step.kind, step.name, None if deleted else await self._compute.get(step.kind, step.name))
        if step.kind is Kind.GROUP and not deleted:
            self._inventory.put_members(step.name, await self._compute.members(step.name))

    async def _enrol(self, step: Step, found: Found) -> None:
        """A node whose VM is gone must not keep the others out: refused together, they are tried one by one."""
        names: list[str] = step.body["instances"]
        try:
            await self._compute.do(step)
        except CloudError as error:
            if isinstance(error, Doubt) or error.status not in (400, 404):
                raise
            before = await self._compute.members(step.name)
            for name in names:
                if (name in before) is (step.verb is Verb.REMOVE_INSTANCES):
                    try:
                        await self._compute.do(Step(step.verb, step.kind, step.name, {"instances": [name]}))
                    except CloudError as alone:
                        if isinstance(alone, Doubt) or alone.status not in (400, 404):
                            raise
                        log.warning("VM %s of a node: %s", name, alone)
                        self._missing[(step.name.partition("/")[0], name)] = time.monotonic()
            self._inventory.forget()
            return
        before = found.members.get(step.name, frozenset())
        after = before | set(names) if step.verb is Verb.ADD_INSTANCES else before - set(names)
        self._inventory.put_members(step.name, after)

    async def _tidy(self) -> None:
        async with self._shared:
            skipped: set[tuple[Kind, str]] = set()
            while True:
                found = await self._inventory.look()
                check = any(self._users.values())
                steps = plan.tidy_steps(self._site, found, self._zones, used=bool(self._users), check=check)
                step = next((s for s in steps if (s.kind, s.name) not in skipped), None)
                if step is None:
                    return
                try:
                    await self._do(step, found)
                except CloudError as error:
                    if not error.in_use:
                        raise
                    skipped.add((step.kind, step.name))
                    self._inventory.forget()

    def _present(self, placed: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
        """Without the VMs that the service said it doesn't have, not long ago."""
        since = time.monotonic() - self._config.resync
        self._missing = {vm: told for vm, told in self._missing.items() if told > since}
        return {zone: frozenset(n for n in names if (zone, n) not in self._missing) for zone, names in placed.items()}

    def _refused(self, refusal: Refusal, service: Service, found: Found) -> Refused:
        return Refused(refusal.reason, refusal.message, _status(plan.ips_of(self._site, service, found)))

    def _failed(self, uid: str, error: CloudError) -> ProviderFailed:
        self._sure.discard(uid)
        self._inventory.forget()
        denied = error.status == 401 or (error.status == 403 and "uota" not in error.reason)
        remedy = "; docs/guide/gcp.md has the role that the controller needs" if denied else ""
        return ProviderFailed(f"Google Cloud: {error}{remedy}")


def _status(ips: Iterable[str]) -> LoadBalancerStatus:
    # VIP: packets reach the nodes with this destination, so a proxy may serve it in the cluster as well.
    return LoadBalancerStatus(ingress=[LoadBalancerIngress(ip=ip, ip_mode="VIP") for ip in ips])
