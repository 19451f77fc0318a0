"""The seam to whatever makes a load balancer: a pool of addresses, or a cloud.

    LoadBalancerError
    ├── BadPool           the configured ranges can't be used
    ├── BadProvider       a provider can't begin: its library, credentials or options are missing
    ├── Refused           it can't be had, and here is why; wait for the Service or the world to change
    └── ProviderFailed    it should have worked; try again later

A provider is level-triggered and idempotent: the controller calls `ensure` whenever anything may have changed, also
after a crash half-way. Follows cloud-provider's LoadBalancer interface, with a refusal told apart from a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import Protocol

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.api.nodes import Node

Key = tuple[str, str]


class LoadBalancerError(Exception):
    """Base of this room's errors."""


class BadPool(LoadBalancerError):
    """The message names the range and what is wrong with it."""


class BadProvider(LoadBalancerError):
    """The message names the provider and the remedy."""


class Refused(LoadBalancerError):
    """`reason` is a CamelCase word for conditions, `message` a sentence with the remedy, `status` what the Service
    still has: its address of before, when it asked for another that can't be had."""

    def __init__(self, reason: str, message: str, status: LoadBalancerStatus) -> None:
        super().__init__(message)
        self.reason, self.message, self.status = reason, message, status


class ProviderFailed(LoadBalancerError):
    """A foreign error, wrapped; the controller retries with back-off."""


class Change(Enum):
    """What a provider learnt of the world."""

    CAPACITY = auto()
    """What was refused may now be had."""
    RULES = auto()
    """What was granted may no longer be right: look at every Service again."""


class Provider(Protocol):
    @property
    def name(self) -> str:
        """What --provider and --default-provider call it."""
        ...

    def owns(self, load_balancer_class: str) -> bool:
        """Whether a Service with this loadBalancerClass is this provider's."""
        ...

    def remarks(self, service: Service) -> Sequence[str]:
        """What of the Service's wishes is passed over, a sentence with the remedy each: events say them once."""
        ...

    async def run(self, changed: Callable[[Change | Key], None]) -> None:
        """Follow what it needs to know, until cancelled, and call `changed` for what concerns Services: all of them,
        or the one with that namespace and name."""
        ...

    async def adopt(self, services: Iterable[Service]) -> None:
        """Learn what exists, from the Services it owns. Once, before anything else but `run`."""
        ...

    async def ensure(self, service: Service, nodes: Sequence[Node]) -> LoadBalancerStatus:
        """Make it so; returns the status to publish. `nodes` may take traffic. Raises Refused, ProviderFailed."""
        ...

    async def delete(self, service: Service) -> None:
        """Free all of it; nothing to free is fine. Raises ProviderFailed."""
        ...
