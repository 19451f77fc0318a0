"""API errors, as the server raises them and clients see them.

    ApiError                 a Status: reason, HTTP code, message, details
    ├── BadRequest 400       ├── Unauthorized 401      ├── Forbidden 403        ├── NotFound 404
    ├── MethodNotAllowed 405 ├── NotAcceptable 406     ├── AlreadyExists 409    ├── Conflict 409
    ├── RequestTimeout 408
    ├── Expired 410          ├── TooLarge 413          ├── UnsupportedMediaType 415
    ├── Invalid 422          ├── TooManyRequests 429   ├── InternalError 500
    ├── ServiceUnavailable 503                         └── Timeout 504

The reason is the class's name in most cases and the code a class attribute; messages match upstream's words, because
kubectl prints them and scripts match on them. Source: apimachinery pkg/api/errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from kubesvc.api.meta import JSON, Struct


class Cause(Struct, frozen=True):
    """One reason an object was refused: `field` is a path such as spec.ports[0].nodePort."""

    reason: str
    message: str
    field: str = ""


class ApiError(Exception):
    """A failure with a Status. `message` is what kubectl prints after "Error from server (Reason): "."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(self, message: str, *, details: JSON | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.retry_after = retry_after  # seconds

    def to_status(self) -> JSON:
        """The meta/v1 Status object that is the body of the answer."""
        status: JSON = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            status["details"] = self.details
        return status


class BadRequest(ApiError):
    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(ApiError):
    code, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    code, reason = 409, "Conflict"


class Expired(ApiError):
    """The revision asked for is gone: list again, then watch from the list's resourceVersion.

    `continue_token` is where a list in pages can go on, at a newer revision than it began with.
    """

    code, reason = 410, "Expired"

    def __init__(self, message: str, *, continue_token: str = "", **more: Any) -> None:
        super().__init__(message, **more)
        self.continue_token = continue_token

    def to_status(self) -> JSON:
        status = super().to_status()
        return status | {"metadata": {"continue": self.continue_token}} if self.continue_token else status


class TooLarge(ApiError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    code, reason = 422, "Invalid"


class TooManyRequests(ApiError):
    code, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    code, reason = 500, "InternalError"


class ServiceUnavailable(ApiError):
    code, reason = 503, "ServiceUnavailable"


class Timeout(ApiError):
    code, reason = 504, "Timeout"


class RequestTimeout(ApiError):
    """What the client wanted to send didn't come."""

    code, reason = 408, "RequestTimeout"


_BY_REASON: dict[str, type[ApiError]] = {c.reason: c for c in ApiError.__subclasses__()} | {"Gone": Expired}
_BY_CODE: dict[int, type[ApiError]] = {c.code: c for c in reversed(ApiError.__subclasses__())}


def from_status(status: dict[str, Any], code: int) -> ApiError:
    """The error a Status (or, where the body was none, the bare HTTP code) stands for."""
    kind = _BY_REASON.get(status.get("reason", "")) or _BY_CODE.get(code, ApiError)
    message = status.get("message") or f"the server answered HTTP {code}"
    details = status.get("details")
    return kind(message, details=details, retry_after=(details or {}).get("retryAfterSeconds"))


def not_found(resource: str, name: str) -> NotFound:
    """`services "x" not found`; `resource` is plural, with its group when it has one (deployments.apps)."""
    plural, _, group = resource.partition(".")
    details: JSON = {"name": name, "kind": plural} | ({"group": group} if group else {})
    return NotFound(f'{resource} "{name}" not found', details=details)


def already_exists(resource: str, name: str) -> AlreadyExists:
    plural, _, group = resource.partition(".")
    details: JSON = {"name": name, "kind": plural} | ({"group": group} if group else {})
    return AlreadyExists(f'{resource} "{name}" already exists', details=details)


def conflict(resource: str, name: str, why: str) -> Conflict:
    plural, _, group = resource.partition(".")
    details: JSON = {"name": name, "kind": plural} | ({"group": group} if group else {})
    return Conflict(f'Operation cannot be fulfilled on {resource} "{name}": {why}', details=details)


def invalid(kind: str, name: str, causes: Sequence[Cause], group: str = "") -> Invalid:
    """`Service "x" is invalid: spec.ports: Required value`, several causes in brackets as upstream joins them."""
    lines = [f"{c.field}: {c.message}" if c.field else c.message for c in causes]
    joined = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    shown = f"{kind}.{group}" if group else kind
    details: JSON = {
        "name": name,
        "kind": kind,
        "causes": [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes],
    }
    if group:
        details["group"] = group
    return Invalid(f'{shown} "{name}" is invalid: {joined}', details=details)
