"""`kr8s`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import kr8s
import kr8s.asyncio
import pytest
from kr8s.asyncio.objects import ConfigMap, Pod, new_class

from clients.conftest import PAGE

Database = new_class("Database", version="example.com/v1", namespaced=True, plural="databases")


@pytest.fixture
async def api(kubeconfig: str, namespace: str) -> AsyncIterator[Any]:
    made = await kr8s.asyncio.api(kubeconfig=kubeconfig, namespace=namespace)
    yield made
    await made._session.aclose()  # it has no call for it, and is kept for as long as the program runs


async def config_map(api: Any, name: str = "m", **data: str) -> ConfigMap:
    tree = {"metadata": {"name": name, "namespace": api.namespace}, "data": data}
    return await ConfigMap(tree, api=api)


async def test_create_read_update_delete(api: Any) -> None:
    made = await config_map(api, a="b")
    await made.create()
    found = await ConfigMap.get("m", namespace=api.namespace, api=api)
    assert found.data.a == "b"
    assert "m" in [item.name async for item in api.get("configmaps", namespace=api.namespace)]
    await found.delete()
    with pytest.raises(kr8s.NotFoundError):
        await ConfigMap.get("m", namespace=api.namespace, api=api, timeout=0.01)


async def test_patch(api: Any) -> None:
    made = await config_map(api, a="b")
    await made.create()
    await made.patch({"data": {"x": "y"}})
    assert dict(made.raw["data"]) == {"a": "b", "x": "y"}
    await made.patch([{"op": "remove", "path": "/data/a"}], type="json")
    assert dict(made.raw["data"]) == {"x": "y"}


async def test_watch_resumes(api: Any) -> None:
    await (await config_map(api, "one")).create()

    async def follow(since: str | None) -> tuple[str, Any]:
        async with aclosing(api.async_watch("configmaps", namespace=api.namespace, since=since)) as events:
            async for type_, found in events:
                if found.name in ("one", "two"):
                    return type_, found
        raise AssertionError("the watch ended")

    first = await asyncio.wait_for(follow(None), 60)
    await (await config_map(api, "two")).create()
    second = await asyncio.wait_for(follow(first[1].metadata.resourceVersion), 60)
    assert [(type_, found.name) for type_, found in (first, second)] == [("ADDED", "one"), ("ADDED", "two")]


async def test_exec(api: Any) -> None:
    pod = await Pod.get("web", namespace="default", api=api)
    done = await pod.exec(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 3)


async def test_port_forward(api: Any) -> None:
    pod = await Pod.get("web", namespace="default", api=api)
    async with pod.portforward(remote_port=8080) as port, httpx.AsyncClient(trust_env=False, timeout=60) as http:
        assert (await http.get(f"http://127.0.0.1:{port}/")).text == PAGE


async def test_custom_resources(api: Any, database: dict) -> None:
    database["metadata"]["namespace"] = api.namespace
    made = await Database(database, api=api)
    await made.create()
    await made.refresh()
    assert made.spec.replicas == 1
    await made.patch({"status": {"phase": "Ready"}}, subresource="status")
    await made.delete()
