"""The rules of Service, put together, and what is worth a warning."""

from __future__ import annotations

from ipaddress import ip_interface

from kubesvc.api import names, registry
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import service_spec as ask
from kubesvc.apiserver.admission.rules import Rules
from kubesvc.apiserver.admission.service_defaults import default
from kubesvc.apiserver.admission.service_update import prepare
from kubesvc.apiserver.admission.service_validation import validate

_HINTS = "service.kubernetes.io/topology-aware-hints"
_MODE = "service.kubernetes.io/topology-mode"


def warnings(tree: JSON) -> list[str]:
    """Source: pkg/api/service/warnings.go."""
    spec = ask.spec_of(tree)
    kind, headless = ask.type_of(spec), ask.is_headless(spec)
    external_ips = spec.get("externalIPs") or []
    found: list[str] = []
    if _HINTS in ((tree.get("metadata") or {}).get("annotations") or {}):
        found.append(f"annotation {_HINTS} is deprecated, please use {_MODE} instead")
    for index, address in enumerate(ask.held_addresses(spec)):
        found += _spelling(f"spec.clusterIPs[{index}]", address)
    if headless:
        if spec.get("loadBalancerIP"):
            found.append("spec.loadBalancerIP is ignored for headless services")
        if external_ips:
            found.append("spec.externalIPs is ignored for headless services")
        if spec.get("sessionAffinity") == "ClientIP":
            found.append("spec.SessionAffinity is ignored for headless services")
    for index, address in enumerate(external_ips):
        found += _spelling(f"spec.externalIPs[{index}]", address)
    if external_ips and not headless and kind != ask.EXTERNAL_NAME:
        found.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    if spec.get("loadBalancerIP"):
        found += _spelling("spec.loadBalancerIP", spec["loadBalancerIP"])
    for index, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        found += _range_spelling(f"spec.loadBalancerSourceRanges[{index}]", text.strip())
    if kind == ask.EXTERNAL_NAME and external_ips:
        found.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if kind != ask.EXTERNAL_NAME and spec.get("externalName"):
        found.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        found.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return found


def _spelling(path: str, text: str) -> list[str]:
    if names.is_plain_ipv4(text):
        return []
    address = names.parse_address(text)
    if address is None:
        return [
            f"{path}: non-standard IP address {_quoted(text)} will be considered invalid in a future Kubernetes release"
        ]
    if address.version == 6 and str(address) != text:
        return [
            f"{path}: IPv6 address {_quoted(text)} should be in RFC 5952 canonical format ({_quoted(str(address))})"
        ]
    return []


def _range_spelling(path: str, text: str) -> list[str]:
    try:
        found = ip_interface(text)
    except ValueError:
        return []
    if found.ip != found.network.network_address:
        return [
            f"{path}: CIDR value {_quoted(text)} is ambiguous in this context "
            f"(should be {_quoted(str(found.network))} or {_quoted(str(found.ip))}?)"
        ]
    return []


def _quoted(text: str) -> str:
    return f'"{text}"'


RULES = Rules(default=default, prepare=prepare, validate=validate, warnings=warnings, name=names.label)
ADMITS = ((registry.SERVICE, RULES),)
