"""The shared load balancer's document: which frontends, pools, rules and probes the Services have in it. Pure.

    Service ──► frontend (address) ◄── rule (port) ──► pool (all nodes, by address; one a family)
                                          └──► probe

One load balancer has all external Services of a cluster, another all internal ones. A frontend belongs to an address,
not to a Service: Services on one address share it, with ports that differ, and it goes with the last of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.loadbalancer.providers.azure.config import AzureConfig
from kubesvc.loadbalancer.providers.azure.merged import OURS, Merged, prefix, same
from kubesvc.loadbalancer.providers.azure.wish import FAMILIES, Port, Probe, Wish

CLUSTER_TAG = "kubesvc-cluster"
FRONTENDS, POOLS = "frontendIPConfigurations", "backendAddressPools"
RULES, PROBES = "loadBalancingRules", "probes"
OTHERS = ("inboundNatRules", "inboundNatPools", "outboundRules")
LONGEST_NAME = 80


class Frontend(msgspec.Struct, frozen=True):
    """`name`: as it would be; an existing one with the same internal address is used instead."""

    name: str
    family: str
    public_ip: str = ""  # id
    subnet: str = ""  # id
    address: str = ""  # internal and asked for


class Share(msgspec.Struct, frozen=True):
    """What one Service wants of the document."""

    uid: str
    key: str
    frontends: tuple[Frontend, ...]
    ports: tuple[Port, ...]
    local_probe: bool
    idle_timeout: int
    floating: bool
    sticky: bool


class Site(msgspec.Struct, frozen=True):
    """What all Services have in common. `nodes`: family -> node -> address, None: as the pools are; `names`: uid ->
    key of every Service that lives."""

    config: AzureConfig
    balancer: str
    cluster: str
    nodes: Mapping[str, Mapping[str, str]] | None
    names: Mapping[str, str]


def share_of(wish: Wish, frontends: Sequence[Frontend]) -> Share:
    return Share(
        wish.uid,
        wish.key,
        tuple(frontends),
        wish.ports,
        wish.local_probe,
        wish.idle_timeout,
        wish.floating,
        wish.sticky,
    )


def internal_frontend(wish: Wish, family: str, config: AzureConfig) -> Frontend:
    """An address asked for may be shared, so its name is the address's."""
    address = wish.addresses.get(family, "")
    name = f"{prefix(wish.uid)}{_short(family)}-{wish.subnet or config.subnet}"
    if address:
        name = f"{OURS}in-{address.replace(':', '-').strip('-')}-{_digest(wish.subnet or config.subnet)}"
    if len(name) > LONGEST_NAME:
        name = f"{prefix(wish.uid)}{_short(family)}-{_digest(wish.subnet)}"
    return Frontend(name, family, subnet=config.subnet_id(wish.subnet), address=address)


def public_frontend(public_ip: str, owner: str, family: str) -> Frontend:
    """`owner`: uid of the Service that the public IP was made for; "": it is the user's."""
    if owner:
        return Frontend(f"{prefix(owner)}{_short(family)}-{_digest(public_ip)}", family, public_ip=public_ip)
    name = _name(public_ip)[:50]
    return Frontend(f"{OURS}ip-{name}-{_digest(public_ip)}", family, public_ip=public_ip)


def merge(document: JSON | None, changes: Mapping[str, Share | None], site: Site) -> Merged:
    """`changes`: uid -> what it wants, None: nothing."""
    draft = _Draft(document, site)
    for uid in sorted(changes, key=lambda u: changes[u] is not None):  # who leaves makes room first
        draft.replace(uid, changes[uid])
    return draft.merged()


def frontend_address(document: JSON | None, uid: str, family: str) -> str:
    """The internal address on which a Service is served; "": none."""
    properties = (document or {}).get("properties", {})
    used = {
        _name(rule["properties"]["frontendIPConfiguration"]["id"])
        for rule in properties.get(RULES, ())
        if rule["name"].startswith(f"{prefix(uid)}{_short(family)}-")
    }
    mine = f"{prefix(uid)}{_short(family)}-"
    found = [f for f in properties.get(FRONTENDS, ()) if f["name"] in used or f["name"].startswith(mine)]
    found.sort(key=lambda f: f["name"] not in used)
    return next((f["properties"].get("privateIPAddress", "") for f in found), "")


def used_public_ips(document: JSON | None) -> set[str]:
    """Ids, in lower case, of the public IPs that its frontends have."""
    listed = (document or {}).get("properties", {}).get(FRONTENDS, ())
    found = (item["properties"].get("publicIPAddress") or {} for item in listed)
    return {item["id"].lower() for item in found if item.get("id")}


class _Draft:
    """The document while it is being changed: lists are ours, the things in them are the document's."""

    def __init__(self, document: JSON | None, site: Site) -> None:
        self._site = site
        self._before = document
        properties = (document or {}).get("properties", {})
        self._lists: dict[str, list[JSON]] = {
            k: list(properties.get(k) or ()) for k in (FRONTENDS, POOLS, RULES, PROBES)
        }
        self._touched: set[str] = set()  # frontends that somebody may have left
        self.refused: dict[str, tuple[str, str]] = {}

    def replace(self, uid: str, share: Share | None) -> None:
        kept = {kind: list(self._lists[kind]) for kind in (FRONTENDS, RULES, PROBES)}
        mine = [f["name"] for f in self._lists[FRONTENDS] if f["name"].startswith(prefix(uid))]
        mine += [self._frontend_of(r) for r in self._lists[RULES] if r["name"].startswith(prefix(uid))]
        for kind in (RULES, PROBES):
            self._lists[kind] = [i for i in self._lists[kind] if not i["name"].startswith(prefix(uid))]
        if share is not None and (why := self._add(share)) is not None:
            self.refused[uid] = why
            self._lists.update(kept)
            return
        self._touched.update(mine)

    def merged(self) -> Merged:
        used = {self._frontend_of(rule) for rule in self._lists[RULES]}
        self._lists[FRONTENDS] = [
            f for f in self._lists[FRONTENDS]
            if f["name"] not in self._touched or f["name"] in used or not f["name"].startswith(OURS)
        ]  # fmt: skip
        self._set_pools()
        there = self._before
        properties = (there or {}).get("properties", {})
        if self._empty(properties):
            mine = ((there or {}).get("tags") or {}).get(CLUSTER_TAG) == self._site.cluster
            if there is None or mine:
                return Merged(None, there is not None, self.refused, there is not None)
        unchanged = all(same(properties.get(kind) or (), items) for kind, items in self._lists.items())
        healthy = properties.get("provisioningState") != "Failed"
        before = {r["name"] for r in properties.get(RULES) or ()}
        document = {
            "location": self._site.config.location,
            "sku": {"name": "Standard", "tier": "Regional"},
            "tags": {CLUSTER_TAG: self._site.cluster},
            **(there or {}),
            "properties": {**properties, **self._lists},
        }
        freed = bool(before - {r["name"] for r in self._lists[RULES]})
        return Merged(document, not (unchanged and healthy and there is not None), self.refused, freed)

    def _empty(self, properties: JSON) -> bool:
        return not any(self._lists.values()) and not any(properties.get(kind) for kind in OTHERS)

    # ── one Service ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _add(self, share: Share) -> tuple[str, str] | None:
        """Why it can't be had, or None."""
        taken = {self._slot(rule): rule["name"] for rule in self._lists[RULES]}
        for port in share.ports:
            if port.probe is not None:
                self._put(PROBES, _probe(self._probe_name(share, port), port.probe))
        for frontend in share.frontends:
            name = self._place(frontend)
            for port in share.ports:
                other = taken.get((name, port.protocol, port.port))
                if other is not None:
                    where = f"port {port.port}/{port.protocol.upper()} of the address"
                    return "PortInUse", f"{where} is {self._whose(other)}'s; ask for another port or another address"
                self._put(RULES, self._rule(share, frontend.family, name, port))
        return None

    def _place(self, frontend: Frontend) -> str:
        """The name of the frontend that serves, made or changed where needed."""
        if frontend.address:
            for item in self._lists[FRONTENDS]:
                if item["properties"].get("privateIPAddress") == frontend.address and item["name"].startswith(OURS):
                    return str(item["name"])
        properties: JSON = {"privateIPAddressVersion": frontend.family}
        if frontend.public_ip:
            properties = {"publicIPAddress": {"id": frontend.public_ip}}
        elif frontend.address:
            properties |= {"privateIPAllocationMethod": "Static", "privateIPAddress": frontend.address}
        else:
            properties |= {"privateIPAllocationMethod": "Dynamic"}
        if frontend.subnet:
            properties["subnet"] = {"id": frontend.subnet}
        self._put(FRONTENDS, {"name": frontend.name, "properties": properties})
        return frontend.name

    def _rule(self, share: Share, family: str, frontend: str, port: Port) -> JSON:
        properties: JSON = {
            "frontendIPConfiguration": {"id": self._id(FRONTENDS, frontend)},
            "backendAddressPool": {"id": self._id(POOLS, pool_name(family))},
            "protocol": port.protocol,
            "frontendPort": port.port,
            "backendPort": port.port if share.floating else port.node_port,
            "enableFloatingIP": share.floating,
            "loadDistribution": "SourceIP" if share.sticky else "Default",
            "disableOutboundSnat": True,  # what a node reaches outside isn't ours to decide
        }
        if port.protocol == "Tcp":
            properties |= {"idleTimeoutInMinutes": share.idle_timeout, "enableTcpReset": True}
        if port.probe is not None:
            properties["probe"] = {"id": self._id(PROBES, self._probe_name(share, port))}
        name = f"{prefix(share.uid)}{_short(family)}-{port.protocol.lower()}-{port.port}"
        return {"name": name, "properties": properties}

    @staticmethod
    def _probe_name(share: Share, port: Port) -> str:
        return prefix(share.uid) + ("local" if share.local_probe else f"{port.protocol.lower()}-{port.port}")

    # ── the pools ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _set_pools(self) -> None:
        """One for each family that a rule needs, with every node's address in it."""
        needed = {_name(r["properties"]["backendAddressPool"]["id"]) for r in self._lists[RULES]
                  if r["name"].startswith(OURS)}  # fmt: skip
        for family in FAMILIES:
            name = pool_name(family)
            found = next((p for p in self._lists[POOLS] if p["name"] == name), None)
            if name not in needed:
                self._lists[POOLS] = [p for p in self._lists[POOLS] if p["name"] != name]
            elif found is None or self._site.nodes is not None:
                nodes = (self._site.nodes or {}).get(family, {})
                vnet = {"id": self._site.config.vnet_id}
                addresses = [
                    {"name": node, "properties": {"ipAddress": address, "virtualNetwork": vnet}}
                    for node, address in sorted(nodes.items())
                ]
                self._put(POOLS, {"name": name, "properties": {"loadBalancerBackendAddresses": addresses}})

    # ── names and ids ────────────────────────────────────────────────────────────────────────────────────────────────

    def _put(self, kind: str, item: JSON) -> None:
        self._lists[kind] = [i for i in self._lists[kind] if i["name"] != item["name"]] + [item]

    def _id(self, kind: str, name: str) -> str:
        return f"{self._site.config.balancer_id(self._site.balancer)}/{kind}/{name}"

    def _frontend_of(self, rule: JSON) -> str:
        return _name(rule["properties"]["frontendIPConfiguration"]["id"])

    def _slot(self, rule: JSON) -> tuple[str, str, int]:
        properties = rule["properties"]
        return self._frontend_of(rule), properties["protocol"], properties["frontendPort"]

    def _whose(self, rule: str) -> str:
        names = self._site.names.items()
        return next((f"Service {key}" for uid, key in names if rule.startswith(prefix(uid))), f"rule {rule}")


def pool_name(family: str) -> str:
    return f"{OURS}nodes-{_short(family)}"


def _probe(name: str, probe: Probe) -> JSON:
    properties: JSON = {
        "protocol": probe.protocol,
        "port": probe.port,
        "intervalInSeconds": probe.interval,
        "probeThreshold": probe.count,
        "numberOfProbes": probe.count,
    }
    if probe.path is not None:
        properties["requestPath"] = probe.path
    return {"name": name, "properties": properties}


def _short(family: str) -> str:
    return f"v{FAMILIES[family]}"


def _name(resource_id: str) -> str:
    return resource_id.rsplit("/", 1)[-1]


def _digest(text: str) -> str:
    return sha256(text.lower().encode()).hexdigest()[:8]
