"""How a box stands, for `kubesvc status`: its processes, its nodes, and where each Service answers."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Mapping

import msgspec

from kubesvc.api.core import Service, ServicePort
from kubesvc.api.discovery import EndpointSlice
from kubesvc.api.errors import ApiError
from kubesvc.api.nodes import Node
from kubesvc.api.pods import Pod
from kubesvc.api.registry import ENDPOINT_SLICE, NODE, POD, SERVICE
from kubesvc.box import lock, processes
from kubesvc.box.definition import Box, Publication
from kubesvc.box.serving import Serving, serving
from kubesvc.client import kubeconfig
from kubesvc.client.session import Session, Unreachable
from kubesvc.dns.listing import zone_file
from kubesvc.dns.public import asked
from kubesvc.loadbalancer.overview import dns_records


class ProcessLine(msgspec.Struct, frozen=True):
    name: str
    pid: int
    state: str
    restarts: int
    age: float  # seconds in this state
    last_exit: str


class NodeLine(msgspec.Struct, frozen=True):
    name: str
    ready: bool
    addresses: list[str]
    pod_cidrs: list[str]
    namespace: str


class ServiceLine(msgspec.Struct, frozen=True):
    """`inside` and `outside` are where the Service answers: from pods, and from this machine; `serving` says whether
    it does."""

    namespace: str
    name: str
    type: str
    inside: list[str]
    outside: list[str]
    serving: Serving


class PublishedLine(msgspec.Struct, frozen=True):
    """`service` is namespace/name of the one with that node port; empty: none has it."""

    host: str
    node_port: str
    service: str


class Overview(msgspec.Struct):
    running: bool
    ready: bool = False
    processes: list[ProcessLine] = []
    nodes: list[NodeLine] = []
    services: list[ServiceLine] = []
    public_records: list[str] = []  # in a zone file's form
    dns_records: list[tuple[str, str]] = []  # Service, the record that leads a name to it
    name_server: str = ""  # who knows the host names among them, where this machine's resolver doesn't
    published: list[PublishedLine] = []
    trouble: str = ""  # why the API couldn't be asked


def inside_addresses(service: Service, domain: str) -> list[str]:
    """Where a pod reaches the Service: names first, then addresses with ports."""
    name = f"{service.name}.{service.namespace}.svc.{domain}"
    if service.spec.type == "ExternalName":
        return [f"{name} -> {service.spec.external_name}"]
    if service.spec.cluster_ip in ("", "None"):
        return [name]
    addresses = service.spec.cluster_ips or [service.spec.cluster_ip]
    return [name, *(f"{_host(a)}:{port.port}/{port.protocol}" for a in addresses for port in service.spec.ports)]


def _host(address: str) -> str:
    """As it stands before a port."""
    return f"[{address}]" if ":" in address else address


def outside_addresses(service: Service, nodes: Mapping[str, list[str]], serving_nodes: Container[str]) -> list[str]:
    """Where this machine reaches the Service: load-balancer addresses and node ports. `nodes` has each one's addresses;
    `serving_nodes` have a ready endpoint: with externalTrafficPolicy Local no other answers at its node port."""
    found = []
    for ingress in service.status.load_balancer.ingress:
        found += [f"{_host(ingress.ip or ingress.hostname)}:{_number(port)}" for port in service.spec.ports]
    if service.spec.type == "LoadBalancer" and not found:
        found.append("<pending>")
    local = service.spec.external_traffic_policy == "Local"
    answering = [name for name in nodes if name in serving_nodes] if local else list(nodes)
    if not answering:
        return found
    first = nodes[answering[0]]
    which = "" if len(nodes) == 1 else " (nodes with a pod)" if local else " (any node)"
    for port in service.spec.ports:
        if port.node_port:
            served = [a for a in first if _family(a) in (service.spec.ip_families or [_family(first[0])])]
            found += [f"{_host(address)}:{_number(port, port.node_port)}{which}" for address in served]
    return found


def _number(port: ServicePort, number: int | None = None) -> str:
    """As it stands in an address; TCP goes without saying."""
    return f"{number or port.port}" + (f"/{port.protocol}" if port.protocol != "TCP" else "")


def _family(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def published(publications: Iterable[Publication], services: Iterable[Service]) -> list[PublishedLine]:
    """Where this machine's localhost leads."""
    owners = {
        (port.node_port, port.protocol): f"{service.namespace}/{service.name}"
        for service in services
        for port in service.spec.ports
        if port.node_port
    }
    return [
        PublishedLine(
            f"localhost:{each.host_port}",
            f"{each.node_port}/{each.protocol.upper()}",
            owners.get((each.node_port, each.protocol.upper()), ""),
        )
        for each in publications
    ]


async def overview(box: Box) -> Overview:
    """Ask the processes' record and the API."""
    status = processes.load(box.run_path)
    if status is None or not lock.held(box.run_path):
        return Overview(running=False)
    found = Overview(running=processes.alive(status.supervisor), ready=status.ready)
    now = time.time()
    for process in (status.supervisor, *status.processes):
        state = process.state
        if state == "running" and not processes.alive(process):
            state = "dead"
        age = now - process.since if process.since else 0.0
        found.processes.append(ProcessLine(process.name, process.pid, state, process.restarts, age, process.last_exit))
    session = kubeconfig.load(box.kubeconfig)
    try:
        await _ask(session, box, found)
    except (ApiError, Unreachable) as error:
        found.trouble = str(error)
    finally:
        await session.close()
    return found


async def _ask(session: Session, box: Box, found: Overview) -> None:
    nodes = await session.list(NODE, Node)
    for node in sorted(nodes.items, key=lambda node: (len(node.name), node.name)):
        cidrs = node.spec.pod_cidrs or list(filter(None, [node.spec.pod_cidr]))
        found.nodes.append(NodeLine(node.name, node.ready, node.internal_ips, cidrs, box.namespace(node.name)))
    addresses = {line.name: line.addresses for line in found.nodes if line.addresses}
    services = (await session.list(SERVICE, Service)).items
    if any(asked(service) for service in services):
        public_zones = [text.partition("=")[0] for text in box.public_zone]
        found.public_records = list(zone_file(services, box.dns.dns_domain, public_zones))
    found.dns_records = [(f"{s.namespace}/{s.name}", record) for s in services for record in dns_records(s)]
    found.name_server = str(box.network.cloud) if box.cloud == "aws" else ""
    found.published = published(box.publications, services)
    slices: dict[tuple[str, str], list[EndpointSlice]] = {}  # namespace and name of a Service -> its slices
    for each in (await session.list(ENDPOINT_SLICE, EndpointSlice)).items:
        slices.setdefault((each.namespace, each.service_name), []).append(each)
    pods = {pod.key: pod for pod in (await session.list(POD, Pod)).items}
    for service in services:
        its_own = slices.get(service.key, [])
        serving_nodes = {e.node_name for each in its_own for e in each.endpoints if e.ready and e.node_name}
        inside = inside_addresses(service, box.dns_domain)
        outside = outside_addresses(service, addresses, serving_nodes)
        served = serving(service, its_own, pods)
        found.services.append(ServiceLine(service.namespace, service.name, service.spec.type, inside, outside, served))
