"""An API server in a process of its own, that can be killed: TLS on an inherited socket, SQLite, controllers.

`python -m support.serving DIRECTORY DESCRIPTOR [controllers]` is the process; `Served` is its parent's side. The
listening socket belongs to the parent, as in a box it belongs to the supervisor: callers wait while the server is away.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import uvloop

from kubesvc.apiserver.server import ApiServer, relax_collection
from kubesvc.client import kubeconfig
from kubesvc.client.session import Session
from kubesvc.client.transport import LocalTransport, User
from kubesvc.controllers import main as controllers
from kubesvc.controllers.config import ControllersConfig
from kubesvc.store.sqlite import SqliteStore
from support.apiserver import ServerThread, config

READY = b"ready\n"
STORE = "store.db"


class Served:
    """The server over the store in `directory`: started and killed as often as wanted."""

    def __init__(self, directory: Path, *, with_controllers: bool = False) -> None:
        self._files = ServerThread(directory)  # for its certificates and its socket alone: it is never started
        self._files.loop.close()
        self.kubeconfig = self._files.kubeconfig
        self.store = directory / STORE
        self._words = ["controllers"] if with_controllers else []
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def session(self) -> Session:
        return kubeconfig.load(self.kubeconfig)

    async def start(self) -> None:
        """Returns once the server is ready."""
        listening: socket.socket = self._files._socket
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "support.serving", str(self._directory), str(listening.fileno()), *self._words,
            stdout=subprocess.PIPE, pass_fds=[listening.fileno()],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line = await self._process.stdout.readline()
        assert line == READY, "the server didn't start"

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.wait()

    async def close(self) -> None:
        if self._process is not None:
            await self.kill()
        self._files._socket.close()


async def serve(directory: Path, descriptor: int, with_controllers: bool) -> None:
    listening = socket.socket(fileno=descriptor)
    listening.setblocking(False)
    server = ApiServer(SqliteStore(directory / STORE), config(directory, port=listening.getsockname()[1]))
    await server.start()
    relax_collection()
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve([listening]))
        if with_controllers:
            session = Session(LocalTransport(server.handler, User("system:controllers", ("system:masters",))))
            settings = ControllersConfig(pod_cidrs=(ip_network("10.244.0.0/16"),), ca_pem="PEM")
            group.create_task(controllers.run(session, settings))
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1]), int(sys.argv[2]), "controllers" in sys.argv[3:]))
