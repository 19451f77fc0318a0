"""Pod templates: when two are the same, what one is called, and the pod made of one. Pure.

A fingerprint is ours (FNV-1a over canonical JSON), spelled in the alphabet that upstream uses for such names.
"""

from __future__ import annotations

import msgspec

from kubesvc.api.labels import POD_TEMPLATE_HASH
from kubesvc.api.meta import JSON, Object

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def canonical(template: JSON) -> bytes:
    """The template without its pod-template-hash label: equal bytes, equal templates."""
    meta = dict(template.get("metadata") or {})
    labels = {k: v for k, v in (meta.pop("labels", None) or {}).items() if k != POD_TEMPLATE_HASH}
    meta = {k: v for k, v in meta.items() if v is not None} | ({"labels": labels} if labels else {})
    return msgspec.json.encode({**template, "metadata": meta}, order="deterministic")


def fingerprint(template: JSON, collisions: int) -> str:
    """Up to ten letters. `collisions` counts names that were taken by another template."""
    text = canonical(template) + (str(collisions).encode() if collisions else b"")
    value = 0x811C9DC5
    for byte in text:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return "".join(ALPHABET[int(digit) % len(ALPHABET)] for digit in str(value))


def pod_tree(
    template: JSON, owner: Object, reference: JSON, *, name: str = "", labels: dict[str, str] | None = None
) -> JSON:
    """The next pod of `owner`: the template, with more `labels`, under `name` or one made of the owner's."""
    meta = template.get("metadata") or {}
    kept = {k: meta[k] for k in ("labels", "annotations", "finalizers") if meta.get(k)}
    if labels:
        kept["labels"] = kept.get("labels", {}) | labels
    called = {"name": name} if name else {"generateName": f"{owner.name}-"}
    owned: JSON = called | {"namespace": owner.namespace, "ownerReferences": [reference]}
    return {"metadata": kept | owned, "spec": template.get("spec") or {}}
