"""Lifecycle hooks: postStart and preStop, each a command, an HTTP request or a sleep."""

from __future__ import annotations

import asyncio

from kubesvc.api.pods import Container, LifecycleHandler
from kubesvc.node import checks, probes
from kubesvc.node.checks import Execute


async def run(hook: LifecycleHandler, container: Container, address: str, execute: Execute, timeout: float) -> str:
    """Carry a hook out; "" when it succeeded, else why not. `timeout` in seconds."""
    if hook.sleep is not None:
        await asyncio.sleep(min(hook.sleep.seconds, timeout))
        return ""
    if hook.exec is not None:
        result = await checks.check_exec(execute, hook.exec.command, timeout)
        return "" if result.success else (result.message or "the command failed")
    if hook.http_get is not None:
        try:
            port = probes.port_number(hook.http_get.port, container.ports)
        except ValueError as error:
            return str(error)
        result = await checks.check_http(hook.http_get, hook.http_get.host or address, port, timeout)
        return "" if result.success else result.message
    return ""
