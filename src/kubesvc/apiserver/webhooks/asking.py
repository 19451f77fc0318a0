"""What the verbs call before they act: the mutating webhooks, then, once the object is admitted, the validating ones.

What the server does by itself is nobody's request and is not asked about; nor are the configurations, so that a wrong
one can be taken back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from kubesvc.api.errors import ApiError, BadRequest, InternalError
from kubesvc.api.meta import JSON
from kubesvc.api.registry import NAMESPACE, Kind
from kubesvc.apiserver import admission, fields, patch, stored
from kubesvc.apiserver.access.asking import asking
from kubesvc.apiserver.custom import cel
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.warnings import warn
from kubesvc.apiserver.webhooks import matching, review
from kubesvc.apiserver.webhooks.calling import Unanswered
from kubesvc.apiserver.webhooks.configuration import Webhook
from kubesvc.apiserver.webhooks.matching import Change
from kubesvc.apiserver.webhooks.register import GROUP
from kubesvc.apiserver.webhooks.review import Answer, Unreadable
from kubesvc.client.transport import User

log = logging.getLogger(__name__)


def concerns(state: State, kind: Kind) -> bool:
    """Whether anybody may have to be asked: all that a write without webhooks pays."""
    return state.webhooks.any and kind.group != GROUP and asking.get() is not None


class View(msgspec.Struct, frozen=True):
    """A subresource that shows an object as another, as a Deployment as a Scale: that is what webhooks see."""

    subresource: str
    subject: Kind
    show: Callable[[JSON], JSON]
    take: Callable[[JSON, JSON], JSON]
    """(the object, what it was shown as and what has become of that) -> the object as it should be."""


async def mutate(
    state: State, target: Target, new: JSON, old: JSON | None, *, dry_run: bool, view: View | None = None
) -> None:
    """Let the mutating webhooks change `new`, in place. Raises what they, or failing them, refuse with."""
    if view is None:
        admission.default(target.kind, new)
    change = _change(target, new, old, dry_run, view)
    if not await _mutated(state, change) or view is None:
        return
    assert change.new is not None
    made = view.take(new, change.new)
    new.clear()
    new.update(made)


async def _mutated(state: State, change: Change) -> bool:
    """Whether any webhook has changed the object of `change`; each is asked in its turn."""
    hooks, new = state.webhooks.mutating, change.new
    last = stored.copy(new) if new is not None else None
    seen: dict[int, JSON | None] = {}  # index of a webhook -> the object as it left it
    for index, webhook in enumerate(hooks):
        await _one(state, webhook, change)
        seen[index] = stored.copy(new) if new is not None else None
    if new == last:
        return False
    for index, webhook in enumerate(hooks):
        if webhook.reinvocation_policy == "IfNeeded" and seen[index] != new:
            await _one(state, webhook, change)
    return True


async def _one(state: State, webhook: Webhook, change: Change) -> None:
    answer, new = await _ask(state, webhook, change, mutating=True), change.new
    if answer is None or not answer.patch or new is None:
        return
    try:
        made = patch.apply(change.subject, new, answer.patch, patch.JSON_PATCH)
    except ApiError as error:
        _failed(webhook, f"its patch can't be applied: {error.message}")
        return
    if metadata := new.get("metadata"):  # what a CONNECT asks for has none
        if not isinstance(made.get("metadata"), dict):
            _failed(webhook, "its patch leaves no metadata")
            return
        for field in ("name", "namespace", "uid"):
            if (metadata.get(field) or "") != (made["metadata"].get(field) or ""):
                _failed(webhook, f"its patch changes metadata.{field}")
                return
    new.clear()
    new.update(made)


async def validate(
    state: State, target: Target, new: JSON | None, old: JSON | None, *, dry_run: bool, view: View | None = None
) -> None:
    """Ask the validating webhooks, all at once. Raises the first refusal in their order."""
    await _validated(state, _change(target, new, old, dry_run, view))


async def _validated(state: State, change: Change) -> None:
    asked = (_ask(state, webhook, change, mutating=False) for webhook in state.webhooks.validating)
    for result in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def deleting(state: State, target: Target, old: JSON, *, dry_run: bool) -> None:
    """Ask all of them about a deletion, which can't be changed, only refused."""
    change = _change(target, None, old, dry_run)
    await _mutated(state, change)
    await _validated(state, change)


async def submitted(
    state: State, target: Target, subject: Kind, new: JSON, *, dry_run: bool = False, operation: str = "CREATE"
) -> None:
    """Ask all of them about an object of kind `subject` that isn't kept, such as an Eviction or, with operation
    CONNECT, PodExecOptions. `new` is changed in place. Raises what they, or failing them, refuse with."""
    if not concerns(state, target.kind):
        return
    change = Change(
        operation, target.kind, subject, target.namespace, target.name, target.subresource, new, None, dry_run
    )
    if await _mutated(state, change) and operation == "CREATE":
        fields.refuse_mistyped(subject, new)
    await _validated(state, change)


def _change(target: Target, new: JSON | None, old: JSON | None, dry_run: bool, view: View | None = None) -> Change:
    operation = "DELETE" if new is None else "CREATE" if old is None else "UPDATE"
    name = target.name or ((new or {}).get("metadata") or {}).get("name") or ""
    subject, subresource = target.kind, target.subresource
    if view is not None:
        subject, subresource = view.subject, view.subresource
        new, old = (view.show(tree) if tree is not None else None for tree in (new, old))
    return Change(operation, target.kind, subject, target.namespace, name, subresource, new, old, dry_run)


async def _ask(state: State, webhook: Webhook, change: Change, *, mutating: bool) -> Answer | None:
    """The answer, which allows it; None where the webhook isn't asked, or may be done without."""
    kind, user = change.kind, asking.get() or User("system:apiserver")
    shown = matching.kind_for(webhook, change, state.kinds.versions(kind))
    if shown is None or not matching.selected(webhook, change, await _namespace_labels(state, change)):
        return None
    uid = state.new_uid()
    asked = review.question(change, shown, user, uid)
    try:
        if not matching.conditions_hold(webhook, change, asked["request"]):
            return None
    except cel.CelError as error:
        _failed(webhook, f"its matchConditions can't be evaluated: {error}")
        return None
    if change.dry_run and webhook.side_effects not in ("None", "NoneOnDryRun"):
        raise BadRequest(f'admission webhook "{webhook.name}" does not support dry run')
    try:
        body = await state.webhooks.caller.call(state, webhook, msgspec.json.encode(asked))
        answer = review.read(body, uid, mutating=mutating)
    except (Unanswered, Unreadable) as error:
        _failed(webhook, str(error))
        return None
    warn(answer.warnings)
    if not answer.allowed:
        raise review.denial(webhook, answer)
    return answer


def _failed(webhook: Webhook, why: str) -> None:
    """Raises InternalError, as upstream, unless the webhook may be done without."""
    if webhook.failure_policy == "Ignore":
        log.warning("webhook %s of %s: %s; ignored", webhook.name, webhook.configuration, why)
        return
    message = f'failed calling webhook "{webhook.name}": failed to call webhook: Post "{webhook.address}": {why}'
    raise InternalError(f"Internal error occurred: {message}")


async def _namespace_labels(state: State, change: Change) -> dict[str, str]:
    if not change.namespace:
        return {}
    item = await state.store.get(stored.key(NAMESPACE, "", change.namespace))
    if item is None:
        return {}
    found: dict[str, str] = state.lines.tree(item.key, item.value, item.revision)["metadata"].get("labels") or {}
    return found
