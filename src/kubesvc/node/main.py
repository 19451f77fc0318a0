"""A node agent: registers the node, routes to its peers, runs the pods bound to it, serves logs and exec.

The process is inside the node's network namespace before `run` is called. Cancelling stops the agent alone: containers
go on, and the next agent adopts them. `teardown.teardown` ends everything.
"""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_network

import kubesvc
from kubesvc.api import registry
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.client.events import Recorder
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.kernel import sysctl
from kubesvc.kernel.links import Links
from kubesvc.node import diskusage, etc, health, lease, registration, renewal, rotation, routes
from kubesvc.node.agent import Agent
from kubesvc.node.cni.attachments import Attachments
from kubesvc.node.config import NodeConfig
from kubesvc.node.exits import Exits
from kubesvc.node.followed import Followed
from kubesvc.node.hostports import HostPorts
from kubesvc.node.images.puller import Puller
from kubesvc.node.images.store import Store
from kubesvc.node.images.wanted import Images
from kubesvc.node.ipam import AddressPools, Network
from kubesvc.node.machine import Machine
from kubesvc.node.runtime import Runtime
from kubesvc.node.server import NodeServer
from kubesvc.node.sources import Reader
from kubesvc.node.withdrawal import Withdrawal

log = logging.getLogger(__name__)

SETTLE = 0.3  # seconds: a pod's start comes first, its story after


async def run(session: Session, config: NodeConfig) -> None:
    """Runs until cancelled. Raises OSError when the node's address can't be served on."""
    found = registration.facts(config, f"v1.36.0+kubesvc-{kubesvc.__version__}")
    await _make_paths(session, config, found)
    nodes = Informer(session, registry.NODE, Node)
    pods = Informer(session, registry.POD, Pod, fields=f"spec.nodeName={config.node_name}")
    exits = Exits(config.paths.exits)
    exits.open()
    with Links() as links:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_serve(group, session, config, found, nodes, pods, exits, links))
        finally:
            exits.close()


async def _make_paths(session: Session, config: NodeConfig, found: registration.Facts) -> None:
    """Where pods live on disk. While it can't be, the node says so instead of being there."""
    while True:
        try:
            config.paths.make()
            return
        except OSError as error:
            problem = f"{error.filename or config.run_dir}: {error.strerror}"
        log.error("node %s can't run pods: %s", config.node_name, problem)
        told = health.conditions(health.Observed(problems=(problem,)))
        await registration.register(session, config, found, told)
        await asyncio.sleep(config.health_interval)


async def _serve(
    group: asyncio.TaskGroup,
    session: Session,
    config: NodeConfig,
    found: registration.Facts,
    nodes: Informer[Node],
    pods: Informer[Pod],
    exits: Exits,
    links: Links,
) -> None:
    group.create_task(nodes.run())
    group.create_task(pods.run())
    await registration.register(session, config, found, health.conditions(health.observe(config)))
    group.create_task(registration.heartbeat(session, config, found, nodes))
    group.create_task(lease.keep(session, config))
    if config.identity is not None:
        group.create_task(renewal.keep(session, config.node_name, config.identity))
    networks = await _pod_networks(nodes, config.node_name)
    group.create_task(routes.follow(nodes, links, config.node_name))
    events = Recorder(session, host=config.node_name, settle=SETTLE)
    group.create_task(events.run())
    store = Store(config.images or config.run_dir / "images")
    store.make()
    reader = Reader(session)
    machine = Machine(
        config,
        session,
        links,
        AddressPools(networks),
        Runtime(config),
        exits,
        events,
        reader,
        etc.parse_resolver(_text(config)),
        Withdrawal(session, nodes, config.withdrawal_wait),
        Images(store, Puller(store, config.image_network), config.docker_config, reader.secret),
        Followed(session),
        HostPorts(),
        Attachments(config.cni, networks) if config.cni is not None else None,
        registration.capacity(found),
    )
    if config.cni is not None:
        _pass_bridged()
    agent = Agent(machine, pods)
    group.create_task(NodeServer(config, agent).run())
    group.create_task(agent.run())
    group.create_task(rotation.keep(agent, config))
    group.create_task(diskusage.keep(agent, config))
    log.info("node %s: pods get addresses of %s", config.node_name, ", ".join(map(str, networks)))


def _pass_bridged() -> None:
    """A plugin's bridge passes packets from pod to pod: their connections are tracked, or answers of a Service's pod
    would reach a neighbour untranslated."""
    switches = [f"bridge/bridge-nf-call-{what}" for what in ("iptables", "ip6tables")]
    done = [sysctl.ensure(switch, "1") for switch in switches]
    if not all(done):
        log.warning("the kernel module br_netfilter is missing: pods on one bridge can't reach each other by Services")


def _text(config: NodeConfig) -> str:
    try:
        return config.resolv_conf.read_text()
    except OSError:
        return ""


async def _pod_networks(nodes: Informer[Node], name: str) -> list[Network]:
    """Wait until the control plane has given the node its pod CIDRs."""
    loop = asyncio.get_running_loop()
    given: asyncio.Future[list[Network]] = loop.create_future()

    def look(_old: Node | None, node: Node | None) -> None:
        if node is None or node.name != name or given.done():
            return
        texts = node.spec.pod_cidrs or list(filter(None, [node.spec.pod_cidr]))
        if texts:
            given.set_result(list(map(ip_network, texts)))

    nodes.on_change(look)
    return await given
