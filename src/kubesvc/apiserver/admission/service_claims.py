"""Addresses and node ports: which a Service claims and lets go of, in the commit that writes it.

    held before ──┐
                  ├── difference ──► release, claim        the store decides who gets a claim; hints only save a try
    held after ───┘

A claim the client asked for by value is static: losing it fails the request. One chosen here is dynamic: the server
marks the loser as taken and asks again, with the tree as it was before this call.
Source: pkg/registry/core/service/storage/alloc.go; KEP-1880 (IPAddress and ServiceCIDR objects).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from kubesvc.api import errors, labels
from kubesvc.api.errors import ApiError, InternalError, Invalid
from kubesvc.api.meta import JSON, format_time
from kubesvc.apiserver.admission import bands
from kubesvc.apiserver.admission import service_spec as ask
from kubesvc.apiserver.admission.causes import invalid
from kubesvc.apiserver.admission.context import ClaimChange, Context, Taken

_TAKEN = "provided port is already allocated"


def claims(new: JSON | None, old: JSON | None, context: Context, taken: Taken) -> list[ClaimChange]:
    before = ask.spec_of(old) if old is not None else {"type": ask.EXTERNAL_NAME}
    after = ask.spec_of(new) if new is not None else {"type": ask.EXTERNAL_NAME}
    had_addresses = {ask.canonical(a): a for a in ask.held_addresses(before)}
    had_ports = set(ask.held_node_ports(before))
    chosen_addresses = _choose_addresses(after, context, taken) if new is not None else set()
    if new is not None:
        had = {*had_addresses, *chosen_addresses}
        _check_range(new, [a for a in ask.held_addresses(after) if ask.canonical(a) not in had], context)
    chosen_ports = _choose_node_ports(after, had_ports, context, taken) if new is not None else set()
    has_addresses = {ask.canonical(a): a for a in ask.held_addresses(after)}
    has_ports = list(dict.fromkeys(ask.held_node_ports(after)))
    return [
        *(ClaimChange("address", a, "release", False) for a in had_addresses if a not in has_addresses),
        *(ClaimChange("nodeport", str(p), "release", False) for p in sorted(had_ports - set(has_ports))),
        *(ClaimChange("address", a, "claim", a in chosen_addresses) for a in has_addresses if a not in had_addresses),
        *(ClaimChange("nodeport", str(p), "claim", p in chosen_ports) for p in has_ports if p not in had_ports),
    ]


def _choose_addresses(spec: JSON, context: Context, taken: Taken) -> set[str]:
    """Give every family without an address one; returns those chosen."""
    if not ask.needs_cluster_ip(spec) or ask.is_headless(spec):
        return set()
    chosen: set[str] = set()
    addresses = ask.cluster_ips(spec)
    for family in ask.families(spec)[len(addresses) :]:
        address = _free_address(family, context, taken)
        addresses.append(address)
        chosen.add(address)
    if addresses:
        spec["clusterIP"], spec["clusterIPs"] = addresses[0], addresses
    return chosen


def _free_address(family: str, context: Context, taken: Taken) -> str:
    of = IPv4Address if family == ask.IPV4 else IPv6Address  # a small integer alone would read as IPv4
    for network in context.cluster.allocatable:
        if isinstance(network.network_address, of):
            found = bands.choose(bands.of_network(network), lambda n: taken.address(str(of(n))), context.choose)
            if found is not None:
                return str(of(found))
    raise InternalError("Internal error occurred: failed to allocate a serviceIP: range is full")


def _check_range(new: JSON, asked: list[str], context: Context) -> None:
    """Refuse addresses outside every range, and the two of a range that are nobody's."""
    for address in asked:
        value = ip_address(ask.canonical(address))
        ranges = [c for c in context.cluster.allocatable if c.version == value.version]
        if any(bands.of_network(c).first <= int(value) <= bands.of_network(c).last for c in ranges):
            continue
        valid = ", ".join(str(c) for c in ranges)
        why = f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {valid}"
        raise _not_allocated(new, address, why)


def _not_allocated(service: JSON, address: str, why: str) -> Invalid:
    cause = invalid("spec.clusterIPs", ask.cluster_ips(ask.spec_of(service)), f"failed to allocate IP {address}: {why}")
    return errors.invalid("Service", service["metadata"].get("name", ""), [cause])


def _choose_node_ports(spec: JSON, had: set[int], context: Context, taken: Taken) -> set[int]:
    """Number the ports that need it; protocols of one port number share one. Returns the numbers chosen."""
    chosen: set[int] = set()
    own = set(ask.held_node_ports(spec)) | had
    ports = ask.ports(spec)
    if ask.allocates_node_ports(spec):
        for port in ports:
            if port.get("nodePort"):
                continue
            shared = next((p["nodePort"] for p in ports if p["port"] == port["port"] and p.get("nodePort")), None)
            if shared is None:
                shared = _free_node_port("nodePort", own, context, taken)
                chosen.add(shared)
                own.add(shared)
            port["nodePort"] = shared
    if ask.needs_health_check(spec) and not spec.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = _free_node_port("HealthCheck NodePort", own, context, taken)
        chosen.add(spec["healthCheckNodePort"])
    return chosen


def _free_node_port(what: str, own: set[int], context: Context, taken: Taken) -> int:
    band = bands.of_node_ports(*context.cluster.node_port_range)
    found = bands.choose(
        band, lambda n: n in own or n in context.cluster.own_ports or taken.node_port(n), context.choose
    )
    if found is None:
        raise InternalError(f"Internal error occurred: failed to allocate a {what}: range is full")
    return found


def claim_lost(service: JSON, change: ClaimChange) -> ApiError:
    """The error for a static claim that somebody else holds."""
    if change.kind == "address":
        asked = next((a for a in ask.held_addresses(ask.spec_of(service)) if ask.canonical(a) == change.value), None)
        return _not_allocated(service, asked or change.value, "provided IP is already allocated")
    spec, number = ask.spec_of(service), int(change.value)
    path = next(
        (f"spec.ports[{i}].nodePort" for i, p in enumerate(ask.ports(spec)) if p.get("nodePort") == number),
        "spec.healthCheckNodePort",
    )
    return errors.invalid("Service", service["metadata"].get("name", ""), [invalid(path, number, _TAKEN)])


def address_object(address: str, service: JSON, context: Context) -> JSON:
    """The IPAddress that claims `address` for `service`. The server adds the uid."""
    family = ask.family_of(address)
    meta = service["metadata"]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": ask.canonical(address),
            "creationTimestamp": format_time(context.now),
            "labels": {labels.IP_FAMILY: family, labels.IP_MANAGED_BY: labels.IP_ALLOCATOR},
        },
        "spec": {
            "parentRef": {
                "group": "",
                "resource": "services",
                "namespace": meta.get("namespace", ""),
                "name": meta.get("name", ""),
            }
        },
    }
