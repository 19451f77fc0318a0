"""The rules of networking.k8s.io: ServiceCIDR, IPAddress, Ingress, NetworkPolicy.

Source: pkg/apis/networking/validation; KEP-1880.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kubesvc.api import labels, names, registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON, format_time
from kubesvc.apiserver.admission import metadata
from kubesvc.apiserver.admission.causes import IMMUTABLE, invalid, not_supported, required
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules, keep_status


def prepare_service_cidr(new: JSON, old: JSON | None, context: Context) -> None:
    """A new range is ready at once, and kept from going while addresses only it covers are in use.

    A controller keeps both true later; here a range that an address comes from is never without them.
    """
    keep_status(new, old, context)
    if old is None:
        finalizers = new["metadata"].setdefault("finalizers", [])
        if labels.SERVICE_CIDR_FINALIZER not in finalizers:
            finalizers.append(labels.SERVICE_CIDR_FINALIZER)
        new["status"] = {"conditions": [_ready("True", "", "Kubernetes Service CIDR is ready", context.now)]}


def terminating(tree: JSON, now: datetime) -> None:
    """Say of a ServiceCIDR that it is to go: from now on no address comes from it."""
    why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
    others = [c for c in (tree.get("status") or {}).get("conditions") or () if c.get("type") != "Ready"]
    tree["status"] = {"conditions": [*others, _ready("False", "Terminating", why, now)]}


def _ready(status: str, reason: str, message: str, now: datetime) -> JSON:
    time = format_time(now)
    return {"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": time}


def validate_service_cidr(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    if context.subresource == "status":
        return []
    path, cidrs = "spec.cidrs", (new.get("spec") or {}).get("cidrs") or []
    causes: list[Cause] = []
    if not cidrs:
        causes.append(required(path, "at least one CIDR required"))
    elif len(cidrs) > 2:
        causes.append(invalid(path, cidrs, "may only hold up to 2 values"))
    for index, text in enumerate(cidrs):
        causes += _canonical_cidr(text, f"{path}[{index}]")
    if len(cidrs) == 2 and not causes and (":" in cidrs[0]) == (":" in cidrs[1]):
        causes.append(
            invalid(
                path, cidrs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
            )
        )
    before = ((old or {}).get("spec") or {}).get("cidrs") or []
    if before and cidrs != before and not (len(before) == 1 and len(cidrs) == 2 and cidrs[0] == before[0]):
        causes.append(invalid(path, cidrs, IMMUTABLE))
    return causes


def _canonical_cidr(text: str, path: str) -> Iterator[Cause]:
    found, problems = names.parse_network(text), names.network(text)
    if found is None or problems:
        yield from (invalid(path, text, why) for why in problems)
    elif str(found.network) != text:
        yield invalid(path, text, f'must be in canonical form ("{found.network}")')
    elif found.version == 6 and found.network.prefixlen < 64:
        yield invalid(path, text, "the prefix of an IPv6 range must be /64 or longer")


def validate_ip_address(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    spec = new.get("spec") or {}
    parent = spec.get("parentRef")
    causes: list[Cause] = []
    if parent is None:
        causes.append(required("spec.parentRef"))
    else:
        causes += _parent(parent, "spec.parentRef")
    if old is not None and spec != (old.get("spec") or {}):
        causes.append(invalid("spec.parentRef", parent, IMMUTABLE))
    return causes


def _parent(parent: JSON, path: str) -> Iterator[Cause]:
    if group := parent.get("group"):
        yield from (invalid(f"{path}.group", group, why) for why in names.subdomain(group))
    for name in ("resource", "name", "namespace"):
        if text := parent.get(name):
            yield from (invalid(f"{path}.{name}", text, why) for why in metadata.path_segment(text))
        elif name != "namespace":
            yield required(f"{path}.{name}")


def address_name(text: str) -> list[str]:
    """An IPAddress is named as the address it stands for, in its one canonical spelling."""
    found = names.parse_address(text)
    if found is None:
        return ["must be a valid IP address"]
    return [] if str(found) == text else [f"must be a canonical format IP address (expected {found})"]


def validate_ingress(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    spec = new.get("spec") or {}
    causes: list[Cause] = []
    if context.subresource != "status" and not spec.get("rules") and not spec.get("defaultBackend"):
        causes.append(invalid("spec", {}, "either `defaultBackend` or `rules` must be specified"))
    for index, rule in enumerate(spec.get("rules") or ()):
        for at, found in enumerate((rule.get("http") or {}).get("paths") or ()):
            path = f"spec.rules[{index}].http.paths[{at}]"
            kind = found.get("pathType")
            types = ("Exact", "ImplementationSpecific", "Prefix")
            if kind is None:
                causes.append(required(f"{path}.pathType", "pathType must be specified"))
            elif kind not in types:
                causes.append(not_supported(f"{path}.pathType", kind, types))
            if kind in ("Exact", "Prefix") and not (found.get("path") or "").startswith("/"):
                causes.append(invalid(f"{path}.path", found.get("path") or "", "must be an absolute path"))
    return causes


def default_network_policy(tree: JSON) -> None:
    spec = tree.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
        for port in rule.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def validate_network_policy(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    spec = new.get("spec") or {}
    causes = metadata.validate_selector(spec.get("podSelector"), "spec.podSelector")
    if len(spec.get("policyTypes") or ()) > 2:
        causes.append(invalid("spec.policyTypes", spec["policyTypes"], "may not specify more than two policyTypes"))
    for index, kind in enumerate(spec.get("policyTypes") or ()):
        if kind not in ("Egress", "Ingress"):
            causes.append(not_supported(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress")))
    return causes


def validate_ingress_class(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    spec = new.get("spec") or {}
    causes: list[Cause] = []
    controller = spec.get("controller") or ""
    if not controller:
        causes.append(required("spec.controller"))
    elif "/" not in controller:
        causes.append(invalid("spec.controller", controller, 'must be a domain-prefixed path (such as "acme.io/foo")'))
    if old is not None and controller != (old.get("spec") or {}).get("controller"):
        causes.append(invalid("spec.controller", controller, IMMUTABLE))
    parameters = spec.get("parameters")
    if parameters is not None:
        causes += [required(f"spec.parameters.{name}") for name in ("kind", "name") if not parameters.get(name)]
        scope = parameters.get("scope")
        if scope not in ("Cluster", "Namespace"):
            causes.append(not_supported("spec.parameters.scope", scope, ("Cluster", "Namespace")))
    return causes


def default_ingress_class(tree: JSON) -> None:
    parameters = (tree.get("spec") or {}).get("parameters")
    if parameters is not None and not parameters.get("scope"):
        parameters["scope"] = "Cluster"


SERVICE_CIDR = Rules(prepare=prepare_service_cidr, validate=validate_service_cidr)
IP_ADDRESS = Rules(validate=validate_ip_address, name=address_name)
INGRESS = Rules(validate=validate_ingress, counted=True)
INGRESS_CLASS = Rules(default=default_ingress_class, validate=validate_ingress_class, counted=True)
NETWORK_POLICY = Rules(default=default_network_policy, validate=validate_network_policy, counted=True)
ADMITS = (
    (registry.SERVICE_CIDR, SERVICE_CIDR),
    (registry.IP_ADDRESS, IP_ADDRESS),
    (registry.INGRESS, INGRESS),
    (registry.INGRESS_CLASS, INGRESS_CLASS),
    (registry.NETWORK_POLICY, NETWORK_POLICY),
)
