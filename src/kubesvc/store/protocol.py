"""The Store protocol: atomic commits, reads at one revision, watches from any revision still kept.

A key is a slash path `GROUP/PLURAL/NAMESPACE/NAME` ("core" for the empty group, "-" for no namespace) or
`claims/...`; a value is JSON bytes *without* resourceVersion, which readers add from the revision.

A revision is one increasing integer for the whole store, so an empty list has one too. Each write of a commit has a
revision of its own, the commit's the last of them: a watch that was cut off between two events of one commit resumes
from the first and misses nothing. All of a commit become visible together.

    StoreError
    ├── PreconditionFailed   a write's or check's precondition didn't hold; names the key and the revision found
    ├── Compacted            the revision asked for is no longer kept: list again
    ├── Unwritable           nothing was written: the disk is full, read-only, …; the message says what to do
    └── Unknown              the commit may or may not have happened: read back by uid
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

MAX_OPERATIONS = 100
MAX_BYTES = 1 << 20


class StoreError(Exception):
    pass


class PreconditionFailed(StoreError):
    def __init__(self, key: str, found: int) -> None:
        super().__init__(f"{key}: found revision {found}")
        self.key = key
        self.found = found  # 0: absent


class Compacted(StoreError):
    def __init__(self, oldest: int) -> None:
        super().__init__(f"the oldest revision kept is {oldest}")
        self.oldest = oldest


class Unwritable(StoreError):
    pass


class Unknown(StoreError):
    pass


class Write(msgspec.Struct, frozen=True, gc=False):
    """Set `key` to `value` (None deletes) if its revision is `expected` (0: absent)."""

    key: str
    value: bytes | None
    expected: int


class Check(msgspec.Struct, frozen=True, gc=False):
    """A precondition on a key that isn't written: its revision, or with `exists` only whether it is there."""

    key: str
    revision: int | None = None
    exists: bool | None = None


class Versioned(msgspec.Struct, frozen=True, gc=False):
    key: str
    value: bytes
    revision: int  # of the last write to this key


class Page(msgspec.Struct, frozen=True):
    """Items in key order at `revision`; `next_key` is where to go on, None at the end; `remaining` counts the rest."""

    items: list[Versioned]
    revision: int
    next_key: str | None = None
    remaining: int = 0


class StoreEvent(msgspec.Struct, frozen=True, gc=False):
    """One key changed at `revision`. `value` is None for a deletion; `previous` is None for a creation, and
    `previous_revision` 0."""

    revision: int
    key: str
    value: bytes | None
    previous: bytes | None
    previous_revision: int = 0


class Watch(Protocol):
    """Every event under a prefix after a revision, in order; a bare int is a progress mark: nothing happened up to that
    revision. Safe to cancel while it waits, and then to go on."""

    def __aiter__(self) -> Watch: ...

    async def __anext__(self) -> StoreEvent | int:
        """Raises Compacted when what comes next is no longer kept."""
        ...

    def take(self) -> StoreEvent | None:
        """The next event where it can be had without waiting. Raises Compacted."""
        ...


class Store(Protocol):
    async def commit(self, writes: Sequence[Write], checks: Sequence[Check] = ()) -> int:
        """All writes or none, in this order; returns the last one's revision once they are durable.

        Raises PreconditionFailed, Unwritable or Unknown."""
        ...

    async def get(self, key: str) -> Versioned | None: ...

    async def list(self, prefix: str, *, limit: int = 0, start: str = "", revision: int = 0) -> Page:
        """Items under `prefix` from key `start` on, at `revision` (0: now). Raises Compacted."""
        ...

    def watch(self, prefix: str, since: int) -> Watch:
        """What happens under `prefix` after revision `since`."""
        ...

    async def revision(self) -> int:
        """The newest committed revision."""
        ...

    async def check(self) -> None:
        """Whether it would take a write now, and reads back. Raises StoreError that says what to do where not."""
        ...

    async def close(self) -> None: ...
