"""The Store contract: one suite, run against every implementation that needs no server."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from kubesvc.store.memory import MemoryStore
from kubesvc.store.protocol import Check, Compacted, PreconditionFailed, Store, StoreError, StoreEvent, Write
from kubesvc.store.sqlite import SqliteStore

Open = Callable[..., Store]
DEADLINE = 60.0


class Ticks:
    """A clock on which a minute passes between two looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 60.0
        return self.now


@pytest.fixture(params=["memory", "sqlite"])
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Makes stores of one implementation, each its own; all are closed at the end."""
    made: list[Store] = []

    def make(**options: float) -> Store:
        if request.param == "memory":
            store: Store = MemoryStore(**options)  # type: ignore[arg-type]
        else:
            store = SqliteStore(tmp_path / f"{len(made)}.db", history_seconds=0, clock=Ticks(), **options)
        made.append(store)
        return store

    yield make
    for store in made:
        await store.close()


@pytest.fixture
def store(opener: Open) -> Store:
    return opener()


async def put(store: Store, key: str, value: bytes = b"{}", expected: int = 0) -> int:
    return await store.commit([Write(key, value, expected)])


async def keys(store: Store, prefix: str, **options: int) -> list[str]:
    return [item.key for item in (await store.list(prefix, **options)).items]


async def take(store: Store, prefix: str, since: int, count: int) -> list[StoreEvent]:
    """The next `count` events, marks left out."""
    found: list[StoreEvent] = []
    async with asyncio.timeout(DEADLINE):
        async for event in store.watch(prefix, since):
            if isinstance(event, StoreEvent):
                found.append(event)
            if len(found) == count:
                break
    return found


# ── commits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_write_has_the_next_revision_and_its_commit_the_last(store: Store) -> None:
    first = await put(store, "g/a/-/1")
    last = await store.commit([Write("g/a/-/2", b"2", 0), Write("g/b/-/2", b"2", 0)])
    assert last == first + 2 == await store.revision()
    assert {item.revision for item in (await store.list("g/b/")).items} == {last}


async def test_a_watch_cut_between_two_writes_of_one_commit_misses_neither(store: Store) -> None:
    """As the two addresses of a dual-stack Service: whoever saw the first resumes from it and sees the second."""
    await store.commit([Write("g/a/-/v4", b"4", 0), Write("g/a/-/v6", b"6", 0), Write("g/s/x/web", b"s", 0)])
    (first,) = await take(store, "g/a/", 0, 1)
    (second,) = await take(store, "g/a/", first.revision, 1)
    assert (first.key, second.key) == ("g/a/-/v4", "g/a/-/v6")
    assert second.revision > first.revision


async def test_an_empty_list_has_a_revision(store: Store) -> None:
    revision = await put(store, "g/a/-/1")
    page = await store.list("g/nothing/")
    assert (page.items, page.revision) == ([], revision)


@pytest.mark.parametrize(
    ("writes", "checks", "failing", "found"),
    [
        ([Write("g/a/-/x", b"2", 0)], [], "g/a/-/x", 1),
        ([Write("g/a/-/x", b"2", 7)], [], "g/a/-/x", 1),
        ([Write("g/a/-/y", b"2", 1)], [], "g/a/-/y", 0),
        ([Write("g/a/-/y", None, 1)], [], "g/a/-/y", 0),
        ([Write("g/a/-/y", b"", 0)], [Check("g/a/-/x", revision=9)], "g/a/-/x", 1),
        ([Write("g/a/-/y", b"", 0)], [Check("g/a/-/z", exists=True)], "g/a/-/z", 0),
        ([Write("g/a/-/y", b"", 0)], [Check("g/a/-/x", exists=False)], "g/a/-/x", 1),
        ([Write("g/a/-/y", b"", 0), Write("g/a/-/x", b"", 0)], [], "g/a/-/x", 1),
    ],
    ids=[
        "present where absent was expected", "another revision", "absent", "deleting what is absent",
        "check: another revision", "check: absent", "check: present", "the second write",
    ],
)  # fmt: skip
async def test_a_failed_precondition_names_the_key_and_writes_nothing(
    store: Store, writes: list[Write], checks: list[Check], failing: str, found: int
) -> None:
    await put(store, "g/a/-/x", b"1")
    with pytest.raises(PreconditionFailed) as failure:
        await store.commit(writes, checks)
    assert (failure.value.key, failure.value.found) == (failing, found)
    assert await keys(store, "g/a/") == ["g/a/-/x"]
    assert await store.revision() == 1


async def test_checks_that_hold_let_the_commit_through(store: Store) -> None:
    revision = await put(store, "g/ns/-/here")
    checks = [
        Check("g/ns/-/here", revision=revision),
        Check("g/ns/-/here", exists=True),
        Check("g/no/-/x", exists=False),
    ]
    assert await store.commit([Write("g/a/here/x", b"1", 0)], checks) == revision + 1


async def test_an_object_is_created_changed_deleted_and_created_again(store: Store) -> None:
    created = await put(store, "g/a/-/x", b"1")
    changed = await put(store, "g/a/-/x", b"2", created)
    found = await store.get("g/a/-/x")
    assert found is not None
    assert (found.value, found.revision) == (b"2", changed)
    await store.commit([Write("g/a/-/x", None, changed)])
    assert await store.get("g/a/-/x") is None
    again = await put(store, "g/a/-/x", b"3")
    assert again == changed + 2


async def test_of_many_who_want_the_same_key_one_gets_it(store: Store) -> None:
    results = await asyncio.gather(*(put(store, "g/a/-/x", b"%d" % n) for n in range(20)), return_exceptions=True)
    won = [r for r in results if isinstance(r, int)]
    assert len(won) == 1
    assert all(isinstance(r, PreconditionFailed) and r.found == won[0] for r in results if not isinstance(r, int))


async def test_a_chain_of_updates_in_flight_all_arrive(store: Store) -> None:
    """A counter that many raise at once, each trying again when it lost, ends at the right number."""
    await put(store, "g/a/-/n", b"0")

    async def add_one() -> None:
        while True:
            found = await store.get("g/a/-/n")
            assert found is not None
            try:
                await put(store, "g/a/-/n", b"%d" % (int(found.value) + 1), found.revision)
            except PreconditionFailed:
                continue
            return

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(add_one() for _ in range(12)))
    found = await store.get("g/a/-/n")
    assert found is not None
    assert found.value == b"12"


@pytest.mark.parametrize("count", [101, 2], ids=["operations", "bytes"])
async def test_a_commit_too_big_for_etcd_is_refused_everywhere(store: Store, count: int) -> None:
    value = b"x" if count > 100 else b"x" * 600_000
    with pytest.raises(ValueError, match="at most 100 operations"):
        await store.commit([Write(f"g/a/-/{n}", value, 0) for n in range(count)])


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_list_is_sorted_and_only_what_is_under_the_prefix(store: Store) -> None:
    for key in ("g/a/ns2/x", "g/a/ns/b", "g/ab/ns/x", "g/a/ns/a", "h/a/ns/x"):
        await put(store, key)
    assert await keys(store, "g/a/") == ["g/a/ns/a", "g/a/ns/b", "g/a/ns2/x"]
    assert await keys(store, "g/a/ns/") == ["g/a/ns/a", "g/a/ns/b"]
    assert await keys(store, "g/") == ["g/a/ns/a", "g/a/ns/b", "g/a/ns2/x", "g/ab/ns/x"]


async def test_pages_join_to_the_whole_at_the_first_pages_revision(store: Store) -> None:
    for n in range(5):
        await put(store, f"g/a/-/{n}", b"old")
    first = await store.list("g/a/", limit=2)
    assert (len(first.items), first.remaining, first.next_key) == (2, 3, "g/a/-/2")
    await store.commit([Write("g/a/-/3", None, 4)])
    await put(store, "g/a/-/2", b"new", 3)
    await put(store, "g/a/-/25")
    second = await store.list("g/a/", limit=2, start=first.next_key or "", revision=first.revision)
    third = await store.list("g/a/", limit=2, start=second.next_key or "", revision=first.revision)
    items = first.items + second.items + third.items
    assert [item.key[-1] for item in items] == ["0", "1", "2", "3", "4"]
    assert {item.value for item in items} == {b"old"}
    assert [item.revision for item in items] == [1, 2, 3, 4, 5]
    assert (third.next_key, third.remaining, third.revision) == (None, 0, first.revision)


async def test_every_older_revision_can_be_listed(store: Store) -> None:
    """Whatever happened since, a list at a revision is what a list was then."""
    expected: list[list[tuple[str, bytes, int]]] = []
    revisions: dict[str, int] = {}
    for n in range(30):
        key = f"g/a/-/{n * 7 % 5}"
        value = None if n % 4 == 3 and key in revisions else b"%d" % n
        revision = await store.commit([Write(key, value, revisions.get(key, 0))])
        revisions[key] = revision
        if value is None:
            del revisions[key]
        expected.append([(i.key, i.value, i.revision) for i in (await store.list("g/a/")).items])
    for at, then in enumerate(expected, 1):
        page = await store.list("g/a/", revision=at)
        assert [(i.key, i.value, i.revision) for i in page.items] == then
        assert page.revision == at


# ── watches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_watch_tells_creation_change_and_deletion_with_what_was_before(store: Store) -> None:
    a = await put(store, "g/a/-/x", b"1")
    b = await put(store, "g/a/-/x", b"2", a)
    c = await store.commit([Write("g/a/-/x", None, b)])
    assert await take(store, "g/a/", 0, 3) == [
        StoreEvent(a, "g/a/-/x", b"1", None, 0),
        StoreEvent(b, "g/a/-/x", b"2", b"1", a),
        StoreEvent(c, "g/a/-/x", None, b"2", b),
    ]


async def test_a_watch_starts_after_any_revision_that_is_kept(store: Store) -> None:
    for n in range(6):
        await put(store, f"g/{'ab'[n % 2]}/-/{n}")
    for since in range(5):
        expected = [n + 1 for n in (0, 2, 4) if n >= since]
        events = await take(store, "g/a/", since, len(expected))
        assert [event.revision for event in events] == expected


async def test_a_waiting_watch_is_woken_by_its_prefix_alone(store: Store) -> None:
    waiting = asyncio.create_task(take(store, "g/a/one/", await store.revision(), 1))
    await put(store, "g/b/one/x")
    await put(store, "g/a/two/x")
    await put(store, "g/a/one/x")
    assert [event.key for event in await waiting] == ["g/a/one/x"]


async def test_watches_see_every_event_in_order_while_many_commit(store: Store) -> None:
    watchers = [asyncio.create_task(take(store, prefix, 0, 200)) for prefix in ("g/a/", "g/a/", "g/")]
    await asyncio.gather(*(put(store, f"g/a/-/{n:03}") for n in range(200)))
    for events in await asyncio.gather(*watchers):
        assert [event.revision for event in events] == list(range(1, 201))
        assert len({event.key for event in events}) == 200


async def test_a_watch_can_be_cancelled_while_it_waits_and_goes_on(store: Store) -> None:
    events = store.watch("g/a/", 0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await anext(events)
    await put(store, "g/a/-/x")
    event = await anext(events)
    assert isinstance(event, StoreEvent)


async def test_an_idle_watch_is_told_how_far_it_is(opener: Open) -> None:
    store = opener(mark_seconds=0.01)
    events = store.watch("g/a/", 0)
    revision = await put(store, "g/b/-/x")
    async with asyncio.timeout(DEADLINE):
        assert await anext(events) == revision


# ── compaction ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_too_old_is_refused_and_the_rest_stays(opener: Open) -> None:
    store = opener(history_bytes=5_000)
    revision = 0
    for n in range(100):
        revision = await put(store, "g/a/-/x", b"%d" % n, revision)
    with pytest.raises(Compacted) as refused:
        await anext(store.watch("g/a/", 1))
    oldest = refused.value.oldest
    assert 50 < oldest < 100
    with pytest.raises(Compacted):
        await store.list("g/a/", revision=oldest - 1)
    assert [i.value for i in (await store.list("g/a/", revision=oldest)).items] == [b"%d" % (oldest - 1)]
    assert [e.revision for e in await take(store, "g/a/", oldest, 100 - oldest)] == list(range(oldest + 1, 101))


async def test_a_watch_left_behind_learns_it(opener: Open) -> None:
    store = opener(history_bytes=5_000)
    slow = store.watch("g/a/", 0)
    revision = await put(store, "g/a/-/x")
    assert isinstance(await anext(slow), StoreEvent)
    for _ in range(100):
        revision = await put(store, "g/a/-/x", b"{}", revision)
    with pytest.raises(Compacted):
        await anext(slow)


# ── what is durable: sqlite alone ────────────────────────────────────────────────────────────────────────────────────


async def test_a_reopened_store_has_its_objects_history_and_numbers(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    a = await put(store, "g/a/-/x", b"1")
    b = await store.commit([Write("g/a/-/x", b"2", a), Write("g/b/-/y", b"1", 0)])
    c = await store.commit([Write("g/b/-/y", None, b)])
    await store.close()
    again = SqliteStore(tmp_path / "s.db")
    assert await again.revision() == c
    assert await keys(again, "g/") == ["g/a/-/x"]
    assert [i.value for i in (await again.list("g/", revision=b)).items] == [b"2", b"1"]
    assert [e.revision for e in await take(again, "g/a/", 0, 2)] == [a, b - 1]
    assert await put(again, "g/c/-/z") == c + 1
    await again.close()


async def test_a_compacted_store_reopens_with_the_same_present_and_the_same_oldest(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", history_bytes=5_000, history_seconds=0, clock=Ticks())
    revisions = dict.fromkeys(("a", "b", "c"), 0)
    still = await put(store, "g/a/-/still", b"here")
    for n in range(150):
        name = "abc"[n % 3]
        value = None if n % 10 == 9 and revisions[name] else b"%d" % n
        revision = await store.commit([Write(f"g/a/-/{name}", value, revisions[name])])
        revisions[name] = revision if value is not None else 0
    before = await store.list("g/a/")
    oldest = store.log.oldest
    assert oldest > 50
    await store.close()
    again = SqliteStore(tmp_path / "s.db", history_bytes=5_000)
    assert await again.list("g/a/") == before
    assert again.history.oldest <= oldest <= again.log.oldest
    assert next(i.revision for i in before.items if i.key.endswith("still")) == still
    (rows,) = again._database.execute("SELECT count(*) FROM log").fetchone()
    assert rows < 60
    await again.close()


async def test_a_file_in_use_is_refused_with_what_to_do(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    await put(store, "g/a/-/x")
    code = "import pathlib, sys; from kubesvc.store.sqlite import SqliteStore; SqliteStore(pathlib.Path(sys.argv[1]))"
    path = str(tmp_path / "s.db")
    second = await asyncio.create_subprocess_exec(sys.executable, "-c", code, path, stderr=subprocess.PIPE)
    _, errors = await second.communicate()
    assert b"another process has it open" in errors
    await store.close()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="is it a kubesvc database"):
        SqliteStore(tmp_path / "s.db")


async def test_after_a_failed_batch_the_store_goes_on_from_what_is_durable(tmp_path: Path) -> None:
    """A commit the disk refuses is Unknown to its caller, those queued behind it too, and later ones succeed."""
    store = SqliteStore(tmp_path / "s.db")
    first = await put(store, "g/a/-/x")
    store._database.execute(
        "CREATE TRIGGER full BEFORE INSERT ON log WHEN new.key LIKE '%bad%' BEGIN SELECT raise(ABORT, 'disk full'); END"
    )
    results = await asyncio.gather(put(store, "g/a/-/bad"), put(store, "g/a/-/behind"), return_exceptions=True)
    assert all(isinstance(result, StoreError) for result in results)
    assert await keys(store, "g/a/") == ["g/a/-/x"]
    assert await put(store, "g/a/-/behind") == first + 1
    await store.close()


_WRITER = """
import asyncio, pathlib, sys
from kubesvc.store.protocol import Write
from kubesvc.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    async def write(n):
        revision = await store.commit([Write(f"g/a/-/{n:06}", b"x" * 300, 0)])
        print(n, revision, flush=True)
    n = 0
    while True:
        await asyncio.gather(*(write(n + i) for i in range(8)))
        n += 8

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITER, str(path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert writer.stdout is not None
    acknowledged: list[tuple[int, int]] = []
    async with asyncio.timeout(DEADLINE):
        while len(acknowledged) < 200:
            number, revision = (await writer.stdout.readline()).split()
            acknowledged.append((int(number), int(revision)))
    writer.send_signal(signal.SIGKILL)
    rest = await writer.stdout.read()
    acknowledged += [
        (int(n), int(r)) for n, r in (line.split() for line in rest.splitlines(keepends=True) if line.endswith(b"\n"))
    ]
    await writer.wait()
    store = SqliteStore(path)
    found = {item.key: item.revision for item in (await store.list("g/a/")).items}
    assert all(found[f"g/a/-/{number:06}"] == revision for number, revision in acknowledged)
    assert await store.revision() == max(found.values())
    await store.close()
