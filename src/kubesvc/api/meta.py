"""Object metadata and the conversions every kind shares.

Typed structs are frozen, read-only views of JSON: unknown fields are dropped on decoding, so a struct is never written
back. Rooms write patches. Times stay RFC 3339 strings, as on the wire; `parse_time` turns one into an aware datetime.
Follows meta/v1 of the Kubernetes API.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

JSON = dict[str, Any]
"""A decoded JSON object of unknown shape: what passes through the API server untouched."""


class Struct(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True, gc=False):
    """Base of all typed views: frozen, camelCase on the wire, defaults left out when encoded. Decoded objects hold no
    cycles, so the cycle collector needn't look at them."""


class OwnerReference(Struct, frozen=True):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(Struct, frozen=True):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[OwnerReference] = []
    finalizers: list[str] = []


class Object(Struct, frozen=True):
    """What every stored kind has. A typed kind extends it with `spec`, `status` or its own fields."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The namespace, or "" for cluster-scoped kinds."""
        return self.metadata.namespace

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name): how caches and work queues name an object."""
        return (self.metadata.namespace, self.metadata.name)


class ListMeta(Struct, frozen=True):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")
    remaining_item_count: int | None = None


class Condition(Struct, frozen=True):
    type: str
    status: str  # "True" | "False" | "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_update_time: str | None = None  # Deployments alone
    last_heartbeat_time: str | None = None  # Nodes alone
    observed_generation: int | None = None


class LabelSelectorRequirement(Struct, frozen=True):
    key: str
    operator: str  # In | NotIn | Exists | DoesNotExist
    values: list[str] = []


class LabelSelector(Struct, frozen=True):
    match_labels: dict[str, str] = {}
    match_expressions: list[LabelSelectorRequirement] = []


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as metav1.Time is written."""
    return _second(int(moment.timestamp() // 1))


@lru_cache(maxsize=64)  # a busy second is written many times
def _second(since_epoch: int) -> str:
    return datetime.fromtimestamp(since_epoch, UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def format_micro_time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as metav1.MicroTime is written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """An aware datetime from RFC 3339 text. Raises ValueError when it is not one."""
    return datetime.fromisoformat(text)
