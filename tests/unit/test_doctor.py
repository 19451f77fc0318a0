"""What `kubesvc doctor` finds in a store, and that it finds nothing in a sound one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from kubesvc.api.registry import IP_ADDRESS, SERVICE, SERVICE_CIDR
from kubesvc.apiserver import stored
from kubesvc.apiserver.doctor import ADDRESSES, NODE_PORTS, examine, outside_range
from kubesvc.box.definition import Box, remember
from kubesvc.cli.main import cli
from kubesvc.store.backup import snapshot
from kubesvc.store.protocol import Versioned, Write
from kubesvc.store.sqlite import SqliteStore
from support.admission import service
from support.apiserver import local_session

World = dict[str, Versioned]

NODE_PORT_SERVICE = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}], "clusterIP": "10.96.0.80"}
WEB, API = stored.key(SERVICE, "default", "web"), stored.key(SERVICE, "default", "api")


async def filled(path: Path) -> None:
    """A store in `path` as the server makes it, with Services of several types."""
    store = SqliteStore(path)
    async with local_session(store=store) as session:
        await session.create(SERVICE, service("web", **NODE_PORT_SERVICE))
        local = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30082}
        ports = [{"port": 80, "nodePort": 30081}]
        await session.create(SERVICE, service("api", **local, clusterIP="10.96.0.81", ports=ports))
        await session.create(SERVICE, service("none", clusterIP="None"))
        await session.create(SERVICE, service("alias", type="ExternalName", externalName="example.com"))
        reserved = {"metadata": {"name": "10.96.0.99"}, "spec": {"parentRef": {"resource": "things", "name": "x"}}}
        await session.create(IP_ADDRESS, reserved)
    await store.close()


@pytest.fixture
async def world(tmp_path: Path) -> World:
    await filled(tmp_path / "objects.db")
    return {item.key: item for item in snapshot(tmp_path / "objects.db")}


def test_a_store_that_the_server_wrote_is_sound(world: World) -> None:
    assert examine(world.values()) == []


def test_ports_outside_the_range_are_named_and_nothing_wrong(world: World) -> None:
    """Node ports and health-check node ports alike, with their holders."""
    health = stored.tree_of(world[API])["spec"]["healthCheckNodePort"]
    assert outside_range(world.values(), 30000, 32767) == []
    assert outside_range(world.values(), health, health) == ["30080 of default/web", "30081 of default/api"]
    expected = sorted([(30080, "web"), (30081, "api"), (health, "api")])
    assert outside_range(world.values(), 1, 2) == [f"{port} of default/{name}" for port, name in expected]


def lose(key: str) -> Callable[[World], None]:
    return lambda world: world.pop(key) and None


def add(key: str, value: Any) -> Callable[[World], None]:
    return lambda world: world.update({key: Versioned(key, msgspec.json.encode(value), 99)})


def edit(key: str, **spec: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        tree = stored.tree_of(world[key])
        tree["spec"] |= spec
        world[key] = replace(world[key], value=msgspec.json.encode(tree))

    return change


@pytest.mark.parametrize(
    ("breakage", "what", "remedy", "repairs"),
    [
        pytest.param(lose(ADDRESSES + "10.96.0.80"),
                     "address 10.96.0.80 is held by default/web, but not claimed: another Service may get it",
                     "delete the Service and create it again", 0, id="an address nobody claimed"),
        pytest.param(lose(NODE_PORTS + "30080"),
                     "node port 30080 is held by default/web, but not claimed: another Service may get it",
                     "delete the Service and create it again", 0, id="a port nobody claimed"),
        pytest.param(edit(WEB, clusterIP="None", clusterIPs=["None"]),
                     "address 10.96.0.80 is claimed for default/web, which doesn't hold it: it can't be given out",
                     "kubectl delete ipaddress 10.96.0.80", 1, id="an address let go but claimed"),
        pytest.param(edit(WEB, ports=[{"port": 80}]),
                     "node port 30080 is claimed by default/web, which doesn't hold it: it can't be given out",
                     "stop the box, then `kubesvc doctor --repair`", 1, id="a port let go but claimed"),
        pytest.param(add(NODE_PORTS + "30333", "a-uid"),
                     "node port 30333 is claimed by uid a-uid, which is not there: it can't be given out",
                     "stop the box, then `kubesvc doctor --repair`", 1, id="a port of nobody"),
        pytest.param(edit(ADDRESSES + "10.96.0.80", parentRef={"resource": "services", "namespace": "x", "name": "y"}),
                     "address 10.96.0.80 is claimed for x/y, but default/web holds it",
                     "delete the Service and create it again", 0, id="another's address"),
        pytest.param(edit(API, clusterIPs=["10.96.0.80"], clusterIP="10.96.0.80"),
                     "address 10.96.0.80 is held by 2 Services: default/api, default/web",
                     "delete the Service and create it again, but one", 0, id="an address of two"),
        pytest.param(edit(API, ports=[{"port": 80, "nodePort": 30080}]),
                     "node port 30080 is held by 2 Services: default/api, default/web",
                     "delete the Service and create it again, but one", 0, id="a port of two"),
        pytest.param(edit(stored.key(SERVICE_CIDR, "", "kubernetes"), cidrs=["10.96.0.0/26"]),
                     "address 10.96.0.80 of default/web is in no ServiceCIDR",
                     "create a ServiceCIDR that covers it, or delete the Service and create it again", 0,
                     id="an address outside every range"),
    ],
)  # fmt: skip
def test_what_is_broken_is_found(
    world: World, breakage: Callable[[World], None], what: str, remedy: str, repairs: int
) -> None:
    breakage(world)
    found = {finding.what: finding for finding in examine(world.values())}
    assert found[what].remedy == remedy
    assert len(found[what].repair) == repairs


async def test_the_command_names_a_leak_and_repairs_it_when_the_box_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubesvc.box.definition.RUN", tmp_path / "run")
    box = Box(name="doctored", directory=str(tmp_path), node_cidr="192.0.2.0/24")
    remember(box)
    await filled(box.objects)
    store = SqliteStore(box.objects)
    await store.commit([Write(NODE_PORTS + "30333", b'"a-uid"', 0)])
    doctor = ["doctor", "--name", "doctored", "--dir", str(tmp_path)]
    broken = await asyncio.to_thread(CliRunner().invoke, cli, doctor)
    assert broken.exit_code == 1
    assert "node port 30333 is claimed by uid a-uid, which is not there" in broken.output
    assert "1 things are wrong" in broken.output
    await store.close()
    repaired = await asyncio.to_thread(CliRunner().invoke, cli, [*doctor, "--repair"])
    assert repaired.exit_code == 0, repaired.output
    assert "All is well: 5 Services, 4 addresses, 3 node ports" in repaired.output
