"""What compute v1 takes: fields of each collection, their values, and what one object asks of others. No sockets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

Json = dict[str, Any]
World = Mapping[str, Mapping[str, Json]]  # collection's path -> name -> object
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")

FIELDS = {
    "forwardingRules": "name description IPAddress IPProtocol portRange ports allPorts loadBalancingScheme "
    "backendService network subnetwork networkTier allowGlobalAccess ipVersion",
    "backendServices": "name description loadBalancingScheme protocol healthChecks sessionAffinity connectionDraining "
    "backends localityLbPolicy fingerprint timeoutSec network",
    "healthChecks": "name description type httpHealthCheck tcpHealthCheck checkIntervalSec timeoutSec healthyThreshold "
    "unhealthyThreshold",
    "addresses": "name description address addressType networkTier subnetwork purpose",
    "firewalls": "name description network direction sourceRanges destinationRanges allowed targetTags priority",
    "instanceGroups": "name description",
}
QUOTAS = {"forwardingRules": 500, "backendServices": 500, "healthChecks": 500, "addresses": 64, "firewalls": 500}


class Problem(Exception):
    """An HTTP error as the service words it; `code` is what an operation that fails so says."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason

    @property
    def code(self) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", self.reason).upper()


def invalid(message: str) -> Problem:
    return Problem(400, "invalid", message)


def plain(link: str) -> str:
    """`regions/R/COLLECTION/NAME` of any form of a link."""
    return re.sub(r"^.*?projects/[^/]+/", "", link)


def find(world: World, link: str) -> Json:
    path, _, name = plain(link).rpartition("/")
    found = world.get(path, {}).get(name)
    if found is None:
        raise Problem(404, "notFound", f"The resource '{link}' was not found")
    return found


def users_of(world: World, link: str) -> list[str]:
    """Paths of what refers to an object."""
    wanted = plain(link)
    found = []
    for path, objects in world.items():
        for name, other in objects.items():
            links = [other.get("backendService", ""), *other.get("healthChecks", ())]
            links += [backend["group"] for backend in other.get("backends", ())]
            if wanted in map(plain, links):
                found.append(f"{path}/{name}")
    return found


def check_fields(collection: str, body: Json) -> None:
    unknown = body.keys() - set(FIELDS[collection].split())
    if unknown:
        raise invalid(f'Invalid JSON payload received. Unknown name "{min(unknown)}": Cannot find field.')


def check(collection: str, world: World, path: str, body: Json) -> None:
    """Raises Problem for an object that can't be as `body` has it. `path` is the collection's."""
    if not NAME.fullmatch(body.get("name", "")):
        raise invalid(
            f"Invalid value for field 'resource.name': '{body.get('name')}'. Must be a match of regex {NAME.pattern}"
        )
    CHECKS[collection](world, path, body)


def _one_of(body: Json, field: str, values: Iterable[Any], default: Any) -> None:
    value = body.setdefault(field, default)
    if value not in values:
        raise invalid(f"Invalid value for field 'resource.{field}': '{value}'.")


def _rule(world: World, path: str, body: Json) -> None:
    _one_of(body, "loadBalancingScheme", ("EXTERNAL", "INTERNAL"), "EXTERNAL")
    _one_of(body, "IPProtocol", ("TCP", "UDP", "L3_DEFAULT"), "TCP")
    internal = body["loadBalancingScheme"] == "INTERNAL"
    said = [field for field in ("ports", "portRange", "allPorts") if body.get(field)]
    if len(said) != 1:
        raise invalid("Exactly one of ports, portRange and allPorts must be specified.")
    if len(body.get("ports", ())) > 5:
        raise invalid("Invalid value for field 'resource.ports': at most 5 ports.")
    if body["IPProtocol"] == "L3_DEFAULT" and not body.get("allPorts"):
        raise invalid("L3_DEFAULT forwarding rules must have allPorts set.")
    if internal and ("portRange" in body or "networkTier" in body):
        raise invalid("portRange and networkTier are not for internal passthrough load balancers.")
    if not internal:
        _one_of(body, "networkTier", ("PREMIUM", "STANDARD"), "PREMIUM")
        if body.get("allowGlobalAccess") or body.get("subnetwork"):
            raise invalid("allowGlobalAccess and subnetwork are for internal load balancers.")
    service = find(world, body.get("backendService", ""))
    if service["loadBalancingScheme"] != body["loadBalancingScheme"]:
        raise invalid("The forwarding rule's and the backend service's loadBalancingScheme differ.")
    if service["protocol"] not in (body["IPProtocol"], "UNSPECIFIED"):
        raise invalid(f"IPProtocol {body['IPProtocol']} doesn't fit backend service protocol {service['protocol']}.")
    if service["protocol"] == "UNSPECIFIED" and internal and body["IPProtocol"] != "L3_DEFAULT":
        raise invalid("An UNSPECIFIED internal backend service takes L3_DEFAULT rules.")
    if body.get("IPAddress"):
        _rule_address(world, path, body, internal)


def _rule_address(world: World, path: str, body: Json, internal: bool) -> None:
    ip = str(ip_address(body["IPAddress"]))
    addresses = world.get(path.replace("forwardingRules", "addresses"), {})
    held = next((a for a in addresses.values() if a["address"] == ip), None)
    if held is None and not internal:
        raise invalid(f"Invalid value for field 'resource.IPAddress': '{ip}'. Specified IP address is not reserved.")
    if held is not None and held["addressType"] != body["loadBalancingScheme"]:
        raise invalid(f"The address {held['name']} is {held['addressType']}.")
    if held is not None and not internal and held["networkTier"] != body["networkTier"]:
        raise invalid("The network tier of the address and the forwarding rule must be the same.")
    for other in world.get(path, {}).values():
        if other["IPAddress"] == ip and other["name"] != body["name"] and (internal or _overlap(other, body)):
            raise Problem(
                400, "invalid", f"Invalid value for field 'resource.IPAddress': '{ip}' is in use by {other['name']}."
            )


def _overlap(one: Json, other: Json) -> bool:
    if one["IPProtocol"] != other["IPProtocol"]:
        return "L3_DEFAULT" in (one["IPProtocol"], other["IPProtocol"])
    spans = []
    for rule in (one, other):
        if rule.get("allPorts"):
            return True
        low, _, high = rule.get("portRange", "").partition("-")
        spans.append(set(range(int(low), int(high or low) + 1)) if low else {int(p) for p in rule["ports"]})
    return bool(spans[0] & spans[1])


def _backend_service(world: World, path: str, body: Json) -> None:
    _one_of(body, "loadBalancingScheme", ("EXTERNAL", "INTERNAL"), "EXTERNAL")
    _one_of(body, "protocol", ("TCP", "UDP", "UNSPECIFIED"), "TCP")
    _one_of(body, "sessionAffinity", ("NONE", "CLIENT_IP", "CLIENT_IP_PROTO", "CLIENT_IP_PORT_PROTO"), "NONE")
    _one_of(body, "localityLbPolicy", ("MAGLEV", "WEIGHTED_MAGLEV"), "MAGLEV")
    if len(body.get("healthChecks", ())) != 1:
        raise invalid("A passthrough backend service must have exactly one health check.")
    find(world, body["healthChecks"][0])
    groups = [plain(backend["group"]) for backend in body.get("backends", ())]
    if len(groups) != len(set(groups)):
        raise invalid("Duplicate instance groups in backend service.")
    for backend in body.get("backends", ()):
        find(world, backend["group"])
        if backend.get("balancingMode") != "CONNECTION":
            raise invalid("Passthrough load balancers need balancingMode CONNECTION.")


def _health_check(world: World, path: str, body: Json) -> None:
    _one_of(body, "type", ("HTTP", "TCP"), "TCP")
    if body["type"] == "HTTP" and not 0 < body.get("httpHealthCheck", {}).get("port", 80) < 65536:
        raise invalid("Invalid value for field 'resource.httpHealthCheck.port'.")
    if body.get("timeoutSec", 5) > body.get("checkIntervalSec", 5):
        raise invalid("timeoutSec must be at most checkIntervalSec.")


def _address(world: World, path: str, body: Json) -> None:
    _one_of(body, "addressType", ("EXTERNAL", "INTERNAL"), "EXTERNAL")
    if body["addressType"] == "EXTERNAL":
        _one_of(body, "networkTier", ("PREMIUM", "STANDARD"), "PREMIUM")
    if not body.get("address"):
        return
    ip = str(ip_address(body["address"]))
    if any(a["address"] == ip for n, a in world.get(path, {}).items() if n != body["name"]):
        status = 409 if body["addressType"] == "INTERNAL" else 400
        raise Problem(status, "invalid" if status == 400 else "alreadyExists", f"IP '{ip}' is already being used.")
    rules = world.get(path.replace("addresses", "forwardingRules"), {}).values()
    user = next((rule for rule in rules if rule["IPAddress"] == ip), None)
    if user is None and body["addressType"] == "EXTERNAL":
        raise invalid(
            f"Invalid value for field 'resource.address': '{ip}'. Specified IP is not in use by this project."
        )
    if user is not None and user["loadBalancingScheme"] != body["addressType"]:
        raise invalid("The address in use is of another type.")
    if user is not None and body["addressType"] == "EXTERNAL" and user["networkTier"] != body["networkTier"]:
        raise invalid("The network tier of the address in use is another.")


def _firewall(world: World, path: str, body: Json) -> None:
    _one_of(body, "direction", ("INGRESS",), "INGRESS")
    for source in (*body.get("sourceRanges", ()), *body.get("destinationRanges", ())):
        try:
            ip_network(source)
        except ValueError as error:
            raise invalid(f"Invalid value for field 'resource.sourceRanges': '{source}'.") from error
    if not body.get("allowed") or not body.get("sourceRanges"):
        raise invalid("A firewall needs sourceRanges and allowed.")
    if any(rule["IPProtocol"] not in ("tcp", "udp") for rule in body["allowed"]):
        raise invalid("Invalid value for field 'resource.allowed.IPProtocol'.")


def _group(world: World, path: str, body: Json) -> None:
    return


CHECKS: dict[str, Callable[[World, str, Json], None]] = {
    "forwardingRules": _rule,
    "backendServices": _backend_service,
    "healthChecks": _health_check,
    "addresses": _address,
    "firewalls": _firewall,
    "instanceGroups": _group,
}
