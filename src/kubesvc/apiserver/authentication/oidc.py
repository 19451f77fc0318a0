"""What others need to verify our tokens: OpenID Connect discovery and the public key (KEP-1393)."""

from __future__ import annotations

import msgspec

from kubesvc.api.meta import JSON
from kubesvc.apiserver.authentication.keys import ALGORITHM
from kubesvc.apiserver.state import State
from kubesvc.client.transport import Response

CONFIGURATION, KEYS = "/.well-known/openid-configuration", "/openid/v1/jwks"
_HEADERS = {"Cache-Control": "public, max-age=3600"}


def answer(state: State, path: str) -> Response | None:
    """The document at `path`; None where it is another's."""
    if path == CONFIGURATION:
        body: JSON = {
            "issuer": state.tokens.issuer,
            "jwks_uri": state.keys_url,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
        }
        return Response(200, msgspec.json.encode(body), dict(_HEADERS))
    if path == KEYS:
        body = {"keys": [state.tokens.key.jwk]}
        return Response(200, msgspec.json.encode(body), dict(_HEADERS), content_type="application/jwk-set+json")
    return None
