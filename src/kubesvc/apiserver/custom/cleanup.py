"""Emptying a definition that is being deleted: its objects go, each with its own finalizers, then it goes itself."""

from __future__ import annotations

import asyncio
import logging

from kubesvc.api.errors import ApiError, Conflict, NotFound
from kubesvc.api.meta import JSON
from kubesvc.api.registry import CUSTOM_RESOURCE_DEFINITION as DEFINITION
from kubesvc.apiserver import stored
from kubesvc.apiserver.body import DeleteOptions
from kubesvc.apiserver.custom.definition import CLEANUP, kinds, with_condition
from kubesvc.apiserver.custom.kind import CustomKind
from kubesvc.apiserver.delete import remove
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.client.session import Session
from kubesvc.store.protocol import Compacted, StoreError

log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0


async def run(state: State, session: Session, tree: JSON) -> None:
    """Until the definition is let go of. Never raises but for cancellation: what fails is tried again."""
    kind = next(k for k in kinds(tree, unserved=True) if k.version == k.storage)
    name, uid = tree["metadata"]["name"], tree["metadata"]["uid"]
    message = "CustomResource deletion is in progress"
    while True:
        try:
            await _say(state, session, name, uid, "InstanceDeletionInProgress", message)
            await _empty(state, kind)
            await _say(state, session, name, uid, "InstanceDeletionCompleted", "removed all instances", let_go=True)
        except NotFound:
            return
        except (ApiError, StoreError) as error:
            if not isinstance(error, Conflict):
                log.warning("definition %s: its objects can't be removed yet: %s", name, error)
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


async def _empty(state: State, kind: CustomKind) -> None:
    """Ask every object to go, and wait until all have."""
    prefix = stored.collection(kind)
    while True:
        page = await state.store.list(prefix)
        for item in page.items:
            namespace, name = stored.name_of(item.key)
            try:
                await remove(state, Target(kind, namespace, name), DeleteOptions())
            except NotFound:
                continue
        page = await state.store.list(prefix)
        if not page.items:
            return
        try:
            async for event in state.store.watch(prefix, page.revision):
                if not isinstance(event, int) and event.value is None:
                    break
        except Compacted:
            continue


async def _say(
    state: State, session: Session, name: str, uid: str, reason: str, message: str, *, let_go: bool = False
) -> None:
    now = await session.get(DEFINITION, "", name)
    if now["metadata"]["uid"] != uid:
        raise NotFound(f"{name} is another one now")
    status = with_condition(now.get("status") or {}, "Terminating", not let_go, reason, message, state.clock())
    version = {"resourceVersion": now["metadata"]["resourceVersion"]}
    if status != now.get("status"):
        now = await session.patch(DEFINITION, "", name, {"metadata": version, "status": status}, subresource="status")
    if let_go:
        finalizers = [f for f in now["metadata"].get("finalizers") or () if f != CLEANUP]
        version = {"resourceVersion": now["metadata"]["resourceVersion"]}
        await session.patch(DEFINITION, "", name, {"metadata": {**version, "finalizers": finalizers or None}})
