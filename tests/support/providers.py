"""Every provider with the world it acts on, for the contract suite: an entry in PROVIDERS joins a new one.

What a world has is looked at past its provider, as the storms of `support.faults` do.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import msgspec

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.api.nodes import Node
from kubesvc.client.session import Session
from kubesvc.loadbalancer.config import GcpConfig, LoadBalancerConfig
from kubesvc.loadbalancer.provider import Provider
from kubesvc.loadbalancer.providers.aws.annotations import NLB_CLASS
from kubesvc.loadbalancer.providers.aws.provider import AwsProvider
from kubesvc.loadbalancer.providers.azure.provider import AzureProvider
from kubesvc.loadbalancer.providers.desk.ledger import Ledger
from kubesvc.loadbalancer.providers.desk.provider import DeskProvider
from kubesvc.loadbalancer.providers.gcp.provider import GcpProvider
from kubesvc.loadbalancer.providers.gcp.wishes import EXTERNAL_CLASS
from kubesvc.loadbalancer.providers.pool import PoolProvider
from support import azure as azures
from support import azure_faults
from support.aws import cloud
from support.aws_faults import Look
from support.gcp import users
from support.gcp.server import gcp_server
from support.gcp.storm import problems

Wrong = Callable[[Service, Sequence[Node], LoadBalancerStatus], Awaitable[list[str]]]
POOL = ((ip_address("192.0.2.1"), ip_address("192.0.2.4")),)


@dataclass(frozen=True)
class Case:
    """`make` gives a provider as a fresh process would; what it made before is still there. `wrong` says what isn't as
    a Service asks, `left` everything that load balancers are made of."""

    load_balancer_class: str
    make: Callable[[Session], Provider]
    nodes: Sequence[Node]
    wrong: Wrong
    left: Callable[[], Awaitable[list[str]]]


@asynccontextmanager
async def pool() -> AsyncIterator[Case]:
    config = LoadBalancerConfig(POOL)  # type: ignore[arg-type]

    async def wrong(_: Service, __: Sequence[Node], status: LoadBalancerStatus) -> list[str]:
        (ingress,) = status.ingress
        (within,) = POOL
        return [] if within[0] <= ip_address(ingress.ip) <= within[1] else [f"{ingress.ip} isn't of the pool"]  # type: ignore[operator]

    async def left() -> list[str]:
        return []  # an address is held by its Service's status alone

    yield Case(
        config.load_balancer_class,
        lambda session: PoolProvider(session, config),
        azure_faults.NODES,
        wrong,
        left,
    )


def _desk(cloud: str, load_balancer_class: str) -> Callable[[], AbstractAsyncContextManager[Case]]:
    @asynccontextmanager
    async def desk() -> AsyncIterator[Case]:
        with tempfile.TemporaryDirectory() as directory:
            config = LoadBalancerConfig(POOL, cloud=cloud)  # type: ignore[arg-type]
            ledger = Ledger(Path(directory))

            async def wrong(service: Service, nodes: Sequence[Node], status: LoadBalancerStatus) -> list[str]:
                (found,) = [one for one in ledger.read() if one.uid == service.metadata.uid]
                seen = (
                    [(one.protocol, one.port, one.node_port) for one in found.listeners],
                    list(found.sources),
                    [one.address for one in found.targets],
                    found.hostname or found.address,
                )
                (ingress,) = status.ingress
                wanted = (
                    [(one.protocol, one.port, one.node_port) for one in service.spec.ports],
                    service.spec.load_balancer_source_ranges,
                    [address for node in nodes for address in node.internal_ips],
                    ingress.hostname or ingress.ip,
                )
                return [] if seen == wanted else [f"{seen}, not {wanted}"]

            async def left() -> list[str]:
                return [one.service for one in ledger.read()]

            yield Case(
                load_balancer_class,
                lambda _: DeskProvider(config, Path(directory)),
                azure_faults.NODES,
                wrong,
                left,
            )

    return desk


@asynccontextmanager
async def gcp() -> AsyncIterator[Case]:
    async with gcp_server() as server:
        config = GcpConfig("shop", "europe-west1", endpoint=server.url)

        async def wrong(service: Service, _: Sequence[Node], status: LoadBalancerStatus) -> list[str]:
            return problems(server.cloud, service, status)

        async def left() -> list[str]:
            await server.cloud.quiet()
            return server.cloud.leftovers()

        yield Case(EXTERNAL_CLASS, lambda _session: GcpProvider(config, "test"), users.nodes(), wrong, left)


@asynccontextmanager
async def aws() -> AsyncIterator[Case]:
    with cloud() as made:
        config = LoadBalancerConfig(default_provider="aws", cluster_name="test", aws=made.config)

        async def left() -> list[str]:
            return made.leftovers()

        yield Case(NLB_CLASS, lambda session: AwsProvider(session, config), made.nodes, Look(made), left)


@asynccontextmanager
async def azure() -> AsyncIterator[Case]:
    async with azures.azure() as (service, config):

        async def wrong(served: Service, _: Sequence[Node], status: LoadBalancerStatus) -> list[str]:
            return azure_faults.shown(service, served, status)

        async def left() -> list[str]:
            doors = [msgspec.json.encode(door).decode() for door in service.doors()]
            return [*service.names("loadBalancers"), *service.names("publicIPAddresses"), *doors]

        yield Case(
            config.load_balancer_class,
            lambda session: AzureProvider(config, "kubernetes", azures.client(config)),
            azure_faults.NODES,
            wrong,
            left,
        )


PROVIDERS: dict[str, Callable[[], AbstractAsyncContextManager[Case]]] = {
    "aws": aws,
    "azure": azure,
    "gcp": gcp,
    "pool": pool,
    "desk-aws": _desk("aws", "service.k8s.aws/nlb"),
    "desk-gcp": _desk("gcp", "networking.gke.io/l4-regional-external"),
    "desk-azure": _desk("azure", "kubesvc.dev/desk"),
}
