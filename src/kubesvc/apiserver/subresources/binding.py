"""POST of pods/NAME/binding: the scheduler gives a pod its node, once and for all."""

from __future__ import annotations

from kubesvc.api.errors import BadRequest, conflict
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver import body, encode, fields, stored
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.update import modify
from kubesvc.apiserver.webhooks import asking
from kubesvc.apiserver.writers import writer_of
from kubesvc.client.transport import Request, Response

BINDING = Kind("", "v1", "Binding", "bindings", "binding", True)


async def create(state: State, request: Request, target: Target) -> Response:
    """201 and a Status. Raises Conflict when the pod has a node or is being deleted."""
    binding = body.parse(request)
    body.check_shape(BINDING, binding)
    fields.refuse_mistyped(BINDING, binding)
    options = body.write_options(request)
    await asking.submitted(state, target, BINDING, binding, dry_run=options.dry_run)
    wanted = binding.get("target") or {}
    node = wanted.get("name", "")
    if wanted.get("kind") not in (None, "", "Node") or not node:
        raise BadRequest("Binding: target must be a Node and have a name")
    uid = (binding.get("metadata") or {}).get("uid")

    def bound(old: JSON) -> JSON:
        spec, metadata = old["spec"], old["metadata"]
        if metadata.get("deletionTimestamp"):
            raise _conflict(target.name, f"pod {target.name} is being deleted, cannot be assigned to a host")
        if spec.get("nodeName"):
            why = f'pod {target.name} is already assigned to node "{spec["nodeName"]}"'
            raise _conflict(target.name, why)
        if spec.get("schedulingGates"):
            raise _conflict(target.name, f"pod {target.name} has non-empty .spec.schedulingGates")
        new = stored.copy(old)
        if uid:
            new["metadata"]["uid"] = uid
        new["spec"]["nodeName"] = node
        conditions = new.setdefault("status", {}).setdefault("conditions", [])
        kept = [condition for condition in conditions if condition.get("type") != "PodScheduled"]
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": state.now()}
        new["status"]["conditions"] = [*kept, scheduled]
        return new

    writer = writer_of(state, request, target)
    await modify(state, target, bound, writer=writer, dry_run=options.dry_run, admitted=False)
    return encode.success(status=201)


def _conflict(name: str, why: str) -> Exception:
    return conflict("pods/binding", name, why)
