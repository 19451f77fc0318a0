"""The shop's three tiers, as plain processes on 127.0.0.1, from the code that its manifests carry."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

SHOP = Path(__file__).parents[2] / "examples" / "shop"
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable  # what `image: host` finds
DEADLINE = 60.0  # seconds


def objects() -> list[dict[str, Any]]:
    return [o for file in sorted(SHOP.glob("*.yaml")) for o in yaml.safe_load_all(file.read_text())]


def named(kind: str, name: str) -> dict[str, Any]:
    return next(o for o in objects() if (o["kind"], o["metadata"]["name"]) == (kind, name))


class Tier:
    """One running process of a tier."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process, self.port = process, port

    async def says(self, word: str) -> str:
        """The next line of its log that has `word`."""
        assert self.process.stdout is not None
        while line := await asyncio.wait_for(self.process.stdout.readline(), DEADLINE):
            if word in line.decode():
                return line.decode()
        raise AssertionError(f"ended without saying {word!r}")

    async def exit_status(self) -> int:
        return await asyncio.wait_for(self.process.wait(), DEADLINE)


class Shop:
    """Starts tiers, with the code from the ConfigMaps."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self._folder, self._stack = folder, stack
        for config_map in (o for o in objects() if o["kind"] == "ConfigMap"):
            into = folder / config_map["metadata"]["name"]
            into.mkdir()
            for file, text in config_map["data"].items():
                (into / file).write_text(text)

    async def start(self, tier: str, **env: str) -> Tier:
        process = await asyncio.create_subprocess_exec(
            PYTHON,
            str(self._folder / f"{tier}-code" / f"{tier}.py"),
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(self._folder / "serving"),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOSTNAME": f"{tier}-pod",
                "PORT": "0",
                "DATA": str(self._folder),
                "DRAIN_SECONDS": "0.2",
            }
            | env,
            stdout=asyncio.subprocess.PIPE,
        )
        started = Tier(process, 0)
        self._stack.push_async_callback(stop, process)
        started.port = int((await started.says("listening on")).split()[-1])
        return started


async def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with contextlib.AsyncExitStack() as stack:
        yield Shop(tmp_path, stack)


async def get(port: int, path: str = "/", *, close: bool = True) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        status, _, body = await ask(reader, writer, path, close=close)
        return status, body
    finally:
        writer.close()
        await writer.wait_closed()


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, *, close: bool = False
) -> tuple[int, dict[str, str], bytes]:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: shop\r\n{'Connection: close' if close else 'X: y'}\r\n\r\n".encode())
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)).decode()
    start, *lines = head.strip().split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(start.split()[1]), headers, body


async def three_tiers(shop: Shop) -> tuple[Tier, Tier, Tier]:
    db = await shop.start("db")
    app = await shop.start("app", DB=f"localhost:{db.port}")
    return await shop.start("web", APP=f"localhost:{app.port}"), app, db


async def test_an_answer_names_every_pod_on_its_path(shop: Shop) -> None:
    web, _, _ = await three_tiers(shop)
    status, body = await get(web.port)
    answer = json.loads(body)
    assert status == 200
    assert (answer["web"], answer["app"], answer["db"]) == ("web-pod", "app-pod", "db-pod")
    assert answer["client"] == "127.0.0.1"
    assert [p["name"] for p in answer["products"]] == ["cocoa", "coffee", "mate", "tea"]
    assert json.loads((await get(web.port))[1])["visits"] == answer["visits"] + 1


async def test_the_page_shows_the_same_path(shop: Shop) -> None:
    web, _, _ = await three_tiers(shop)
    status, body = await get(web.port, "/shop")
    assert status == 200
    for shown in ("<b>web</b>web-pod", "<b>app</b>app-pod", "<b>db</b>db-pod", "<tr class=offer>", "coffee"):
        assert shown in body.decode()


async def test_many_requests_on_one_connection(shop: Shop) -> None:
    web, _, _ = await three_tiers(shop)
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\n\r\n" * 2)  # pipelined, before the third
        for path in ("/healthz", "/healthz", "/"):
            if path == "/":
                status, headers, _ = await ask(reader, writer, path)
                assert (status, headers["connection"], headers["x-served-by"]) == (200, "keep-alive", "web-pod")
            else:
                assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 OK")
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_missing_tier_is_told_and_does_not_make_the_pod_unhealthy(shop: Shop) -> None:
    with socket.socket() as taken:  # bound, so that nobody else can be there
        taken.bind(("127.0.0.1", 0))
        nobody = taken.getsockname()[1]
        web = await shop.start("web", APP=f"localhost:{nobody}")
        status, body = await get(web.port)
    assert status == 502
    assert f"localhost:{nobody}" in json.loads(body)["error"]
    assert (await get(web.port, "/healthz"))[0] == 200
    assert (await get(web.port, "/nothing"))[0] == 404


async def test_a_leaving_pod_serves_old_and_new_connections_and_then_exits_with_0(shop: Shop) -> None:
    db = await shop.start("db", DRAIN_SECONDS="5")
    reader, writer = await asyncio.open_connection("127.0.0.1", db.port)
    assert (await ask(reader, writer, "/visit"))[1]["connection"] == "keep-alive"
    db.process.send_signal(signal.SIGTERM)
    await db.says("leaving")
    status, headers, _ = await ask(reader, writer, "/visit")  # asked to come back elsewhere, but served
    assert (status, headers["connection"]) == (200, "close")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    assert [(await get(db.port, path))[0] for path in ("/visit", "/healthz")] == [200, 200]
    assert await db.exit_status() == 0


async def test_a_request_under_way_is_finished_before_the_pod_exits(shop: Shop) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow_db(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await answer.wait()
        writer.write(b'HTTP/1.1 200 OK\r\n\r\n{"db": "slow", "visits": 1, "products": [{"name": "tea"}]}')
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(slow_db, "127.0.0.1", 0) as server:
        app = await shop.start("app", DB=f"localhost:{server.sockets[0].getsockname()[1]}", DRAIN_SECONDS="0")
        request = asyncio.create_task(get(app.port, "/offer"))
        await asyncio.wait_for(asked.wait(), DEADLINE)
        app.process.send_signal(signal.SIGTERM)
        await app.says("leaving")
        answer.set()
        status, body = await request
    assert status == 200
    assert json.loads(body)["offer"] == "tea"
    assert await app.exit_status() == 0


async def test_no_request_fails_while_a_pod_leaves_under_load(shop: Shop) -> None:
    db = await shop.start("db")
    app = await shop.start("app", DB=f"localhost:{db.port}", DRAIN_SECONDS="5")
    web = await shop.start("web", APP=f"localhost:{app.port}")
    leaving = asyncio.Event()
    statuses: list[int] = []

    async def customer() -> None:
        """Asks all the time, and twice more after the pod was told to leave."""
        after = 0
        while after < 2:
            after += leaving.is_set()
            statuses.append((await get(web.port))[0])

    customers = [asyncio.create_task(customer()) for _ in range(8)]
    await get(web.port)
    app.process.send_signal(signal.SIGTERM)
    await app.says("leaving")
    leaving.set()
    await asyncio.gather(*customers)
    assert set(statuses) == {200}
    assert await app.exit_status() == 0


@pytest.mark.parametrize("found", objects(), ids=lambda o: f"{o['kind']}-{o['metadata']['name']}")
def test_every_object_is_valid_kubernetes(found: dict[str, Any]) -> None:
    kubernetes_validate.validate(found, desired_version="1.36", strict=True)


def test_there_is_a_service_of_each_kind() -> None:
    kinds = {
        o["metadata"]["name"]: "Headless"
        if o["spec"].get("clusterIP") == "None"
        else o["spec"].get("type", "ClusterIP")
        for o in objects()
        if o["kind"] == "Service"
    }
    assert kinds == {
        "db": "ClusterIP",
        "app": "ClusterIP",
        "web": "ClusterIP",
        "app-peers": "Headless",
        "web-nodeport": "NodePort",
        "web-public": "LoadBalancer",
        "payments": "ExternalName",
    }


def test_services_find_their_pods() -> None:
    pods = [o["spec"]["template"] for o in objects() if o["kind"] == "Deployment"]
    for service in (o for o in objects() if o["kind"] == "Service" and "selector" in o["spec"]):
        matching = [p for p in pods if service["spec"]["selector"].items() <= p["metadata"]["labels"].items()]
        assert len(matching) == 1, service["metadata"]["name"]
        ports = {p["name"]: p["containerPort"] for c in matching[0]["spec"]["containers"] for p in c["ports"]}
        for port in service["spec"]["ports"]:
            assert ports.get(port.get("targetPort"), port["port"]) == 8080


@pytest.mark.parametrize("tier", ["web", "app", "db"])
def test_a_tier_is_ready_and_alive_when_it_says_so_and_has_time_to_leave(tier: str) -> None:
    pod = named("Deployment", tier)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "host"
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert pod["terminationGracePeriodSeconds"] > 3 + 5  # drain, then what is under way
