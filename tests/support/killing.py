"""Killing a server again and again under load, and holding what is left against what its clients were told.

Each client owns its names, so it knows what must be there: what was acknowledged last, or, of a request that was cut
off, what it would have made. The store is examined as it lies on the disk after each kill, by `kubesvc doctor`'s eyes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import msgspec

from kubesvc.api.errors import ApiError, NotFound
from kubesvc.api.meta import JSON
from kubesvc.api.registry import SERVICE
from kubesvc.apiserver import stored
from kubesvc.apiserver.doctor import Finding, examine
from kubesvc.client.session import Session, Unreachable
from kubesvc.store.backup import snapshot
from support.admission import service
from support.serving import Served

TYPES: list[JSON] = [
    {"type": "ClusterIP"},
    {"type": "NodePort"},
    {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
    {"type": "ExternalName", "externalName": "example.com"},
]


@dataclass(slots=True)
class Outcome:
    kills: int = 0
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)  # acknowledged revisions that the watch never showed
    repeated: list[int] = field(default_factory=list)  # revisions that it showed twice


@dataclass(slots=True)
class Ledger:
    """What clients know. `settled` maps a name -> the acknowledged resourceVersion, None when it is gone."""

    settled: dict[str, str | None] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)  # names with a request that nobody answered
    acknowledged: set[int] = field(default_factory=set)  # revisions
    count: int = 0

    def note(self, name: str, tree: JSON | None) -> None:
        self.settled[name] = tree["metadata"]["resourceVersion"] if tree else None
        self.unsure.discard(name)
        self.count += 1
        if tree:
            self.acknowledged.add(int(tree["metadata"]["resourceVersion"]))


async def client(session: Session, ledger: Ledger, number: int, random: Random) -> None:
    """Create, change and delete Services until nobody answers."""
    names = [f"c{number}-{n}" for n in range(6)]
    while True:
        name = random.choice(names)
        there = ledger.settled.get(name) is not None
        ledger.unsure.add(name)
        try:
            if not there:
                spec = random.choice(TYPES) | {"ports": [{"port": 80}]}
                ledger.note(name, await session.create(SERVICE, service(name, **spec)))
            elif random.random() < 0.4:
                await session.delete(SERVICE, "default", name)
                ledger.note(name, None)
            else:
                spec = random.choice(TYPES) | {"selector": {"n": str(random.random())}}
                ledger.note(name, await session.patch(SERVICE, "default", name, {"spec": spec}))
        except Unreachable:
            return
        except ApiError as error:
            if not isinstance(error, NotFound):  # a delete that was sent twice
                ledger.unsure.discard(name)


async def watcher(session: Session, seen: Counter[int], since: list[str], stop: asyncio.Event) -> None:
    """Note every revision of a Service, going on after each cut from the last one seen."""
    while not stop.is_set():
        try:
            async for event in session.watch(SERVICE, since=since[0]):
                tree = msgspec.json.decode(event.object)
                since[0] = tree["metadata"]["resourceVersion"]
                if event.type != "BOOKMARK":
                    seen[int(since[0])] += 1
        except Unreachable:
            continue


def compare(outcome: Outcome, ledger: Ledger, path: Path) -> None:
    """Hold the store on the disk against the ledger, and go on from what is really there."""
    items = snapshot(path)
    found = {
        stored.name_of(item.key)[1]: str(item.revision)
        for item in items
        if item.key.startswith(stored.collection(SERVICE, "default"))
    }
    outcome.findings += examine(items)
    for name, revision in ledger.settled.items():
        if name not in ledger.unsure and found.get(name) != revision:
            outcome.lost.append(f"{name}: acknowledged at {revision}, found {found.get(name)}")
    for name in ledger.unsure:
        ledger.settled[name] = found.get(name)
    ledger.unsure.clear()


async def kill_under_load(
    served: Served,
    kills: int,
    *,
    clients: int = 16,
    writes: int = 100,
    progress: Callable[[int], None] = lambda n: None,
) -> Outcome:
    """Kill the server `kills` times, each time after about `writes` acknowledged writes more."""
    outcome, ledger, random = Outcome(), Ledger(), Random(kills)
    seen: Counter[int] = Counter()
    stop = asyncio.Event()
    await served.start()
    watching = served.session()
    since = [(await watching.get(SERVICE, "default", "kubernetes"))["metadata"]["resourceVersion"]]
    following = asyncio.create_task(watcher(watching, seen, since, stop))
    try:
        for kill in range(kills):
            session = served.session()
            tasks = [asyncio.create_task(client(session, ledger, n, Random(random.random()))) for n in range(clients)]
            wanted = ledger.count + writes + random.randrange(writes)
            async with asyncio.timeout(60):
                while ledger.count < wanted:
                    await asyncio.wait(tasks, timeout=0.005, return_when=asyncio.FIRST_COMPLETED)
            await served.kill()
            await asyncio.wait(tasks, timeout=0.2)  # whoever now waits for the next server is let go
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await session.close()
            compare(outcome, ledger, served.store)
            outcome.kills += 1
            progress(kill + 1)
            await served.start()
        async with asyncio.timeout(60):
            last = max(ledger.acknowledged)
            while int(since[0]) < last:
                await asyncio.wait([following], timeout=0.02)
    finally:
        stop.set()
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await watching.close()
        await served.close()
    outcome.acknowledged = ledger.count
    outcome.gaps = sorted(ledger.acknowledged - seen.keys())
    outcome.repeated = sorted(revision for revision, times in seen.items() if times > 1)
    return outcome
