"""What a Service means when it doesn't say.

Source: pkg/apis/core/v1/defaults.go, SetDefaults_Service.
"""

from __future__ import annotations

from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import service_spec as ask

CLIENT_IP_TIMEOUT = 10800
"""Seconds a client stays with its endpoint when sessionAffinity is ClientIP and nothing else is said."""


def default(tree: JSON) -> None:
    spec = tree.get("spec")
    if not isinstance(spec, dict):
        spec = tree["spec"] = {}
    if not spec.get("type"):
        spec["type"] = ask.CLUSTER_IP
    _ports(spec)
    _affinity(spec)
    if ask.externally_accessible(spec) and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if ask.needs_cluster_ip(spec) and not spec.get("internalTrafficPolicy"):
        spec["internalTrafficPolicy"] = "Cluster"
    if ask.type_of(spec) == ask.LOAD_BALANCER:
        if spec.get("allocateLoadBalancerNodePorts") is None:
            spec["allocateLoadBalancerNodePorts"] = True
        _ingress(tree)


def _ports(spec: JSON) -> None:
    for port in ask.ports(spec):
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, "") and "port" in port:
            port["targetPort"] = port["port"]


def _affinity(spec: JSON) -> None:
    if not spec.get("sessionAffinity"):
        spec["sessionAffinity"] = "None"
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        config = spec.get("sessionAffinityConfig") or {}
        client = config.get("clientIP") or {}
        if client.get("timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": CLIENT_IP_TIMEOUT}}


def _ingress(tree: JSON) -> None:
    status = tree.get("status") or {}
    for ingress in (status.get("loadBalancer") or {}).get("ingress") or ():
        if ingress.get("ip") and not ingress.get("ipMode"):
            ingress["ipMode"] = "VIP"
