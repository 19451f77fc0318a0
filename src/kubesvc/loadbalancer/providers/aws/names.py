"""Names and tags of what is made in AWS. Pure.

A name is a function of cluster and Service, so that a creation whose answer was lost is answered the second time with
what exists, or that it exists; tags are how things are found again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

from kubesvc.api.core import Service

CLUSTER = "kubesvc.dev/cluster"
SERVICE = "kubesvc.dev/service"
RESOURCE = "kubesvc.dev/resource"
ASKED = "kubesvc.dev/tags"
"""The keys of tags that the Service asked for, so that those it no longer does are taken away, and no others."""
APPLIED = "kubesvc.dev/applied"
"""Of a load balancer: the fingerprint of what was wanted when all of it was as wanted; not there while it changes."""

BALANCER, FRONTEND, BACKEND = "load-balancer", "frontend", "backend"
OURS = (CLUSTER, SERVICE, RESOURCE, ASKED, APPLIED)


def service_tag(service: Service) -> str:
    return f"{service.namespace}/{service.name}"


def name(cluster: str, service: Service, *more: str) -> str:
    """At most 32 letters, digits and hyphens."""
    digest = sha256("\0".join((cluster, service.namespace, service.name, *more)).encode()).hexdigest()[:10]
    parts = (re.sub("[^a-zA-Z0-9]", "", text)[:8] for text in (service.namespace, service.name))
    return "-".join(("k8s", *filter(None, parts), digest))


def backend_name(cluster: str) -> str:
    return f"kubesvc-backend-{cluster}"


def tags(cluster: str, service: Service, asked: Mapping[str, str]) -> dict[str, str]:
    """Those of all that is made for the Service, beside RESOURCE."""
    found = dict(asked) | {CLUSTER: cluster, SERVICE: service_tag(service)}
    return found | ({ASKED: " ".join(sorted(asked))} if asked else {})


def superfluous(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Keys of tags that the Service asked for once."""
    once = [*found.get(ASKED, "").split(), ASKED]
    return sorted(key for key in once if key in found and key not in wanted)
