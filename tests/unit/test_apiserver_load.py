"""Under load and attack: fair queues, limits on what is read, clients that don't read or don't send."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from kubesvc.api.errors import TooManyRequests
from kubesvc.api.registry import CONFIG_MAP
from kubesvc.apiserver import listener, warnings
from kubesvc.apiserver.fairness import Seats
from kubesvc.client.session import Session
from kubesvc.client.transport import Request
from support.apiserver import ADMIN, local_server, tls_server

# ── fair queueing ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_quiet_client_is_served_next_however_many_a_noisy_one_has_waiting() -> None:
    seats, served = Seats(1), []

    async def ask(client: str) -> None:
        await seats.take(client)
        served.append(client)
        await asyncio.sleep(0)
        seats.give_back()

    noisy = [asyncio.create_task(ask("noisy")) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.create_task(ask("quiet"))
    assert served.index("quiet") <= 3
    await asyncio.gather(*noisy)
    assert served.count("noisy") == 100


async def test_who_waits_with_too_many_is_told_to_come_back() -> None:
    seats = Seats(1, longest=2)
    await seats.take("a")
    waiting = [asyncio.create_task(seats.take("a")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests) as error:
        await seats.take("a")
    assert error.value.retry_after == 1
    other = asyncio.create_task(seats.take("b"))
    for _ in range(3):
        seats.give_back()
    await asyncio.gather(*waiting, other)


async def test_who_gives_up_waiting_leaves_no_seat_behind() -> None:
    seats = Seats(1)
    await seats.take("a")
    waiting = asyncio.create_task(seats.take("a"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    seats.give_back()
    await asyncio.wait_for(seats.take("b"), 60)
    late = asyncio.create_task(seats.take("c"))
    await asyncio.sleep(0)
    seats.give_back()
    late.cancel()  # in the moment it was given the seat
    await asyncio.gather(late, return_exceptions=True)
    await asyncio.wait_for(seats.take("d"), 60)


# ── what is read ─────────────────────────────────────────────────────────────────────────────────────────────────────

DEEP = b"[" * 100_000
LAUGHS = b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
LARGE_AND_INVALID = msgspec.json.encode({"metadata": {"name": "m"}, "data": {"no key!": "x" * (1 << 20)}})
DOUBLING = msgspec.json.encode([{"op": "copy", "from": "/data", "path": f"/data/x{n}"} for n in range(60)])


@pytest.mark.parametrize(
    ("method", "media", "body", "status"),
    [
        pytest.param("POST", "application/json", DEEP, 400, id="deep JSON"),
        pytest.param("POST", "application/json", b'{"data":' + DEEP, 400, id="deep JSON in an object"),
        pytest.param("POST", "application/json", b'{"data":' + b"9" * 100_000 + b"}", 400, id="a long number"),
        pytest.param("POST", "application/json", b'{"metadata":{"name":"\xff"}}', 400, id="not UTF-8"),
        pytest.param("POST", "application/yaml", DEEP[:5000], 400, id="deep YAML"),
        pytest.param("POST", "application/yaml", b'{"metadata":{"name":"\\ud800"}}', 400, id="half a surrogate"),
        pytest.param("POST", "application/yaml", b"metadata: !!set {a, b}", 400, id="what JSON can't say"),
        pytest.param("POST", "application/yaml", LAUGHS, 400, id="YAML aliases"),
        pytest.param("POST", "application/yaml", b"a: " + b"x" * 300_000, 413, id="much YAML"),
        pytest.param("POST", "application/json", LARGE_AND_INVALID, 413, id="large, before it is found wrong"),
        pytest.param("PATCH", "application/json-patch+json", DOUBLING, 413, id="copies of copies"),
        pytest.param("PATCH", "application/json-patch+json", b"[" + b'{"op":"test","path":""},' * 10_001 + b"{}]", 413,
                     id="many operations"),
        pytest.param("PATCH", "application/merge-patch+json", b'{"a":' * 50_000, 400, id="a deep patch"),
    ],
)  # fmt: skip
async def test_what_is_too_much_is_refused(method: str, media: str, body: bytes, status: int) -> None:
    async with local_server() as server:
        made = await server.handler(
            Request("POST", "/api/v1/namespaces/default/configmaps", {}, {},
                    b'{"metadata":{"name":"m"},"data":{"a":"b"}}', ADMIN)
        )  # fmt: skip
        assert made.status == 201
        path = "/api/v1/namespaces/default/configmaps" + ("/m" if method == "PATCH" else "")
        response = await server.handler(Request(method, path, {}, {"content-type": media}, body, ADMIN))
    assert response.status == status, response.body


def test_of_very_many_warnings_no_more_are_kept_than_are_said() -> None:
    """Each is looked for among those that are kept: a body has room for a hundred thousand."""
    with warnings.Collecting() as texts:
        warnings.warn(f'unknown field "a{number}"' for number in range(1000))
        warnings.warn(['unknown field "a0"'])
    assert texts[0] == 'unknown field "a0"'
    assert len(texts) == len(set(texts)) < 1000


# ── clients on sockets ───────────────────────────────────────────────────────────────────────────────────────────────


def client(directory: Path) -> ssl.SSLContext:
    trust = ssl.create_default_context(cafile=directory / "ca.crt")
    trust.load_cert_chain(directory / "admin.crt", directory / "admin.key")
    return trust


async def test_a_body_that_comes_drop_by_drop_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_BODY_SECONDS", 0.2)
    with tls_server(tmp_path) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=client(tmp_path))
        writer.write(b"POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = await asyncio.wait_for(reader.readuntil(b'"code":408}'), 60)
        await end(writer)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"reason":"RequestTimeout"' in answer


async def test_a_watcher_that_does_not_read_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_PATIENCE", 0.2)
    with tls_server(tmp_path) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=client(tmp_path), limit=1024)
        writer.write(f"GET {CONFIG_MAP.path('default')}?watch=true HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")

        async def fill() -> None:
            """Until nobody watches any more: the client never reads what this makes."""
            session = server.session()
            for number in range(400):
                tree = {"metadata": {"name": f"m{number}", "namespace": "default"}, "data": {"a": "x" * 200_000}}
                await session.create(CONFIG_MAP, tree)
                if not watched((await session.raw("GET", "/metrics")).body):
                    return
            raise AssertionError("it is still watching")

        assert watched(await asyncio.to_thread(lambda: server.run(metrics(server.session()))))
        await asyncio.to_thread(lambda: server.run(fill()))
        await end(writer)


async def end(writer: asyncio.StreamWriter) -> None:
    """Without a goodbye, for which somebody might have to wait."""
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def metrics(session: Session) -> bytes:
    return (await session.raw("GET", "/metrics")).body


def watched(text: bytes) -> bool:
    """Whether the server counts a watch of config maps."""
    lines = [line for line in text.splitlines() if line.startswith(b"apiserver_longrunning_requests{")]
    return any(b'resource="configmaps"' in line and not line.endswith(b" 0") for line in lines)
