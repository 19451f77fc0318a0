"""TokenReview: whose is this token? For servers that are asked with one and can't verify it themselves."""

from __future__ import annotations

from kubesvc.api.errors import BadRequest
from kubesvc.api.meta import JSON
from kubesvc.apiserver import bootstraptokens
from kubesvc.apiserver.access.attributes import user_info
from kubesvc.apiserver.authentication.tokens import Refused
from kubesvc.apiserver.state import State


async def status(state: State, spec: JSON) -> JSON:
    """The status of a review. Raises BadRequest without a token."""
    token, audiences = spec.get("token"), spec.get("audiences") or []
    if not token or not isinstance(token, str):
        raise BadRequest("token is required for TokenReview in authentication")
    if not isinstance(audiences, list) or not all(isinstance(audience, str) for audience in audiences):
        raise BadRequest("spec.audiences: expected a list of strings")
    try:
        user, common = await state.tokens.verify(token, audiences)
    except Refused as refused:
        bootstrapper = await bootstraptokens.authenticate(state.store, token, state.clock)
        api = (state.tokens.issuer,)
        if bootstrapper is None or (audiences and api[0] not in audiences):
            return {"user": {}, "error": f"[invalid bearer token, {refused}]"}
        user, common = bootstrapper, api  # it says nothing of audiences: it is for the API
    return {"authenticated": True, "user": user_info(user), "audiences": list(common)}
