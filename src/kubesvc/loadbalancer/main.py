"""The load-balancer controller's entry: one controller over the providers there are."""

from __future__ import annotations

from kubesvc.client.session import Session
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.controller import Controller
from kubesvc.loadbalancer.providers.pool import PoolProvider


async def run(session: Session, config: LoadBalancerConfig) -> None:
    """Run until cancelled. Raises BadPool before anything else when the ranges can't be used."""
    await Controller(session, [PoolProvider(config)], config).run()
