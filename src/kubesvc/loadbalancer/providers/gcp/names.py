"""What this provider's objects are called, and what they say of themselves. Pure.

Backend services, health checks and firewall rules have no labels: an object is found again by its name, which follows
from the cluster's name and the Service's uid, and says in its description whose it is.

    kubesvc-CLUSTER                       shared by the Services of a cluster: instance groups, health check, firewall
    kubesvc-CLUSTER-NAMESPACE-NAME-HASH   a Service's; -tcp, -udp and -all are forwarding rules, -hc a health check
"""

from __future__ import annotations

import hashlib
import json

from kubesvc.api.core import Service

LIMIT = 63  # characters of a name (RFC 1035)
_LONGEST_SUFFIX = len("-hc-fw")
_HASH = 12


def cluster_prefix(cluster_name: str) -> str:
    """What the names of all objects of a cluster begin with."""
    return f"kubesvc-{_digest(cluster_name, 8)}"


def service_name(cluster_name: str, service: Service) -> str:
    """The name that a Service's objects have, with a suffix for each further of a kind."""
    prefix = cluster_prefix(cluster_name)
    room = LIMIT - len(prefix) - _HASH - _LONGEST_SUFFIX - 2
    readable = f"{service.namespace}-{service.name}".replace(".", "-")[:room].strip("-")
    return f"{prefix}-{readable}-{_digest(f'{cluster_name}/{service.metadata.uid}', _HASH)}"


def describe(cluster_name: str, service: Service | None = None) -> str:
    """The description of an object: JSON, as Google's own controllers write it."""
    said = {"kubesvc.dev/cluster": cluster_name}
    if service is not None:
        said["kubernetes.io/service-name"] = f"{service.namespace}/{service.name}"
        said["kubernetes.io/service-uid"] = service.metadata.uid
    return json.dumps(said)


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
