"""ServiceCIDR objects: they extend the range while the server runs, and one that is in use stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address, ip_network

import pytest

from kubesvc.api.errors import ApiError, Forbidden, Invalid, NotFound
from kubesvc.api.labels import SERVICE_CIDR_FINALIZER
from kubesvc.api.meta import JSON
from kubesvc.api.registry import IP_ADDRESS, SERVICE, SERVICE_CIDR
from kubesvc.client.session import Session
from kubesvc.controllers.config import ControllersConfig
from kubesvc.controllers.main import run
from kubesvc.store.memory import MemoryStore
from kubesvc.store.protocol import Store
from support.admission import service
from support.apiserver import local_session

DEADLINE = 60.0
PORTS = {"ports": [{"port": 80}]}
TINY = ("10.96.0.0/30",)  # two addresses: the API's, and one more


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def session(store: MemoryStore) -> AsyncIterator[Session]:
    """A server with a tiny range, without controllers."""
    async with local_session(store=store, cidrs=TINY) as session:
        yield session


def cidr(name: str, *cidrs: str) -> JSON:
    return {"metadata": {"name": name}, "spec": {"cidrs": list(cidrs)}}


async def until(store: Store, session: Session, name: str, holds: Callable[[JSON | None], bool]) -> JSON | None:
    """Wait until `holds` of the ServiceCIDR `name` (None: it is gone)."""
    revision = await store.revision()
    async with asyncio.timeout(DEADLINE):
        events = store.watch("networking.k8s.io/servicecidrs/", revision)
        while True:
            try:
                found: JSON | None = await session.get(SERVICE_CIDR, "", name)
            except NotFound:
                found = None
            if holds(found):
                return found
            await anext(events)


# ── without controllers: what the server alone guarantees ────────────────────────────────────────────────────────────


async def test_a_new_range_is_ready_and_used_when_the_first_is_full(session: Session) -> None:
    await session.create(SERVICE, service("one", **PORTS))
    with pytest.raises(ApiError, match="failed to allocate a serviceIP: range is full"):
        await session.create(SERVICE, service("two", **PORTS))
    made = await session.create(SERVICE_CIDR, cidr("more", "10.97.0.0/24"))
    (ready,) = made["status"]["conditions"]
    assert (ready["type"], ready["status"]) == ("Ready", "True")
    assert made["metadata"]["finalizers"] == [SERVICE_CIDR_FINALIZER]
    two = await session.create(SERVICE, service("two", **PORTS))
    assert ip_address(two["spec"]["clusterIP"]) in ip_network("10.97.0.0/24")
    claim = await session.get(IP_ADDRESS, "", two["spec"]["clusterIP"])
    assert claim["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"] == "ipallocator.k8s.io"
    three = await session.create(SERVICE, service("three", **PORTS, clusterIP="10.97.0.9"))
    assert three["spec"]["clusterIP"] == "10.97.0.9"


async def test_a_range_that_is_going_gives_no_address(session: Session) -> None:
    await session.create(SERVICE_CIDR, cidr("more", "10.97.0.0/24"))
    await session.delete(SERVICE_CIDR, "", "more")
    going = await session.get(SERVICE_CIDR, "", "more")
    (ready,) = going["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "Terminating")
    assert ready["message"].startswith("There are still IPAddresses referencing the ServiceCIDR")
    await session.create(SERVICE, service("one", **PORTS))
    with pytest.raises(ApiError, match="range is full"):
        await session.create(SERVICE, service("two", **PORTS))
    with pytest.raises(Invalid, match=r"the provided IP \(10.97.0.9\) is not in the valid range"):
        await session.create(SERVICE, service("two", **PORTS, clusterIP="10.97.0.9"))


async def test_of_a_create_and_a_deletion_of_its_range_at_once_the_address_never_loses_its_range(
    session: Session, store: MemoryStore
) -> None:
    """Whoever was read before the deletion is committed before it, or chooses again."""
    await session.create(SERVICE, service("one", **PORTS))
    for n in range(30):
        name = f"more{n}"
        await session.create(SERVICE_CIDR, cidr(name, f"10.97.{n}.0/24"))
        creating = [session.create(SERVICE, service(f"s{n}-{i}", **PORTS)) for i in range(3)]
        await asyncio.gather(*creating, session.delete(SERVICE_CIDR, "", name), return_exceptions=True)
        marked = int((await session.get(SERVICE_CIDR, "", name))["metadata"]["resourceVersion"])
        for item in (await store.list("networking.k8s.io/ipaddresses/")).items:
            address = ip_address(item.key.rpartition("/")[2])
            assert address not in ip_network(f"10.97.{n}.0/24") or item.revision < marked


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (["10.98.0.0/24"], "field is immutable"),
        (["10.97.0.0/24", "10.98.0.0/24"], "may specify no more than one IP for each IP family"),
        (["fd00::/112", "10.97.0.0/24"], "field is immutable"),
        ([], "at least one CIDR required"),
    ],
    ids=["another", "two of one family", "another first", "none"],
)
async def test_the_networks_of_a_range_stay(session: Session, change: list[str], text: str) -> None:
    await session.create(SERVICE_CIDR, cidr("more", "10.97.0.0/24"))
    with pytest.raises(Invalid, match=text):
        await session.patch(SERVICE_CIDR, "", "more", {"spec": {"cidrs": change}})


async def test_a_range_may_get_its_second_family(session: Session) -> None:
    await session.create(SERVICE_CIDR, cidr("more", "10.97.0.0/24"))
    both = await session.patch(SERVICE_CIDR, "", "more", {"spec": {"cidrs": ["10.97.0.0/24", "fd00:97::/112"]}})
    assert both["spec"]["cidrs"] == ["10.97.0.0/24", "fd00:97::/112"]


async def test_a_cluster_configured_for_two_families_later_has_both_and_services_upgrade(store: MemoryStore) -> None:
    async with local_session(store=store) as session:
        old = await session.create(SERVICE, service("old", **PORTS, ipFamilyPolicy="PreferDualStack"))
        assert old["spec"]["ipFamilies"] == ["IPv4"]
    async with local_session(store=store, cidrs=("10.96.0.0/16", "fd00:10:96::/112")) as session:
        assert (await session.get(SERVICE_CIDR, "", "kubernetes"))["spec"]["cidrs"] == [
            "10.96.0.0/16", "fd00:10:96::/112",
        ]  # fmt: skip
        touched = await session.patch(SERVICE, "default", "old", {"metadata": {"labels": {"a": "b"}}})
        assert touched["spec"]["clusterIPs"] == old["spec"]["clusterIPs"], "it never follows by itself"
        require = {"spec": {"ipFamilyPolicy": "RequireDualStack"}}
        both = await session.patch(SERVICE, "default", "old", require)
        first, second = both["spec"]["clusterIPs"]
        assert first == old["spec"]["clusterIP"]
        assert ip_address(second) in ip_network("fd00:10:96::/112")
        claim = await session.get(IP_ADDRESS, "", second)
        assert claim["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"] == "IPv6"
        single = {"spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": [first]}}
        await session.patch(SERVICE, "default", "old", single)
        with pytest.raises(NotFound):
            await session.get(IP_ADDRESS, "", second)
        assert await session.get(IP_ADDRESS, "", first)


# ── with controllers: when a range may go ────────────────────────────────────────────────────────────────────────────


async def test_a_range_in_use_stays_until_its_last_address_is_gone(session: Session, store: MemoryStore) -> None:
    config = ControllersConfig(pod_cidrs=(ip_network("10.244.0.0/16"),), ca_pem="PEM", service_cidr_grace=0)
    controllers = asyncio.create_task(run(session, config))
    try:
        await session.create(SERVICE_CIDR, cidr("more", "10.97.0.0/24"))
        await session.create(SERVICE_CIDR, cidr("unused", "10.98.0.0/24"))
        await session.create(SERVICE, service("user", **PORTS, clusterIP="10.97.0.9"))
        await session.delete(SERVICE_CIDR, "", "more")
        await session.delete(SERVICE_CIDR, "", "unused")
        await until(store, session, "unused", lambda found: found is None)
        assert (await session.get(SERVICE_CIDR, "", "more"))["metadata"]["deletionTimestamp"]
        await session.delete(SERVICE, "default", "user")
        await until(store, session, "more", lambda found: found is None)
    finally:
        controllers.cancel()
        await asyncio.gather(controllers, return_exceptions=True)


async def test_the_address_of_a_service_cannot_be_deleted_under_it(session: Session) -> None:
    made = await session.create(SERVICE, service("one", **PORTS))
    with pytest.raises(Forbidden, match="it is the claim of services default/one"):
        await session.delete(IP_ADDRESS, "", made["spec"]["clusterIP"])
