"""Azure Resource Manager on loopback: the network kinds that a load balancer is made of, for the real SDK.

Keeps what the service keeps (ids, ETags, provisioningState, sub-resources inside their document, what refers to what),
refuses what it refuses, runs writes as long operations, and goes wrong when told to: before a call has been carried
out, or after. TLS, because the SDK sends its token nowhere else.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import random
import re
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from aiohttp import web
from azure.core.credentials import AccessToken
from msgspec.structs import replace

from kubesvc.loadbalancer.providers.azure.client import Client
from kubesvc.loadbalancer.providers.azure.config import AzureConfig
from support.certificates import Authority

Json = dict[str, Any]
SUBSCRIPTION, GROUP, LOCATION = "00000000-0000-0000-0000-000000000001", "shop", "westeurope"
NETWORK = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Network"
VNET, SUBNET, NSG = "nodes", "default", "nodes-nsg"
SUBNETS = {"default": ip_network("10.0.0.0/24"), "front": ip_network("10.0.7.0/24")}
PREFIX = f"{NETWORK}/publicIPPrefixes/ours"
KINDS = ("loadBalancers", "publicIPAddresses", "networkSecurityGroups")
SUBS = ("frontendIPConfigurations", "backendAddressPools", "loadBalancingRules", "probes", "outboundRules")
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?")
RESOURCE = re.compile(
    r"/subscriptions/(?P<sub>[^/]+)(/resourceGroups/(?P<group>[^/]+))?/providers/Microsoft\.Network/(?P<kind>\w+)"
    r"(/(?P<name>[^/]+))?",
    re.IGNORECASE,
)


class Wrong(Exception):
    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


@dataclass
class Trouble:
    """`rate` of all requests go wrong. Half of what goes wrong does so after the request has been carried out."""

    rate: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    planned: list[str] = field(default_factory=list)
    """Of the next writes: "ok", "409", "412", "429", "500", "drop" (not carried out), "lost" (carried
    out), "fails" (accepted, and then the long operation fails)."""

    met: Counter[str] = field(default_factory=Counter)
    _decks: dict[bool, list[str]] = field(default_factory=lambda: {False: [], True: []})

    def next(self, writes: bool) -> str:
        if writes and self.planned:
            return self.planned.pop(0)
        if self.dice.random() >= self.rate:
            return "ok"
        deck = self._decks[writes]
        if not deck:  # every kind is met before one is met again: none is missing by chance
            deck += ["500", "drop", "lost", "lost", "late"] + (["409", "412"] if writes else ["429"])
            self.dice.shuffle(deck)
        kind = deck.pop()
        self.met[kind] += 1
        return kind


class Azure:
    """The service. `things`: id in lower case -> document; `calls`: ("PUT", "loadBalancers") -> how often."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.things: dict[str, Json] = {}
        self.calls: Counter[tuple[str, str]] = Counter()
        self.trouble = Trouble()
        self.retry_after = "0"
        self.polls = 1  # looks at an operation until it is done
        self._failing: set[str] = set()  # ids whose operation won't succeed
        self._operations: dict[str, tuple[int, str]] = {}  # number -> (looks left, id of what it writes)
        self.url = ""
        self._connections: set[asyncio.Transport] = set()
        self.put_now(f"{NETWORK}/networkSecurityGroups/{NSG}", {"location": LOCATION, "properties": {}})

    # ── what tests look at and prepare ───────────────────────────────────────────────────────────────────────────────

    def put_now(self, id: str, document: Json) -> Json:
        """As if somebody else had done it."""
        kind, name = id.split("/")[-2:]
        made = {"id": id, "name": name, "type": f"Microsoft.Network/{kind}", **copy.deepcopy(document)}
        made.setdefault("properties", {})["provisioningState"] = "Succeeded"
        made["etag"] = self._etag()
        self.things[id.lower()] = made
        return made

    def public_ip(self, name: str, address: str, *, group: str = GROUP, **more: Any) -> str:
        """A public IP of the user's; its id."""
        id = (
            f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.Network/publicIPAddresses/{name}"
        )
        version = f"IPv{ip_address(address).version}"
        properties = {"ipAddress": address, "publicIPAddressVersion": version, "publicIPAllocationMethod": "Static"}
        self.put_now(id, {"location": LOCATION, "sku": {"name": "Standard"}, "properties": properties, **more})
        return id

    def balancer(self, name: str = "kubernetes") -> Json:
        return self.things[f"{NETWORK}/loadBalancers/{name}".lower()]

    def rules(self, name: str = "kubernetes") -> dict[int, Json]:
        """Frontend port -> the rule's properties."""
        listed = self.balancer(name)["properties"]["loadBalancingRules"]
        return {rule["properties"]["frontendPort"]: rule["properties"] for rule in listed}

    def probes(self, name: str = "kubernetes") -> list[Json]:
        return [probe["properties"] for probe in self.balancer(name)["properties"]["probes"]]

    def doors(self) -> list[Json]:
        found = self.things[f"{NETWORK}/networkSecurityGroups/{NSG}".lower()]["properties"].get("securityRules", [])
        return [rule["properties"] for rule in found]

    def names(self, kind: str) -> list[str]:
        return sorted(thing["name"] for id, thing in self.things.items() if id.split("/")[-2] == kind.lower())

    def mutations(self) -> int:
        return sum(count for (method, _), count in self.calls.items() if method != "GET")

    # ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self._connections.add(request.transport)
        operation = "/operations/" in request.path
        found = RESOURCE.match(request.path)
        kind = "operations" if operation else (found["kind"] if found else "")
        self.calls[request.method, kind] += 1
        fate = self.trouble.next(request.method != "GET")
        try:
            if fate == "drop":
                raise ConnectionResetError
            self._refuse(fate)
            response = self._operation(request) if operation else await self._resource(request, found)
            if fate == "fails":
                self._failing.add(request.path.lower())
            if fate in ("lost", "late"):
                raise ConnectionResetError
            return response
        except ConnectionResetError:
            request.transport.abort()
            return web.Response()
        except Wrong as wrong:
            body = {"error": {"code": wrong.code, "message": str(wrong)}}
            return web.json_response(body, status=wrong.status, headers=wrong.headers)

    async def hang_up(self) -> None:
        """Over TLS a connection isn't closed before its other end has said so: don't wait for that."""
        for connection in self._connections:
            connection.abort()
        for _ in range(5):
            await asyncio.sleep(0)

    def _refuse(self, fate: str) -> None:
        if fate == "409":
            raise Wrong(409, "AnotherOperationInProgress", "another operation on this resource is in progress")
        if fate == "412":
            raise Wrong(412, "PreconditionFailed", "the resource was modified meanwhile")
        if fate == "429":
            raise Wrong(429, "TooManyRequests", "too many requests", **{"Retry-After": self.retry_after})
        if fate == "500":
            raise Wrong(500, "InternalServerError", "an error occurred")

    async def _resource(self, request: web.Request, found: re.Match[str] | None) -> web.Response:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d(-preview)?", request.query.get("api-version", "")):
            raise Wrong(400, "MissingApiVersionParameter", "the api-version query parameter is required")
        if request.headers.get("Authorization") != "Bearer token":
            raise Wrong(401, "AuthenticationFailed", "authentication failed")
        if found is None or found["kind"] not in KINDS or found["sub"] != SUBSCRIPTION:
            raise Wrong(404, "InvalidResourceType", f"{request.path} isn't served")
        if found["name"] is None:
            listed = [t for i, t in self.things.items() if f"/{found['kind'].lower()}/" in i]
            return web.json_response({"value": listed})
        id = request.path
        there = self.things.get(id.lower())
        if request.method == "GET":
            if there is None:
                raise Wrong(404, "ResourceNotFound", f"the resource {id} was not found")
            return web.json_response(there)
        self._check_etag(request, there)
        if request.method == "PUT":
            body = json.loads(await request.text())
            document = getattr(self, f"_put_{found['kind']}")(id, body, there)
            document["properties"]["provisioningState"] = "Updating" if self.polls else "Succeeded"
            self.things[id.lower()] = document
            return web.json_response(document, status=200 if there else 201, headers=self._begin(id))
        if there is None:
            return web.Response(status=204)
        getattr(self, f"_delete_{found['kind']}", lambda _: None)(there)
        del self.things[id.lower()]
        return web.Response(status=202, headers=self._begin(id))

    def _check_etag(self, request: web.Request, there: Json | None) -> None:
        match = request.headers.get("If-Match")
        if match not in (None, "*") and (there is None or there["etag"] != match):
            raise Wrong(412, "PreconditionFailed", f"If-Match {match} isn't the resource's ETag")
        if request.headers.get("If-None-Match") == "*" and there is not None:
            raise Wrong(412, "PreconditionFailed", "the resource exists")

    def _begin(self, id: str) -> dict[str, str]:
        if not self.polls:
            return {}
        number = str(next(self._numbers))
        self._operations[number] = (self.polls, id.lower())
        path = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Network/locations/{LOCATION}"
        url = f"{self.url}{path}/operations/{number}?api-version=2024-05-01"
        return {"Azure-AsyncOperation": url, "Location": url.replace("/operations/", "/operationResults/")}

    def _operation(self, request: web.Request) -> web.Response:
        number = request.path.rsplit("/", 1)[-1]
        if number not in self._operations:
            raise Wrong(404, "NotFound", f"there is no operation {number}")
        left, id = self._operations[number]
        self._operations[number] = (left - 1, id)
        if left > 1:
            return web.json_response({"status": "InProgress"})
        if id in self._failing:
            self._failing.discard(id)
            self.things[id]["properties"]["provisioningState"] = "Failed"
            error = {"code": "InternalServerError", "message": "the operation failed"}
            return web.json_response({"status": "Failed", "error": error})
        if id in self.things:
            self.things[id]["properties"]["provisioningState"] = "Succeeded"
        return web.json_response({"status": "Succeeded"})

    # ── load balancers ───────────────────────────────────────────────────────────────────────────────────────────────

    def _put_loadBalancers(self, id: str, body: Json, there: Json | None) -> Json:
        made = self._begun(id, body)
        properties = made["properties"]
        subs: dict[str, Json] = {}
        for kind in SUBS:
            properties.setdefault(kind, [])
            for item in properties[kind]:
                if not NAME.fullmatch(item.get("name", "")):
                    raise Wrong(400, "InvalidResourceName", f"resource name {item.get('name')!r} is invalid")
                item |= {"id": f"{id}/{kind}/{item['name']}", "etag": made["etag"]}
                if subs.setdefault(item["id"].lower(), item) is not item:
                    raise Wrong(400, "DuplicateResourceName", f"resource {item['name']} has two or more children")
                item.setdefault("properties", {})["provisioningState"] = "Succeeded"
        self._frontends(id, properties["frontendIPConfigurations"], there)
        for probe in properties["probes"]:
            self._probe(probe["properties"])
        self._rules(properties, subs)
        self._pools(properties["backendAddressPools"])
        for ip in self.things.values():
            holder = ip["properties"].get("ipConfiguration", {}).get("id", "")
            if holder.startswith(f"{id}/"):
                del ip["properties"]["ipConfiguration"]
        for frontend in properties["frontendIPConfigurations"]:
            if "publicIPAddress" in frontend["properties"]:
                ip = self.things[frontend["properties"]["publicIPAddress"]["id"].lower()]
                ip["properties"]["ipConfiguration"] = {"id": frontend["id"]}
        return made

    def _delete_loadBalancers(self, there: Json) -> None:
        for ip in self.things.values():
            if ip["properties"].get("ipConfiguration", {}).get("id", "").startswith(f"{there['id']}/"):
                del ip["properties"]["ipConfiguration"]

    def _frontends(self, id: str, frontends: list[Json], there: Json | None) -> None:
        before = {f["name"]: f["properties"] for f in (there or {}).get("properties", {}).get(SUBS[0], ())}
        held: set[str] = set()
        ips: Counter[str] = Counter()
        for item in frontends:
            found = item["properties"]
            if "publicIPAddress" in found:
                where = found["publicIPAddress"]["id"].lower()
                ip = self.things.get(where)
                if ip is None:
                    raise Wrong(400, "InvalidResourceReference", f"{item['id']} refers to {where}, which isn't there")
                holder = ip["properties"].get("ipConfiguration", {}).get("id", "")
                ips[where] += 1
                if ips[where] > 1 or (holder and not holder.startswith(f"{id}/")):
                    raise Wrong(
                        400,
                        "PublicIPReferencedByMultipleIPConfigs",
                        f"{where} is referenced by more than one: {holder}",
                    )
                if ip["sku"]["name"] != "Standard":
                    raise Wrong(400, "LoadBalancerAndPublicIPSkuMismatch", "the SKUs don't match")
                continue
            subnet = found.get("subnet", {}).get("id", "")
            network = SUBNETS.get(subnet.rsplit("/", 1)[-1])
            if network is None or not subnet.lower().startswith(f"{NETWORK}/virtualNetworks/{VNET}/".lower()):
                raise Wrong(400, "InvalidResourceReference", f"{item['id']} refers to {subnet}, which isn't there")
            old = before.get(item["name"], {})
            if old.get("subnet", {}).get("id", subnet).lower() != subnet.lower():
                raise Wrong(400, "SubnetCannotBeChanged", f"the subnet of {item['name']} can't be changed")
            if found.get("privateIPAllocationMethod") == "Static" and found.get("privateIPAddress"):
                if ip_address(found["privateIPAddress"]) not in network:
                    raise Wrong(400, "PrivateIPAddressNotInSubnet", f"{found['privateIPAddress']} isn't in {subnet}")
            else:
                found["privateIPAddress"] = old.get("privateIPAddress") or self._private(network, frontends)
            if found["privateIPAddress"] in held:
                raise Wrong(400, "PrivateIPAddressIsAllocated", f"{found['privateIPAddress']} is allocated already")
            held.add(found["privateIPAddress"])

    @staticmethod
    def _private(network: Any, frontends: list[Json]) -> str:
        held = {f["properties"].get("privateIPAddress") for f in frontends}
        return next(str(a) for a in itertools.islice(network.hosts(), 50, None) if str(a) not in held)

    @staticmethod
    def _probe(probe: Json) -> None:
        if probe["protocol"] not in ("Tcp", "Http", "Https") or not 1 <= probe.get("port", 0) <= 65535:
            raise Wrong(400, "InvalidProbe", f"probe {probe} is invalid")
        if (probe["protocol"] == "Tcp") != (not probe.get("requestPath")):
            raise Wrong(400, "InvalidRequestPath", "a request path is for http and https, and needed there")
        if not probe.get("intervalInSeconds", 15) >= 5:
            raise Wrong(400, "InvalidProbeInterval", "the interval is too small")

    @staticmethod
    def _rules(properties: Json, subs: dict[str, Json]) -> None:
        fronts: set[tuple[str, str, int]] = set()
        backs: dict[tuple[str, str, int, bool], str] = {}
        for rule in properties["loadBalancingRules"]:
            found = rule["properties"]
            wanted = ("frontendIPConfiguration", "backendAddressPool", *(("probe",) if "probe" in found else ()))
            for name in wanted:
                if found.get(name, {}).get("id", "").lower() not in subs:
                    raise Wrong(400, "InvalidResourceReference", f"{rule['id']}: {name} refers to what isn't there")
            if found["protocol"] not in ("Tcp", "Udp", "All") or not 4 <= found.get("idleTimeoutInMinutes", 4) <= 30:
                raise Wrong(400, "LoadBalancingRuleInvalid", f"{rule['id']} is invalid")
            if not 1 <= found["frontendPort"] <= 65534 or not 1 <= found.get("backendPort", 0) <= 65535:
                raise Wrong(400, "LoadBalancingRulePortOutOfRange", f"{rule['id']}: the port is out of range")
            front = (found["frontendIPConfiguration"]["id"].lower(), found["protocol"], found["frontendPort"])
            if front in fronts:
                raise Wrong(400, "RulesUseSameFrontendPortProtocolAndIP", f"{rule['id']} uses a port that is taken")
            fronts.add(front)
            if not found.get("enableFloatingIP"):
                pool = found["backendAddressPool"]["id"].lower()
                back = (pool, found["protocol"], found["backendPort"], False)
                if backs.setdefault(back, rule["id"]) != rule["id"]:
                    raise Wrong(400, "RulesUseSameBackendPortProtocolAndPool", f"{rule['id']}: backend port is taken")

    @staticmethod
    def _pools(pools: list[Json]) -> None:
        for pool in pools:
            names = [a["name"] for a in pool["properties"].get("loadBalancerBackendAddresses", ())]
            for address in pool["properties"].get("loadBalancerBackendAddresses", ()):
                ip_address(address["properties"]["ipAddress"])
                vnet = address["properties"].get("virtualNetwork", {}).get("id", "")
                if vnet.lower() != f"{NETWORK}/virtualNetworks/{VNET}".lower():
                    raise Wrong(400, "InvalidResourceReference", f"{pool['id']} refers to {vnet}, which isn't there")
            if len(set(names)) != len(names):
                raise Wrong(400, "DuplicateResourceName", f"{pool['id']} has two addresses of one name")

    # ── public IPs ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _put_publicIPAddresses(self, id: str, body: Json, there: Json | None) -> Json:
        made = self._begun(id, body)
        properties, before = made["properties"], (there or {}).get("properties", {})
        version = properties.get("publicIPAddressVersion", "IPv4")
        for fixed in ("publicIPAddressVersion", "publicIPPrefix", "ipTags"):
            if there is not None and before.get(fixed) != properties.get(fixed):
                raise Wrong(400, "PublicIPAddressPropertyCannotBeChanged", f"{fixed} can't be changed")
        prefix = properties.get("publicIPPrefix", {}).get("id")
        if prefix and prefix.lower() != PREFIX.lower():
            raise Wrong(400, "InvalidResourceReference", f"{id} refers to {prefix}, which isn't there")
        label = properties.get("dnsSettings", {}).get("domainNameLabel")
        for other, thing in self.things.items():
            if (
                label
                and other != id.lower()
                and thing["properties"].get("dnsSettings", {}).get("domainNameLabel") == label
            ):
                raise Wrong(400, "DnsRecordInUse", f"DNS record {label}.{LOCATION}.cloudapp.azure.com is in use")
        if label:
            properties["dnsSettings"]["fqdn"] = f"{label}.{LOCATION}.cloudapp.azure.com"
        network = "2001:db8:1::" if version == "IPv6" else ("198.51.100." if prefix else "203.0.113.")
        held = {t["properties"].get("ipAddress") for t in self.things.values()}
        fresh = next(network + str(n) for n in range(1, 10_000) if network + str(n) not in held)
        properties["ipAddress"] = before.get("ipAddress") or fresh
        if "ipConfiguration" in before:
            properties["ipConfiguration"] = before["ipConfiguration"]
        return made

    def _delete_publicIPAddresses(self, there: Json) -> None:
        holder = there["properties"].get("ipConfiguration")
        if holder:
            raise Wrong(400, "PublicIPAddressCannotBeDeleted", f"{there['id']} is in use by {holder['id']}")

    # ── security groups ──────────────────────────────────────────────────────────────────────────────────────────────

    def _put_networkSecurityGroups(self, id: str, body: Json, there: Json | None) -> Json:
        made = self._begun(id, body)
        taken: set[tuple[str, int]] = set()
        for rule in made["properties"].setdefault("securityRules", []):
            found = rule["properties"]
            if not NAME.fullmatch(rule["name"]) or not 100 <= found["priority"] <= 4096:
                raise Wrong(400, "SecurityRuleInvalid", f"{rule['name']}: name or priority is invalid")
            if (found["direction"], found["priority"]) in taken:
                raise Wrong(400, "SecurityRuleConflict", f"two rules have priority {found['priority']}")
            taken.add((found["direction"], found["priority"]))
            for what in ("sourceAddressPrefix", "destinationAddressPrefix", "destinationPortRange"):
                plural = what + ("es" if what.endswith("Prefix") else "s")
                if (what in found) == bool(found.get(plural)):
                    raise Wrong(400, "SecurityRuleInvalid", f"{rule['name']}: one of {what} and {plural} is needed")
                for part in found.get(plural, ()) if what.endswith("Prefix") else ():
                    ip_network(part)  # service tags aren't allowed among several
            rule |= {"id": f"{id}/securityRules/{rule['name']}", "etag": made["etag"]}
        return made

    def _begun(self, id: str, body: Json) -> Json:
        name, kind = id.rsplit("/", 1)[-1], id.split("/")[-2]
        if not NAME.fullmatch(name):
            raise Wrong(400, "InvalidResourceName", f"resource name {name} is invalid")
        if "location" not in body:
            raise Wrong(400, "LocationRequired", "the location property is required")
        properties = body.pop("properties", {})
        return {
            **body,
            "id": id,
            "name": name,
            "type": f"Microsoft.Network/{kind}",
            "etag": self._etag(),
            "properties": properties,
        }

    def _etag(self) -> str:
        return f'W/"{next(self._numbers):08d}"'


class Token:
    """A credential that is always good."""

    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        return AccessToken("token", int(time.time()) + 3600)


@asynccontextmanager
async def azure(**more: Any) -> AsyncIterator[tuple[Azure, AzureConfig]]:
    """The service, and a configuration that leads to it."""
    service = Azure()
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        Authority(directory).serving("azure", "127.0.0.1", "localhost")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(directory / "azure.crt", directory / "azure.key")
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", service.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        service.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        config = AzureConfig(
            SUBSCRIPTION,
            GROUP,
            LOCATION,
            VNET,
            SUBNET,
            NSG,
            endpoint=service.url,
            ca_file=directory / "ca.crt",
            poll=0.01,
        )
        try:
            yield service, replace(config, **more)
        finally:
            await service.hang_up()
            await runner.cleanup()


def client(config: AzureConfig) -> Client:
    return Client(config, Token())
