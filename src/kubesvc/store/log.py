"""What is there now and what happened lately, in memory: every store's reads and watches come from here.

A store appends commits that are already durable; readers never touch a disk or a network. An event is kept once, in
commit order, and shared by all watchers: a watcher is a position, not a queue, so a slow one costs nothing and learns
by `Compacted` when it has fallen behind what is kept. State at an older revision is the present with later events
undone.

    commit ─► append ─► topic "core/services": keys (sorted), items, events ──► Watch, Watch, …
                  └───► topic "" (everything): events

Left out: durability and preconditions on commits that aren't durable yet, which belong to each store.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import Self

import msgspec

from kubesvc.store import protocol
from kubesvc.store.protocol import Check, Compacted, Page, PreconditionFailed, StoreEvent, Versioned, Write

HISTORY_BYTES = 32 << 20
MARK_SECONDS = 10.0
ENTRY_BYTES = 200  # what an event costs beside its key and value, about


class Topic(msgspec.Struct):
    """All keys of one GROUP/PLURAL, and their events; `first` is the position of events[0] since the beginning."""

    keys: list[str] = []  # sorted
    items: dict[str, Versioned] = {}
    events: list[StoreEvent] = []
    first: int = 0
    changed: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self.changed.set()
        self.changed.clear()

    def drop(self, count: int) -> None:
        del self.events[:count]
        self.first += count


def topic_of(key: str) -> str:
    """GROUP/PLURAL of a key, or of a prefix long enough to name both; else ""."""
    parts = key.split("/", 2)
    return f"{parts[0]}/{parts[1]}" if len(parts) == 3 else ""


class Log:
    """The present, and events back to `oldest`: a list at or a watch after any revision from there on works."""

    def __init__(self, *, history_bytes: int = HISTORY_BYTES, mark_seconds: float = MARK_SECONDS) -> None:
        self.revision = 0
        self.oldest = 0
        self.mark_seconds = mark_seconds
        self._history_bytes = history_bytes
        self._bytes = 0
        self._all = Topic()
        self._topics: dict[str, Topic] = {}  # GROUP/PLURAL -> topic

    def _topic(self, name: str) -> Topic:
        found = self._topics.get(name)
        if found is None:
            found = self._topics[name] = Topic()
        return found

    # ── the present ──────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, key: str) -> Versioned | None:
        topic = self._topics.get(topic_of(key))
        return topic.items.get(key) if topic else None

    def found(self, key: str) -> int:
        """The revision of `key`, 0 when it is absent."""
        item = self.get(key)
        return item.revision if item else 0

    def append(self, first: int, writes: Sequence[Write], *, wake: bool = True) -> None:
        """One durable commit, its writes at the revisions from `first` on. Deletions of what is absent leave no
        event."""
        touched: set[str] = set()
        for revision, write in enumerate(writes, first):
            name = topic_of(write.key)
            topic = self._topic(name)
            old = topic.items.get(write.key)
            if write.value is None:
                if old is None:
                    continue
                del topic.items[write.key]
                del topic.keys[bisect_left(topic.keys, write.key)]
            else:
                if old is None:
                    insort(topic.keys, write.key)
                topic.items[write.key] = Versioned(write.key, write.value, revision)
            event = StoreEvent(revision, write.key, write.value, old.value if old else None, old.revision if old else 0)
            topic.events.append(event)
            self._all.events.append(event)
            self._bytes += size_of(event.key, event.value)
            touched.add(name)
        self.revision = first + len(writes) - 1
        if wake:
            for name in touched:
                self._topics[name].wake()
            self._all.wake()

    def restore(self, state: dict[str, Versioned], revision: int) -> None:
        """Start from this state at `revision`, without history: for a store that opens its log again."""
        for key in sorted(state):
            topic = self._topic(topic_of(key))
            topic.keys.append(key)
            topic.items[key] = state[key]
        self.oldest = self.revision = revision

    # ── reads at a revision ──────────────────────────────────────────────────────────────────────────────────────

    def page(self, prefix: str, *, limit: int = 0, start: str = "", revision: int = 0) -> Page:
        """As Store.list."""
        at = revision or self.revision
        if at < self.oldest:
            raise Compacted(self.oldest)
        undone = self._undone(prefix, at) if at < self.revision else {}
        keys = self._keys(prefix, max(prefix, start))
        if undone:
            changed = (key for key, item in undone.items() if item is not None and key >= start)
            keys = sorted({*changed, *(key for key in keys if key not in undone)})
        chosen = keys[:limit] if limit else keys
        items = [undone.get(key) or self._topics[topic_of(key)].items[key] for key in chosen]
        rest = len(keys) - len(chosen)
        return Page(items, at, keys[len(chosen)] if rest else None, rest)

    def _keys(self, prefix: str, start: str) -> list[str]:
        """The sorted keys under `prefix`, from `start` on."""
        name = topic_of(prefix)
        if name:
            topic = self._topics.get(name)
            topics = [topic] if topic else []
        else:
            topics = [self._topics[n] for n in sorted(self._topics, key=lambda n: n + "/") if n.startswith(prefix)]
        keys: list[str] = []
        for topic in topics:
            keys += topic.keys[bisect_left(topic.keys, start) : bisect_right(topic.keys, prefix + "\U0010ffff")]
        return keys

    def _undone(self, prefix: str, at: int) -> dict[str, Versioned | None]:
        """Keys changed after revision `at` -> what they were then (None: absent)."""
        then: dict[str, Versioned | None] = {}
        for event in self._newest_first(prefix):
            if event.revision <= at:
                break
            if event.key.startswith(prefix):
                was = event.previous
                then[event.key] = None if was is None else Versioned(event.key, was, event.previous_revision)
        return then

    def _newest_first(self, prefix: str) -> Iterator[StoreEvent]:
        name = topic_of(prefix)
        topic = self._topics.get(name) if name else self._all
        return reversed(topic.events) if topic else iter(())

    # ── watches and history ──────────────────────────────────────────────────────────────────────────────────────

    def watch(self, prefix: str, since: int) -> Watch:
        name = topic_of(prefix)
        return Watch(self, self._topic(name) if name else self._all, prefix, since)

    def trim(self) -> None:
        """Forget the oldest events once there is clearly too much history."""
        if self._bytes <= self._history_bytes * 1.125:
            return
        events = self._all.events
        count, freed = 0, 0
        while count < len(events) and self._bytes - freed > self._history_bytes:
            freed += size_of(events[count].key, events[count].value)
            count += 1
        dropped = events[:count]
        counts: dict[str, int] = {}
        for event in dropped:
            name = topic_of(event.key)
            counts[name] = counts.get(name, 0) + 1
        for name, number in counts.items():
            self._topics[name].drop(number)
        self._all.drop(count)
        self._bytes -= freed
        self.oldest = dropped[-1].revision


def size_of(key: str, value: bytes | None) -> int:
    """What an event costs in memory, in bytes, about."""
    return len(key) + len(value or b"") + ENTRY_BYTES


class Watch:
    """Events of a topic under `prefix` after `since`; safe to cancel while it waits and then to go on."""

    def __init__(self, log: Log, topic: Topic, prefix: str, since: int) -> None:
        self._log, self._topic, self._prefix, self._since = log, topic, prefix, since
        self._next = topic.first + bisect_right(topic.events, since, key=lambda event: event.revision)
        self._lost = since < log.oldest

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StoreEvent | int:
        while True:
            if (event := self.take()) is not None:
                return event
            try:
                async with asyncio.timeout(self._log.mark_seconds):
                    await self._topic.changed.wait()
            except TimeoutError:
                event = self.take()
                return event if event is not None else max(self._log.revision, self._since)

    def take(self) -> StoreEvent | None:
        """The next event, where it is already there."""
        topic = self._topic
        if self._lost or self._next < topic.first:
            raise Compacted(self._log.oldest)
        while self._next - topic.first < len(topic.events):
            event = topic.events[self._next - topic.first]
            self._next += 1
            if event.revision > self._since and event.key.startswith(self._prefix):
                return event
        return None


class Reads:
    """The reading half of the Store protocol, over a Log."""

    log: Log

    async def get(self, key: str) -> Versioned | None:
        return self.log.get(key)

    async def list(self, prefix: str, *, limit: int = 0, start: str = "", revision: int = 0) -> Page:
        return self.log.page(prefix, limit=limit, start=start, revision=revision)

    def watch(self, prefix: str, since: int) -> protocol.Watch:
        return self.log.watch(prefix, since)

    async def revision(self) -> int:
        return self.log.revision


def first_failure(
    revisions: dict[str, int], log: Log, writes: Sequence[Write], checks: Sequence[Check]
) -> PreconditionFailed | None:
    """The first precondition that doesn't hold, where `revisions` (key -> revision) overrides the log."""

    def revision_of(key: str) -> int:
        pending = revisions.get(key)
        return log.found(key) if pending is None else pending

    for write in writes:
        if (found := revision_of(write.key)) != write.expected:
            return PreconditionFailed(write.key, found)
    for check in checks:
        found = revision_of(check.key)
        if check.revision is not None and found != check.revision:
            return PreconditionFailed(check.key, found)
        if check.exists is not None and (found != 0) != check.exists:
            return PreconditionFailed(check.key, found)
    return None


def refuse_oversized(writes: Sequence[Write], checks: Sequence[Check], max_operations: int, max_bytes: int) -> None:
    """Raises ValueError beyond what every implementation can commit at once."""
    size = sum(len(write.key) + len(write.value or b"") for write in writes)
    if len(writes) + len(checks) > max_operations or size > max_bytes:
        raise ValueError(
            f"a commit of {len(writes)} writes, {len(checks)} checks and {size} bytes; "
            f"at most {max_operations} operations and {max_bytes} bytes fit in one"
        )
