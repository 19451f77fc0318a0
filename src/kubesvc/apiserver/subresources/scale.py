"""/scale: the number of replicas of an object as an autoscaling/v1 Scale, whatever kind the object is."""

from __future__ import annotations

from kubesvc.api.errors import BadRequest, Cause, invalid
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver import body, encode, fields, patch, stored
from kubesvc.apiserver.applying import APPLY_PATCH, applier, configuration
from kubesvc.apiserver.custom.kind import CustomKind, Scale
from kubesvc.apiserver.managed import scaling
from kubesvc.apiserver.printing.columns import at
from kubesvc.apiserver.routing import Target
from kubesvc.apiserver.state import State
from kubesvc.apiserver.update import Change, modify
from kubesvc.apiserver.warnings import warn
from kubesvc.apiserver.webhooks.asking import View
from kubesvc.apiserver.writers import writer_of
from kubesvc.client.transport import Request, Response

SCALE = Kind("autoscaling", "v1", "Scale", "scales", "scale", True)


async def get(state: State, request: Request, target: Target) -> Response:
    return encode.tree(_scale(target.kind, stored.tree_of(await state.read(target))))


async def update(state: State, request: Request, target: Target) -> Response:
    wanted = body.parse(request)
    body.check_shape(SCALE, wanted)
    return await _apply(state, request, target, lambda _: wanted)


async def patching(state: State, request: Request, target: Target) -> Response:
    media = request.headers.get("content-type", "").partition(";")[0].strip()
    if media == APPLY_PATCH:
        return await _applying(state, request, target)
    return await _apply(state, request, target, lambda now: patch.apply(SCALE, now, request.body, media))


async def _apply(state: State, request: Request, target: Target, change: Change) -> Response:
    """Set the replicas to what `change` makes of the present Scale."""

    def rescaled(old: JSON) -> JSON:
        return _rescaled(target, old, change(_scale(target.kind, old)))

    dry_run, writer = body.write_options(request).dry_run, writer_of(state, request, target)
    item = await modify(state, _whole(target), rescaled, writer=writer, dry_run=dry_run, view=_view(target))
    return encode.tree(_scale(target.kind, stored.tree_of(item)))


async def _applying(state: State, request: Request, target: Target) -> Response:
    """Server-side apply of a Scale. Whose the replicas are is told to the Scale and back, so that conflicts are those
    of the object."""
    options = body.write_options(request)
    config, warnings = configuration(request, Target(SCALE, target.namespace, target.name), options)
    change = applier(request, SCALE, config, writer_of(state, request, target))
    replicas = _places(target.kind).replicas

    def applied(old: JSON) -> JSON:
        given = old["metadata"].get("managedFields")
        scale = _scale(target.kind, old)
        scale["metadata"]["managedFields"] = scaling.of_scale(given, replicas)
        wanted = change(scale)
        new = _rescaled(target, old, wanted)
        owners = scaling.of_object(given, wanted["metadata"]["managedFields"], replicas, target.kind.api_version)
        new["metadata"]["managedFields"] = owners
        return new

    item = await modify(state, _whole(target), applied, dry_run=options.dry_run, view=_view(target))
    warn(warnings)
    return encode.tree(_scale(target.kind, stored.tree_of(item)))


def _view(target: Target) -> View:
    """What webhooks are shown."""
    return View(
        target.subresource,
        SCALE,
        lambda tree: _scale(target.kind, tree),
        lambda tree, scale: _rescaled(target, tree, scale),
    )


def _whole(target: Target) -> Target:
    return Target(target.kind, target.namespace, target.name)


def _rescaled(target: Target, old: JSON, wanted: JSON) -> JSON:
    """`old` with the replicas of the Scale `wanted`, and tied to its resourceVersion where it has one."""
    fields.refuse_mistyped(SCALE, wanted)
    new = stored.copy(old)
    *parents, last = _places(target.kind).replicas.split(".")
    inner = new
    for name in parents:
        inner = inner.setdefault(name, {})
        if not isinstance(inner, dict):
            raise BadRequest(f"{target.kind.kind} {target.name} has no place for replicas: {name} is no object")
    inner[last] = _replicas(target, wanted)
    if version := (wanted.get("metadata") or {}).get("resourceVersion"):
        new["metadata"]["resourceVersion"] = version
    return new


def _replicas(target: Target, scale: JSON) -> int:
    replicas: int = (scale.get("spec") or {}).get("replicas") or 0
    if replicas < 0:
        message = f"Invalid value: {replicas}: must be greater than or equal to 0"
        raise invalid("Scale", target.name, [Cause(reason="FieldValueInvalid", message=message, field="spec.replicas")])
    return replicas


_BUILT_IN = Scale("spec.replicas", "status.replicas")


def _places(kind: Kind) -> Scale:
    return kind.scale or _BUILT_IN if isinstance(kind, CustomKind) else _BUILT_IN


def _scale(kind: Kind, tree: JSON) -> JSON:
    metadata, places = tree["metadata"], _places(kind)
    replicas, ready = at(tree, *places.replicas.split(".")), at(tree, *places.status_replicas.split("."))
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    scale: JSON = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: metadata[field] for field in kept if field in metadata},
        "spec": {"replicas": replicas if replicas is not None else 0 if isinstance(kind, CustomKind) else 1},
        "status": {"replicas": ready or 0},
    }
    if isinstance(kind, CustomKind):
        selector = at(tree, *places.selector.split(".")) if places.selector else ""
    else:
        selector = _selector_text((tree.get("spec") or {}).get("selector") or {})
    if selector:
        scale["status"]["selector"] = selector
    return scale


def _selector_text(selector: JSON) -> str:
    """A LabelSelector, or the plain map of a ReplicationController, as a client would type it."""
    if selector and all(isinstance(value, str) for value in selector.values()):
        selector = {"matchLabels": selector}
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or []:
        key, values = expression.get("key", ""), ",".join(sorted(expression.get("values") or []))
        match expression.get("operator"):
            case "In":
                terms.append(f"{key} in ({values})")
            case "NotIn":
                terms.append(f"{key} notin ({values})")
            case "Exists":
                terms.append(key)
            case "DoesNotExist":
                terms.append(f"!{key}")
    return ",".join(sorted(terms))
