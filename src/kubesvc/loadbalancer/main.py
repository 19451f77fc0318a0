"""The load-balancer controller's entry: one controller over the providers there are."""

from __future__ import annotations

from kubesvc.client.session import Session
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.controller import Controller
from kubesvc.loadbalancer.provider import BadProvider, Provider
from kubesvc.loadbalancer.providers.desk.provider import DeskProvider
from kubesvc.loadbalancer.providers.pool import PoolProvider


def _pool(session: Session, config: LoadBalancerConfig) -> Provider:
    return PoolProvider(session, config)


def _desk(session: Session, config: LoadBalancerConfig) -> Provider:
    return DeskProvider(config, config.desk)


def _gcp(_session: Session, config: LoadBalancerConfig) -> Provider:
    if config.gcp is None:
        raise BadProvider("provider gcp: which project and region? Give --gcp-project and --gcp-region")
    try:
        from kubesvc.loadbalancer.providers.gcp.provider import GcpProvider
    except ModuleNotFoundError as error:
        raise BadProvider(f"provider gcp: {error.name} isn't installed: pip install 'kubesvc[gcp]'") from error
    return GcpProvider(config.gcp, config.cluster_name)


def _aws(session: Session, config: LoadBalancerConfig) -> Provider:
    from kubesvc.loadbalancer.providers.aws.provider import AwsProvider

    return AwsProvider(session, config)


def _azure(session: Session, config: LoadBalancerConfig) -> Provider:
    if config.azure is None:
        raise BadProvider("provider azure isn't configured: give the --azure-… options")
    from kubesvc.loadbalancer.providers.azure.client import Client
    from kubesvc.loadbalancer.providers.azure.provider import AzureProvider

    return AzureProvider(config.azure, config.cluster_name, Client(config.azure))


PROVIDERS = {
    "aws": _aws,
    "azure": _azure,
    "desk": _desk,
    "gcp": _gcp,
    "pool": _pool,
}  # a cloud's imports its SDK, an extra of the package, only here


async def run(session: Session, config: LoadBalancerConfig, providers: tuple[str, ...] = ("pool",)) -> None:
    """Run until cancelled. Raises BadPool, BadProvider before anything else."""
    await Controller(session, [PROVIDERS[name](session, config) for name in providers], config).run()
