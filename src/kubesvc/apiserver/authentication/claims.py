"""What a ServiceAccount's token says, in upstream's words. Pure.

    bound    aud exp iat iss jti nbf sub
             kubernetes.io{namespace serviceaccount{name uid} pod|secret|node{name uid} warnafter}
    legacy   iss sub  kubernetes.io/serviceaccount/{namespace secret.name service-account.name service-account.uid}

Source: pkg/serviceaccount/claims.go, legacy.go, util.go.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.client.transport import User

LEGACY_ISSUER = "kubernetes/serviceaccount"
_LEGACY = "kubernetes.io/serviceaccount/"
_GROUP = "system:serviceaccounts"
_EXTRA = "authentication.kubernetes.io/"
LEEWAY = 60.0
"""Seconds that clocks may differ: a token is good for so long beyond its times, as upstream."""


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One object; no uid: whichever has the name."""

    name: str
    uid: str = ""


class Bound(msgspec.Struct, frozen=True, omit_defaults=True):
    """The claim kubernetes.io."""

    namespace: str
    serviceaccount: Reference
    pod: Reference | None = None
    secret: Reference | None = None
    node: Reference | None = None
    warnafter: int | None = None


class Claims(msgspec.Struct, frozen=True):
    """What a token says; a legacy one has no audience, no times and no id, but the Secret that holds it."""

    bound: Bound
    audiences: tuple[str, ...] = ()
    id: str = ""
    expires: float | None = None
    not_before: float | None = None
    legacy: bool = False

    def user(self) -> User:
        """Who asks with it. A uid in a token that is bound to a pod is the pod's ServiceAccount's."""
        namespace, account = self.bound.namespace, self.bound.serviceaccount
        extra: list[tuple[str, tuple[str, ...]]] = []
        if self.id:
            extra.append((f"{_EXTRA}credential-id", (f"JTI={self.id}",)))
        for what, found in (("node", self.bound.node), ("pod", self.bound.pod)):
            if found is not None:
                extra.append((f"{_EXTRA}{what}-name", (found.name,)))
                extra += [(f"{_EXTRA}{what}-uid", (found.uid,))] if found.uid else []
        name = f"system:serviceaccount:{namespace}:{account.name}"
        return User(name, (_GROUP, f"{_GROUP}:{namespace}"), account.uid, tuple(extra))


def bound(content: Bound, *, issuer: str, audiences: Sequence[str], id: str, now: int, seconds: int) -> JSON:
    """The claims of a token that is good from `now` (Unix time) for `seconds`."""
    return {
        "aud": list(audiences),
        "exp": now + seconds,
        "iat": now,
        "iss": issuer,
        "jti": id,
        "kubernetes.io": msgspec.to_builtins(content),
        "nbf": now,
        "sub": f"system:serviceaccount:{content.namespace}:{content.serviceaccount.name}",
    }


def legacy(namespace: str, secret: str, account: Reference) -> JSON:
    """The claims of a token in a Secret: good as long as that and the account are there."""
    return {
        "iss": LEGACY_ISSUER,
        f"{_LEGACY}namespace": namespace,
        f"{_LEGACY}secret.name": secret,
        f"{_LEGACY}service-account.name": account.name,
        f"{_LEGACY}service-account.uid": account.uid,
        "sub": f"system:serviceaccount:{namespace}:{account.name}",
    }


def parse(claims: JSON, issuer: str) -> Claims | None:
    """None for what isn't a ServiceAccount's, or of another issuer."""
    try:
        found = _parse_legacy(claims) if claims.get("iss") == LEGACY_ISSUER else _parse_bound(claims, issuer)
    except (msgspec.ValidationError, KeyError, TypeError):
        return None
    if found is None:
        return None
    expected = f"system:serviceaccount:{found.bound.namespace}:{found.bound.serviceaccount.name}"
    return found if claims.get("sub") == expected else None


def _parse_bound(claims: JSON, issuer: str) -> Claims | None:
    if claims.get("iss") != issuer:
        return None
    said = claims["aud"]
    audiences = msgspec.convert([said] if isinstance(said, str) else said, tuple[str, ...])
    content = msgspec.convert(claims["kubernetes.io"], Bound)
    times = msgspec.convert((claims["exp"], claims["nbf"]), tuple[float, float])
    return Claims(content, audiences, str(claims.get("jti") or ""), *times)


def _parse_legacy(claims: JSON) -> Claims:
    words = msgspec.convert(
        [
            claims[_LEGACY + name]
            for name in ("namespace", "secret.name", "service-account.name", "service-account.uid")
        ],
        tuple[str, str, str, str],
    )
    namespace, secret, name, uid = words
    return Claims(Bound(namespace, Reference(name, uid), secret=Reference(secret)), legacy=True)
