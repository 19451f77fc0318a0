"""A node's agent for tests: it serves logs and exec as nodes do, and runs nothing.

`exec` answers what it was asked: the command on stdout, "done" on stderr; with stdin it sends back what it gets until
the client closes it. A command `exit N` ends with that code. `logs` is what the container has written.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255
BEGINS = 0.2
"""Seconds until a command prints, as one in a container takes some. Older kubectls lose what comes before they have
made their streams: https://github.com/kubernetes/kubernetes/issues/131189."""


class Agent:
    """`asked` is each request's path and query; `more` lets a followed log go on."""

    def __init__(self) -> None:
        self.port = 0
        self.logs = [b"one\n", b"two\n"]
        self.more = asyncio.Event()
        self.asked: list[str] = []

    async def answer_logs(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await answer.prepare(request)
        for line in self.logs:
            await answer.write(line)
        if request.query.get("follow") == "true":
            await self.more.wait()
            await answer.write(b"three\n")
        await answer.write_eof()
        return answer

    async def answer_exec(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        command = request.query.getall("command")
        if command == ["refuse"]:
            raise web.HTTPBadRequest(text="the agent refuses this")
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
        await socket.prepare(request)
        await asyncio.sleep(BEGINS)
        if request.query.get("stdin") == "true":
            await _echo(socket)
        else:
            await socket.send_bytes(bytes([STDOUT]) + " ".join(command).encode() + b"\n")
            await socket.send_bytes(bytes([STDERR]) + b"done\n")
        code = int(command[1]) if command[0] == "exit" else 0
        await socket.send_bytes(bytes([ERROR]) + json.dumps(_status(code)).encode())
        await socket.close()
        return socket


async def _echo(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY:
            return
        channel, data = message.data[0], message.data[1:]
        if channel == CLOSE and data == bytes([STDIN]):
            return
        if channel == STDIN and data:
            await socket.send_bytes(bytes([STDOUT]) + data)


def _status(code: int) -> dict[str, object]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


@asynccontextmanager
async def agent(directory: Path) -> AsyncIterator[Agent]:
    """An agent on 127.0.0.1 with the certificates node.crt and ca.crt of `directory`; callers need one of that CA."""
    found = Agent()
    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", found.answer_logs)
    app.router.add_get("/exec/{namespace}/{pod}/{container}", found.answer_exec)
    app.router.add_post("/exec/{namespace}/{pod}/{container}", found.answer_exec)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "node.crt", directory / "node.key")
    tls.load_verify_locations(directory / "ca.crt")
    tls.verify_mode = ssl.CERT_REQUIRED
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    found.port = runner.addresses[0][1]
    try:
        yield found
    finally:
        await runner.cleanup()
