"""An operator in kopf: a Database becomes a ConfigMap that it owns, and its status says so."""

from __future__ import annotations

from typing import Any

import kopf


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = True
    settings.persistence.finalizer = "example.com/operator"


@kopf.on.create("example.com", "v1", "databases")
@kopf.on.update("example.com", "v1", "databases", field="spec")
async def reconcile(spec: Any, name: str, namespace: str, body: Any, patch: Any, **_: Any) -> dict[str, str]:
    from kubernetes_asyncio import client, config

    settings = client.Configuration()
    await config.load_kube_config(client_configuration=settings)
    child: dict[str, Any] = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-settings"},
        "data": {"engine": spec["engine"], "replicas": str(spec["replicas"])},
    }  # fmt: skip
    kopf.adopt(child)
    async with client.ApiClient(settings) as api:
        core = client.CoreV1Api(api)
        try:
            await core.create_namespaced_config_map(namespace, child)
        except client.ApiException as error:
            if error.status != 409:
                raise
            await core.patch_namespaced_config_map(child["metadata"]["name"], namespace, {"data": child["data"]})
    patch.status["phase"] = "Ready"
    patch.status["replicas"] = spec["replicas"]
    return {"made": child["metadata"]["name"]}


@kopf.on.delete("example.com", "v1", "databases")
def gone(**_: Any) -> None:
    """Having this handler is what makes kopf put its finalizer on each object."""
