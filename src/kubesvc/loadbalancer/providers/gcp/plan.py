"""What is to be done next for one Service. Pure.

Each function gives the steps from what there is to what is wanted, in order, every one on the assumption that those
before it are done. The shell does the first, looks again, and asks again: so a crash, a lost answer or somebody else's
change is but another beginning. A load balancer is built from the back and taken down from the front:

    instance groups, health check ─► backend service ─► forwarding rule ─► firewall

Of a forwarding rule only global access can be changed; ports, protocol and address can't, nor can a backend service's
scheme. For those the rule is replaced, and its address held meanwhile: the address in use becomes a static one, the
new rule takes it over, and the static one is let go, which leaves the address with the rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

import msgspec

from kubesvc.api.core import Service
from kubesvc.api.meta import JSON
from kubesvc.loadbalancer.providers.gcp import resources
from kubesvc.loadbalancer.providers.gcp.compare import changed, matches, plain
from kubesvc.loadbalancer.providers.gcp.names import describe
from kubesvc.loadbalancer.providers.gcp.resources import NODE_HEALTH_PORT, Found, Kind, Names, Site, names_of
from kubesvc.loadbalancer.providers.gcp.wishes import ADDRESSES, Refusal, Wish

_PATCHABLE = {"allowGlobalAccess", "description"}  # a rule's; its description can't be, and is not worth a new rule
_REPLACING = {"loadBalancingScheme", "protocol"}  # a backend service's, while rules lead to it


class Verb(StrEnum):
    INSERT = "insert"
    PATCH = "patch"
    UPDATE = "update"
    DELETE = "delete"
    ADD_INSTANCES = "add_instances"
    REMOVE_INSTANCES = "remove_instances"


class Step(msgspec.Struct, frozen=True):
    """`body` of ADD_INSTANCES and REMOVE_INSTANCES: {"instances": names of VMs}."""

    verb: Verb
    kind: Kind
    name: str
    body: JSON


class Address(msgspec.Struct, frozen=True):
    """`ip` "": whatever the service gives. `reserved`: a static address of the user's holds it."""

    ip: str
    reserved: bool


def address_of(site: Site, service: Service, wish: Wish, found: Found, shown: str) -> Address | Refusal:
    """Which address the Service is to have: the one asked for, else the one it has, else the one it had (`shown`, ""
    for none), which can be had again while it is reserved."""
    names = names_of(site, service)
    others = {name: a for name, a in found.of(Kind.ADDRESS).items() if name != names.address}
    asked = wish.ip
    if wish.address_name:
        named = others.get(wish.address_name)
        where = f"annotation {ADDRESSES}: {wish.address_name!r}"
        if named is None:
            return Refusal("AddressNotFound", f"{where} is no static address of region {site.region}; reserve it first")
        problem = _unfit(named, wish)
        if problem:
            return Refusal("AddressUnfit", f"{where} {problem}")
        if asked and asked != named["address"]:
            message = f"{where} is {named['address']}, and spec.loadBalancerIP asks for {asked}; ask for one"
            return Refusal("ConflictingRequest", message)
        return Address(named["address"], True)
    current = _current(names, wish, found)
    used = {rule.get("IPAddress") for rule in found.of(Kind.RULE).values()} | {""}
    if not asked and not current and shown not in used:
        current = next((shown for a in others.values() if a.get("address") == shown and not _unfit(a, wish)), "")
    ip = asked or current
    holder = next((a for a in others.values() if ip and a.get("address") == ip), None)
    problem = _unfit(holder, wish) if holder is not None else ""
    if problem:
        return Refusal("AddressUnfit", f"{ip} (address {holder and holder['name']}) {problem}")
    if asked and holder is None and asked != current and not wish.internal:
        message = f"spec.loadBalancerIP: {asked} is no static address of region {site.region}; reserve it first"
        return Refusal("AddressNotFound", message)
    return Address(ip, holder is not None)


def shared_steps(site: Site, found: Found, nodes: Mapping[str, frozenset[str]], *, check: bool) -> Iterator[Step]:
    """`nodes`: zone -> its VMs. `check`: some Service of policy Cluster needs the nodes' health check."""
    for zone in sorted(nodes):
        name = f"{zone}/{site.prefix}"
        if found.get(Kind.GROUP, name) is None:
            yield Step(Verb.INSERT, Kind.GROUP, name, resources.instance_group(site))
    for name in sorted(found.of(Kind.GROUP)):
        zone, _, bare = name.partition("/")
        if bare == site.prefix:
            wanted, present = nodes.get(zone, frozenset()), found.members.get(name, frozenset())
            if wanted - present:
                yield Step(Verb.ADD_INSTANCES, Kind.GROUP, name, {"instances": sorted(wanted - present)})
            if present - wanted:
                yield Step(Verb.REMOVE_INSTANCES, Kind.GROUP, name, {"instances": sorted(present - wanted)})
    if check:
        prefix = Names("", site.prefix)
        yield from _check(
            site, found, prefix.shared_check, prefix.shared_firewall, describe(site.cluster), NODE_HEALTH_PORT
        )


def tidy_steps(site: Site, found: Found, zones: Iterable[str], *, used: bool, check: bool) -> Iterator[Step]:
    """Remove what is shared and has no user any more. `used`: there are Services; `check`: some of policy Cluster."""
    referenced = {plain(link) for service in found.of(Kind.BACKEND_SERVICE).values() for link in _references(service)}
    prefix = Names("", site.prefix)
    if not check and site.link(Kind.HEALTH_CHECK, prefix.shared_check) not in referenced:
        yield from _deletions(found, (Kind.HEALTH_CHECK, prefix.shared_check), (Kind.FIREWALL, prefix.shared_firewall))
    needed = set(zones) if used else set()
    for name in sorted(found.of(Kind.GROUP)):
        zone, _, bare = name.partition("/")
        if bare == site.prefix and zone not in needed and site.link(Kind.GROUP, name) not in referenced:
            yield Step(Verb.DELETE, Kind.GROUP, name, {})


def ensure_steps(
    site: Site, service: Service, wish: Wish, address: Address, found: Found, zones: Iterable[str]
) -> Iterator[Step]:
    """A Service's own objects. `address` is `address_of` the same `found`."""
    names, ip = names_of(site, service), address.ip
    wanted = resources.forwarding_rules(site, service, wish, ip)
    rules = {name: found.of(Kind.RULE)[name] for name in names.rules if name in found.of(Kind.RULE)}
    outdated = [name for name, rule in rules.items() if name not in wanted or not _usable(wanted[name], rule)]
    missing = [name for name in wanted if name not in rules or name in outdated]

    backend = resources.backend_service(site, service, wish, zones)
    before = found.get(Kind.BACKEND_SERVICE, names.base)
    difference = changed(backend, before) if before is not None else backend
    rebuilt = before is not None and bool(difference.keys() & _REPLACING)
    if rebuilt:
        outdated, missing = list(rules), list(wanted)

    held = found.get(Kind.ADDRESS, names.address)
    hold = bool(missing) and not address.reserved and (bool(ip) or len(wanted) > 1)
    if held is not None and (missing or address.reserved) and not (hold and _holds(held, wish, ip)):
        yield Step(Verb.DELETE, Kind.ADDRESS, names.address, {})
        held = None
    if hold and held is None:
        yield Step(Verb.INSERT, Kind.ADDRESS, names.address, resources.held_address(site, service, wish, ip))

    if wish.health_port:
        says = describe(site.cluster, service)
        yield from _check(site, found, names.check, names.check_firewall, says, wish.health_port)
    if rebuilt and before is not None:
        for name in outdated:
            yield Step(Verb.DELETE, Kind.RULE, name, {})
        if "loadBalancingScheme" in difference:
            yield Step(Verb.DELETE, Kind.BACKEND_SERVICE, names.base, {})
            before, difference = None, backend
    if before is None:
        yield Step(Verb.INSERT, Kind.BACKEND_SERVICE, names.base, backend)
    elif difference:
        patch = difference | ({"fingerprint": before["fingerprint"]} if "fingerprint" in before else {})
        yield Step(Verb.PATCH, Kind.BACKEND_SERVICE, names.base, patch)

    if ip:
        yield from _firewall(found, resources.firewall(site, service, wish, ip))
    for name in [] if rebuilt else outdated:
        yield Step(Verb.DELETE, Kind.RULE, name, {})
    for name in missing:
        yield Step(Verb.INSERT, Kind.RULE, name, wanted[name])
    for name in wanted.keys() - set(missing):
        access = {key: v for key, v in changed(wanted[name], rules[name]).items() if key == "allowGlobalAccess"}
        if access:
            yield Step(Verb.PATCH, Kind.RULE, name, access)
    if not wish.health_port:
        yield from _deletions(found, (Kind.HEALTH_CHECK, names.check), (Kind.FIREWALL, names.check_firewall))
    if held is not None:
        yield Step(Verb.DELETE, Kind.ADDRESS, names.address, {})


def delete_steps(site: Site, service: Service, found: Found) -> Iterator[Step]:
    names = names_of(site, service)
    yield from _deletions(
        found,
        *((Kind.RULE, name) for name in names.rules),
        (Kind.BACKEND_SERVICE, names.base),
        (Kind.HEALTH_CHECK, names.check),
        (Kind.FIREWALL, names.check_firewall),
        (Kind.FIREWALL, names.firewall),
        (Kind.ADDRESS, names.address),
    )


def ips_of(site: Site, service: Service, found: Found) -> list[str]:
    """The addresses that the Service's forwarding rules have."""
    rules = found.of(Kind.RULE)
    return sorted({rules[name]["IPAddress"] for name in names_of(site, service).rules if name in rules})


def _current(names: Names, wish: Wish, found: Found) -> str:
    """The address of the rules, else the one held for them; "" when none of this scheme, tier and subnet is there."""
    for name in names.rules:
        rule = found.get(Kind.RULE, name)
        if rule is not None and _same_pool(rule["loadBalancingScheme"], rule, wish):
            return str(rule["IPAddress"])
    held = found.get(Kind.ADDRESS, names.address)
    return str(held.get("address", "")) if held is not None and _same_pool(held["addressType"], held, wish) else ""


def _same_pool(scheme: str, found: JSON, wish: Wish) -> bool:
    if scheme != resources.scheme(wish):
        return False
    if wish.internal:
        return not wish.subnet or str(found.get("subnetwork", "")).endswith(f"/{wish.subnet}")
    return bool(found.get("networkTier", "PREMIUM") == wish.tier)


def _holds(held: JSON, wish: Wish, ip: str) -> bool:
    return _same_pool(held["addressType"], held, wish) and (not ip or held.get("address") == ip)


def _unfit(address: JSON, wish: Wish) -> str:
    """Why a static address can't be this load balancer's; "" when it can."""
    if address.get("addressType", "EXTERNAL") != resources.scheme(wish):
        return f"is {address.get('addressType', 'EXTERNAL')}, and the load balancer is {resources.scheme(wish)}"
    if not wish.internal and address.get("networkTier", "PREMIUM") != wish.tier:
        return f"is of network tier {address.get('networkTier', 'PREMIUM')}, and the load balancer of {wish.tier}"
    return ""


def _usable(wanted: JSON, rule: JSON) -> bool:
    """Whether it needs no replacement."""
    if "ports" in wanted and not rule.get("ports"):  # one port may be told as a range
        low, _, high = str(rule.get("portRange", "")).partition("-")
        rule = rule | ({"ports": [low]} if low and low == (high or low) else {})
    return not changed(wanted, rule).keys() - _PATCHABLE


def _check(site: Site, found: Found, name: str, firewall: str, says: str, port: int) -> Iterator[Step]:
    check = resources.health_check(name, says, port)
    before = found.get(Kind.HEALTH_CHECK, name)
    if before is None:
        yield Step(Verb.INSERT, Kind.HEALTH_CHECK, name, check)
    elif not matches(check, before):
        yield Step(Verb.PATCH, Kind.HEALTH_CHECK, name, changed(check, before))
    yield from _firewall(found, resources.check_firewall(site, firewall, says, port))


def _firewall(found: Found, wanted: JSON) -> Iterator[Step]:
    """Put as a whole: a patch can't take a list's last entry away."""
    before = found.get(Kind.FIREWALL, wanted["name"])
    if before is None:
        yield Step(Verb.INSERT, Kind.FIREWALL, wanted["name"], wanted)
    elif not matches({"targetTags": [], "destinationRanges": [], **wanted}, before):
        yield Step(Verb.UPDATE, Kind.FIREWALL, wanted["name"], wanted)


def _references(service: JSON) -> list[str]:
    return [*service.get("healthChecks", ()), *(backend["group"] for backend in service.get("backends", ()))]


def _deletions(found: Found, *which: tuple[Kind, str]) -> Iterator[Step]:
    for kind, name in which:
        if found.get(kind, name) is not None:
            yield Step(Verb.DELETE, kind, name, {})
