"""An API server in a thread with two nodes, the controllers and a stand-in agent beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

from msgspec.structs import replace

from kubesvc.controllers.config import ControllersConfig
from kubesvc.controllers.main import run
from support.agents import Agent, add_node
from support.apiserver import ServerThread, tls_server
from support.watching import running

# Nobody renews these nodes' Leases.
CONFIG = ControllersConfig(pod_cidrs=(ip_network("10.244.0.0/16"),), ca_pem="PEM", node_grace=3600.0)


@contextmanager
def controlled_server(directory: Path) -> Iterator[ServerThread]:
    with tls_server(directory) as thread:
        session = thread.session()
        for name in ("n1", "n2"):
            thread.run(add_node(session, name))

        async def live() -> None:
            async with running(run(session, replace(CONFIG, signer=directory)), Agent(session).run()):
                await asyncio.Event().wait()

        async def start() -> asyncio.Task[None]:
            return asyncio.create_task(live())

        async def end(task: asyncio.Task[None]) -> None:
            """The server is closed only when nobody asks it any more."""
            task.cancel()
            await asyncio.wait([task])

        alive = thread.run(start())
        yield thread
        assert not alive.done(), alive.exception()
        thread.run(end(alive))
