"""The rules of EndpointSlice, and of Endpoints, which it replaced.

Source: pkg/apis/discovery/validation, pkg/registry/discovery/endpointslice/strategy.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from kubesvc.api import names, registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission.causes import duplicate, invalid, not_supported, required, too_many
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules

ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
PROTOCOLS = ("SCTP", "TCP", "UDP")
MAX_ENDPOINTS, MAX_ADDRESSES, MAX_PORTS, MAX_ZONES = 1000, 100, 20000, 8


def default(tree: JSON) -> None:
    for port in tree.get("ports") or ():
        if port.get("name") is None:
            port["name"] = ""
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    tree["endpoints"] = tree.get("endpoints") or []  # upstream always writes it, as null when empty


def prepare(new: JSON, old: JSON | None, context: Context) -> None:
    """The generation counts what readers of endpoints see: everything but the metadata, labels included."""
    if old is None:
        new["metadata"]["generation"] = 1
        return
    generation = old["metadata"].get("generation") or 0
    seen = [
        (t.get("endpoints") or [], t.get("ports") or [], t.get("addressType"), t["metadata"].get("labels") or {})
        for t in (new, old)
    ]
    new["metadata"]["generation"] = generation + 1 if seen[0] != seen[1] else generation


def validate(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    kind = new.get("addressType") or ""
    causes: list[Cause] = []
    if not kind:
        causes.append(required("addressType"))
    elif kind not in ADDRESS_TYPES:
        causes.append(not_supported("addressType", kind, ADDRESS_TYPES))
    causes += _endpoints(new.get("endpoints") or [], kind)
    causes += _ports(new.get("ports") or [])
    if old is not None and kind != old.get("addressType"):
        causes.append(invalid("addressType", kind, "field is immutable"))
    return causes


def _endpoints(endpoints: list[JSON], kind: str) -> Iterator[Cause]:
    if len(endpoints) > MAX_ENDPOINTS:
        yield too_many("endpoints", len(endpoints), MAX_ENDPOINTS)
        return
    for index, endpoint in enumerate(endpoints):
        path = f"endpoints[{index}]"
        addresses = endpoint.get("addresses") or []
        if not addresses:
            yield required(f"{path}.addresses", "must contain at least 1 address")
        elif len(addresses) > MAX_ADDRESSES:
            yield too_many(f"{path}.addresses", len(addresses), MAX_ADDRESSES)
        for at, text in enumerate(addresses):
            yield from _address(text, kind, f"{path}.addresses[{at}]")
        if node := endpoint.get("nodeName"):
            yield from (invalid(f"{path}.nodeName", node, why) for why in names.subdomain(node))
        if hostname := endpoint.get("hostname"):
            yield from (invalid(f"{path}.hostname", hostname, why) for why in names.label(hostname))
        for group in ("forZones", "forNodes"):
            found = (endpoint.get("hints") or {}).get(group) or []
            if len(found) > MAX_ZONES:
                yield too_many(f"{path}.hints.{group}", len(found), MAX_ZONES)


def _address(text: str, kind: str, path: str) -> Iterator[Cause]:
    if kind == "FQDN":
        yield from (invalid(path, text, why) for why in names.subdomain(text))
        return
    address = names.parse_address(text)
    if kind == "IPv4" and (address is None or address.version != 4):
        yield invalid(path, text, "must be a valid IPv4 address")
    elif kind == "IPv6" and (address is None or address.version != 6):
        yield invalid(path, text, "must be a valid IPv6 address")
    else:
        yield from not_special(text, path)


def not_special(text: str, path: str) -> Iterator[Cause]:
    """Addresses that mean somebody else on every node can't be endpoints."""
    if why := special(text):
        yield invalid(path, text, f"may not be {why}")


@lru_cache(maxsize=16384)
def special(text: str) -> str:
    """What an address is that can't be anybody's; empty when it is an ordinary one."""
    address = names.parse_address(text)
    if address is None:
        return ""
    if address.is_unspecified:
        return "unspecified (0.0.0.0 or ::)"
    if address.is_loopback:
        return "in the loopback range (127.0.0.0/8, ::1/128)"
    if address.is_link_local:
        return "in the link-local range (169.254.0.0/16, fe80::/10)"
    if address.is_multicast and address.packed[:3] in (b"\xe0\x00\x00", b"\xff\x02\x00"):
        return "in the link-local multicast range (224.0.0.0/24, ff02::/10)"
    return ""


def _ports(ports: list[JSON]) -> Iterator[Cause]:
    if len(ports) > MAX_PORTS:
        yield too_many("ports", len(ports), MAX_PORTS)
        return
    seen: set[str] = set()
    for index, port in enumerate(ports):
        path, name = f"ports[{index}]", port.get("name") or ""
        if name:
            yield from (invalid(f"{path}.name", name, why) for why in names.label(name))
        if name in seen:
            yield duplicate(f"{path}.name", name)
        seen.add(name)
        if port.get("protocol") not in PROTOCOLS:
            yield not_supported(f"{path}.protocol", port.get("protocol"), PROTOCOLS)
        if (number := port.get("port")) is not None:
            yield from (invalid(f"{path}.port", number, why) for why in names.port_number(number))
        if application := port.get("appProtocol"):
            yield from (invalid(f"{path}.appProtocol", application, w) for w in names.qualified_name(application))


def default_endpoints(tree: JSON) -> None:
    for subset in tree.get("subsets") or ():
        for port in subset.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def validate_endpoints(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    for index, subset in enumerate(new.get("subsets") or ()):
        path = f"subsets[{index}]"
        groups = {name: subset.get(name) or [] for name in ("addresses", "notReadyAddresses")}
        if not any(groups.values()):
            causes.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for name, addresses in groups.items():
            for at, address in enumerate(addresses):
                here, ip = f"{path}.{name}[{at}]", address.get("ip") or ""
                causes += [invalid(f"{here}.ip", ip, why) for why in names.address(ip)]
                causes += not_special(ip, f"{here}.ip")
                if hostname := address.get("hostname"):
                    causes += [invalid(f"{here}.hostname", hostname, why) for why in names.label(hostname)]
        ports = subset.get("ports") or []
        for at, port in enumerate(ports):
            here = f"{path}.ports[{at}]"
            if not port.get("name") and len(ports) > 1:
                causes.append(required(f"{here}.name"))
            number = port.get("port") or 0
            causes += [invalid(f"{here}.port", number, why) for why in names.port_number(number)]
            if port.get("protocol") not in PROTOCOLS:
                causes.append(not_supported(f"{here}.protocol", port.get("protocol"), PROTOCOLS))
    return causes


ENDPOINT_SLICE = Rules(default=default, prepare=prepare, validate=validate)
ENDPOINTS = Rules(default=default_endpoints, validate=validate_endpoints)
ADMITS = (
    (registry.ENDPOINTS, ENDPOINTS),
    (registry.ENDPOINT_SLICE, ENDPOINT_SLICE),
)
