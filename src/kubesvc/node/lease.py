"""The node's Lease in kube-node-lease: renewed every few seconds, it says that the agent is alive.

A node status is several kilobytes and changes rarely; this is the small write that goes often. Follows kubelet's node
lease (KEP-589).
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from kubesvc.api.coordination import NODE_LEASES
from kubesvc.api.errors import AlreadyExists, ApiError, NotFound
from kubesvc.api.meta import JSON, format_micro_time
from kubesvc.api.registry import LEASE, NODE
from kubesvc.client.session import Session, Unreachable
from kubesvc.node.config import NodeConfig

log = logging.getLogger(__name__)


async def keep(session: Session, config: NodeConfig) -> None:
    """Renew until cancelled. A renewal that fails is tried again after a fifth of the interval."""
    while True:
        try:
            await renew(session, config)
            await asyncio.sleep(config.lease_renewal)
        except (ApiError, Unreachable) as error:
            log.warning("node %s: its Lease can't be renewed: %s", config.node_name, error)
            await asyncio.sleep(config.lease_renewal / 5)


async def renew(session: Session, config: NodeConfig) -> None:
    """Say that the node is alive. A Node that isn't there has no Lease: it would outlive it. Raises ApiError."""
    spec: JSON = {
        "holderIdentity": config.node_name,
        "leaseDurationSeconds": max(1, round(config.lease_renewal * 4)),
        "renewTime": format_micro_time(datetime.now(UTC)),
    }
    try:
        await session.patch(LEASE, NODE_LEASES, config.node_name, {"spec": spec})
        return
    except NotFound:
        pass
    try:
        node = await session.get(NODE, "", config.node_name)
    except NotFound:
        return
    owner = {"apiVersion": "v1", "kind": "Node", "name": config.node_name, "uid": node["metadata"]["uid"]}
    meta = {"name": config.node_name, "namespace": NODE_LEASES, "ownerReferences": [owner]}
    try:
        await session.create(LEASE, {"metadata": meta, "spec": spec})
    except AlreadyExists:
        pass
