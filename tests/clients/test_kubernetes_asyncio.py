"""`kubernetes-asyncio`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes_asyncio import client, config, dynamic, watch
from kubernetes_asyncio.stream import WsApiClient


@pytest.fixture
async def api(kubeconfig: str) -> AsyncIterator[client.ApiClient]:
    async with await config.new_client_from_config(kubeconfig) as made:
        yield made


def config_map(name: str = "m", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_create_read_update_delete(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    await core.create_namespaced_config_map(namespace, config_map(a="b"))
    found = await core.read_namespaced_config_map("m", namespace)
    found.data["a"] = "c"
    assert (await core.replace_namespaced_config_map("m", namespace, found)).data == {"a": "c"}
    assert "m" in [item.metadata.name for item in (await core.list_namespaced_config_map(namespace)).items]
    await core.delete_namespaced_config_map("m", namespace)
    with pytest.raises(client.ApiException) as error:
        await core.read_namespaced_config_map("m", namespace)
    assert error.value.status == 404


async def test_patch(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    await core.create_namespaced_config_map(namespace, config_map(a="b"))
    found = await core.patch_namespaced_config_map("m", namespace, {"data": {"x": "y"}})
    assert found.data == {"a": "b", "x": "y"}


async def test_server_side_apply(api: client.ApiClient, namespace: str) -> None:
    resources = await (await dynamic.DynamicClient(api)).resources.get(api_version="v1", kind="ConfigMap")
    await resources.server_side_apply(config_map(a="b"), namespace=namespace, field_manager="one")
    refused = await resources.server_side_apply(config_map(a="c"), namespace=namespace, field_manager="two")
    assert (refused.code, refused.reason) == (409, "Conflict")  # which this client doesn't raise
    forced = await resources.server_side_apply(
        config_map(a="c"), namespace=namespace, field_manager="two", force_conflicts=True
    )
    assert forced.data.a == "c"


async def test_watch_resumes(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    version = (await core.list_namespaced_config_map(namespace)).metadata.resource_version
    await core.create_namespaced_config_map(namespace, config_map("one"))

    async def follow(since: str) -> Any:
        async with watch.Watch() as watching:
            async for event in watching.stream(core.list_namespaced_config_map, namespace, resource_version=since,
                                               timeout_seconds=60):  # fmt: skip
                if event["object"].metadata.name in ("one", "two"):
                    return event
        raise AssertionError("the watch ended")

    first = await follow(version)
    await core.create_namespaced_config_map(namespace, config_map("two"))
    second = await follow(first["object"].metadata.resource_version)
    assert [(e["type"], e["object"].metadata.name) for e in (first, second)] == [("ADDED", "one"), ("ADDED", "two")]


async def test_exec(kubeconfig: str) -> None:
    settings = client.Configuration()
    await config.load_kube_config(kubeconfig, client_configuration=settings)
    async with WsApiClient(settings) as wire:
        core = client.CoreV1Api(wire)
        out = await core.connect_get_namespaced_pod_exec("web", "default", command=["sh", "-c", "echo out"],
                                                         stdout=True, stderr=True, stdin=False, tty=False)  # fmt: skip
    assert out == "out\n"


async def test_custom_resources(api: client.ApiClient, namespace: str, database: dict) -> None:
    custom = client.CustomObjectsApi(api)
    place = ("example.com", "v1", namespace, "databases")
    assert (await custom.create_namespaced_custom_object(*place, database))["spec"]["replicas"] == 1
    await custom.patch_namespaced_custom_object_status(*place, "main", {"status": {"phase": "Ready"}},
                                                         _content_type="application/merge-patch+json")  # fmt: skip
    assert (await custom.get_namespaced_custom_object(*place, "main"))["status"] == {"phase": "Ready"}
    await custom.delete_namespaced_custom_object(*place, "main")
