"""`Authorization: Bearer TOKEN`: authenticators are asked in turn, the first that knows the token says whose it is."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from kubesvc.apiserver import bootstraptokens
from kubesvc.apiserver.authentication.tokens import Refused
from kubesvc.apiserver.state import State
from kubesvc.client.transport import User

log = logging.getLogger(__name__)

Authenticator = Callable[[State, str], Awaitable[User]]
"""Whose a token is. Raises Refused for one that isn't good, or not of its kind."""


async def service_account(state: State, token: str) -> User:
    user, _ = await state.tokens.verify(token)
    return user


async def bootstrap(state: State, token: str) -> User:
    user = await bootstraptokens.authenticate(state.store, token, state.clock)
    if user is None:
        raise Refused("no bootstrap token either")
    return user


AUTHENTICATORS: tuple[Authenticator, ...] = (service_account, bootstrap)


async def authenticate(state: State, authorization: str) -> User | None:
    """Who has sent this header; None where it says nothing that is good."""
    scheme, _, token = authorization.strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        return None
    reasons = []
    for authenticator in AUTHENTICATORS:
        try:
            return await authenticator(state, token)
        except Refused as refused:
            reasons.append(str(refused))
    log.info("Unable to authenticate the request: invalid bearer token, %s", ", ".join(reasons))
    return None
