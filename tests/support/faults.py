"""A cloud that fails at random, and Services that come, change and go meanwhile: whatever is left over is a leak.

Provider-agnostic: a cloud's module gives `Story` a way to make the provider, Services to go through, and a look at the
cloud past the provider: what is wrong with a Service's load balancer. Its `endure` adds what is left in the end.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

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


Step = Callable[[Provider], Coroutine[Any, Any, LoadBalancerStatus | None]]
Started = Callable[[Sequence[Service]], AbstractAsyncContextManager[Provider]]


@dataclass
class Outcome:
    cycles: int = 0
    retries: int = 0
    """How often the provider said that it failed, and was asked again."""
    restarts: int = 0
    wrong: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    calls: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class Process:
    """The provider, as one process and then the next: what it is at may be cut off."""

    def __init__(self, started: Started, alive: dict[int, Service]) -> None:
        self._started, self._alive = started, alive
        self._up = asyncio.Event()
        self._at: set[asyncio.Task[LoadBalancerStatus | None]] = set()

    async def begin(self) -> None:
        self._context = self._started(list(self._alive.values()))
        self._provider = await self._context.__aenter__()
        self._up.set()

    async def end(self) -> None:
        self._up.clear()
        for task in self._at:
            task.cancel()
        await asyncio.gather(*self._at, return_exceptions=True)
        await self._context.__aexit__(None, None, None)

    async def die(self) -> bool:
        """Another begins with what the API server knows. False: one does already."""
        if not self._up.is_set():
            return False
        await self.end()
        await self.begin()
        return True

    async def do(self, step: Step) -> LoadBalancerStatus | None:
        """Asked again of the next process when this one dies. Raises what the provider does."""
        while True:
            await self._up.wait()
            task = asyncio.create_task(step(self._provider))
            self._at.add(task)
            (result,) = await asyncio.gather(task, return_exceptions=True)
            self._at.discard(task)
            if isinstance(result, asyncio.CancelledError):
                continue
            if isinstance(result, BaseException):
                raise result
            return result


@dataclass
class Story:
    """`versions(n)` are what the n-th Service is in turn; `wrong(service, status)` says what isn't as it should be.

    `started(services)` gives a provider that has adopted them, as a fresh process would. When it ends, what it sent
    has arrived: the next one reads after that. `deaths`: how often a failure is the process's last."""

    started: Started
    versions: Callable[[int], Sequence[Service]]
    nodes: Callable[[random.Random], Sequence[Node]]
    wrong: Callable[[Service, Sequence[Node], LoadBalancerStatus], Awaitable[list[str]]]
    seed: int = 0
    deaths: float = 0.0
    impatience: float = 0.04
    """How often a failure makes the user change the Service, instead of its being asked again."""

    async def go(self, cycles: int, *, workers: int = 4, restarts: int = 4) -> Outcome:
        """`workers` Services at a time. The provider is made anew `restarts` times: half of a Service's life before
        and half after, adopted in between."""
        self._dice, self._outcome = random.Random(self.seed), Outcome()
        self._alive: dict[int, Service] = {}
        parts: list[list[int]] = [list(range(cycles))[n :: restarts + 1] for n in range(restarts + 1)]
        before: list[int] = []
        for part in (*parts, []):
            halves = [(n, False) for n in before] + [(n, True) for n in part]
            process = Process(self.started, self._alive)
            await process.begin()
            left = iter(halves)
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work(process, left))
            await process.end()
            before = part
        return self._outcome

    async def _work(self, process: Process, left: Iterator[tuple[int, bool]]) -> None:
        for number, first_half in left:
            versions = self.versions(number)
            middle = len(versions) // 2 + 1
            for service in versions[:middle] if first_half else versions[middle:]:
                self._alive[number] = service
                nodes = self.nodes(self._dice)
                status = await self._insist(process, lambda p, s=service, n=nodes: p.ensure(s, n), may_stop=True)  # type: ignore[misc]
                if status is not None:
                    said = await self.wrong(service, nodes, status)
                    self._outcome.wrong += [f"{service.name}: {text}" for text in said]
            if not first_half:
                await self._insist(process, lambda p, s=versions[-1]: p.delete(s))  # type: ignore[misc]
                del self._alive[number]
                self._outcome.cycles += 1

    async def _insist(self, process: Process, step: Step, *, may_stop: bool = False) -> LoadBalancerStatus | None:
        """None: it is deleted, or given up."""
        for _ in range(ATTEMPTS):
            try:
                return await process.do(step)
            except ProviderFailed:
                self._outcome.retries += 1
            if self._dice.random() < self.deaths:
                self._outcome.restarts += await process.die()
            if may_stop and self._dice.random() < self.impatience:
                return None
        raise AssertionError(f"not done after {ATTEMPTS} attempts")
