"""What load balancers, kubelets and Prometheus hear from the proxy."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import aiohttp
import msgspec
import pytest
from msgspec.structs import replace

from kubesvc.api.nodes import Node
from kubesvc.client.events import Recorder
from kubesvc.client.session import Session
from kubesvc.proxy.health import Answer, Health, service_health
from kubesvc.proxy.listening import Listener, ServicePorts, listen
from kubesvc.proxy.metrics import Metrics, triggered_at
from support.lists import Api
from support.net import Lab
from support.ports import free_port
from support.proxied import CONFIG, proxied, until
from support.proxy import NODE, endpoint, service, slice_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def node(**spec: object) -> Node:
    meta = {"name": NODE, **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if spec.pop("deleting", False) else {})}
    return msgspec.convert({"metadata": meta, "spec": spec}, Node)


def test_a_change_not_programmed_for_a_minute_makes_the_proxy_unhealthy() -> None:
    """Queued at 0 s, still healthy at 59 s, not at 60 s; programmed, it is healthy again."""
    health = Health(("IPv4",), NOON)
    health.programmed(NOON)
    health.queued(NOON)
    health.queued(later(50))
    assert health.livez(later(59)).status == 200
    assert health.livez(later(60)).status == 503
    health.programmed(later(61))
    assert health.livez(later(600)).status == 200


def test_a_slow_start_is_no_reason_to_be_killed() -> None:
    """Before the first programming the proxy is healthy however long it takes."""
    health = Health(("IPv4",), NOON)
    health.queued(NOON)
    assert health.livez(later(300)).status == 200


@pytest.mark.parametrize(
    ("found", "status"),
    [
        pytest.param(node(), 200, id="a node"),
        pytest.param(None, 503, id="no node"),
        pytest.param(node(deleting=True), 503, id="being deleted"),
        pytest.param(
            node(taints=[{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]), 503, id="to be taken away"
        ),
        pytest.param(node(taints=[{"key": "else", "effect": "NoSchedule"}]), 200, id="tainted otherwise"),
    ],
)
def test_healthz_looks_at_the_node_and_livez_does_not(found: Node | None, status: int) -> None:
    """A load balancer is to leave the node; nobody is to restart its proxy."""
    health = Health(("IPv4", "IPv6"), NOON)
    health.see_node(found)
    assert (health.healthz(NOON).status, health.livez(NOON).status) == (status, 200)


def test_the_answers_say_what_upstream_says() -> None:
    """The fields, per family, and the header."""
    health = Health(("IPv4", "IPv6"), NOON)
    health.programmed(NOON)
    found = health.healthz(later(5))
    five = later(5).isoformat()
    family = {"lastUpdated": five, "healthy": True}
    assert json.loads(found.body) == {
        "lastUpdated": five,
        "currentTime": five,
        "nodeEligible": True,
        "healthy": True,
        "status": {"IPv4": family, "IPv6": family},
    }
    assert found.headers["X-Content-Type-Options"] == "nosniff"
    assert "nodeEligible" not in json.loads(health.livez(NOON).body)
    health.queued(later(10))
    assert json.loads(health.livez(later(100)).body)["lastUpdated"] == NOON.isoformat()


@pytest.mark.parametrize(
    ("endpoints", "healthy", "status"), [(2, True, 200), (0, True, 503), (2, False, 503)], ids=["here", "none", "ill"]
)
def test_a_load_balancer_hears_of_local_endpoints(endpoints: int, healthy: bool, status: int) -> None:
    """Upstream's body to the byte, and the weight."""
    found = service_health("default", "web", endpoints, healthy)
    word = str(healthy).lower()
    assert found == Answer(
        status,
        '{\n\t"service": {\n\t\t"namespace": "default",\n\t\t"name": "web"\n\t},\n'
        f'\t"localEndpoints": {endpoints},\n\t"serviceProxyHealthy": {word}\n}}',
        {
            "Content-Type": "application/json",
            "X-Content-Type-Options": "nosniff",
            "X-Load-Balancing-Endpoint-Weight": str(endpoints),
        },
    )


def test_metrics_keep_upstreams_names() -> None:
    """Every name that dashboards made for kube-proxy ask for."""
    metrics = Metrics()
    metrics.queued(1.0, endpoints=True)
    metrics.queued(2.0, endpoints=False)
    metrics.synced(3.0, 0.01, whole=True)
    metrics.synced(4.0, 0.001, whole=False)
    metrics.no_local_endpoints.labels("internal").set(0)
    metrics.healthz.labels("200").inc()
    metrics.livez.labels("200").inc()
    metrics.affinity_clients.labels("IPv4").set(7)
    shown = metrics.render().decode()
    for name in (
        "sync_proxy_rules_duration_seconds_count 2.0",
        "sync_full_proxy_rules_duration_seconds_count 1.0",
        "sync_partial_proxy_rules_duration_seconds_count 1.0",
        "network_programming_duration_seconds_count 0.0",
        "sync_proxy_rules_last_timestamp_seconds 4.0",
        "sync_proxy_rules_last_queued_timestamp_seconds 2.0",
        "sync_proxy_rules_endpoint_changes_pending 0.0",
        "sync_proxy_rules_endpoint_changes_total 1.0",
        "sync_proxy_rules_service_changes_pending 0.0",
        "sync_proxy_rules_service_changes_total 1.0",
        'sync_proxy_rules_no_local_endpoints_total{traffic_policy="internal"} 0.0',
        "sync_proxy_rules_nftables_sync_failures_total 0.0",
        "sync_proxy_rules_nftables_cleanup_failures_total 0.0",
        'proxy_healthz_total{code="200"} 1.0',
        'proxy_livez_total{code="200"} 1.0',
        "conntrack_reconciler_sync_duration_seconds_count 0.0",
        "conntrack_reconciler_deleted_entries_total 0.0",
    ):
        assert f"kubeproxy_{name}\n" in shown, name


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2026-01-01T12:00:00Z", NOON), ("2026-01-01T12:00:00.5Z", later(0.5)), ("soon", None), ("", None)],
)
def test_a_slice_says_when_its_change_was_triggered(text: str, expected: datetime | None) -> None:
    """The annotation its controller writes; anything else counts for nothing."""
    tree = {"metadata": {"annotations": {"endpoints.kubernetes.io/last-change-trigger-time": text}}}
    assert triggered_at(msgspec.convert(tree, type(slice_of()))) == expected


async def get(port: int, path: str = "/") -> tuple[int, str, dict[str, str]]:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text(), dict(answer.headers)


@pytest.fixture
async def ports() -> AsyncIterator[tuple[ServicePorts, Api, dict[tuple[str, str], int]]]:
    """Health-check node ports on this machine's loopback, over endpoints counted by hand."""
    api = Api()
    counts: dict[tuple[str, str], int] = {}
    recorder = Recorder(Session(api), host=NODE)
    found = ServicePorts(
        ["127.0.0.1"],
        lambda key: service_health(*key, counts.get(key, 0), True),
        recorder,
        NODE,
        "",
    )
    tasks = [asyncio.create_task(found.run()), asyncio.create_task(recorder.run())]
    yield found, api, counts
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def eventually(port: int, expected: bool) -> None:
    async with asyncio.timeout(60):
        while await listening(port) is not expected:  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # between two looks


async def test_a_services_port_opens_answers_moves_and_closes(
    ports: tuple[ServicePorts, Api, dict[tuple[str, str], int]],
) -> None:
    """Any path is answered; the count is the one of the moment; policy Cluster closes the port."""
    found, _, counts = ports
    first, second = free_port(), free_port()
    one = service(type="LoadBalancer", healthCheckNodePort=first, externalTrafficPolicy="Local")
    found.service_changed(None, one)
    await eventually(first, True)
    assert (await get(first, "/any/path?x"))[0] == 503
    counts["default", "web"] = 2
    status, body, headers = await get(first)
    assert (status, json.loads(body)["localEndpoints"]) == (200, 2)
    assert headers["X-Load-Balancing-Endpoint-Weight"] == "2"
    two = service(type="LoadBalancer", healthCheckNodePort=second, externalTrafficPolicy="Local")
    found.service_changed(one, two)
    await eventually(second, True)
    await eventually(first, False)
    found.service_changed(two, service(type="LoadBalancer", externalTrafficPolicy="Cluster"))
    await eventually(second, False)


async def test_a_port_in_use_is_an_event_on_the_service(
    ports: tuple[ServicePorts, Api, dict[tuple[str, str], int]],
) -> None:
    """Somebody else has the port: said once, where `kubectl describe service` shows it."""
    found, api, _ = ports
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found.service_changed(None, service(healthCheckNodePort=port, externalTrafficPolicy="Local"))
        await until("an event", lambda: bool(api.written))
    assert api.written[0]["reason"] == "FailedToStartServiceHealthcheck"
    assert f'node {NODE} failed to start healthcheck "default/web" on port {port}' in api.written[0]["message"]


async def test_a_port_in_use_is_taken_once_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    """The proxy before this one may still be ending."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        task = asyncio.create_task(listen(lambda path: Answer(200, path, {}), "127.0.0.1", port, "health"))
        await until("a complaint", lambda: "trying again" in caplog.text)
    await eventually(port, True)
    assert (await get(port, "/healthz"))[:2] == (200, "/healthz")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_running_proxy_answers_for_itself() -> None:
    """Endpoints here are counted, health and metrics answer, and a refusal of the kernel is counted."""
    web = service(healthCheckNodePort=32000, externalTrafficPolicy="Local", internalTrafficPolicy="Local")
    slices = slice_of(endpoint("10.244.0.5", node=NODE), endpoint("10.244.1.5"))
    api = Api(services=[web], endpointslices=[slices], nodes=[node()])
    health, metrics = free_port(), free_port()
    config = replace(CONFIG, healthz_address=("127.0.0.1", health), metrics_address=("127.0.0.1", metrics))
    with Lab("health") as lab:
        async with proxied(lab.namespace("node"), api, config) as here:
            await eventually(health, True)
            await eventually(metrics, True)
            assert (await get(health, "/healthz"))[0] == 200
            assert (await get(health, "/livez"))[0] == 200
            assert (await get(health, "/other"))[0] == 404
            assert (await get(metrics, "/proxyMode"))[1] == "nftables"
            shown = (await get(metrics, "/metrics"))[1]
            assert "kubeproxy_sync_full_proxy_rules_duration_seconds_count 1.0" in shown
            assert 'kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="external"} 0.0' in shown
            found = here.attendants._service_health(("default", "web"))
            assert (found.status, json.loads(found.body)["localEndpoints"]) == (200, 1)
            api.tell("nodes", "DELETED", node())
            await until("the node is gone", lambda: not here.attendants.health.node_eligible)
            assert (await get(health, "/healthz"))[0] == 503


async def test_a_listener_that_gets_one_address_of_two_closes_it_again() -> None:
    """All addresses or none."""
    port = free_port()
    with socket.create_server(("127.0.0.2", port)):
        listener = Listener(lambda path: Answer(200, path, {}))
        with pytest.raises(OSError):
            await listener.open(["127.0.0.1", "127.0.0.2"], port)
        assert not await listening(port)
