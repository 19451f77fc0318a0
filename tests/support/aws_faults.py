"""Random faults below boto3's clients, and what may be wrong with a load balancer in AWS."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
from botocore.exceptions import ReadTimeoutError

from kubesvc.api.core import LoadBalancerStatus, Service, ServicePort, ServiceSpec
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.nodes import Node
from kubesvc.client.session import Session
from kubesvc.loadbalancer.config import LoadBalancerConfig
from kubesvc.loadbalancer.provider import Provider
from kubesvc.loadbalancer.providers.aws.annotations import PREFIX
from kubesvc.loadbalancer.providers.aws.provider import AwsProvider
from support.apiserver import local_session
from support.aws import Cloud, cloud
from support.faults import Dice, Fault, Outcome, Story

FAILED = {"Error": {"Code": "ServiceUnavailable", "Message": "not now"}, "ResponseMetadata": {}}


def inject(clients: dict[str, Any], dice: Dice) -> None:
    """Every call of `clients` throws `dice`. Past botocore's own retries: each fault is ours to survive."""

    def before(context: dict[str, Any], **_: Any) -> Any:
        fault = context["fault"] = dice.throw()
        if fault is Fault.UNHEARD:
            raise ReadTimeoutError(endpoint_url="before")
        return (SimpleNamespace(status_code=503), FAILED) if fault is Fault.FAILED else None

    def after(context: dict[str, Any], **_: Any) -> None:
        if context["fault"] is Fault.LOST:
            raise ReadTimeoutError(endpoint_url="after")

    for client in clients.values():
        client.meta.events.register("before-call.*.*", before)
        client.meta.events.register("after-call.*.*", after)


async def endure(cycles: int, seed: int = 1, *, workers: int = 4, restarts: int = 9) -> Outcome:
    dice = Dice(seed)
    async with local_session() as session:
        with cloud(served=False) as made:
            config = LoadBalancerConfig(default_provider="aws", cluster_name="test", aws=made.config)
            started = _starter(session, config, dice)
            story = Story(started, versions, lambda d: nodes(made, d), Look(made), seed)
            outcome = await story.go(cycles, workers=workers, restarts=restarts)
            outcome.leaked = made.leftovers()
    outcome.calls = dice.thrown.total()
    outcome.faults = Counter({fault.name.lower(): n for fault, n in dice.thrown.items() if fault is not Fault.NONE})
    return outcome


def _starter(
    session: Session, config: LoadBalancerConfig, dice: Dice
) -> Callable[[Sequence[Service]], AbstractAsyncContextManager[Provider]]:
    @asynccontextmanager
    async def started(services: Sequence[Service]) -> AsyncIterator[Provider]:
        provider = AwsProvider(session, config)
        inject(provider.client.clients, dice)
        task = asyncio.create_task(provider.run(lambda _: None))
        try:
            await provider.adopt(services)
            yield provider
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.to_thread(provider.client._threads.shutdown)

    return started


def nodes(cloud: Cloud, dice: random.Random) -> list[Node]:
    return cloud.nodes[: dice.choice((1, 2))]


def versions(number: int) -> list[Service]:
    """A Service as it is made, with another port and fewer who may connect, and without its first port."""
    one, two = ServicePort("http", "TCP", 80, 8080, 30080), ServicePort("dns", "UDP", 53, 53, 30053)
    spec = ServiceSpec(type="LoadBalancer", ip_families=["IPv4"], ports=[one])
    meta = ObjectMeta(name=f"s{number}", namespace="default", uid=f"uid-{number}")
    more = msgspec.structs.replace(spec, ports=[one, two], load_balancer_source_ranges=["192.0.2.0/24"])
    tagged = msgspec.structs.replace(meta, annotations={PREFIX + "proxy-protocol": "*"})
    return [
        Service(metadata=meta, spec=spec),
        Service(metadata=tagged, spec=more),
        Service(metadata=tagged, spec=msgspec.structs.replace(more, ports=[two])),
    ]


class Look:
    """What isn't as a Service asks, seen with clients that don't fail."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def __call__(self, service: Service, nodes: Sequence[Node], status: LoadBalancerStatus) -> list[str]:
        return await asyncio.to_thread(self._look, service, nodes, status)

    def _look(self, service: Service, nodes: Sequence[Node], status: LoadBalancerStatus) -> list[str]:
        cloud, ports = self._cloud, service.spec.ports
        shown = [ingress.hostname for ingress in status.ingress]
        balancers = [one for one in cloud.balancers() if one["DNSName"] in shown]
        if len(balancers) != 1:
            return [f"{len(balancers)} load balancers for {shown}"]
        arn = balancers[0]["LoadBalancerArn"]
        listeners = cloud.listeners(arn)
        found = {(one["Port"], one["Protocol"]) for one in listeners}
        wanted = {(port.port, port.protocol) for port in ports}
        said = [] if found == wanted else [f"listeners {found}, not {wanted}"]
        instances = [node.spec.provider_id.rsplit("/", 1)[1] for node in nodes]
        for one in listeners:
            behind = {(i, p.node_port) for i in instances for p in ports if p.port == one["Port"]}
            group = one["DefaultActions"][0]["TargetGroupArn"]
            if (targets := cloud.targets(group)) != behind:
                said.append(f"targets of {one['Port']}: {targets}, not {behind}")
            pairs = cloud.client("elbv2").describe_target_group_attributes(TargetGroupArn=group)["Attributes"]
            proxied = {pair["Key"]: pair["Value"] for pair in pairs}.get("proxy_protocol_v2.enabled")
            if proxied != ("true" if service.metadata.annotations else "false"):
                said.append(f"PROXY protocol of {one['Port']} is {proxied}")
        groups = cloud.client("ec2").describe_security_groups(GroupIds=balancers[0]["SecurityGroups"])["SecurityGroups"]
        rules = {
            (rule["FromPort"], rule["IpProtocol"], source["CidrIp"])
            for group in groups
            for rule in group["IpPermissions"]
            for source in rule["IpRanges"]
        }
        ranges = service.spec.load_balancer_source_ranges or ["0.0.0.0/0"]
        allowed = {(port.port, port.protocol.lower(), source) for port in ports for source in ranges}
        if rules != allowed:
            said.append(f"lets in {rules}, not {allowed}")
        opened = {rule["IpProtocol"] for rule in cloud.node_rules()}
        if missing := {port.protocol.lower() for port in ports} - opened:
            said.append(f"nodes don't let in {missing}")
        return said
