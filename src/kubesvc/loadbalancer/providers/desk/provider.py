"""The provider of a desk's cloud: it orders balancers by writing them down, and loadbalancer/desk reads that.

A balancer's file is the cloud's own memory, named for the Service's uid: a restart finds it there, and a `kubesvc down`
keeps it with the box's objects, so that addresses and host names stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.api.nodes import Node
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.provider import Change, ProviderFailed, Refused
from kubesvc.loadbalancer.providers.desk import plan, vocabulary
from kubesvc.loadbalancer.providers.desk.ledger import Ledger
from kubesvc.loadbalancer.providers.desk.model import Balancer
from kubesvc.loadbalancer.providers.desk.wishes import BadWish


class DeskProvider:
    """Provider of balancers with the manners of `config.cloud`. Addresses come from `config.pools`."""

    name = "desk"

    def __init__(self, config: LoadBalancerConfig, directory: Path) -> None:
        self._cloud = config.cloud
        self._pools = config.pools
        self._ledger = Ledger(directory)
        self._changed: Callable[[Change], None] = lambda _: None

    def owns(self, load_balancer_class: str) -> bool:
        return load_balancer_class in (plan.CLASS, *plan.CLASSES[self._cloud])

    def remarks(self, service: Service) -> Sequence[str]:
        return tuple(vocabulary.remarks(self._cloud, service.metadata.annotations))

    async def run(self, changed: Callable[[Change], None]) -> None:
        self._changed = changed

    async def adopt(self, services: Iterable[Service]) -> None:
        """What is written down is what there is; nothing else is known of a Service that isn't any more."""
        known = {service.metadata.uid for service in services}
        for found in self._ledger.read():
            if found.uid not in known:
                self._write(lambda uid=found.uid: self._ledger.remove(uid))  # type: ignore[misc]

    async def ensure(self, service: Service, nodes: Sequence[Node]) -> LoadBalancerStatus:
        there = {found.uid: found for found in self._ledger.read()}
        before = there.pop(service.metadata.uid, None)
        has = plan.status(before) if before else LoadBalancerStatus()
        if service.spec.allocate_load_balancer_node_ports is False and self._cloud == "aws":
            message = "instance targets need node ports: leave allocateLoadBalancerNodePorts out"
            raise Refused("NoNodePorts", message, has)
        try:
            address = self._address(service, before, there.values(), has)
            wanted = plan.balancer(self._cloud, service, nodes, address)
        except BadWish as error:
            raise Refused("InvalidAnnotation", str(error), has) from error
        if wanted != before:
            self._write(lambda: self._ledger.write(wanted))
            if before is not None and before.address != wanted.address:
                self._changed(Change.CAPACITY)
        return plan.status(wanted)

    async def delete(self, service: Service) -> None:
        gone: list[bool] = []
        self._write(lambda: gone.append(self._ledger.remove(service.metadata.uid)))
        if any(gone):
            self._changed(Change.CAPACITY)

    def _address(
        self, service: Service, before: Balancer | None, others: Iterable[Balancer], has: LoadBalancerStatus
    ) -> str:
        """The one it asks for, else its own, else the first that is free. Raises Refused."""
        taken = {found.address: found.service for found in others}
        asked = plan.wanted_address(self._cloud, service)
        if asked:
            try:
                inside = any(first <= IPv4Address(asked) <= last for first, last in self._pools)  # type: ignore[operator]
            except ValueError as error:
                raise BadWish(f"loadBalancerIP {asked!r}: {error}; expected an IPv4 address") from error
            if not inside:
                raise Refused("AddressOutsidePool", f"{asked} isn't an address of this cloud: {self._listed()}", has)
            if asked in taken:
                raise Refused("AddressInUse", f"{asked} is held by Service {taken[asked]}", has)
            return asked
        if before is not None:
            return before.address
        for first, last in self._pools:
            for number in range(int(first), int(last) + 1):
                if (free := str(IPv4Address(number))) not in taken:
                    return free
        raise Refused("PoolExhausted", f"every address of this cloud is in use: {self._listed()}", has)

    def _listed(self) -> str:
        return "it has " + ", ".join(f"{first}-{last}" for first, last in self._pools)

    def _write(self, change: Callable[[], object]) -> None:
        try:
            change()
        except (OSError, msgspec.MsgspecError) as error:
            raise ProviderFailed(f"the desk's cloud can't be told: {error}") from error
