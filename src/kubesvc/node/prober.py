"""Asking: one task for each probe of a running container. What the answers mean is probes.py's to say.

HTTP is spoken by hand: one short request, the status line of the answer. A redirect counts as success, without being
followed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

from kubesvc.api.core import Container, HTTPGetAction, LifecycleHandler, Probe
from kubesvc.node import probes
from kubesvc.node.probes import Progress, Result, Role
from kubesvc.node.runtime import Finished, RuntimeFailure

USER_AGENT = "kube-probe/1.32"
MAX_OUTPUT = 1024  # bytes of an exec probe's output that an event repeats

Execute = Callable[[list[str], float], Awaitable[Finished]]
Report = Callable[[Progress], None]
Complain = Callable[[Role, str], None]


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
    context = ssl.create_default_context()
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


class Prober:
    """The probes of one run of one container. `report` is told every change of a verdict, `complain` every failure
    that counts."""

    def __init__(
        self, container: Container, address: str, execute: Execute, report: Report, complain: Complain
    ) -> None:
        self._container = container
        self.address = address
        self._execute = execute
        self._report, self._complain = report, complain
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, started: bool, ready: bool, age: float = 0.0) -> None:
        """Begin to ask. `started` and `ready`: what is known of an adopted container, `age` seconds old."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._run(started, ready, age)))

    def stop(self, *, keep_readiness: bool = False) -> None:
        for task in self._tasks:
            if not (keep_readiness and task.get_name() == Role.READINESS.value):
                task.cancel()
        if not keep_readiness:
            self._tasks.clear()

    async def _run(self, started: bool, ready: bool, age: float) -> None:
        container = self._container
        if container.startup_probe and not started:
            await self._follow(container.startup_probe, probes.begin(Role.STARTUP), age)
        loop = asyncio.get_running_loop()
        for role, probe in ((Role.READINESS, container.readiness_probe), (Role.LIVENESS, container.liveness_probe)):
            if probe is None:
                continue
            known = ready if role is Role.READINESS and age else None
            progress = probes.begin(role, passing=known)
            self._tasks.append(loop.create_task(self._follow(probe, progress, age), name=role.value))

    async def _follow(self, probe: Probe, progress: Progress, age: float) -> None:
        """Ask until cancelled; a startup probe until it has passed."""
        await asyncio.sleep(max(0.0, probe.initial_delay_seconds - age))
        while True:
            result = await self._check(probe)
            early = probes.is_early(progress, probe)
            after = probes.observe(progress, probe, result)
            if not result.success and not early:
                self._complain(progress.role, result.message)
            if after.passing != progress.passing or probes.failed(after, probe):
                self._report(after)
            progress = after
            if progress.role is Role.STARTUP and progress.passing:
                return
            await asyncio.sleep(probes.delay(progress, probe))

    async def _check(self, probe: Probe) -> Result:
        timeout = float(probe.timeout_seconds)
        if probe.exec is not None:
            return await check_exec(self._execute, probe.exec.command, timeout)
        try:
            if probe.http_get is not None:
                port = probes.port_number(probe.http_get.port, self._container.ports)
                return await check_http(probe.http_get, probe.http_get.host or self.address, port, timeout)
            if probe.tcp_socket is not None:
                port = probes.port_number(probe.tcp_socket.port, self._container.ports)
                return await check_tcp(probe.tcp_socket.host or self.address, port, timeout)
        except ValueError as error:
            return Result(False, str(error))
        return Result(False, "the probe has no httpGet, tcpSocket or exec: other kinds are not supported")


async def run_hook(hook: LifecycleHandler, container: Container, address: str, execute: Execute, timeout: float) -> str:
    """A lifecycle hook; "" when it succeeded, else why not."""
    if hook.exec is not None:
        result = await check_exec(execute, hook.exec.command, timeout)
        return "" if result.success else (result.message or "the command failed")
    if hook.http_get is not None:
        try:
            port = probes.port_number(hook.http_get.port, container.ports)
        except ValueError as error:
            return str(error)
        result = await check_http(hook.http_get, address, port, timeout)
        return "" if result.success else result.message
    return ""
