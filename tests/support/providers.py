"""Every provider with the world it acts on, for the contract suite: an entry in PROVIDERS joins a new one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from kubesvc.client.session import Session
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.provider import Provider
from kubesvc.loadbalancer.providers.aws.annotations import NLB_CLASS
from kubesvc.loadbalancer.providers.aws.provider import AwsProvider
from kubesvc.loadbalancer.providers.azure.provider import AzureProvider
from kubesvc.loadbalancer.providers.pool import PoolProvider
from support import azure as azures
from support.aws import cloud


@dataclass(frozen=True)
class Case:
    """`make` gives a provider as a fresh process would; what it made before is still there."""

    load_balancer_class: str
    make: Callable[[Session], Provider]


@asynccontextmanager
async def pool() -> AsyncIterator[Case]:
    config = LoadBalancerConfig(((ip_address("192.0.2.1"), ip_address("192.0.2.4")),))  # type: ignore[arg-type]
    yield Case(config.load_balancer_class, lambda session: PoolProvider(session, config))


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


PROVIDERS: dict[str, Callable[[], AbstractAsyncContextManager[Case]]] = {"aws": aws, "azure": azure, "pool": pool}
