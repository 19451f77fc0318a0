"""Services, their endpoints and addresses, Ingresses and policies."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubesvc.api import registry
from kubesvc.api.meta import JSON
from kubesvc.apiserver.printing.columns import (
    AGE,
    NAME,
    NONE,
    Column,
    Printer,
    at,
    format_labels,
    format_selector,
    name_of,
    shorten,
    wide,
)
from kubesvc.apiserver.printing.duration import age


def _service(service: JSON, now: datetime) -> list[Any]:
    spec = service.get("spec") or {}
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [
        name_of(service),
        spec.get("type", ""),
        addresses[0] or NONE,
        _external(service),
        _ports(spec.get("ports") or []),
        age(service, now),
        format_labels(spec.get("selector")),
    ]


def _external(service: JSON) -> str:
    spec = service.get("spec") or {}
    ips = list(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "ExternalName":
            return str(spec.get("externalName", ""))
        case "LoadBalancer":
            ingress = at(service, "status", "loadBalancer", "ingress") or ()
            found = [i.get("ip") or i.get("hostname") or "" for i in ingress] + ips
            return ",".join(filter(None, found)) or "<pending>"
        case _:
            return ",".join(ips) or NONE


def _ports(ports: list[JSON]) -> str:
    def one(port: JSON) -> str:
        node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
        return f"{port.get('port')}{node_port}/{port.get('protocol', 'TCP')}"

    return ",".join(one(p) for p in ports) or NONE


def _host_port(host: str, port: Any) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _endpoints(endpoints: JSON, now: datetime) -> list[Any]:
    found: list[str] = []
    for subset in endpoints.get("subsets") or ():
        ips = [a.get("ip", "") for a in subset.get("addresses") or ()]
        ports = subset.get("ports") or []
        found += [_host_port(ip, p.get("port")) for p in ports for ip in ips] if ports else ips
    return [name_of(endpoints), shorten(found, NONE), age(endpoints, now)]


def _endpoint_slice(found: JSON, now: datetime) -> list[Any]:
    ports = ["*" if p.get("port") is None else str(p["port"]) for p in found.get("ports") or ()]
    addresses = [a for e in found.get("endpoints") or () for a in e.get("addresses") or ()]
    return [
        name_of(found),
        found.get("addressType", ""),
        shorten(ports, "<unset>"),
        shorten(addresses, "<unset>"),
        age(found, now),
    ]


def _service_cidr(found: JSON, now: datetime) -> list[Any]:
    return [name_of(found), ",".join(at(found, "spec", "cidrs") or ()), age(found, now)]


def _ip_address(found: JSON, now: datetime) -> list[Any]:
    parent = at(found, "spec", "parentRef") or {}
    resource = ".".join(filter(None, (parent.get("resource"), parent.get("group"))))
    shown = "/".join(filter(None, (resource, parent.get("namespace"), parent.get("name"))))
    return [name_of(found), shown or NONE, age(found, now)]


def _ingress(ingress: JSON, now: datetime) -> list[Any]:
    rules = at(ingress, "spec", "rules") or []
    hosts = [r.get("host") or "*" for r in rules]
    addresses = [i.get("ip") or i.get("hostname") or "" for i in at(ingress, "status", "loadBalancer", "ingress") or ()]
    return [
        name_of(ingress),
        at(ingress, "spec", "ingressClassName") or NONE,
        shorten(hosts, "*"),
        ",".join(addresses),
        "80, 443" if at(ingress, "spec", "tls") else "80",
        age(ingress, now),
    ]


def _ingress_class(found: JSON, now: datetime) -> list[Any]:
    parameters = at(found, "spec", "parameters")
    kind = ".".join(filter(None, (at(parameters, "kind"), at(parameters, "apiGroup"))))
    shown = f"{kind}/{parameters.get('name', '')}" if parameters else NONE
    return [name_of(found), at(found, "spec", "controller") or "", shown, age(found, now)]


def _network_policy(policy: JSON, now: datetime) -> list[Any]:
    return [name_of(policy), format_selector(at(policy, "spec", "podSelector")), age(policy, now)]


def _columns(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name) for name in names)


PRINTERS = {
    (kind.group, kind.plural): printer
    for kind, printer in (
        (
            registry.SERVICE,
            Printer(
                (NAME, *_columns("Type", "Cluster-IP", "External-IP", "Port(s)"), AGE, *wide("Selector")), _service
            ),
        ),
        (registry.ENDPOINTS, Printer((NAME, *_columns("Endpoints"), AGE), _endpoints)),
        (
            registry.ENDPOINT_SLICE,
            Printer((NAME, *_columns("AddressType", "Ports", "Endpoints"), AGE), _endpoint_slice),
        ),
        (registry.SERVICE_CIDR, Printer((NAME, *_columns("CIDRs"), AGE), _service_cidr)),
        (registry.IP_ADDRESS, Printer((NAME, *_columns("ParentRef"), AGE), _ip_address)),
        (registry.INGRESS, Printer((NAME, *_columns("Class", "Hosts", "Address", "Ports"), AGE), _ingress)),
        (registry.INGRESS_CLASS, Printer((NAME, *_columns("Controller", "Parameters"), AGE), _ingress_class)),
        (registry.NETWORK_POLICY, Printer((NAME, *_columns("Pod-Selector"), AGE), _network_policy)),
    )
}
