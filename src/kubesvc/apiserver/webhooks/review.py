"""AdmissionReview v1: the question to a webhook, and what its answer means."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from kubesvc.api.errors import ApiError
from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver.access.attributes import user_info
from kubesvc.apiserver.webhooks.configuration import Webhook
from kubesvc.apiserver.webhooks.matching import Change
from kubesvc.client.transport import User

_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


class Unreadable(Exception):
    """An answer that is none."""


class Denied(ApiError):
    """What a webhook refused, with the code and reason it gave; 400 and none otherwise."""

    def __init__(self, message: str, code: int, reason: str) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]
        self.reason = reason  # type: ignore[misc]


class Answer(msgspec.Struct, frozen=True):
    """`patch` is a JSON patch, empty for none."""

    allowed: bool
    patch: bytes = b""
    warnings: tuple[str, ...] = ()
    status: JSON = {}


def question(change: Change, shown: Kind, user: User, uid: str) -> JSON:
    """The whole AdmissionReview; the resource, and objects that are its own, are shown in the version of `shown`."""
    kind, subject = change.kind, change.subject
    shown_subject = shown if subject is kind else subject
    request: JSON = {
        "uid": uid,
        "kind": _kind(shown_subject),
        "resource": _resource(shown),
        "requestKind": _kind(subject),
        "requestResource": _resource(kind),
        "name": change.name,
        "operation": change.operation,
        "userInfo": user_info(user),
        "object": _in_version(change.new, shown_subject),
        "oldObject": _in_version(change.old, shown_subject),
        "dryRun": change.dry_run,
        "options": _options(change),
    }
    if change.subresource:
        request |= {"subResource": change.subresource, "requestSubResource": change.subresource}
    if change.namespace:
        request["namespace"] = change.namespace
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def _kind(kind: Kind) -> JSON:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _resource(kind: Kind) -> JSON:
    return {"group": kind.group, "version": kind.version, "resource": kind.plural}


def _options(change: Change) -> JSON | None:
    kind = _OPTIONS.get(change.operation)
    if kind is None:
        return None
    options: JSON = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    return options | {"dryRun": ["All"]} if change.dry_run else options


def _in_version(tree: JSON | None, kind: Kind) -> JSON | None:
    return None if tree is None else {**tree, "apiVersion": kind.api_version, "kind": kind.kind}


def read(body: bytes, uid: str, *, mutating: bool) -> Answer:
    """Raises Unreadable."""
    try:
        tree: Any = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise Unreadable(f"the answer is no JSON: {error}") from error
    response = tree.get("response") if isinstance(tree, dict) else None
    if not isinstance(response, dict):
        raise Unreadable("webhook response was absent")
    if tree.get("apiVersion") != "admission.k8s.io/v1" or tree.get("kind") != "AdmissionReview":
        wanted = "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview"
        raise Unreadable(f"{wanted}, got {tree.get('apiVersion')}, Kind={tree.get('kind')}")
    if response.get("uid") != uid:
        raise Unreadable(f'expected response.uid="{uid}", got "{response.get("uid")}"')
    patch, kind = response.get("patch"), response.get("patchType")
    if (patch or kind) and not mutating:
        raise Unreadable("validating webhooks must not return a patch")
    if patch and kind != "JSONPatch":
        raise Unreadable(f'expected response.patchType of JSONPatch, got "{kind}"')
    try:
        decoded = base64.b64decode(patch or "", validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise Unreadable(f"response.patch is no base64: {error}") from error
    status, warnings = response.get("status"), response.get("warnings")
    return Answer(
        response.get("allowed") is True,
        decoded,
        tuple(str(text) for text in warnings) if isinstance(warnings, list) else (),
        status if isinstance(status, dict) else {},
    )


def denial(webhook: Webhook, answer: Answer) -> Denied:
    message = str(answer.status.get("message") or "")
    said = f'admission webhook "{webhook.name}" denied the request'
    reason = str(answer.status.get("reason") or "")
    code = answer.status.get("code")
    text = f"{said}: {message or reason}" if message or reason else f"{said} without explanation"
    return Denied(text, code if isinstance(code, int) and 400 <= code < 600 else 400, reason)
