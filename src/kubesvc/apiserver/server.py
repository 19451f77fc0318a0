"""An API server: a store and a configuration made into a handler, and the handler put behind TLS sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Sequence

from kubesvc.apiserver import bootstrap, stored
from kubesvc.apiserver.access import rbac
from kubesvc.apiserver.audit.auditor import Auditor, open_audit
from kubesvc.apiserver.authentication import bearer, oidc
from kubesvc.apiserver.authentication.keys import SigningKey
from kubesvc.apiserver.chain import chain
from kubesvc.apiserver.config import ApiConfig
from kubesvc.apiserver.custom.following import Following
from kubesvc.apiserver.listener import Listener
from kubesvc.apiserver.nodes import Nodes
from kubesvc.apiserver.state import State
from kubesvc.apiserver.webhooks import register
from kubesvc.apiserver.webhooks.calling import Caller
from kubesvc.client.session import Session
from kubesvc.client.transport import Handler, LocalTransport
from kubesvc.store.protocol import Store


def relax_collection() -> None:
    """For a process that is a server and has loaded its store: what is there now stays, and a request makes a thousand
    objects that are no garbage, so looking for cycles after each 700 new ones is a tenth of all work."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


class ApiServer:
    """`start` before anything else; `handler` is the whole chain, for a LocalTransport; `serve` for everybody else."""

    def __init__(self, store: Store, config: ApiConfig) -> None:
        self._config = config
        self._nodes = Nodes(config)
        signing = SigningKey.load(config.signing_key) if config.signing_key is not None else None
        self._state = State(store, config.cluster, self._nodes, signing=signing)
        self._state.keys_url = f"https://{config.advertise_address}:{config.advertise_port}{oidc.KEYS}"
        self._state.ca_pem = config.client_ca.read_text() if config.client_ca.exists() else ""
        self._state.webhooks.caller = Caller()
        self.handler: Handler = chain(self._state)
        self._listener = Listener(self.handler, lambda header: bearer.authenticate(self._state, header))
        self._tasks: list[asyncio.Task[None]] = []
        self._auditor: Auditor | None = None

    async def start(self) -> None:
        """Fill the caches and make the objects every cluster has. The store is the caller's to open and close. Raises
        AuditError where the audit log can't be written, or its policy read."""
        if self._config.audit_log is not None:
            self._auditor = self._state.auditor = open_audit(self._config.audit_log, self._config.audit_policy)
        since = await self._state.hints.load()
        self._tasks.append(asyncio.create_task(self._state.hints.run(since), name="apiserver-hints"))
        await self._load_rbac()
        await self._load_webhooks()
        await bootstrap.run(self.handler, self._config)
        await self._follow_kinds()
        self._state.ready = True

    async def _follow_kinds(self) -> None:
        following = Following(self._state, Session(LocalTransport(self.handler, bootstrap.SELF)))
        since = await following.load()
        self._tasks.append(asyncio.create_task(following.run(since), name="apiserver-custom-kinds"))

    async def _load_rbac(self) -> None:
        for kind in rbac.KINDS:
            for item in (await self._state.store.list(stored.collection(kind))).items:
                self._state.rbac.put(kind, *stored.name_of(item.key), stored.tree_of(item))

    async def _load_webhooks(self) -> None:
        for kind in register.KINDS:
            for item in (await self._state.store.list(stored.collection(kind))).items:
                self._state.webhooks.put(kind, stored.name_of(item.key)[1], stored.tree_of(item))

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Answer on these bound sockets, over TLS, until `close`."""
        await self._listener.start(sockets, self._config)

    def prepare(self) -> None:
        """Make now what the first kubectl would wait for: 0.1 s of somebody's patience."""
        self._state.documents.v2(self._state.kinds.served, self._state.kinds.generation, protobuf=True)

    async def close(self) -> None:
        """End every connection and watch."""
        await self._listener.close()
        await self._nodes.close()
        await self._state.webhooks.caller.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._auditor is not None:
            self._auditor.close()
