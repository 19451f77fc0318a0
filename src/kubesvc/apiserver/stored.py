"""The stored form of an object: its key, and JSON bytes in which apiVersion, kind and metadata come first.

That order is what lets a reader add the resourceVersion by cutting the bytes at a known place, so that a get, a list
and a watch of whole objects never decode them:

    {"apiVersion":"v1","kind":"Service","metadata":{  "resourceVersion":"17",  "name":"web",…
    └──────────────── head(kind) ─────────────────┘  └────── added ───────┘
"""

from __future__ import annotations

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.api.registry import Kind
from kubesvc.apiserver import views
from kubesvc.store.protocol import Versioned

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_heads: dict[tuple[str, str], bytes] = {}  # (apiVersion, kind) -> the bytes before the metadata's first field

_NOT_STORED = frozenset(("resourceVersion", "selfLink"))
_FIRST = frozenset(("apiVersion", "kind", "metadata"))


def collection(kind: Kind, namespace: str = "") -> str:
    """The prefix of all keys of a kind, or of those in one namespace."""
    group, plural = kind.stored_as or (kind.group, kind.plural)
    root = f"{group or 'core'}/{plural}/"
    return f"{root}{namespace}/" if namespace else root


def key(kind: Kind, namespace: str, name: str) -> str:
    return f"{collection(kind)}{namespace or '-'}/{name}"


def name_of(key: str) -> tuple[str, str]:
    """(namespace, name) of a key; the namespace is "" for cluster-scoped kinds."""
    _, _, namespace, name = key.split("/", 3)
    return ("" if namespace == "-" else namespace), name


def head(kind: Kind) -> bytes:
    found = _heads.get((kind.api_version, kind.kind))
    if found is None:
        found = b'{"apiVersion":"%s","kind":"%s","metadata":{' % (kind.api_version.encode(), kind.kind.encode())
        _heads[kind.api_version, kind.kind] = found
    return found


def encode(kind: Kind, tree: JSON) -> bytes:
    """The bytes to store for `tree`."""
    api_version = kind.api_version
    if kind.stored_as is not None:
        kind, tree = views.stored_kind(kind), views.keep(kind, tree)
        api_version = tree["apiVersion"]
    whole = {
        "apiVersion": api_version,
        "kind": kind.kind,
        "metadata": {k: v for k, v in tree["metadata"].items() if k not in _NOT_STORED},
    }
    whole.update((k, v) for k, v in tree.items() if k not in _FIRST)
    return _encode(whole)


def stamped(kind: Kind, value: bytes, revision: int) -> bytes:
    """The stored bytes as clients see them: with the resourceVersion."""
    if kind.stored_as is not None:
        return _encode(views.show(kind, decode(value, revision)))
    start = head(kind)
    return b'%s"resourceVersion":"%d",%s' % (start, revision, value[len(start) :])


def decode(value: bytes, revision: int) -> JSON:
    """The stored bytes as a tree, with the resourceVersion."""
    tree: JSON = _decode(value)
    tree["metadata"]["resourceVersion"] = str(revision)
    return tree


def tree_of(item: Versioned, kind: Kind | None = None) -> JSON:
    """The object as a tree; in the shape of `kind`, where that is another than the stored one's."""
    tree = decode(item.value, item.revision)
    return tree if kind is None else views.show(kind, tree)


def copy(tree: JSON) -> JSON:
    """A deep copy of a JSON tree."""
    copied: JSON = _decode(_encode(tree))
    return copied
