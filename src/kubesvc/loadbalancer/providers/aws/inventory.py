"""What is in AWS for each Service, read once and kept as it changes.

Everything is found by its tags. One look at all load balancers, target groups and security groups serves all Services;
what a Service's own have inside no list tells: it is read when it matters. From then on the calls that succeed keep it
true.
After any that didn't, nobody knows what was done: the Service's is forgotten, and all are looked at again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from kubesvc.loadbalancer.providers.aws import names, permissions
from kubesvc.loadbalancer.providers.aws.client import AwsError, Client
from kubesvc.loadbalancer.providers.aws.model import (
    Found,
    FoundBalancer,
    FoundGroup,
    FoundListener,
    FoundSecurityGroup,
    Health,
    Place,
)

TAGGED = 20  # resources whose tags one call tells


class Inventory:
    def __init__(self, client: Client, cluster: str) -> None:
        self._client = client
        self._cluster = cluster
        self._index: dict[str, Found] | None = None  # service's tag -> what is there, its insides unread
        self._looked = 0  # how often all were looked at
        self._known: dict[str, Found] = {}  # service's tag -> what is there, kept true
        self._inside: set[str] = set()  # services' tags whose insides were read
        self._trusting = True  # what was applied once is believed to be so still
        self._lock = asyncio.Lock()

    async def of(self, service: str) -> Found:
        """What there is as lists tell it, to be changed as calls succeed. Raises AwsError."""
        known = self._known.get(service)
        if known is None:
            index = await self._all()
            known = self._known[service] = index.pop(service, Found())
        return known

    async def need_inside(self, service: str, found: Found, applied: Callable[[], bool]) -> bool:
        """Is the inside known? It is read where it wasn't yet, unless the tag says what was `applied` and nobody had
        the time to change it. Raises AwsError."""
        if service in self._inside and self._known.get(service) is found:
            return True
        if self._trusting and applied():
            return False
        await self._read_inside(found)
        if self._known.get(service) is found:
            self._inside.add(service)
        return True

    def doubt(self, service: str) -> None:
        """Something failed half-way: look again."""
        self.forget(service)
        self._index = None

    def doubt_all(self) -> None:
        """Others may have changed anything, also what no list tells: from now on all is read."""
        self._trusting = False
        self._known.clear()
        self._inside.clear()
        self._index = None

    def forget(self, service: str) -> None:
        """All of it is gone."""
        self._known.pop(service, None)
        self._inside.discard(service)
        if self._index is not None:
            self._index.pop(service, None)

    async def _all(self) -> dict[str, Found]:
        async with self._lock:
            while self._index is None:
                self._index = {}  # who doubts meanwhile sets it to None again
                mine = self._index
                try:
                    found = await self._look()
                except BaseException:
                    self._index = None
                    raise
                if self._index is mine:
                    self._index = found
            return self._index

    async def _look(self) -> dict[str, Found]:
        balancers, groups, security = await asyncio.gather(
            self._client.pages("elbv2", "describe_load_balancers", "LoadBalancers"),
            self._client.pages("elbv2", "describe_target_groups", "TargetGroups"),
            self._client.pages(
                "ec2",
                "describe_security_groups",
                "SecurityGroups",
                Filters=[
                    {"Name": f"tag:{names.CLUSTER}", "Values": [self._cluster]},
                    {"Name": f"tag:{names.RESOURCE}", "Values": [names.FRONTEND]},
                ],
            ),
        )
        network = [one for one in balancers if one.get("Type") == "network"]
        arns = [one["LoadBalancerArn"] for one in network] + [one["TargetGroupArn"] for one in groups]
        tags = await self._tags(arns)
        found: dict[str, Found] = {}
        for one in network:
            if (service := self._service(tags.get(one["LoadBalancerArn"], {}))) is not None:
                found.setdefault(service, Found()).balancer = _balancer(one, tags[one["LoadBalancerArn"]])
        for one in groups:
            arn = one["TargetGroupArn"]
            if (service := self._service(tags.get(arn, {}))) is not None:
                found.setdefault(service, Found()).groups[arn] = _group(one, tags[arn])
        for one in security:
            its = {tag["Key"]: tag["Value"] for tag in one.get("Tags", ())}
            if (service := self._service(its)) is not None:
                rules = permissions.from_wire(one.get("IpPermissions", ()))
                found.setdefault(service, Found()).security_group = FoundSecurityGroup(one["GroupId"], rules, its)
        return found

    def _service(self, tags: Mapping[str, str]) -> str | None:
        return tags.get(names.SERVICE) if tags.get(names.CLUSTER) == self._cluster else None

    async def _tags(self, arns: list[str]) -> dict[str, dict[str, str]]:
        """arn -> its tags. What goes away meanwhile is left out."""
        chunks = [arns[n : n + TAGGED] for n in range(0, len(arns), TAGGED)]
        answers = await asyncio.gather(*(self._some_tags(chunk) for chunk in chunks))
        return {arn: tags for answer in answers for arn, tags in answer.items()}

    async def _some_tags(self, arns: list[str]) -> dict[str, dict[str, str]]:
        try:
            answer = await self._client.call("elbv2", "describe_tags", ResourceArns=arns)
        except AwsError as error:
            if not error.code.endswith("NotFound"):
                raise
            if len(arns) == 1:
                return {}
            halves = await asyncio.gather(*(self._some_tags(h) for h in (arns[::2], arns[1::2])))
            return halves[0] | halves[1]
        return {
            one["ResourceArn"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in answer["TagDescriptions"]
        }

    # ── insides ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _read_inside(self, found: Found) -> None:
        await asyncio.gather(
            *(self._read_group(group) for group in found.groups.values()),
            *([self._read_balancer(found, found.balancer)] if found.balancer else []),
        )

    async def _attributes(self, operation: str, **arn: str) -> dict[str, str]:
        answer = await self._client.call("elbv2", operation, **arn)
        return {pair["Key"]: pair["Value"] for pair in answer["Attributes"]}

    async def _read_group(self, group: FoundGroup) -> None:
        group.attributes = await self._attributes("describe_target_group_attributes", TargetGroupArn=group.arn)
        answer = await self._client.call("elbv2", "describe_target_health", TargetGroupArn=group.arn)
        group.targets = {
            (one["Target"]["Id"], int(one["Target"]["Port"]))
            for one in answer["TargetHealthDescriptions"]
            if one.get("TargetHealth", {}).get("State") != "draining"
        }

    async def _read_balancer(self, found: Found, balancer: FoundBalancer) -> None:
        arn = balancer.arn
        balancer.attributes = await self._attributes("describe_load_balancer_attributes", LoadBalancerArn=arn)
        listeners = await self._client.pages("elbv2", "describe_listeners", "Listeners", LoadBalancerArn=arn)
        found.listeners.clear()
        for one in listeners:
            found.listeners[int(one["Port"])] = await self._listener(one)

    async def _listener(self, one: dict[str, Any]) -> FoundListener:
        arn, over_tls = one["ListenerArn"], one["Protocol"] == "TLS"
        first = tuple(c["CertificateArn"] for c in one.get("Certificates", ()))[:1]
        more: tuple[str, ...] = ()
        if over_tls:
            listed = await self._client.pages(
                "elbv2", "describe_listener_certificates", "Certificates", ListenerArn=arn
            )
            more = tuple(c["CertificateArn"] for c in listed if c["CertificateArn"] not in first)
        return FoundListener(
            arn,
            one["Protocol"],
            next((a.get("TargetGroupArn", "") for a in one.get("DefaultActions", ())), ""),
            first + more,
            one.get("SslPolicy", "") if over_tls else "",
            next(iter(one.get("AlpnPolicy") or ()), "None") if over_tls else "None",
            await self._attributes("describe_listener_attributes", ListenerArn=arn) if one["Protocol"] == "TCP" else {},
        )


def _balancer(one: dict[str, Any], tags: dict[str, str]) -> FoundBalancer:
    places: dict[str, Place] = {}
    for zone in one.get("AvailabilityZones", ()):
        addresses = zone.get("LoadBalancerAddresses") or [{}]
        places[zone["SubnetId"]] = Place(
            zone["SubnetId"],
            next((a["AllocationId"] for a in addresses if a.get("AllocationId")), ""),
            next((a["PrivateIPv4Address"] for a in addresses if a.get("PrivateIPv4Address")), ""),
            next((a["IPv6Address"] for a in addresses if a.get("IPv6Address")), ""),
        )
    return FoundBalancer(
        one["LoadBalancerArn"],
        one["LoadBalancerName"],
        one["DNSName"],
        one["Scheme"],
        one.get("IpAddressType", "ipv4"),
        places,
        tuple(one.get("SecurityGroups") or ()),
        tags=tags,
    )


def _group(one: dict[str, Any], tags: dict[str, str]) -> FoundGroup:
    http = one["HealthCheckProtocol"] != "TCP"
    health = Health(
        one["HealthCheckProtocol"],
        str(one["HealthCheckPort"]),
        one.get("HealthCheckPath", "") if http else "",
        int(one["HealthCheckIntervalSeconds"]),
        int(one["HealthCheckTimeoutSeconds"]),
        int(one["HealthyThresholdCount"]),
        int(one["UnhealthyThresholdCount"]),
        one.get("Matcher", {}).get("HttpCode", "") if http else "",
    )
    return FoundGroup(one["TargetGroupArn"], tags.get(names.RESOURCE, ""), health, tags=tags)
