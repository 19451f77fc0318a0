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
from kubesvc.loadbalancer.providers.aws.wishes import IP_PASSED_OVER
from kubesvc.loadbalancer.providers.desk import plan, vocabulary
from kubesvc.loadbalancer.providers.desk.ledger import Ledger
from kubesvc.loadbalancer.providers.desk.model import Balancer


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
        said = list(vocabulary.remarks(self._cloud, service.metadata.annotations))
        return [*said, IP_PASSED_OVER] if self._cloud == "aws" and service.spec.load_balancer_ip else said

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
        try:
            wanted = plan.balancer(
                self._cloud, service, nodes, lambda asked: self._address(asked, before, there.values(), has)
            )
        except Refused as refused:
            raise Refused(refused.reason, str(refused), has) from refused
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

    def _address(self, asked: str, before: Balancer | None, others: Iterable[Balancer], has: LoadBalancerStatus) -> str:
        """The one it asks for, else its own, else the first that is free. Raises Refused."""
        taken = {found.address: found.service for found in others}
        if asked:
            wanted = IPv4Address(asked)
            inside = any(first <= wanted <= last for first, last in self._pools)  # type: ignore[operator]
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
