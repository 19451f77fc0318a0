"""Every provider with the world it acts on, for the contract suite: an entry in PROVIDERS joins a new one."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from kubesvc.client.session import Session
from kubesvc.loadbalancer.config import GcpConfig, LoadBalancerConfig
from kubesvc.loadbalancer.provider import Provider
from kubesvc.loadbalancer.providers.aws.annotations import NLB_CLASS
from kubesvc.loadbalancer.providers.aws.provider import AwsProvider
from kubesvc.loadbalancer.providers.azure.provider import AzureProvider
from kubesvc.loadbalancer.providers.desk.provider import DeskProvider
from kubesvc.loadbalancer.providers.gcp.provider import GcpProvider
from kubesvc.loadbalancer.providers.gcp.wishes import EXTERNAL_CLASS
from kubesvc.loadbalancer.providers.pool import PoolProvider
from support import azure as azures
from support.aws import cloud
from support.gcp.server import gcp_server


@dataclass(frozen=True)
class Case:
    """`make` gives a provider as a fresh process would; what it made before is still there."""

    load_balancer_class: str
    make: Callable[[Session], Provider]


@asynccontextmanager
async def pool() -> AsyncIterator[Case]:
    config = LoadBalancerConfig(((ip_address("192.0.2.1"), ip_address("192.0.2.4")),))  # type: ignore[arg-type]
    yield Case(config.load_balancer_class, lambda session: PoolProvider(session, config))


def _desk(cloud: str, load_balancer_class: str) -> Callable[[], AbstractAsyncContextManager[Case]]:
    @asynccontextmanager
    async def desk() -> AsyncIterator[Case]:
        with tempfile.TemporaryDirectory() as directory:
            pools = ((ip_address("192.0.2.1"), ip_address("192.0.2.4")),)
            config = LoadBalancerConfig(pools, cloud=cloud)  # type: ignore[arg-type]
            yield Case(load_balancer_class, lambda _: DeskProvider(config, Path(directory)))

    return desk


@asynccontextmanager
async def gcp() -> AsyncIterator[Case]:
    async with gcp_server() as server:
        config = GcpConfig("shop", "europe-west1", endpoint=server.url)
        yield Case(EXTERNAL_CLASS, lambda _session: GcpProvider(config, "test"))


@asynccontextmanager
async def aws() -> AsyncIterator[Case]:
    with cloud() as made:
        config = LoadBalancerConfig(default_provider="aws", cluster_name="test", aws=made.config)
        yield Case(NLB_CLASS, lambda session: AwsProvider(session, config))


@asynccontextmanager
async def azure() -> AsyncIterator[Case]:
    async with azures.azure() as (_, config):
        yield Case(
            config.load_balancer_class, lambda session: AzureProvider(config, "kubernetes", azures.client(config))
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
