"""Services, slices and frontends in few words, for the proxy's tests."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import msgspec

from kubesvc.api.core import Service
from kubesvc.api.discovery import EndpointSlice
from kubesvc.proxy.backend import Changes, Frontend, Kind, Ranges
from kubesvc.proxy.layout import TCP, Masquerade, Refusal, pack, port_data, tail

NODE = "node1"
NODE_IP = "172.29.7.11"
RANGES = Ranges((ip_network("10.96.0.0/16"),), (ip_network("10.244.0.0/16"),))


def service(
    name: str = "web", cluster_ip: str = "10.96.0.10", *, ports: list[dict[str, Any]] | None = None, **spec: Any
) -> Service:
    """A Service; `spec` in the wire's spelling, `status_ips` for load balancer addresses."""
    ips = spec.pop("status_ips", [])
    labels, annotations = spec.pop("labels", {}), spec.pop("annotations", {})
    return msgspec.convert(
        {
            "metadata": {
                "namespace": "default",
                "name": name,
                "labels": labels,
                "annotations": annotations,
                "resourceVersion": "1",
            },
            "spec": {
                "clusterIP": cluster_ip,
                "clusterIPs": [cluster_ip],
                "ports": ports or [{"port": 80, "targetPort": 8080}],
                **spec,
            },
            "status": {"loadBalancer": {"ingress": [i if isinstance(i, dict) else {"ip": i} for i in ips]}},
        },
        Service,
    )


def endpoint(address: str, *, node: str = "node2", state: str = "ready", **more: Any) -> dict[str, Any]:
    """state: ready, draining (serving and terminating), dead (terminating, not serving) or starting."""
    conditions = {
        "ready": {"ready": True, "serving": True, "terminating": False},
        "draining": {"ready": False, "serving": True, "terminating": True},
        "dead": {"ready": False, "serving": False, "terminating": True},
        "starting": {"ready": False, "serving": False, "terminating": False},
        "nil": {},
    }[state]
    return {"addresses": [address], "conditions": conditions, "nodeName": node, **more}


def slice_of(
    *endpoints: dict[str, Any] | str,
    owner: str = "web",
    name: str = "",
    ports: list[dict[str, Any]] | None = None,
    family: str = "IPv4",
    weights: str = "",
) -> EndpointSlice:
    return msgspec.convert(
        {
            "metadata": {
                "namespace": "default",
                "name": name or f"{owner}-1",
                "labels": {"kubernetes.io/service-name": owner},
                "annotations": {"kubesvc.dev/weights": weights} if weights else {},
                "resourceVersion": "1",
            },
            "addressType": family,
            "ports": ports or [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [endpoint(e) if isinstance(e, str) else e for e in endpoints],
        },
        EndpointSlice,
    )


def frontend(
    address: str,
    port: int,
    *endpoints: str,
    protocol: int = TCP,
    kind: Kind = Kind.CLUSTER_IP,
    target: int = 8080,
    refusal: Refusal = Refusal.REJECT,
    owner: str = "web",
    **more: Any,
) -> Frontend:
    """A frontend with endpoints at these addresses; without any it refuses. `more`: affinity, outside, sources."""
    return Frontend(
        pack(address) + tail(protocol, port),
        tuple(pack(e) + port_data(target) for e in endpoints),
        Masquerade.OFF_CLUSTER if kind is Kind.CLUSTER_IP else Masquerade.ALWAYS,
        None if endpoints else refusal,
        more.pop("affinity", 0),
        kind,
        ("default", owner),
        "",
        **more,
    )


def changes(*frontends: Frontend, gone: tuple[Frontend, ...] = (), local: tuple[str, ...] = ()) -> Changes:
    """What makes these frontends be, and `gone` not; cluster IPs follow from them."""
    made = Changes({f.key: f for f in frontends} | {f.key: None for f in gone})
    made.service_ips = {f.key[:-8]: True for f in frontends if f.kind is Kind.CLUSTER_IP}
    made.local_endpoints = {pack(ip): True for ip in local}
    return made
