"""AWS on loopback: moto's server, a VPC with two zones, and instances that Nodes can be.

moto keeps resources as the service does, with some differences that matter here and are put right: see `_corrected`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from unittest.mock import patch

import boto3
import requests
from moto import mock_aws
from moto.core.responses import BaseResponse
from moto.elbv2.exceptions import (
    DuplicateListenerError,
    DuplicateLoadBalancerName,
    ELBClientError,
    ResourceInUseError,
    TargetGroupNotFoundError,
)
from moto.elbv2.models import AvailabilityZone, ELBv2Backend, FakeHealthStatus, FakeLoadBalancer, FakeTargetGroup
from moto.server import ThreadedMotoServer

from kubesvc.api.meta import ObjectMeta
from kubesvc.api.nodes import Node, NodeSpec
from kubesvc.loadbalancer.config import AwsConfig

REGION = "us-east-1"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
}


@dataclass
class Cloud:
    """One VPC of a region that this process has for itself. `clients` are boto3's, for a test's own look."""

    endpoint: str
    vpc: str = ""
    subnets: dict[str, str] = field(default_factory=dict)  # its Name tag -> its id
    instances: list[str] = field(default_factory=list)
    node_group: str = ""  # the security group of the instances
    _clients: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> AwsConfig:
        return AwsConfig(REGION, self.vpc, self.endpoint)

    def client(self, api: str) -> Any:
        if api not in self._clients:
            self._clients[api] = boto3.client(api, region_name=REGION, endpoint_url=self.endpoint or None)
        return self._clients[api]

    def node(self, number: int, **labels: str) -> Node:
        provider_id = f"aws:///{REGION}a/{self.instances[number]}"
        return Node(metadata=ObjectMeta(name=f"node{number}", labels=labels), spec=NodeSpec(provider_id=provider_id))

    @property
    def nodes(self) -> list[Node]:
        return [self.node(n) for n in range(len(self.instances))]

    # ── what there is ────────────────────────────────────────────────────────────────────────────────────────────────

    def balancers(self) -> list[dict[str, Any]]:
        return self.client("elbv2").describe_load_balancers()["LoadBalancers"]

    def groups(self) -> list[dict[str, Any]]:
        return self.client("elbv2").describe_target_groups()["TargetGroups"]

    def listeners(self, balancer: str) -> list[dict[str, Any]]:
        found = self.client("elbv2").describe_listeners(LoadBalancerArn=balancer)["Listeners"]
        return sorted(found, key=lambda one: one["Port"])

    def targets(self, group: str) -> set[tuple[str, int]]:
        found = self.client("elbv2").describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        return {(one["Target"]["Id"], one["Target"]["Port"]) for one in found}

    def security_groups(self) -> list[dict[str, Any]]:
        """Those beside the VPC's default one and the nodes'."""
        found = self.client("ec2").describe_security_groups()["SecurityGroups"]
        return [one for one in found if one["GroupName"] not in ("default", "nodes")]

    def node_rules(self) -> list[dict[str, Any]]:
        found = self.client("ec2").describe_security_groups(GroupIds=[self.node_group])["SecurityGroups"]
        return found[0]["IpPermissions"]

    def leftovers(self) -> list[str]:
        """Everything that load balancers are made of."""
        return [
            *(one["LoadBalancerArn"] for one in self.balancers()),
            *(one["TargetGroupArn"] for one in self.groups()),
            *(one["GroupName"] for one in self.security_groups()),
            *(f"node rule {rule['IpProtocol']} {rule.get('FromPort')}" for rule in self.node_rules()),
        ]


@contextmanager
def cloud(*, served: bool = True) -> Iterator[Cloud]:
    """A fresh account: a VPC with a subnet for each role in two zones, and two instances. `served`: over HTTP, as AWS
    is; otherwise boto3's requests are answered in this process, at a third of the cost."""
    with patch.dict(os.environ, ENVIRONMENT), _corrected(), _served() if served else _answered() as endpoint:
        os.environ.pop("AWS_PROFILE", None)
        made = Cloud(endpoint)
        _furnish(made)
        yield made


@contextmanager
def _served() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        requests.post(f"http://{host}:{port}/moto-api/reset", timeout=60).raise_for_status()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def _answered() -> Iterator[str]:
    with mock_aws():
        yield ""


def _furnish(made: Cloud) -> None:
    ec2 = made.client("ec2")
    made.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    for n, zone in enumerate(f"{REGION}{letter}" for letter in "ab"):
        for offset, role in ((0, "internal-elb"), (10, "elb")):
            block = f"10.0.{n + offset}.0/24"
            one = ec2.create_subnet(VpcId=made.vpc, CidrBlock=block, AvailabilityZone=zone)["Subnet"]["SubnetId"]
            name = f"{role}-{zone[-1]}"
            tags = {"Name": name, f"kubernetes.io/role/{role}": "1"}
            ec2.create_tags(Resources=[one], Tags=[{"Key": k, "Value": v} for k, v in tags.items()])
            made.subnets[name] = one
    made.node_group = ec2.create_security_group(GroupName="nodes", Description="nodes", VpcId=made.vpc)["GroupId"]
    subnet = made.subnets["internal-elb-a"]
    for _ in range(2):
        ran = ec2.run_instances(
            ImageId="ami-0123456789abcdef0", MinCount=1, MaxCount=1, SubnetId=subnet, SecurityGroupIds=[made.node_group]
        )
        made.instances.append(ran["Instances"][0]["InstanceId"])


class Counting:
    """How often each operation was called by boto3's `clients`, and whether it could change anything."""

    def __init__(self, clients: dict[str, Any]) -> None:
        self.calls: Counter[str] = Counter()
        for client in clients.values():
            client.meta.events.register("before-send.*.*", self._count)

    def _count(self, event_name: str, **_: Any) -> None:
        self.calls[event_name.rsplit(".", 1)[-1]] += 1

    @property
    def mutating(self) -> list[str]:
        return sorted(name for name in self.calls if not name.startswith("Describe"))


@contextmanager
def _corrected() -> Iterator[None]:
    """moto, where it differs from the service: names are unique, a port has one listener, a target is an id *and* a
    port, listeners of all protocols can be changed, checks of NLBs have codes, chosen addresses are remembered."""
    create_balancer, create_listener = ELBv2Backend.create_load_balancer, ELBv2Backend.create_listener
    modify_listener, modify_group = ELBv2Backend.modify_listener, ELBv2Backend.modify_target_group
    delete_group, delete_balancer = ELBv2Backend.delete_target_group, ELBv2Backend.delete_load_balancer

    def balancer(self: Any, name: str, *args: Any, **more: Any) -> Any:
        for one in self.load_balancers.values():
            if one.name == name:
                if one.scheme != more["scheme"] or sorted(one.security_groups) != sorted(more["security_groups"]):
                    raise DuplicateLoadBalancerName
                return one
        made = create_balancer(self, name, *args, **more)
        made.mappings = {one["SubnetId"]: one for one in more.get("subnet_mappings") or ()}
        return made

    def zones(self: Any) -> list[Any]:
        found = []
        for subnet in self.subnets:
            zone = AvailabilityZone(subnet)
            chosen = getattr(self, "mappings", {}).get(subnet.id, {})
            address = {k: v for k, v in chosen.items() if k != "SubnetId"}
            zone.load_balancer_addresses = [address] if address else []
            found.append(zone)
        return found

    def listener(self: Any, load_balancer_arn: str, protocol: str, port: Any, *args: Any, **more: Any) -> Any:
        known = self.load_balancers.get(load_balancer_arn)
        if known is not None and any(int(one.port) == int(port) for one in known.listeners.values()):
            raise DuplicateListenerError
        return create_listener(self, load_balancer_arn, protocol, port, *args, **more)

    def change_listener(
        self: Any, arn: str, port: Any, protocol: Any, ssl_policy: Any, certificates: Any, actions: Any
    ) -> Any:
        made = modify_listener(self, arn, port, None, ssl_policy, None, actions)
        made.protocol = protocol or made.protocol
        if certificates:
            first = certificates[0]["CertificateArn"]
            made.certificates = [first, *(c for c in made.certificates[1:] if c != first)]
        if made.protocol != "TLS":
            made.certificates = []
        return made

    def change_group(self: Any, arn: str, *args: Any, **more: Any) -> Any:
        made = modify_group(self, arn, *args, **more)
        if args[7]:
            made.matcher = {"HttpCode": args[7]}
        return made

    def drop_group(self: Any, target_group_arn: str) -> Any:
        if any(_uses(one, target_group_arn) for b in self.load_balancers.values() for one in b.listeners.values()):
            raise ResourceInUseError("it is in use by a listener")
        return delete_group(self, target_group_arn)

    def drop_balancer(self: Any, arn: str) -> Any:
        known = self.load_balancers.get(arn)
        if known is not None and known.attrs.get("deletion_protection.enabled") == "true":
            raise ELBClientError("OperationNotPermitted", f"{arn} has deletion protection")
        return delete_balancer(self, arn)

    def subnets(self: Any, arn: str, subnets: Any, subnet_mappings: Any) -> Any:
        known = self.load_balancers[arn]
        known.subnets = [self.ec2_backend.get_subnet(one["SubnetId"]) for one in subnet_mappings]
        known.mappings = {one["SubnetId"]: one for one in subnet_mappings}
        return known.availability_zones

    def register(self: Any, targets: Any) -> None:
        for one in targets:
            port = int(one.get("Port", self.port))
            self.targets[one["Id"], port] = {"Id": one["Id"], "Port": port}

    def deregister(self: Any, targets: Any) -> None:
        for one in targets:
            self.targets.pop((one["Id"], int(one.get("Port", self.port))), None)

    def health(self: Any, target: Any, _: Any) -> Any:
        return FakeHealthStatus(target["Id"], target["Port"], self.health_check_port, "healthy")

    def tell_health(self: Any, target_group_arn: str, targets: Any) -> Any:
        if target_group_arn not in self.target_groups:
            raise TargetGroupNotFoundError
        group = self.target_groups[target_group_arn]
        return [group.health_for(one, None) for one in targets or list(group.targets.values())]

    backend = {
        "create_load_balancer": balancer,
        "create_listener": listener,
        "modify_listener": change_listener,
        "modify_target_group": change_group,
        "delete_target_group": drop_group,
        "delete_load_balancer": drop_balancer,
        "set_subnets": subnets,
        "describe_target_health": tell_health,
    }
    group = {"register": register, "deregister": deregister, "health_for": health}
    valid = FakeLoadBalancer.VALID_ATTRS | {"load_balancing.cross_zone.enabled"}
    one_at_a_time, answer = Lock(), BaseResponse.call_action

    def alone(self: Any) -> Any:
        with one_at_a_time:  # moto's dictionaries aren't for several threads
            return answer(self)

    with (
        patch.object(BaseResponse, "call_action", alone),
        patch.multiple(ELBv2Backend, **backend),
        patch.multiple(FakeTargetGroup, **group),
        patch.multiple(FakeLoadBalancer, availability_zones=property(zones), VALID_ATTRS=valid),
    ):
        yield


def _uses(listener: Any, group: str) -> bool:
    return any(action.data.get("TargetGroupArn") == group for action in listener.default_actions)
