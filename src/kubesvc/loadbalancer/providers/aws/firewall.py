"""The way from load balancers to nodes: one backend security group for the cluster, and rules that let it in.

All load balancers carry the backend group; the nodes' groups let it in on the ports that some Service needs. So the
number of rules on a node doesn't grow with load balancers. A rule goes when no Service needs it, which is known once
each Service that was there at the start has been looked at; the group goes with the last Service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from kubesvc.loadbalancer.providers.aws import failures, names, permissions
from kubesvc.loadbalancer.providers.aws.client import AwsError, Client
from kubesvc.loadbalancer.providers.aws.model import Permission
from kubesvc.loadbalancer.providers.aws.plan import as_tags

NodeRule = tuple[str, str, int, int]
"""A node's security group, the protocol, the first port and the last."""


class Firewall:
    def __init__(self, client: Client, cluster: str) -> None:
        self._client = client
        self._cluster = cluster
        self._needs: dict[str, frozenset[NodeRule]] = {}  # service's tag -> rules
        self._unseen: set[str] = set()  # services that were there at the start and weren't looked at yet
        self._group = ""  # the backend group's id; "" is none, or unknown
        self._rules: set[NodeRule] | None = None  # those there are; None: unknown
        self._doubts = 0
        self._lock = asyncio.Lock()

    def expect(self, services: Iterable[str]) -> None:
        self._unseen |= set(services)

    def doubt(self) -> None:
        """The next that needs them looks again; who is at it goes on with what it saw."""
        self._doubts += 1
        self._rules = None

    async def group(self, service: str, vpc: str) -> str:
        """The backend group's id, made when there is none; from now on `service` needs it. Raises AwsError."""
        async with self._lock:
            self._needs.setdefault(service, frozenset())
            await self._look()
            if not self._group:
                self._group = await self._make(vpc)
            return self._group

    async def need(self, service: str, rules: frozenset[NodeRule]) -> None:
        """These are what `service` needs. Raises AwsError."""
        async with self._lock:
            self._needs[service] = rules
            self._unseen.discard(service)
            await self._settle()

    async def release(self, service: str) -> None:
        """`service` needs nothing any more. Raises AwsError."""
        async with self._lock:
            self._unseen.discard(service)
            if self._needs.pop(service, None) is not None or self._rules is None or not self._needs:
                await self._settle()

    async def _settle(self) -> None:
        known = await self._look()
        wanted = frozenset[NodeRule]().union(*self._needs.values())
        try:
            if missing := wanted - known:
                await self._change("authorize_security_group_ingress", missing)
                known.update(missing)
            if not self._unseen and (stale := known - wanted):
                await self._change("revoke_security_group_ingress", stale)
                known.difference_update(stale)
            if not self._unseen and not self._needs and self._group:
                await self._delete()
        except BaseException:
            self._rules = None
            raise

    async def _change(self, operation: str, rules: Iterable[NodeRule]) -> None:
        by_group: dict[str, set[Permission]] = {}
        for group, protocol, first, last in rules:
            by_group.setdefault(group, set()).add(Permission(protocol, first, last, self._group))
        for group, some in sorted(by_group.items()):
            try:
                wire = permissions.to_wire(some)
                await self._client.call("ec2", operation, GroupId=group, IpPermissions=wire)
            except AwsError as error:
                taking = operation.startswith("revoke") and error.code in failures.GONE
                if not taking and error.code != "InvalidPermission.Duplicate":
                    raise

    async def _look(self) -> set[NodeRule]:
        """Those there are, to be changed as calls succeed."""
        if self._rules is not None:
            return self._rules
        doubts = self._doubts
        filters = [
            {"Name": f"tag:{names.CLUSTER}", "Values": [self._cluster]},
            {"Name": f"tag:{names.RESOURCE}", "Values": [names.BACKEND]},
        ]
        found = await self._client.pages("ec2", "describe_security_groups", "SecurityGroups", Filters=filters)
        self._group = found[0]["GroupId"] if found else ""
        rules: set[NodeRule] = set()
        if self._group:
            filters = [{"Name": "ip-permission.group-id", "Values": [self._group]}]
            letting_in = await self._client.pages("ec2", "describe_security_groups", "SecurityGroups", Filters=filters)
            for one in letting_in:
                for rule in permissions.from_wire(one.get("IpPermissions", ())):
                    if rule.source == self._group:
                        rules.add((one["GroupId"], rule.protocol, rule.first, rule.last))
        if doubts == self._doubts:
            self._rules = rules
        return rules

    async def _make(self, vpc: str) -> str:
        tags = {names.CLUSTER: self._cluster, names.RESOURCE: names.BACKEND}
        try:
            answer = await self._client.call(
                "ec2",
                "create_security_group",
                GroupName=names.backend_name(self._cluster),
                Description="kubesvc: carried by load balancers, let in by nodes",
                VpcId=vpc,
                TagSpecifications=[{"ResourceType": "security-group", "Tags": as_tags(tags)}],
            )
        except BaseException:
            self._rules = None
            raise
        return str(answer["GroupId"])

    async def _delete(self) -> None:
        try:
            await self._client.call("ec2", "delete_security_group", GroupId=self._group)
        except AwsError as error:
            if error.code not in failures.GONE:
                raise
        self._group = ""
