"""Health and metrics over HTTP, for a probe, a Prometheus or a `curl`, under Kubernetes' names and under CoreDNS's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

REQUEST_SECONDS = 5.0


class HealthServer:
    """Answers on `listening` until `stop`; `unready` (why it isn't, or "") and `metrics` are asked at each request."""

    def __init__(self, listening: socket.socket, unready: Callable[[], str], metrics: Callable[[], str]) -> None:
        self._listening = listening
        self._unready = unready
        self._metrics = metrics
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=self._listening.dup())

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    def answer(self, path: str) -> tuple[int, str]:
        """(HTTP status, body) for `path`."""
        match path:
            case "/livez" | "/healthz" | "/health":
                return 200, "ok\n"
            case "/readyz" | "/ready":
                why = self._unready()
                return (503, f"{why}\n") if why else (200, "ok\n")
            case "/metrics":
                return 200, self._metrics()
            case _:
                return 404, "not found: /livez, /readyz, /health, /ready, /metrics\n"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                words = request.split(b"\r\n")[0].split()
                path = words[1].decode("ascii", "replace").partition("?")[0] if len(words) == 3 else ""
                status, body = self.answer(path)
                head = f"HTTP/1.1 {status} -\r\ncontent-type: text/plain; version=0.0.4\r\n"
                head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
                writer.write((head + body).encode())
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
