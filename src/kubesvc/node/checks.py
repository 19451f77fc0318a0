"""Asking a container how it is, once: over TCP, HTTP or gRPC, or by a command in it. Messages are the kubelet's.

HTTP is spoken by hand: one short request, the status line of the answer. A redirect counts as success, without being
followed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

from kubesvc.api.pods import GRPCAction, HTTPGetAction
from kubesvc.node import grpc
from kubesvc.node.probes import Result
from kubesvc.node.runtime import Finished, RuntimeFailure

USER_AGENT = "kube-probe/1.32"
MAX_OUTPUT = 1024  # bytes of an exec probe's output that an event repeats

Execute = Callable[[list[str], float], Awaitable[Finished]]


def _refused(address: str, port: int, error: OSError) -> str:
    reason = "connection refused" if isinstance(error, ConnectionRefusedError) else (error.strerror or str(error))
    return f"dial tcp {address}:{port}: connect: {reason.lower()}"


async def check_tcp(address: str, port: int, timeout: float) -> Result:
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return Result(False, f"dial tcp {address}:{port}: i/o timeout")
    except OSError as error:
        return Result(False, _refused(address, port, error))
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return Result(True)


def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # a pod's certificate is its own business, as upstream
    return context


async def check_http(action: HTTPGetAction, address: str, port: int, timeout: float) -> Result:
    """Success is a status from 200 to 399."""
    host = action.host or address
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    url = f"{action.scheme.lower()}://{host}:{port}{path}"
    headers = {"Host": f"{host}:{port}", "User-Agent": USER_AGENT, "Accept": "*/*", "Connection": "close"}
    for header in action.http_headers:
        headers[header.name.title()] = header.value
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    tls = _any_certificate() if action.scheme == "HTTPS" else None
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            writer.write("\r\n".join(lines).encode())
            status = await reader.readline()
    except TimeoutError:
        problem = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return Result(False, f'Get "{url}": {problem}')
    except (OSError, ValueError) as error:
        problem = _refused(host, port, error) if isinstance(error, OSError) else "malformed HTTP response"
        return Result(False, f'Get "{url}": {problem}')
    finally:
        if writer is not None:
            writer.close()
    words = status.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return Result(False, f'Get "{url}": EOF' if not status else f'Get "{url}": malformed HTTP response')
    code = int(words[1])
    return Result(200 <= code < 400, f"HTTP probe failed with statuscode: {code}")


async def check_exec(execute: Execute, command: list[str], timeout: float) -> Result:
    try:
        done = await execute(command, timeout)
    except TimeoutError:
        return Result(False, f'command timed out: "{" ".join(command)}" timed out after {timeout:g}s')
    except (RuntimeFailure, OSError) as error:
        return Result(False, str(error))
    return Result(done.code == 0, done.output.strip()[:MAX_OUTPUT])


async def check_grpc(action: GRPCAction, address: str, timeout: float) -> Result:
    """Success is SERVING."""
    where = f"{address}:{action.port}"
    try:
        async with asyncio.timeout(timeout):
            status = await grpc.ask(address, action.port, action.service or "", USER_AGENT)
    except TimeoutError:
        return Result(False, f'timeout: failed to connect service "{where}" within {timeout:g}s: deadline exceeded')
    except OSError as error:
        return Result(False, f'error: failed to connect service at "{where}": {_refused(address, action.port, error)}')
    except grpc.NoAnswer as error:
        return Result(False, f"error: health rpc probe failed: {error}")
    return Result(status == grpc.SERVING, f'service unhealthy (responded with "{grpc.STATUSES[status]}")')
