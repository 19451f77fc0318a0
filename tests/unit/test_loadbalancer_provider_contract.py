"""What every provider promises, run against each of `support.providers`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest
from msgspec.structs import replace

from kubesvc.api.core import LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus
from kubesvc.api.meta import ObjectMeta
from kubesvc.client.session import Session
from kubesvc.loadbalancer.provider import Change, Provider
from support.apiserver import local_session
from support.providers import PROVIDERS, Case


@pytest.fixture(params=PROVIDERS.values(), ids=PROVIDERS.keys())
async def case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    async with request.param() as found:
        yield found


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with local_session() as session:
        yield session


@asynccontextmanager
async def started(case: Case, session: Session, *adopted: Service) -> AsyncIterator[tuple[Provider, list[Change]]]:
    changes: list[Change] = []
    provider = case.make(session)
    task = asyncio.create_task(provider.run(changes.append))
    try:
        await asyncio.wait_for(provider.adopt(adopted), 60)
        yield provider, changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


WEB, DNS = ServicePort("web", "TCP", 80, 80, 30080), ServicePort("dns", "UDP", 53, 53, 30053)


def service(
    name: str, status: LoadBalancerStatus | None = None, ports: Sequence[ServicePort] = (WEB,), *ranges: str
) -> Service:
    return Service(
        metadata=ObjectMeta(name=name, namespace="default", uid=f"uid-{name}"),
        spec=ServiceSpec(
            type="LoadBalancer", ip_families=["IPv4"], ports=list(ports), load_balancer_source_ranges=list(ranges)
        ),
        status=ServiceStatus(load_balancer=status or LoadBalancerStatus()),
    )


async def test_it_owns_its_class_and_no_other(case: Case, session: Session) -> None:
    provider = case.make(session)
    assert provider.name
    assert provider.owns(case.load_balancer_class)
    assert not provider.owns("example.com/other")


async def test_ensuring_twice_changes_nothing(case: Case, session: Session) -> None:
    async with started(case, session) as (provider, _):
        first = await provider.ensure(service("web"), [])
        assert len(first.ingress) == 1
        assert await provider.ensure(service("web", first), []) == first
        assert await provider.ensure(service("web"), []) == first  # the status didn't get through


async def test_two_services_have_a_load_balancer_each(case: Case, session: Session) -> None:
    async with started(case, session) as (provider, _):
        shown = await asyncio.gather(*(provider.ensure(service(name), []) for name in ("a", "b", "c")))
        assert len({msgspec.json.encode(s) for s in shown}) == 3


async def test_a_restart_finds_what_there_is(case: Case, session: Session) -> None:
    async with started(case, session) as (provider, _):
        before = {name: await provider.ensure(service(name), []) for name in ("a", "b", "c")}
    known = [service(name, status) for name, status in before.items()]
    async with started(case, session, *reversed(known)) as (provider, _):
        assert {s.name: await provider.ensure(s, []) for s in reversed(known)} == before


async def test_deleting_is_complete_and_may_be_repeated(case: Case, session: Session) -> None:
    async with started(case, session) as (provider, changes):
        await provider.delete(service("never-seen"))
        assert changes == []
        status = await provider.ensure(service("web"), [])
        for _ in range(2):
            await provider.delete(service("web", status))
        assert changes in ([], [Change.CAPACITY])
        assert (await provider.ensure(service("web"), [])).ingress


async def test_what_a_service_asks_stands_and_a_change_keeps_the_load_balancer(case: Case, session: Session) -> None:
    """A port more, fewer who may connect, a port less, everybody again: its address or host name is what it was."""
    changes = [
        service("web"),
        service("web", None, [WEB, DNS]),
        service("web", None, [WEB, DNS], "192.0.2.0/24"),
        service("web", None, [DNS], "192.0.2.0/24"),
        service("web"),
    ]
    async with started(case, session) as (provider, _):
        status = None
        for number, asked in enumerate(changes):
            before, known = status, replace(asked, status=ServiceStatus(load_balancer=status or LoadBalancerStatus()))
            status = await provider.ensure(known, case.nodes)
            assert await case.wrong(known, case.nodes, status) == [], number
            assert before is None or status == before


async def test_one_that_goes_leaves_the_others_as_they_are_and_nothing_of_itself(case: Case, session: Session) -> None:
    async with started(case, session) as (provider, _):
        empty = await case.left()
        one, other = service("one"), service("other", None, [DNS])
        await provider.ensure(one, case.nodes)
        kept = await provider.ensure(other, case.nodes)
        await provider.delete(one)
        assert await case.wrong(other, case.nodes, kept) == []
        assert await provider.ensure(replace(other, status=ServiceStatus(load_balancer=kept)), case.nodes) == kept
        await provider.delete(other)
        assert await case.left() == empty


async def test_what_one_process_made_the_next_one_deletes(case: Case, session: Session) -> None:
    """It finds what belongs to a Service, though it never made any of it, and though the status didn't get through."""
    async with started(case, session) as (provider, _):
        empty = await case.left()
        await provider.ensure(service("web", None, [WEB, DNS], "192.0.2.0/24"), case.nodes)
    async with started(case, session, service("web")) as (provider, _):
        await provider.delete(service("web"))
        assert await case.left() == empty


async def test_what_was_changed_while_nobody_looked_is_put_right(case: Case, session: Session) -> None:
    async with started(case, session) as (provider, _):
        status = await provider.ensure(service("web", None, [WEB, DNS]), case.nodes)
    after = service("web", status, [DNS], "192.0.2.0/24")
    async with started(case, session, after) as (provider, _):
        assert await provider.ensure(after, case.nodes) == status
        assert await case.wrong(after, case.nodes, status) == []
