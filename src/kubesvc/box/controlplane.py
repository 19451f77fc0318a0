"""The control plane of a box: API server, controllers and load-balancer controller over SQLite, in one process."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.errors import ApiError
from kubesvc.api.nodes import Node
from kubesvc.api.registry import ENDPOINT_SLICE, NODE
from kubesvc.apiserver.audit.auditor import AuditError
from kubesvc.apiserver.config import ApiConfig
from kubesvc.apiserver.server import ApiServer, relax_collection
from kubesvc.box import portrange
from kubesvc.box.addons import ensure_addons
from kubesvc.box.certificates import Identities
from kubesvc.box.definition import API_PORT, OWN_PORTS, Box
from kubesvc.box.rotation import rotate
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, User
from kubesvc.controllers import main as controllers
from kubesvc.controllers.config import ControllersConfig
from kubesvc.kernel.links import Links
from kubesvc.loadbalancer import main as loadbalancer
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.node import routes
from kubesvc.store.protocol import StoreError
from kubesvc.store.sqlite import SqliteStore

FAILED = "failed: "  # begins a line of progress that says why the box can't start
WARNING = "warning: "  # and one that says what its owner should know


async def run(box: Box, identities: Identities, listeners: tuple[socket.socket, ...], progress: int) -> None:
    try:
        store = SqliteStore(box.objects)
        server = ApiServer(store, _api_config(box, identities))
        await server.start()
        relax_collection()
        if warning := await portrange.warning(store, box.port_range):
            os.write(progress, f"{WARNING}{warning}\n".encode())
    except (StoreError, ApiError, AuditError) as error:
        os.write(progress, f"{FAILED}{error}\n".encode())
        raise

    def session_of(name: str, *groups: str) -> Session:
        return Session(LocalTransport(server.handler, User(name, groups)))

    session = session_of("system:kubesvc:control-plane", "system:masters")  # for what the box itself sees to
    controlling, balancing = session_of("system:kubesvc:controllers"), session_of("system:kubesvc:load-balancer")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(listeners))
            os.write(progress, b"API server\n")
            await ensure_addons(session, box)
            group.create_task(controllers.run(controlling, _controllers_config(box, identities)))
            group.create_task(loadbalancer.run(balancing, *_balancing(box)))
            group.create_task(rotate(box.path, box.certificate_lifetime))
            group.create_task(_routes_to_pods(session))
            await _report_ready(session, box, progress)
            server.prepare()
    finally:
        await server.close()
        await store.close()


async def _routes_to_pods(session: Session) -> None:
    """The way back to pods that ask the API server: it is on the nodes' network, and no node itself."""
    nodes = Informer(session, NODE, Node)
    with Links() as links:
        async with asyncio.TaskGroup() as group:
            group.create_task(nodes.run())
            group.create_task(routes.follow(nodes, links, ""))


def _balancing(box: Box) -> tuple[LoadBalancerConfig, tuple[str, ...]]:
    """The controller's configuration, and its providers: with a cloud the box's addresses are that cloud's."""
    pools = tuple(network.pool for network in box.networks)
    if not box.cloud:
        return LoadBalancerConfig(pools=pools, alone=True), ("pool",)
    config = LoadBalancerConfig(
        pools=pools, default_provider="desk", cloud=box.cloud, desk=box.balancers, alone=True, first_retry=1.0
    )
    return config, ("desk",)


def _controllers_config(box: Box, identities: Identities) -> ControllersConfig:
    return ControllersConfig(
        pod_cidrs=box.pods,
        ca_pem=identities.ca_pem,
        node_grace=box.node_grace,
        gone_node_grace=box.node_grace,
        volumes=str(box.path / "volumes"),
        signer=box.path / "pki",
        signing_duration=box.certificate_lifetime,
    )


def _api_config(box: Box, identities: Identities) -> ApiConfig:
    return ApiConfig(
        service_cidrs=box.services,
        node_port_range=box.port_range,
        own_ports=OWN_PORTS,
        dns_domain=box.dns_domain,
        allow_external_ips=box.allow_external_ips,
        advertise_address=str(box.network.api),
        advertise_port=API_PORT,
        tls_cert=identities.serving,
        tls_key=identities.serving.with_suffix(".key"),
        client_ca=identities.authority,
        signing_key=identities.signing,
        audit_log=Path(box.audit_log) if box.audit_log else None,
        audit_policy=Path(box.audit_policy) if box.audit_policy else None,
        node_client_cert=identities.node_client,
        node_client_key=identities.node_client.with_suffix(".key"),
    )


async def _report_ready(session: Session, box: Box, progress: int) -> None:
    """Write `NODE ready` once the node is Ready, and `NODE DNS` once its DNS server answers; then end."""
    waiting = {f"{name} {part}" for name in box.node_names for part in ("ready", "DNS")}
    done = asyncio.Event()
    nodes = Informer(session, NODE, Node)
    slices = Informer(session, ENDPOINT_SLICE, EndpointSlice, namespace="kube-system")

    def say(what: str) -> None:
        if what in waiting:
            waiting.discard(what)
            os.write(progress, f"{what}\n".encode())
            if not waiting:
                done.set()

    def on_node(old: Node | None, new: Node | None) -> None:
        if new is not None and new.ready:
            say(f"{new.name} ready")

    def on_slice(old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if new is not None and new.service_name == "kube-dns":
            for endpoint in new.endpoints:
                if endpoint.ready:
                    say(f"{endpoint.node_name} DNS")

    nodes.on_change(on_node)
    slices.on_change(on_slice)
    informers = [asyncio.ensure_future(nodes.run()), asyncio.ensure_future(slices.run())]
    try:
        await done.wait()
    finally:
        for task in informers:
            task.cancel()
