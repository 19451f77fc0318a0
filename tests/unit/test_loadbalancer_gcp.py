"""Provider gcp by Google's own library against the stand-in: what is in the cloud after each wish."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.auth.exceptions import DefaultCredentialsError

from kubesvc.loadbalancer import main
from kubesvc.loadbalancer.config import GcpConfig, LoadBalancerConfig
from kubesvc.loadbalancer.provider import BadProvider, Change, ProviderFailed, Refused
from kubesvc.loadbalancer.providers.gcp import wishes
from kubesvc.loadbalancer.providers.gcp.names import cluster_prefix, service_name
from kubesvc.loadbalancer.providers.gcp.provider import GcpProvider
from support.gcp.server import HANG, LOST, NO_ANSWER, Server, gcp_server
from support.gcp.users import config, ip, node, nodes, ports, provider, service

SHARED = cluster_prefix("test")
WEB = service_name("test", service())


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with gcp_server() as server:
        yield server


def one(server: Server, collection: str, name: str = WEB) -> dict[str, Any]:
    return server.cloud.of(collection)[name]


def address(server: Server, name: str, ip: str, **more: str) -> None:
    """A static address of the user's."""
    path = "regions/europe-west1/addresses"
    body = {"name": name, "address": ip, "addressType": "EXTERNAL", "networkTier": "PREMIUM", **more}
    server.cloud.objects.setdefault(path, {})[name] = body


async def test_an_external_load_balancer_is_made_from_the_back_to_the_front(server: Server) -> None:
    async with provider(server) as gcp:
        status = await gcp.ensure(service(), nodes())
    rule = one(server, "forwardingRules", f"{WEB}-tcp")
    assert (rule["IPAddress"], rule["ports"], rule["IPProtocol"]) == (ip(status), ["80"], "TCP")
    assert (rule["loadBalancingScheme"], rule["networkTier"]) == ("EXTERNAL", "PREMIUM")
    backend = one(server, "backendServices")
    assert rule["backendService"] == backend["selfLink"]
    assert backend["healthChecks"] == [one(server, "healthChecks", f"{SHARED}-hc")["selfLink"]]
    assert {b["group"].split("/")[-3] for b in backend["backends"]} == {f"europe-west1-{zone}" for zone in "bcd"}
    assert server.cloud.members == {
        f"zones/europe-west1-{zone}/instanceGroups/{SHARED}": {f"zones/europe-west1-{zone}/instances/node{number}"}
        for number, zone in enumerate("bcd", 1)
    }
    check = one(server, "healthChecks", f"{SHARED}-hc")
    assert check["httpHealthCheck"] == {"port": 10256, "requestPath": "/healthz"}
    firewall = one(server, "firewalls", f"{WEB}-fw")
    assert firewall["allowed"] == [{"IPProtocol": "tcp", "ports": ["80"]}]
    assert (firewall["sourceRanges"], firewall["destinationRanges"]) == (["0.0.0.0/0"], [ip(status)])
    assert one(server, "firewalls", f"{SHARED}-hc-fw")["allowed"] == [{"IPProtocol": "tcp", "ports": ["10256"]}]
    assert not server.cloud.of("addresses")


async def test_an_internal_one_has_an_address_of_the_subnet(server: Server) -> None:
    wish = {wishes.TYPE: "Internal", wishes.SUBNET: "edge", wishes.GLOBAL_ACCESS: "true"}
    async with provider(server) as gcp:
        status = await gcp.ensure(service(annotations=wish), nodes())
        rule = one(server, "forwardingRules", f"{WEB}-tcp")
        assert (rule["loadBalancingScheme"], rule["allowGlobalAccess"]) == ("INTERNAL", True)
        assert rule["subnetwork"].endswith("/regions/europe-west1/subnetworks/edge")
        assert ip(status).startswith("10.")

        await gcp.ensure(service(annotations=wish | {wishes.GLOBAL_ACCESS: "false"}), nodes())
    after = one(server, "forwardingRules", f"{WEB}-tcp")
    assert (after["allowGlobalAccess"], after["id"]) == (False, rule["id"])  # a patch: the rule is the same


@pytest.mark.parametrize(
    ("load_balancer_class", "annotation", "scheme"),
    [
        (wishes.INTERNAL_CLASS, None, "INTERNAL"),
        (wishes.EXTERNAL_CLASS, None, "EXTERNAL"),
        (wishes.EXTERNAL_CLASS, "Internal", "EXTERNAL"),
        (None, "Internal", "INTERNAL"),
        (None, None, "EXTERNAL"),
    ],
)
async def test_the_class_decides_and_without_one_the_annotation(
    server: Server, load_balancer_class: str | None, annotation: str | None, scheme: str
) -> None:
    annotations = {wishes.TYPE: annotation} if annotation else {}
    async with provider(server) as gcp:
        await gcp.ensure(service(annotations=annotations, loadBalancerClass=load_balancer_class), nodes())
    assert one(server, "backendServices")["loadBalancingScheme"] == scheme


@pytest.mark.parametrize(
    ("internal", "said", "rules", "protocol"),
    [
        (False, ["53/UDP"], {"udp": {"ports": ["53"]}}, "UDP"),
        (False, ["53/UDP", "53", "80"], {"tcp": {"ports": ["53", "80"]}, "udp": {"ports": ["53"]}}, "UNSPECIFIED"),
        (False, ["1", "2", "3", "4", "5", "9"], {"tcp": {"portRange": "1-9"}}, "TCP"),
        (True, ["53/UDP", "53"], {"all": {"allPorts": True}}, "UNSPECIFIED"),
        (True, ["1", "2", "3", "4", "5", "9"], {"tcp": {"allPorts": True}}, "TCP"),
    ],
)
async def test_ports_and_protocols(
    server: Server, internal: bool, said: list[str], rules: dict[str, dict[str, Any]], protocol: str
) -> None:
    annotations = {wishes.TYPE: "Internal"} if internal else {}
    async with provider(server) as gcp:
        status = await gcp.ensure(service(annotations=annotations, ports=ports(*said)), nodes())
        found = server.cloud.of("forwardingRules")
        assert found.keys() == {f"{WEB}-{suffix}" for suffix in rules}
        for suffix, expected in rules.items():
            rule = found[f"{WEB}-{suffix}"]
            assert {key: rule.get(key) for key in expected} == expected
            assert rule["IPAddress"] == ip(status)  # all have one address, and no static one is left to pay for
        assert not server.cloud.of("addresses")
        assert one(server, "backendServices")["protocol"] == protocol
        firewall = one(server, "firewalls", f"{WEB}-fw")
        opened = {(a["IPProtocol"], port) for a in firewall["allowed"] for port in a["ports"]}
        assert opened == {((t.partition("/")[2] or "TCP").lower(), t.partition("/")[0]) for t in said}


async def test_policy_local_is_checked_by_the_services_own_port(server: Server) -> None:
    local = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 32000}
    async with provider(server) as gcp:
        before = await gcp.ensure(service(), nodes())
        after = await gcp.ensure(service(**local), nodes())
        assert ip(after) == ip(before)
        check = one(server, "healthChecks", f"{WEB}-hc")
        assert check["httpHealthCheck"] == {"port": 32000, "requestPath": "/healthz"}
        assert one(server, "backendServices")["healthChecks"] == [check["selfLink"]]
        assert server.cloud.of("firewalls").keys() == {f"{WEB}-fw", f"{WEB}-hc-fw"}  # nobody needs the shared one

        await gcp.ensure(service(), nodes())  # and back
        assert server.cloud.of("healthChecks").keys() == {f"{SHARED}-hc"}
        assert server.cloud.of("firewalls").keys() == {f"{WEB}-fw", f"{SHARED}-hc-fw"}


async def test_affinity_weights_and_sources_change_in_place(server: Server) -> None:
    local = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 32000}
    async with provider(server) as gcp:
        await gcp.ensure(service(**local), nodes())
        backend, rule = one(server, "backendServices"), one(server, "forwardingRules", f"{WEB}-tcp")
        assert (backend["sessionAffinity"], backend["localityLbPolicy"]) == ("NONE", "MAGLEV")

        sources = ["192.0.2.0/24", "198.51.100.7/32"]
        wish = service(
            annotations={wishes.WEIGHTED: "pods-per-node"},
            sessionAffinity="ClientIP",
            loadBalancerSourceRanges=sources,
            **local,
        )
        await gcp.ensure(wish, nodes())
        after = one(server, "backendServices")
        assert (after["sessionAffinity"], after["localityLbPolicy"]) == ("CLIENT_IP", "WEIGHTED_MAGLEV")
        assert one(server, "firewalls", f"{WEB}-fw")["sourceRanges"] == sources
        assert (after["id"], one(server, "forwardingRules", f"{WEB}-tcp")) == (backend["id"], rule)

        await gcp.ensure(service(annotations={wishes.SOURCE_RANGES: "203.0.113.0/24"}, **local), nodes())
        assert one(server, "firewalls", f"{WEB}-fw")["sourceRanges"] == ["203.0.113.0/24"]
        assert one(server, "backendServices")["localityLbPolicy"] == "MAGLEV"


@pytest.mark.parametrize("latency", [0.0, 0.02])
async def test_the_address_survives_a_change_of_ports_and_protocols(latency: float) -> None:
    """A rule can't be changed: its address is held while another takes its place."""
    async with gcp_server(latency=latency) as server, provider(server) as gcp:
        before = ip(await gcp.ensure(service(), nodes()))
        for said in (["80", "443"], ["80", "53/UDP"], ["53/UDP"], ["1", "2", "3", "4", "5", "6"], ["80"]):
            assert ip(await gcp.ensure(service(ports=ports(*said)), nodes())) == before
            assert not server.cloud.of("addresses")
        assert server.cloud.history["insert addresses"] == 5


async def test_a_crash_between_the_old_rule_and_the_new_keeps_the_address(server: Server) -> None:
    async with provider(server) as gcp:
        before = ip(await gcp.ensure(service(), nodes()))
    server.faults.script = [("POST", "forwardingRules", 500)] * 3
    async with provider(server, tries=3) as gcp:
        with pytest.raises(ProviderFailed, match="500 internalError: injected"):
            await gcp.ensure(service(ports=ports("443")), nodes())
    assert not server.cloud.of("forwardingRules")
    assert [a["address"] for a in server.cloud.of("addresses").values()] == [before]
    async with provider(server) as gcp:
        assert ip(await gcp.ensure(service(ports=ports("443")), nodes())) == before
    assert not server.cloud.of("addresses")


async def test_external_becomes_internal_and_back(server: Server) -> None:
    async with provider(server) as gcp:
        await gcp.ensure(service(), nodes())
        assert ip(await gcp.ensure(service(annotations={wishes.TYPE: "Internal"}), nodes())).startswith("10.")
        assert one(server, "backendServices")["loadBalancingScheme"] == "INTERNAL"
        assert ip(await gcp.ensure(service(), nodes())).startswith("203.0.113.")
        assert not server.cloud.of("addresses")


async def test_the_network_tier_changes_with_the_address(server: Server) -> None:
    async with provider(server) as gcp:
        before = await gcp.ensure(service(), nodes())
        after = await gcp.ensure(service(annotations={wishes.TIER: "Standard"}), nodes())
    assert ip(after) != ip(before)
    assert one(server, "forwardingRules", f"{WEB}-tcp")["networkTier"] == "STANDARD"


async def test_a_static_address_is_used_by_name_and_by_number_and_stays_the_users(server: Server) -> None:
    address(server, "user-a", "198.51.100.1")
    address(server, "user-b", "198.51.100.2")
    async with provider(server) as gcp:
        assert ip(await gcp.ensure(service(annotations={wishes.ADDRESSES: "user-a"}), nodes())) == "198.51.100.1"
        assert ip(await gcp.ensure(service(loadBalancerIP="198.51.100.2"), nodes())) == "198.51.100.2"
        assert ip(await gcp.ensure(service(ports=ports("443")), nodes())) == "198.51.100.2"  # what it has, it keeps
        await gcp.delete(service())
    assert server.cloud.of("addresses").keys() == {"user-a", "user-b"}
    assert server.cloud.leftovers() == []


async def test_an_internal_address_is_asked_for_by_number(server: Server) -> None:
    internal = {wishes.TYPE: "Internal"}
    async with provider(server) as gcp:
        assert ip(await gcp.ensure(service(annotations=internal, loadBalancerIP="10.132.7.7"), nodes())) == "10.132.7.7"


@pytest.mark.parametrize(
    ("annotations", "spec", "reason", "says"),
    [
        ({wishes.ADDRESSES: "gone"}, {}, "AddressNotFound", "'gone' is no static address of region europe-west1"),
        ({wishes.ADDRESSES: "user-std"}, {}, "AddressUnfit", "is of network tier STANDARD"),
        ({wishes.ADDRESSES: "user-in"}, {}, "AddressUnfit", "is INTERNAL, and the load balancer is EXTERNAL"),
        ({wishes.ADDRESSES: "user-a"}, {"loadBalancerIP": "192.0.2.9"}, "ConflictingRequest", "ask for one"),
        ({}, {"loadBalancerIP": "192.0.2.9"}, "AddressNotFound", "reserve it first"),
        ({}, {"loadBalancerIP": "2001:db8::1"}, "InvalidAddress", "not an IPv4 address"),
        ({}, {"ipFamilies": ["IPv6"]}, "FamilyNotServed", "only IPv4 is served"),
        ({}, {"ports": [{"port": 9, "protocol": "SCTP"}]}, "ProtocolNotServed", "use TCP or UDP"),
        ({}, {"loadBalancerSourceRanges": ["2001:db8::/32"]}, "InvalidSourceRange", "no range is IPv4's"),
        ({wishes.SOURCE_RANGES: "x"}, {}, "InvalidSourceRange", "'x' is not a network"),
        ({wishes.TIER: "Gold"}, {}, "InvalidAnnotation", "'Gold' isn't Premium or Standard"),
        ({wishes.TYPE: "External"}, {}, "InvalidAnnotation", "isn't Internal"),
        ({wishes.STRONG_AFFINITY: "enabled"}, {}, "AnnotationRejected", "use `spec.sessionAffinity`"),
        ({wishes.ADDRESSES: "a,b"}, {}, "InvalidAnnotation", "name one"),
    ],
)
async def test_what_cannot_be_had_is_refused_with_the_remedy_and_nothing_changes(
    server: Server, annotations: dict[str, str], spec: dict[str, Any], reason: str, says: str
) -> None:
    address(server, "user-a", "198.51.100.1")
    address(server, "user-std", "198.51.100.2", networkTier="STANDARD")
    address(server, "user-in", "10.0.0.9", addressType="INTERNAL")
    async with provider(server) as gcp:
        before = await gcp.ensure(service(), nodes())
        done = server.mutations
        with pytest.raises(Refused, match=says) as refused:
            await gcp.ensure(service(annotations=annotations, **spec), nodes())
    assert (refused.value.reason, refused.value.status) == (reason, before)
    assert server.mutations == done


async def test_nodes_come_and_go_with_the_groups_of_their_zones(server: Server) -> None:
    async with provider(server) as gcp:
        for name in ("a", "b"):
            await gcp.ensure(service(name), nodes())
        for name in ("a", "b"):
            await gcp.ensure(service(name), nodes("node1", "node3"))
        assert {name.partition("/")[0] for name in server.cloud.of("instanceGroups")} == {
            "europe-west1-b",
            "europe-west1-d",
        }
        await gcp.ensure(service("a"), [])  # none is ready: nothing is sent anywhere
        assert not any(server.cloud.members.values())
        await gcp.ensure(service("a"), nodes("node1"))
        assert sum(map(len, server.cloud.members.values())) == 1


async def test_a_node_whose_machine_is_gone_keeps_no_other_out(server: Server) -> None:
    server.cloud.vm("europe-west1-b", "node4")
    server.cloud.instances.discard("zones/europe-west1-b/instances/node1")
    every = [*nodes(), node("node4", "europe-west1-b")]
    async with provider(server, resync=3600.0) as gcp:
        await gcp.ensure(service(), every)
        assert {vm.rpartition("/")[2] for vms in server.cloud.members.values() for vm in vms} == {
            "node2",
            "node3",
            "node4",
        }
        done = server.mutations
        await gcp.ensure(service(), every)
        assert server.mutations == done  # nor is it tried each time


async def test_nodes_that_are_no_machines_here_are_named(server: Server) -> None:
    elsewhere = nodes("node1")[0].__class__()
    async with provider(server) as gcp:
        with pytest.raises(Refused, match="spec.providerID must be gce://shop/europe-west1-ZONE/NAME") as refused:
            await gcp.ensure(service(), [elsewhere])
        assert refused.value.reason == "NoInstances"
        await gcp.ensure(service(), [elsewhere, *nodes("node1")])  # beside others it is left out


async def test_deleting_leaves_nothing_and_what_is_shared_goes_last(server: Server) -> None:
    local = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 32000}
    every = [service("a"), service("b", **local), service("c", ports=ports("53", "53/UDP"))]
    async with provider(server) as gcp:
        await asyncio.gather(*(gcp.ensure(s, nodes()) for s in every))
        await gcp.delete(every[0])
        assert f"{SHARED}-hc" in server.cloud.of("healthChecks")  # c still has it
        await gcp.delete(every[2])
        assert server.cloud.of("healthChecks").keys() == {f"{service_name('test', every[1])}-hc"}
        assert server.cloud.of("instanceGroups")
        await gcp.delete(every[1])
    assert server.cloud.leftovers() == []


async def test_a_restarted_controller_deletes_what_the_one_before_made(server: Server) -> None:
    async with provider(server) as gcp:
        await asyncio.gather(*(gcp.ensure(service(name), nodes()) for name in ("a", "b")))
    async with provider(server, service("a"), service("b")) as gcp:
        await gcp.delete(service("a"))
        assert server.cloud.of("instanceGroups")  # b has them still, though nobody ensured it since
        await gcp.delete(service("b"))
    assert server.cloud.leftovers() == []


async def test_what_others_undo_is_mended(server: Server) -> None:
    async with provider(server, remembered=0.0) as gcp:
        await gcp.ensure(service(), nodes())
        region = "regions/europe-west1"
        del server.cloud.objects[f"{region}/forwardingRules"][f"{WEB}-tcp"]
        server.cloud.objects[f"{region}/backendServices"][WEB]["sessionAffinity"] = "CLIENT_IP"
        server.cloud.objects["global/firewalls"][f"{WEB}-fw"]["sourceRanges"] = ["192.0.2.0/24"]
        await gcp.ensure(service(), nodes())
    assert one(server, "forwardingRules", f"{WEB}-tcp")
    assert one(server, "backendServices")["sessionAffinity"] == "NONE"
    assert one(server, "firewalls", f"{WEB}-fw")["sourceRanges"] == ["0.0.0.0/0"]


async def test_every_service_is_looked_at_now_and_then(server: Server) -> None:
    changes: asyncio.Queue[Change] = asyncio.Queue()
    gcp = GcpProvider(config(server, resync=0.01), "test")
    task = asyncio.create_task(gcp.run(changes.put_nowait))
    assert await asyncio.wait_for(changes.get(), 60) is Change.RULES
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_hundred_services_that_are_as_they_should_be_cost_one_list_a_kind() -> None:
    """Also for a fresh process, whose lists have several pages."""
    every = [service(f"s{number}") for number in range(100)]
    async with gcp_server() as server:
        async with provider(server, remembered=3600.0) as gcp:
            shown = await asyncio.gather(*(gcp.ensure(s, nodes()) for s in every))
            assert len({ip(status) for status in shown}) == 100
            server.calls.clear()
            assert list(await asyncio.gather(*(gcp.ensure(s, nodes()) for s in every))) == list(shown)
            assert not server.calls  # nothing at all while the lists are trusted
        for page, pages in ((500, 1), (40, 3)):
            server.page = page
            async with provider(server, *every, remembered=3600.0) as gcp:
                server.calls.clear()
                assert list(await asyncio.gather(*(gcp.ensure(s, nodes()) for s in every))) == list(shown)
            assert server.mutations == 0
            assert dict(server.calls) == {
                "GET forwardingRules list": pages,
                "GET backendServices list": pages,
                "GET firewalls list": pages,
                "GET healthChecks list": 1,
                "GET addresses list": 1,
                "GET instanceGroups list": 1,
                "GET instanceGroups instances": 3,  # one a zone
            }


@pytest.mark.parametrize("fault", [429, 500, 503, NO_ANSWER, LOST])
async def test_a_call_that_fails_is_tried_again_and_done_once(server: Server, fault: int | str) -> None:
    """Throttled, broken, cut off before or after: a request has an id by which the service knows it again."""
    server.faults.script = [("POST", "forwardingRules", fault)] * 3
    async with provider(server) as gcp:
        await gcp.ensure(service(), nodes())
    assert server.faults.dealt == {fault: 3}
    assert server.cloud.history["insert forwardingRules"] == 1


async def test_a_call_that_hangs_times_out_and_is_done_once(server: Server) -> None:
    server.faults.script = [("POST", "backendServices", HANG)]
    async with provider(server, timeout=2.0) as gcp:
        await gcp.ensure(service(), nodes())
    assert server.faults.dealt == {HANG: 1}
    assert server.cloud.history["insert backendServices"] == 1


async def test_back_off_grows_and_ends(server: Server) -> None:
    server.faults.script = [("GET", "firewalls", 429)] * 4
    async with provider(server, tries=4) as gcp:
        with pytest.raises(ProviderFailed, match="list firewalls: 429 rateLimitExceeded: injected"):
            await gcp.ensure(service(), nodes())
        assert server.mutations == 0
        await gcp.ensure(service(), nodes())


@pytest.mark.parametrize(
    ("method", "collection", "fault"),
    [("PATCH", "backendServices", 412), ("POST", "firewalls", 409), ("PATCH", "backendServices", 409)],
)
async def test_a_conflict_is_looked_at_and_planned_anew(
    server: Server, method: str, collection: str, fault: int
) -> None:
    async with provider(server) as gcp:
        first = service() if method == "PATCH" else None
        if first is not None:
            await gcp.ensure(first, nodes())
        server.faults.script = [(method, collection, fault)]
        wish = service(sessionAffinity="ClientIP")
        if fault == 409 and method == "PATCH":
            with pytest.raises(ProviderFailed, match="409 conflict"):
                await gcp.ensure(wish, nodes())
        await gcp.ensure(wish, nodes())
    assert server.faults.dealt == {fault: 1}
    assert one(server, "backendServices")["sessionAffinity"] == "CLIENT_IP"


async def test_an_operation_that_fails_is_a_failure_in_its_own_words(server: Server) -> None:
    async with provider(server) as gcp:
        spoiled = iter([True])
        server.cloud.spoil = lambda: next(spoiled, False)
        with pytest.raises(ProviderFailed, match="500 INTERNAL_ERROR: Internal error"):
            await gcp.ensure(service(), nodes())
        await gcp.ensure(service(), nodes())


async def test_a_quota_that_is_used_up_is_named(server: Server) -> None:
    server.cloud.quotas["forwardingRules"] = 1
    async with provider(server) as gcp:
        await gcp.ensure(service("a"), nodes())
        with pytest.raises(ProviderFailed, match="403 quotaExceeded: Quota 'FORWARDINGRULES' exceeded"):
            await gcp.ensure(service("b"), nodes())
        await gcp.delete(service("b"))
        await gcp.delete(service("a"))
    assert server.cloud.leftovers() == []


async def test_what_was_under_way_when_the_controller_died_is_waited_for(server: Server) -> None:
    """An operation of before isn't in any list yet: a Service deleted meanwhile must not leave its object."""
    gate = server.cloud.gate["insert forwardingRules"] = asyncio.Event()
    server.faults.script = [("POST", "forwardingRules", LOST), *[("POST", "forwardingRules", 503)] * 2]
    async with provider(server, tries=3) as gcp:
        with pytest.raises(ProviderFailed):
            await gcp.ensure(service(), nodes())
        assert not server.cloud.of("forwardingRules")  # and yet it will be
        server.calls.clear()
        server.waited.clear()
        deleting = asyncio.create_task(gcp.delete(service()))
        await asyncio.wait_for(server.waited.wait(), 60)
        assert server.mutations == 0
        gate.set()
        await deleting
    await server.cloud.quiet()
    assert server.cloud.history["insert forwardingRules"] == 1
    assert server.cloud.leftovers() == []


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_project_the_message_names_the_options() -> None:
    with pytest.raises(BadProvider, match="--gcp-project and --gcp-region"):
        main.PROVIDERS["gcp"](None, LoadBalancerConfig())  # type: ignore[arg-type]


def test_without_the_library_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in list(sys.modules):
        if module.startswith(("google.cloud", "kubesvc.loadbalancer.providers.gcp.")):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "google.cloud", None)
    with pytest.raises(BadProvider, match=r"isn't installed: pip install 'kubesvc\[gcp\]'"):
        main.PROVIDERS["gcp"](None, LoadBalancerConfig(gcp=GcpConfig("shop", "europe-west1")))  # type: ignore[arg-type]


def test_without_credentials_the_message_says_how_to_give_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: object) -> None:
        raise DefaultCredentialsError("none")

    monkeypatch.setattr("google.auth.default", none)
    with pytest.raises(BadProvider, match="GOOGLE_APPLICATION_CREDENTIALS"):
        main.PROVIDERS["gcp"](None, LoadBalancerConfig(gcp=GcpConfig("shop", "europe-west1")))  # type: ignore[arg-type]


def test_no_other_provider_imports_the_library() -> None:
    code = "import sys, kubesvc.loadbalancer.main, kubesvc.cli.loadbalancer; print('google.cloud' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"
