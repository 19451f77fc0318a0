"""Addresses and ports are never leaked and never doubled: with many at once, and when the server is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from kubesvc.api.errors import ApiError, Invalid, NotFound
from kubesvc.api.meta import JSON
from kubesvc.api.registry import SERVICE
from kubesvc.apiserver.doctor import ADDRESSES, NODE_PORTS, examine
from kubesvc.client.session import Session
from kubesvc.store.memory import MemoryStore
from support.admission import service
from support.apiserver import local_session
from support.killing import TYPES, kill_under_load
from support.serving import Served


async def quarrel(session: Session, random: Random, steps: int) -> None:
    """Create, change and delete a few Services that others do the same with, by name and by value."""
    for _ in range(steps):
        name = f"s{random.randrange(6)}"
        wish: JSON = random.choice([{}, {}, {"clusterIP": f"10.96.0.{random.randrange(2, 6)}"}])
        ports = [{"port": 80, "nodePort": random.choice([0, 30080, 30081])}]
        spec = random.choice(TYPES)
        try:
            match random.randrange(4):
                case 0:
                    node_ports = ports if spec["type"] in ("NodePort", "LoadBalancer") else [{"port": 80}]
                    addresses = {} if spec["type"] == "ExternalName" else wish
                    await session.create(SERVICE, service(name, **spec, **addresses, ports=node_ports))
                case 1:
                    await session.delete(SERVICE, "default", name)
                case 2:
                    patch = {"spec": {"type": "NodePort", "ports": ports}}
                    await session.patch(SERVICE, "default", name, patch)
                case _:
                    await session.patch(SERVICE, "default", name, {"spec": spec})
        except ApiError:
            pass  # refused, gone, there already: as it should be with so many


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cidrs", [("10.96.0.0/28",), ("10.96.0.0/28", "fd00:10:96::/124")], ids=["single", "dual"])
async def test_many_who_create_change_and_delete_leave_every_claim_with_its_service(
    seed: int, cidrs: tuple[str, ...]
) -> None:
    store = MemoryStore()
    async with local_session(store=store, cidrs=cidrs) as session:
        random = Random(seed)
        await asyncio.gather(*(quarrel(session, Random(random.random()), 40) for _ in range(12)))
        assert examine((await store.list("")).items) == []
        for item in (await store.list("core/services/default/")).items:
            if not item.key.endswith("/kubernetes"):
                await session.delete(SERVICE, "default", item.key.rpartition("/")[2])
        left = [i.key for prefix in (ADDRESSES, NODE_PORTS) for i in (await store.list(prefix)).items]
        assert left == [ADDRESSES + "10.96.0.1"], "the API's own"


async def test_of_many_who_want_one_port_one_has_it_and_one_who_gives_it_up_frees_it() -> None:
    async with local_session() as session:
        wish = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}
        tries = (session.create(SERVICE, service(f"s{n}", **wish)) for n in range(20))
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        (winner,) = [made for made in outcomes if isinstance(made, dict)]
        assert all(isinstance(refused, (dict, Invalid)) for refused in outcomes)
        await session.patch(SERVICE, "default", winner["metadata"]["name"], {"spec": {"type": "ClusterIP"}})
        await session.create(SERVICE, service("next", **wish))


async def test_a_refused_create_leaves_no_claim() -> None:
    store = MemoryStore()
    async with local_session(store=store) as session:
        wish = {"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}]}
        await session.create(SERVICE, service("one", **(wish | {"clusterIP": "10.96.0.8"})))
        with pytest.raises(Invalid, match="provided port is already allocated"):
            await session.create(SERVICE, service("two", **wish))
        with pytest.raises(NotFound):
            await session.create(SERVICE, service("two", **wish) | {"metadata": {"name": "two", "namespace": "gone"}})
        assert examine((await store.list("")).items) == []
        await session.create(SERVICE, service("three", clusterIP="10.96.0.9", ports=[{"port": 80}]))


async def test_a_dry_run_says_what_is_taken_and_claims_nothing() -> None:
    store = MemoryStore()
    async with local_session(store=store) as session:
        await session.create(SERVICE, service("one", clusterIP="10.96.0.9", ports=[{"port": 80}]))
        before = await store.revision()
        path, body = (
            SERVICE.path("default"),
            b'{"metadata":{"name":"two"},"spec":{"clusterIP":"%s","ports":[{"port":1}]}}',
        )
        with pytest.raises(Invalid, match="provided IP is already allocated"):
            await session.raw("POST", path, query={"dryRun": "All"}, body=body % b"10.96.0.9")
        await session.raw("POST", path, query={"dryRun": "All"}, body=body % b"10.96.0.10")
        assert await store.revision() == before


async def test_kill_9_under_load_loses_nothing_leaks_nothing_and_a_watch_goes_on_without_a_gap(tmp_path: Path) -> None:
    outcome = await kill_under_load(Served(tmp_path), kills=8)
    assert outcome.kills == 8
    assert outcome.acknowledged > 800
    assert outcome.lost == []
    assert outcome.findings == []
    assert (outcome.gaps, outcome.repeated) == ([], [])
