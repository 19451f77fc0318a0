"""The load balancer alone, against any Kubernetes API: `kubesvc loadbalancer` and `kubesvc loadbalancer announce`.

What our own API server has built in must be installed in another: the kinds of kubesvc.dev. Without them nothing is
begun, and the message says what to apply.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

from msgspec.structs import replace

from kubesvc.api.balancing import IPAddressPool
from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.nodes import Node
from kubesvc.api.registry import BGP_ADVERTISEMENT, BGP_PEER, IP_ADDRESS_POOL, L2_ADVERTISEMENT, NODE
from kubesvc.client import kubeconfig
from kubesvc.client.session import Session, Unreachable
from kubesvc.kernel.links import Links
from kubesvc.loadbalancer import main
from kubesvc.loadbalancer.announce import main as announce
from kubesvc.loadbalancer.config import AnnounceConfig, LoadBalancerConfig
from kubesvc.loadbalancer.leader import LeaderConfig, lead

log = logging.getLogger(__name__)

PATIENCE = 1.0  # seconds between two tries while the API server isn't there


class StandaloneError(Exception):
    """It can't begin; the message says what to do."""


def serve(
    path: Path, config: LoadBalancerConfig, providers: tuple[str, ...], leader: LeaderConfig | None = None
) -> None:
    """Be the controller until SIGTERM or SIGINT; with `leader`, for as long as it is the one that leads. Raises
    StandaloneError, BadPool, KubeconfigError, LeadershipLost."""

    async def control(session: Session) -> None:
        async def work() -> None:
            await main.run(session, config, providers)

        await (work() if leader is None else lead(session, leader, work))

    _until_told(path, control, kinds="pool" in providers)


def serve_announcer(path: Path, config: AnnounceConfig) -> None:
    """Be a node's announcer until SIGTERM or SIGINT. Raises StandaloneError, BadPool, KubeconfigError."""
    _until_told(path, lambda session: _announce(session, config))


def _until_told(path: Path, work: Callable[[Session], Awaitable[None]], *, kinds: bool = True) -> None:
    """`kinds`: it needs those of kubesvc.dev, which a cloud's provider doesn't."""

    async def live() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        session = kubeconfig.load(path)
        try:
            if kinds:
                await require_kinds(session)
            await work(session)
        except asyncio.CancelledError:
            pass
        finally:
            await session.close()

    asyncio.run(live())


async def _announce(session: Session, config: AnnounceConfig) -> None:
    """On the interfaces given; else on the one that has the Node's address."""
    if not config.interfaces:
        config = replace(config, interfaces=(await _interface(session, config.node_name),))
        log.info("node %s: announcing on %s", config.node_name, config.interfaces[0])
    await announce.run(session, config)


async def _interface(session: Session, node_name: str) -> str:
    try:
        node = await session.read(NODE, Node, "", node_name)
    except NotFound as error:
        raise StandaloneError(f"there is no Node {node_name!r}: name this one with --node-name") from error
    with Links() as links:
        found = next(filter(None, (links.holder(ip_address(text)) for text in node.internal_ips)), None)
    if found is None:
        listed = ", ".join(node.internal_ips) or "none"
        raise StandaloneError(
            f"no interface here has an address of Node {node_name} ({listed}): name one with --interface"
        )
    return found


async def require_kinds(session: Session) -> None:
    """Wait for the API server. Raises StandaloneError when it lacks a kind of ours, or won't show it to us."""
    for kind in (IP_ADDRESS_POOL, L2_ADVERTISEMENT, BGP_ADVERTISEMENT, BGP_PEER):
        while True:
            try:
                await session.list(kind, IPAddressPool)
                break
            except NotFound as error:
                raise StandaloneError(
                    f"this cluster has no {kind.kind} objects: kubectl apply -f examples/loadbalancer/crds.yaml"
                ) from error
            except ApiError as error:
                raise StandaloneError(
                    f"{kind.resource} can't be listed: {error}; examples/loadbalancer/kubesvc.yaml has the roles"
                ) from error
            except Unreachable:
                await asyncio.sleep(PATIENCE)
