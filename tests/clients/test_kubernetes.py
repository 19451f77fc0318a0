"""`kubernetes`, the official Python client."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config, dynamic, watch
from kubernetes.stream import portforward, stream

from clients.conftest import PAGE


@pytest.fixture
def api(kubeconfig: str) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(kubeconfig) as made:
        yield made


def config_map(name: str = "m", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_create_read_update_delete(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    core.create_namespaced_config_map(namespace, config_map(a="b"))
    found = core.read_namespaced_config_map("m", namespace)
    found.data["a"] = "c"
    assert core.replace_namespaced_config_map("m", namespace, found).data == {"a": "c"}
    assert "m" in [item.metadata.name for item in core.list_namespaced_config_map(namespace).items]
    core.delete_namespaced_config_map("m", namespace)
    with pytest.raises(client.ApiException) as error:
        core.read_namespaced_config_map("m", namespace)
    assert error.value.status == 404


def test_patch(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    core.create_namespaced_config_map(namespace, config_map(a="b"))
    assert core.patch_namespaced_config_map("m", namespace, {"data": {"x": "y"}}).data == {"a": "b", "x": "y"}
    operations = [{"op": "remove", "path": "/data/a"}]
    assert core.patch_namespaced_config_map("m", namespace, operations).data == {"x": "y"}


def test_server_side_apply(api: client.ApiClient, namespace: str) -> None:
    resources = dynamic.DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")
    resources.server_side_apply(config_map(a="b"), namespace=namespace, field_manager="one")
    with pytest.raises(client.ApiException) as error:
        resources.server_side_apply(config_map(a="c"), namespace=namespace, field_manager="two")
    assert error.value.status == 409
    forced = resources.server_side_apply(
        config_map(a="c"), namespace=namespace, field_manager="two", force_conflicts=True
    )
    assert forced.data.a == "c"


def test_watch_resumes(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    version = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, config_map("one"))

    def follow(since: str, count: int) -> list[Any]:
        found, watching = [], watch.Watch()
        for event in watching.stream(core.list_namespaced_config_map, namespace, resource_version=since,
                                     timeout_seconds=60):  # fmt: skip
            if event["object"].metadata.name in ("one", "two"):
                found.append(event)
            if len(found) == count:
                watching.stop()
        return found

    first = follow(version, 1)
    core.create_namespaced_config_map(namespace, config_map("two"))
    second = follow(first[0]["object"].metadata.resource_version, 1)
    assert [(e["type"], e["object"].metadata.name) for e in first + second] == [("ADDED", "one"), ("ADDED", "two")]


def test_exec(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    done = stream(core.connect_get_namespaced_pod_exec, "web", "default", command=["sh", "-c", "echo out; exit 3"],
                  stdout=True, stderr=True, stdin=False, tty=False, _preload_content=False)  # fmt: skip
    done.run_forever(timeout=60)
    assert (done.read_stdout(), done.returncode) == ("out\n", 3)


def test_port_forward(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    forwarded = portforward(core.connect_get_namespaced_pod_portforward, "web", "default", ports="8080")
    wire = forwarded.socket(8080)
    wire.setblocking(True)
    assert PAGE.encode() in get(wire)
    wire.close()
    assert forwarded.error(8080) is None


def get(wire: socket.socket) -> bytes:
    wire.sendall(b"GET / HTTP/1.0\r\n\r\n")
    found = b""
    while piece := wire.recv(4096):
        found += piece
    return found


def test_custom_resources(api: client.ApiClient, namespace: str, database: dict) -> None:
    custom = client.CustomObjectsApi(api)
    place = ("example.com", "v1", namespace, "databases")
    assert custom.create_namespaced_custom_object(*place, database)["spec"]["replicas"] == 1
    custom.patch_namespaced_custom_object_status(*place, "main", {"status": {"phase": "Ready"}})
    custom.patch_namespaced_custom_object_scale(*place, "main", {"spec": {"replicas": 2}})
    found = custom.get_namespaced_custom_object(*place, "main")
    assert (found["status"]["phase"], found["spec"]["replicas"]) == ("Ready", 2)
    with pytest.raises(client.ApiException) as error:
        custom.patch_namespaced_custom_object(*place, "main", {"spec": {"engine": "oracle"}})
    assert error.value.status == 422
    custom.delete_namespaced_custom_object(*place, "main")
