"""Takes away token Secrets whose ServiceAccount is gone. A Secret may come before our copy of its account: a missing
one is asked for before its Secret is deleted."""

from __future__ import annotations

import asyncio

from kubesvc.api.errors import Conflict, NotFound
from kubesvc.api.meta import Object
from kubesvc.api.registry import SECRET, SERVICE_ACCOUNT
from kubesvc.client.informer import Informer
from kubesvc.client.queue import WorkQueue
from kubesvc.controllers.context import Context
from kubesvc.controllers.tokensecret.plan import TYPE, UID, Plan, account_name, plan


class TokenSecretController:
    def __init__(self, context: Context) -> None:
        self._session = context.session
        self.queue: WorkQueue[tuple[str, str]] = WorkQueue("tokensecret")
        # An informer of their own: the shared one keeps no annotations, and most Secrets are none of these.
        self._secrets: Informer[Object] = Informer(context.session, SECRET, Object, fields=f"type={TYPE}")
        self._secrets.on_change(self._secret_changed)
        accounts = context.caches.for_kind(SERVICE_ACCOUNT)
        assert accounts is not None
        accounts.on_change(self._account_changed)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._secrets.run(), name="informer of token secrets")
            await self._secrets.synced.wait()
            group.create_task(self.queue.run(self.reconcile))

    def _secret_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self.queue.add(new.key)

    def _account_changed(self, old: Object | None, new: Object | None) -> None:
        if old is None:  # those that wait for it asked the server
            return
        for secret in self._secrets.items.values():
            if (secret.namespace, account_name(secret)) == old.key:
                self.queue.add(secret.key)

    async def reconcile(self, key: tuple[str, str]) -> None:
        secret = self._secrets.get(*key)
        if secret is None or secret.metadata.deletion_timestamp is not None:
            return
        account = await self._account(secret)
        decided, meta = plan(secret, account), secret.metadata
        try:
            if decided is Plan.DELETE:
                await self._session.delete(SECRET, *key, uid=meta.uid, resource_version=meta.resource_version)
            elif decided is Plan.FILL and account is not None:
                filled = {"resourceVersion": meta.resource_version, "annotations": {UID: account.metadata.uid}}
                await self._session.patch(SECRET, *key, {"metadata": filled})
        except (NotFound, Conflict):
            return  # gone, or changed: its event comes by

    async def _account(self, secret: Object) -> Object | None:
        """As the server has it now: a Secret isn't deleted on hearsay."""
        name = account_name(secret)
        try:
            return await self._session.read(SERVICE_ACCOUNT, Object, secret.namespace, name) if name else None
        except NotFound:
            return None
