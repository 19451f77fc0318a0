"""Getting, listing and watching through the whole chain, in process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from kubesvc.api.core import ConfigMap
from kubesvc.api.errors import ApiError, BadRequest, Expired, Invalid, NotAcceptable, Timeout
from kubesvc.api.meta import JSON
from kubesvc.api.registry import CONFIG_MAP, NODE, POD, SERVICE, Kind
from kubesvc.apiserver import encode
from kubesvc.apiserver.negotiation import Representation
from kubesvc.apiserver.state import State
from kubesvc.client.informer import Informer
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, Request, Response
from kubesvc.store.memory import MemoryStore
from kubesvc.store.protocol import Versioned
from support.apiserver import ADMIN, local_server

DEADLINE = 60.0
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


class Client:
    """Raw requests to a server in this process, with any header and query."""

    def __init__(self, transport: LocalTransport, store: MemoryStore) -> None:
        self._transport = transport
        self.session = Session(transport)
        self.store = store

    async def send(self, path: str, accept: str = "application/json", **query: str) -> Response:
        return await self._transport.send(Request("GET", path, query, {"accept": accept}))

    async def get(self, path: str, accept: str = "application/json", **query: str) -> Any:
        response = await self.send(path, accept, **query)
        assert response.status == 200, response.body
        return msgspec.json.decode(response.body)

    async def watch(self, kind: Kind, count: int, accept: str = "application/json", **query: str) -> list[JSON]:
        """The first `count` lines of a watch."""
        response = await self.send(kind.path(query.pop("namespace", "")), accept, watch="true", **query)
        assert response.stream is not None, response.body
        lines: list[JSON] = []
        async with asyncio.timeout(DEADLINE):
            async for line in response.stream:
                assert line.endswith(b"\n")
                lines.append(msgspec.json.decode(line))
                if len(lines) == count:
                    break
        return lines

    async def put(self, name: str, *, labels: dict[str, str] | None = None, namespace: str = "default") -> str:
        """Make a ConfigMap, or change its labels; returns its revision."""
        metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
        try:
            made = await self.session.create(CONFIG_MAP, {"metadata": metadata})
        except ApiError:
            made = await self.session.update(CONFIG_MAP, {"metadata": metadata})
        return str(made["metadata"]["resourceVersion"])


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    store = MemoryStore(mark_seconds=0.05)
    async with local_server(store) as server:
        yield Client(LocalTransport(server.handler, ADMIN), store)


def names(found: JSON) -> list[str]:
    return [item["metadata"]["name"] for item in found["items"]]


def summary(lines: list[JSON]) -> list[tuple[str, str]]:
    return [(line["type"], line["object"]["metadata"].get("name", "")) for line in lines]


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_list_says_what_it_is_and_at_which_revision(client: Client) -> None:
    found = await client.get(CONFIG_MAP.path("default"))
    assert (found["kind"], found["apiVersion"], found["items"]) == ("ConfigMapList", "v1", [])
    assert int(found["metadata"]["resourceVersion"]) == await client.store.revision()


async def test_pages_are_of_one_revision_whatever_happens_between(client: Client) -> None:
    for name in "abcde":
        await client.put(name)
    path = CONFIG_MAP.path("default")
    first = await client.get(path, limit="2")
    assert (names(first), first["metadata"]["remainingItemCount"]) == (["a", "b"], 3)
    await client.session.delete(CONFIG_MAP, "default", "d")
    await client.put("bb")
    second = await client.get(path, limit="2", **{"continue": first["metadata"]["continue"]})
    last = await client.get(path, limit="2", **{"continue": second["metadata"]["continue"]})
    assert (names(second), names(last)) == (["c", "d"], ["e"])
    assert "continue" not in last["metadata"]
    assert {p["metadata"]["resourceVersion"] for p in (first, second, last)} == {first["metadata"]["resourceVersion"]}


async def test_pages_of_a_selection_are_full(client: Client) -> None:
    for n in range(7):
        await client.put(f"c{n}", labels={"odd": "yes"} if n % 2 else {})
    path = CONFIG_MAP.path("default")
    first = await client.get(path, limit="2", labelSelector="odd")
    rest = await client.get(path, limit="2", labelSelector="odd", **{"continue": first["metadata"]["continue"]})
    assert (names(first), names(rest)) == (["c1", "c3"], ["c5"])
    assert "continue" not in rest["metadata"]


async def test_a_page_of_a_compacted_revision_is_expired() -> None:
    store = MemoryStore(history_bytes=20_000)
    async with local_server(store) as server:
        client = Client(LocalTransport(server.handler, ADMIN), store)
        for n in range(3):
            await client.put(f"c{n}")
        first = await client.get(CONFIG_MAP.path("default"), limit="1")
        for n in range(100):
            await client.put("c0", labels={"n": str(n)})
        token = first["metadata"]["continue"]
        with pytest.raises(Expired, match="The provided continue parameter is too old"):
            await client.session.raw("GET", CONFIG_MAP.path("default"), query={"continue": token})
        (line,) = await client.watch(CONFIG_MAP, 1, resourceVersion="1")
        assert (line["type"], line["object"]["code"], line["object"]["reason"]) == ("ERROR", 410, "Expired")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("app=web", ["a"]),
        ("app!=web", ["b", "c"]),
        ("app in (web,db),tier", ["a"]),
        ("!app", ["c"]),
    ],
)
async def test_label_selectors(client: Client, selector: str, expected: list[str]) -> None:
    await client.put("a", labels={"app": "web", "tier": "1"})
    await client.put("b", labels={"app": "db"})
    await client.put("c")
    assert names(await client.get(CONFIG_MAP.path("default"), labelSelector=selector)) == expected


async def test_field_selectors(client: Client) -> None:
    for name, node in (("p1", "n1"), ("p2", "n2"), ("p3", "")):
        spec = {"containers": [{"name": "c", "image": "host"}]} | ({"nodeName": node} if node else {})
        await client.session.create(POD, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})
    for selector, expected in (
        ("spec.nodeName=n1", ["p1"]),
        ("spec.nodeName=", ["p3"]),
        ("spec.nodeName!=n1,metadata.name!=p3", ["p2"]),
        ("metadata.name=p2", ["p2"]),
        ("metadata.namespace=elsewhere", []),
        ("status.phase=Pending,spec.hostNetwork=false", ["p1", "p2", "p3"]),
    ):
        assert names(await client.get(POD.path("default"), fieldSelector=selector)) == expected, selector
        assert names(await client.get(POD.path(), fieldSelector=selector)) == expected, selector
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.nothing"):
        await client.session.raw("GET", POD.path("default"), query={"fieldSelector": "spec.nothing=1"})
    await client.session.create(NODE, {"metadata": {"name": "n1"}})
    assert names(await client.get(NODE.path(), fieldSelector="spec.unschedulable=false")) == ["n1"]


async def test_exact_revisions_and_those_yet_to_come(client: Client) -> None:
    first = await client.put("a")
    await client.put("b")
    path = CONFIG_MAP.path("default")
    then = await client.get(path, resourceVersion=first, resourceVersionMatch="Exact")
    assert (names(then), then["metadata"]["resourceVersion"]) == (["a"], first)
    assert names(await client.get(path, resourceVersion=first, resourceVersionMatch="NotOlderThan")) == ["a", "b"]
    assert names(await client.get(path, resourceVersion="0")) == ["a", "b"]
    with pytest.raises(Timeout, match="Too large resource version: 999"):
        await client.session.raw("GET", path, query={"resourceVersion": "999"})
    with pytest.raises(BadRequest, match="must be a whole number"):
        await client.session.raw("GET", path, query={"resourceVersion": "abc"})
    with pytest.raises(BadRequest, match="continue key is not valid"):
        await client.session.raw("GET", path, query={"continue": "nonsense"})


# ── forms ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_table_has_a_row_an_object_and_the_lists_continue(client: Client) -> None:
    await client.put("a")
    await client.put("b")
    table = await client.get(CONFIG_MAP.path("default"), TABLE, limit="1")
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [row["cells"][0] for row in table["rows"]] == ["a"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert table["metadata"]["continue"]
    one = await client.get(CONFIG_MAP.path("default", "a"), TABLE, includeObject="Object")
    assert one["rows"][0]["object"]["kind"] == "ConfigMap"


async def test_metadata_alone(client: Client) -> None:
    await client.put("a", labels={"x": "y"})
    one = await client.get(CONFIG_MAP.path("default", "a"), PARTIAL)
    assert (one["kind"], one["metadata"]["labels"]) == ("PartialObjectMetadata", {"x": "y"})
    many = await client.get(CONFIG_MAP.path("default"), PARTIAL.replace("Metadata;", "MetadataList;"))
    assert (many["kind"], names(many)) == ("PartialObjectMetadataList", ["a"])


async def test_a_form_nobody_can_give_is_not_acceptable(client: Client) -> None:
    response = await client.send(CONFIG_MAP.path("default"), "application/xml")
    assert response.status == NotAcceptable.code
    response = await client.send(CONFIG_MAP.path("default"), "application/vnd.kubernetes.protobuf, */*")
    assert response.status == 200


# ── watches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_watch_goes_on_from_a_list(client: Client) -> None:
    since = await client.put("a")
    await client.put("b")
    await client.put("a", labels={"x": "y"})
    await client.session.delete(CONFIG_MAP, "default", "b")
    lines = await client.watch(CONFIG_MAP, 3, resourceVersion=since, namespace="default")
    assert summary(lines) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
    revisions = [int(line["object"]["metadata"]["resourceVersion"]) for line in lines]
    assert revisions == list(range(int(since) + 1, int(since) + 4))


async def test_a_watch_from_nowhere_starts_with_what_is_there(client: Client) -> None:
    await client.put("a")
    await client.put("b")
    for query in ({}, {"resourceVersion": "0"}):
        assert summary(await client.watch(CONFIG_MAP, 2, **query)) == [("ADDED", "a"), ("ADDED", "b")]


async def test_a_watch_list_marks_the_end_of_what_is_there(client: Client) -> None:
    """KEP-3157: without that mark client-go waits for ever."""
    await client.put("a")
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    added, mark = await client.watch(CONFIG_MAP, 2, **query)
    assert summary([added, mark]) == [("ADDED", "a"), ("BOOKMARK", "")]
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert mark["object"]["kind"] == "ConfigMap"
    assert int(mark["object"]["metadata"]["resourceVersion"]) == await client.store.revision()
    with pytest.raises(Invalid, match="sendInitialEvents requires"):
        await client.session.raw("GET", CONFIG_MAP.path(), query={"watch": "1", "sendInitialEvents": "true"})


async def test_bookmarks_come_when_nothing_else_does(client: Client) -> None:
    since = await client.put("a")
    other = await client.session.create(
        SERVICE, {"metadata": {"name": "s", "namespace": "default"}, "spec": {"ports": [{"port": 1}]}}
    )
    (mark,) = await client.watch(CONFIG_MAP, 1, resourceVersion=since, allowWatchBookmarks="true")
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["resourceVersion"] == other["metadata"]["resourceVersion"]


async def test_a_selection_adds_and_deletes_as_objects_come_and_go(client: Client) -> None:
    since = await client.put("a")
    await client.put("a", labels={"in": "1"})
    await client.put("a", labels={"in": "2"})
    await client.put("a")
    await client.put("a", labels={"out": "1"})
    await client.put("a", labels={"in": "3"})
    await client.session.delete(CONFIG_MAP, "default", "a")
    lines = await client.watch(CONFIG_MAP, 5, resourceVersion=since, labelSelector="in")
    assert [line["type"] for line in lines] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    assert lines[2]["object"]["metadata"]["resourceVersion"] == str(int(since) + 3)


async def test_a_watch_ends_in_order_after_its_timeout(client: Client) -> None:
    response = await client.send(CONFIG_MAP.path(), watch="true", timeoutSeconds="1", resourceVersion="1")
    assert response.stream is not None
    async with asyncio.timeout(DEADLINE):
        assert [line async for line in response.stream] == []


async def test_a_watch_of_tables(client: Client) -> None:
    since = await client.put("a")
    await client.put("b")
    (line,) = await client.watch(CONFIG_MAP, 1, TABLE, resourceVersion=since)
    assert (line["type"], line["object"]["kind"]) == ("ADDED", "Table")
    assert [row["cells"][0] for row in line["object"]["rows"]] == ["b"]


async def test_an_event_is_encoded_once_for_all_who_watch(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many watch, with a selector or without; once more for each other form and for each other version."""
    encoded: list[tuple[str, str]] = []
    make = encode.line

    def counted(state: State, kind: Kind, form: Representation, type: str, item: Versioned) -> bytes:
        encoded.append((item.key, form.form))
        return make(state, kind, form, type, item)

    monkeypatch.setattr(encode, "line", counted)
    since = await client.put("a")
    queries = [{}] * 40 + [{"labelSelector": "!x"}] * 10 + [{"fieldSelector": "metadata.name=b"}] * 10
    watching = [
        (await client.send(path, accept=accept, watch="true", resourceVersion=since, **query)).stream
        for accept in ("application/json", TABLE)
        for path in (CONFIG_MAP.path(), CONFIG_MAP.path("default"))
        for query in queries
    ]
    await client.put("b")
    lines = [await anext(stream) for stream in watching if stream is not None]
    assert len(lines) == 240
    assert sorted(encoded) == [("core/configmaps/default/b", "object"), ("core/configmaps/default/b", "table")]
    assert len({id(line) for line in lines}) == 2, "and the very same bytes are sent to all"


async def test_an_informer_follows(client: Client) -> None:
    """The informer every room uses sees what is there, what changes, and what goes."""
    await client.put("a")
    informer = Informer(client.session, CONFIG_MAP, ConfigMap, namespace="default")
    seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    informer.on_change(lambda old, new: seen.put_nowait((old.name if old else "", new.name if new else "")))
    following = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(DEADLINE):
            assert await seen.get() == ("", "a")
            await client.put("b")
            assert await seen.get() == ("", "b")
            await client.put("a", labels={"x": "y"})
            assert await seen.get() == ("a", "a")
            await client.session.delete(CONFIG_MAP, "default", "b")
            assert await seen.get() == ("b", "")
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
