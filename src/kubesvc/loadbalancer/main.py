"""The load-balancer controller's entry: one controller over the providers there are."""

from __future__ import annotations

from kubesvc.client.session import Session
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.controller import Controller
from kubesvc.loadbalancer.provider import Provider
from kubesvc.loadbalancer.providers.pool import PoolProvider


def _pool(session: Session, config: LoadBalancerConfig) -> Provider:
    return PoolProvider(session, config)


def _aws(session: Session, config: LoadBalancerConfig) -> Provider:
    from kubesvc.loadbalancer.providers.aws.provider import AwsProvider

    return AwsProvider(session, config)


PROVIDERS = {"pool": _pool, "aws": _aws}  # a cloud's is imported, and its SDK with it, only when it is chosen


async def run(session: Session, config: LoadBalancerConfig, providers: tuple[str, ...] = ("pool",)) -> None:
    """Run until cancelled. Raises BadPool, ProviderMissing before anything else."""
    await Controller(session, [PROVIDERS[name](session, config) for name in providers], config).run()
