"""Provider aws with real boto3 against moto's server: what is in AWS afterwards, and how many calls that took."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from kubesvc.api.core import LoadBalancerStatus, Service, ServicePort, ServiceSpec
from kubesvc.api.meta import ObjectMeta
from kubesvc.api.registry import ENDPOINT_SLICE
from kubesvc.client.session import Session
from kubesvc.loadbalancer.config import AwsConfig, LoadBalancerConfig
from kubesvc.loadbalancer.provider import BadProvider, Change, ProviderFailed, Refused
from kubesvc.loadbalancer.providers.aws import client as aws_client
from kubesvc.loadbalancer.providers.aws import names
from kubesvc.loadbalancer.providers.aws.annotations import PREFIX
from kubesvc.loadbalancer.providers.aws.provider import AwsProvider
from support.apiserver import local_session
from support.aws import Cloud, Counting, cloud

HTTP = ServicePort(name="http", port=80, target_port=8080, node_port=30080)
CERTIFICATE = "arn:aws:iam::123456789012:server-certificate/one"


@pytest.fixture(scope="module")
def account() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


@pytest.fixture
def aws(account: Cloud) -> Iterator[Cloud]:
    """Empty afterwards: each test deletes what it made."""
    yield account
    assert account.leftovers() == []


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with local_session() as session:
        yield session


@asynccontextmanager
async def provider(account: Cloud, session: Session, *adopted: Service, **config: Any) -> AsyncIterator[AwsProvider]:
    config = {"default_provider": "aws", "cluster_name": "test", "aws": account.config} | config
    made = AwsProvider(session, LoadBalancerConfig(**config))
    made.heard = asyncio.Queue()  # type: ignore[attr-defined]
    task = asyncio.create_task(made.run(made.heard.put_nowait))  # type: ignore[attr-defined]
    try:
        await asyncio.wait_for(made.adopt(adopted), 60)
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def service(*ports: ServicePort, called: str = "web", spec: dict[str, Any] | None = None, **asked: str) -> Service:
    return Service(
        metadata=ObjectMeta(
            name=called,
            namespace="default",
            uid=f"uid-{called}",
            annotations={PREFIX + key.replace("_", "-"): value for key, value in asked.items()},
        ),
        spec=ServiceSpec(type="LoadBalancer", ip_families=["IPv4"], ports=list(ports or (HTTP,)), **(spec or {})),
    )


def hostname(status: LoadBalancerStatus) -> str:
    (ingress,) = status.ingress
    assert (ingress.ip, ingress.ip_mode) == ("", None)
    return ingress.hostname


async def test_a_service_has_a_load_balancer_with_all_that_belongs_to_it(aws: Cloud, session: Session) -> None:
    async with provider(aws, session) as made:
        shown = hostname(await made.ensure(service(), aws.nodes))
        (balancer,) = aws.balancers()
        assert (balancer["DNSName"], balancer["Type"], balancer["Scheme"]) == (shown, "network", "internal")
        assert {zone["SubnetId"] for zone in balancer["AvailabilityZones"]} == {
            aws.subnets["internal-elb-a"],
            aws.subnets["internal-elb-b"],
        }
        (listener,) = aws.listeners(balancer["LoadBalancerArn"])
        assert (listener["Port"], listener["Protocol"]) == (80, "TCP")
        (group,) = aws.groups()
        assert aws.targets(group["TargetGroupArn"]) == {(one, 30080) for one in aws.instances}
        tags = aws.client("elbv2").describe_tags(ResourceArns=[balancer["LoadBalancerArn"]])["TagDescriptions"][0]
        assert {"Key": names.SERVICE, "Value": "default/web"} in tags["Tags"]
        groups = {one["GroupName"]: one for one in aws.security_groups()}
        own = groups[names.name("test", service(), names.FRONTEND)]
        assert [rule["IpRanges"][0]["CidrIp"] for rule in own["IpPermissions"]] == ["0.0.0.0/0"]
        backend = groups["kubesvc-backend-test"]["GroupId"]
        (rule,) = aws.node_rules()
        assert (rule["FromPort"], rule["ToPort"], rule["UserIdGroupPairs"][0]["GroupId"]) == (30000, 32767, backend)
        await made.delete(service())


async def test_changes_keep_the_load_balancer_and_its_name(aws: Cloud, session: Session) -> None:
    https = ServicePort(name="https", port=443, target_port=8443, node_port=30443)
    udp = ServicePort(name="dns", port=53, node_port=30053, protocol="UDP")
    dns = ServicePort(name="dns-tcp", port=53, node_port=30053)
    async with provider(aws, session) as made:
        first = await made.ensure(service(), aws.nodes)
        arn = aws.balancers()[0]["LoadBalancerArn"]
        versions: list[tuple[Service, Sequence[tuple[int, str]]]] = [
            (service(HTTP, https, udp), [(53, "UDP"), (80, "TCP"), (443, "TCP")]),
            (service(HTTP, dns, udp), [(53, "TCP_UDP"), (80, "TCP")]),
            (service(HTTP, https, ssl_cert=CERTIFICATE, ssl_ports="https"), [(80, "TCP"), (443, "TLS")]),
            (service(HTTP, https, ssl_cert=CERTIFICATE), [(80, "TLS"), (443, "TLS")]),
            (service(proxy_protocol="*", healthcheck_protocol="http", healthcheck_path="/ready"), [(80, "TCP")]),
            (service(spec={"load_balancer_source_ranges": ["192.0.2.0/24"]}), [(80, "TCP")]),
        ]
        for version, listeners in versions:
            assert await made.ensure(version, aws.nodes) == first
            assert [(one["Port"], one["Protocol"]) for one in aws.listeners(arn)] == listeners
            assert len(aws.groups()) == len(listeners)
        own = next(one for one in aws.security_groups() if one["GroupName"].startswith("k8s-"))
        assert [rule["IpRanges"][0]["CidrIp"] for rule in own["IpPermissions"]] == ["192.0.2.0/24"]
        await made.delete(service())


async def test_health_checks_attributes_and_proxy_protocol_are_as_asked(aws: Cloud, session: Session) -> None:
    local = {"external_traffic_policy": "Local", "health_check_node_port": 31000}
    asked = {
        "proxy_protocol": "*",
        "target_group_attributes": "deregistration_delay.timeout_seconds=30",
        "attributes": "load_balancing.cross_zone.enabled=true",
    }
    one = service(spec=local, **asked)
    one.metadata.annotations[PREFIX + "listener-attributes.TCP-80"] = "tcp.idle_timeout.seconds=60"
    async with provider(aws, session) as made:
        await made.ensure(one, aws.nodes)
        elbv2 = aws.client("elbv2")
        (group,), (balancer,) = aws.groups(), aws.balancers()
        check = (group["HealthCheckProtocol"], group["HealthCheckPort"], group["HealthCheckPath"])
        assert check == ("HTTP", "31000", "/healthz")
        assert (group["HealthCheckTimeoutSeconds"], group["HealthyThresholdCount"]) == (6, 2)

        def attributes(operation: str, **arn: str) -> dict[str, str]:
            return {pair["Key"]: pair["Value"] for pair in getattr(elbv2, operation)(**arn)["Attributes"]}

        of_group = attributes("describe_target_group_attributes", TargetGroupArn=group["TargetGroupArn"])
        assert of_group["proxy_protocol_v2.enabled"] == "true"
        assert of_group["deregistration_delay.timeout_seconds"] == "30"
        arn = balancer["LoadBalancerArn"]
        found = attributes("describe_load_balancer_attributes", LoadBalancerArn=arn)
        assert found["load_balancing.cross_zone.enabled"] == "true"
        listener = aws.listeners(arn)[0]["ListenerArn"]
        idle = attributes("describe_listener_attributes", ListenerArn=listener)["tcp.idle_timeout.seconds"]
        assert idle == "60"
        await made.delete(one)


async def test_addresses_subnets_and_security_groups_can_be_chosen(aws: Cloud, session: Session) -> None:
    ec2 = aws.client("ec2")
    eips = [ec2.allocate_address(Domain="vpc")["AllocationId"] for _ in range(2)]
    mine = ec2.create_security_group(GroupName="mine", Description="mine", VpcId=aws.vpc)["GroupId"]
    ec2.create_tags(Resources=[mine], Tags=[{"Key": "Name", "Value": "my-group"}])
    asked = {"scheme": "internet-facing", "subnets": "elb-a,elb-b", "eip_allocations": ",".join(eips)}
    asked |= {"name": "chosen", "security_groups": "my-group"}
    async with provider(aws, session) as made:
        await made.ensure(service(**asked), aws.nodes)
        (balancer,) = aws.balancers()
        assert (balancer["LoadBalancerName"], balancer["Scheme"]) == ("chosen", "internet-facing")
        assert balancer["SecurityGroups"] == [mine]
        chosen = {z["SubnetId"]: z["LoadBalancerAddresses"][0]["AllocationId"] for z in balancer["AvailabilityZones"]}
        assert chosen == dict(zip((aws.subnets["elb-a"], aws.subnets["elb-b"]), eips, strict=True))
        assert aws.node_rules() == []  # whoever brings their own groups opens the nodes
        with pytest.raises(Refused, match="can't be changed") as refused:
            await made.ensure(service(**asked | {"eip_allocations": ",".join(reversed(eips))}), aws.nodes)
        assert refused.value.reason == "CannotBeChanged"
        await made.ensure(service(**asked | {"manage_backend_security_group_rules": "true"}), aws.nodes)
        assert len(aws.balancers()[0]["SecurityGroups"]) == 2
        assert len(aws.node_rules()) == 1
        await made.delete(service())
    ec2.delete_security_group(GroupId=mine)


async def test_a_hundred_services_that_are_as_wanted_cost_no_call(aws: Cloud, session: Session) -> None:
    """After a restart what lists all is read once for all, and no load balancer is looked into."""
    many = [service(called=f"s{n}") for n in range(100)]
    async with provider(aws, session) as made:
        shown = [hostname(await made.ensure(one, aws.nodes)) for one in many]
        assert len(set(shown)) == 100
        count = Counting(made.client.clients)
        assert [hostname(await made.ensure(one, aws.nodes)) for one in many] == shown
        assert not count.calls
    async with provider(aws, session, *many) as made:
        count = Counting(made.client.clients)
        again = await asyncio.gather(*(made.ensure(one, aws.nodes) for one in many))
        assert [hostname(one) for one in again] == shown
        assert count.calls.pop("DescribeSecurityGroups") <= 4
        assert count.calls == {
            "DescribeLoadBalancers": 2,  # pages of 50
            "DescribeTargetGroups": 1,
            "DescribeTags": 10,  # 200 things, 20 a call
            "DescribeSubnets": 1,
            "DescribeInstances": 1,
        }
        count.calls.clear()
        for one in many:
            await made.delete(one)
        assert not [name for name in count.calls if name.startswith("Describe")]


async def test_what_changed_while_nobody_looked_is_found_by_its_fingerprint(aws: Cloud, session: Session) -> None:
    """Only the Service that asks for something else than was applied is looked into."""
    same, other = service(called="same"), service(called="other")
    async with provider(aws, session) as made:
        await made.ensure(same, aws.nodes)
        await made.ensure(other, aws.nodes)
    other = service(called="other", proxy_protocol="*")
    async with provider(aws, session, same, other) as made:
        count = Counting(made.client.clients)
        for one in (same, other, same, other):
            await made.ensure(one, aws.nodes)
        assert count.calls["DescribeListeners"] == 1
        assert count.mutating == ["AddTags", "ModifyTargetGroupAttributes", "RemoveTags"]
        await made.delete(same)
        await made.delete(other)


async def test_a_change_that_broke_off_is_taken_up_after_a_restart(
    aws: Cloud, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the wish is again what was applied before: the fingerprint went before the change."""
    async with provider(aws, session) as made:
        await made.ensure(service(), aws.nodes)
        call = made.client.call

        async def breaking(api: str, operation: str, **arguments: Any) -> Any:
            if operation == "modify_target_group":
                raise ProviderFailed("the process ends")
            return await call(api, operation, **arguments)

        monkeypatch.setattr(made.client, "call", breaking)
        with pytest.raises(ProviderFailed):
            await made.ensure(service(HTTP, ServicePort(name="b", port=81, node_port=30081), healthcheck_interval="20"),
                              aws.nodes)  # fmt: skip
    async with provider(aws, session, service()) as made:
        await made.ensure(service(), aws.nodes)
        assert [one["Port"] for one in aws.listeners(aws.balancers()[0]["LoadBalancerArn"])] == [80]
        assert len(aws.groups()) == 1
        await made.delete(service())


async def test_throttling_is_backed_off_and_survived(
    aws: Cloud, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=waited.append))
    async with provider(aws, session) as made:
        left = {"CreateLoadBalancer": 2, "RegisterTargets": 3}

        def throttle(event_name: str, request: Any, **_: Any) -> AWSResponse | None:
            operation = event_name.rsplit(".", 1)[-1]
            if not left.get(operation):
                return None
            left[operation] -= 1
            body = (
                b"<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>"
            )
            answer = AWSResponse(request.url, 400, {}, None)
            answer._content = body
            return answer

        for client in made.client.clients.values():
            client.meta.events.register("before-send.*.*", throttle)
        assert hostname(await made.ensure(service(), aws.nodes))
        assert (left, len(waited)) == ({"CreateLoadBalancer": 0, "RegisterTargets": 0}, 5)
        await made.delete(service())


async def test_what_was_changed_behind_our_back_is_put_right(aws: Cloud, session: Session) -> None:
    soon = AwsConfig(aws.config.region, aws.vpc, aws.endpoint, resync=0.05)
    async with provider(aws, session, aws=soon) as made:
        await made.ensure(service(), aws.nodes)
        arn = aws.balancers()[0]["LoadBalancerArn"]
        aws.client("elbv2").delete_listener(ListenerArn=aws.listeners(arn)[0]["ListenerArn"])
        while not made.heard.empty():  # type: ignore[attr-defined]
            made.heard.get_nowait()  # type: ignore[attr-defined]
        assert await asyncio.wait_for(made.heard.get(), 60) is Change.RULES  # type: ignore[attr-defined]
        await made.ensure(service(), aws.nodes)
        assert len(aws.listeners(arn)) == 1
        await made.delete(service())


async def test_a_resync_while_rules_are_changed_breaks_nothing(
    aws: Cloud, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with provider(aws, session) as made:
        call, doubted = made.client.call, []

        async def doubting(api: str, operation: str, **arguments: Any) -> Any:
            if operation in ("authorize_security_group_ingress", "revoke_security_group_ingress", "register_targets"):
                doubted.append(operation)
                made._inventory.doubt_all()
                made._firewall.doubt()
                made._around.forget()
            return await call(api, operation, **arguments)

        monkeypatch.setattr(made.client, "call", doubting)
        first = await made.ensure(service(), aws.nodes)
        assert await made.ensure(service(), aws.nodes) == first
        assert len(aws.node_rules()) == 1
        await made.delete(service())
        assert {"authorize_security_group_ingress", "revoke_security_group_ingress", "register_targets"} <= {*doubted}


async def test_pods_are_followed_by_their_slices(aws: Cloud, session: Session) -> None:
    def slice_of(*addresses: str) -> dict[str, Any]:
        return {
            "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": [one], "conditions": {"ready": True}, "nodeName": "node0"} for one in addresses
            ],
        }

    asked = service(nlb_target_type="ip")
    async with provider(aws, session) as made:
        await session.create(ENDPOINT_SLICE, slice_of("10.0.0.10", "10.0.0.11"))
        await made._slices.until(lambda: bool(made._slices.items))
        await made.ensure(asked, aws.nodes)
        (group,) = aws.groups()
        assert aws.targets(group["TargetGroupArn"]) == {("10.0.0.10", 8080), ("10.0.0.11", 8080)}
        assert [(rule["FromPort"], rule["ToPort"]) for rule in aws.node_rules()] == [(8080, 8080)]
        patch = {"endpoints": slice_of("10.0.0.12")["endpoints"]}
        await session.patch(ENDPOINT_SLICE, "default", "web-1", patch)
        assert await asyncio.wait_for(made.heard.get(), 60) == asked.key  # type: ignore[attr-defined]
        await made._slices.until(lambda: any(e.addresses == ["10.0.0.12"] for s in made._slices.items.values()
                                             for e in s.endpoints))  # fmt: skip
        await made.ensure(asked, aws.nodes)
        assert aws.targets(group["TargetGroupArn"]) == {("10.0.0.12", 8080)}
        await made.delete(asked)


async def test_rules_of_others_stay_until_their_services_are_looked_at(aws: Cloud, session: Session) -> None:
    one, two = service(called="one"), service(called="two", nlb_target_type="instance")
    async with provider(aws, session) as made:
        await made.ensure(one, aws.nodes)
        await made.ensure(two, aws.nodes)
    async with provider(aws, session, one, two) as made:
        await made.delete(one)  # two wasn't looked at yet
        assert len(aws.node_rules()) == 1
        await made.ensure(two, aws.nodes)
        assert len(aws.node_rules()) == 1
        await made.delete(two)


async def test_deletion_protection_is_said_and_then_respected(aws: Cloud, session: Session) -> None:
    protected = service(attributes="deletion_protection.enabled=true")
    async with provider(aws, session) as made:
        await made.ensure(protected, aws.nodes)
        with pytest.raises(ProviderFailed, match=r"OperationNotPermitted.*take deletion protection off"):
            await made.delete(protected)
        await made.ensure(service(attributes="deletion_protection.enabled=false"), aws.nodes)
        await made.delete(service())


def test_without_boto3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(BadProvider, match=r"pip install 'kubesvc\[aws\]'"):
        aws_client.Client(AwsConfig())


def test_without_a_region_the_option_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(BadProvider, match="--aws-region"):
        aws_client.Client(AwsConfig())
