"""The seam to whatever makes a load balancer: a pool of addresses, or a cloud.

    LoadBalancerError
    ├── BadPool           the configured ranges can't be used
    ├── Refused           it can't be had, and here is why; wait for the Service or the world to change
    └── ProviderFailed    it should have worked; try again later

A provider is level-triggered and idempotent: the controller calls `ensure` whenever anything may have changed, also
after a crash half-way. Follows cloud-provider's LoadBalancer interface, with a refusal told apart from a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from kubesvc.api.core import LoadBalancerStatus, Node, Service


class LoadBalancerError(Exception):
    """Base of this room's errors."""


class BadPool(LoadBalancerError):
    """The message names the range and what is wrong with it."""


class Refused(LoadBalancerError):
    """`reason` is a CamelCase word for conditions, `message` a sentence with the remedy, `status` what the Service
    still has: its address of before, when it asked for another that can't be had."""

    def __init__(self, reason: str, message: str, status: LoadBalancerStatus) -> None:
        super().__init__(message)
        self.reason, self.message, self.status = reason, message, status


class ProviderFailed(LoadBalancerError):
    """A foreign error, wrapped; the controller retries with back-off."""


class Provider(Protocol):
    def owns(self, service: Service) -> bool:
        """Whether a Service of type LoadBalancer is this provider's, by its loadBalancerClass."""
        ...

    async def adopt(self, services: Iterable[Service]) -> None:
        """Learn what exists, from the Services it owns. Once, before anything else."""
        ...

    async def ensure(self, service: Service, nodes: Sequence[Node]) -> LoadBalancerStatus:
        """Make it so; returns the status to publish. `nodes` may take traffic. Raises Refused, ProviderFailed."""
        ...

    async def delete(self, service: Service) -> None:
        """Free all of it; nothing to free is fine. Raises ProviderFailed."""
        ...

    def on_capacity(self, handler: Callable[[], None]) -> None:
        """Call `handler` whenever what was refused may now be had."""
        ...
