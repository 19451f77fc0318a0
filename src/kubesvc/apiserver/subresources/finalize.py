"""PUT of namespaces/NAME/finalize: the namespace controller takes its finalizer away, and the namespace is gone."""

from __future__ import annotations

from kubesvc.api.meta import JSON
from kubesvc.apiserver import body, encode, stored
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.update import modify
from kubesvc.client.transport import Request, Response


async def update(state: State, request: Request, target: Target) -> Response:
    """Only spec.finalizers is taken from what is sent."""
    wanted = body.read_object(request, target)
    finalizers = (wanted.get("spec") or {}).get("finalizers") or []

    def finalized(old: JSON) -> JSON:
        new = stored.copy(old)
        for field in ("resourceVersion", "uid"):
            if given := wanted["metadata"].get(field):
                new["metadata"][field] = given
        new.setdefault("spec", {})["finalizers"] = finalizers
        return new

    options = body.write_options(request)
    item = await modify(state, target, finalized, dry_run=options.dry_run, admitted=False)
    return encode.one(state, request, target.kind, item)
