"""YAML that strangers send, read by libyaml.

Its parser keeps a stack of its own, but what makes nodes of events is recursive C, which deep input would bring down:
so events are looked at first. libyaml is also what Kubernetes' own reader descends from.
"""

from __future__ import annotations

from typing import Any

import yaml

_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may be built without libyaml

LARGEST = 1 << 18  # bytes: reading it takes thirty times as long as JSON
DEEPEST = 256  # collections within collections


class _Loader(_Safe):  # type: ignore[misc]
    """YAML without timestamps: a time stays the text it is in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def may_be_json(body: bytes) -> bool:
    return body[:64].lstrip()[:1] == b"{"


def load(body: bytes) -> Any:
    """Its one document as Python's own types. Raises YAMLError, also for aliases, a few of which make a giant."""
    depth = 0
    for event in yaml.parse(body, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases aren't accepted here: write out what they stand for, or send JSON")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise yaml.YAMLError(f"nested deeper than {DEEPEST}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return yaml.load(body, Loader=_Loader)


def compose(body: bytes) -> yaml.Node | None:
    """The nodes of a body that `load` has read, with their lines."""
    return yaml.compose(body, Loader=_Loader)
