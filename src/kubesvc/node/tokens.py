"""The ServiceAccount tokens of one pod's volumes: asked for when it starts, and anew after 80 % of their life.

Each is bound to the pod, so that it ends with it; the node's own credential may ask for no other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

import msgspec

from kubesvc.api.errors import ApiError
from kubesvc.api.meta import parse_time
from kubesvc.api.pods import Pod, ServiceAccountTokenProjection
from kubesvc.api.registry import SERVICE_ACCOUNT
from kubesvc.client.session import Session, Unreachable
from kubesvc.node.environment import ConfigError

log = logging.getLogger(__name__)

_SHARE = 0.8  # of a token's life, after which it is replaced
_LONGEST = 24 * 3600.0  # seconds: no token is kept longer
_AGAIN = 10.0  # seconds until the next try, where a new one couldn't be had


class _Token(msgspec.Struct, frozen=True):
    text: str
    renew_at: float  # Unix time


class Tokens:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._tokens: dict[ServiceAccountTokenProjection, _Token] = {}

    def due(self, pod: Pod) -> float | None:
        """When (Unix time) the next token is to be asked for; None for a pod without tokens."""
        found = [self._tokens[wanted].renew_at if wanted in self._tokens else 0.0 for wanted in _wanted(pod)]
        return min(found, default=None)

    async def current(self, pod: Pod) -> dict[ServiceAccountTokenProjection, str]:
        """Every token of the pod; what is due is asked for first. An old one is kept where there is no new one.

        Raises ConfigError, ApiError, Unreachable where there is none at all."""
        now = time.time()
        due = [w for w in _wanted(pod) if w not in self._tokens or self._tokens[w].renew_at <= now]
        await asyncio.gather(*(self._renew(pod, wanted) for wanted in due))
        return {wanted: self._tokens[wanted].text for wanted in _wanted(pod)}

    async def _renew(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> None:
        known = self._tokens.get(wanted)
        try:
            self._tokens[wanted] = await self._ask(pod, wanted)
        except (ApiError, Unreachable) as error:
            if known is None:
                if isinstance(error, ApiError):
                    raise ConfigError(f"failed to fetch token: {error}") from error
                raise
            log.warning("pod %s/%s: its token can't be replaced yet: %s", *pod.key, error)
            self._tokens[wanted] = _Token(known.text, time.time() + _AGAIN)

    async def _ask(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> _Token:
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.metadata.uid}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [wanted.audience] if wanted.audience else [],
                "expirationSeconds": wanted.expiration_seconds,
                "boundObjectRef": bound,
            },
        }
        began = time.time()
        path = SERVICE_ACCOUNT.path(pod.namespace, pod.spec.service_account_name or "default", "token")
        answer = await self._session.raw("POST", path, body=msgspec.json.encode(body))
        status = msgspec.json.decode(answer.body)["status"]
        life = parse_time(status["expirationTimestamp"]).timestamp() - began
        return _Token(status["token"], began + min(life * _SHARE, _LONGEST))


def _wanted(pod: Pod) -> Iterator[ServiceAccountTokenProjection]:
    for volume in pod.spec.volumes:
        for source in volume.projected.sources if volume.projected is not None else ():
            if source.service_account_token is not None:
                yield source.service_account_token
