"""Bootstrap tokens: what a machine that isn't a node yet shows to ask for its first certificate.

    ID.SECRET ─► Secret kube-system/bootstrap-token-ID of type bootstrap.kubernetes.io/token ─► system:bootstrap:ID

For a chain of authenticators of bearer tokens: `authenticate` answers who it is, or None. Why a token isn't good is in
our log, never in the answer, and the token itself in neither. Follows plugin/pkg/auth/authenticator/token/bootstrap.
"""

from __future__ import annotations

import base64
import hmac
import logging
import re
from collections.abc import Callable
from datetime import datetime

from kubesvc.api.meta import JSON, parse_time
from kubesvc.api.registry import SECRET
from kubesvc.apiserver import stored
from kubesvc.client.transport import User
from kubesvc.store.protocol import Store

log = logging.getLogger(__name__)

TYPE = "bootstrap.kubernetes.io/token"
GROUP = "system:bootstrappers"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_EXTRA = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


async def authenticate(store: Store, token: str, now: Callable[[], datetime]) -> User | None:
    """Who a bearer token stands for; None where it is no bootstrap token, or not a good one."""
    parts = _TOKEN.fullmatch(token)
    if parts is None:
        return None
    item = await store.get(stored.key(SECRET, "kube-system", f"bootstrap-token-{parts[1]}"))
    found = user_of(stored.tree_of(item) if item is not None else None, parts[1], parts[2], now())
    if isinstance(found, User):
        return found
    log.info("bootstrap token %s was refused: %s", parts[1], found)
    return None


def user_of(secret: JSON | None, identity: str, shown: str, now: datetime) -> User | str:
    """The user, or why not."""
    if secret is None:
        return "there is no Secret of it"
    if secret["metadata"].get("deletionTimestamp"):
        return "its Secret is being deleted"
    if secret.get("type") != TYPE:
        return f"its Secret isn't of type {TYPE}"
    try:
        data = {name: base64.b64decode(value).decode() for name, value in (secret.get("data") or {}).items()}
    except ValueError:
        return "its Secret isn't text"
    if not hmac.compare_digest(data.get("token-secret", "").encode(), shown.encode()) or not shown:
        return "it is another secret"
    if data.get("token-id") != identity:
        return "its Secret is of another token-id"
    if _expired(data.get("expiration", ""), now):
        return "it has expired"
    if data.get("usage-bootstrap-authentication") != "true":
        return "it isn't for authentication"
    extra = [group.strip() for group in data.get("auth-extra-groups", "").split(",") if group.strip()]
    if wrong := [group for group in extra if not _EXTRA.fullmatch(group)]:
        return f"auth-extra-groups: {wrong[0]!r} isn't a group of {GROUP}"
    return User(f"system:bootstrap:{identity}", (GROUP, *sorted(set(extra))))


def _expired(text: str, now: datetime) -> bool:
    """A time that can't be read is over, as upstream has it."""
    if not text:
        return False
    try:
        return parse_time(text) <= now
    except ValueError:
        return True
