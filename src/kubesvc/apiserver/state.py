"""What all verbs share: the store, the cluster's ranges, a clock and a chooser, and the caches of encoded events."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from random import Random
from typing import Protocol

from kubesvc.api.errors import not_found
from kubesvc.api.meta import format_time
from kubesvc.api.registry import stored as stored_kinds
from kubesvc.apiserver import stored
from kubesvc.apiserver.access.asking import asking
from kubesvc.apiserver.access.attributes import groups_of
from kubesvc.apiserver.access.rbac import Rbac
from kubesvc.apiserver.admission import Cluster, Context
from kubesvc.apiserver.authentication.keys import SigningKey
from kubesvc.apiserver.authentication.tokens import Tokens
from kubesvc.apiserver.custom.kinds import Kinds
from kubesvc.apiserver.custom.openapi import Documents
from kubesvc.apiserver.hints import Hints
from kubesvc.apiserver.lines import Lines
from kubesvc.apiserver.metrics import Metrics
from kubesvc.apiserver.nodes import Nodes
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.storecheck import StoreCheck
from kubesvc.apiserver.webhooks.register import Register
from kubesvc.client.transport import Handler, Request, Response
from kubesvc.store.protocol import Store, Versioned

Clock = Callable[[], datetime]


class Auditor(Protocol):
    """What writes down who did what."""

    def around(self, handle: Handler, request: Request, target: Target | None) -> Awaitable[Response]: ...


def utc_now() -> datetime:
    return datetime.now(UTC)


class State:
    """`signing` is the key of ServiceAccount tokens; None: one that nobody else has and that ends with this server."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        nodes: Nodes,
        *,
        clock: Clock = utc_now,
        random: Random | None = None,
        signing: SigningKey | None = None,
    ) -> None:
        self.store = store
        self.cluster = cluster
        self.nodes = nodes
        self.clock = clock
        self.random = random or Random()
        self.hints = Hints(store)
        self.kinds = Kinds()
        self.documents = Documents()
        self.webhooks = Register()
        self.rbac = Rbac()
        self.tried = StoreCheck(store)
        self.lines = Lines()
        issuer = f"https://kubernetes.default.svc.{cluster.dns_domain}"
        self.tokens = Tokens(signing or SigningKey.generate(), issuer, store, self.lines, clock)
        self.keys_url = ""  # where others find the public half of that key
        self.ca_pem = ""  # of the authority that vouches for this server; "": it isn't known
        self.metrics = Metrics()
        self.auditor: Auditor | None = None
        self.ready = False  # bootstrap is done

    def context(self, subresource: str = "") -> Context:
        user = asking.get()
        who = (user.name, groups_of(user), user.uid, user.extra) if user is not None else ("", (), "", ())
        return Context(self.cluster, self.clock(), self.random.randrange, subresource, *who, time.thread_time)

    def new_uid(self) -> str:
        """A random UUID (RFC 9562, version 4), not secret: the system's randomness would give up the interpreter's lock
        for each."""
        bits = f"{self.random.getrandbits(128):032x}"
        return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-{'89ab'[int(bits[16], 16) & 3]}{bits[17:20]}-{bits[20:]}"

    def now(self) -> str:
        """The time as metadata has it."""
        return format_time(self.clock())

    async def count(self) -> dict[str, int]:
        """Resource -> how many objects of it there are."""
        found: dict[str, int] = {}
        for kind in (*stored_kinds(), *self.kinds.served):
            page = await self.store.list(stored.collection(kind), limit=1)
            found[kind.resource] = len(page.items) + page.remaining
        return found

    async def read(self, target: Target) -> Versioned:
        """The object as stored. Raises NotFound."""
        item = await self.store.get(stored.key(target.kind, target.namespace, target.name))
        if item is None:
            raise not_found(target.kind.resource, target.name)
        return item
