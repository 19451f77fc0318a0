"""What AWS has around load balancers: subnets, instances, security groups. Read rarely: it hardly changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from kubesvc.api.core import LoadBalancerStatus
from kubesvc.loadbalancer.provider import ProviderFailed, Refused
from kubesvc.loadbalancer.providers.aws.client import Client
from kubesvc.loadbalancer.providers.aws.places import Subnet

LASTS = 300.0  # seconds
INSTANCES = 200  # of one call


class Instance(msgspec.Struct, frozen=True):
    vpc: str
    security_groups: tuple[str, ...]


class Surroundings:
    """`clock` gives seconds."""

    def __init__(self, client: Client, vpc: str, cluster: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._vpc = vpc
        self._cluster = cluster
        self._clock = clock
        self._kept: dict[object, tuple[float, Any]] = {}  # what -> when it was read, what it was
        self._instances: dict[str, Instance] = {}
        self._lock = asyncio.Lock()

    def forget(self) -> None:
        """Read all anew: something wasn't as it was taken to be."""
        self._kept.clear()
        self._instances.clear()

    async def vpc(self, instances: Sequence[str]) -> str:
        """The one that was configured, else that of the nodes. Raises ProviderFailed."""
        if self._vpc:
            return self._vpc
        known = await self.instances(instances)
        found = {instance.vpc for instance in known.values()}
        if len(found) != 1:
            listed = ", ".join(sorted(found)) or "none: no Node has a spec.providerID of an instance"
            raise ProviderFailed(f"the nodes are in {len(found)} VPCs ({listed}): give --aws-vpc-id")
        return found.pop()

    async def subnets(self, vpc: str) -> tuple[Subnet, ...]:
        async def read() -> tuple[Subnet, ...]:
            filters = [{"Name": "vpc-id", "Values": [vpc]}]
            found = await self._client.pages("ec2", "describe_subnets", "Subnets", Filters=filters)
            return tuple(
                Subnet(
                    one["SubnetId"],
                    one["AvailabilityZone"],
                    {tag["Key"]: tag["Value"] for tag in one.get("Tags", ())},
                    one["AvailableIpAddressCount"],
                )
                for one in found
            )

        return tuple(await self._keep(("subnets", vpc), read))

    async def instances(self, wanted: Sequence[str]) -> dict[str, Instance]:
        """Those that exist."""
        async with self._lock:
            unknown = [one for one in wanted if one not in self._instances]
            for n in range(0, len(unknown), INSTANCES):
                filters = [{"Name": "instance-id", "Values": unknown[n : n + INSTANCES]}]
                reservations = await self._client.pages("ec2", "describe_instances", "Reservations", Filters=filters)
                for reservation in reservations:
                    for one in reservation["Instances"]:
                        groups = tuple(group["GroupId"] for group in one.get("SecurityGroups", ()))
                        self._instances[one["InstanceId"]] = Instance(one.get("VpcId", ""), groups)
        return {one: self._instances[one] for one in wanted if one in self._instances}

    async def node_groups(self, instances: Sequence[str]) -> frozenset[str]:
        """The security group of each that rules for load balancers go to. Raises ProviderFailed."""
        found: set[str] = set()
        known = await self.instances(instances)
        for name, instance in known.items():
            groups = instance.security_groups
            if len(groups) > 1:
                tag = f"kubernetes.io/cluster/{self._cluster}"
                tagged = {one["GroupId"] for one in await self._groups_with(f"tag-key={tag}")}
                groups = tuple(group for group in groups if group in tagged)
                if len(groups) != 1:
                    raise ProviderFailed(
                        f"instance {name} has several security groups and {len(groups)} of them tagged {tag}: tag the "
                        "one that load balancers' rules belong in"
                    )
            found |= set(groups)
        return frozenset(found)

    async def security_groups(self, wanted: Sequence[str], vpc: str, shown: LoadBalancerStatus) -> tuple[str, ...]:
        """Ids of those named by id or Name tag. Raises Refused."""
        named = sorted(one for one in wanted if not one.startswith("sg-"))
        by_name: dict[str, str] = {}
        if named:
            for one in await self._groups_with(f"vpc-id={vpc}", f"tag:Name={','.join(named)}"):
                by_name |= {tag["Value"]: one["GroupId"] for tag in one.get("Tags", ()) if tag["Key"] == "Name"}
        if missing := [one for one in named if one not in by_name]:
            message = f"the VPC has no security group with the Name tag {', '.join(missing)}; name it by id or Name tag"
            raise Refused("SecurityGroupNotFound", message, shown)
        return tuple(by_name.get(one, one) for one in wanted)

    async def _groups_with(self, *filters: str) -> list[dict[str, Any]]:
        async def read() -> list[dict[str, Any]]:
            pairs = [one.split("=", 1) for one in filters]
            wire = [{"Name": name, "Values": values.split(",")} for name, values in pairs]
            return await self._client.pages("ec2", "describe_security_groups", "SecurityGroups", Filters=wire)

        return list(await self._keep(filters, read))

    async def _keep(self, what: object, read: Callable[[], Any]) -> Any:
        async with self._lock:
            when, found = self._kept.get(what, (0.0, None))
            if found is None or self._clock() - when > LASTS:
                found = await read()
                self._kept[what] = self._clock(), found
            return found
