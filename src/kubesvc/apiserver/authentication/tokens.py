"""ServiceAccount tokens of one server: signing them, and saying whose one is.

A token is verified once and remembered by its hash; that its ServiceAccount and what else it is bound to are still
there is looked up at every request, in the store's memory: two look-ups while neither has changed. So the token of a
pod that is gone is refused at once.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from kubesvc.api.meta import JSON, parse_time
from kubesvc.api.registry import NODE, POD, SECRET, SERVICE_ACCOUNT
from kubesvc.apiserver import stored
from kubesvc.apiserver.authentication import claims, jwt
from kubesvc.apiserver.authentication.claims import LEEWAY, Bound, Claims, Reference
from kubesvc.apiserver.authentication.keys import SigningKey
from kubesvc.apiserver.lines import Lines
from kubesvc.client.transport import User
from kubesvc.store.protocol import Store

_REMEMBERED = 8192  # tokens


class Refused(Exception):
    """Why a token isn't good, in upstream's words: for the server's log and for who may review tokens."""


class _Verified(msgspec.Struct):
    """A token whose signature is good. `passed`: key of an object it needs -> the revision that was as it should be."""

    claims: Claims
    user: User
    passed: dict[str, int]


class Tokens:
    """`issuer` is also the audience of tokens for the API itself."""

    def __init__(self, key: SigningKey, issuer: str, store: Store, lines: Lines, clock: Callable[[], datetime]) -> None:
        self.key = key
        self.issuer = issuer
        self._store, self._lines, self._clock = store, lines, clock
        self._verified: dict[bytes, _Verified] = {}  # hash of a token -> what it says

    def issue(self, content: Bound, *, audiences: Sequence[str], id: str, now: int, seconds: int) -> str:
        """A token that is good from `now` (Unix time) for `seconds`; no audience: the API's own."""
        wanted = tuple(audiences) or (self.issuer,)
        said = claims.bound(content, issuer=self.issuer, audiences=wanted, id=id, now=now, seconds=seconds)
        return jwt.write(self.key, said)

    def issue_legacy(self, namespace: str, secret: str, account: Reference) -> str:
        return jwt.write(self.key, claims.legacy(namespace, secret, account))

    async def verify(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, tuple[str, ...]]:
        """Whose the token is, and which of `audiences` (none: the API's own) it is for. Raises Refused."""
        known = self._known(token)
        said, now = known.claims, self._clock().timestamp()
        if said.expires is not None and now > said.expires + LEEWAY:
            raise Refused("service account token has expired")
        if said.not_before is not None and now < said.not_before - LEEWAY:
            raise Refused("service account token is not valid yet")
        wanted = tuple(audiences) or (self.issuer,)
        # Legacy ones are from before audiences: for the API alone.
        common = tuple(a for a in wanted if a in (said.audiences if not said.legacy else (self.issuer,)))
        if not common:
            raise Refused(
                f"token audiences {list(said.audiences)!r} is invalid for the target audiences {list(wanted)!r}"
            )
        await self._still_bound(known, token, now)
        return known.user, common

    def _known(self, token: str) -> _Verified:
        """Raises Refused."""
        hashed = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(hashed)
        if known is None:
            found = jwt.read(self.key, token)
            said = claims.parse(found, self.issuer) if found is not None else None
            if said is None:
                raise Refused("it isn't a token of this cluster")
            known = self._verified[hashed] = _Verified(said, said.user(), {})
            if len(self._verified) > _REMEMBERED:
                del self._verified[next(iter(self._verified))]
        return known

    async def _still_bound(self, known: _Verified, token: str, now: float) -> None:
        """Raises Refused where something the token is bound to has gone, or another has its name."""
        bound, namespace = known.claims.bound, known.claims.bound.namespace
        account = bound.serviceaccount
        needed = [(SERVICE_ACCOUNT, namespace, account)]
        if bound.pod is not None:
            needed.append((POD, namespace, bound.pod))
        elif bound.secret is not None:
            needed.append((SECRET, namespace, bound.secret))
        elif bound.node is not None:
            needed.append((NODE, "", bound.node))
        for kind, where, reference in needed:
            key = stored.key(kind, where, reference.name)
            item = await self._store.get(key)
            if item is None:
                raise Refused(f"{kind.kind} {reference.name} is gone: service account token has been invalidated")
            if known.passed.get(key) == item.revision:
                continue
            tree = self._lines.tree(item.key, item.value, item.revision)
            metadata = tree["metadata"]
            if reference.uid and metadata["uid"] != reference.uid:
                why = f"The {kind.kind} UID ({metadata['uid']}) does not match the claim ({reference.uid})"
                raise Refused(f"service account token has been invalidated: {why}")
            if kind is SECRET and known.claims.legacy and not _holds(tree, token):
                raise Refused("service account token has been invalidated: the Secret holds another")
            if going := metadata.get("deletionTimestamp"):
                if parse_time(going).timestamp() + LEEWAY < now:
                    raise Refused(f"service account token has been invalidated: {kind.kind} {reference.name} is going")
            else:
                known.passed[key] = item.revision


def _holds(secret: JSON, token: str) -> bool:
    data = secret.get("data") or {}
    return (
        secret.get("type") == "kubernetes.io/service-account-token"
        and data.get("token") == base64.b64encode(token.encode()).decode()
    )
