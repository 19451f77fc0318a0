"""Reading what a request carries: objects in JSON, YAML or protobuf, delete options, the parameters of a write."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import yaml

from kubesvc.api.errors import BadRequest, Cause, TooLarge, UnsupportedMediaType, invalid
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver import duplicates, fields, protobuf, yamlbody
from kubesvc.apiserver.admission.causes import forbidden, not_supported, too_long
from kubesvc.apiserver.admission.causes import invalid as invalid_value
from kubesvc.apiserver.custom import structural
from kubesvc.apiserver.custom.kind import CustomKind
from kubesvc.apiserver.routing import Target
from kubesvc.client.transport import Request
from kubesvc.store.protocol import MAX_BYTES

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_POLICIES = ("Foreground", "Background", "Orphan")
_YAML = ("application/yaml", "application/x-yaml", "text/yaml", "application/apply-patch+yaml")


class WriteOptions(msgspec.Struct, frozen=True):
    """`field_validation` is Ignore, Warn or Strict."""

    dry_run: bool = False
    field_validation: str = "Warn"


_OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}
_VALIDATIONS = ("", "Ignore", "Strict", "Warn")
_LONGEST_MANAGER = 128


def write_options(request: Request) -> WriteOptions:
    """Raises Invalid for values nobody knows."""
    query, causes = request.query, []
    if (dry_run := query.get("dryRun", "")) not in ("", "All"):
        causes.append(not_supported("dryRun", [dry_run], ("All",)))
    if (validation := query.get("fieldValidation", "")) not in _VALIDATIONS:
        causes.append(not_supported("fieldValidation", validation, _VALIDATIONS))
    manager = query.get("fieldManager", "")
    if len(manager.encode()) > _LONGEST_MANAGER:
        causes.append(too_long("fieldManager", _LONGEST_MANAGER))
    if not manager.isprintable():
        causes.append(invalid_value("fieldManager", manager, "should only contain printable characters"))
    if request.method == "PATCH" and "force" in query and "apply" not in request.headers.get("content-type", ""):
        causes.append(forbidden("force", "may not be specified for non-apply patch"))
    refuse_options(_OPTIONS.get(request.method, "CreateOptions"), causes)
    return WriteOptions(dry_run == "All", validation or "Warn")


def refuse_options(kind: str, causes: Sequence[Cause]) -> None:
    """Raises Invalid where there are causes: `CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported …`."""
    if causes:
        raise invalid(kind, "", causes, "meta.k8s.io")


def parse(request: Request) -> JSON:
    """The body as a tree. Raises BadRequest or UnsupportedMediaType."""
    media = _media(request)
    if media == "application/json":
        try:
            tree: Any = _decode(request.body)
        except (msgspec.DecodeError, ValueError) as error:
            raise BadRequest(f"the object provided is unrecognized (must be of type {{JSON}}): {error}") from error
    elif media in _YAML:
        tree = _read_yaml(request.body)
    elif media == protobuf.MEDIA_TYPE:
        tree = protobuf.decode(request.body)
    else:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            f"application/json, application/yaml, {protobuf.MEDIA_TYPE} (found {media})"
        )
    if not isinstance(tree, dict):
        raise BadRequest("the request's body must be one object")
    return tree


def _read_yaml(text: bytes) -> Any:
    """JSON is YAML too, and what most clients send as such: kubectl's server-side apply does."""
    if yamlbody.may_be_json(text):
        with suppress(msgspec.DecodeError, ValueError):
            return _decode(text)
    if len(text) > yamlbody.LARGEST:
        raise TooLarge(f"Request entity too large: limit is {yamlbody.LARGEST} bytes of YAML; send it as JSON")
    try:
        return _decode(_encode(yamlbody.load(text)))  # to what JSON can say
    except (yaml.YAMLError, TypeError, ValueError, NotImplementedError) as error:
        raise BadRequest(f"error converting YAML to JSON: {error}") from error


def _media(request: Request) -> str:
    return request.headers.get("content-type", "application/json").partition(";")[0].strip()


def read_object(request: Request, target: Target) -> JSON:
    """The object a create or update carries, of the target's kind and in its namespace. Raises BadRequest."""
    tree = parse(request)
    check_shape(target.kind, tree)
    metadata = tree["metadata"]
    namespace = metadata.get("namespace") or ""
    if namespace and namespace != target.namespace:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
            if target.kind.namespaced
            else "namespace field should not be set for a cluster-scoped object"
        )
    if target.kind.namespaced:
        metadata["namespace"] = target.namespace
    else:
        metadata.pop("namespace", None)
    return tree


def check_shape(kind: Kind, tree: JSON) -> None:
    """That `tree` says it is of `kind` and has metadata, which may be left out and is then added."""
    found, api_version = tree.get("kind") or kind.kind, tree.get("apiVersion") or kind.api_version
    if api_version != kind.api_version:
        raise BadRequest(
            f"the API version in the data ({api_version}) does not match the expected API version ({kind.api_version})"
        )
    if found != kind.kind:
        raise BadRequest(f'{found} in version "{kind.version}" cannot be handled as a {kind.kind}')
    tree["kind"], tree["apiVersion"] = kind.kind, kind.api_version
    metadata = tree.get("metadata")
    if metadata is None:
        tree["metadata"] = {}
    elif not isinstance(metadata, dict):
        raise BadRequest(f'{kind.kind} in version "{kind.version}" cannot be handled: metadata must be an object')


def read_known(request: Request, target: Target, options: WriteOptions) -> tuple[JSON, list[str]]:
    """`read_object` without the fields that the schema doesn't know, and the warnings about them."""
    tree = read_object(request, target)
    remarks = check_fields(target.kind, tree, options, request)
    if len(request.body) > MAX_BYTES and (size := len(_encode(tree))) > MAX_BYTES:  # sooner than the store would say so
        raise TooLarge(f"Request entity too large: {size} bytes, of at most {MAX_BYTES} that can be stored")
    return tree, remarks


def check_fields(kind: Kind, tree: JSON, options: WriteOptions, request: Request) -> list[str]:
    """Take out of `tree`, in place, what the schema doesn't know. Returns warnings about that and about fields that the
    body has twice (the last one counts). Raises BadRequest for them where they are to be strict."""
    unknown = _drop_unknown(kind, tree)
    if options.field_validation == "Ignore":
        return []
    twice = _given_twice(request)
    if (unknown or twice) and options.field_validation == "Strict":
        if twice and twice[0].startswith("line "):
            twice = ["yaml: unmarshal errors:" + "".join(f"\n  {line}" for line in twice)]
            unknown, twice = twice, unknown
        raise BadRequest(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"strict decoding error: {', '.join(unknown + twice)}"
        )
    return unknown + twice


def _drop_unknown(kind: Kind, tree: JSON) -> list[str]:
    if not isinstance(kind, CustomKind):
        return fields.drop_unknown(kind, tree)
    unknown = fields.drop_unknown_in_metadata(tree)
    unknown += [f'unknown field "{path}"' for path in structural.unknown(kind.schema, tree)]
    structural.prune(kind.schema, tree, root=True)
    return unknown


def _given_twice(request: Request) -> list[str]:
    media = _media(request)
    if media in _YAML:
        return duplicates.in_yaml(request.body)
    return duplicates.in_json(request.body) if "json" in media else []


class Preconditions(msgspec.Struct, rename="camel", frozen=True):
    uid: str | None = None
    resource_version: str | None = None


class DeleteOptions(msgspec.Struct, rename="camel", frozen=True):
    """meta/v1 DeleteOptions."""

    grace_period_seconds: int | None = None
    propagation_policy: str | None = None
    orphan_dependents: bool | None = None
    preconditions: Preconditions = Preconditions()
    dry_run: list[str] = []


def delete_options(request: Request) -> DeleteOptions:
    """From the body or, where there is none, the query. Raises BadRequest, Invalid."""
    tree: JSON = {}
    if request.body.strip():
        tree = {key: value for key, value in parse(request).items() if value is not None}
    query = request.query
    for name in ("gracePeriodSeconds", "propagationPolicy", "orphanDependents"):
        if name in query:
            tree.setdefault(name, query[name])
    if "dryRun" in query:
        tree.setdefault("dryRun", [query["dryRun"]])
    return convert_delete_options(tree)


def convert_delete_options(tree: JSON) -> DeleteOptions:
    """Raises BadRequest for what isn't DeleteOptions, Invalid for values nobody knows."""
    try:
        options = msgspec.convert(tree, DeleteOptions, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"DeleteOptions can't be read: {error}") from error
    causes, policy = [], options.propagation_policy
    if policy is not None and options.orphan_dependents is not None:
        why = "orphanDependents and deletionPropagation cannot be both set"
        causes.append(invalid_value("propagationPolicy", policy, why))
    if policy not in (None, "", *_POLICIES):
        causes.append(not_supported("propagationPolicy", policy, (*_POLICIES, "nil")))
    if options.dry_run not in ([], ["All"]):
        causes.append(not_supported("dryRun", options.dry_run, ("All",)))
    refuse_options("DeleteOptions", causes)
    return options
