"""What the server owns of a Service: status apart from spec, allocated values refilled, a type's fields wiped.

A client that sends an update without what the server once allocated means "as it is". Fields that the new type has no
use for are wiped only when the client left them as they were; otherwise validation says that they don't fit.
Source: pkg/registry/core/service/strategy.go, storage/storage.go.
"""

from __future__ import annotations

from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import service_spec as ask
from kubesvc.apiserver.admission.context import Cluster, Context
from kubesvc.apiserver.admission.service_addresses import fit_together
from kubesvc.apiserver.admission.service_families import settle


def prepare(new: JSON, old: JSON | None, context: Context) -> None:
    if context.subresource == "status" and old is not None:
        new["spec"] = old.get("spec") or {}
        return
    spec = new["spec"]
    if old is None:
        new["status"] = {"loadBalancer": {}}
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        _settle(spec, None, context.cluster)
        return
    before = ask.spec_of(old)
    new["status"] = old.get("status") or {"loadBalancer": {}}
    _refill(spec, before)
    _pair_cluster_ips(spec, before)
    _wipe(spec, before)
    if ask.type_of(before) == ask.LOAD_BALANCER != ask.type_of(spec):
        new["status"] = {**new["status"], "loadBalancer": {}}
    _settle(spec, before, context.cluster)


def _settle(spec: JSON, before: JSON | None, cluster: Cluster) -> None:
    """Infer families and policy, or leave everything as the client wrote it, for validation to say what is wrong."""
    settled = dict(spec)
    if not fit_together(spec, before) and not settle(settled, before, cluster):
        spec.update(settled)


def _refill(spec: JSON, before: JSON) -> None:
    if ask.needs_cluster_ip(before) and ask.needs_cluster_ip(spec):
        if not spec.get("clusterIP") and before.get("clusterIP"):
            spec["clusterIP"] = before["clusterIP"]
        if not spec.get("clusterIPs") and spec.get("clusterIP") == before.get("clusterIP") and before.get("clusterIPs"):
            spec["clusterIPs"] = list(before["clusterIPs"])
    if ask.has_node_ports(before) and ask.has_node_ports(spec):
        _refill_node_ports(spec, before)
    if ask.needs_health_check(before) and ask.needs_health_check(spec) and not spec.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = before.get("healthCheckNodePort", 0)


def _refill_node_ports(spec: JSON, before: JSON) -> None:
    """By the port's *name*: everything else about it may have changed. A number is given out once."""
    by_name = {p.get("name") or "": p.get("nodePort") for p in ask.ports(before)}  # port name -> its node port
    used = set(ask.node_ports(before)) & set(ask.node_ports(spec))
    shared = {  # node ports that several protocols of one port number used together
        n for n in ask.node_ports(before) if sum(p.get("nodePort") == n for p in ask.ports(before)) > 1
    }
    for port in ask.ports(spec):
        known = by_name.get(port.get("name") or "")
        if not port.get("nodePort") and known and (known not in used or known in shared):
            port["nodePort"] = known
            used.add(known)


def _pair_cluster_ips(spec: JSON, before: JSON) -> None:
    """clusterIP and clusterIPs say the same; whoever changed only the first meant both."""
    address, addresses = spec.get("clusterIP") or "", ask.cluster_ips(spec)
    if address == (before.get("clusterIP") or ""):
        return
    if addresses == ask.cluster_ips(before):
        if address:
            spec["clusterIPs"] = [address]
        else:
            spec.pop("clusterIPs", None)


def _wipe(spec: JSON, before: JSON) -> None:
    if ask.needs_cluster_ip(before) and not ask.needs_cluster_ip(spec):
        if ask.cluster_ips(spec) == ask.cluster_ips(before):
            spec.pop("clusterIP", None)
            spec.pop("clusterIPs", None)
        _wipe_same(spec, before, "ipFamilies", "ipFamilyPolicy")
    lost_node_ports = ask.has_node_ports(before) and not ask.has_node_ports(spec)
    if lost_node_ports and set(ask.node_ports(spec)) <= set(ask.node_ports(before)):
        for port in ask.ports(spec):
            port.pop("nodePort", None)
    if ask.needs_health_check(before) and not ask.needs_health_check(spec):
        _wipe_same(spec, before, "healthCheckNodePort")
    if ask.type_of(before) == ask.LOAD_BALANCER != ask.type_of(spec):
        _wipe_same(spec, before, "allocateLoadBalancerNodePorts", "loadBalancerClass")
    if ask.externally_accessible(before) and not ask.externally_accessible(spec):
        _wipe_same(spec, before, "externalTrafficPolicy")


def _wipe_same(spec: JSON, before: JSON, *names: str) -> None:
    for name in names:
        if name in spec and spec[name] == before.get(name):
            del spec[name]
