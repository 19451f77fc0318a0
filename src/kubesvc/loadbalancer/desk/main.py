"""The balancers of a desk's cloud, live: a process in a network namespace of their own, beside the nodes.

    ledger (files) ─► addresses, routes ─┐
    health checks  ─► who is healthy ────┴─► rules, in one transaction;  forwarders

What the kernel has stays when the process dies, and traffic flows on; a new process makes it what it should be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import msgspec

from kubesvc.kernel.conntrack import Conntrack
from kubesvc.kernel.inotify import IN_MOVED_TO, Inotify
from kubesvc.kernel.links import Links
from kubesvc.kernel.nft.connection import Connection
from kubesvc.kernel.nft.objects import Table
from kubesvc.kernel.nft.transaction import AddChain, AddTable, DeleteTable, FillChain, Transaction
from kubesvc.kernel.rtnetlink import RT_TABLE_LOCAL
from kubesvc.loadbalancer.desk.forwarders import Forwarders
from kubesvc.loadbalancer.desk.health import Health
from kubesvc.loadbalancer.desk.rules import TABLE, chains, mark
from kubesvc.loadbalancer.providers.desk.ledger import Ledger
from kubesvc.loadbalancer.providers.desk.model import Balancer, Listener, Target

log = logging.getLogger(__name__)

IN_DELETE = 0x200  # linux/inotify.h
TO_NODES, LOCAL = 10, 100  # priorities of `ip rule`
UDP = 17


class CloudConfig(msgspec.Struct, frozen=True):
    """`networks` are inside, but for `host`, this machine, which plays the internet."""

    directory: Path
    address: IPv4Address
    networks: tuple[IPv4Network, ...]
    host: IPv4Address
    certificate: Path = Path("cloud.crt")
    speed: float = 1.0
    interface: str = "eth0"


async def run(config: CloudConfig) -> None:
    """Until cancelled, in the balancers' namespace."""
    config.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    watch = Inotify()
    watch.add(config.directory, IN_MOVED_TO | IN_DELETE)
    cloud = _Cloud(config)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(cloud.follow())
            while True:
                cloud.touch()
                await watch.read()
    finally:
        cloud.close()
        watch.close()


class _Cloud:
    def __init__(self, config: CloudConfig) -> None:
        self._config = config
        self._ledger = Ledger(config.directory)
        self._balancers: list[Balancer] = []
        self._touched = asyncio.Event()
        self._health = Health(config.speed, self._touched.set)
        self._forwarders = Forwarders(self._choose, config.certificate)
        self._links = Links()
        self._nft = Connection()
        self._conntrack = Conntrack()
        self._udp: dict[str, set[str]] = {}  # balancer's address -> nodes that its UDP may go to
        # After the nodes' rules: a packet with a node's mark is routed before its address is taken for ours.
        self._links.add_rule(LOCAL, RT_TABLE_LOCAL)
        self._links.delete_rule(0)

    def touch(self) -> None:
        self._touched.set()

    def close(self) -> None:
        self._health.close()
        self._forwarders.keep(())
        for part in (self._links, self._nft, self._conntrack):
            part.close()

    async def follow(self) -> None:
        while True:
            await self._touched.wait()
            self._touched.clear()
            self._balancers = self._ledger.read()
            self._health.watch(
                (target.address, listener.check)
                for balancer in self._balancers
                for listener in balancer.listeners
                for target in balancer.targets
                if listener.check is not None
            )
            self._routes()
            self._rules()
            self._forwarders.keep(self._balancers)
            self._forget_flows()

    def _choose(self, balancer: Balancer, listener: Listener) -> Sequence[Target]:
        healthy = [t for t in balancer.targets if self._health.is_healthy(t.address, listener.check)]
        return healthy or (balancer.targets if balancer.fail_open else [])

    def _routes(self) -> None:
        """Each balancer's address is ours; each node has a table that leads to it, and its pods are behind it."""
        config, links = self._config, self._links
        wanted = {IPv4Address(balancer.address) for balancer in self._balancers}
        has = {a for a in links.addresses() if isinstance(a, IPv4Address) and not a.is_loopback} - {config.address}
        for address in has - wanted:
            links.delete_address(config.interface, IPv4Interface((address, 32)))
        for address in wanted - has:
            links.add_address(config.interface, IPv4Interface((address, 32)))
        for target in {target for balancer in self._balancers for target in balancer.targets}:
            node, number = IPv4Address(target.address), mark(target.address)
            links.add_rule(TO_NODES, number, number)
            links.set_route(IPv4Network("0.0.0.0/0"), via=node, dev=config.interface, table=number)
            for network in target.networks:
                links.set_route(IPv4Network(network), via=node, dev=config.interface)

    def _rules(self) -> None:
        config = self._config
        transaction = Transaction()
        transaction.add(AddTable(Table(TABLE)))
        transaction.add(DeleteTable(TABLE))
        transaction.add(AddTable(Table(TABLE)))
        made = chains(self._balancers, self._choose, config.networks, str(config.host))
        for chain in made:
            transaction.add(AddChain(TABLE, chain))
        for chain in made:
            transaction.add(FillChain(TABLE, chain))
        self._nft.commit(transaction)

    def _forget_flows(self) -> None:
        """UDP clients that keep their port would stay with a node that is no longer chosen."""
        now = {
            b.address: {t.address for found in b.listeners if found.protocol == "UDP" for t in self._choose(b, found)}
            for b in self._balancers
        }
        gone = {IPv4Address(address).packed for address, nodes in self._udp.items() if nodes - now.get(address, set())}
        self._udp = now
        if gone:
            try:
                self._conntrack.delete(f for f in self._conntrack.flows(UDP) if f.destination in gone)
            except OSError as error:
                log.warning("UDP flows can't be forgotten: %s", error)
