"""What the controller decides about one Service, and the patches that say so. Pure.

A Service left half-way is recognised by what is durable on it: the finalizer (shared with every other load-balancer
controller) and our own condition. The class can't be asked for once the type has left LoadBalancer, because the API
wipes it then: so the finalizer of a Service of another type is ours to remove when our condition is there, when this
process remembers the Service, or when one of our providers serves Services without a class.
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.api.labels import LOAD_BALANCER_CLEANUP
from kubesvc.api.meta import JSON, Condition

READY = "kubesvc.dev/LoadBalancerReady"
"""The condition: True when the status shows what was asked for; False with the reason why it is pending."""

LOAD_BALANCER = "LoadBalancer"


class Step(Enum):
    IGNORE = auto()
    ENSURE = auto()
    CLEAN_UP = auto()


def decide(service: Service, *, owned: bool, remembered: bool, has_default: bool) -> Step:
    """The step for `service`. `owned`: a provider owns its class; `remembered`: this process ensured it before."""
    finalized = LOAD_BALANCER_CLEANUP in service.metadata.finalizers
    if service.spec.type == LOAD_BALANCER:
        if not owned:
            return Step.IGNORE
        if service.metadata.deletion_timestamp is None:
            return Step.ENSURE
        return Step.CLEAN_UP if finalized else Step.IGNORE
    ours = remembered or ready_condition(service) is not None
    return Step.CLEAN_UP if ours or (finalized and has_default) else Step.IGNORE


def is_nobodys(service: Service) -> bool:
    """Whether a Service that none of our providers owns waits for a load balancer."""
    wants = service.spec.type == LOAD_BALANCER and service.spec.load_balancer_class is not None
    return wants and service.metadata.deletion_timestamp is None and not service.status.load_balancer.ingress


def ready_condition(service: Service) -> Condition | None:
    """Our condition on `service`, or None."""
    return next((c for c in service.status.conditions if c.type == READY), None)


def add_finalizer(service: Service) -> JSON:
    """A merge patch, conditional on the version seen: a finalizer list is replaced whole."""
    return _metadata(service, [*service.metadata.finalizers, LOAD_BALANCER_CLEANUP])


def remove_finalizer(service: Service) -> JSON:
    return _metadata(service, [f for f in service.metadata.finalizers if f != LOAD_BALANCER_CLEANUP])


def _metadata(service: Service, finalizers: list[str]) -> JSON:
    return {"metadata": {"resourceVersion": service.metadata.resource_version, "finalizers": finalizers or None}}


def status_patch(service: Service, wanted: LoadBalancerStatus, ready: Condition | None, now: str) -> JSON | None:
    """The merge patch for the status subresource that shows `wanted` and our condition `ready` (None: without it), or
    None when it is shown already. `now` (RFC 3339) becomes the condition's transition time when its status changes."""
    before = ready_condition(service)
    if ready is not None:
        since = before.last_transition_time if before is not None and before.status == ready.status else None
        ready = msgspec.structs.replace(ready, last_transition_time=since or now)
    status: JSON = {}
    if wanted != service.status.load_balancer:
        status["loadBalancer"] = {"ingress": msgspec.to_builtins(wanted.ingress) or None}
    if ready != before:
        others = [c for c in service.status.conditions if c.type != READY]
        conditions = others if ready is None else [*others, ready]
        status["conditions"] = msgspec.to_builtins(conditions) or None
    if not status:
        return None
    return {"metadata": {"resourceVersion": service.metadata.resource_version}, "status": status}
