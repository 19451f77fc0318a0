"""The handler, and what is written down of each request around it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import yaml

from kubesvc.api.errors import ApiError
from kubesvc.api.meta import JSON, format_micro_time
from kubesvc.apiserver import body, health
from kubesvc.apiserver.access import attributes
from kubesvc.apiserver.access.asking import asking
from kubesvc.apiserver.audit import event
from kubesvc.apiserver.audit.file import AuditFile
from kubesvc.apiserver.audit.notes import notes
from kubesvc.apiserver.audit.policy import LEVELS, PLAIN, Level, Policy, PolicyError, Rule, parse
from kubesvc.apiserver.routing import Target
from kubesvc.client.transport import Handler, Request, Response

_ID = "audit-id"
_WRITES = ("create", "update", "patch", "delete", "deletecollection")


def read_policy(path: Path) -> Policy:
    """Raises PolicyError, which names the file."""
    try:
        return parse(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PolicyError(f"audit policy {path} can't be read: {error}") from error
    except PolicyError as error:
        raise PolicyError(f"audit policy {path}: {error}") from error


def open_audit(log: Path, policy: Path | None) -> Auditor:
    """Raises AuditError."""
    try:
        return Auditor(AuditFile(log), read_policy(policy) if policy is not None else PLAIN)
    except PolicyError as error:
        raise AuditError(str(error)) from error
    except OSError as error:
        raise AuditError(f"audit log {log} can't be written: {error.strerror}; give another --audit-log") from error


class AuditError(Exception):
    """The audit log can't be written, or its policy can't be read."""


class Auditor:
    def __init__(self, file: AuditFile, policy: Policy = PLAIN) -> None:
        self._file, self._policy = file, policy

    def close(self) -> None:
        self._file.close()

    async def around(self, handle: Handler, request: Request, target: Target | None) -> Response:
        """`handle`'s answer, written down, with the header Audit-ID."""
        wanted = attributes.of(request, target)
        user = request.user
        if user is not None:
            name, groups = user.name, attributes.groups_of(user)
        else:
            name, groups = "system:anonymous", ("system:unauthenticated",)
        audit_id = _given(request) or str(uuid.uuid4())
        rule = self._policy.rule(name, groups, wanted)
        if rule is None or LEVELS[rule.level] is Level.NONE:
            response = await handle(request)
            response.headers["Audit-ID"] = audit_id
            return response
        now = format_micro_time(datetime.now(UTC))
        found = event.received(request, target, wanted, audit_id, rule.level, now)
        if user is None and health.is_open(request.path):
            found["user"] = event.ANONYMOUS
        self._write(rule, found, "RequestReceived")
        if LEVELS[rule.level] >= Level.REQUEST and (tree := _sent(request, wanted.verb)) is not None:
            found["requestObject"] = self._cut(rule, tree)
        noted: dict[str, str] = {}
        token, asked = notes.set(noted), asking.set(user)
        try:
            response = await handle(request)
            impersonated = asking.get()
        finally:
            notes.reset(token)
            asking.reset(asked)
        if impersonated is not None and impersonated != user:
            found["impersonatedUser"] = event.who(impersonated)
        if noted:
            found["annotations"] = noted
        found["responseStatus"] = event.status(response)
        response.headers["Audit-ID"] = audit_id
        if response.stream is not None:
            self._write(rule, found, "ResponseStarted")
            response.stream = self._until_the_end(rule, found, response.stream)
            return response
        if LEVELS[rule.level] >= Level.RESPONSE:
            tree = event.decoded(response.body, response.content_type)
            if tree is not None:
                found["responseObject"] = self._cut(rule, tree)
        self._write(rule, found, "ResponseComplete")
        return response

    async def _until_the_end(self, rule: Rule, found: JSON, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        try:
            async for chunk in stream:
                yield chunk
        finally:
            self._write(rule, found, "ResponseComplete")
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    def _cut(self, rule: Rule, tree: Any) -> Any:
        omit = rule.omit_managed_fields
        omit = self._policy.omit_managed_fields if omit is None else omit
        return event.without_managed_fields(tree) if omit else tree

    def _write(self, rule: Rule, found: JSON, stage: str) -> None:
        if stage in rule.omit_stages or stage in self._policy.omit_stages:
            return
        now = found["stageTimestamp"] if stage == "RequestReceived" else format_micro_time(datetime.now(UTC))
        self._file.write(msgspec.json.encode(found | {"stage": stage, "stageTimestamp": now}) + b"\n")


def _given(request: Request) -> str:
    """The id that whoever called us knows the request by, as upstream takes it over."""
    text = request.headers.get(_ID, "")
    return text if len(text) <= 64 and text.isascii() and text.isprintable() else ""


def _sent(request: Request, verb: str) -> Any:
    if verb not in _WRITES or not request.body:
        return None
    if verb == "patch":
        media = request.headers.get("content-type", "")
        if "yaml" not in media:
            return event.decoded(request.body, media)
    try:
        return body.parse(request)
    except (ApiError, RecursionError):
        return None
