"""The load-balancer controller's entry: one controller over the providers there are."""

from __future__ import annotations

from kubesvc.client.session import Session
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.controller import Controller
from kubesvc.loadbalancer.providers.pool import PoolProvider

PROVIDERS = {PoolProvider.name: PoolProvider}  # name -> what makes it of a session and a configuration


async def run(session: Session, config: LoadBalancerConfig, providers: tuple[str, ...] = (PoolProvider.name,)) -> None:
    """Run until cancelled. Raises BadPool before anything else when the configured ranges can't be used."""
    await Controller(session, [PROVIDERS[name](session, config) for name in providers], config).run()
