"""The rules of ConfigMap and Secret: their keys, their size, and that an immutable one stays as it is.

Source: pkg/apis/core/validation/validation.go, ValidateConfigMap and ValidateSecret.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from kubesvc.api import names, registry
from kubesvc.api.errors import Cause
from kubesvc.api.meta import JSON
from kubesvc.apiserver.admission import accounts
from kubesvc.apiserver.admission.causes import forbidden, invalid, required, too_long
from kubesvc.apiserver.admission.context import Context
from kubesvc.apiserver.admission.rules import Rules

LIMIT = 1024 * 1024
"""Bytes of all values together."""


def validate_config_map(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    data, binary = new.get("data") or {}, new.get("binaryData") or {}
    causes = [*_keys(data, "data"), *_keys(binary, "binaryData"), *_base64(binary, "binaryData")]
    causes += [invalid(f"data[{key}]", key, "duplicate of key present in binaryData") for key in data if key in binary]
    if (
        sum(len((v or "").encode()) for v in data.values()) + sum(len(v or "") * 3 // 4 for v in binary.values())
        > LIMIT
    ):
        causes.append(too_long("", LIMIT))
    return causes + list(_immutable(new, old, ("data", "binaryData")))


def default_secret(tree: JSON) -> None:
    """stringData is for writing only: it is folded into data."""
    if not tree.get("type"):
        tree["type"] = "Opaque"
    if plain := tree.get("stringData"):
        data = dict(tree.get("data") or {})
        for key, value in plain.items():
            data[key] = base64.b64encode((value or "").encode()).decode()
        tree["data"] = data
    tree.pop("stringData", None)  # last: of wrong types, it is still there to be complained about


def validate_secret(new: JSON, old: JSON | None, context: Context) -> list[Cause]:
    data = new.get("data") or {}
    causes = [*_keys(data, "data"), *_base64(data, "data")]
    if sum(len(v or "") * 3 // 4 for v in data.values()) > LIMIT:
        causes.append(too_long("data", LIMIT))
    if old is not None and new.get("type") != old.get("type"):
        causes.append(invalid("type", new.get("type"), "field is immutable"))
    if new.get("type") == accounts.SECRET_TYPE and not (new["metadata"].get("annotations") or {}).get(accounts.NAME):
        causes.append(required(f"metadata.annotations[{accounts.NAME}]"))
    return causes + list(_immutable(new, old, ("data",)))


def _keys(found: JSON, path: str) -> Iterator[Cause]:
    for key in found:
        yield from (invalid(f"{path}[{key}]", key, why) for why in names.config_key(key))


def _base64(found: JSON, path: str) -> Iterator[Cause]:
    for key, value in found.items():
        try:
            base64.b64decode(value or "", validate=True)
        except (binascii.Error, ValueError):
            yield invalid(f"{path}[{key}]", value, "must be base64")


def _immutable(new: JSON, old: JSON | None, fields: tuple[str, ...]) -> Iterator[Cause]:
    if old is None or not old.get("immutable"):
        return
    if not new.get("immutable"):
        yield forbidden("immutable", "field is immutable when `immutable` is set")
    for name in fields:
        if (new.get(name) or {}) != (old.get(name) or {}):
            yield forbidden(name, "field is immutable when `immutable` is set")


CONFIG_MAP = Rules(validate=validate_config_map)
SECRET = Rules(default=default_secret, validate=validate_secret)
ADMITS = (
    (registry.CONFIG_MAP, CONFIG_MAP),
    (registry.SECRET, SECRET),
)
