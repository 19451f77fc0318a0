"""Signed claims as text and back: JSON Web Tokens (RFC 7519) in compact form, of one algorithm and one key.

base64url(header) . base64url(claims) . base64url(signature of all before)
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.apiserver.authentication.keys import ALGORITHM, SigningKey, text

LONGEST = 1 << 14  # characters: ours have a tenth of that


def write(key: SigningKey, claims: JSON) -> str:
    header = msgspec.json.encode({"alg": ALGORITHM, "kid": key.id})
    signed = f"{text(header)}.{text(msgspec.json.encode(claims))}".encode()
    return f"{signed.decode()}.{text(key.sign(signed))}"


def read(key: SigningKey, token: str) -> JSON | None:
    """The claims, if `key` signed them; None for anything else. Whether they hold now is the caller's to see."""
    parts = token.split(".")
    if len(token) > LONGEST or len(parts) != 3 or not token.isascii():
        return None
    try:
        header = _object(parts[0])
        if header.get("alg") != ALGORITHM or header.get("kid") != key.id or "crit" in header:
            return None
        if not key.verify(f"{parts[0]}.{parts[1]}".encode(), _bytes(parts[2])):
            return None
        return _object(parts[1])
    except ValueError:  # of base64 and of JSON
        return None


def _object(part: str) -> JSON:
    found: Any = msgspec.json.decode(_bytes(part))
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _bytes(part: str) -> bytes:
    if not part.replace("-", "").replace("_", "").isalnum():
        raise ValueError("not base64url")
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error as error:
        raise ValueError("not base64url") from error
