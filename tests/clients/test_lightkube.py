"""`lightkube`."""

from __future__ import annotations

from typing import Any

import pytest
from lightkube import ApiError, Client, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap
from lightkube.types import PatchType

Database = create_namespaced_resource("example.com", "v1", "Database", "databases", verbs=None)


@pytest.fixture
def api(kubeconfig: str, namespace: str) -> Client:
    return Client(config=KubeConfig.from_file(kubeconfig), namespace=namespace)


def config_map(name: str = "m", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name), data=data)


def test_create_read_update_delete(api: Client) -> None:
    api.create(config_map(a="b"))
    found = api.get(ConfigMap, "m")
    assert found.data == {"a": "b"}
    found.data = {"a": "c"}
    assert api.replace(found).data == {"a": "c"}
    assert "m" in [item.metadata.name for item in api.list(ConfigMap)]
    api.delete(ConfigMap, "m")
    with pytest.raises(ApiError) as error:
        api.get(ConfigMap, "m")
    assert error.value.status.code == 404


def test_patch(api: Client) -> None:
    api.create(config_map(a="b"))
    assert api.patch(ConfigMap, "m", {"data": {"x": "y"}}).data == {"a": "b", "x": "y"}
    assert api.patch(ConfigMap, "m", {"data": {"a": None}}, patch_type=PatchType.MERGE).data == {"x": "y"}


def applied(data: str) -> ConfigMap:
    return ConfigMap(apiVersion="v1", kind="ConfigMap", metadata=ObjectMeta(name="m"), data={"a": data})


def test_server_side_apply(api: Client) -> None:
    api.apply(applied("b"), field_manager="one")
    with pytest.raises(ApiError) as error:
        api.apply(applied("c"), field_manager="two")
    assert error.value.status.code == 409
    assert api.apply(applied("c"), field_manager="two", force=True).data == {"a": "c"}


def test_watch_resumes(api: Client) -> None:
    start = api.create(config_map("zero")).metadata.resourceVersion
    api.create(config_map("one"))

    def follow(since: str) -> tuple[str, Any]:
        for type_, found in api.watch(ConfigMap, resource_version=since, server_timeout=60):
            if found.metadata.name in ("one", "two"):
                return type_, found
        raise AssertionError("the watch ended")

    first = follow(start)
    api.create(config_map("two"))
    second = follow(first[1].metadata.resourceVersion)
    assert [(t, found.metadata.name) for t, found in (first, second)] == [("ADDED", "one"), ("ADDED", "two")]


def test_exec(api: Client) -> None:
    done = api.exec("web", namespace="default", command=["sh", "-c", "cat; echo err >&2; exit 3"], stdin="in",
                    stdout=True, stderr=True, timeout=60)  # fmt: skip
    assert (done.stdout, done.stderr, done.exit_code) == ("in", "err\n", 3)


def test_custom_resources(api: Client, database: dict) -> None:
    assert api.create(Database(database))["spec"]["replicas"] == 1
    found = api.patch(Database, "main", {"spec": {"replicas": 2}}, patch_type=PatchType.MERGE)
    assert found["spec"]["replicas"] == 2
    api.delete(Database, "main")
