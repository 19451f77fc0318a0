"""Beside the server: follows the definitions, gives each its status, and has one that is being deleted emptied."""

from __future__ import annotations

import asyncio
import logging

from kubesvc.api.errors import ApiError, Conflict, NotFound
from kubesvc.api.meta import JSON
from kubesvc.api.registry import CLUSTER_ROLE
from kubesvc.api.registry import CUSTOM_RESOURCE_DEFINITION as DEFINITION
from kubesvc.apiserver import stored
from kubesvc.apiserver.access.roles import CUSTOM_KINDS, GARBAGE
from kubesvc.apiserver.custom import cleanup, naming
from kubesvc.apiserver.state import State
from kubesvc.client.session import Session
from kubesvc.store.protocol import Compacted

log = logging.getLogger(__name__)
_PREFIX = stored.collection(DEFINITION)


class Following:
    def __init__(self, state: State, session: Session) -> None:
        self._state, self._kinds, self._session = state, state.kinds, session
        self._granted: list[JSON] = []  # the rules that our controllers have
        self._cleaning: dict[str, asyncio.Task[None]] = {}  # key -> the task that empties it

    async def load(self) -> int:
        """Read the definitions there are; returns the revision to follow from."""
        page = await self._state.store.list(_PREFIX)
        self._kinds.replace({item.key: stored.tree_of(item) for item in page.items})
        return page.revision

    async def run(self, since: int) -> None:
        """Follow the definitions after revision `since`, until cancelled."""
        try:
            for key in list(self._kinds.definitions):
                await self._reconcile(key)
            await self._grant()
            while True:
                try:
                    await self._follow(since)
                except Compacted:
                    since = await self.load()
        finally:
            for task in self._cleaning.values():
                task.cancel()
            await asyncio.gather(*self._cleaning.values(), return_exceptions=True)

    async def _grant(self) -> None:
        """Let our own controllers collect and empty what is defined now, and read its scale: nothing else."""
        plurals = {(kind.group, kind.plural): None for kind in self._kinds.served}
        verbs = [*GARBAGE.split(), "patch"]
        rules = [{"verbs": verbs, "apiGroups": [group], "resources": [plural]} for group, plural in plurals]
        rules += [{"verbs": ["get"], "apiGroups": [g], "resources": [f"{p}/scale"]} for g, p in plurals]
        if rules == self._granted:
            return
        try:
            await self._session.patch(CLUSTER_ROLE, "", CUSTOM_KINDS, {"rules": rules})
            self._granted = rules
        except ApiError as error:
            log.error("clusterrole %s can't be written: %s", CUSTOM_KINDS, error)

    async def _follow(self, since: int) -> None:
        async for event in self._state.store.watch(_PREFIX, since):
            if isinstance(event, int):
                continue
            gone = event.value is None
            self._kinds.put(event.key, None if event.value is None else stored.decode(event.value, event.revision))
            # A name that is free again may be what another waits for.
            for key in list(self._kinds.definitions) if gone else [event.key]:
                await self._reconcile(key)
            await self._grant()

    async def _reconcile(self, key: str) -> None:
        tree = self._kinds.definitions.get(key)
        if tree is None:
            return
        name = tree["metadata"]["name"]
        if tree["metadata"].get("deletionTimestamp"):
            if key not in self._cleaning:
                task = asyncio.create_task(cleanup.run(self._state, self._session, tree), name=f"cleanup of {name}")
                self._cleaning[key] = task
                task.add_done_callback(lambda _: self._cleaning.pop(key, None))
            return
        wanted = naming.status(tree, self._kinds.definitions.values(), self._state.clock())
        if wanted == tree.get("status"):
            return
        try:
            patch = {"metadata": {"resourceVersion": tree["metadata"]["resourceVersion"]}, "status": wanted}
            made = await self._session.patch(DEFINITION, "", name, patch, subresource="status")
        except (Conflict, NotFound):
            return  # changed since: its event comes
        except ApiError as error:
            log.error("definition %s: its status can't be written: %s", name, error)
            return
        self._kinds.put(key, made)
