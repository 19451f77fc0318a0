"""Provider azure against a stand-in for Azure Resource Manager, by the real SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.api.nodes import Node
from kubesvc.loadbalancer.provider import Change, ProviderFailed, Refused
from kubesvc.loadbalancer.providers.azure.config import AzureConfig
from kubesvc.loadbalancer.providers.azure.provider import AzureProvider
from support import azure as azures
from support.azure import NETWORK, NSG, PREFIX, Azure
from support.azure_services import AZURE, INTERNAL, PIP_NAME, nodes, service

NODES = nodes("10.0.0.4,fd00::4", "10.0.0.5,fd00::5")
PORT = "service.beta.kubernetes.io/port_80_"


@dataclass
class World:
    cloud: Azure
    config: AzureConfig
    provider: AzureProvider
    changes: list[Change]

    async def ensure(self, wanted: Service, on: Sequence[Node] = NODES) -> str:
        """The addresses it shows, with commas."""
        return ",".join(i.ip for i in (await self.provider.ensure(wanted, on)).ingress)

    async def refused(self, wanted: Service) -> str:
        with pytest.raises(Refused) as caught:
            await self.provider.ensure(wanted, NODES)
        return f"{caught.value.reason}: {caught.value}"


@asynccontextmanager
async def serving(cloud: Azure, config: AzureConfig, *adopted: Service) -> AsyncIterator[World]:
    """A provider as a fresh process has it."""
    changes: list[Change] = []
    provider = AzureProvider(config, "kubernetes", azures.client(config))
    task = asyncio.create_task(provider.run(changes.append))
    await asyncio.sleep(0)
    await provider.adopt(adopted)
    try:
        yield World(cloud, config, provider, changes)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with azures.azure() as (cloud, config), serving(cloud, config) as found:
        yield found


def annotated(**values: str) -> dict[str, str]:
    return {AZURE + name.replace("_", "-"): value for name, value in values.items()}


# ── what is made ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_public_service_has_an_address_a_rule_a_probe_and_an_open_door(world: World) -> None:
    status = await world.provider.ensure(service(), NODES)
    assert [(i.ip, i.ip_mode, i.hostname) for i in status.ingress] == [("203.0.113.1", "VIP", "")]
    rule = world.cloud.rules()[80]
    assert (rule["backendPort"], rule["enableFloatingIP"], rule["idleTimeoutInMinutes"]) == (80, True, 4)
    assert (rule["loadDistribution"], rule["enableTcpReset"]) == ("Default", True)
    (probe,) = world.cloud.probes()
    assert (probe["protocol"], probe["port"], probe["intervalInSeconds"], probe["numberOfProbes"]) == (
        "Tcp",
        30080,
        5,
        2,
    )
    (door,) = world.cloud.doors()
    assert (door["sourceAddressPrefix"], door["destinationAddressPrefix"]) == ("Internet", "203.0.113.1")
    assert (door["destinationPortRange"], door["access"], door["priority"]) == ("80", "Allow", 500)
    (pool,) = world.cloud.balancer()["properties"]["backendAddressPools"]
    listed = pool["properties"]["loadBalancerBackendAddresses"]
    assert [(a["name"], a["properties"]["ipAddress"]) for a in listed] == [("n1", "10.0.0.4"), ("n2", "10.0.0.5")]
    (ip,) = (t for i, t in world.cloud.things.items() if "/publicipaddresses/" in i)
    assert ip["tags"]["k8s-azure-service"] == "default/web"


async def test_an_internal_service_has_an_address_of_the_subnet_and_no_door(world: World) -> None:
    assert await world.ensure(service("a", annotations={INTERNAL: "true"})) == "10.0.0.51"
    front = annotated(load_balancer_internal="true", load_balancer_internal_subnet="front")
    assert await world.ensure(service("b", annotations=front)) == "10.0.7.51"
    pinned = annotated(load_balancer_internal="true", load_balancer_ipv4="10.0.0.9")
    assert await world.ensure(service("c", annotations=pinned)) == "10.0.0.9"
    assert world.cloud.names("loadBalancers") == ["kubernetes-internal"]
    assert world.cloud.names("publicIPAddresses") == []
    assert world.cloud.doors() == []


async def test_both_families_have_an_address_each(world: World) -> None:
    assert await world.ensure(service(ip_families=["IPv6", "IPv4"])) == "2001:db8:1::1,203.0.113.1"
    pools = world.cloud.balancer()["properties"]["backendAddressPools"]
    listed = [a["properties"]["ipAddress"] for p in pools for a in p["properties"]["loadBalancerBackendAddresses"]]
    assert sorted(listed) == ["10.0.0.4", "10.0.0.5", "fd00::4", "fd00::5"]


async def test_policy_local_is_probed_on_the_health_check_port_udp_too(world: World) -> None:
    ports = [(80, 30080, "TCP"), (53, 30053, "UDP")]
    await world.ensure(service(ports=ports, external_traffic_policy="Local", health_check_node_port=31000))
    (probe,) = world.cloud.probes()
    assert (probe["protocol"], probe["port"], probe["requestPath"]) == ("Http", 31000, "/healthz")
    assert all("probe" in rule for rule in world.cloud.rules().values())


async def test_udp_with_policy_cluster_has_no_probe(world: World) -> None:
    await world.ensure(service(ports=[(53, 30053, "UDP")]))
    assert world.cloud.probes() == []
    assert "probe" not in world.cloud.rules()[53]


async def test_affinity_and_idle_timeout(world: World) -> None:
    wanted = service(session_affinity="ClientIP", annotations=annotated(load_balancer_tcp_idle_timeout="30"))
    await world.ensure(wanted)
    rule = world.cloud.rules()[80]
    assert (rule["loadDistribution"], rule["idleTimeoutInMinutes"]) == ("SourceIP", 30)


async def test_without_floating_ip_the_nodes_get_the_node_port(world: World) -> None:
    await world.ensure(service(annotations=annotated(disable_load_balancer_floating_ip="true")))
    rule = world.cloud.rules()[80]
    assert (rule["backendPort"], rule["enableFloatingIP"]) == (30080, False)
    (door,) = world.cloud.doors()
    assert (door["destinationAddressPrefixes"], door["destinationPortRange"]) == (["10.0.0.4", "10.0.0.5"], "30080")


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({AZURE + "load-balancer-health-probe-protocol": "http"}, ("Http", 30080, "/", 5, 2)),
        (
            {PORT + "health-probe_protocol": "https", PORT + "health-probe_request-path": "/up"},
            ("Https", 30080, "/up", 5, 2),
        ),
        ({PORT + "health-probe_port": "443"}, ("Tcp", 30443, None, 5, 2)),
        ({PORT + "health-probe_port": "p443"}, ("Tcp", 30443, None, 5, 2)),
        ({PORT + "health-probe_port": "15021"}, ("Tcp", 15021, None, 5, 2)),
        (
            {
                AZURE + "load-balancer-health-probe-interval": "10",
                AZURE + "load-balancer-health-probe-num-of-probe": "3",
                PORT + "health-probe_num-of-probe": "4",
            },
            ("Tcp", 30080, None, 10, 4),
        ),
    ],
)
async def test_a_probe_is_as_annotated(world: World, annotations: dict[str, str], expected: tuple[Any, ...]) -> None:
    await world.ensure(service(ports=[(80, 30080, "TCP"), (443, 30443, "TCP")], annotations=annotations))
    id = world.cloud.rules()[80]["probe"]["id"]
    (probe,) = (p["properties"] for p in world.cloud.balancer()["properties"]["probes"] if p["id"] == id)
    assert expected == (
        probe["protocol"],
        probe["port"],
        probe.get("requestPath"),
        probe["intervalInSeconds"],
        probe["numberOfProbes"],
    )


async def test_a_port_can_go_unbalanced_or_unprobed(world: World) -> None:
    ports = [(80, 30080, "TCP"), (81, 30081, "TCP"), (82, 30082, "TCP")]
    other = PORT.replace("80", "81")
    await world.ensure(service(ports=ports, annotations={PORT + "no_lb_rule": "true", other + "no_probe_rule": "true"}))
    assert sorted(world.cloud.rules()) == [81, 82]
    assert [probe["port"] for probe in world.cloud.probes()] == [30082]


# ── public IPs ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_named_public_ip_is_used_and_left_as_it_was(world: World) -> None:
    id = world.cloud.public_ip("mine", "203.0.113.77", group="other")
    before = world.cloud.things[id.lower()]["etag"]
    wanted = service(annotations=annotated(pip_name="mine", load_balancer_resource_group="other"))
    assert await world.ensure(wanted) == "203.0.113.77"
    await world.provider.delete(wanted)
    assert world.cloud.things[id.lower()]["etag"] == before
    assert world.cloud.names("loadBalancers") == []


@pytest.mark.parametrize("how", ["spec", "annotation"])
async def test_an_address_asked_for_is_a_public_ip_that_exists(world: World, how: str) -> None:
    world.cloud.public_ip("mine", "203.0.113.77")
    spec = {"load_balancer_ip": "203.0.113.77"} if how == "spec" else {}
    given = annotated(load_balancer_ipv4="203.0.113.77") if how == "annotation" else {}
    assert await world.ensure(service(annotations=given, **spec)) == "203.0.113.77"
    why = await world.refused(service("other", load_balancer_ip="203.0.113.99"))
    assert why == (
        "PublicIPNotFound: there is no public IP with the address 203.0.113.99 in the resource group shop; "
        "create it first"
    )
    world.cloud.public_ip("late", "203.0.113.99")
    assert await world.ensure(service("other", load_balancer_ip="203.0.113.99")) == "203.0.113.99"


async def test_a_public_ip_that_can_not_serve_is_refused(world: World) -> None:
    world.cloud.public_ip("basic", "203.0.113.77", sku={"name": "Basic"})
    assert "SKU isn't Standard" in await world.refused(service(annotations={PIP_NAME: "basic"}))
    world.cloud.public_ip("six", "2001:db8::1")
    assert "it is IPv6" in await world.refused(service(annotations={PIP_NAME: "six"}))
    id = world.cloud.public_ip("held", "203.0.113.78")
    world.cloud.things[id.lower()]["properties"]["ipConfiguration"] = {"id": f"{NETWORK}/natGateways/nat"}
    assert "in use by" in await world.refused(service(annotations={PIP_NAME: "held"}))


async def test_prefix_tags_and_label_of_the_public_ip_that_is_made(world: World) -> None:
    wanted = annotated(
        pip_prefix_id=PREFIX,
        pip_tags="team=shop,env=prod",
        pip_ip_tags="RoutingPreference=Internet",
        dns_label_name="www",
    )
    assert await world.ensure(service(annotations=wanted)) == "198.51.100.1"
    (ip,) = (t for i, t in world.cloud.things.items() if "/publicipaddresses/" in i)
    assert (ip["tags"]["team"], ip["tags"]["env"]) == ("shop", "prod")
    assert ip["properties"]["ipTags"] == [{"ipTagType": "RoutingPreference", "tag": "Internet"}]
    assert ip["properties"]["dnsSettings"]["fqdn"] == "www.westeurope.cloudapp.azure.com"
    relabelled = {**wanted, AZURE + "dns-label-name": "", AZURE + "pip-tags": "team=cart"}
    assert await world.ensure(service(annotations=relabelled)) == "198.51.100.1"
    (ip,) = (t for i, t in world.cloud.things.items() if "/publicipaddresses/" in i)
    assert "dnsSettings" not in ip["properties"]
    assert (ip["tags"]["team"], ip["tags"]["env"]) == ("cart", "prod")
    assert await world.ensure(service()) == "203.0.113.1"  # another prefix is another address
    assert len(world.cloud.names("publicIPAddresses")) == 1


async def test_services_share_an_address_where_their_ports_differ(world: World) -> None:
    world.cloud.public_ip("mine", "203.0.113.77")
    web, dns = service("web", annotations={PIP_NAME: "mine"}), service("dns", [(53, 30053, "UDP")], {PIP_NAME: "mine"})
    assert await world.ensure(web) == await world.ensure(dns) == "203.0.113.77"
    clash = service("clash", annotations={PIP_NAME: "mine"})
    assert await world.refused(clash) == (
        "PortInUse: port 80/TCP of the address is Service default/web's; ask for another port or another address"
    )
    await world.provider.delete(web)
    assert world.changes == [Change.CAPACITY]
    assert await world.ensure(clash) == "203.0.113.77"
    await world.provider.delete(dns)
    await world.provider.delete(clash)
    assert (world.cloud.names("loadBalancers"), world.cloud.names("publicIPAddresses")) == ([], ["mine"])


async def test_an_address_of_ours_lives_as_long_as_anybody_on_it(world: World) -> None:
    first = service("first")
    address = await world.ensure(first)
    second = service("second", [(81, 30081, "TCP")], load_balancer_ip=address)
    assert await world.ensure(second) == address
    await world.provider.delete(first)
    assert await world.ensure(second) == address
    await world.provider.delete(second)
    assert (world.cloud.names("loadBalancers"), world.cloud.names("publicIPAddresses")) == ([], [])


async def test_internal_services_share_an_address_too(world: World) -> None:
    first = service("first", annotations={INTERNAL: "true"})
    address = await world.ensure(first)
    second = service(
        "second", [(81, 30081, "TCP")], annotated(load_balancer_internal="true", load_balancer_ipv4=address)
    )
    assert await world.ensure(second) == address
    await world.provider.delete(first)
    assert await world.ensure(second) == address
    await world.provider.delete(second)
    assert world.cloud.names("loadBalancers") == []


# ── who may come in ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_source_ranges_and_service_tags_are_doors_of_their_own(world: World) -> None:
    wanted = service(
        load_balancer_source_ranges=["192.0.2.0/24", "198.51.100.0/24"],
        annotations=annotated(allowed_service_tags="AzureCloud"),
    )
    await world.ensure(wanted)
    first, second = world.cloud.doors()
    assert first["sourceAddressPrefixes"] == ["192.0.2.0/24", "198.51.100.0/24"]
    assert second["sourceAddressPrefix"] == "AzureCloud"
    assert (first["priority"], second["priority"]) == (500, 501)


async def test_everything_else_is_denied_when_asked(world: World) -> None:
    given = annotated(load_balancer_internal="true", deny_all_except_load_balancer_source_ranges="true")
    await world.ensure(service(load_balancer_source_ranges=["10.1.0.0/16"], annotations=given))
    allow, deny = world.cloud.doors()
    assert (allow["sourceAddressPrefix"], allow["access"]) == ("10.1.0.0/16", "Allow")
    assert (deny["sourceAddressPrefix"], deny["access"], deny["priority"]) == ("*", "Deny", 4096)
    assert deny["destinationAddressPrefix"] == allow["destinationAddressPrefix"]


async def test_rules_of_the_user_stay_and_keep_their_priorities(world: World) -> None:
    ssh = {
        "priority": 500, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": "*",
        "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "22",
    }  # fmt: skip
    rules = {"securityRules": [{"name": "ssh", "properties": ssh}]}
    world.cloud.put_now(f"{NETWORK}/networkSecurityGroups/{NSG}", {"location": "westeurope", "properties": rules})
    web = service()
    await world.ensure(web)
    assert sorted((d["priority"], d["destinationPortRange"]) for d in world.cloud.doors()) == [(500, "22"), (501, "80")]
    await world.provider.delete(web)
    assert world.cloud.doors() == [ssh]


async def test_without_a_security_group_people_are_told(world: World) -> None:
    del world.cloud.things[f"{NETWORK}/networkSecurityGroups/{NSG}".lower()]
    assert (await world.refused(service())).startswith("NoSecurityGroup: there is no network security group /subscr")


# ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_change_of_ports_keeps_the_address(world: World) -> None:
    address = await world.ensure(service())
    assert await world.ensure(service(ports=[(8080, 30080, "TCP"), (53, 30053, "UDP")])) == address
    assert sorted(world.cloud.rules()) == [53, 8080]
    assert sorted(d["destinationPortRange"] for d in world.cloud.doors()) == ["53", "8080"]
    assert ("DELETE", "loadBalancers") not in world.cloud.calls


async def test_internal_and_back_leaves_nothing_behind(world: World) -> None:
    await world.ensure(service())
    assert await world.ensure(service(annotations={INTERNAL: "true"})) == "10.0.0.51"
    assert (world.cloud.names("loadBalancers"), world.cloud.names("publicIPAddresses")) == (["kubernetes-internal"], [])
    assert world.cloud.doors() == []
    assert await world.ensure(service()) == "203.0.113.1"
    assert world.cloud.names("loadBalancers") == ["kubernetes"]


async def test_nodes_come_and_go_by_one_write(world: World) -> None:
    services = [service(f"s{n}") for n in range(5)]
    for wanted in services:
        await world.ensure(wanted)
    world.cloud.calls.clear()
    fewer = [*nodes("10.0.0.4"), *nodes("192.168.0.1", provider_id="gce://project/zone/vm")]
    await asyncio.gather(*(world.ensure(wanted, fewer) for wanted in services))
    (pool,) = world.cloud.balancer()["properties"]["backendAddressPools"]
    assert [a["properties"]["ipAddress"] for a in pool["properties"]["loadBalancerBackendAddresses"]] == ["10.0.0.4"]
    assert world.cloud.mutations() == 1


async def test_what_others_have_in_the_load_balancer_stays(world: World) -> None:
    ip = world.cloud.public_ip("egress", "203.0.113.50")
    frontend = {"name": "egress", "properties": {"publicIPAddress": {"id": ip}}}
    theirs = {"frontendIPConfigurations": [frontend], "backendAddressPools": [{"name": "theirs", "properties": {}}]}
    world.cloud.put_now(
        f"{NETWORK}/loadBalancers/kubernetes",
        {"location": "westeurope", "sku": {"name": "Standard"}, "properties": theirs},
    )
    web = service()
    await world.ensure(web)
    await world.provider.delete(web)
    properties = world.cloud.balancer()["properties"]
    assert [f["name"] for f in properties["frontendIPConfigurations"]] == ["egress"]
    assert [p["name"] for p in properties["backendAddressPools"]] == ["theirs"]


# ── how it calls ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_no_op_reconcile_of_100_services_writes_nothing_and_reads_each_kind_once(world: World) -> None:
    services = [
        service(
            f"s{n}", annotations={INTERNAL: "true"} if n % 4 == 0 else {}, load_balancer_source_ranges=["192.0.2.0/24"]
        )
        for n in range(100)
    ]
    before = await asyncio.gather(*(world.provider.ensure(wanted, NODES) for wanted in services))
    writes = {kind: count for (method, kind), count in world.cloud.calls.items() if method == "PUT"}
    assert writes["publicIPAddresses"] == 75
    assert max(writes["loadBalancers"], writes["networkSecurityGroups"]) < 40  # many in one write
    async with serving(world.cloud, replace(world.config, fresh=3600.0), *services) as again:
        world.cloud.calls.clear()
        after = await asyncio.gather(*(again.provider.ensure(wanted, NODES) for wanted in services))
        assert after == before
        assert world.cloud.calls == {
            ("GET", "loadBalancers"): 2,
            ("GET", "publicIPAddresses"): 1,
            ("GET", "networkSecurityGroups"): 1,
        }
        assert await asyncio.gather(*(again.provider.ensure(wanted, NODES) for wanted in services)) == before
        assert sum(world.cloud.calls.values()) == 4


async def test_what_somebody_else_wrote_in_between_is_kept(world: World) -> None:
    await world.ensure(service("a"))
    document = world.cloud.balancer()
    pools = [*document["properties"]["backendAddressPools"], {"name": "theirs", "properties": {}}]
    document["properties"]["backendAddressPools"] = pools
    document["etag"] = 'W/"somebody else"'
    await world.ensure(service("b"))
    assert "theirs" in [p["name"] for p in world.cloud.balancer()["properties"]["backendAddressPools"]]
    assert len(world.cloud.balancer()["properties"]["loadBalancingRules"]) == 2


@pytest.mark.parametrize("trouble", ["412", "409"])
async def test_a_conflict_is_read_again_and_decided_again(world: World, trouble: str) -> None:
    await world.ensure(service("a"))
    world.cloud.trouble.planned = ["ok", trouble, trouble]  # the public IP, then the load balancer
    assert await world.ensure(service("b")) == "203.0.113.2"
    assert len(world.cloud.balancer()["properties"]["loadBalancingRules"]) == 2


async def test_throttling_is_waited_out(world: World) -> None:
    world.cloud.retry_after = "1"
    world.cloud.trouble.planned = ["429"]
    started = asyncio.get_running_loop().time()
    assert await world.ensure(service()) == "203.0.113.1"
    assert asyncio.get_running_loop().time() - started >= 1


@pytest.mark.parametrize("trouble", ["500", "drop", "lost"])
@pytest.mark.parametrize("write", [0, 1, 2])
async def test_a_write_that_fails_or_whose_answer_is_lost_is_taken_again(
    world: World, trouble: str, write: int
) -> None:
    world.cloud.trouble.planned = ["ok"] * write + [trouble]
    with pytest.raises(ProviderFailed, match="Azure"):
        await world.ensure(service())
    assert await world.ensure(service()) == "203.0.113.1"
    assert len(world.cloud.names("publicIPAddresses")) == 1
    world.cloud.trouble.planned = ["ok"] * write + [trouble]
    with pytest.raises(ProviderFailed):
        await world.provider.delete(service())
    await world.provider.delete(service())
    assert (world.cloud.names("loadBalancers"), world.cloud.names("publicIPAddresses")) == ([], [])
    assert world.cloud.doors() == []


@pytest.mark.parametrize("write", [0, 1])
async def test_a_long_operation_that_fails_is_begun_again(world: World, write: int) -> None:
    world.cloud.trouble.planned = ["ok"] * write + ["fails"]
    with pytest.raises(ProviderFailed, match="the operation failed"):
        await world.ensure(service())
    assert await world.ensure(service()) == "203.0.113.1"
    states = {thing["properties"]["provisioningState"] for thing in world.cloud.things.values()}
    assert states == {"Succeeded"}


async def test_a_wish_that_azure_refuses_does_not_cost_the_others(world: World) -> None:
    bad = service("bad", annotations=annotated(load_balancer_internal="true", load_balancer_internal_subnet="nowhere"))
    good = [service(f"s{n}", annotations={INTERNAL: "true"}) for n in range(4)]
    found = await asyncio.gather(*(world.provider.ensure(s, NODES) for s in [bad, *good]), return_exceptions=True)
    assert isinstance(found[0], ProviderFailed)
    assert "InvalidResourceReference" in str(found[0])
    assert all(isinstance(status, LoadBalancerStatus) for status in found[1:])
