"""The objects every cluster has: the first namespaces, the ServiceCIDR, and the Service that is the API itself.

Run at every start, through the server's own handler: what is there stays, what was lost comes back, and the API's
endpoint follows the advertised address.
"""

from __future__ import annotations

from asyncio import gather
from ipaddress import ip_address

from kubesvc.api import labels
from kubesvc.api.errors import AlreadyExists
from kubesvc.api.meta import JSON
from kubesvc.api.registry import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    ENDPOINT_SLICE,
    ENDPOINTS,
    NAMESPACE,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    SERVICE_CIDR,
    Kind,
)
from kubesvc.apiserver.access import roles
from kubesvc.apiserver.config import ApiConfig
from kubesvc.client.session import Session
from kubesvc.client.transport import Handler, LocalTransport, User

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
SELF = User("system:apiserver", ("system:masters",))
_NAME = "kubernetes"


async def run(handler: Handler, config: ApiConfig) -> None:
    session = Session(LocalTransport(handler, SELF))
    # What doesn't need one another goes together: one fsync for all.
    await gather(*(_ensure(session, NAMESPACE, {"metadata": {"name": name}}) for name in NAMESPACES))
    await gather(
        _ensure(session, SERVICE_CIDR, _service_cidr(config)),
        *(_reconcile(session, CLUSTER_ROLE, tree) for tree in roles.cluster_roles()),
        *(_reconcile(session, CLUSTER_ROLE_BINDING, tree) for tree in roles.cluster_role_bindings()),
        *(_reconcile(session, ROLE, tree) for tree in roles.roles()),
        *(_reconcile(session, ROLE_BINDING, tree) for tree in roles.role_bindings()),
    )
    await _widen(session, config)
    await gather(
        _ensure(session, SERVICE, _service(config)),
        _as_written(session, ENDPOINTS, _endpoints(config)),
        _as_written(session, ENDPOINT_SLICE, _slice(config)),
    )


async def _as_written(session: Session, kind: Kind, tree: JSON) -> None:
    """An object that is ours alone, with this content."""
    await _ensure(session, kind, tree)
    content = {k: v for k, v in tree.items() if k != "metadata"}
    await session.patch(kind, "default", _NAME, content)


async def _ensure(session: Session, kind: Kind, tree: JSON) -> None:
    try:
        await session.create(kind, tree)
    except AlreadyExists:
        pass


async def _reconcile(session: Session, kind: Kind, tree: JSON) -> None:
    """A role or binding of ours as it should be, unless its annotation says that it is somebody else's now. What was
    added to it stays."""
    metadata = tree["metadata"]
    try:
        await session.create(kind, tree)
        return
    except AlreadyExists:
        found = await session.get(kind, metadata.get("namespace", ""), metadata["name"])
    if (found["metadata"].get("annotations") or {}).get(roles.AUTOUPDATE) == "false":
        return
    missing: JSON = {
        field: [*(found.get(field) or []), *(each for each in tree[field] if each not in (found.get(field) or []))]
        for field in ("rules", "subjects")
        if field in tree and any(each not in (found.get(field) or []) for each in tree[field])
    }
    if missing:
        await session.patch(kind, metadata.get("namespace", ""), metadata["name"], missing)


async def _widen(session: Session, config: ApiConfig) -> None:
    """A cluster that was made with one family and is now configured for two has both in its range."""
    wanted = _service_cidr(config)["spec"]["cidrs"]
    found = (await session.get(SERVICE_CIDR, "", _NAME))["spec"]["cidrs"]
    if found != wanted and len(found) == 1 and wanted[:1] == found:
        await session.patch(SERVICE_CIDR, "", _NAME, {"spec": {"cidrs": wanted}})


def _metadata(**own: str) -> JSON:
    return {"name": _NAME, "namespace": "default", "labels": own}


def _service_cidr(config: ApiConfig) -> JSON:
    return {"metadata": {"name": _NAME}, "spec": {"cidrs": [str(cidr) for cidr in config.service_cidrs]}}


def _service(config: ApiConfig) -> JSON:
    """The Service at the first address of the primary range, without a selector."""
    address = str(config.service_cidrs[0].network_address + 1)
    port = {"name": "https", "protocol": "TCP", "port": 443, "targetPort": config.advertise_port}
    return {
        "metadata": _metadata(component="apiserver", provider="kubernetes"),
        "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ports": [port]},
    }


def _endpoints(config: ApiConfig) -> JSON:
    return {
        "metadata": _metadata(**{"endpointslice.kubernetes.io/skip-mirror": "true"}),
        "subsets": [
            {
                "addresses": [{"ip": config.advertise_address}],
                "ports": [{"name": "https", "port": config.advertise_port, "protocol": "TCP"}],
            }
        ],
    }


def _slice(config: ApiConfig) -> JSON:
    return {
        "metadata": _metadata(**{labels.SERVICE_NAME: _NAME}),
        "addressType": f"IPv{ip_address(config.advertise_address).version}",
        "endpoints": [{"addresses": [config.advertise_address], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": config.advertise_port, "protocol": "TCP"}],
    }
