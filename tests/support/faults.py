"""A cloud that fails at random, and Services that come, change and go meanwhile: whatever is left over is a leak.

Provider-agnostic: a cloud's test gives `Story` a way to make the provider, Services to go through, and two looks at
the cloud past the provider: what is wrong with a Service's load balancer, and what there is at all.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum, auto

from kubesvc.api.core import LoadBalancerStatus, Service
from kubesvc.api.nodes import Node
from kubesvc.loadbalancer.provider import Provider, ProviderFailed

ATTEMPTS = 400
"""Of one step. At 20 % faults a step that makes progress needs a few dozen at most."""


class Fault(Enum):
    NONE = auto()
    FAILED = auto()
    """Answered with an error: it wasn't done."""
    UNHEARD = auto()
    """No answer, and it wasn't done."""
    LOST = auto()
    """No answer, but it was done."""


class Dice:
    """Which fault the next call to the cloud meets. `on` may be switched."""

    def __init__(self, seed: int, rate: float = 0.2) -> None:
        self._random = random.Random(seed)
        self._rate = rate
        self.on = True
        self.thrown: Counter[Fault] = Counter()

    def throw(self) -> Fault:
        bad = self.on and self._random.random() < self._rate
        fault = self._random.choice((Fault.FAILED, Fault.UNHEARD, Fault.LOST)) if bad else Fault.NONE
        self.thrown[fault] += 1
        return fault


@dataclass
class Story:
    """`versions(n)` are what the n-th Service is in turn; `wrong(service, status)` says what isn't as it should be.

    `started(services)` gives a provider that has adopted them, as a fresh process would."""

    started: Callable[[Sequence[Service]], AbstractAsyncContextManager[Provider]]
    versions: Callable[[int], Sequence[Service]]
    nodes: Callable[[random.Random], Sequence[Node]]
    wrong: Callable[[Service, Sequence[Node], LoadBalancerStatus], list[str]]
    leftovers: Callable[[], list[str]]
    seed: int = 0
    said: list[str] = field(default_factory=list)  # what was wrong
    retries: int = 0

    async def go(self, cycles: int, *, workers: int = 4, restarts: int = 4) -> None:
        """`workers` Services at a time. The provider is made anew `restarts` times: half of a Service's life before
        and half after, adopted in between."""
        dice = random.Random(self.seed)
        parts: list[list[int]] = [list(range(cycles))[n :: restarts + 1] for n in range(restarts + 1)]
        before: list[int] = []
        for part in (*parts, []):
            halves = [(n, False) for n in before] + [(n, True) for n in part]
            async with self.started([self.versions(n)[0] for n in before]) as provider:
                left = iter(halves)
                await asyncio.gather(*(self._work(provider, left, dice) for _ in range(workers)))
            before = part

    async def _work(self, provider: Provider, left: Iterator[tuple[int, bool]], dice: random.Random) -> None:
        for number, first_half in left:
            versions = self.versions(number)
            middle = len(versions) // 2 + 1
            for service in versions[:middle] if first_half else versions[middle:]:
                nodes = self.nodes(dice)
                status = await self._until_done(lambda s=service, n=nodes: provider.ensure(s, n))  # type: ignore[misc]
                self.said += await asyncio.to_thread(self.wrong, service, nodes, status)
            if not first_half:
                await self._until_done(lambda s=versions[-1]: provider.delete(s))  # type: ignore[misc]

    async def _until_done(self, step: Callable[[], object]) -> LoadBalancerStatus:
        for _ in range(ATTEMPTS):
            try:
                return await step()  # type: ignore[misc, no-any-return]
            except ProviderFailed:
                self.retries += 1
        raise AssertionError(f"not done after {ATTEMPTS} attempts")
