"""Asking again and again: one task for each probe of a running container. What the answers mean is probes.py's to say,
how it is asked checks.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kubesvc.api.pods import Container, Probe
from kubesvc.node import checks, probes
from kubesvc.node.checks import Execute
from kubesvc.node.probes import Progress, Result, Role

Report = Callable[[Progress, int | None], None]
"""A verdict, and the grace period in seconds that the probe itself gives."""
Complain = Callable[[Role, str], None]


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
                self._report(after, probe.termination_grace_period_seconds)
            progress = after
            if progress.role is Role.STARTUP and progress.passing:
                return
            await asyncio.sleep(probes.delay(progress, probe))

    async def _check(self, probe: Probe) -> Result:
        timeout = float(probe.timeout_seconds)
        if probe.exec is not None:
            return await checks.check_exec(self._execute, probe.exec.command, timeout)
        try:
            if probe.http_get is not None:
                port = probes.port_number(probe.http_get.port, self._container.ports)
                return await checks.check_http(probe.http_get, probe.http_get.host or self.address, port, timeout)
            if probe.tcp_socket is not None:
                port = probes.port_number(probe.tcp_socket.port, self._container.ports)
                return await checks.check_tcp(probe.tcp_socket.host or self.address, port, timeout)
            if probe.grpc is not None:
                return await checks.check_grpc(probe.grpc, self.address, timeout)
        except ValueError as error:
            return Result(False, str(error))
        return Result(False, "missing probe handler")
